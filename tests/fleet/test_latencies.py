"""Latencies divided by group, model and phase, and the timeline's devices in step: parts that make up the whole."""

from __future__ import annotations

import math
from pathlib import Path

import msgspec
import pytest
from run_rig import BUSY, busy_plan, ran

from fleet import parts
from fleet.latencies import PHASES, SLOTS_MAX, Latencies, Phases
from fleet.scenario.plan import FaultPlan, Plan
from fleet.world.world import World
from reports.histogram import quantile_us

MINUTE_US = 60_000_000


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A whole run of six devices in two groups."""
    return ran(busy_plan(tmp_path_factory.mktemp("latencies")))


def planned(tmp_path: Path, *spans: tuple[int, int]) -> Plan:
    """Twelve minutes with faults from and to these minutes."""
    faults = [
        FaultPlan(name=str(n), kind="messages", at_us=start * MINUTE_US, until_us=end * MINUTE_US)
        for n, (start, end) in enumerate(spans)
    ]
    return msgspec.structs.replace(busy_plan(tmp_path), faults=faults)


@pytest.mark.parametrize(
    ("spans", "said"),
    [
        ([], "bbbbbbbbbbbb"),
        ([(4, 5)], "bbbbdaaaaaaa"),
        ([(4, 5), (8, 10)], "bbbbdaaaddaa"),
        ([(4, 5), (0, 12)], "bbbbdaaaaaaa"),  # the other one is in the background
        ([(1, 8), (0, 12)], "bdddddddaaaa"),  # of faults in the background, the shorter ones
        ([(0, 12)], "dddddddddddd"),
    ],
)
def test_a_minute_is_before_during_or_after_faults(tmp_path: Path, spans: list[tuple[int, int]], said: str) -> None:
    phases = Phases(planned(tmp_path, *spans))
    assert "".join(phases.of(n * MINUTE_US, (n + 1) * MINUTE_US)[0] for n in range(12)) == said


def test_slots_stay_few_and_lose_nothing() -> None:
    latencies = Latencies(["g"], ["M"])
    for n in range(1000):
        for value in (n, 2 * n):
            latencies.tallies["g"].up["M"].add(value)
        quantiles = latencies.close(PHASES[n % 3], 10.0)
        assert quantiles[0][0] == pytest.approx(n / 1e6) and all(map(math.isnan, quantiles[1]))
    latencies.finish()
    slots = latencies.slots()
    assert SLOTS_MAX / 2 <= len(slots) <= SLOTS_MAX
    width = slots[1].t_s
    assert [slot.t_s for slot in slots] == [n * width for n in range(len(slots))] and len(slots) * width >= 10_000
    assert sum(count for slot in slots for _, count in slot.up) == 2000 == len(latencies.up)
    assert slots[3].up[0][0] == pytest.approx(slots[3].t_s / 10, rel=0.01)
    assert [phase.seconds for phase in latencies.phases()] == [3340.0, 3330.0, 3330.0]


def test_the_parts_of_a_run_make_up_the_whole(world: World) -> None:
    total = (len(world.latency_up), len(world.latency_down))
    assert min(total) > 50
    for divided in (parts.groups(world), parts.models(world)):
        assert sum(part.latency_s.up.count for part in divided.values()) == total[0]
        assert sum(part.latency_s.down.count for part in divided.values()) == total[1]
        assert sum(part.counts["local_writes"] for part in divided.values()) == world.oracle.local_writes
        assert max(part.latency_s.up.max for part in divided.values()) == world.latency_up.percentiles().max
    phases, slots = world.latencies.phases(), world.latencies.slots()
    assert [phase.name for phase in phases] == ["before", "during", "after"]
    assert sum(phase.latency_s.up.count for phase in phases) == total[0]
    assert sum(count for slot in slots for _, count in slot.down) == total[1]
    assert math.fsum(phase.seconds for phase in phases) == pytest.approx(world.clock.now / 1e6)


def test_groups_and_models_are_told_apart(world: World) -> None:
    groups, models = parts.groups(world), parts.models(world)
    assert list(groups) == ["home", "shop"]
    assert [part.counts["devices"] for part in groups.values()] == [4, 2]
    broker = world.broker.counts()
    for name in ("messages_up", "messages_down", "bytes_up", "bytes_down"):
        assert sum(part.counts[name] for part in groups.values()) == broker[name]
    assert models["Status"].latency_s.down.count == 0 and models["Config"].latency_s.up.count == 0
    assert models["Status"].latency_s.up.count > 0 and models["Config"].latency_s.down.count > 0
    assert sum(part.counts["cloud_writes"] for part in models.values()) == world.oracle.cloud_writes


def test_phases_have_the_percentiles_of_what_they_hold(world: World) -> None:
    for phase in world.latencies.phases():
        for values, counts in ((phase.latency_s.up, phase.up), (phase.latency_s.down, phase.down)):
            assert sum(count for _, count in counts) == values.count
            if values.count:
                assert quantile_us(counts, 0.5) / 1e6 == pytest.approx(values.p50, rel=0.01)
                assert quantile_us(counts, 0.99) / 1e6 == pytest.approx(values.p99, rel=0.01)


def test_devices_in_step_are_those_that_lack_nothing(tmp_path: Path) -> None:
    """At the end everyone is; while half of them have no broker, nobody of these is who has written since."""
    world = World(busy_plan(tmp_path, text=BUSY.replace("at: 4m, duration: 1m", "at: 4m, duration: 3m")))
    world.finish(world.run())
    rows = world.timeline.rows
    assert world.converged_us is not None and rows[-1]["converged"] == 6
    assert all(0 <= row["converged"] <= 6 for row in rows)
    cut_off = [row["converged"] for row in rows if 330 <= row["t_s"] < 400]
    assert max(cut_off) <= 2  # four homes lost their broker at 4m, and write every 20 s
    assert rows[0]["converged"] < 6


def test_who_lacks_an_item_of_the_table_is_behind(tmp_path: Path) -> None:
    """Account-wide items count for each member that has not seen their last state."""
    world = World(busy_plan(tmp_path))
    seen: set[str] = set()
    for minute in range(1, 13):
        world.clock.run_until(minute * MINUTE_US)
        behind = world.oracle.behind()
        seen |= behind
        for name in behind:
            device = world.oracle._devices[name]
            lacking = [
                item
                for kind, feed in device.feeds.items()
                for item in feed.unsettled.values()
                if item.wide is None or item.wide[device.index[kind]] != item.index
            ]
            assert lacking, name
    assert seen
