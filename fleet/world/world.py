"""A whole simulated world from a plan: clock, broker, table, relay, devices, applications, faults, oracle; its phases.

warm up → chaos → heal → quiesce → converge within a bound → final read. Draws nothing itself and judges nothing: the
plan says what happens, the oracle what it means. Called by fleet.run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

from agent.config import AgentConfig
from agent.protocol import topics
from agent.protocol.messages import Key
from agent.protocol.remote import has_commands
from agent.protocol.schema import Context, Schema
from cloud.head import LOG_PK, log_pk, position_of
from cloud.relay import Relay
from cloud.table import PK, PRIVATE_PREFIX, SK, Record
from fleet.latencies import Latencies
from fleet.oracle import CheckResult, Oracle
from fleet.quota import setup as quota
from fleet.scenario.plan import FaultPlan, Plan, WorkloadPlan
from fleet.trace import NoTrace, Trace
from fleet.world.clock import Clock
from fleet.world.clone import clone_of
from fleet.world.cloud import CloudWorld
from fleet.world.connection import BrokerSettings
from fleet.world.damage import Damage, heal_bound
from fleet.world.device import START_MS, AgentTypes, SimDevice, Surroundings
from fleet.world.disk import first_operation
from fleet.world.faults import Faults
from fleet.world.link import Profile
from fleet.world.poison import Poison, watching
from fleet.world.relays import relay_maker
from fleet.world.reseed import reseed
from fleet.world.rollout import RELAY_ROLLOUT, ROLLOUT, Rollouts, Schemas
from fleet.world.table import WorldTable, in_memory
from fleet.world.timeline import Timeline
from fleet.world.workload import CloudWriter, DeviceWriter, Revs

LOOK_EVERY_US: Final = 1_000_000  # while converging


@dataclass(slots=True)
class Types:
    """What a world is made of: the real classes, one with a planted bug, or ones that look on."""

    agent: AgentTypes = field(default_factory=AgentTypes)
    relay: type[Relay] = Relay
    cloud: type[CloudWorld] = CloudWorld
    oracle: type[Oracle] = Oracle


@dataclass(frozen=True, slots=True)
class Progress:
    """What a progress line shows."""

    phase: str
    now_us: int
    end_us: int
    online: int
    devices: int
    backlog: int
    synced: int
    failures: int


# Called often with a way to look: looking reads every device, which is done only when there is someone to see it.
OnProgress = Callable[[Callable[[], Progress]], None]


@dataclass(slots=True)
class NotDone:
    """A device that is not in its normal end state, and why."""

    device: str
    group: str
    reason: str
    state: str
    outbox: int
    cursor: str
    last_ack_us: int | None


class World:
    """One run. `run` may be called once. `table`: an empty one; None: in memory."""

    def __init__(
        self,
        plan: Plan,
        types: Types | None = None,
        *,
        table: WorldTable | None = None,
        trace_path: Path | None = None,
        hashed: bool = True,
    ) -> None:
        types = types or Types()
        self.plan = plan
        self.schema = Schema.parse(plan.schema_text, plan.schema_file)
        self.clock = Clock(plan.seed)
        self.revs = Revs()
        self.trace = (Trace if hashed or trace_path else NoTrace)(self.clock, trace_path)
        self.probes: Counter[str] = Counter()
        self.latencies = Latencies([group.name for group in plan.groups], self.schema.models)
        self.latency_up, self.latency_down = self.latencies.up, self.latencies.down
        self.oracle = self._oracle(types.oracle)
        self.table = quota.table_of(in_memory(plan.cloud) if table is None else table, plan)
        self.tails: dict[str, str] = {}  # hash key of a feed's log -> sort key of its last row
        self.changed_us = 0  # of any item, anywhere
        self.table.stream.subscribe(self._committed)
        self.broker = quota.broker_of(self.clock, self._broker_settings(), plan, self.trace)
        make_relay = relay_maker(types.relay, plan, self.now_ms, self.probes)
        relay = make_relay(self.schema)
        self.cloud = quota.maker(types.cloud, plan)(
            self.clock, self.table, relay, self.broker, plan.cloud, plan.seed, self.trace, self.probes, START_MS
        )
        self.cloud.on_restored = self._restored
        self.cloud.on_released = self.oracle.device_released
        self.surroundings = surroundings = self._surroundings(types.agent)
        self.devices: dict[str, SimDevice] = {}
        self._make_devices(surroundings)
        self._start_workloads()
        self.healed_us: dict[str, int] = {}
        self.damage = self._damage()
        self.rollouts = self._rollouts(make_relay)
        self.faults = Faults(
            plan.faults,
            clock=self.clock,
            seed=plan.seed,
            devices=self.devices,
            broker=self.broker,
            cloud=self.cloud,
            trace=self.trace,
            on_heal=self._healed,
            clone=self._clone,
            damage=self.damage.strike,
            damage_again=self.damage.put_back,
            poison=self._poison(),
            rollouts=self.rollouts,
        )
        self.timeline = Timeline(self)
        if plan.reseed is not None:  # last of all: what is drawn and ordered before is as without
            self.clock.post_at(plan.reseed.at_us, self.clock.tie("reseed"), self._reseed, plan.reseed.number)
        self.converged_us: int | None = None
        self.not_done: list[NotDone] = []
        self.checks: list[CheckResult] = []

    # ---------------------------------------------------------------- making

    def _oracle(self, kind: type[Oracle]) -> Oracle:
        plan = self.plan
        kind = watching(kind) if self._has("poison") else kind
        oracle = kind(
            self.schema,
            [(device.id, plan.groups[device.group].account) for device in plan.devices],
            latency_up=self.latency_up,
            latency_down=self.latency_down,
            start_ms=START_MS,
            tallies=self.latencies.by_device(plan),
        )
        oracle.heal_bound = heal_bound(plan)
        oracle.commands_are(self.plan.commands.keep_us, self.plan.commands.spacing_us)
        return oracle

    def _surroundings(self, types: AgentTypes) -> Surroundings:
        return Surroundings(
            clock=self.clock,
            broker=self.broker,
            schema=self.schema,
            oracle=self.oracle,
            trace=self.trace,
            probes=self.probes,
            seed=self.plan.seed,
            types=types,
            configs={encoding: self._agent_config(encoding) for encoding in ("json", "msgpack")},
            ends={m.name: m.ttl_attribute for m in self.schema.models.values() if m.ttl_attribute is not None},
            in_memory=any(model.mem for model in self.schema.models.values()),
            orders=self.oracle,
            first_rev=self.revs.first if has_commands(self.schema) else None,
            commands=self.plan.commands,
            mixed=self._has(ROLLOUT),
        )

    def _make_devices(self, surroundings: Surroundings) -> None:
        plan = self.plan
        profiles = [Profile(group.link) for group in plan.groups]
        for device in plan.devices:
            made = SimDevice(surroundings, device, plan.groups[device.group], profiles[device.group])
            self.devices[device.id] = made
            self.clock.post_at(device.boot_at_us, made.tie, made.boot, None)

    def _damage(self) -> Damage:
        shared = (self.table, self.oracle, self.trace, self.probes)
        first_rev = self.revs.first("damage", "")
        return Damage(self.clock, self.plan.seed, self.devices, *shared, first_rev, self._feed_tail)

    def _poison(self) -> Callable[[SimDevice, FaultPlan, int], None] | None:
        if not self._has("poison"):
            return None
        parts = (self.broker, self.cloud, self.schema, self.oracle, self.trace, self.probes, self.revs.first)
        return Poison(self.clock, self.plan.seed, self.devices, *parts, self.plan.duration_us).strike

    def _rollouts(self, make_relay: Callable[[Schema], Relay]) -> Rollouts | None:
        if not (self._has(ROLLOUT) or self._has(RELAY_ROLLOUT)):
            return None
        schemas = Schemas(self.plan, self.schema, make_relay)
        schemas.begin(self.devices, self.cloud, self.oracle)
        return Rollouts(schemas, self.cloud, self.oracle, self.probes)

    def _has(self, kind: str) -> bool:
        return any(fault.kind == kind for fault in self.plan.faults)

    def _broker_settings(self) -> BrokerSettings:
        plan = self.plan.broker
        in_flight_max, payload_bytes_max = quota.limits(self.plan)
        return BrokerSettings(
            keep_alive_us=plan.keep_alive_us,
            in_flight_max=in_flight_max,
            payload_bytes_max=payload_bytes_max,
            queue_max=plan.queue_max,
            hop_delay_us=plan.hop_delay_us,
            hop_jitter=plan.hop_jitter,
            cloud_prefix=f"{topics.PREFIX}/service/",
        )

    def _agent_config(self, encoding: str) -> AgentConfig:
        plan = self.plan.agent
        numbers = {name: getattr(plan, name) for name in plan.__struct_fields__}
        return AgentConfig(compact=encoding == "msgpack", **numbers)

    def _start_workloads(self) -> None:
        plan, revs = self.plan, self.revs
        for workload in plan.workloads:
            chosen = set(range(len(plan.groups)) if workload.groups is None else workload.groups)
            members = [device for device in plan.devices if device.group in chosen]
            if workload.side == "device":
                for member in members:
                    DeviceWriter(self.clock, plan.seed, self.devices[member.id], workload, revs)
                continue
            accounts = sorted({plan.groups[device.group].account for device in members})
            if workload.scope == "device":
                for member in members:
                    context = Context(member.id, plan.groups[member.group].account)
                    self._cloud_writer(f"cloud/{member.id}", workload, revs, context)
            elif workload.scope == "account":
                for account in accounts:
                    self._cloud_writer(f"cloud/account/{account}", workload, revs, Context("", account))
            else:
                self._cloud_writer("cloud/all", workload, revs, Context("", ""))

    def _cloud_writer(self, entity: str, workload: WorkloadPlan, revs: Revs, context: Context) -> None:
        CloudWriter(
            self.clock,
            self.plan.seed,
            entity,
            workload,
            revs,
            schema=self.schema,
            context=context,
            cloud=self.cloud,
            oracle=self.oracle,
            trace=self.trace,
        )

    # ---------------------------------------------------------------- while it runs

    def _reseed(self, number: int) -> None:
        reseed(self, self.plan.seed, number)

    def now_ms(self) -> int:
        return START_MS + self.clock._now // 1000

    def _committed(self, record: Record) -> None:
        now = self.clock._now
        key = record.key
        new = record.new
        if key[0].startswith(PRIVATE_PREFIX):
            if new is not None and key[0].startswith(LOG_PK) and key[1] > self.tails.get(key[0], ""):
                self.tails[key[0]] = key[1]
        else:
            self.changed_us = now
            self.trace("commit", key[0], f"{key[1]} {None if new is None else new.get('rev')}")
        self.oracle.committed(now, record)

    def _clone(self, device: SimDevice) -> SimDevice | None:
        plan = next(one for one in self.plan.devices if one.id == device.device_id)
        group = self.plan.groups[plan.group]
        made = clone_of(device, self.surroundings, plan, group, Profile(group.link))
        if made is not None:
            self.oracle.device_cloned(device.device_id)
        return made

    def _restored(self) -> None:
        items = self.table.backup()
        self.tails = {}
        for item in items:  # in order of the sort key
            if item[PK].startswith(LOG_PK):
                self.tails[item[PK]] = item[SK]
        self.changed_us = self.clock._now
        self.oracle.table_restored(self.clock._now, items)

    def _healed(self, name: str) -> None:
        self.healed_us[name] = self.clock._now
        self.oracle.healed(self.clock._now)

    def online(self) -> int:
        """Devices with a connection that the broker serves."""
        return self.broker.sessions()

    def outbox(self) -> int:
        """Own operations that are not settled, over all devices with power."""
        rows = 0
        for device in self.devices.values():
            if device.database is not None:
                rows += device.database.store.outbox_rows
        return rows

    def waiting(self) -> tuple[int, int]:
        """(What `outbox` says, devices in step: with power, nothing of their own waiting, nothing missing)."""
        behind = self.oracle.behind()
        rows = in_step = 0
        for name, device in self.devices.items():
            if device.database is not None:
                waiting = device.database.store.outbox_rows
                rows += waiting
                if not waiting and name not in behind:
                    in_step += 1
        return rows, in_step

    # ---------------------------------------------------------------- phases

    def run(self, on_progress: OnProgress | None = None, stopped: Callable[[], bool] | None = None) -> bool:
        """To the end. False when `stopped` said so: everything up to there is there to be reported."""
        plan = self.plan
        end = plan.duration_us
        if not plan.faults:
            self.oracle.healed(0)
        step = max(1, min(plan.interval_us, max(plan.interval_us // 10, 1_000_000)))
        while self.clock.now < end:
            self._advance(min(self.clock.now + step, end))
            if on_progress is not None:
                phase = "running" if self.clock.now > plan.warm_up_us else "warming up"
                on_progress(partial(self._progress, phase, end))
            if stopped is not None and stopped():
                return False
        self.oracle.writes_stopped(self.clock.now)
        for device in self.devices.values():
            device.boot()  # whoever is off now was brought back by a heal that comes later
        return self._converge(on_progress, stopped)

    def _converge(self, on_progress: OnProgress | None, stopped: Callable[[], bool] | None) -> bool:
        """Until every device has everything, at most so long; then a while of quiet, in which nothing may move."""
        plan = self.plan
        limit = plan.duration_us + plan.converge_within_us
        waiting = list(self.devices.values())
        while True:
            # Whoever was in step stays so: nobody writes any more. Looked at from the end, the last one blocks first.
            while waiting and self._in_step(waiting[-1]):
                waiting.pop()
            if not waiting and self.cloud.idle() and not self.damage.open:
                waiting = [device for device in self.devices.values() if not self._in_step(device)]
                if not waiting:
                    self.converged_us = self.changed_us
                    break
            if self.clock.now >= limit:
                break
            self._advance(min(self.clock.now + LOOK_EVERY_US, limit))
            if on_progress is not None:
                on_progress(partial(self._progress, "converging", limit))
            if stopped is not None and stopped():
                return False
        if self.converged_us is not None:
            self._advance(self.clock.now + plan.quiesce_us)
            self._outlive(limit + plan.quiesce_us)
        return True

    def _outlive(self, limit_us: int) -> None:
        """Nobody writes any more, but lives go on to end, and a feed that has expired begins anew when a device says
        hello: the final read waits for a moment when nothing is on its way because of that."""
        while self.clock.now < limit_us:
            calm = self.cloud.idle() or not self.surroundings.ends
            if calm and all(self._in_step(device) for device in self.devices.values()):
                return
            self._advance(min(self.clock.now + LOOK_EVERY_US, limit_us))

    def _advance(self, until_us: int) -> None:
        """Runs, and closes the timeline's intervals on the way."""
        while self.timeline.next_us <= until_us:
            self.clock.run_until(self.timeline.next_us)
            self.timeline.close()
        if until_us > self.clock.now:
            self.clock.run_until(until_us)

    def _progress(self, phase: str, end_us: int) -> Progress:
        return Progress(
            phase,
            self.clock.now,
            end_us,
            self.online(),
            len(self.devices),
            self.outbox() + self.cloud.backlog(),
            self.oracle.updates_synced,
            sum(check.failed for check in self.oracle.checks.all()),  # ints
        )

    def _feed_tail(self, device: SimDevice, feed: str) -> tuple[str, int] | None:
        tail = self.tails.get(log_pk(feed, device.device_id if feed == "device" else device.account))
        return None if tail is None else position_of(tail)

    def _in_step(self, device: SimDevice) -> bool:
        """Nothing on its way, at the tail of every feed."""
        session = device.session
        if session is None or session.store.outbox_rows or session.digests.is_healing:
            return False
        if self.rollouts is not None and not self.rollouts.has_heard(device):
            return False
        cursors = session.store.cursors
        return all(feed in cursors and cursors[feed] == self._feed_tail(device, feed) for feed in session.replica.feeds)

    # ---------------------------------------------------------------- the end

    def finish(self, complete: bool = True) -> None:
        """The final read: every device's items, every item of the table, and the oracle's verdicts. A run that was
        interrupted has no end to be judged: what was seen on the way counts, convergence stays unknown."""
        self.timeline.close_last()
        now = self.clock.now
        for hit in self.damage.open if complete else ():
            self.oracle.damage_lasts(now, hit.device.device_id, hit.key)
        self.not_done = [self._explain(device) for device in self.devices.values() if not self._in_step(device)]
        ledgers = {name: self.broker.ledger(name) for name in self.devices}
        in_flight = self.broker.in_flight()
        for name, ledger in ledgers.items():
            up, down = in_flight.get(name, (0, 0))
            self.oracle.message_account(
                name, "up", ledger.sent_up, ledger.delivered_up, ledger.dropped_up, up, ledger.copies_up
            )
            self.oracle.message_account(
                name, "down", ledger.sent_down, ledger.delivered_down, ledger.dropped_down, down, ledger.copies_down
            )
        if not complete:
            self.checks = self.oracle.results()
            return
        self.checks = self.oracle.finish(
            now,
            self._device_items,
            self.table.scan(),
            {name: device.outbox_rows() for name, device in self.devices.items()},
            {name: device.identity_changes() for name, device in self.devices.items()},
            {name: key for name, device in self.devices.items() if (key := first_operation(device.disk)) is not None},
        )

    def _device_items(self, name: str) -> Iterator[tuple[Key, Any, dict[str, Any]]]:
        """What applications on the device can read at the end; also on one whose power is off."""
        device = self.devices[name]
        if device.database is None:
            device.boot()
        assert device.database is not None
        for _, key, image in device.database.items():
            yield key, image.get("rev"), image

    def _explain(self, device: SimDevice) -> NotDone:
        session = device.session
        rows = device.outbox_rows()
        if session is None:
            return NotDone(device.device_id, device.group, "no-power", "off", rows, "", None)
        cursors = session.store.cursors
        behind = [feed for feed in session.replica.feeds if cursors.get(feed) != self._feed_tail(device, feed)]
        if session.state.value in ("waiting", "connecting"):
            reason = "offline"
        elif session.state.value == "joining":
            reason = "not-adopted"
        elif rows:
            reason = "outbox-waits"
        else:
            reason = "feed-behind"
        cursor = " ".join(
            f"{feed}:{cursors[feed][1] if feed in cursors else 'none'}/{(self._feed_tail(device, feed) or ('', 0))[1]}"
            for feed in behind
        )
        last_ack = None if session.last_ack_ms is None else device.true_us(session.last_ack_ms)
        return NotDone(device.device_id, device.group, reason, session.state.value, rows, cursor, last_ack)
