"""Memory stays flat over virtual time: the timeline is bounded, no garbage waits for a collector, a day costs no more
than an hour."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from functools import cache
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from run_rig import BUSY, CALM, ROOT, busy_plan, ran

from fleet.intervals import ROWS_MAX, interval_us
from fleet.scenario.build import build_plan
from fleet.scenario.load import load
from fleet.scenario.plan import Plan
from fleet.world.world import World

MINUTE = 60_000_000

# A constant load within the first hour: every item that is ever there at once has been written once by then.
LOAD = (
    "workload.fault.keep=2",
    "workload.command.keep=2",
    "workload.notice.keep=2",
    "workload.audit.keep=1",
    "workload.setting-device.items=1",
    "workload.setting-cloud.items=1",
    "workload.diagnostic.items=1",
    "workload.audit.rate=4/h",
    "workload.setting-device.rate=4/h",
    "workload.diagnostic.rate=4/h",
)
MEASURE = """
import gc, json, sys
from fleet.run import execute
from fleet.scenario.build import build_plan
from fleet.scenario.load import load

def pages():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1])

marks = {}
def look(progress_now):
    hour = progress_now().now_us // 3_600_000_000
    if hour and hour not in marks:
        gc.collect()
        marks[hour] = pages()

result = execute(build_plan(load("baseline", [*sys.argv[2:], f"duration={sys.argv[1]}h"], 30), 1), None, look)
marks["failed"] = [check.name for check in result.summary.checks if check.status == "fail"]
marks["rows"] = len(result.timeline)
print(json.dumps(marks))
"""


@cache
def small_plan() -> Plan:
    return build_plan(load("baseline", devices=2))


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return busy_plan(tmp_path)


@given(duration=st.integers(1, 40_000_000_000_000), interval=st.integers(1_000, 10**10), extra=st.integers(0, 10**12))
def test_a_timeline_has_its_own_intervals_or_as_few_doublings_as_keep_it_bounded(
    duration: int, interval: int, extra: int
) -> None:
    plan = msgspec.structs.replace(
        small_plan(), duration_us=duration, interval_us=interval, converge_within_us=extra, quiesce_us=0
    )
    used, longest = interval_us(plan), duration + extra
    assert longest <= used * ROWS_MAX and used % interval == 0 and (used // interval).bit_count() == 1
    assert used == interval or longest > used // 2 * ROWS_MAX


def test_a_timeline_of_longer_intervals_counts_the_same(plan: Plan) -> None:
    fine = ran(msgspec.structs.replace(plan, interval_us=2_000_000, converge_within_us=20 * MINUTE))
    coarse = ran(msgspec.structs.replace(plan, interval_us=100_000, converge_within_us=20 * MINUTE))
    assert interval_us(coarse.plan) > 100_000 and len(coarse.timeline.rows) <= ROWS_MAX
    for column in ("writes_device", "writes_cloud", "synced", "messages_up", "connects", "retransmits"):
        totals = [sum(int(row[column]) for row in world.timeline.rows) for world in (fine, coarse)]
        assert totals[0] == totals[1] > 0 or column == "retransmits"
    assert [row["t_s"] for row in fine.timeline.rows] == [2.0 * n for n in range(len(fine.timeline.rows))]
    assert fine.latency_up.percentiles() == coarse.latency_up.percentiles()


def test_a_row_leaves_out_what_was_not_measured(tmp_path: Path) -> None:
    rows = ran(busy_plan(tmp_path, text=CALM)).timeline.rows
    assert "up_p50_s" not in rows[-1] and any("up_p50_s" in row for row in rows)
    assert all(type(row["online"]) is int for row in rows)


@pytest.mark.parametrize("fault", ["{kind: disconnects, rate: 6/h}", "{kind: table-throttle, share: 5%}"])
def test_a_run_leaves_nothing_to_the_garbage_collector(tmp_path: Path, fault: str) -> None:
    """Cycles would pile up between its rare passes, each with what it holds on to. (Only what a device without power
    leaves behind, its store and its transaction, is one: left out here.)"""
    text = "".join(line for line in BUSY.splitlines(keepends=True) if "reboots" not in line and "power" not in line)
    world = World(busy_plan(tmp_path, text=text.replace("faults:\n", f"faults:\n  - {fault}\n")))
    world.clock.run_until(MINUTE)
    gc.collect()
    gc.disable()
    try:
        world.clock.run_until(6 * MINUTE)
        assert gc.collect() == 0
    finally:
        gc.enable()


@pytest.mark.slow
def test_a_day_takes_no_more_memory_than_an_hour() -> None:
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, "24", *LOAD], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    marks = json.loads(done.stdout)
    print("pages of resident memory after each hour:", marks)
    assert marks["failed"] == [] and marks["rows"] <= ROWS_MAX
    assert marks["24"] < marks["1"] * 1.05
