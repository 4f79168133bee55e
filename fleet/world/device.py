"""One simulated device: power, clock, link, and the real Database and Session of the agent on an SQLite of its own.

Carries out the session's effects on the simulated broker, and tells the oracle what applications on the device did and
saw. Decides nothing about faults (fleet.world.faults) and writes nothing of its own (fleet.world.workload).
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from agent import search
from agent.changes import Change
from agent.config import AgentConfig
from agent.database import Database
from agent.events import (
    BOOT,
    CONNECTED,
    DISCONNECTED,
    LOCAL_CHANGE,
    STOP,
    TIMER,
    Connect,
    Disconnect,
    Effect,
    Event,
    Received,
    Send,
    SetTimer,
)
from agent.files import open_memory
from agent.protocol import topics
from agent.protocol.errors import ModelError
from agent.protocol.messages import Key, decode_image
from agent.protocol.schema import Context, Schema
from agent.remote.commander import Commander
from agent.replica import Replica
from agent.session import NEVER, Session
from agent.store import Store
from fleet.oracle import Oracle
from fleet.rng import rng
from fleet.scenario.plan import CommandPlan, DevicePlan, GroupPlan
from fleet.trace import Trace
from fleet.world import disk, fuse
from fleet.world.broker import Broker
from fleet.world.clock import Clock
from fleet.world.connection import Connection, Will
from fleet.world.executor import Executor
from fleet.world.link import Link, Profile
from fleet.world.rollout import refused

START_MS: Final = 1_767_225_600_000  # virtual time 0: 2026-01-01T00:00:00Z
FUSE_STATEMENTS_MAX: Final = 16  # more than any one message runs
FUSE_WAIT_US: Final = 30_000_000  # a device that does nothing loses power all the same
_PPB: Final = 1_000_000_000
_KIND_OF: Final = {"created": "create", "updated": "update", "removed": "delete"}


@dataclass(slots=True)
class AgentTypes:
    """The agent's classes that a world is built with: the real ones, or one with a planted bug."""

    database: type[Database] = Database
    session: type[Session] = Session
    replica: type[Replica] = Replica
    store: type[Store] = Store
    commander: type[Commander] = Commander
    wants_puback: bool = False


@dataclass(slots=True)
class Surroundings:
    """What all devices of a world share."""

    clock: Clock
    broker: Broker
    schema: Schema
    oracle: Oracle
    trace: Trace
    probes: Counter[str]
    seed: int
    types: AgentTypes
    configs: Mapping[str, AgentConfig]  # by encoding
    ends: Mapping[str, str]  # model -> the attribute that ends its items' lives; empty for most schemas
    in_memory: bool  # whether the schema has items that are kept in memory
    orders: Oracle  # judges what commands do, also on a copy of a device
    first_rev: Callable[[str, str], int] | None  # where the schema has remote commands: numbers for their results
    commands: CommandPlan
    mixed: bool = False  # whether devices may have other schemas than the scenario's


