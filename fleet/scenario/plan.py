"""The plan: a scenario and a seed made concrete. Runs, replays and shrinking work on plans alone.

Values only: every time is decided here, in microseconds from the start of the run, except what a running device or
worker has to draw for itself from a stream named after it. Self-contained (the schema's text is inside) and
serialisable: `plan.json` in a run directory. Made by `fleet.scenario.build`, executed by the simulated world.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from agent.protocol.errors import InputError, Problem

PLAN_VERSION: Final = 1


class LinkPlan(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """One link, both ways. All zeros and ones mean: no limit, no loss."""

    profile: str = ""  # where the numbers come from, for people
    delay_us: int = 0  # one way; the median where delay_p99_us is set
    jitter_us: int = 0  # uniform within ± of the delay
    delay_p99_us: int = 0  # more than 0: the delay is lognormal with this 99th percentile, and there is no jitter
    rate_up_bps: int = 0  # 0: no limit
    rate_down_bps: int = 0
    loss: float = 0.0  # mean share of packets lost (Gilbert-Elliott)
    burst: float = 1.0  # mean length of a burst of losses, in packets
    queue_packets: int = 0  # of the bottleneck; 0: no limit


class GroupPlan(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """What the devices of one group have in common."""

    name: str
    account: str
    region: str
    link: LinkPlan
    encoding: Literal["json", "msgpack"] = "json"


class DevicePlan(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """One device. `group` is an index into Plan.groups. The clock shows true time + offset + drift from the start."""

    id: str
    group: int
    boot_at_us: int = 0
    clock_offset_us: int = 0
    clock_drift_ppb: int = 0


class WorkloadPlan(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """A stream of writes by applications. Each writer draws from rng(seed, writer, name).

    The writers: every device of `groups` (None: of all); for a cloud workload on items of an account, each account of
    these groups; on items of all, one. `scope` says which. Names of items are `item-1` .. `item-N`, the same in every
    workload of a model, so that two workloads can write the same item.
    """

    name: str
    side: Literal["device", "cloud"]
    model: str
    action: Literal["update", "create", "toggle"]
    scope: Literal["device", "account", "all"]
    every_us: int  # mean time between two writes of one writer
    jitter: float = 0.0  # uniform within ± this share of every_us
    poisson: bool = False  # exponential times between writes, `jitter` unused
    remove: float = 0.0  # create: share of the writes that remove a live item of this workload instead
    keep: int = 0  # create: most live items of one writer; the oldest is removed beyond that. 0: no limit
    items: int = 1  # update and toggle: named items of one writer, drawn uniformly
    key_field: str = ""  # the key's variable besides deviceId and accountId; "": one item
    filler_field: str = ""  # the field that brings an item to its size; "": none
    ttl_field: str = ""  # the field that ends an item's life; "": none, or lives without end
    life_min_us: int = 0  # from the write on, drawn uniformly
    life_max_us: int = 0
    commands: list[str] = []  # words of fleet.scenario.orders, drawn uniformly; for the model Command alone
    expires_min_us: int = 0  # of a command, from the write on, drawn uniformly
    expires_max_us: int = 0
    bytes_min: int = 0
    bytes_max: int = 0
    groups: list[int] | None = None  # indexes into Plan.groups
    from_us: int = 0
    until_us: int = 0


class FaultPlan(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """One fault with all its times.

    `devices`: whom it may hit; None: everyone, or no device in particular (a fault of the cloud). `regions`: None: all.
    `events`: (at_us, device, duration_us), in order of time; device "" means all of `devices`, or the cloud. The fault
    heals itself after duration_us (0: nothing to heal). `params`: the kind's own numbers, units last in their names;
    `docs/scenarios.md` and `fleet.scenario.faults` list them.
    """

    name: str
    kind: str
    at_us: int
    until_us: int  # when the last event has healed
    devices: list[str] | None = None
    regions: list[str] | None = None
    params: dict[str, Any] = {}
    events: list[tuple[int, str, int]] = []


class CloudPlan(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """The simulated table and relay."""

    workers: int
    concurrency: int  # tasks at once in one worker
    queue_max: int  # device messages waiting in one worker
    shards: int
    poll_every_us: int
    stream_delay_us: int
    stream_jitter: float
    batch_records_max: int
    record_concurrency: int  # records of different items at once, of one shard
    lease_us: int
    record_life_us: int
    worker_life_us: int
    feed_retention_ms: int
    ttl_margin_ms: int
    future_bound_ms: int
    read_latency_us: int
    write_latency_us: int
    transact_latency_us: int
    query_latency_us: int
    latency_jitter: float
    sweep_every_us: int  # of expired items
    sweep_delay_us: int  # how late an expired item may be swept


class QuotaPlan(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """The cloud's quotas, as `cloud:` sets them. 0: no limit, it is only measured. Rates are a second."""

    preset: str = ""
    connects_per_s: float = 0.0
    client_connects_per_s: float = 0.0
    connections: int = 0
    refusal: Literal["code", "silent"] = "code"
    publishes_in_per_s: float = 0.0  # of the account: from devices and from the relay
    publishes_out_per_s: float = 0.0
    client_publishes_per_s: float = 0.0  # of a connection, each way
    over_publishes: Literal["drop", "delay"] = "drop"  # what happens to those over the account's quota
    client_bytes_per_s: int = 0
    client_in_flight: int = 0
    payload_bytes: int = 0
    message_bytes: int = 5120  # metered in steps of so many
    messages_per_day: int = 0
    partition_writes_per_s: float = 0.0
    partition_reads_per_s: float = 0.0
    table_writes_per_s: float = 0.0  # of a new on-demand table
    table_reads_per_s: float = 0.0
    table_doubling_us: int = 0  # the table takes twice the peak of the last such time; 0: it does not grow
    table_most_per_s: float = 0.0
    stream_reads_per_s: float = 0.0  # of a shard
    stream_read_bytes: int = 0  # of one of these reads
    functions: int = 0  # at once
    functions_per_10s: int = 0  # by so many more at once
    shared: float = 1.0  # a share of the fleet stands for the whole: keys that devices share have so much of a quota
    sources: dict[str, str] = {}  # field -> v, 2, a, scenario


