"""Shrinking: what is left is what the failure needs, the same for any number of jobs, and can be run as a scenario."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
from run_rig import ROOT, command, fleet
from scenario_rig import write
from shrink_rig import FAILS, PASSES, TINY, searching, tiny_plan, when

from fleet.plants import PLANTS
from fleet.scenario.build import build_plan
from fleet.scenario.faults import KINDS
from fleet.scenario.load import load
from fleet.scenario.plan import Plan
from fleet.scenario.shipped import scenario_paths
from fleet.shrink.explicit import can_be_said, explicit, in_words
from fleet.shrink.reductions import ending, with_devices
from fleet.shrink.search import Enough
from fleet.shrink.shrink import Shrink, size_of
from fleet.shrink.step import Step, step
from fleet.shrink.whole import NothingToShrink, NotTheSame, failure_of, shrink
from fleet.sweep.case import Case, source_of
from fleet.sweep.pool import Here, opened

SECOND = 1_000_000
CALM = """\
name: calm
schema: fleet.json5
duration: 1m
devices: [{name: shop, count: 2}]
workload: [{name: status, side: device, model: Status, every: 20s}]
"""


def shrunk(plan: Plan, test: Any, budget: int = 3000) -> Plan:
    search = searching(plan, when(test), budget=budget)
    Shrink(search, None).run()
    return search.best


# ---------------------------------------------------------------- a plan in words


@pytest.mark.parametrize("name", list(scenario_paths()))
def test_a_plan_written_out_is_a_scenario_that_makes_this_very_plan(name: str) -> None:
    plan = explicit(build_plan(load(name, devices=4), 3, plant="echo"))
    assert can_be_said(plan)
    assert explicit(plan) == plan


def test_what_a_swarm_draws_can_be_said_and_every_kind_of_fault_is_among_it() -> None:
    source = source_of("outage", (), 3)
    kinds: set[str] = set()
    for seed in range(12):
        plan = explicit(Case(source, seed, swarm=True).plan())
        kinds |= {fault.kind for fault in plan.faults}
        assert can_be_said(plan), seed
    assert kinds == set(KINDS)


@pytest.mark.parametrize(
    "more",
    [
        "cloud: {preset: aws-iot-default, connects_per_s: 7}",
        "cloud: {preset: azure-iot-hub-s1, units: 12, over_publishes: delay}",
        "cloud: {partition_writes_per_s: 40}",
        "expect:\n  thresholds:\n    - probes.dropped == 0\n    - {expr: 'during all: connects < 500/s', abort: true}",
    ],
)
def test_quotas_and_thresholds_that_end_a_run_can_be_said(tmp_path: Path, more: str) -> None:
    faults = "faults:\n  - {kind: link-down, name: all, at: 20s, duration: 10s}\n"
    plan = explicit(build_plan(load(write(tmp_path, f"{CALM}{faults}{more}\n")), 3))
    assert plan.quotas is not None or plan.aborts == ["during all: connects < 500/s"]
    assert can_be_said(plan)


def test_a_plan_in_words_is_the_same_plan_when_its_file_is_loaded(tmp_path: Path) -> None:
    plan = explicit(tiny_plan(tmp_path, "echo"))
    schema = plan.schema_text.replace("Audit", "Protocol")
    own = msgspec.structs.replace(
        plan,
        schema_text=schema,
        workloads=[one for one in plan.workloads if one.model != "Audit"],
    )
    for one, has_file in ((plan, False), (own, True)):
        written = in_words(one, "own.json5")
        assert written is not None and bool(written.schema) == has_file
        if written.schema:
            (tmp_path / written.schema).write_text(one.schema_text)
        made = build_plan(load(write(tmp_path, written.yaml, "said.yaml")), plant=one.plant)
        people = {"source": "", "description": "", "schema_file": ""}
        assert msgspec.structs.replace(made, **people) == msgspec.structs.replace(one, **people)


def test_a_plan_that_no_scenario_makes_is_not_put_in_words(tmp_path: Path) -> None:
    plan = tiny_plan(tmp_path, "")
    assert in_words(plan, "own.json5") is None, "reboots of devices at times of their own are several faults"


# ---------------------------------------------------------------- what is taken away


def test_without_a_device_what_concerns_the_others_stays(tmp_path: Path) -> None:
    plan = tiny_plan(tmp_path, "")
    less = with_devices(plan, {"shop-0002"})
    assert less is not None and [device.id for device in less.devices] == ["shop-0002"]
    assert [group.name for group in less.groups] == ["shop"]
    assert not any(fault.kind == "broker-outage" for fault in less.faults), "its region has no device any more"
    named = {event[1] for fault in less.faults for event in fault.events}
    assert named <= {"", "shop-0002"}


def test_a_shorter_plan_has_nothing_after_its_end(tmp_path: Path) -> None:
    plan = tiny_plan(tmp_path, "")
    short = ending(plan, 150 * SECOND)
    assert short is not None and short.converge_within_us == plan.converge_within_us
    assert all(at + n <= 150 * SECOND for fault in short.faults for at, _, n in fault.events)
    assert ending(plan, plan.duration_us) is None


def test_only_what_the_failure_needs_is_left(tmp_path: Path) -> None:
    plan = tiny_plan(tmp_path, "")

    def needs(one: Plan) -> bool:
        """A device, an outage of at least twenty seconds, writes of Setting on the device."""
        outage = any(n >= 20 * SECOND for f in one.faults if f.kind == "broker-outage" for _, _, n in f.events)
        writes = any(w.model == "Setting" and w.side == "device" for w in one.workloads)
        return outage and writes and any(device.id == "home-0002" for device in one.devices)

    best = shrunk(plan, needs)
    assert [device.id for device in best.devices] == ["home-0002"]
    assert [(fault.kind, fault.events) for fault in best.faults] == [("broker-outage", [(0, "", 20 * SECOND)])]
    assert [workload.name for workload in best.workloads] == ["setting-device"]
    assert best.duration_us <= 30 * SECOND and can_be_said(best)
    assert best.devices[0].clock_offset_us == best.devices[0].boot_at_us == 0 and best.groups[0].link.loss == 0


@dataclass
class Counted:
    """Fails while there are two devices; notes what it was asked."""

    asked: int = 0

    def __call__(self, data: bytes, early: bool, hashed: bool) -> Step:
        self.asked += 1
        return FAILS if len(Plan.decode(data).devices) > 1 else PASSES


def test_a_budget_ends_it_with_the_smallest_so_far(tmp_path: Path) -> None:
    plan, run = tiny_plan(tmp_path, ""), Counted()
    search = searching(plan, run, budget=9)
    assert not Shrink(search, None).run()
    assert search.replays == 9 and run.asked <= 9 + Here.handed_out
    assert size_of(search.best).duration_us < size_of(plan).duration_us
    assert len(search.best.devices) > 1


def few_devices(data: bytes, early: bool, hashed: bool) -> Step:
    """A replay in another process: one dies."""
    plan = Plan.decode(data)
    if len(plan.devices) == 3:
        os._exit(9)
    return FAILS if len(plan.devices) > 1 and any(f.kind == "relay-kill" for f in plan.faults) else PASSES


def test_the_minimum_does_not_depend_on_the_number_of_jobs_and_a_dead_process_costs_a_step(tmp_path: Path) -> None:
    plan = tiny_plan(tmp_path, "")
    found = []
    for jobs in (1, 3):
        with opened(jobs) as pool:
            search = searching(plan, few_devices, pool, budget=60)
            search.without(plan.devices, lambda left: with_devices(plan, {device.id for device in left}))
            found.append((search.best, search.replays))
    assert found[0] == found[1]
    assert 1 < len(found[0][0].devices) < len(plan.devices)


def test_whoever_asks_to_end_is_heard(tmp_path: Path) -> None:
    plan = tiny_plan(tmp_path, "")
    search = searching(plan, when(lambda one: True))
    search._stopped = lambda: True
    with pytest.raises(Enough):
        search.first([ending(plan, 10 * SECOND)])


# ---------------------------------------------------------------- planted bugs


@pytest.mark.parametrize("plant", ["direction-forgotten", "offline-edits-dropped"])
def test_a_planted_bug_shrinks_to_a_device_and_its_scenario_fails_in_the_same_way(tmp_path: Path, plant: str) -> None:
    plan = tiny_plan(tmp_path, plant)
    failure = failure_of(Here(), plan, "", lambda: False)
    least = shrink(Here(), plan, failure, budget=3000, stopped=lambda work: False)
    size = size_of(least.plan)
    assert least.complete and size.devices == 1 and size.faults <= 1 and size.workloads == 1
    assert least.plan.plant == plant
    written = in_words(least.plan, "own.json5")
    assert written is not None
    again = build_plan(load(write(tmp_path, written.yaml, "min.yaml")), plant=plant)
    assert step(again.encode(), False, False).kind == failure.kind
    healthy = build_plan(load(tmp_path / "min.yaml"))
    assert step(healthy.encode(), False, False).verdict == "pass", "it is the bug that fails, not the scenario"


def test_the_scenario_that_the_document_shows_fails_as_it_says(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "proof.md").read_text("utf-8")
    yaml = text[text.index("```yaml\n") + 8 :].partition("```")[0]
    plan = build_plan(load(write(tmp_path, yaml)), plant="offline-edits-dropped")
    found = step(plan.encode(), False, False).kind
    assert found is not None and found.check == "read-your-writes"


def test_a_plan_that_passes_is_nothing_to_shrink_and_one_that_runs_otherwise_is_not_the_same(tmp_path: Path) -> None:
    with pytest.raises(NothingToShrink, match="verdict is pass"):
        failure_of(Here(), tiny_plan(tmp_path, ""), "", lambda: False)
    with pytest.raises(NotTheSame, match="recorded 00"):
        failure_of(Here(), tiny_plan(tmp_path, "direction-forgotten"), "0" * 32, lambda: False)


# ---------------------------------------------------------------- the command


@pytest.fixture(scope="module")
def failed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory with a planted bug."""
    place = tmp_path_factory.mktemp("shrink")
    scenario = write(place, TINY)
    done = fleet("run", str(scenario), "--plant", "direction-forgotten", "--out", str(place / "run"), "-q")
    assert done.returncode == 1, done.stderr
    return place / "run"


