"""What is to be shrunk, and where the result goes: a run directory or a plan's file, and the files beside it.

`plan.json` gives `plan.min.json`, `plan.min.yaml` and `plan.min.svg`; `NAME.plan.json` gives `NAME.plan.min.json`, and
so on. Reads and writes files; runs nothing. Called by `fleet shrink`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from fleet.scenario.plan import Plan
from reports.rundir import PLAN, load_run


@dataclass(frozen=True, slots=True)
class Target:
    """`trace_hash`: of the recorded run, "" where there is nothing to compare with."""

    plan: Plan
    trace_hash: str
    directory: Path
    stem: str

    def path(self, ending: str) -> Path:
        return self.directory / f"{self.stem}.{ending}"


def target_of(run: Path, out: Path | None) -> Target:
    """Raises InputError and RunDirError."""
    if not run.is_dir():
        return Target(Plan.load(run), "", out or run.parent, run.name.removesuffix(".json") or "plan")
    recorded = load_run(run)
    summary = recorded.summary
    plan = Plan.decode(recorded.plan_json, str(run / PLAN))
    # An interrupted run has no end to be compared, and one on an emulator has times of its own.
    is_whole = summary.backend == "memory" and not summary.interrupted
    return Target(plan, summary.trace_hash if is_whole else "", out or run, PLAN.removesuffix(".json"))


def write(path: Path, data: bytes) -> None:
    """Whole or not at all. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_bytes(data)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
