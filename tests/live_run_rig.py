"""Live runs for tests: a small scenario, its plan prepared, performed in a folder, and what is left of its processes.

Used by tests/live and tests/fleet. Nothing waits for a time.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from run_rig import BUSY, CALM
from scenario_rig import write

from fleet.live.result import Prepared, perform, prepared
from fleet.live.run import Live
from fleet.live.setup import Asked, checked
from fleet.scenario.build import build_plan
from fleet.scenario.load import load
from fleet.scenario.plan import Plan
from reports.result import RunResult

SPEED = 60.0  # twelve minutes in twelve seconds
SMALL = CALM.replace("count: 4", "count: 2").replace("count: 2, account: beta", "count: 1, account: beta")
SHORT = SMALL.replace("duration: 12m", "duration: 5m")
STORMY = BUSY
FLEETING = SHORT.replace("rate: 30/h, remove: 40%", "rate: 300/h, remove: 80%")

Tamper = Callable[[Live], Awaitable[object]]


def plan_of(directory: Path, text: str, plant: str = "", within: str = "30s") -> Plan:
    changes = ["phases.quiesce=2s", f"phases.converge_within={within}"]
    return build_plan(load(write(directory, text), changes), 1, plant=plant)


def ready(directory: Path, text: str, plant: str = "", within: str = "30s") -> Prepared:
    return prepared(plan_of(directory, text, plant, within), SPEED)


def run(
    directory: Path, text: str, *, tamper: Tamper | None = None, plant: str = "", within: str = "30s", **asked: Any
) -> RunResult:
    """`within`: to converge. `asked`: fields of fleet.live.setup.Asked."""
    made = ready(directory, text, plant, within)
    wanted, _ = checked(Asked(speed=SPEED, **asked), made.plan)
    folder = directory / "live"
    folder.mkdir()
    return perform(made, wanted, folder, before_final=tamper)


def failed(result: RunResult) -> set[str]:
    return {check.name for check in result.summary.checks if check.status == "fail"}


def processes_of(folder: Path) -> list[str]:
    """Command lines of processes that name the folder, and are no zombies."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue  # it has ended meanwhile
        if str(folder) in line:
            found.append(line)
    return found
