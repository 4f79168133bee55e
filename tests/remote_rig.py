"""A device with a commander: the real database, session and commander on a clock that tests set. No thread; handlers
run when a test says so.

Used by the tests of remote commands. Nothing here decides anything: it carries out effects and records what was done.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any, Final

import msgspec
from device_rig import FEED, PK, Device
from relay_rig import NOW_MS

from agent.events import DISCONNECTED, Event
from agent.protocol.messages import (
    NO_IMAGE,
    Ack,
    FromDevice,
    Hello,
    Key,
    Row,
    Rows,
    Snapshot,
    SnapshotItem,
    Up,
    encode_image,
)
from agent.protocol.remote import COMMAND, RESULT
from agent.protocol.schema import Schema
from agent.remote.commander import Commander
from agent.remote.events import (
    LOOK,
    CommandConfig,
    Effect,
    Failed,
    Finished,
    Reboot,
    Reconnect,
    Run,
    WakeAt,
)
from agent.remote.events import Event as CommandEvent
from agent.remote.handlers import Handlers, perform

FILE: Final = Path(__file__).resolve().parent.parent / "scenarios" / "schemas" / "commands.json5"
SCHEMA: Final = Schema.load(FILE)
MINUTE_MS: Final = 60_000


class Blink(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    times: int = 1


def handlers() -> Handlers:
    made = Handlers()

    @made("fail")
    def _fail(_: Any) -> None:
        raise OSError("no such lamp " + "x" * 1000)

    made.add("blink", lambda blink: {"times": blink.times}, Blink)
    made.add("echo", lambda given: given, dict[str, Any])
    made.add("quiet", lambda _: None)
    return made


class Remote(Device):
    """`ran`: what was really done, (id, name), over all boots. `effects`: since they were last looked at."""

    def __init__(
        self,
        *,
        connection: sqlite3.Connection | None = None,
        commands: CommandConfig | None = None,
        commander_type: type[Commander] = Commander,
        schema: Schema = SCHEMA,
        **types: Any,
    ) -> None:
        super().__init__(connection=connection, schema=schema, **types)
        self.commands = commands or CommandConfig(settle_ms=0)
        self.commander_type = commander_type
        self.handlers = handlers()
        self.ran: list[tuple[str, str]] = []
        self.effects: list[Effect] = []
        self.boots = 0
        self.boot_id = ""  # "": another at each boot
        self.rev = 0
        self.confirms = True
        self.commander: Commander

    def boot(self) -> Remote:
        self.boots += 1
        super().boot()
        return self

    def open(self) -> Any:
        database = super().open()
        self.commander = self.commander_type(
            database,
            self.handlers,
            self.commands,
            boot_id=self.boot_id or f"boot-{self.boots}",
            probes=self.probes,
            extra=self._extra,
        )
        return database

    def _extra(self) -> dict[str, int]:
        self.rev += 1
        return {"rev": self.rev}

    def feed(self, event: Event) -> None:
        super().feed(event)
        self.give(LOOK)

    def give(self, event: CommandEvent) -> None:
        for effect in self.commander.receive(event, self.monotonic_ms()):
            self.effects.append(effect)
            if isinstance(effect, Run):
                self.ran.append((effect.id, effect.name))
            elif isinstance(effect, Reboot):
                self.ran.append((effect.id, "reboot"))
            elif isinstance(effect, Reconnect) and self.online:
                super().feed(DISCONNECTED)

    def look(self) -> None:
        self.give(LOOK)
        self.confirm()

    def finish(self) -> None:
        """Every handler that was started runs now."""
        for run in self.taken(Run):
            assert isinstance(run, Run)
            self.give(perform(self.handlers, run.id, run.name, run.arguments))
        self.confirm()

    def fail(self, command_id: str, message: str) -> None:
        self.give(Failed(command_id, message))
        self.confirm()

    def end(self, command_id: str, data: Any = None) -> None:
        self.give(Finished(command_id, data))
        self.confirm()

    def taken(self, kind: type[Effect]) -> list[Effect]:
        """The effects of a kind since the last call; all others are forgotten."""
        found = [effect for effect in self.effects if isinstance(effect, kind)]
        self.effects.clear()
        return found

    def waking_ms(self) -> int:
        """When the commander wants to be called, since the boot."""
        wakes = [effect.at_ms for effect in self.effects if isinstance(effect, WakeAt)]
        return wakes[-1]

    # ---------------------------------------------------------------- the relay, played

    def join(self) -> Remote:
        """Connected, adopted, told the time, a cursor in the feed after an empty snapshot."""
        self.boot()
        self.meet()
        return self

    def meet(self, *there: tuple[Key, dict[str, Any]]) -> None:
        """The device connects; the relay answers its hello, and sends a snapshot when the device has no cursor."""
        assert not self.online
        self.connect()
        self.meet_again(*there)

    def meet_again(self, *there: tuple[Key, dict[str, Any]]) -> None:
        """The same on a connection that is there."""
        self.meet_hello(next(message for message in self.sent()[::-1] if isinstance(message, Hello)))
        if "device" not in self.store.cursors:
            self.snapshot(*there)

    def meet_hello(self, hello: FromDevice) -> None:
        assert isinstance(hello, Hello)
        identity = self.store.identity
        known = identity.acked_u
        self.hear(Ack(epoch=identity.epoch, up=known, upid=identity.acked_id, now=self.set_ms, n=hello.n))
        self.acknowledge()

    def acknowledge(self) -> None:
        """Whatever is in flight is taken."""
        assert self.store.identity.adopted
        while self.store.in_flight and self.online:
            last = self.store.in_flight[-1]
            self.hear(Ack(epoch=self.store.identity.epoch, up=last.u, upid=last.id, now=self.set_ms))

    def snapshot(self, *there: tuple[Key, dict[str, Any]], seq: int = 5) -> None:
        items = [SnapshotItem(key, msgspec.Raw(encode_image(image))) for key, image in there]
        nonce = self.session.nonces["device"]
        self.hear(Snapshot(feed="device", nonce=nonce, epoch=FEED, seq=seq, part=0, parts=1, items=items))
        self.confirm()

    def confirm(self) -> None:
        """The relay takes what was sent, as it mostly does at once."""
        if self.confirms and self.online and self.store.identity.adopted:
            self.acknowledge()

    def order(self, command_id: str, name: str = "blink", **more: Any) -> None:
        """A command comes down as a row."""
        self.rows(command(command_id, name, **more))

    def rows(self, *written: tuple[Key, dict[str, Any]]) -> None:
        a = self.store.cursors["device"][1]
        made = [Row(key, msgspec.Raw(encode_image(image)) if image else NO_IMAGE) for key, image in written]
        self.hear(Rows(feed="device", epoch=FEED, a=a, b=a + len(made), last=a + len(made), rows=made))
        self.confirm()

    def order_in_base(self, command_id: str) -> None:
        """A command that is there, however it came."""
        key, image = command(command_id)
        self.store.put_base(*key, encode_image(image), 0)

    def withdraw(self, command_id: str) -> None:
        self.rows((command(command_id)[0], {}))

    # ---------------------------------------------------------------- what is there

    def result(self, command_id: str) -> dict[str, Any]:
        found = self.database.get(RESULT, {"id": command_id})
        assert found is not None
        return found

    def state(self, command_id: str) -> str:
        found = self.database.get(RESULT, {"id": command_id})
        return "" if found is None else str(found["state"])

    def states(self) -> dict[str, str]:
        return {found["id"]: found["state"] for found in self.database.find(RESULT)}

    def knows(self, command_id: str) -> bool:
        return self.database.get(COMMAND, {"id": command_id}) is not None


def command(
    command_id: str, name: str = "blink", *, args: Any = None, expires_ms: Any = NOW_MS + 10 * MINUTE_MS, **more: Any
) -> tuple[Key, dict[str, Any]]:
    image = {"_type": COMMAND, "deviceId": "home-1", "id": command_id, "rev": 1, "name": name, "expires": expires_ms}
    if args is not None:
        image["args"] = args
    return (PK, f"command#{command_id}"), {**image, "created": NOW_MS, "updated": NOW_MS, **more}


def ups(device: Remote) -> list[tuple[str, str]]:
    """(sort key, state) of the results that went out since the last look, in order."""
    found = []
    for message in device.sent():
        for op in message.ops if isinstance(message, Up) else ():
            if op.key[1].startswith("command-result#"):
                found.append((op.key[1], msgspec.json.decode(op.image)["state"]))
    return found
