"""A device on a clock that tests set, and a pair: that device and a real relay on a memory table, with a wire between
them that loses, repeats, reorders and holds back what the test says.

Used by the tests of the agent. Nothing here decides anything: it carries out effects, steps and records.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Final

from relay_rig import NOW_MS, SCHEMA, Rig, Task

from agent.changes import Change
from agent.config import AgentConfig
from agent.database import Database
from agent.events import (
    BOOT,
    CONNECTED,
    DISCONNECTED,
    LOCAL_CHANGE,
    ONLINE,
    TIMER,
    Connect,
    Disconnect,
    Event,
    Received,
    Send,
    State,
)
from agent.files import open_memory
from agent.protocol.messages import FromDevice, ToDevice, decode_from_device, encode
from agent.protocol.schema import Context, Schema
from agent.replica import Replica
from agent.session import NEVER, Session
from agent.store import Store
from cloud.config import RelayConfig
from cloud.relay import Relay
from cloud.table import Record
from fleet.rng import rng

PK: Final = "device#home-1"  # the hash key of the device's own items
FEED: Final = "1700000000000" + "0" * 16  # a feed epoch
TABLES: Final = ("item", "outbox", "cursor", "identity", "dead_letter", "item_index", "note")


class PowerCut(BaseException):
    """No code of the agent may catch it."""


def arm(store: Store, statements: int) -> None:
    """The power fails before the statement that would come after so many."""
    execute = store.execute
    left = statements

    def count(sql: str, values: Any = ()) -> sqlite3.Cursor:
        nonlocal left
        if left <= 0:
            store.execute = execute
            raise PowerCut
        left -= 1
        return execute(sql, values)

    store.execute = count


def dump(connection: sqlite3.Connection) -> dict[str, list[tuple[Any, ...]]]:
    """The whole database, to compare with another time."""
    return {name: connection.execute(f"SELECT * FROM {name} ORDER BY 1, 2").fetchall() for name in TABLES}


def memory_of(store: Store) -> tuple[Any, ...]:
    """All that a store keeps beside its file."""
    return (
        store.identity,
        store.cursors,
        store.in_flight,
        store.outbox_rows,
        store.unsent_rows,
        store.epoch_next_u,
        store.held_due_ms,
        store.sweep_n,
    )


def fresh_memory(connection: sqlite3.Connection) -> tuple[Any, ...]:
    """What a store that is opened now would keep."""
    store = Store(connection)
    store.load()
    return memory_of(store)


class Device:
    """The real database and session on one connection. `sent` has what went out since it was last looked at."""

    def __init__(
        self,
        *,
        connection: sqlite3.Connection | None = None,
        schema: Schema = SCHEMA,
        config: AgentConfig | None = None,
        device_id: str = "home-1",
        account: str = "main",
        seed: int = 1,
        now_ms: Callable[[], int] | None = None,
        session_type: type[Session] = Session,
        replica_type: type[Replica] = Replica,
        store_type: type[Store] = Store,
        database_type: type[Database] = Database,
    ) -> None:
        self.connection = connection or open_memory()
        self.schema = schema
        self.config = config or AgentConfig()
        self.context = Context(device_id, account)
        self.random = rng(seed, device_id, "agent")
        self.set_ms = NOW_MS  # the true time, unless `now_ms` says it
        self.now_ms = now_ms or (lambda: self.set_ms)
        self.wall_offset_ms = 0
        self.booted_ms = 0
        self.probes: Counter[str] = Counter()
        self.changes: list[Change] = []
        self.out: list[bytes] = []
        self.types = (session_type, replica_type, store_type, database_type)
        self.connecting = False
        self.powered = False
        self.late_news = False  # a driver with threads: the session hears of writes when `tell` is called
        self.news = False
        self.database: Database
        self.session: Session

    # ---------------------------------------------------------------- power

    def open(self) -> Database:
        """The database alone, as an application sees it before the agent runs."""
        self.booted_ms = self.now_ms()
        self.database = self.types[3](
            self.connection,
            self.schema,
            self.context,
            monotonic_ms=self.monotonic_ms,
            wall_ms=lambda: self.now_ms() + self.wall_offset_ms,
            random=self.random,
            store_type=self.types[2],
        )
        self.database.on("*", "*", self.changes.append)
        return self.database

    def boot(self) -> Device:
        self.open()
        self.session = self.types[0](self.database, self.config, self.probes, self.types[1])
        self.database.on_outbox = self._wrote
        self.powered = True
        self.connecting = self.news = False
        self.out.clear()
        self.feed(BOOT)
        return self

    def _wrote(self) -> None:
        self.news = True
        if not self.late_news:
            self.tell()

    def tell(self) -> None:
        """The session hears that something was written."""
        if self.news:
            self.news = False
            self.feed(LOCAL_CHANGE)

    def off(self) -> None:
        """At once. What was not committed is gone."""
        self.powered = self.connecting = False
        if self.connection.in_transaction:
            self.connection.rollback()

    def monotonic_ms(self) -> int:
        return self.now_ms() - self.booted_ms

    # ---------------------------------------------------------------- events

    def feed(self, event: Event) -> None:
        for effect in self.session.receive(event, self.monotonic_ms()):
            if isinstance(effect, Send):
                self.out.append(effect.payload)
            elif isinstance(effect, Connect):
                self.connecting = True
            elif isinstance(effect, Disconnect):
                self.connecting = False

    def hear(self, *messages: ToDevice | bytes) -> None:
        for message in messages:
            self.feed(Received(message if isinstance(message, bytes) else encode(message)))

    def tick(self) -> None:
        """The timer, if it is due."""
        if self.session.timer_at_ms <= self.monotonic_ms():
            self.feed(TIMER)

    def advance(self, by_ms: int) -> None:
        """Time passes; the timer rings whenever it is due. For a device with a clock of its own."""
        end = self.set_ms + by_ms
        while self.session.timer_at_ms < NEVER and self.booted_ms + self.session.timer_at_ms <= end:
            self.set_ms = max(self.set_ms, self.booted_ms + self.session.timer_at_ms)
            self.feed(TIMER)
        self.set_ms = end

    def connect(self) -> None:
        """Past the jitter, and a connection that comes up at once."""
        while not self.connecting:
            self.advance(max(0, self.booted_ms + self.session.timer_at_ms - self.set_ms))
        self.connecting = False
        self.feed(CONNECTED)

    def drop(self) -> None:
        self.connecting = False
        self.feed(DISCONNECTED)

    @property
    def online(self) -> bool:
        return self.powered and self.session.state in ONLINE

    def sent(self) -> list[FromDevice]:
        """What went out since the last call."""
        messages = [decode_from_device(payload) for payload in self.out]
        self.out.clear()
        return messages

    @property
    def store(self) -> Store:
        return self.database.store

    def events(self) -> list[str]:
        """The names of the changes since the last call."""
        names: list[str] = [change.event for change in self.changes]
        self.changes.clear()
        return names

    def dump(self) -> dict[str, list[tuple[Any, ...]]]:
        return dump(self.connection)

    def visible(self) -> dict[tuple[str, str], dict[str, Any]]:
        return {key: image for _, key, image in self.database.items()}


class Pair:
    """A device, a relay, and the wire. What was sent waits in `up` and `down` until a test delivers it; `heard` and
    `told` hold everything that ever was on the wire, to be delivered again."""

    def __init__(
        self,
        *,
        seed: int = 1,
        config: AgentConfig | None = None,
        settings: RelayConfig | None = None,
        relay_type: type[Relay] = Relay,
        schema: Schema = SCHEMA,
        device_type: type[Device] = Device,
        **types: Any,
    ) -> None:
        self.rig = Rig(settings, schema, relay_type=relay_type)
        self.device = device_type(seed=seed, config=config, schema=schema, now_ms=lambda: self.rig.now_ms, **types)
        self.up: list[bytes] = []
        self.down: list[bytes] = []
        self.heard: list[bytes] = []  # by the relay
        self.told: list[bytes] = []  # to the device
        self.tasks: list[Task] = []
        self.records: list[Record] = []  # of the table's stream, not taken by a worker
        self._taken: list[tuple[Task, Record]] = []
        self.old_records: list[Record] = []
        self.on_wire_up: Callable[[bytes], None] = lambda payload: None

    # ---------------------------------------------------------------- the device

    def collect(self) -> None:
        """What the device sent goes on the wire; what the relay published too."""
        for payload in self.device.out:
            self.on_wire_up(payload)
            self.up.append(payload)
        self.device.out.clear()
        published = self.rig.published
        for message in published:
            if message.topic in ("ioto/device/home-1/sync", "ioto/account/main/sync", "ioto/account/all/sync"):
                self.down.append(message.payload)
        published.clear()
        self.records.extend(self.rig.records())

    def act(self, action: Callable[[], Any]) -> Any:
        """Something on the device. None, and the device is off, when the power failed."""
        try:
            result = action()
        except PowerCut:
            self.device.off()
            result = None
        self.collect()
        return result

    def write(self, action: str, model: str, properties: Mapping[str, Any]) -> Any:
        return self.act(lambda: getattr(self.device.database, action)(model, properties))

    def pass_time(self, by_ms: int) -> None:
        """The clock jumps; a timer that was due rings once, late."""
        self.rig.now_ms += by_ms
        if self.device.powered:
            self.act(self.device.tick)

    def connect(self) -> None:
        """On power, past every jitter, until the connection is up."""
        device = self.device
        if not device.powered:
            self.act(device.boot)
        while device.powered and not device.online:
            if device.connecting:
                device.connecting = False
                self.act(lambda: device.feed(CONNECTED))
            else:
                self.pass_time(max(0, device.booted_ms + device.session.timer_at_ms - self.rig.now_ms))

    def disconnect(self) -> None:
        if self.device.online or self.device.session.state is State.CONNECTING:
            self.act(self.device.drop)

    # ---------------------------------------------------------------- the wire

    def deliver_up(self, payload: bytes) -> None:
        self.heard.append(payload)
        self.tasks.append(Task(self.rig, self.rig.relay.on_message("home-1", payload)))

    def deliver_down(self, payload: bytes) -> None:
        if self.device.online:
            self.told.append(payload)
            self.act(lambda: self.device.hear(payload))

    # ---------------------------------------------------------------- the relay

    def sequence(self, record: Record) -> None:
        """A worker takes a record of the stream."""
        task = Task(self.rig, self.rig.relay.on_record(record))
        self.tasks.append(task)
        self._taken.append((task, record))

    def kill(self, index: int) -> None:
        """A worker ends between two requests. Its record, if it had one, was not checkpointed: it comes again."""
        task = self.tasks.pop(index)
        for entry in self._taken:
            if entry[0] is task:
                self._taken.remove(entry)
                self.records.append(entry[1])
                return

    def step(self, index: int) -> None:
        task = self.tasks[index]
        if not task.done:
            task.step()
        if task.done:
            self.tasks.remove(task)
            for entry in self._taken:
                if entry[0] is task:
                    self._taken.remove(entry)
                    self.old_records.append(entry[1])
                    break
        self.collect()

    # ---------------------------------------------------------------- all's well

    def settle(self) -> None:
        """Nothing is lost any more: every task, record and message, in order, until nothing is left to do."""
        for _ in range(10_000):
            self.collect()
            if self.tasks:
                self.step(0)
            elif self.records:
                self.sequence(self.records.pop(0))
            elif self.up:
                self.deliver_up(self.up.pop(0))
            elif self.down:
                self.deliver_down(self.down.pop(0))
            else:
                return
        raise AssertionError("the pair does not come to rest")

    def drain(self, for_ms: int = 60 * 60_000) -> None:
        """Heals: connected, everything delivered, for some periods of the hello."""
        end_ms = self.rig.now_ms + for_ms
        while self.rig.now_ms < end_ms:
            self.connect()
            self.act(self.device.tell)
            self.settle()
            at_ms = self.device.booted_ms + self.device.session.timer_at_ms
            self.pass_time(max(1, at_ms - self.rig.now_ms))
        self.connect()
        self.settle()
