"""The verdict, the exit code, and the structure of summary.json that scripts depend on."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable

import msgspec
import pytest

from reports.result import RunResult
from reports.rundir import summary_json
from reports.summary import Check, Status, Summary, Threshold, checks_in_order, exit_code, verdict

STATUSES: tuple[Status, ...] = ("pass", "fail", "unknown")


@pytest.mark.parametrize(
    ("required", "other", "threshold"), list(itertools.product(STATUSES, STATUSES, (None, *STATUSES)))
)
def test_verdict_is_fail_then_unknown_then_pass(required: Status, other: Status, threshold: Status | None) -> None:
    checks = [Check(name="a", status=required, required=True), Check(name="b", status=other)]
    thresholds = [] if threshold is None else [Threshold(expr="x < 1", status=threshold)]
    if "fail" in (required, other, threshold):
        expected = "fail"
    elif "unknown" in (required, threshold):
        expected = "unknown"
    else:
        expected = "pass"
    assert verdict(checks, thresholds) == expected


def test_a_required_check_that_nobody_ran_makes_the_verdict_unknown() -> None:
    assert verdict([Check(name="a", status="pass")], [], required=["a", "never-heard-of"]) == "unknown"
    assert verdict([Check(name="a", status="unknown")], [], required=["a"]) == "unknown"
    assert verdict([Check(name="a", status="unknown")], []) == "pass"


@pytest.mark.parametrize(("status", "code"), [("pass", 0), ("fail", 1), ("unknown", 3)])
def test_exit_codes(status: Status, code: int) -> None:
    assert exit_code(Summary(scenario="s", seed=1, verdict=status)) == code
    assert exit_code(Summary(scenario="s", seed=1, verdict=status, interrupted=True)) == 130


def test_failures_are_read_first_and_idle_checks_last() -> None:
    checks = [
        Check(name="idle", status="unknown"),
        Check(name="good", status="pass"),
        Check(name="missing", status="unknown", required=True),
        Check(name="bad", status="fail"),
    ]
    assert [check.name for check in checks_in_order(checks)] == ["bad", "missing", "good", "idle"]


def _keys(value: object) -> object:
    """The shape: keys, and the shape below them; of a list, its first entry's."""
    if isinstance(value, dict):
        return {key: _keys(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_keys(value[0])] if value else []
    return type(value).__name__


PERCENTILES = {"count": "int", "p50": "float", "p90": "float", "p99": "float", "p999": "float", "max": "float"}


def test_summary_json_has_exactly_the_documented_keys_and_the_added_ones(sample: Callable[..., RunResult]) -> None:
    result = sample()
    result.summary.probes = {"snapshot_loaded": 1}
    counts = (
        "local_writes cloud_writes updates_synced messages_up messages_down messages_lost bytes_up bytes_down connects "
        "disconnects reboots retransmits snapshots conflicts"
    )
    documented = {
        "scenario": "str",
        "seed": "int",
        "verdict": "str",
        "trace_hash": "str",
        "backend": "str",
        "devices": "int",
        "virtual_s": "float",
        "wall_s": "float",
        "cpu_s": "float",
        "rss_mb_max": "float",
        "counts": dict.fromkeys(counts.split(), "int"),
        "latency_s": {"up": PERCENTILES, "down": PERCENTILES},
        "converged_after_s": "float",
        "probes": {"snapshot_loaded": "int"},
        "checks": [
            {"name": "str", "status": "str", "checked": "int", "detail": "str", "failures": "int", "required": "bool"}
        ],
        "thresholds": [{"expr": "str", "status": "str", "actual": "float", "detail": "str", "abort": "bool"}],
        "reproduce": "str",
    }
    window = {"name": "str", "kind": "str", "start_s": "int", "end_s": "int", "healed_s": "int"}
    of_a_part = (
        "local_writes updates_synced devices not_in_step messages_up messages_down messages_lost bytes_up bytes_down "
        "reboots"
    )
    latency = {"up": PERCENTILES, "down": PERCENTILES}
    part = {"counts": dict.fromkeys(of_a_part.split(), "int"), "latency_s": latency}
    added = {
        "plant": "str",
        "interrupted": "bool",
        "live": "NoneType",
        "groups": dict.fromkeys(("home", "van"), part),
        "models": dict.fromkeys(("Status", "Setting"), part),
        "aborted": "str",
        "quotas": "NoneType",
        "faults": [{**window, "recovered_s": "NoneType", "devices": "int"}],
        "versions": dict.fromkeys(("fleet-sync", "python", "sqlite"), "str"),
        "violations": [],
    }
    found = json.loads(summary_json(result))
    assert _keys(found) == documented | added
    assert list(found)[: len(documented)] == list(documented)


def test_a_summary_without_the_added_keys_is_still_read() -> None:
    summary = msgspec.json.decode(b'{"scenario": "s", "seed": 1, "verdict": "pass", "later": []}', type=Summary)
    assert summary.plant == "" and summary.checks == []