class SimDevice:
    """The broker's client, the session's driver, and the applications' handle on the database."""

    __slots__ = (
        "_booted_us", "_drift_ppb", "_generation", "_is_other_disk", "_mints", "_next_drift_ppb", "_offset_us",
        "_read_ms", "_read_us", "_topic", "_wake_ms", "_wakes", "account", "config", "conn", "context",
        "database", "delete_rev", "device_id", "disk", "executor", "faults", "full", "group", "link", "powered",
        "random", "reboots", "region", "result_rev", "schema", "session", "stream", "subscriptions", "tie",
        "wants_puback", "will", "world",
    )  # fmt: skip

    def __init__(self, world: Surroundings, plan: DevicePlan, group: GroupPlan, profile: Profile) -> None:
        self.world = world
        self.device_id = plan.id
        self.group = group.name
        self.account = group.account
        self.region = group.region
        self.context = Context(plan.id, group.account)
        self.schema = world.schema  # it may lack some of the scenario's
        self.config = world.configs[group.encoding]
        self.link = Link(profile)
        self.tie = world.clock.tie(plan.id)
        self.stream = rng(world.seed, plan.id, "link")
        self.faults = rng(world.seed, plan.id, "power")
        self.random = rng(world.seed, plan.id, "agent")
        self.subscriptions = {topics.to_device(plan.id): 1, topics.to_account(group.account): 0, topics.to_all(): 0}
        self.conn: Connection | None = None  # the broker's to set
        self.will: Will | None = None
        self.wants_puback = world.types.wants_puback
        self._topic = topics.from_device(plan.id)
        self._offset_us = plan.clock_offset_us
        self._drift_ppb = self._next_drift_ppb = plan.clock_drift_ppb
        self._booted_us = 0
        self._read_us, self._read_ms = -1, 0  # the monotonic clock, and when it was read
        self._generation = 0
        self._wakes: list[int] = []  # calls that are due, in ms of the monotonic clock, the next one last
        self._wake_ms = NEVER  # the next one
        self.disk: sqlite3.Connection | None = None
        self.full = 0  # how many faults hold its disk full
        self.database: Database | None = None
        self.session: Session | None = None
        self.executor: Executor | None = None  # of remote commands, where the schema has them
        self.result_rev = 0  # of the last result that it wrote
        self.powered = False
        self.delete_rev = 0
        self.reboots = 0
        self._mints = 0  # before the last boot
        self._is_other_disk = False  # than at the last boot

    # ---------------------------------------------------------------- clock

    def monotonic_ms(self) -> int:
        now = self.world.clock._now
        if now != self._read_us:  # several ask at the same moment
            self._read_us = now
            elapsed = now - self._booted_us
            self._read_ms = (elapsed + elapsed * self._drift_ppb // _PPB) // 1000
        return self._read_ms

    def wall_ms(self) -> int:
        now = self.world.clock._now
        return START_MS + (now + self._offset_us + now * self._drift_ppb // _PPB) // 1000

    def true_us(self, monotonic_ms: int) -> int:
        """Virtual time of a moment since the last boot, within the drift of the oscillator."""
        return self._booted_us + monotonic_ms * 1000

    def shift_clock(self, jump_us: int, drift_ppb: int) -> None:
        """The wall clock jumps; the oscillator runs at another rate from the next boot on (a rate that changed under a
        running monotonic clock would move it back)."""
        self._offset_us += jump_us
        self._next_drift_ppb += drift_ppb

    # ---------------------------------------------------------------- power

    def boot(self, _: object = None) -> None:
        """Power is on: the database is opened (made, the first time) and the session starts."""
        if self.powered:
            return
        world = self.world
        now = world.clock.now
        self.powered = True
        self._generation += 1
        self._wakes = []
        self._wake_ms = NEVER
        self._booted_us = now
        self._read_us = -1
        if self._next_drift_ppb != self._drift_ppb:
            self._offset_us += now * (self._drift_ppb - self._next_drift_ppb) // _PPB  # the wall clock does not jump
            self._drift_ppb = self._next_drift_ppb
        world.trace("boot", self.device_id, "")
        if self.disk is None:
            self.disk = open_memory()
        if self.full:
            disk.limit(self.disk)
        in_file = disk.keys_in_file(self.disk) if world.in_memory else ()
        try:
            database = world.types.database(
                self.disk,
                self.schema,
                self.context,
                monotonic_ms=self.monotonic_ms,
                wall_ms=self.wall_ms,
                random=self.random,
                store_type=world.types.store,
            )
        except sqlite3.OperationalError as error:
            disk.not_opened(self, error)
            return
        self.database = database
        database.on("*", "*", self._changed)
        database.on_outbox = self._outbox_grew
        self.new_session(database)
        if world.first_rev is not None:
            self.result_rev = self.result_rev or world.first_rev(self.device_id, "results")
            self.executor = Executor(self, self._generation, self._next_result_rev)
        if self._is_other_disk:
            self._is_other_disk = False
            items = ((key, image.get("rev")) for _, key, image in search.stored(database))  # its clock may be wrong
            world.oracle.device_restored(now, self.device_id, items)
        if self._generation > 1:
            self.reboots += 1
            world.oracle.device_booted(now, self.device_id)
            if world.in_memory:
                world.oracle.device_file(now, self.device_id, in_file)
            world.oracle.device_reads(self.device_id, ((key, image.get("rev")) for _, key, image in database.items()))
        self.feed(BOOT)

    def put_disk(self, other: sqlite3.Connection | None) -> None:
        """While the power is off. None: an empty one."""
        self.disk = other
        self._is_other_disk = True

    def power_off(self) -> None:
        """At once, without a word to anybody."""
        if not self.powered:
            return
        self.world.trace("power-off", self.device_id, "")
        self.world.broker.vanish(self)
        self._off()

    def stop(self) -> None:
        """In good order: the agent is stopped, then the power goes."""
        if not self.powered:
            return
        self.feed(STOP)
        if self.powered:
            self.world.trace("stop", self.device_id, "")
            self._off()

    def cut_power(self, within_us: int) -> None:
        """At some statement of the database: of the next messages, or at none if too little happens for a while."""
        if not self.powered or self.database is None:
            return
        statements = self.faults.below(FUSE_STATEMENTS_MAX)
        if statements == 0:
            self.power_off()
            return
        fuse.arm(self.database.store, statements)
        self.world.clock.post_in(min(FUSE_WAIT_US, within_us), self.tie, self._fuse_timeout, self._generation)

    def _fuse_timeout(self, generation: int) -> None:
        if generation == self._generation:
            self.power_off()

    def _off(self) -> None:
        assert self.disk is not None
        self.powered = False
        self._generation += 1
        self.end_session()
        if self.executor is not None and self.database is not None:
            self.executor = None
            fuse.blow(self.database.store)  # whoever was in the middle of something gets no further
        self.database = None
        if self.disk.in_transaction:
            self.disk.rollback()

    # ---------------------------------------------------------------- session

    def new_session(self, database: Database) -> None:
        self.session = self.world.types.session(database, self.config, self.world.probes, self.world.types.replica)

    def end_session(self) -> None:
        """What it holds in memory is gone."""
        if self.session is not None:
            self._mints += self.session.mints
        self.session = None

    def feed(self, event: Event) -> None:
        """One event into the session, its effects carried out."""
        session = self.session
        if session is None:
            return
        try:
            effects = session.receive(event, self.monotonic_ms())
        except fuse.PowerCutError:
            self.cut()
            return
        except sqlite3.OperationalError as error:
            disk.failed(self, error)
            return
        self._carry_out(effects)
        if self.executor is not None:
            self.executor.look()

    def cut(self) -> None:
        """The power went at a statement of the database."""
        self.world.probes["power_cut_at_statement"] += 1
        self.power_off()

    def _carry_out(self, effects: list[Effect]) -> None:
        for effect in effects:
            kind = type(effect)
            if kind is Send:
                payload: bytes = effect.payload  # type: ignore[attr-defined]
                self.world.oracle.wire_up(self.world.clock._now, self.device_id, payload)
                self.world.broker.publish(self, self._topic, payload, 1)
            elif kind is SetTimer:
                self._arm(effect.at_ms)  # type: ignore[attr-defined]
            elif kind is Connect:
                self.world.broker.connect(self)
            elif kind is Disconnect:
                self.world.broker.disconnect(self)

    def _arm(self, at_ms: int) -> None:
        """One call at least is due at or before the session's timer; later ones find out for themselves."""
        wakes = self._wakes
        if wakes and at_ms >= self._wake_ms:
            return
        self._wake_ms = at_ms
        wakes.append(at_ms)
        self.world.clock.post_at(self.when_us(at_ms), self.tie, self._wake, self._generation)

    def when_us(self, at_ms: int) -> int:
        """Virtual time, in the future, when the monotonic clock shows `at_ms`."""
        at_us = self._booted_us + at_ms * 1000 * _PPB // (_PPB + self._drift_ppb) + 1
        return max(at_us, self.world.clock._now + 1)

    def _wake(self, generation: int) -> None:
        if generation != self._generation:
            return
        wakes = self._wakes
        wakes.pop()
        self._wake_ms = wakes[-1] if wakes else NEVER
        session = self.session
        if session is None:
            return
        if session.timer_at_ms <= self.monotonic_ms():
            self.feed(TIMER)
        if self.session is not None and session.timer_at_ms < self._wake_ms:
            self._arm(session.timer_at_ms)

    # ---------------------------------------------------------------- the broker's client

    def on_connected(self) -> None:
        self.feed(CONNECTED)

    def on_connect_failed(self) -> None:
        self.feed(DISCONNECTED)

    def on_disconnected(self, _reason: str) -> None:
        self.feed(DISCONNECTED)

    def on_message(self, _topic: str, payload: bytes, _qos: int) -> None:
        self.world.oracle.wire_down(self.world.clock._now, self.device_id, payload)
        self.feed(Received(payload))

    def on_puback(self, token: Any) -> None:
        """Nothing to do: a transport's acknowledgement is no acknowledgement. A planted bug thinks otherwise."""
        hook = getattr(self.session, "on_puback", None)
        if hook is None:
            return
        try:
            effects = hook(token, self.monotonic_ms())
        except fuse.PowerCutError:
            self.cut()
            return
        self._carry_out(effects)

    # ---------------------------------------------------------------- applications

    def _next_result_rev(self) -> int:
        self.result_rev += 1
        return self.result_rev

    def _outbox_grew(self) -> None:
        self.feed(LOCAL_CHANGE)

    def write(self, action: str, model: str, properties: Mapping[str, Any]) -> dict[str, Any] | bool | None:
        """An application writes: `put`, `create` or `remove`. None when the device has no power (any more)."""
        database = self.database
        if database is None:
            return None
        try:
            result: dict[str, Any] | bool | None = getattr(database, action)(model, properties)
        except fuse.PowerCutError:
            self.cut()
            return None
        except sqlite3.OperationalError as error:
            disk.refused(self, error)
            return None
        except ModelError as error:
            refused(self, error)
            return None
        return result

    def has(self, model: str, properties: Mapping[str, Any]) -> bool:
        """Whether an application can read such an item. It cannot when the device has no power (any more)."""
        database = self.database
        if database is None:
            return False
        try:
            return model in self.schema.models and database.get(model, properties) is not None
        except fuse.PowerCutError:
            self.cut()
            return False

    def _changed(self, change: Change) -> None:
        world = self.world
        now = world.clock._now
        event = change.event
        if event == "expired":
            self._expired(change)
            return
        if event not in _KIND_OF:  # a verdict
            world.oracle.device_verdict(now, self.device_id, change.key, change.updated, event)
            if event == "synced" and change.model and world.schema.models[change.model].receives:
                self._look(change.key)
            return
        image = change.image
        rev = None if image is None else image.get("rev")
        if change.origin == "local":
            before = change.before
            if rev is None:
                rev = self.delete_rev
            world.trace("write", self.device_id, f"{change.key[1]} {rev}")
            if world.ends and image is not None:
                world.oracle.device_sets_end(change.key, rev, image.get(world.ends.get(change.model, "")))
            world.oracle.device_wrote(
                now,
                self.device_id,
                change.key,
                _KIND_OF[event],
                rev,
                change.updated,
                None if before is None else before.get("rev"),
            )
        else:
            world.trace("saw", self.device_id, f"{change.key[1]} {rev}")
            world.oracle.device_saw(now, self.device_id, change.key, rev, image)

    def _expired(self, change: Change) -> None:
        world = self.world
        before = change.before
        rev = None if before is None else before.get("rev")
        world.probes["expired_on_device"] += 1
        world.trace("expired", self.device_id, f"{change.key[1]} {rev}")
        own = change.origin == "local"
        world.oracle.device_expired(world.clock._now, self.device_id, change.key, rev, change.updated, own=own)

    def _look(self, key: Key) -> None:
        """An application reads what it was just told to be in the cloud."""
        assert self.database is not None
        image = self.database.store.visible(*key).image
        rev = None if image is None else decode_image(image).get("rev")
        self.world.oracle.device_read(self.world.clock._now, self.device_id, key, rev)

    # ---------------------------------------------------------------- for reports

    def identity_changes(self) -> int:
        """Epochs that the device minted after its first one was adopted."""
        return self._mints + (0 if self.session is None else self.session.mints)

    def outbox_rows(self) -> int:
        """Own operations that are not settled. Counted on the disk when the device is off."""
        if self.database is not None:
            return self.database.store.outbox_rows
        return disk.operations(self.disk)
