"""`fleet compare` on real runs: two seeds, groups of seeds, a planted slowdown, rules, and input that is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from run_rig import CALM
from scenario_rig import write
from typer.testing import CliRunner, Result

from agent.protocol.errors import InputError, Problem
from fleet.cli import build_app
from fleet.compare_rules import parse_rule
from fleet.run import Request, execute
from fleet.scenario.build import build_plan
from fleet.scenario.effective import effective_yaml
from fleet.scenario.load import load
from reports.compare import Rule
from reports.rundir import write_run

SLOWER = "cloud.transact_latency=400ms"


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(build_app(), ["compare", *arguments])


def make(directory: Path, scenario: Path, seeds: range, *changes: str) -> Path:
    """A group of runs."""
    for seed in seeds:
        loaded = load(scenario, changes)
        plan = build_plan(loaded, seed)
        write_run(execute(plan, Request(scenario_yaml=effective_yaml(loaded))), directory / f"s{seed}")
    return directory


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`base`: four seeds; `same`: others of the same; `slow`: with a slower table; `tiny`: fewer devices."""
    root = tmp_path_factory.mktemp("runs")
    scenario = write(root, CALM.replace("duration: 12m", "duration: 6m"))
    make(root / "base", scenario, range(1, 5))
    make(root / "same", scenario, range(11, 15))
    make(root / "slow", scenario, range(21, 25), SLOWER)
    make(root / "tiny", scenario, range(1, 2), "devices.home.count=1")
    return root


def test_other_seeds_of_the_same_are_no_regression(runs: Path) -> None:
    result = invoke(str(runs / "base"), str(runs / "same"))
    assert result.exit_code == 0, result.stdout
    assert "PASSED" in result.stdout and max(map(len, result.stdout.splitlines())) <= 100


def test_a_planted_slowdown_is_flagged_and_named(runs: Path, tmp_path: Path) -> None:
    page, table = tmp_path / "c.html", tmp_path / "c.csv"
    result = invoke(str(runs / "base"), str(runs / "slow"), "--html", str(page), "--csv", str(table))
    assert result.exit_code == 1 and "REGRESSION" in result.stdout
    assert "✗ latency_s.up.p50" in result.stdout and "cloud.transact_latency: 12ms → 400ms" in result.stdout
    assert page.read_text().count('<svg class="plot"') >= 5 and "latency_s.up.p50,latency,s,more" in table.read_text()
    printed = json.loads(invoke(str(runs / "base"), str(runs / "slow"), "--json").stdout)
    assert "latency_s.up.p50" in printed["regressions"] and printed["verdict"] == "regression"
    assert invoke(str(runs / "slow"), str(runs / "base")).exit_code == 0  # the other way it is better


def test_two_single_runs_are_judged_by_rules_alone(runs: Path) -> None:
    one, other, slow = (str(runs / name) for name in ("base/s1", "base/s2", "slow/s21"))
    assert "NOT JUDGED" in invoke(one, other).stdout and invoke(one, slow).exit_code == 0
    assert invoke(one, one, "--fail-on", "latency_s.up.p50 > +0%").exit_code == 0
    assert invoke(one, slow, "--fail-on", "latency_s.up.p50 > +10%").exit_code == 1
    assert invoke(one, slow, "--fail-on", "latency_s.up.p50 of group shop > +100ms").exit_code == 1
    assert invoke(one, other, "--fail-on", "latency_s.up.p50 > +500%", "--fail-on", "counts.reboots > 0").exit_code == 0
    assert invoke(one, other, "--fail-on", "recovered_s of fault gone > 1m").exit_code == 3


def test_what_does_not_compare_is_refused(runs: Path, tmp_path: Path) -> None:
    base = str(runs / "base")
    devices = invoke(base, str(runs / "tiny"))
    assert devices.exit_code == 2 and "devices: 6 → 3" in devices.stdout
    assert invoke(base, str(runs / "tiny"), "--across").exit_code in (0, 1)
    nothing = invoke(str(tmp_path / "gone"), base)
    assert nothing.exit_code == 3 and "NO BASELINE" in nothing.stdout
    (tmp_path / "empty").mkdir()
    assert invoke(str(tmp_path / "empty"), base).exit_code == 3
    assert invoke(base, str(tmp_path / "gone")).exit_code == 2
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "summary.json").write_text("{")
    half = invoke(base, str(tmp_path / "half"))
    assert half.exit_code == 2 and "summary.json" in half.stderr
    full = invoke(base, str(runs / "same"), "--html", str(tmp_path))
    assert full.exit_code == 4 and "cannot be written" in full.stderr


def test_a_bad_rule_is_told_before_anything_is_read() -> None:
    result = invoke("gone", "gone", "--fail-on", "latency_s.up.p9 > +10%", "--fail-on", "wall_s")
    assert isinstance(result.exception, InputError)
    first, second = map(str, result.exception.problems)
    assert (
        first == "--fail-on 'latency_s.up.p9 > +10%': unknown metric 'latency_s.up.p9' (did you mean latency_s.up.p99?)"
    )
    assert "expected METRIC > LIMIT" in second


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("latency_s.up.p99 > +10%", ("latency_s.up.p99", ">", 10, "percent")),
        ("counts.updates_synced<-1.5 %", ("counts.updates_synced", "<", -1.5, "percent")),
        ("converged_after_s >= 1h30m", ("converged_after_s", ">=", 5400, "value")),
        ("counts.connects > +500", ("counts.connects", ">", 500, "change")),
        ("counts.bytes_up > +1kb", ("counts.bytes_up", ">", 1024, "change")),
        ("rss_mb_max > 1gb", ("rss_mb_max", ">", 1024, "value")),
        ("probes.a.b == 0", ("probes.a.b", "==", 0, "value")),
        ("latency_s.down.p50 of  model Status > 5s", ("latency_s.down.p50 of model Status", ">", 5, "value")),
        ("recovered_s of fault broker-outage > 2m", ("recovered_s of fault broker-outage", ">", 120, "value")),
    ],
)
def test_rules_are_read_in_the_unit_of_their_metric(text: str, rule: tuple[str, str, float, str]) -> None:
    assert parse_rule(text) == Rule(text, *rule)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "cannot be read"),
        ("latency_s.up.p99", "expected METRIC > LIMIT"),
        ("latency_s.up.p99 > 10%", "percent of what: 10% (of BASE: latency_s.up.p99 > +10%)"),
        ("latency_s.up.p99 = 10s", "did you mean ==?"),
        ("latency_s.up.p99 > soon", "expected a duration"),
        ("counts.connects > 5s", "expected a number"),
        ("counts.conects > 5", "did you mean counts.connects?"),
        ("latency_s.up.p99 of shop x > 5s", "group NAME, model NAME or fault NAME"),
        ("latency_s.up.p999 of group x > 5s", "p50 and p99 alone"),
        ("latency_s.up.p99 of fault x > 5s", "did you mean recovered_s of fault NAME?"),
        ("counts.connects of group x > 5", "such as latency_s.up.p99 of group NAME"),
        ("x" * 600 + " > 5", "cannot be read"),
        ("\x1b[31m > 5", "cannot be read"),
    ],
)
def test_a_rule_that_says_nothing_is_a_problem(text: str, words: str) -> None:
    problem = parse_rule(text)
    assert isinstance(problem, Problem) and words in str(problem) and "\x1b" not in str(problem)