class BrokerPlan(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    keep_alive_us: int
    in_flight_max: int
    queue_max: int
    hop_delay_us: int
    hop_jitter: float


class AgentPlan(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """The fields of agent.config.AgentConfig that a scenario may set, under the same names."""

    hello_period_ms: int
    hello_jitter: float
    hello_spacing_ms: int
    boot_jitter_ms: int
    resend_base_ms: int
    resend_cap_ms: int
    connect_base_ms: int
    connect_cap_ms: int
    stable_ms: int
    gap_wait_ms: int
    batch_ops_max: int
    batch_bytes_max: int
    digest_period_ms: int = 0  # off: the agent's own default is longer than most runs
    digest_retry_ms: int = 60_000
    digest_heal_ms: int = 3_600_000
    connect_jitter: float = 1.0


class Reseed(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """From this time on all that a run draws for itself is drawn anew; `number` says which draws these are. What comes
    before is as without."""

    at_us: int
    number: int


class CommandPlan(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Remote commands on a device, where the schema has them. Results are dropped within a run, so that their commands
    come back to devices that have forgotten them."""

    keep_us: int = 600_000_000  # how long a result outlives its command
    spacing_us: int = 600_000_000  # least time between two restarts by command
    settle_us: int = 3_000_000  # after a boot, until commands are looked at
    second_us: int = 1_000_000  # what the command `work` takes for each second that it names


class Plan(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """All that a run needs. The run: writes and faults until duration_us, every fault healed by then; at least
    quiesce_us of quiet; at most converge_within_us, from duration_us on, until all is equal."""

    version: int = PLAN_VERSION
    scenario: str
    description: str = ""
    source: str = ""  # how a person names the scenario on the command line
    seed: int
    duration_us: int
    warm_up_us: int
    quiesce_us: int
    converge_within_us: int
    interval_us: int
    schema_file: str
    schema_text: str
    groups: list[GroupPlan]
    devices: list[DevicePlan]
    workloads: list[WorkloadPlan]
    faults: list[FaultPlan]
    cloud: CloudPlan
    broker: BrokerPlan
    agent: AgentPlan
    checks: list[str]  # that must have been evaluated
    thresholds: list[str] = []
    aborts: list[str] = []  # those of the thresholds that end the run when they fail
    commands: CommandPlan = CommandPlan()
    plant: str = ""  # the planted bug that is switched on
    reseed: Reseed | None = None  # for finding the moment from which on a failure cannot be avoided
    quotas: QuotaPlan | None = None  # of the cloud; None: there are none, and nothing is metered

    def encode(self) -> bytes:
        return _encoder.encode(self) + b"\n"

    @staticmethod
    def decode(data: bytes, file: str = "plan.json") -> Plan:
        """Raises InputError when `data` is no plan of this version."""
        try:
            plan = _decoder.decode(data)
        except (ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors
            raise InputError([Problem(file, 0, 0, "", f"not a plan: {error}", _WHAT)]) from None
        if plan.version != PLAN_VERSION:
            message = f"a plan of version {plan.version}, this program reads version {PLAN_VERSION}"
            raise InputError([Problem(file, 0, 0, "version", message, "run the scenario again")])
        problems = [
            Problem(file, 0, 0, f"devices.{device.id}", f"group {device.group} of {len(plan.groups)}")
            for device in plan.devices
            if not 0 <= device.group < len(plan.groups)
        ]
        if problems:
            raise InputError(problems)
        return plan

    @staticmethod
    def load(path: str | Path) -> Plan:
        """Raises InputError, also when the file cannot be read."""
        try:
            data = Path(path).read_bytes()
        except OSError as error:
            raise InputError([Problem(str(path), 0, 0, "", f"cannot be read: {error.strerror}", _WHAT)]) from None
        return Plan.decode(data, str(path))


_WHAT: Final = "expected the plan.json of a run directory"
_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Plan)
