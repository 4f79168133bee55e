"""The directory of a sweep: `summary.json`, `junit.xml`, and what failed runs left behind, each kind in a folder of its
own.

A failed run is written when it is known and forgotten; the summary comes last, so that whoever sees it sees a whole
sweep. Used by `fleet sweep`; what writes single runs is reports.rundir.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

import msgspec

from fleet.sweep.attempt import Outcome
from fleet.sweep.sweep import Failures, Sweep
from reports.junit import SweepCase, sweep_xml
from reports.rundir import JUNIT, SUMMARY, write_run

RUNS_OF_A_KIND_MAX: Final = 2  # kept whole
PLANS_OF_A_KIND_MAX: Final = 50  # each can be run again by itself
FAILURES: Final = "failures"
SEEDS_TOLD_MAX: Final = 1000


def folder(failures: Failures) -> str:
    name = re.sub(r"[^a-z0-9-]+", "-", failures.kind.check.lower()).strip("-")[:40]
    return f"{FAILURES}/{failures.number + 1:02d}-{name}"


def keep(directory: Path, failures: Failures, outcome: Outcome) -> None:
    """What a bad run left behind: the first ones of a kind as run directories, more of them as plans. Raises
    RunDirError."""
    place = directory / folder(failures)
    number = len(failures.runs)
    name = f"{outcome.scenario}-s{outcome.seed}"
    if (outcome.scenario, outcome.seed) in failures.runs[:-1]:  # the same one again, of another size or drawn
        name += f"-{number}"
    place.mkdir(parents=True, exist_ok=True)
    if number == 1:
        (place / "first.txt").write_text(f"{outcome.first}\n{outcome.command}\n", "utf-8", "backslashreplace")
    if outcome.result is not None and number <= RUNS_OF_A_KIND_MAX:
        write_run(outcome.result, place / name)
    elif outcome.plan and number <= PLANS_OF_A_KIND_MAX:
        (place / f"{name}.plan.json").write_bytes(outcome.plan)


def seeds_in_words(seeds: list[int]) -> str:
    """`1..4, 9, 12..13`."""
    spans: list[list[int]] = []
    for seed in sorted(seeds):
        if spans and seed == spans[-1][1] + 1:
            spans[-1][1] = seed
        else:
            spans.append([seed, seed])
    return ", ".join(str(a) if a == b else f"{a}..{b}" if b > a + 1 else f"{a}, {b}" for a, b in spans)


def seeds_by_scenario(failures: Failures) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for scenario, seed in failures.runs:
        found.setdefault(scenario, []).append(seed)
    return found


def summary_values(result: Sweep, about: dict[str, Any]) -> dict[str, Any]:
    """`summary.json`. `about`: what was asked for, and how it was run."""
    busy = result.run_wall_s / (result.wall_s * about["jobs"]) if result.wall_s else 0.0
    return {
        **about,
        "verdict": {0: "pass", 1: "fail", 3: "unknown", 4: "error"}.get(result.exit_code(), "interrupted"),
        "planned": result.planned,
        "runs": result.runs,
        "passed": result.passed,
        "failed": result.failed,
        "unknown": result.unknown,
        "errors": result.errors,
        "double_runs": result.doubled,
        "determinism_mismatches": result.mismatches,
        "interrupted": result.interrupted,
        "stopped_early": result.stopped,
        "wall_s": round(result.wall_s, 1),
        "cpu_s": round(result.cpu_s, 1),
        "busy": round(busy, 3),
        "rss_mb_max": result.rss_mb_max,
        "virtual_s": round(result.virtual_s),
        "updates_synced": result.synced,
        "failures": [
            {
                "check": one.kind.check,
                "shape": one.kind.shape,
                "runs": len(one.runs),
                "seeds": {name: seeds[:SEEDS_TOLD_MAX] for name, seeds in seeds_by_scenario(one).items()},
                "also": dict(sorted(one.also.items())),
                "first": one.first,
                "reproduce": one.command,
                "directory": folder(one),
            }
            for one in result.failures.values()
        ],
        "probes": dict(sorted(result.probes_hit().items())),
        "probes_never_hit": result.probes_never_hit(),
        "checks": dict(sorted(result.evaluated.items())),
        "checks_lacking": dict(sorted(result.lacking.items())),
        "checks_never_evaluated": result.checks_never_evaluated(),
    }


def write(directory: Path, result: Sweep, about: dict[str, Any], more: dict[str, Any] | None = None) -> None:
    """Everything but what `keep` has written. `more`: for the end of the summary, or in place of what it holds."""
    directory.mkdir(parents=True, exist_ok=True)
    kinds = list(result.failures.values())
    lines = (
        SweepCase(one.scenario, one.seed, one.verdict, one.wall_s, str(kinds[one.kind]) if one.kind >= 0 else "")
        for one in result.lines
    )
    (directory / JUNIT).write_text(sweep_xml(lines), "utf-8", "replace")
    values = msgspec.json.encode({**summary_values(result, about), **(more or {})})
    (directory / SUMMARY).write_bytes(msgspec.json.format(values, indent=2) + b"\n")
