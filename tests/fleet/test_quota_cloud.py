"""Quotas at the table and the relay: units of each partition key, a table that grows, instances that are waited for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from run_rig import CALM, busy_plan, failures, run_plan

from cloud.memory import MemoryTable
from cloud.metered import MeteredTable
from cloud.table import (
    BatchGet,
    Cancelled,
    Check,
    ConditionFailed,
    Delete,
    Get,
    Put,
    Query,
    Throttled,
    Transact,
    Update,
)
from fleet.plants import PLANTS, types_with
from fleet.quota.cloud import QuotaCloud, with_quotas
from fleet.quota.table import QuotaTable, key_of_fleet
from fleet.scenario.plan import Plan, QuotaPlan
from fleet.world.cloud import CloudWorld
from fleet.world.world import World
from reports.quotas import QuotaUse
from reports.result import RunResult

START_MS = 1_767_225_600_000


def quota_table(table: Any = None, **quotas: Any) -> QuotaTable:
    return QuotaTable(table or MemoryTable(), QuotaPlan(**quotas), lambda pk: pk.startswith("all"), START_MS)


def item(pk: str, size: int = 0, sk: str = "s") -> dict[str, Any]:
    return {"pk": pk, "sk": sk, "text": "x" * size}


# ---------------------------------------------------------------- the table


def test_a_partition_key_takes_its_units_and_others_are_not_disturbed() -> None:
    table = quota_table(partition_writes_per_s=10)
    done = 0
    with pytest.raises(Throttled):
        for _ in range(20):
            table.execute(Put(item("hot", 1_500)), START_MS)  # two units
            done += 1
    assert done == 5
    table.execute(Put(item("cold")), START_MS)
    table.execute(Put(item("hot")), START_MS + 200)
    gauge = table.partition_writes
    assert gauge.throttled == 1 and gauge.peak == 12 and table.hottest["writes"] == "hot"
    assert table.write_units == 13


def test_reads_have_a_quota_of_their_own_and_large_ones_leave_a_debt() -> None:
    table = quota_table(partition_reads_per_s=10)
    table.execute(Put(item("p", 300_000)), START_MS)
    table.execute(Query("p"), START_MS)  # 74 units: let in, since there was no debt
    for request in (Get(("p", "s")), Query("p"), BatchGet((("q", "s"), ("p", "s")))):
        with pytest.raises(Throttled):
            table.execute(request, START_MS + 6_000)
    assert table.execute(Get(("p", "none")), START_MS + 6_500) is None
    assert table.partition_reads.throttled == 3


def test_a_transaction_says_which_of_its_actions_were_throttled() -> None:
    table = quota_table(partition_writes_per_s=2)
    table.execute(Put(item("hot", 2_000)), START_MS)
    before = table.table.backup()
    with pytest.raises(Cancelled) as told:
        table.execute(Transact((Put(item("cold")), Update(("hot", "s"), {"n": 1}))), START_MS)
    assert told.value.reasons == (None, "throttled")
    assert table.table.backup() == before


def test_keys_that_devices_share_have_their_share_of_a_quota_in_a_part_of_a_fleet() -> None:
    table = quota_table(partition_reads_per_s=100, shared=0.1)
    for _ in range(10):
        table.execute(Get(("all", "s")), START_MS)
        table.execute(Get(("own", "s")), START_MS)
    with pytest.raises(Throttled):
        table.execute(Get(("all", "s")), START_MS)
    table.execute(Get(("own", "s")), START_MS)
    assert table.partition_reads.peak == 100  # what the whole fleet would have asked


def test_who_shares_a_key() -> None:
    devices = frozenset({"home-0001"})
    assert not key_of_fleet("_fleet#log#device#home-0001", devices)
    assert not key_of_fleet("device#home-0001", devices)
    assert key_of_fleet("_fleet#log#account#acme", devices) and key_of_fleet("account#acme", devices)


def test_an_on_demand_table_takes_twice_the_peak_of_the_last_period_up_to_its_most() -> None:
    table = quota_table(table_writes_per_s=4, table_most_per_s=14, table_doubling_us=60_000_000)

    def in_one_second(at_ms: int) -> int:
        done = 0
        try:
            for _ in range(100):
                table.execute(Put(item(f"p{done}")), at_ms)
                done += 1
        except Throttled:
            return done
        raise AssertionError("no quota")

    assert in_one_second(START_MS) == 4
    assert in_one_second(START_MS + 30_000) == 4
    assert in_one_second(START_MS + 61_000) == 4  # it grows, and has to fill
    assert in_one_second(START_MS + 64_000) == 8
    assert in_one_second(START_MS + 122_000) == 8
    assert in_one_second(START_MS + 126_000) == 14
    assert table.writes.gauge.limit == 14 and table.writes.gauge.throttled == 6


UNITS: list[Any] = [
    Get(("p", "none")),
    Get(("p", "large")),
    BatchGet((("p", "small"), ("p", "large"), ("p", "none"))),
    Query("p"),
    Put(item("p", 1_500, "new")),
    Put(item("p", 1, "large")),
    Delete(("p", "large")),
    Update(("p", "small"), {"more": "x" * 2_000}),
    Transact((Put(item("p", 0, "new")), Check(("p", "small"), (("exists", "pk", None),)))),
    Transact((Put(item("p", 3_000, "new")), Check(("p", "small"), (("absent", "pk", None),)))),
]


@pytest.mark.parametrize("request_", UNITS)
def test_units_are_those_of_the_metered_table(request_: Any) -> None:
    billed = MeteredTable()
    table = quota_table()
    for one in (billed, table):
        one.execute(Put(item("p", 900, "small")), START_MS)
        one.execute(Put(item("p", 10_000, "large")), START_MS)
        try:
            one.execute(request_, START_MS)
        except (ConditionFailed, Cancelled):
            assert isinstance(request_, Transact)
    assert table.write_units == sum(billed.write_units.values())
    assert table.read_units == sum(billed.read_units.values())


# ---------------------------------------------------------------- whole runs


def limited(plan: Plan, **quotas: Any) -> Plan:
    return msgspec.structs.replace(plan, quotas=QuotaPlan(**quotas))


def use(result: RunResult, name: str) -> QuotaUse:
    assert result.summary.quotas is not None
    return next(one for one in result.summary.quotas.uses if one.name == name)


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    return busy_plan(tmp_path_factory.mktemp("calm"), 1, CALM)


def test_a_run_under_quotas_that_it_keeps_to_is_the_run_without(calm: Plan) -> None:
    free, wide = run_plan(calm), run_plan(limited(calm))
    assert wide.summary.trace_hash == free.summary.trace_hash
    assert free.summary.quotas is None and free.load == []
    quotas = wide.summary.quotas
    assert quotas is not None and quotas.usage.messages > 1_000 and quotas.usage.write_units > 500
    assert quotas.usage.connects == wide.summary.counts.connects
    assert not any(one.throttled or one.peak_share for one in quotas.uses)
    assert all(one.peak > 0 for one in quotas.uses), [one.name for one in quotas.uses if not one.peak]


@pytest.mark.parametrize(
    ("name", "quotas"),
    [
        ("connects_per_s", {"connects_per_s": 0.2, "refusal": "silent"}),
        ("publishes_in_per_s", {"publishes_in_per_s": 5}),
        ("publishes_in_per_s", {"publishes_in_per_s": 2, "over_publishes": "delay"}),
        ("publishes_out_per_s", {"publishes_out_per_s": 4}),
        ("client_publishes_per_s", {"client_publishes_per_s": 3}),
        ("client_bytes_per_s", {"client_bytes_per_s": 300}),
        ("partition_writes_per_s", {"partition_writes_per_s": 1}),
        ("partition_reads_per_s", {"partition_reads_per_s": 3}),
        ("table_writes_per_s", {"table_writes_per_s": 8}),
        ("table_reads_per_s", {"table_reads_per_s": 8}),
        ("functions", {"functions": 1}),
        ("stream_reads_per_s", {"stream_reads_per_s": 1}),
        ("stream_read_bytes", {"stream_read_bytes": 500}),
    ],
)
def test_what_a_quota_refuses_comes_later_and_nothing_is_lost(calm: Plan, name: str, quotas: dict[str, Any]) -> None:
    result = run_plan(limited(calm, **quotas))
    assert failures(result.summary) == [] and result.summary.verdict == "pass"
    found = use(result, name)
    assert found.throttled > 0 and found.first_s is not None and found.last_s is not None
    assert found.peak_share > 1
    again = run_plan(limited(calm, **quotas))
    assert again.summary.trace_hash == result.summary.trace_hash
    assert again.summary.quotas == result.summary.quotas


def test_a_planted_bug_of_the_cloud_is_there_under_quotas_too(calm: Plan) -> None:
    assert with_quotas(CloudWorld) is QuotaCloud
    for name in PLANTS:
        kind = types_with(name).cloud
        if kind is not CloudWorld:
            made = with_quotas(kind)
            assert issubclass(made, kind) and issubclass(made, QuotaCloud)
    world = World(limited(calm))
    assert isinstance(world.cloud, QuotaCloud) and isinstance(world.table, QuotaTable)
    assert type(World(calm).cloud) is CloudWorld


def test_faults_of_the_relay_leave_no_instance_behind(tmp_path: Path) -> None:
    plan = limited(busy_plan(tmp_path, 3), functions=1, functions_per_10s=1, stream_reads_per_s=2)
    world = World(plan)
    world.finish(world.run())
    cloud = world.cloud
    assert isinstance(cloud, QuotaCloud)
    assert world.probes["worker_killed"] and cloud.functions.throttled
    assert not cloud._started and not cloud._attempts and not cloud._waiting
    assert cloud.function_us > 0
