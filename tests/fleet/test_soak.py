"""Nights: what is drawn, what runs first, what becomes of failing plans, and that a bad harness cannot pass.

Most nights here have stand-ins for runs and a clock of their own; the last ones are real, and short.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Final

import msgspec
import pytest
from run_rig import ROOT, command, fleet
from sweep_rig import calm, passes

from agent.protocol.errors import InputError
from fleet.plants import PLANTS
from fleet.scenario.load import load
from fleet.scenario.shipped import scenario_paths
from fleet.soak.corpus import FAILING, FIXED, Corpus
from fleet.soak.draws import Again, Budget, Draws, Reference, canary_of, names_in
from fleet.soak.drift import Bounds, Sample, judged
from fleet.soak.night import CANARY_SEEDS, Called, Night, Soak
from fleet.soak.worker import one_run, rss_mb
from fleet.sweep.attempt import HARNESS, Kind, Outcome
from fleet.sweep.case import Case, Runnable, scenario_of
from fleet.sweep.pool import Here

SMALL: Final = """\
name: small
schema: fleet.json5
duration: 6m
devices: [{name: lab, count: 2, link: ethernet, boot: {over: 5s}}]
workload: [{name: status, side: device, model: Status, every: 20s, bytes: 200}]
phases: {warm_up: 1m, quiesce: 2m, converge_within: 10m}
expect: {checks: [convergence]}
"""
LATE: Final = Kind("convergence", "expected N, found N")
PLAN: Final = Case(calm(), 1).plan().encode()


@dataclass
class Rig:
    """A night with a clock that a run moves by a second. `run`: what comes of a case; `caught`: the canary is found."""

    folder: Path
    run: Callable[[Runnable], Outcome] = lambda case: good(case)
    caught: bool = True
    seconds: float = 60.0
    now: float = 0.0
    ran: list[Runnable] = field(default_factory=list)
    bad: list[str] = field(default_factory=list)
    stop_after: int = 0
    parent_mb: float = 50.0

    def night(self, number: int = 1, seed: int = 7) -> Night:
        def one(case: Runnable) -> Outcome:
            self.now += 1.0
            self.ran.append(case)
            return self.run(case)

        def canary(case: Case) -> Outcome:
            kind = Kind(PLANTS[case.plant].caught_by[0], "expected N")
            return passes(case, "fail", kind) if self.caught else passes(case)

        def progress(night: Night, finished: int) -> bool:
            return 0 < self.stop_after <= night.sweep.runs

        soak = Soak(
            Here(),
            Draws(["baseline"], seed),
            Corpus(self.folder),
            Budget(self.seconds, 1),
            lambda: self.now,
            lambda failures, outcome: self.bad.append(outcome.scenario),
            progress,
            run=one,
            hunted=canary,
            memory=lambda: self.parent_mb,
        )
        return soak.night(Called(number, seed, "2026-01-01T00:00:00Z", "1.0"))


def good(case: Runnable) -> Outcome:
    assert isinstance(case, Case)
    outcome = msgspec.structs.replace(passes(case), events=1000, cpu_s=1.0, rss_mb=100.0, process=1)
    return msgspec.structs.replace(outcome, trace_hash="reference") if isinstance(case, Reference) else outcome


def fails(case: Runnable, kind: Kind = LATE, verdict: str = "fail") -> Outcome:
    return Outcome(
        scenario=case.scenario,
        seed=case.seed,
        verdict=verdict,  # type: ignore[arg-type]
        kind=kind,
        first="words",
        plan=PLAN,
        command=case.command(),
    )


def fails_once(number: int, kind: Kind = LATE) -> Callable[[Runnable], Outcome]:
    """The n-th case of the night fails; what is kept of it passes when it is tried again."""
    bad = Draws(["baseline"], 7).case(number)

    def run(case: Runnable) -> Outcome:
        return fails(case, kind) if case == bad else good(case)

    return run


# ---------------------------------------------------------------- what is drawn


def test_a_night_draws_scenarios_seeds_sizes_and_swarms_and_the_same_for_the_same_seed() -> None:
    draws = Draws(names_in(None), 1)
    cases = [draws.case(number) for number in range(600)]
    assert {case.scenario for case in cases} == set(scenario_paths())
    assert len({case.seed for case in cases}) == 600
    assert 250 < sum(case.swarm for case in cases) < 350
    assert len({case.source.arguments for case in cases}) == 4 * len(scenario_paths())
    again = Draws(names_in(None), 1)
    assert [again.case(number) for number in range(600)] == cases
    assert Draws(names_in(None), 2).case(0) != cases[0]
    assert draws.canary() == again.canary() == canary_of(1)
    assert len({canary_of(seed) for seed in range(200)}) > len(PLANTS) // 2


def test_a_night_asks_for_no_numbers_that_its_few_devices_need_not_reach() -> None:
    draws = Draws(["month-end"], 1)
    case = draws.case(1)
    assert load("month-end").expect.thresholds
    assert scenario_of(case.source, case.seed).expect.thresholds == ()
    assert "--set 'expect.thresholds=[]'" in case.command()


def test_references_and_second_runs_come_between_and_the_clock_ends_it() -> None:
    now = 0.0

    def clock() -> float:
        nonlocal now
        now += 0.25
        return now

    cases = list(Draws(["baseline"], 1).cases(Budget(400.0, 1), clock))
    assert now == pytest.approx(400, abs=2)
    assert all(isinstance(case, Reference) for case in cases[:2])
    between = [index for index, case in enumerate(cases) if isinstance(case, Reference)][2:]
    assert 15 <= len(between) <= 24 and all(b - a > 3 for a, b in pairwise(between))
    seconds = [index for index, case in enumerate(cases) if isinstance(case, Again)]
    assert len(seconds) > 10
    for index in seconds:
        first, again = cases[index - 1], cases[index]
        assert (first.source, first.seed, first.swarm) == (again.source, again.seed, again.swarm)


def test_scenarios_of_a_directory_and_none(tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(SMALL)
    assert names_in(tmp_path) == [str(tmp_path / "small.yaml")]
    for wrong in (tmp_path / "nowhere", tmp_path / "small.yaml"):
        with pytest.raises(InputError, match="--scenarios"):
            names_in(wrong)
    (tmp_path / "small.yaml").write_text("name: 3")
    with pytest.raises(InputError, match=r"small\.yaml"):
        Draws(names_in(tmp_path), 1)


# ---------------------------------------------------------------- a night


def test_a_night_without_failures_passes(tmp_path: Path) -> None:
    night = Rig(tmp_path).night()
    assert (night.exit_code(), night.harness_problems(), night.drift.status) == (0, [], "pass")
    assert night.sweep.runs > 30 and night.sweep.doubled > 10 and night.sweep.mismatches == 0
    assert night.canary is not None and night.canary.seeds == 1
    assert night.reference_events_per_s == 1000.0
    assert not night.sweep.lines, "of runs that passed nothing is held"


def test_a_failure_is_kept_tried_first_the_next_night_and_leaves_the_corpus_when_it_is_fixed(tmp_path: Path) -> None:
    first = Rig(tmp_path, fails_once(5))
    night = first.night()
    assert (night.exit_code(), night.sweep.failed, first.bad) == (1, 1, ["baseline"])
    assert night.news.new == [LATE]
    (entry,) = Corpus(tmp_path).entries(FAILING)
    assert entry.about.kind == LATE and entry.about.failed == 1
    assert entry.kept().plan().encode() == PLAN

    again = Rig(tmp_path, lambda case: good(case) if isinstance(case, Case) else fails(case))
    night = again.night(2)
    assert again.ran[0] == entry.kept(), "before anything else"
    assert (night.exit_code(), night.news.failing, night.news.retried) == (1, [LATE], 1)

    fixed = Rig(tmp_path, lambda case: good(case) if isinstance(case, Case) else fixed_now(case))
    night = fixed.night(3)
    assert (night.exit_code(), night.news.fixed) == (0, [LATE])
    assert not Corpus(tmp_path).entries(FAILING) and len(Corpus(tmp_path).entries(FIXED)) == 1


def fixed_now(case: Runnable) -> Outcome:
    return Outcome(scenario=case.scenario, seed=case.seed, verdict="pass", command=case.command())


def test_a_fixed_one_is_tried_again_now_and_then_and_comes_back_when_it_fails(tmp_path: Path) -> None:
    Rig(tmp_path, fails_once(5)).night()
    Rig(tmp_path, lambda case: good(case) if isinstance(case, Case) else fixed_now(case)).night(2)
    for number in range(3, 9):
        assert Rig(tmp_path).night(number).news.retried == 0
    night = Rig(tmp_path, lambda case: good(case) if isinstance(case, Case) else fails(case)).night(9)
    assert (night.news.retried, night.news.returned, night.exit_code()) == (1, [LATE], 1)
    assert [entry.about.failed for entry in Corpus(tmp_path).entries(FAILING)] == [9]


def test_failures_of_one_kind_are_kept_once(tmp_path: Path) -> None:
    night = Rig(tmp_path, lambda case: good(case) if isinstance(case, Reference | Again) else fails(case)).night()
    assert night.sweep.failed > 20 and len(Corpus(tmp_path).entries(FAILING)) == 1
    # Those that ran twice failed once and passed once: that is the harness.
    assert night.sweep.mismatches > 0 and night.exit_code() == 4


def test_a_plan_that_fails_in_another_way_now_is_filed_under_that(tmp_path: Path) -> None:
    other = Kind("no-gap", "expected N")
    Rig(tmp_path, fails_once(5)).night()
    Rig(tmp_path, lambda case: good(case) if isinstance(case, Case) else fails(case, other)).night(2)
    assert [entry.about.kind for entry in Corpus(tmp_path).entries(FAILING)] == [other]
    assert not Corpus(tmp_path).entries(FIXED)


def test_a_plan_that_the_harness_fails_at_stays_where_it_is(tmp_path: Path) -> None:
    Rig(tmp_path, fails_once(5)).night()
    broken = Kind(HARNESS, "ZeroDivisionError")
    night = Rig(tmp_path, lambda case: good(case) if isinstance(case, Case) else fails(case, broken, "error")).night(2)
    assert night.exit_code() == 4
    assert [entry.about.kind for entry in Corpus(tmp_path).entries(FAILING)] == [LATE]


def test_a_plan_of_another_release_is_set_aside_and_told(tmp_path: Path) -> None:
    Rig(tmp_path, fails_once(5)).night()
    (entry,) = Corpus(tmp_path).entries(FAILING)
    (entry.folder / "plan.json").write_text('{"version": 0}')
    night = Rig(tmp_path).night(2)
    assert len(night.news.unreadable) == 1 and night.exit_code() == 0
    assert not Corpus(tmp_path).entries(FAILING)
    assert Path(night.news.unreadable[0], "plan.json").exists()


def test_a_damaged_corpus_is_bad_input_before_anything_runs(tmp_path: Path) -> None:
    Rig(tmp_path, fails_once(5)).night()
    (entry,) = Corpus(tmp_path).entries(FAILING)
    (entry.folder / "about.json").write_text("{")
    rig = Rig(tmp_path)
    with pytest.raises(InputError, match="remove this folder"):
        rig.night(2)
    assert not rig.ran


# ---------------------------------------------------------------- a bad harness cannot pass


def test_a_night_that_cannot_find_what_is_known_to_be_there_says_so(tmp_path: Path) -> None:
    night = Rig(tmp_path, caught=False).night()
    (problem,) = night.harness_problems()
    assert night.exit_code() == 4 and night.canary_plant in problem and str(CANARY_SEEDS) in problem
    assert "could not find a bug that is known to be there" in problem


def test_a_reference_that_differs_from_itself_is_a_failure_of_the_harness(tmp_path: Path) -> None:
    hashes = iter(range(10**6))

    def run(case: Runnable) -> Outcome:
        return msgspec.structs.replace(good(case), trace_hash=str(next(hashes)))

    night = Rig(tmp_path, run).night()
    assert night.exit_code() == 4 and night.sweep.mismatches == night.sweep.doubled > 10


@pytest.mark.parametrize(("what", "words"), [("rss_mb", "memory of one process grew"), ("cpu_s", "speed of one")])
def test_a_harness_that_drifts_fails_the_night_with_the_figures(tmp_path: Path, what: str, words: str) -> None:
    rig = Rig(tmp_path)

    def run(case: Runnable) -> Outcome:
        value = 100.0 + 5 * rig.now if what == "rss_mb" else 1.0 + rig.now / 60
        return msgspec.structs.replace(good(case), **{what: value})

    rig.run = run
    night = rig.night()
    assert night.exit_code() == 4 and words in night.harness_problems()[0]
    assert any(letter.isdigit() for letter in night.drift.detail)


def test_drift_is_told_from_caches_that_fill_up_from_neighbours_and_from_short_nights() -> None:
    def samples(values: list[tuple[float, float]], process: int = 1) -> list[Sample]:
        return [Sample(process, rss, speed) for rss, speed in values]

    steady = samples([(100.0, 1000.0)] * 12)
    assert judged(steady).status == "pass"
    assert judged(steady[:8]).status == "unknown"
    full = samples([(80.0, 900.0)] + [(150.0, 1000.0)] * 11)
    assert judged(full).status == "pass"
    disturbed = samples([(100.0, 1000.0)] * 8 + [(100.0, 400.0), (100.0, 500.0), (100.0, 950.0), (100.0, 300.0)])
    assert judged(disturbed).status == "pass", "one undisturbed run shows that nothing is slower"
    leak = samples([(100.0 + 20 * n, 1000.0) for n in range(12)], process=2)
    assert judged(steady + leak).status == "fail"
    assert judged(leak, Bounds(growth_mb=200.0)).status == "pass"
    slow = samples([(100.0, 1000.0 - 60 * n) for n in range(12)])
    assert judged(slow).status == "fail" and "times" in judged(slow).detail
    shared = [sample for pair in zip(steady, [replaced(one, 3) for one in steady], strict=True) for sample in pair]
    assert judged(shared).status == "pass" and judged(shared).samples == 24


def replaced(sample: Sample, process: int) -> Sample:
    return msgspec.structs.replace(sample, process=process)


def test_the_process_that_hands_out_the_runs_is_watched_too(tmp_path: Path) -> None:
    rig = Rig(tmp_path)

    def run(case: Runnable) -> Outcome:
        rig.parent_mb += 5.0
        return good(case)

    rig.run = run
    night = rig.night()
    assert night.exit_code() == 4 and "memory of one process grew" in night.harness_problems()[0]


def test_a_process_that_keeps_what_it_ran_is_seen_by_its_memory() -> None:
    before = rss_mb()
    kept = bytearray(b"x") * (64 << 20)
    assert rss_mb() > before + 50
    assert len(kept) == 64 << 20


def test_only_the_reference_is_measured() -> None:
    source = calm()
    plain, reference = one_run(Case(source, 1)), one_run(Reference(source, 1))
    assert plain.verdict == reference.verdict == "pass" and plain.trace_hash == reference.trace_hash
    assert plain.process == 0 and reference.process == os.getpid() and reference.rss_mb > 10
    assert reference.events > 100


# ---------------------------------------------------------------- interrupts, unknown


def test_an_interrupted_night_says_so(tmp_path: Path) -> None:
    night = Rig(tmp_path, stop_after=5).night()
    assert night.sweep.interrupted and night.exit_code() == 130 and night.sweep.runs == 5


def test_a_check_that_runs_required_and_that_looked_at_nothing_all_night_makes_it_unknown(tmp_path: Path) -> None:
    def run(case: Runnable) -> Outcome:
        return msgspec.structs.replace(good(case), required=["no-gap"])

    assert Rig(tmp_path, run).night().exit_code() == 3


# ---------------------------------------------------------------- real ones


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenarios")
    (folder / "small.yaml").write_text(SMALL)
    return folder


@pytest.mark.timeout(300)  # processes that start on a machine that is busy
def test_a_real_night_leaves_its_directory_and_the_next_one_follows_it(small: Path, tmp_path: Path) -> None:
    out = tmp_path / "soak"
    options = ("--scenarios", str(small), "--out", str(out), "--jobs", "1", "--seed", "5")
    for number in (1, 2):
        done = fleet("soak", "--for", "1s", *options)
        assert done.returncode == 0, done.stdout + done.stderr
        where = Path(done.stdout.splitlines()[-1])
        told = json.loads((where / "summary.json").read_text())
        assert (told["night"], told["verdict"], told["errors"]) == (number, "pass", 0)
        assert told["runs"] >= 1 and told["double_runs"] >= 1 and told["determinism_mismatches"] == 0
        assert told["canary"]["seeds"] >= 1 and told["canary"]["plant"] in done.stdout
        assert (where / "junit.xml").exists() and (out / "trend.txt").read_text() in done.stdout
    rows = [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]
    assert [row["night"] for row in rows] == [1, 2] and all(row["events_per_s"] > 0 for row in rows)
    assert "<svg" in (out / "trend.svg").read_text()


def test_an_interrupt_ends_a_night_with_its_report(small: Path, tmp_path: Path) -> None:
    out = tmp_path / "soak"
    arguments = command("soak", "--scenarios", str(small), "--for", "8h", "--jobs", "1", "--out", str(out))
    with subprocess.Popen(
        arguments, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stderr is not None and process.stdout is not None
        assert process.stderr.readline()
        os.killpg(process.pid, signal.SIGINT)
        shown = process.stdout.read()
        process.stderr.read()
        assert process.wait() == 130
    told = json.loads((Path(shown.splitlines()[-1]) / "summary.json").read_text())
    assert told["verdict"] == "interrupted" and told["errors"] == 0
    assert json.loads((out / "history.jsonl").read_text())["verdict"] == "interrupted"


def test_bad_input_of_a_night_is_told_before_anything_runs(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for arguments in (
        ("--for", "soon"),
        ("--scenarios", str(tmp_path)),
        ("--memory", "much"),
        ("--out", str(tmp_path / "file")),
    ):
        done = fleet("soak", "--for", "1s", *arguments)
        assert (done.returncode, "Traceback" in done.stderr, done.stdout) == (2, False, "")
