"""The scenarios that ship, run at fifty devices: they pass, reach what they are meant to reach, and give their hash."""

from __future__ import annotations

import re
from concurrent.futures import ProcessPoolExecutor

import pytest
from golden import PLANNING, golden_hashes, golden_plan
from run_rig import failures, ran, run_plan

from fleet.run import judge
from fleet.scenario.load import load
from fleet.scenario.shipped import scenario_paths
from reports.result import RunResult

NAMES = list(scenario_paths())
SEEDS = range(1, 201)


TIERS = [pytest.param(name, marks=pytest.mark.slow if name in PLANNING else ()) for name in NAMES]


@pytest.mark.parametrize("name", TIERS)
def test_a_shipped_scenario_passes_with_its_golden_hash_syncs_both_ways_and_fails_without_its_probes(name: str) -> None:
    """One run for all of it, since tests are spread over processes and a run takes seconds."""
    run = run_plan(golden_plan(name))
    passes_with_its_golden_hash(run)
    syncs_both_ways(run)
    fails_without_a_probe(run)


def passes_with_its_golden_hash(run: RunResult) -> None:
    summary = run.summary
    assert (summary.verdict, failures(summary)) == ("pass", [])
    assert run.devices == [] and summary.converged_after_s is not None
    assert summary.trace_hash == golden_hashes()[summary.scenario], "meant to be: python tests/golden.py"


def syncs_both_ways(run: RunResult) -> None:
    counts, latency = run.summary.counts, run.summary.latency_s
    assert counts.local_writes > 0 and counts.cloud_writes > 0
    assert latency.up.count + latency.down.count <= counts.updates_synced
    assert min(latency.up.count, latency.down.count) > 100


def fails_without_a_probe(run: RunResult) -> None:
    """Each threshold on a probe is what decides: without that probe the same run fails."""
    summary, plan = run.summary, golden_plan(run.summary.scenario)
    for probe in meant(summary.scenario):
        count = summary.probes.pop(probe)
        judge(summary, plan)
        assert summary.verdict == "fail"
        assert [one.expr for one in summary.thresholds if one.status == "fail"] == [f"probes.{probe} > 0"]
        summary.probes[probe] = count
    judge(summary, plan)
    assert summary.verdict == "pass"


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_scenario_says_which_probes_it_is_meant_to_reach(name: str) -> None:
    assert len(meant(name)) >= 2


def meant(name: str) -> list[str]:
    thresholds = load(name).expect.thresholds
    return [match[1] for one in thresholds if (match := re.fullmatch(r"probes\.(\w+) > 0", one.expr))]


def test_models_of_one_side_never_cross() -> None:
    """The oracle's check is proved elsewhere; here what is really there, at the end of a whole run."""
    world = ran(golden_plan("outage"))
    in_table = {item["_type"] for item in world.table.scan()}
    on_devices: set[str] = set()
    for device in world.devices.values():
        assert device.database is not None
        on_devices |= {model.name for model, _, _ in device.database.items()}
    assert in_table >= {"Status", "Fault", "Config", "Setting", "Notice", "Audit"} and "Diagnostic" not in in_table
    assert on_devices >= {"Status", "Fault", "Config", "Setting", "Notice", "Diagnostic"} and "Audit" not in on_devices


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_scenario_passes_on_two_hundred_seeds(name: str) -> None:
    with ProcessPoolExecutor(2) as pool:
        failed = [text for text in pool.map(verdict_of, [name] * len(SEEDS), SEEDS, chunksize=5) if text]
    assert not failed, "\n".join(failed)


def verdict_of(name: str, seed: int) -> str:
    """What went wrong with one seed; empty when nothing did."""
    result = run_plan(golden_plan(name, seed))
    if result.summary.verdict == "pass":
        return ""
    return f"{name} seed {seed}: {result.summary.verdict}: {'; '.join(failures(result.summary))}"
