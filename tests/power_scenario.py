"""What a device does while its power may fail at any moment: each kind of transaction that the agent has, in a session
that joins, writes, sends, is answered in every way, loses its epoch, and is closed and opened again.

Each step says how many transactions it is allowed to make, and what must then be in the outbox: written by hand from
the rules in docs/protocol.md, not taken from a run. Messages of the relay are made by hand. Used by power_cut.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from device_rig import FEED, PK, Device
from device_schema import with_models
from relay_rig import NOW_MS, config, notice, setting

from agent.protocol.messages import (
    NO_IMAGE,
    Ack,
    HeadMark,
    Key,
    Reset,
    Row,
    Rows,
    Snapshot,
    SnapshotItem,
    encode_image,
)
from agent.protocol.onetable.dates import from_ms
from agent.store import ACKED, HELD, SENT, UNSENT, Store

STATES: Final = {UNSENT: "unsent", SENT: "sent", ACKED: "acked", HELD: "held"}
SCHEMA: Final = with_models("Meter", "Weather", "Session", "Alarm", "Task")  # period, in memory, lives, indexes


class Life:
    """A device on connections that `opened` makes."""

    def __init__(self, opened: Callable[[], sqlite3.Connection], store_type: type[Store]) -> None:
        self.opened = opened
        self.device = Device(connection=opened(), schema=SCHEMA, store_type=store_type)
        self.boot_id = ""  # of the batch in flight, over a boot

    # What the relay says. `up`: the last operation that it has, by its number in the epoch.

    def ack(self, up: int, *, hello: bool = False, **verdicts: str) -> None:
        session = self.device.session
        self.device.hear(
            Ack(
                epoch=session.store.identity.epoch,
                up=up,
                upid=(self.boot_id or session.boot_id) if up else None,
                now=self.device.set_ms,
                n=session._hello_n if hello else 0,
                verdicts={int(name[1:]): verdict for name, verdict in verdicts.items()},
            )
        )

    def rows(self, a: int, *rows: Row, feed: str = "device") -> None:
        end = a + len(rows)
        self.device.hear(Rows(feed=feed, epoch=FEED, a=a, b=end, last=end, rows=list(rows)))  # type: ignore[arg-type]

    def row(self, written: tuple[Key, dict[str, Any]], up: int = 0, *, gone: bool = False) -> Row:
        """`up`: the last own operation that the image contains."""
        session = self.device.session
        head = HeadMark(session.store.identity.epoch, up, session.boot_id) if up else None
        return Row(written[0], NO_IMAGE if gone else msgspec.Raw(encode_image(written[1])), head)

    def snapshot(self, feed: str, seq: int, *written: tuple[Key, dict[str, Any]], up: int = 0) -> None:
        session = self.device.session
        self.device.hear(
            Snapshot(
                feed=feed,  # type: ignore[arg-type]
                nonce=session.nonces[feed],  # type: ignore[index]
                epoch=FEED,
                seq=seq,
                part=0,
                parts=1,
                items=[SnapshotItem(key, msgspec.Raw(encode_image(image))) for key, image in written],
                head=HeadMark(session.store.identity.epoch, up, session.boot_id) if up else None,
            )
        )

    def write(self, action: str, model: str, **properties: Any) -> None:
        self.device.set_ms += 1_000
        getattr(self.device.database, action)(model, properties)

    def checkpoint(self, mode: str) -> None:
        self.device.connection.execute(f"PRAGMA wal_checkpoint({mode})")

    def reset(self) -> None:
        """The relay knows another epoch of this device: it was restored, or is a clone."""
        self.device.hear(Reset(hn=self.device.session.hn, head_epoch="another"))

    def close(self) -> None:
        self.boot_id = self.device.session.boot_id
        self.device.powered = False
        self.device.connection.close()

    def reopen(self) -> None:
        self.device.connection = self.opened()
        self.device.boot()

    def restart(self) -> None:
        """The agent's process ends and starts again, in good order: the file was not closed."""
        self.boot_id = self.device.session.boot_id
        self.device.off()
        self.device.boot()

    def outbox(self) -> tuple[str, ...]:
        """Each row as `u kind what state`, oldest first; a `*` where the feed has shown it."""
        if not self.device.powered:
            return ()
        return tuple(
            f"{row.u} {row.kind} {row.sk or '-'} {STATES[row.state]}{'*' * row.seen}"
            for row in self.device.store.outbox()
        )


@dataclass(frozen=True, slots=True)
class Step:
    name: str
    act: Callable[[Life], None]
    commits: int  # transactions that change something, one after the other; a cut may fall between them
    outbox: tuple[str, ...]


