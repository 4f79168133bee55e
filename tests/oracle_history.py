"""A hand-written history for the oracle: each method is one thing that happens, as a faultless system would tell it.

A test plays a story and then breaks one thing by hand. No agent, no relay, no simulator. Used by the oracle's tests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import msgspec

from agent.protocol.messages import (
    NO_IMAGE,
    Ack,
    Compared,
    FeedState,
    Hello,
    Key,
    Op,
    Row,
    Rows,
    Snapshot,
    SnapshotItem,
    Up,
    Wait,
    encode,
    encode_image,
)
from agent.protocol.schema import Schema
from fleet.oracle import CheckResult, Oracle, text_for
from fleet.oracle.damaged import HealBound

SCHEMA: Final = Path(__file__).resolve().parent / "oracle_models.json5"
STEP_US: Final = 1_000
START_MS: Final = 1_700_000_000_000
EPOCH: Final = "e" * 32
FEED_EPOCH: Final = "1700000000000" + "0" * 16


@cache
def schema() -> Schema:
    return Schema.load(SCHEMA)


class Latencies:
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.values: list[int] = []

    def add(self, value_us: int) -> None:
        self.values.append(value_us)


@dataclass(frozen=True)
class Change:
    """One commit of one item, as a table tells it."""

    key: Key
    old: Mapping[str, Any] | None
    new: Mapping[str, Any] | None
    by_ttl: bool = False


def status(device: str) -> Key:
    return (f"device#{device}", "status#")


def fault(device: str, name: str) -> Key:
    return (f"device#{device}", f"fault#{name}")


def config(device: str) -> Key:
    return (f"device#{device}", "config#")


def command(device: str, name: str) -> Key:
    return (f"device#{device}", f"command#{name}")


def result(device: str, name: str) -> Key:
    return (f"device#{device}", f"command-result#{name}")


def setting(device: str, name: str = "s1") -> Key:
    return (f"device#{device}", f"setting#{name}")


def notice(account: str, name: str = "n1") -> Key:
    return (f"account#{account}", f"notice#{name}")


def reading(device: str, name: str = "r1") -> Key:
    return (f"device#{device}", f"reading#{name}")


def order(device: str, name: str = "o1") -> Key:
    return (f"device#{device}", f"order#{name}")


def meter(device: str) -> Key:
    return (f"device#{device}", "meter#m1")


def tariff(account: str) -> Key:
    return (f"account#{account}", "tariff#t1")


def diagnostic(device: str) -> Key:
    return (f"device#{device}", "diagnostic#d1")


def audit(device: str) -> Key:
    return (f"device#{device}", "audit#a1")


class History:
    """Three devices: home-1 and home-2 of account main, away-1 of account other."""

    def __init__(self) -> None:
        self.up, self.down = Latencies(), Latencies()
        members = [("home-1", "main"), ("home-2", "main"), ("away-1", "other")]
        self.oracle = Oracle(schema(), members, latency_up=self.up, latency_down=self.down, start_ms=START_MS)
        self.oracle.heal_bound = HealBound(60_000_000, 10_000_000, 0)
        self.devices = [name for name, _ in members]
        self.t = 0
        self.rev = 0
        self.table: dict[Key, dict[str, Any]] = {}
        self.heads: dict[str, dict[str, Any]] = {}
        self.visible: dict[str, dict[Key, dict[str, Any]]] = {name: {} for name in self.devices}
        self.last_u: dict[str, int] = {}
        self.outbox: dict[str, list[Op]] = {name: [] for name in self.devices}
        self.seqs: dict[str, int] = {}
        self.logged: dict[str, list[tuple[int, Key]]] = {}
        self.delivered: dict[tuple[str, str], int] = {}
        self.identity_changes: dict[str, int] = {}
        self.up_payload: dict[str, bytes] = {}

    # ------------------------------------------------------------------ pieces

    def tick(self) -> int:
        self.t += STEP_US
        return self.t

    def next_rev(self) -> int:
        self.rev += 1
        return self.rev

    def pass_s(self, seconds: int) -> None:
        self.t += seconds * 1_000_000

    def stamp(self) -> int:
        return START_MS + self.t // 1000

    def life(self, life_s: int | None) -> dict[str, Any]:
        """What an item has whose life ends so many seconds from now."""
        return {} if life_s is None else {"ttl": self.stamp() // 1000 + life_s}

    def image(self, key: Key, rev: int) -> dict[str, Any]:
        place = schema().locate(key)
        assert place is not None
        return {"_type": place.model.name, "rev": rev, "text": text_for(rev, 80), "updated": self.stamp()}

    def commit(self, key: Key, new: dict[str, Any] | None, *, by_ttl: bool = False, at: int | None = None) -> None:
        """One record, as the table tells it."""
        old = self.table.get(key)
        if new is None:
            self.table.pop(key, None)
        else:
            self.table[key] = new
        self.oracle.committed(self.tick() if at is None else at, Change(key, old, new, by_ttl))

    def private(self, key: Key, new: dict[str, Any] | None, old: dict[str, Any] | None = None, **more: Any) -> None:
        self.oracle.committed(more.pop("at", None) or self.tick(), Change(key, old, new, **more))

    # ------------------------------------------------------------------ up

    def write(self, device: str, key: Key, kind: str = "update", **more: Any) -> int:
        """An application on the device writes; an operation waits in its outbox. Returns the rev."""
        rev = self.next_rev()
        t = self.tick()
        before = self.visible[device].get(key)
        fields = {**self.life(more.pop("life_s", None)), **more.pop("fields", {})}
        image = None if kind == "delete" else {**self.image(key, rev), **fields}
        before_rev = more.pop("before", None if before is None else before["rev"])
        if image is not None and "ttl" in image:
            self.oracle.device_sets_end(key, rev, image["ttl"])
        self.oracle.device_wrote(t, device, key, kind, rev, self.stamp(), before_rev, **more)
        self._set(device, key, image)
        self._operation(device, key, kind, image)
        return rev

    def expire(self, device: str, key: Key, *, own: bool = True) -> None:
        """An item is over: the device drops it, and what syncs up sends a delete; or sync says that it is gone."""
        rev = self.visible[device][key]["rev"]
        self._set(device, key, None)
        self.oracle.device_expired(self.tick(), device, key, rev, self.stamp(), own=own)
        if own:
            self._operation(device, key, "delete", None)

    def _operation(self, device: str, key: Key, kind: str, image: dict[str, Any] | None) -> None:
        place = schema().locate(key)
        if place is not None and place.model.sends:
            u = self.last_u[device] = self.last_u.get(device, 0) + 1
            raw = NO_IMAGE if image is None else msgspec.Raw(encode_image(image))
            self.outbox[device].append(Op(u, kind, f"id{u}", key, self.stamp(), raw))  # type: ignore[arg-type]

    def _set(self, device: str, key: Key, image: dict[str, Any] | None) -> None:
        if image is None:
            self.visible[device].pop(key, None)
        else:
            self.visible[device][key] = image

    def batch(self, device: str, ops: list[Op], epoch: str = EPOCH, *, compact: bool = False) -> bytes:
        return encode(Up(epoch=epoch, first_u=ops[0].u if ops else 1, ops=ops, hn="hn"), compact=compact)

    def send(self, device: str, payload: bytes | None = None, *, compact: bool = False) -> None:
        """The device sends all that waits."""
        if payload is None:
            payload = self.batch(device, self.outbox[device], compact=compact)
        self.up_payload[device] = payload
        self.oracle.wire_up(self.tick(), device, payload)

    def head(self, device: str, up: int, verdicts: Mapping[str, str] | None = None, **more: Any) -> None:
        old = self.heads.get(device)
        new = {"pk": f"_fleet#head#{device}", "sk": "head", "epoch": EPOCH, "up": up, "verdicts": dict(verdicts or {})}
        if up:
            new["upid"] = f"id{up}"
        new.update(more.pop("set", {}))
        self.heads[device] = new
        self.private((f"_fleet#head#{device}", "head"), new, old, **more)

    def item_of(self, device: str, op: Op) -> dict[str, Any]:
        image = msgspec.json.decode(op.image)
        return {**image, "pk": op.key[0], "sk": op.key[1], "_op": [device, EPOCH, op.u, op.id]}

    def ingest(self, device: str, verdicts: Mapping[str, str] | None = None, *, head_first: bool = True) -> None:
        """The relay commits everything that waits, in one transaction."""
        t = self.tick()
        ops = self.outbox[device]
        moved = {"at": t}
        if head_first:
            self.head(device, ops[-1].u, verdicts, **moved)
        last = {op.key: op for op in ops if not (verdicts or {}).get(str(op.u))}
        for key, op in last.items():
            if op.kind == "delete":
                if key in self.table:
                    self.commit(key, None, at=t)
            else:
                self.commit(key, self.item_of(device, op), at=t)
        if not head_first:
            self.head(device, ops[-1].u, verdicts, **moved)

    def ack(self, device: str, up: int | None = None, verdicts: Mapping[int, str] | None = None, **more: Any) -> None:
        up = self.heads[device]["up"] if up is None else up
        verdicts = {int(u): v for u, v in self.heads[device]["verdicts"].items()} if verdicts is None else verdicts
        message = Ack(epoch=more.get("epoch", EPOCH), up=up, now=self.stamp(), upid=more.get("upid", f"id{up}"))
        message = msgspec.structs.replace(message, n=more.get("n", 0))
        message = msgspec.structs.replace(message, verdicts=verdicts)
        self.oracle.wire_down(self.tick(), device, encode(message, compact=more.get("compact", False)))

    def verdicts(self, device: str) -> None:
        """The device tells its applications, and drops its operations."""
        held = self.heads[device]["verdicts"]
        for op in self.outbox[device]:
            code = held.get(str(op.u), "")
            verdict = "synced" if not code else "lost" if code == "lost" else "rejected"
            self.oracle.device_verdict(self.tick(), device, op.key, op.updated, verdict)
        self.outbox[device] = []

    def sync_up(self, device: str) -> None:
        """Everything that waits goes its way."""
        self.send(device)
        self.ingest(device)
        self.ack(device)
        self.verdicts(device)

    # ------------------------------------------------------------------ down

    def cloud(self, key: Key, kind: str = "put", life_s: int | None = None, **fields: Any) -> int:
        """A cloud application writes. Returns the rev."""
        rev = self.next_rev()
        self.oracle.cloud_wrote(self.tick(), key, rev, kind)
        if kind == "delete":
            self.commit(key, None)
        else:
            self.commit(key, {"pk": key[0], "sk": key[1], **self.image(key, rev), **self.life(life_s), **fields})
        return rev

    def sweep(self, key: Key) -> None:
        """The table takes an item whose life is over."""
        self.commit(key, None, by_ttl=True)

    def feed_of(self, key: Key) -> str:
        place = schema().locate(key)
        assert place is not None
        if place.model.feed == "device":
            return f"device#{place.device_id}"
        return f"account#{place.account_id}"

    def log(self, key: Key, item: Mapping[str, Any] | str | None = "present", **more: Any) -> None:
        """The sequencer appends a row."""
        feed = more.pop("feed", self.feed_of(key))
        seq = more.pop("seq", self.seqs.get(feed, 0) + 1)
        epoch = more.pop("epoch", FEED_EPOCH)
        self.seqs[feed] = seq
        self.logged.setdefault(feed, []).append((seq, key))
        row: dict[str, Any] = {"pk": f"_fleet#log#{feed}", "sk": f"{epoch}#{seq:012d}", "key": list(key), "ttl": 9}
        found = self.table.get(key) if item == "present" else item
        if found is not None:
            row["image"] = public(found)  # type: ignore[arg-type]
        row.update(more.pop("set", {}))
        self.private((row["pk"], row["sk"]), row, more.pop("old", None), **more)

    def rows(self, device: str, key: Key, *, compact: bool = False) -> None:
        """A push of the last row."""
        item = self.table.get(key)
        raw = _raw(item)
        feed: Any = self.feed_of(key).partition("#")[0]
        seq = self.seqs.get(self.feed_of(key), 1)
        message = Rows(feed=feed, epoch=FEED_EPOCH, a=seq - 1, b=seq, last=seq, rows=[Row(key, raw)])
        if self.delivered.get((device, self.feed_of(key)), 0) == seq - 1:
            self.delivered[device, self.feed_of(key)] = seq
        self.oracle.wire_down(self.tick(), device, encode(message, compact=compact))

    def catch_up(self, device: str, feed: str, without: Key | None = None) -> None:
        """Everything logged since the last delivery, in one message, the last row of each item."""
        a, b = self.delivered.get((device, feed), 0), self.seqs.get(feed, 0)
        if b > a:
            kind: Any = feed.partition("#")[0]
            keys = dict.fromkeys(key for seq, key in self.logged[feed] if seq > a and key != without)
            rows = [Row(key, _raw(self.table.get(key))) for key in keys]
            message = Rows(feed=kind, epoch=FEED_EPOCH, a=a, b=b, last=b, rows=rows)
            self.delivered[device, feed] = b
            self.logged[feed] = [entry for entry in self.logged[feed] if entry[0] > b - 50]
            self.oracle.wire_down(self.tick(), device, encode(message))

    def see(self, device: str, key: Key, image: Mapping[str, Any] | str | None = "present") -> None:
        """Sync changes what the device's applications read."""
        found = self.table.get(key) if image == "present" else image
        shown = None if found is None else public(found)  # type: ignore[arg-type]
        self._set(device, key, shown)
        self.oracle.device_saw(self.tick(), device, key, None if shown is None else shown.get("rev"), shown)

    def push(self, device: str, key: Key) -> None:
        """Logged, pushed, shown."""
        self.log(key)
        self.rows(device, key)
        self.see(device, key)

    def hello(self, device: str, feed: Any = "device", seq: int | None = None, nonce: str = "n1") -> None:
        owner = device if feed == "device" else "main"
        at = self.seqs.get(f"{feed}#{owner}", 0) if seq is None else seq
        state = FeedState(nonce, FEED_EPOCH, at)
        message = Hello(epoch=EPOCH, hn="hn", n=1, schema="0.0.1", feeds={feed: state})
        self.oracle.wire_up(self.tick(), device, encode(message))

    def snapshot(self, device: str, keys: list[Key], nonce: str = "n1", seq: int = 0, feed: Any = "device") -> None:
        items = [SnapshotItem(key, msgspec.Raw(encode_image(public(self.table[key])))) for key in keys]
        message = Snapshot(feed=feed, nonce=nonce, epoch=FEED_EPOCH, seq=seq, part=0, parts=1, items=items)
        self.oracle.wire_down(self.tick(), device, encode(message))

    def compared(self, device: str, heal: Sequence[str] = ()) -> None:
        message = Compared(hn="hn", n=1, differs=dict.fromkeys(heal, "1" * 16), heal=list(heal))
        self.oracle.wire_down(self.tick(), device, encode(message))

    def wait(self, device: str, retry_s: int) -> None:
        self.oracle.wire_down(
            self.tick(), device, encode(Wait(hn="hn", retry_after=1_000 * retry_s, reason="overload"))
        )

    def lose(self, device: str, key: Key) -> None:
        """From the device's disk, silently."""
        del self.visible[device][key]
        self.oracle.device_damaged(self.tick(), device, key)
        self.oracle.damage_done(device, "Config")

    def lose_in_table(self, key: Key) -> None:
        """From the table, silently."""
        del self.table[key]
        self.oracle.table_damaged(self.tick(), key, None)

    def change(self, device: str, key: Key) -> None:
        """In the table, silently: another state, which no stream and no commit tells of."""
        self.table[key] = {**self.image(key, self.next_rev()), "pk": key[0], "sk": key[1]}
        self.oracle.table_damaged(self.tick(), key, self.table[key])
        self.oracle.damage_done(device, "Config")

    def heal(self, device: str, key: Key, waited_s: int = 10) -> None:
        """They agree again; by what message makes no difference."""
        self.see(device, key)
        self.oracle.damage_healed(self.tick(), device, key, "Config", waited_s * 1_000_000)

    def boot(self, device: str, in_file: Sequence[Key] = (), kept: Sequence[Key] = ()) -> None:
        """What was in memory is gone, but for `kept`, and is brought again."""
        held = self.visible[device]
        gone = [key for key in held if key[1].startswith("tariff#") and key not in kept]
        for key in gone:
            del held[key]
        self.oracle.device_booted(self.tick(), device)
        self.oracle.device_file(self.t, device, in_file)
        self.oracle.device_reads(device, [(key, image["rev"]) for key, image in held.items()])
        for key in gone:
            self.see(device, key)

    # ------------------------------------------------------------------ commands

    def order(self, device: str, name: str, life_s: int = 60) -> None:
        """The cloud gives a command that expires so many seconds from now, and it comes to the device."""
        self.cloud(command(device, name), expires=self.stamp() + life_s * 1000)
        self.push(device, command(device, name))

    def answer(self, device: str, name: str, state: str) -> None:
        """The device writes the result, and it gets to the cloud."""
        there = result(device, name) in self.visible[device]
        self.write(device, result(device, name), "update" if there else "create", fields={"state": state})
        self.sync_up(device)

    def run(self, device: str, name: str, what: str = "blink") -> None:
        """It is done."""
        self.oracle.command_ran(self.tick(), device, name, what)

    def obey(self, device: str, name: str, what: str = "blink", state: str = "done") -> None:
        """Recorded, done, answered."""
        self.answer(device, name, "started")
        self.run(device, name, what)
        self.answer(device, name, state)

    # ------------------------------------------------------------------ the end

    def finish(self) -> dict[str, CheckResult]:
        results = self.oracle.finish(
            self.tick(),
            lambda name: [(key, image["rev"], image) for key, image in self.visible[name].items()],
            self.table.values(),
            {name: len(ops) for name, ops in self.outbox.items()},
            self.identity_changes,
        )
        return {result.name: result for result in results}

    def results(self) -> dict[str, CheckResult]:
        return {result.name: result for result in self.oracle.results()}


def _raw(item: Mapping[str, Any] | None) -> msgspec.Raw:
    return NO_IMAGE if item is None else msgspec.Raw(encode_image(public(item)))


def public(item: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in item.items() if name not in ("pk", "sk", "_op", "_orphan")}
