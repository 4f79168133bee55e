"""Sweeps: what they count and keep, that jobs change nothing, that what goes wrong in a run stays with its seed."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import xml.etree.ElementTree as ET
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from run_rig import ROOT, command, fleet
from sweep_rig import calm, cases, dies_at_three, fails_sometimes, passes

from agent.protocol.errors import InputError
from fleet.commands.sweep import parse_seeds
from fleet.oracle.checks.convergence import Convergence
from fleet.scenario.build import build_plan
from fleet.scenario.load import load
from fleet.scenario.shipped import scenario_paths
from fleet.sweep.attempt import Outcome, attempt, kind_of, masked
from fleet.sweep.case import Case, source_of
from fleet.sweep.directory import seeds_in_words, summary_values
from fleet.sweep.pool import Here, opened
from fleet.sweep.stream import in_order
from fleet.sweep.sweep import Sweep, Wanted, sweep
from reports.result import Violation

TIMES = ("wall_s", "cpu_s", "busy", "rss_mb_max", "jobs")


def values(result: Sweep) -> dict[str, Any]:
    """What may not depend on how it was run."""
    told = summary_values(result, {"jobs": 1})
    return {key: value for key, value in told.items() if key not in TIMES}


# ---------------------------------------------------------------- cases


def test_a_case_has_the_plan_that_a_run_has_and_travels_to_other_processes() -> None:
    source = pickle.loads(pickle.dumps(source_of("outage", ["cloud.workers=3"], 10)))
    plan = Case(source, 7, plant="echo").plan()
    assert plan == build_plan(load("outage", ["cloud.workers=3"], 10), 7, plant="echo")
    assert Case(source, 7).command() == "fleet run outage --seed 7 --devices 10 --set cloud.workers=3"


@pytest.mark.parametrize("name", list(scenario_paths()))
def test_what_the_swarm_draws_is_a_right_scenario_and_the_same_each_time(name: str) -> None:
    source = source_of(name, (), 20)
    plans = [Case(source, seed, swarm=True).plan() for seed in range(40)]
    assert [Case(source, seed, swarm=True).plan() for seed in range(3)] == plans[:3]
    mixes = {tuple(fault.name for fault in plan.faults) for plan in plans}
    assert len(mixes) > 30
    assert len({plan.duration_us for plan in plans}) > 1
    kinds = [{fault.kind for fault in plan.faults} for plan in plans]
    assert all(found < set().union(*kinds) for found in kinds), "each leaves something out"
    assert all(sum(kind in found for found in kinds) for kind in ("reboots", "messages"))


def test_leaving_a_kind_of_fault_out_of_the_swarm_leaves_the_others_as_they_were(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from fleet.sweep import swarm

    source = source_of("conflict", (), 20)
    whole = [Case(source, seed, swarm=True).plan().faults for seed in range(20)]
    monkeypatch.delitem(swarm.DRAWS, "reboots")
    fewer = [Case(source, seed, swarm=True).plan().faults for seed in range(20)]
    assert [[fault for fault in faults if fault.name != "reboots"] for faults in whole] == fewer
    assert whole != fewer


# ---------------------------------------------------------------- kinds


def test_failures_that_differ_in_names_and_numbers_are_of_one_kind() -> None:
    def one(device: str, at_s: float) -> Violation:
        return Violation(
            check="convergence",
            t_s=at_s,
            device=device,
            item=f"device#{device}/fault#01KDVDQFTGS4CZ5993QC9TR7TX",
            expected=f"rev {at_s}",
            found="no item",
        )

    assert kind_of([one("east-0001", 17.5)]) == kind_of([one("west-0123", 3.0)])
    earlier = Violation(check="quiet-after-convergence", t_s=1.0, expected="silence")
    assert kind_of([one("east-0001", 2.0), earlier]) == kind_of([earlier])
    assert masked("epoch 17672256258024986d8d52d5c99e4 of east-0001, 12.5 s") == "epoch ID of DEVICE, N s"


# ---------------------------------------------------------------- what a sweep counts


def test_a_sweep_counts_failures_of_one_kind_once() -> None:
    result = sweep(Here(), cases(24), Wanted(twice_every=5), required=["convergence"], function=fails_sometimes)
    assert (result.runs, result.passed, result.failed, result.errors, result.exit_code()) == (24, 16, 8, 0, 1)
    assert (result.doubled, result.mismatches) == (5, 0)
    shown = {str(one): seeds_in_words([seed for _, seed in one.runs]) for one in result.failures.values()}
    assert shown == {"convergence: expected N, found N": "4, 8, 12, 16, 20, 24", "quiet: expected silence": "6, 18"}
    first = next(iter(result.failures.values()))
    assert (first.first, first.command) == ("seed 4", "fleet run nowhere --seed 4")
    assert result.probes_hit() == {"gap_seen": 24}
    assert "snapshot_loaded" in result.probes_never_hit() and "gap_seen" not in result.probes_never_hit()


def test_a_sweep_that_is_to_stop_early_stops_at_the_same_place_whatever_comes_back_first() -> None:
    result = sweep(Here(), cases(24), Wanted(0, stop_after=3), function=fails_sometimes)
    assert (result.runs, result.failed, result.stopped) == (8, 3, True)


def test_a_sweep_is_unknown_when_a_check_that_is_required_looked_at_nothing_in_any_run() -> None:
    assert sweep(Here(), cases(3), Wanted(), required=["convergence"], function=passes).exit_code() == 0
    result = sweep(Here(), cases(3), Wanted(), required=["no-gap"], function=passes)
    assert (result.exit_code(), result.checks_never_evaluated()) == (3, ["no-gap"])


def test_two_runs_of_one_case_that_differ_are_a_failure_of_the_harness() -> None:
    hashes = count()

    def differs(case: Case) -> Outcome:
        return Outcome(scenario="nowhere", seed=case.seed, verdict="pass", trace_hash=str(next(hashes)))

    result = sweep(Here(), cases(10), Wanted(twice_every=4), function=differs)
    assert (result.doubled, result.mismatches, result.errors, result.exit_code()) == (3, 3, 3, 4)


def test_an_interrupted_sweep_says_so() -> None:
    result = sweep(Here(), cases(10), Wanted(0), function=passes, on_progress=lambda so_far, finished: finished >= 4)
    assert result.interrupted and result.runs < 10 and result.exit_code() == 130


def test_outcomes_come_in_the_order_of_their_cases_and_what_raises_is_one() -> None:
    def raises(case: Case) -> Outcome:
        if case.seed == 2:
            raise ValueError("3 things")
        return passes(case)

    outcomes = list(in_order(Here(), cases(5), raises))
    assert [one.seed for one in outcomes] == [1, 2, 3, 4, 5]
    assert [one.verdict for one in outcomes] == ["pass", "error", "pass", "pass", "pass"]
    assert outcomes[1].kind is not None and outcomes[1].kind.shape.startswith("ValueError: N things in test_sweep.py")


def test_a_check_that_raises_is_a_failure_of_the_harness_and_no_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("in a check")

    assert attempt(Case(calm(), 1)).verdict == "pass"
    monkeypatch.setattr(Convergence, "result", broken)
    outcome = attempt(Case(calm(), 1))
    assert outcome.verdict == "error" and "ZeroDivisionError: in a check" in outcome.first
    assert sweep(Here(), cases(2, calm()), Wanted()).exit_code() == 4


# ---------------------------------------------------------------- processes


def test_a_process_that_dies_costs_its_seed_and_jobs_change_nothing() -> None:
    results = []
    for jobs in (1, 2):
        with opened(jobs) as pool:
            results.append(sweep(pool, cases(12), Wanted(0), function=dies_at_three))
    assert values(results[0]) == values(results[1])
    assert (results[0].runs, results[0].errors, results[0].failed, results[0].exit_code()) == (12, 1, 4, 4)
    (died,) = [one for one in results[0].failures.values() if one.kind.check == "harness"]
    assert [seed for _, seed in died.runs] == [3]


def test_a_run_that_takes_too_long_is_ended_and_costs_its_seed() -> None:
    with opened(1, timeout_s=0.001) as pool:
        result = sweep(pool, cases(1, source_of("baseline")), Wanted(0))
    assert result.errors == 1 and "Timeout" in next(iter(result.failures)).shape


def test_the_command_keeps_what_failed_and_what_it_keeps_can_be_replayed(tmp_path: Path) -> None:
    out = tmp_path / "sweep"
    options = ("--devices", "4", "--plant", "direction-forgotten", "--twice-every", "3")
    done = fleet("sweep", "outage", "--seeds", "1..5", *options, "--jobs", "2", "--out", str(out))
    assert done.returncode == 1, done.stderr
    told = json.loads((out / "summary.json").read_text())
    assert (told["runs"], told["double_runs"], told["determinism_mismatches"], told["jobs"]) == (5, 2, 0, 2)
    assert told["failed"] >= 1 and told["failed"] + told["passed"] == 5
    first = told["failures"][0]
    assert first["check"] in done.stdout and first["reproduce"] in done.stdout and "probes never hit" in done.stdout
    run = next(path for path in sorted((out / first["directory"]).iterdir()) if path.is_dir())
    assert fleet("replay", str(run)).returncode == 0
    suite = ET.parse(out / "junit.xml").getroot().find("testsuite")
    assert suite is not None and (suite.get("tests"), suite.get("failures")) == ("5", str(told["failed"]))
    assert done.stdout.splitlines()[-1] == str(out)


def test_the_same_sweep_of_a_swarm_gives_the_same_with_one_job_and_with_two(tmp_path: Path) -> None:
    told = []
    for jobs in ("1", "2"):
        out = tmp_path / jobs
        done = fleet(
            "sweep", "conflict", "--swarm", "--seeds", "3..5", "--devices", "4", "--jobs", jobs, "--out", str(out)
        )
        told.append({k: v for k, v in json.loads((out / "summary.json").read_text()).items() if k not in TIMES})
        assert done.returncode in (0, 3)  # so few seeds may leave a check without anything to look at
    assert told[0] == told[1]


def test_a_seed_of_the_swarm_is_run_again_by_the_command_that_is_told(tmp_path: Path) -> None:
    case = Case(source_of("conflict", (), 4), 5, swarm=True)
    words = case.command().split()
    done = fleet(*words[1:], "--out", str(tmp_path / "run"), "-q")
    assert done.returncode in (0, 3)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["trace_hash"] == attempt(case).trace_hash and summary["reproduce"] == case.command()


def test_an_interrupt_as_a_terminal_sends_it_ends_a_sweep_in_good_order(tmp_path: Path) -> None:
    out = tmp_path / "sweep"
    arguments = command("sweep", "outage", "--seeds", "1..100000", "--jobs", "2", "--out", str(out))
    with subprocess.Popen(
        arguments, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, start_new_session=True
    ) as process:
        assert process.stderr is not None
        assert "of 100,000 runs" in process.stderr.readline()
        os.killpg(process.pid, signal.SIGINT)
        process.stderr.read()
        assert process.wait() == 130
    told = json.loads((out / "summary.json").read_text())
    assert told["interrupted"] and told["verdict"] == "interrupted" and told["errors"] == 0


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize("text", ["", "x", "5..1", "1-5", "1..99999999999", "-1..3"])
def test_seeds_that_are_none_are_bad_input(text: str) -> None:
    with pytest.raises(InputError):
        parse_seeds(text)


def test_seeds_are_one_or_a_span() -> None:
    assert (parse_seeds("7"), parse_seeds("1..500")) == ((7, 7), (1, 500))


def test_bad_input_is_told_before_anything_runs(tmp_path: Path) -> None:
    for arguments in (("nowhere",), ("baseline", "--plant", "ekho"), ("baseline", "--memory", "much")):
        done = fleet("sweep", *arguments)
        assert (done.returncode, "Traceback" in done.stderr, done.stdout) == (2, False, "")
    (tmp_path / "file").write_text("x")
    assert fleet("sweep", "baseline", "--seeds", "1", "--out", str(tmp_path)).returncode == 2