def _steps_up() -> list[Step]:
    """Joins; writes that are sent, wait and are squashed; an acknowledgement of the first."""
    batch = ("2 create status# sent",)
    return [
        Step("boot", lambda life: void(life.device.boot()), 3, ("1 sweep - unsent",)),
        Step("connect", lambda life: life.device.connect(), 0, ("1 sweep - unsent",)),
        Step("adopted", lambda life: life.ack(0, hello=True), 3, ("1 sweep - sent",)),
        Step("swept", lambda life: life.ack(1), 1, ()),
        Step("snapshot", lambda life: life.snapshot("device", 5, setting(1, "a"), setting(1, "b"), config(1)), 1, ()),
        Step("snapshot, account", lambda life: life.snapshot("account", 2, notice(1, "n")), 1, ()),
        Step("create", lambda life: life.write("create", "Status", rev=1), 1, batch),
        Step(
            "update in flight",
            lambda life: life.write("update", "Status", rev=2),
            1,
            (*batch, "3 update status# unsent"),
        ),
        Step("squash", lambda life: life.write("update", "Status", rev=3), 1, (*batch, "3 update status# unsent")),
        Step(
            "long",
            lambda life: life.write("create", "Fault", id="x", rev=1, text="long " * 2_000),
            1,
            (*batch, "3 update status# unsent", "4 create fault#x unsent"),
        ),
        Step(
            "create then remove",
            lambda life: life.write("remove", "Fault", id="x"),
            1,
            (*batch, "3 update status# unsent", "4 delete fault#x unsent"),
        ),
    ]


def void(_: object) -> None:
    """A step's action returns nothing."""


def _steps_both() -> list[Step]:
    """Writes of both directions, local ones, and what the feed and the relay say of a batch."""
    first = ("2 create status# sent", "3 update status# unsent", "4 delete fault#x unsent")
    batch = ("3 update status# sent", "4 delete fault#x sent")
    own = ("5 create setting#c sent", "6 update setting#a sent", "7 update setting#b sent")
    wrote = "7 update setting#b unsent"
    waiting = ("5 create setting#c unsent", "6 update setting#a unsent", wrote)
    later = ("8 create fault#y unsent",)
    seen = ("5 create setting#c sent*", *own[1:])
    return [
        Step("setting", lambda life: life.write("create", "Setting", name="c", rev=1), 1, (*first, waiting[0])),
        Step("setting a", lambda life: life.write("update", "Setting", name="a", rev=2), 1, (*first, *waiting[:2])),
        Step("setting b", lambda life: life.write("upsert", "Setting", name="b", rev=2), 1, (*first, *waiting)),
        Step("local", lambda life: life.write("upsert", "Diagnostic", name="d", rev=1), 1, (*first, *waiting)),
        Step("local gone", lambda life: life.write("remove", "Diagnostic", name="d"), 1, (*first, *waiting)),
        Step("acknowledged, next batch", lambda life: life.ack(2), 2, (*batch, *own)),
        Step("into the log", lambda life: life.checkpoint("PASSIVE"), 0, (*batch, *own)),
        Step("write in flight", lambda life: life.write("create", "Fault", id="y", rev=1), 1, (*batch, *own, *later)),
        Step("config", lambda life: life.rows(5, life.row(config(2))), 1, (*batch, *own, *later)),
        Step("gap", lambda life: life.rows(9, life.row(config(4))), 0, (*batch, *own, *later)),
        Step(
            "feed before the acknowledgement",
            lambda life: life.rows(6, life.row(setting(1, "c", NOW_MS + 9_000), 5), life.row(config(3))),
            1,
            (*batch, *seen, *later),
        ),
        Step(
            "verdicts",
            lambda life: life.ack(6, u4="size", u6="lost"),
            1,
            ("7 update setting#b sent", *later),
        ),
        Step("rejected", lambda life: life.ack(7, u7="unique"), 2, ("8 create fault#y sent",)),
        Step("emptied", lambda life: life.ack(8), 1, ()),
        Step("empty the log", lambda life: life.checkpoint("TRUNCATE"), 0, ()),
    ]


