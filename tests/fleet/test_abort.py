"""Thresholds that end a run: it stops at the same moment every time, fails, is reported and can be replayed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from run_rig import BUSY, CALM, busy_plan, summary_of
from scenario_rig import write
from typer.testing import CliRunner, Result

from fleet.cli import build_app
from fleet.run import execute
from fleet.scenario.plan import Plan

OUTAGE = "broker-outage"


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(build_app(), list(arguments))


def plan_of(directory: Path, *thresholds: str, text: str = BUSY) -> Plan:
    return busy_plan(
        directory, text=text + "expect:\n  thresholds:\n" + "".join(f"    - {one}\n" for one in thresholds)
    )


def test_a_run_stops_at_the_end_of_the_interval_in_which_it_fails(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, "{during broker-outage: online > 50%, abort: true}", "counts.local_writes > 0")
    result = execute(plan)
    summary = result.summary
    assert summary.virtual_s == 250 == result.timeline[-1]["t_s"] + 10
    assert [row["online"] for row in result.timeline[-2:]] == [6, 2]
    assert (summary.verdict, summary.interrupted) == ("fail", False)
    assert summary.aborted == "during broker-outage: online > 50%"
    first, second = summary.thresholds
    assert (first.status, first.abort) == ("fail", True) and first.actual == pytest.approx(2 / 6)
    assert first.detail == "lowest 33.33 % at 4m 10s; the run was stopped at 4m 10s"
    assert (second.status, second.abort) == ("pass", False)
    convergence = next(check for check in summary.checks if check.name == "convergence")
    assert convergence.status == "unknown" and all(check.status != "fail" for check in summary.checks)
    again = execute(plan).summary
    assert (again.trace_hash, again.virtual_s) == (summary.trace_hash, summary.virtual_s)


def test_a_threshold_that_holds_changes_nothing(tmp_path: Path) -> None:
    one = execute(plan_of(tmp_path, "{during broker-outage: online >= 2, abort: true}")).summary
    other = execute(plan_of(tmp_path, "during broker-outage: online >= 2")).summary
    assert (one.verdict, one.trace_hash, one.aborted) == ("pass", other.trace_hash, "")
    assert (one.counts, one.virtual_s) == (other.counts, other.virtual_s)


@pytest.mark.parametrize(
    "threshold",
    [
        "latency_s.up.p50 < 1ms",
        "latency_s.up.p99 of group home < 1ms",
        "latency_s.down.max of model Config < 1ms",
        "latency_s.up.count < 10",
        "counts.messages_up < 10",
        "counts.connects < 1/h",
        "counts.bytes_up < 1% of counts.bytes_down",
        "probes.snapshot_loaded == 1",
    ],
)
def test_numbers_of_the_whole_run_are_looked_at_after_the_warm_up(tmp_path: Path, threshold: str) -> None:
    summary = execute(plan_of(tmp_path, f"{{expr: {threshold}, abort: true}}", text=CALM)).summary
    assert (summary.verdict, summary.aborted, summary.virtual_s) == ("fail", threshold, 70)
    actual = summary.thresholds[0].actual
    plain = execute(plan_of(tmp_path, threshold, text=CALM)).summary.thresholds[0]
    assert actual is not None and plain.actual is not None and plain.status == "fail"


def test_what_was_measured_is_what_the_summary_of_the_stopped_run_says(tmp_path: Path) -> None:
    exprs = ("latency_s.up.p99 of group home < 1ms", "counts.messages_up < 9", "latency_s.down.p50 < 1ms")
    for expr in exprs:
        summary = execute(plan_of(tmp_path, f"{{expr: {expr}, abort: true}}", *exprs, text=CALM)).summary
        stopped = summary.thresholds[0]
        same = next(one for one in summary.thresholds[1:] if one.expr == expr)
        assert stopped.actual == pytest.approx(same.actual, rel=1e-3), expr


def test_the_command_fails_reports_and_replays(tmp_path: Path) -> None:
    text = BUSY + "expect:\n  thresholds:\n    - during broker-outage: online > 50%\n      abort: true\n"
    directory = tmp_path / "run"
    result = invoke("run", str(write(tmp_path, text)), "--out", str(directory))
    assert result.exit_code == 1
    assert "stopped early" in result.stdout and "lowest 33.33 % at 4m 10s" in result.stdout
    summary = summary_of(directory)
    assert summary["aborted"] == "during broker-outage: online > 50%" and summary["thresholds"][0]["abort"]
    assert "stopped early" in (directory / "report.html").read_text()
    assert "lowest 33.33 % at 4m 10s" in (directory / "junit.xml").read_text()
    assert (directory / "trace.jsonl.gz").exists()  # the second run stopped at the same event
    assert json.loads((directory / "plan.json").read_text())["aborts"] == [summary["aborted"]]
    replayed = invoke("replay", str(directory), "-q")
    assert (replayed.exit_code, replayed.stdout) == (0, f"same trace hash: {summary['trace_hash']}\n")


def test_a_plan_whose_threshold_nobody_can_read_is_unknown(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, "counts.local_writes > 0", text=CALM)
    plan.thresholds.append("nonsense")
    summary = execute(plan).summary
    assert summary.verdict == "unknown" and summary.thresholds[1].detail.startswith("unknown number")