def test_the_command_writes_plan_scenario_and_picture_and_what_it_says_reproduces_it(failed: Path) -> None:
    done = fleet("shrink", str(failed), "--jobs", "2")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(failed / "plan.min.json")
    assert all(len(line) <= 100 for line in done.stdout.splitlines() if "expected" not in line and "/" not in line)
    picture = ET.fromstring((failed / "plan.min.svg").read_text())
    words = " ".join(picture.itertext())
    assert "direction" in words and "table" in words and "application: create status#" in words
    again = fleet(
        "run", str(failed / "plan.min.yaml"), "--plant", "direction-forgotten", "--out", str(failed / "again")
    )
    assert again.returncode == 1
    checks = {
        one["name"]: one["status"] for one in json.loads((failed / "again" / "summary.json").read_text())["checks"]
    }
    assert checks["direction"] == "fail"
    replayed = fleet("replay", str(failed / "plan.min.json"))
    assert json.loads((failed / "again" / "summary.json").read_text())["trace_hash"] in replayed.stdout


def test_the_result_as_json_is_the_same_for_one_job_and_for_two(failed: Path, tmp_path: Path) -> None:
    told = []
    for jobs in ("1", "2"):
        done = fleet("shrink", str(failed / "plan.json"), "--jobs", jobs, "--out", str(tmp_path / jobs), "--json")
        assert done.returncode == 0, done.stderr
        told.append(json.loads(done.stdout))
    assert told[0]["check"] == "direction" and told[0]["complete"]
    for one in told:
        for key in ("wall_s", "jobs", "plan", "scenario", "picture", "reproduce"):
            del one[key]
    assert told[0] == told[1]
    plans = [(tmp_path / jobs / "plan.min.json").read_bytes() for jobs in ("1", "2")]
    assert plans[0] == plans[1]


