"""One device of a live run: the real agent on a database file, and the application on it, which does what a plan says.

Everything that the application does and sees, and every message, is written down before anybody else can act on it:
under the database's lock, which the agent's session and applications' writes hold while they work. After a kill the
application looks whether its last write is there, and does it again if not. Called by fleet.live.host.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import msgspec
import trio

from agent.changes import Change
from agent.config import AgentConfig
from agent.database import Database
from agent.events import ONLINE, Connected, Disconnected, Effect, Event, Received, Send
from agent.files import open_file
from agent.protocol.log import Log
from agent.protocol.messages import Key, decode_image
from agent.protocol.onetable.dates import from_ms
from agent.protocol.schema import Context, Schema
from agent.runtime.driver import Agent, Part
from agent.runtime.gate import Gate
from agent.runtime.parts import transport_of
from agent.runtime.settings import load
from agent.session import Session
from agent.system import SystemRandom
from fleet.live import sightings
from fleet.live.clock import DeviceClock, RunClock
from fleet.live.script import DeviceOp
from fleet.world.device import AgentTypes

_KIND_OF: Final = {"created": "create", "updated": "update", "removed": "delete"}
_DELETE_REVS: Final = 1 << 52  # numbers of removals: no write of a plan has one of these
COUNT_EVERY_S: Final = 0.5


class DeviceSetup(msgspec.Struct, frozen=True, kw_only=True):
    """One device, as the run gives it to a process. `config`: its configuration file, as `fleet-agent run` reads it."""

    id: str
    config: str
    offset_us: int = 0
    drift_ppb: int = 0
    ops: list[DeviceOp] = []


class LiveDevice:
    """`numbers`: of the session; a configuration file does not have all that a plan may set. Raises InputError."""

    def __init__(
        self,
        setup: DeviceSetup,
        schema: Schema,
        numbers: AgentConfig,
        types: AgentTypes,
        clock: RunClock,
        log: Log,
        *,
        stop_ms: int,
        limiter: trio.CapacityLimiter,
    ) -> None:
        self.setup = setup
        self.schema = schema
        self.clock = DeviceClock(clock, setup.offset_us, setup.drift_ppb)
        self.agent: Agent | None = None
        self.boots = 0
        self._run_clock = clock
        self._settings = load(setup.config)
        self._seen = sighted(Path(self._settings.database))
        self._numbers = msgspec.structs.replace(numbers, compact=self._settings.compact)
        self._types = types
        self._log = log
        self._stop_ms = stop_ms
        self._limiter = limiter
        self._random = SystemRandom()
        self._ended: trio.Event | None = None
        self._next_op = 0
        self._lives = any(model.ttl_attribute is not None for model in schema.models.values())
        self._delete_rev = 0
        self._told: Counter[str] = Counter()
        self._links: Counter[str] = Counter()
        self._is_connected = False
        self.write: sightings.Writer

    # ---------------------------------------------------------------- power

    @property
    def is_on(self) -> bool:
        return self.agent is not None

    async def run(self, started: Callable[[], object]) -> None:
        """From a boot until `stop`. `started` is called when the device is on."""
        self._ended = trio.Event()
        self._is_connected = False
        self._told.clear()
        self._links.clear()
        records = sightings.read(self._seen)
        self.write = sightings.Writer(self._seen, self._run_clock.now_us)
        try:
            with closing(open_file(self._settings.database)) as connection:
                database = self._open(connection, records)
                self.agent = self._agent(database)
                started()
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._application, database)
                    nursery.start_soon(self._count)
                    await self.agent.run()
                    nursery.cancel_scope.cancel()
                self._note_counts()
        finally:
            self.agent = None
            self.write.close()
            self._ended.set()

    async def stop(self) -> None:
        """In good order, as a shutdown does."""
        if self.agent is not None and self._ended is not None:
            self.agent.stop()
            await self._ended.wait()

    def _open(self, connection: Any, records: list[sightings.Sighting]) -> Database:
        context = Context(self.setup.id, self._settings.account)
        database: Database = self._types.database(
            connection,
            self.schema,
            context,
            monotonic_ms=self.clock.monotonic_ms,
            wall_ms=self.clock.wall_ms,
            random=self._random,
            store_type=self._types.store,
        )
        database.on("*", "*", self._changed)
        with database.lock:
            self._recall(database, records)
            if records:
                self.write("device_booted", self.setup.id)
                found = [(key, image.get("rev")) for _, key, image in database.items()]
                self.write("device_reads", self.setup.id, found)
        return database

    def _recall(self, database: Database, records: list[sightings.Sighting]) -> None:
        """Where the application goes on: behind the last write that is there."""
        self.boots = 1 + sum(name == "device_booted" for _, name, _ in records) if records else 0
        intent: sightings.Sighting | None = None
        for record in records:
            if record[1] == sightings.INTENT:
                intent = record
            elif record[1] == sightings.DONE:
                intent = None
                self._next_op = record[2][0] + 1
        if intent is None:
            return
        t_us, _, (number, key, kind, rev, before) = intent
        if any(t >= t_us and name == "device_wrote" for t, name, _ in records):
            self._next_op = number + 1  # all of it was seen but its end
            return
        visible = database.store.visible(*key)
        now = None if visible.image is None else decode_image(visible.image).get("rev")
        if now == (None if kind == "delete" else rev) and now != before:
            self.write.at(t_us, "device_wrote", self.setup.id, key, kind, rev, visible.updated, before)
            self.write.at(t_us, sightings.DONE, number)
            self._next_op = number + 1

    def _agent(self, database: Database) -> Agent:
        gate = Gate(self._settings.gate, self.clock.monotonic_ms(), self._chance)
        part = Part(self._numbers, transport_of(self._settings, self._limiter, self.clock.wall_ms), gate)
        return Agent(
            database,
            part,
            monotonic_ms=self.clock.monotonic_ms,
            chance=self._chance,
            log=self._log,
            threads=trio.CapacityLimiter(1),
            stop_ms=self._stop_ms,
            session_type=self._session_type(),
        )

    def _chance(self) -> float:
        return self._random.unit()

    def _session_type(self) -> type[Session]:
        """The session, or one with a planted bug, that writes down what comes and goes."""
        device, base, replica = self, self._types.session, self._types.replica

        class Watched(base):  # type: ignore[misc, valid-type]  # whichever class the run is made with
            """Tells of messages before they are read, and before they are sent."""

            def __init__(self, database: Database, config: AgentConfig, probes: Counter[str]) -> None:
                super().__init__(database, config, probes, replica)

            def receive(self, event: Event, now_ms: int) -> list[Effect]:
                with self.database.lock, device.write.at_once():
                    minted = self.mints
                    device._connected(event)
                    if isinstance(event, Received):
                        device.write("wire_down", device.setup.id, event.payload)
                    effects: list[Effect] = super().receive(event, now_ms)
                    for effect in effects:
                        if isinstance(effect, Send):
                            device.write("wire_up", device.setup.id, effect.payload)
                    if self.mints > minted:
                        device.write(sightings.MINTED, self.mints - minted)
                    return effects

        return Watched

    def _connected(self, event: Event) -> None:
        if isinstance(event, Connected):
            self._is_connected = True
            self._links["connects"] += 1
        elif isinstance(event, Disconnected) and self._is_connected:
            self._is_connected = False
            self._links["disconnects"] += 1

    # ---------------------------------------------------------------- the application

    async def _application(self, database: Database) -> None:
        """A write that is late, since the device was off or busy, is done at once."""
        ops, limiter = self.setup.ops, trio.CapacityLimiter(1)
        while self._next_op < len(ops):
            number = self._next_op
            await trio.sleep(self._run_clock.until_s(ops[number].at_us))
            await trio.to_thread.run_sync(self._do, database, number, limiter=limiter)
            self._next_op = number + 1

    @property
    def is_done(self) -> bool:
        return self._next_op >= len(self.setup.ops)

    def _do(self, database: Database, number: int) -> None:
        op = self.setup.ops[number]
        properties: dict[str, Any] = dict(op.properties)
        with database.lock:
            now_ms = database.clock.now_ms()
            properties.update({name: from_ms(now_ms + ms) for name, ms in op.ends.items()})
            key = self.schema.models[op.model].key(properties, database.context)
            visible = database.store.visible(*key).image
            before = None if visible is None else decode_image(visible).get("rev")
            self._delete_rev = _DELETE_REVS + number
            kind = "delete" if op.action == "remove" else "update" if before is not None else "create"
            rev = self._delete_rev if op.action == "remove" else properties["rev"]
            self.write(sightings.INTENT, number, key, kind, rev, before)
            getattr(database, op.action)(op.model, properties)
            self.write(sightings.DONE, number)

    def _changed(self, change: Change) -> None:
        """As fleet.world.device tells the oracle of a simulated device."""
        write, name = self.write, self.setup.id
        event = change.event
        if event == "expired":
            before = change.before
            rev = None if before is None else before.get("rev")
            write("device_expired", name, change.key, rev, change.updated, change.origin == "local")
        elif event not in _KIND_OF:  # a verdict
            write("device_verdict", name, change.key, change.updated, event)
        elif change.origin == "local":
            self._wrote(change, _KIND_OF[event])
        else:
            image = change.image
            write("device_saw", name, change.key, None if image is None else image.get("rev"), image)

    def _wrote(self, change: Change, kind: str) -> None:
        image, before = change.image, change.before
        rev = self._delete_rev if image is None else image.get("rev")
        if self._lives and image is not None:
            ends = self.schema.models[change.model].ttl_attribute or ""
            self.write("device_sets_end", change.key, rev, image.get(ends))
        was = None if before is None else before.get("rev")
        self.write("device_wrote", self.setup.id, change.key, kind, rev, change.updated, was)

    # ---------------------------------------------------------------- what is told

    async def _count(self) -> None:
        while True:
            await trio.sleep(COUNT_EVERY_S)
            self._note_counts()

    def _note_counts(self) -> None:
        """What has been counted since the last time: a kill loses half a second of it."""
        agent = self.agent
        if agent is None:
            return
        now = agent.probes + self._links
        fresh = {name: count - self._told[name] for name, count in now.items() if count != self._told[name]}
        if fresh:
            with agent.database.lock:
                self.write(sightings.COUNTED, fresh)
            self._told = Counter(now)

    def status(self) -> dict[str, Any]:
        """What the run wants to know now and then."""
        agent = self.agent
        if agent is None or agent.session is None:
            return {"on": self.is_on, "online": False, "done": self.is_done, "state": "off", "rows": 0, "cursors": {}}
        store = agent.database.store
        trouble = agent.failure or (agent.trouble.message if agent.trouble is not None else "")
        return {
            "on": True,
            "online": agent.session.state in ONLINE,
            "done": self.is_done,
            "state": agent.state,
            "rows": store.outbox_rows,
            "healing": agent.session.digests.is_healing,
            "cursors": {feed: list(store.cursors.get(feed) or ()) for feed in agent.session.replica.feeds},
            "trouble": trouble,
        }

    def note_final(self) -> None:
        """The last look: all that applications can read, and what waits to be sent."""
        agent = self.agent
        if agent is None:
            return
        database = agent.database
        with database.lock:
            items = [(key, image.get("rev"), image) for _, key, image in database.items()]
            sql = "SELECT pk, sk FROM outbox WHERE kind<>'sweep' ORDER BY n LIMIT 1"
            first: Key | None = database.store.execute(sql).fetchone()
            self.write(sightings.FINAL, items, database.store.outbox_rows, first)


def sighted(database: Path) -> Path:
    """Where that device's sightings are."""
    return database.with_suffix(".seen")