def _steps_epoch() -> list[Step]:
    """An acknowledged operation that waits for the feed, a new epoch, a restart, a close."""
    minted = (
        "1 create status#",
        "2 create fault#y",
        "3 sweep -",
        "4 create setting#f",
    )  # up models as the schema lists
    unsent = tuple(f"{row} unsent" for row in minted)
    sent = tuple(f"{row} sent" for row in minted)
    held = "9 create setting#e acked"
    return [
        Step("setting e", lambda life: life.write("create", "Setting", name="e", rev=1), 1, (f"{held[:-5]}sent",)),
        Step("waits for the feed", lambda life: life.ack(9), 1, (held,)),
        Step(
            "setting f",
            lambda life: life.write("create", "Setting", name="f", rev=1),
            1,
            (held, "10 create setting#f sent"),
        ),
        Step("new epoch", lambda life: life.reset(), 1, (held, *unsent)),
        Step("adopted again", lambda life: life.ack(0, hello=True), 2, (held, *sent[:2], *unsent[2:])),
        Step("restart", lambda life: life.restart(), 0, (held, *sent[:2], *unsent[2:])),
        Step("connect again", lambda life: life.device.connect(), 0, (held, *sent[:2], *unsent[2:])),
        Step("created again", lambda life: life.ack(2), 2, (held, sent[2], unsent[3])),
        Step("close", lambda life: life.close(), 0, ()),
        Step("open", lambda life: life.reopen(), 0, (held, sent[2], unsent[3])),
        Step("connect a third time", lambda life: life.device.connect(), 0, (held, sent[2], unsent[3])),
        Step(
            "write",
            lambda life: life.write("upsert", "Status", rev=9),
            1,
            (held, sent[2], unsent[3], "5 update status# unsent"),
        ),
    ]


def _together(life: Life) -> None:
    """Several items and models, one transaction: indexed, local, up, with and without an end."""
    ends = from_ms(life.device.set_ms + 30_000)
    with life.device.database.transaction():
        life.write("create", "Task", area="a", id="1", text="t")
        life.write("create", "Session", id="s", ttl=ends)
        life.write("create", "Alarm", id="a", ttl=ends)
        life.write("upsert", "Status", rev=10)


def _undone(life: Life) -> None:
    with suppress(ZeroDivisionError), life.device.database.transaction():
        life.write("update", "Task", area="a", id="1", text="u")
        life.write("remove", "Alarm", id="a")
        raise ZeroDivisionError


def _expire(life: Life) -> None:
    life.device.set_ms += 60_000
    life.device.database.expire()


def _weather(rev: int) -> tuple[Key, dict[str, Any]]:
    return (PK, "weather#w"), {"_type": "Weather", "deviceId": "home-1", "id": "w", "rev": rev}


def _steps_later() -> list[Step]:
    """Transactions, ends of lives, a period, items in memory; on top of what the steps before have left."""
    before = ("9 create setting#e acked", "3 sweep - sent", "4 create setting#f unsent", "5 update status# unsent")
    alarm = (*before, "6 create alarm#a unsent")
    ended = (*before, "6 delete alarm#a unsent")
    held = (*ended, "0 create meter#m held")
    released = (*ended, "7 create meter#m unsent")
    weather = (_weather(1), config(9), setting(1, "a"))
    return [
        Step("transaction", _together, 1, alarm),
        Step("undone", _undone, 0, alarm),
        Step("ends of lives", _expire, 1, ended),
        Step("held", lambda life: life.write("create", "Meter", id="m", rev=1), 1, held),
        Step("held, again", lambda life: life.write("update", "Meter", id="m", rev=2), 1, held),
        Step("period", lambda life: life.device.advance(60_000), 1, released),
        Step("into memory", lambda life: life.snapshot("device", 20, *weather), 1, released),
        Step("in memory alone", lambda life: life.rows(20, life.row(_weather(2))), 1, released),
        Step("removed", lambda life: life.write("remove", "Task", area="a", id="1"), 1, released),
        Step("compact", lambda life: void(life.device.database.compact()), 0, released),
        Step("restart without memory", lambda life: life.restart(), 1, released),
    ]


LATER: Final = _steps_later()
STEPS: Final = (*_steps_up(), *_steps_both(), *_steps_epoch(), *LATER)

# After a boot with what a power cut has left, whatever that is.
RECOVERY: Final = (
    Step("boot again", lambda life: void(life.device.boot()), 0, ()),
    Step("write again", lambda life: life.write("create", "Fault", id="again", rev=1), 0, ()),
    Step("change again", lambda life: life.write("upsert", "Status", rev=10), 0, ()),
    Step("empty the log again", lambda life: life.checkpoint("RESTART"), 0, ()),
    Step("remove again", lambda life: life.write("remove", "Fault", id="again"), 0, ()),
    Step("close again", lambda life: life.close(), 0, ()),
)