def test_bad_input_a_plan_that_passes_and_a_run_that_differs_have_exit_codes_of_their_own(
    failed: Path, tmp_path: Path
) -> None:
    (tmp_path / "plan.json").write_text("{}")
    (tmp_path / "passes.json").write_bytes(tiny_plan(tmp_path, "").encode())
    for arguments in (("nowhere",), (str(tmp_path / "plan.json"),), (str(failed), "--for", "soon")):
        done = fleet("shrink", *arguments)
        assert (done.returncode, "Traceback" in done.stderr, done.stdout) == (2, False, "")
    done = fleet("shrink", str(tmp_path / "passes.json"))
    assert done.returncode == 2 and "nothing to shrink" in done.stderr
    other = tmp_path / "other"
    other.mkdir()
    for path in failed.iterdir():
        if path.is_file():
            (other / path.name).write_bytes(path.read_bytes())
    summary = json.loads((other / "summary.json").read_text())
    (other / "summary.json").write_text(json.dumps({**summary, "trace_hash": "0" * 32}))
    done = fleet("shrink", str(other))
    assert done.returncode == 4 and "not reproducible" in done.stderr and "Traceback" not in done.stderr


def test_ctrl_c_keeps_the_smallest_so_far(tmp_path: Path) -> None:
    """Asked to end as soon as something has become smaller, long before the end."""
    (tmp_path / "plan.json").write_bytes(tiny_plan(tmp_path, "offline-edits-dropped").encode())
    process = subprocess.Popen(
        command("shrink", str(tmp_path / "plan.json"), "--jobs", "1"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "replays" in line:
            process.send_signal(signal.SIGINT)
            break
    out, _ = process.communicate(timeout=60)
    assert process.returncode in (0, 130), "it may have come to its end just before"
    assert out.splitlines()[-1] == str(tmp_path / "plan.min.json")
    assert Plan.load(tmp_path / "plan.min.json").plant == "offline-edits-dropped"


# ---------------------------------------------------------------- the measure


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_planted_bugs_shrink_to_at_most_three_faults_and_two_devices_in_the_median() -> None:
    """Sizes are asserted; the time is told, and is this machine's."""
    from statistics import median

    from plant_rig import DEVICES, KNOWN, SEEDS, Known

    rows = []
    with opened(2, timeout_s=120) as pool:
        for name in list(PLANTS)[::2]:
            known = KNOWN.get(name, Known())
            for seed in (known.seed, *SEEDS):
                plan = build_plan(load(PLANTS[name].scenario, devices=min(known.devices, DEVICES)), seed, plant=name)
                try:
                    failure = failure_of(pool, plan, "", lambda: False)
                except NothingToShrink:
                    continue
                started = time.monotonic()
                least = shrink(pool, plan, failure, budget=3000, stopped=lambda work: False)
                rows.append((name, size_of(least.plan), least.replays, time.monotonic() - started, least.complete))
                print(f"{name:26} {rows[-1][1]} {least.replays} replays {rows[-1][3]:.0f} s", flush=True)
                break
    assert len(rows) == len(list(PLANTS)[::2])
    assert median(size.faults for _, size, *_ in rows) <= 3 and median(size.devices for _, size, *_ in rows) <= 2
    print(f"median: {median(row[3] for row in rows):.0f} s, longest {max(row[3] for row in rows):.0f} s")
