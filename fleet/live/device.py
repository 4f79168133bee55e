"""One device of a live run: the real agent on a database file, and the application on it, which does what a plan says.

Everything that the application does and sees, and every message, is written down before anybody else can act on it:
under the database's lock, which the agent's session and applications' writes hold while they work. After a kill the
application looks whether its last write is there, and does it again if not. Called by fleet.live.host.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
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
from agent.protocol.remote import has_commands
from agent.protocol.schema import Context, Schema
from agent.runtime.driver import Agent, Part
from agent.runtime.gate import Gate
from agent.runtime.parts import transport_of
from agent.runtime.settings import load
from agent.session import Session
from agent.system import SystemRandom
from agent.transport.mqtt import MqttTransport
from agent.transport.port import Transport
from fleet.live import orders, sightings
from fleet.live.broker import NamedTls
from fleet.live.clock import DeviceClock, RunClock
from fleet.live.script import DeviceOp
from fleet.scenario.plan import CommandPlan
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
    server_name: str = ""  # of a broker with TLS: it is reached through a port of loopback


class LiveDevice:
    """`numbers`: of the session; a configuration file does not have all that a plan may set. `restart`: ends this
    process and starts another one, as a restart of the machine would. Raises InputError."""

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
        commands: CommandPlan,
        restart: Callable[[], Awaitable[str]],
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
        self._commands = commands if has_commands(schema) else None
        self._restart = restart
        self._executor: orders.LiveExecutor | None = None
        self._result_rev = orders.first_rev(setup.id)  # of the last result that was written
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
        database_type = self._types.database
        if self._commands is not None:
            database_type = orders.announcing(database_type, self._intends)
        database: Database = database_type(
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
            if self._commands is not None:
                self._executor = self._executor_of(database, self._commands)
            if records:
                self.write("device_booted", self.setup.id)
                found = [(key, image.get("rev")) for _, key, image in database.items()]
                self.write("device_reads", self.setup.id, found)
        return database

    def _recall(self, database: Database, records: list[sightings.Sighting]) -> None:
        """Where the application goes on: behind the last write that is there."""
        self.boots = 1 + sum(name == "device_booted" for _, name, _ in records) if records else 0
        intents: dict[tuple[Any, ...], sightings.Sighting] = {}  # of what was not seen to be written
        for record in records:
            name, arguments = record[1], record[2]
            if name == sightings.INTENT:
                number, key, _, rev, _ = arguments
                intents[*key, rev] = record
                if number is None:
                    self._result_rev = max(self._result_rev, rev)
            elif name == sightings.DONE:
                self._next_op = arguments[0] + 1
                intents = {at: one for at, one in intents.items() if one[2][0] != arguments[0]}
            elif name == "device_wrote":
                seen = intents.pop((*arguments[1], arguments[3]), None)
                if seen is not None and seen[2][0] is not None:
                    self._next_op = seen[2][0] + 1  # all of it was seen but its end
        for intent in intents.values():
            self._recall_write(database, intent)

    def _recall_write(self, database: Database, intent: sightings.Sighting) -> None:
        """Of a write that was about to be made when the process was killed: whether it is there."""
        t_us, _, (number, key, kind, rev, before) = intent
        visible = database.store.visible(*key)
        image = None if visible.image is None else decode_image(visible.image)
        now = None if image is None else image.get("rev")
        if now != (None if kind == "delete" else rev) or now == before:
            return
        place = self.schema.locate((key[0], key[1]))
        if self._lives and image is not None and place is not None:
            ends = place.model.ttl_attribute or ""
            self.write.at(t_us, "device_sets_end", key, rev, image.get(ends))
        self.write.at(t_us, "device_wrote", self.setup.id, key, kind, rev, visible.updated, before)
        if number is not None:
            self.write.at(t_us, sightings.DONE, number)
            self._next_op = number + 1

    def _agent(self, database: Database) -> Agent:
        gate = Gate(self._settings.gate, self.clock.monotonic_ms(), self._chance)
        part = Part(self._numbers, self._transport(), gate)
        return Agent(
            database,
            part,
            monotonic_ms=self.clock.monotonic_ms,
            chance=self._chance,
            log=self._log,
            threads=trio.CapacityLimiter(1),
            stop_ms=self._stop_ms,
            executor=self._executor,
            session_type=self._session_type(),
        )

    def _transport(self) -> Transport:
        transport = transport_of(self._settings, self._limiter, self.clock.wall_ms)
        if self.setup.server_name and isinstance(transport, MqttTransport):
            assert transport.settings.tls is not None
            tls: Any = NamedTls(transport.settings.tls, self.setup.server_name)
            transport.settings = msgspec.structs.replace(transport.settings, tls=tls)
        return transport

    def _executor_of(self, database: Database, plan: CommandPlan) -> orders.LiveExecutor:
        commander = orders.commander_of(
            self._types.commander,
            database,
            plan,
            boot=self.boots,
            status=lambda: {"waiting": database.store.outbox_rows, "reboots": self.boots},
            next_rev=self._next_result_rev,
        )

        def ran(command_id: str, name: str) -> None:
            with database.lock:
                self.write("command_ran", self.setup.id, command_id, name)

        return orders.LiveExecutor(commander, self._restart, self._log, ran)

    def _next_result_rev(self) -> int:
        self._result_rev += 1
        return self._result_rev

    def _intends(self, key: Key, kind: str, rev: int, before: int | None) -> None:
        self.write(sightings.INTENT, None, key, kind, rev, before)

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
            "busy": self._executor is not None and self._executor.commander.is_busy,
            "cursors": {feed: list(store.cursors.get(feed) or ()) for feed in agent.session.replica.feeds},
            "trouble": trouble,
        }

    def note_final(self) -> int:
        """A last look: all that applications can read, and what waits to be sent; how much that is."""
        agent = self.agent
        if agent is None:
            return 0
        database = agent.database
        with database.lock:
            items = [(key, image.get("rev"), image) for _, key, image in database.items()]
            sql = "SELECT pk, sk FROM outbox WHERE kind<>'sweep' ORDER BY n LIMIT 1"
            first: Key | None = database.store.execute(sql).fetchone()
            self.write(sightings.FINAL, items, database.store.outbox_rows, first)
            return database.store.outbox_rows


def sighted(database: Path) -> Path:
    """Where that device's sightings are."""
    return database.with_suffix(".seen")
