"""Puts quotas before a world's broker, table and relay, and says at the end what was used of them.

Called by fleet.world.world when it is made, and by fleet.run for the summary. Nothing of it runs in a world whose plan
has no quotas.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, cast

from fleet.quota.broker import QuotaBroker
from fleet.quota.bucket import Gauge
from fleet.quota.cloud import QuotaCloud, with_quotas
from fleet.quota.table import Peekable, QuotaTable, key_of_fleet
from fleet.scenario.plan import Plan, QuotaPlan
from fleet.world.broker import Broker
from fleet.world.clock import Clock
from fleet.world.cloud import CloudWorld
from fleet.world.connection import BrokerSettings
from fleet.world.device import START_MS
from fleet.world.downlink import Trace
from fleet.world.table import WorldTable
from reports.quotas import Asked, LoadRow, Quotas, QuotaUse, Recovery, Usage

if TYPE_CHECKING:
    from fleet.world.world import World

PAYLOAD_BYTES_MAX: Final = BrokerSettings().payload_bytes_max
MESSAGE_QUOTAS: Final = (
    "publishes_in_per_s", "publishes_out_per_s", "client_publishes_per_s", "client_bytes_per_s", "messages_per_day",
)  # fmt: skip
TABLE_QUOTAS: Final = (
    "partition_writes_per_s", "partition_reads_per_s", "table_writes_per_s", "table_reads_per_s",
)  # fmt: skip
BACK: Final = (0.5, 0.95, 0.99)
LOST_SHARE: Final = 0.05  # of the connections: fewer are what goes on all the time
CUTTING: Final = ("broker-outage", "link-down", "half-open", "disconnects", "reboots", "power-cut")


def table_of(table: WorldTable, plan: Plan) -> WorldTable:
    """The table that the world works on."""
    if plan.quotas is None:
        return table
    names = frozenset(device.id for device in plan.devices)
    return QuotaTable(cast(Peekable, table), plan.quotas, lambda pk: key_of_fleet(pk, names), START_MS)


def broker_of(clock: Clock, settings: BrokerSettings, plan: Plan, trace: Trace) -> Broker:
    quotas = plan.quotas
    if quotas is None:
        return Broker(clock, settings, trace)
    return QuotaBroker(clock, settings, quotas, trace)


def maker(kind: type[CloudWorld], plan: Plan) -> Callable[..., CloudWorld]:
    """What makes the cloud."""
    quotas = plan.quotas
    if quotas is None:
        return kind

    def limited(*arguments: Any) -> CloudWorld:
        made = with_quotas(kind)(*arguments)
        made.limit(quotas)
        return made

    return limited


def limits(plan: Plan) -> tuple[int, int]:
    """(unacknowledged messages of a client, bytes of a payload) that the broker takes."""
    most, payload = plan.broker.in_flight_max, PAYLOAD_BYTES_MAX
    quotas = plan.quotas
    if quotas is None:
        return most, payload
    in_flight = quotas.client_in_flight
    return (min(most, in_flight) if in_flight else most), quotas.payload_bytes or payload


# What each gauge is, for people: field of the plan -> per, unit, effect.
_WORDS: Final = {
    "connects_per_s": ("account", "connects/s", "refused"),
    "client_connects_per_s": ("client", "connects/s", "refused"),
    "connections": ("account", "connections", "refused"),
    "publishes_in_per_s": ("account", "messages/s", "dropped"),
    "publishes_out_per_s": ("account", "messages/s", "dropped"),
    "client_publishes_per_s": ("connection", "messages/s", "dropped"),
    "client_bytes_per_s": ("connection", "bytes/s", "delayed"),
    "client_in_flight": ("client", "messages", "queued"),
    "payload_bytes": ("message", "bytes", "disconnected"),
    "messages_per_day": ("account", "messages", "dropped"),
    "partition_writes_per_s": ("partition key", "write units/s", "throttled"),
    "partition_reads_per_s": ("partition key", "read units/s", "throttled"),
    "table_writes_per_s": ("table", "write units/s", "throttled"),
    "table_reads_per_s": ("table", "read units/s", "throttled"),
    "stream_reads_per_s": ("shard", "looks/s", "delayed"),
    "stream_read_bytes": ("read of a shard", "bytes", "delayed"),
    "functions": ("account", "instances", "queued"),
}


def quotas_of(world: World) -> Quotas | None:
    """What the run has used; None when its plan has no quotas. Once, at its end. Counted in `probes`: connect_refused,
    message_throttled (dropped or delayed), request_throttled (of the table), function_queued."""
    plan, broker, table, cloud = world.plan, world.broker, world.table, world.cloud
    quotas = plan.quotas
    if quotas is None:
        return None
    assert isinstance(broker, QuotaBroker) and isinstance(table, QuotaTable) and isinstance(cloud, QuotaCloud)
    broker.close_bill()
    metered = broker.metered
    gauges = {
        "connects_per_s": metered.connects,
        "client_connects_per_s": metered.client_connects,
        "connections": metered.connections,
        "publishes_in_per_s": metered.publishes_in,
        "publishes_out_per_s": metered.publishes_out,
        "client_publishes_per_s": _both(metered.client_in, metered.client_out),
        "client_bytes_per_s": metered.client_bytes,
        "client_in_flight": metered.in_flight,
        "payload_bytes": metered.payload,
        "messages_per_day": metered.day,
        "partition_writes_per_s": table.partition_writes,
        "partition_reads_per_s": table.partition_reads,
        "table_writes_per_s": table.writes.gauge,
        "table_reads_per_s": table.reads.gauge,
        "stream_reads_per_s": cloud.stream_reads,
        "stream_read_bytes": cloud.read_bytes,
        "functions": cloud.functions,
    }
    probes = world.probes
    probes["connect_refused"] = metered.refused
    probes["message_throttled"] = sum(gauges[name].throttled for name in MESSAGE_QUOTAS)  # ints
    probes["request_throttled"] = sum(gauges[name].throttled for name in TABLE_QUOTAS)  # ints
    probes["function_queued"] = cloud.functions.throttled
    seconds = world.clock.now / 1e6
    usage = Usage(
        seconds=seconds,
        connects=metered.accepted,
        connects_refused=metered.refused,
        subscribes=metered.subscribes,
        publishes_up=metered.publishes_up,
        publishes_down=metered.publishes_down,
        deliveries=metered.deliveries,
        pubacks=metered.pubacks,
        messages=metered.messages,
        rule_triggers=metered.rule_triggers,
        rule_actions=metered.rule_triggers,  # one rule, one function
        connection_s=metered.connection_us / 1e6,
        connection_minutes=metered.connection_minutes,
        bytes_up=metered.bytes_up,
        bytes_down=metered.bytes_down,
        write_units=table.write_units,
        read_units=table.read_units,
        stream_reads=round(seconds * 1e6 / plan.cloud.poll_every_us) * plan.cloud.shards,
        functions=cloud.function_count,
        function_s=cloud.function_us / 1e6,
        peak_connects_per_s=round(metered.connects.peak),
        peak_messages_per_s=round(metered.all.peak),
    )
    return Quotas(
        preset=quotas.preset,
        uses=[_use(name, gauge, quotas) for name, gauge in gauges.items()],
        usage=usage,
        recoveries=recoveries(world, broker),
    )


def _both(one: Gauge, other: Gauge) -> Gauge:
    """Of the two ways of a connection, the one that was nearer to its quota; what was refused, together."""
    made = one if one.peak >= other.peak else other
    rest = other if made is one else one
    if rest.throttled:
        made.first_us = min(rest.first_us, made.first_us) if made.throttled else rest.first_us
        made.last_us = max(rest.last_us, made.last_us)
        made.throttled += rest.throttled
    return made


def _use(name: str, gauge: Gauge, quotas: QuotaPlan) -> QuotaUse:
    per, unit, effect = _WORDS[name]
    if effect == "dropped" and per == "account" and quotas.over_publishes == "delay" and "publishes" in name:
        effect = "delayed"

    def seconds(us: int) -> float | None:
        return None if us < 0 else us / 1e6

    return QuotaUse(
        name=name,
        per=per,
        unit=unit,
        limit=float(gauge.limit),
        peak=gauge.peak,
        peak_share=round(gauge.share, 6),
        peak_at_s=seconds(gauge.peak_at_us),
        throttled=gauge.throttled,
        first_s=seconds(gauge.first_us),
        last_s=seconds(gauge.last_us),
        effect=effect,
        source=quotas.sources.get(name, ""),
    )


def load_of(world: World) -> list[LoadRow]:
    """CONNECTs and connections, second by second."""
    broker = world.broker
    if not isinstance(broker, QuotaBroker):
        return []
    return [LoadRow(second, *numbers) for second, numbers in sorted(broker.load.items())]


def asked_of(world: World) -> Asked:
    """What was asked for, second by second: by quota, `messages` of all kinds, and `functions`: seconds of work. Of
    partition keys the most of any that devices share; what the keys of one device had at most is in second -1."""
    broker, table, cloud = world.broker, world.table, world.cloud
    if not isinstance(broker, QuotaBroker):
        return {}
    assert isinstance(table, QuotaTable) and isinstance(cloud, QuotaCloud)
    metered = broker.metered
    found = {
        "connects_per_s": metered.connects.by_second,
        "publishes_in_per_s": metered.publishes_in.by_second,
        "publishes_out_per_s": metered.publishes_out.by_second,
        "messages": metered.all.by_second,
        "table_writes_per_s": table.writes.gauge.by_second,
        "table_reads_per_s": table.reads.gauge.by_second,
        "partition_writes_per_s": {-1: table.own_peak["writes"], **table.partition_writes.by_second},
        "partition_reads_per_s": {-1: table.own_peak["reads"], **table.partition_reads.by_second},
        "functions": {second: busy / 1e6 for second, busy in cloud.busy_us.items()},
    }
    return {name: sorted(rows.items()) for name, rows in found.items()}


def recoveries(world: World, broker: QuotaBroker) -> list[Recovery]:
    """Of each fault that a good part of the connections was lost in: how long after its end they were back."""
    load = sorted((second, row[2]) for second, row in broker.load.items())
    rate = broker.plan.connects_per_s
    found = []
    for fault in world.plan.faults:
        devices = [device for _, device, _ in fault.events]
        if fault.kind not in CUTTING or fault.until_us >= world.clock.now or len(frozenset(devices)) < len(devices):
            continue
        start, end = fault.at_us // 1_000_000, fault.until_us / 1e6
        before = _online_at(load, start)
        lost = before - min([before, *(count for at, count in load if start <= at <= end + 1)])
        if lost <= before * LOST_SHARE:
            continue
        back = [_back_s(load, end, before - lost + share * lost) for share in BACK]
        found.append(
            Recovery(
                fault=fault.name,
                end_s=end,
                lost=lost,
                back_50_s=back[0],
                back_95_s=back[1],
                back_99_s=back[2],
                floor_s=round(lost / rate, 3) if rate else 0.0,
            )
        )
    return found


def _online_at(load: list[tuple[int, int]], second: int) -> int:
    """Connections just before that second begins."""
    online = 0
    for at, count in load:
        if at >= second:
            break
        online = count
    return online


def _back_s(load: list[tuple[int, int]], end_s: float, wanted: float) -> float | None:
    """Seconds from there until so many are connected."""
    for at, count in load:
        if at + 1 > end_s and count >= wanted:
            return max(0.0, at + 1 - end_s)
    return None
