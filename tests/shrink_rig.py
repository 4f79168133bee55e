"""Plans that fail, small enough to be shrunk in a test, and ways to run a shrink without processes.

Used by the tests of fleet.shrink. Holds no state.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from run_rig import BUSY
from scenario_rig import write

from fleet.scenario.build import build_plan
from fleet.scenario.load import load
from fleet.scenario.plan import Plan
from fleet.shrink.search import Run, Search
from fleet.shrink.step import Step
from fleet.sweep.attempt import Kind
from fleet.sweep.pool import Executor, Here

KIND: Final = Kind("convergence", "expected N, found N")
FAILS: Final = Step(verdict="fail", kind=KIND)
PASSES: Final = Step(verdict="pass")

# Two accounts, a few faults, five minutes: each planted bug of the fast tests is caught in it.
TINY: Final = (
    BUSY.replace("name: busy", "name: tiny")
    .replace("duration: 12m", "duration: 5m")
    .replace("count: 4", "count: 3")
    .replace("at: 4m, duration: 1m", "at: 2m, duration: 1m")
)


def tiny_plan(directory: Path, plant: str, seed: int = 1) -> Plan:
    return build_plan(load(write(directory, TINY)), seed, plant=plant)


def when(test: Callable[[Plan], bool]) -> Run:
    """Stands in for a replay: the plan fails when `test` says so."""

    def run(data: bytes, early: bool, hashed: bool) -> Step:
        return FAILS if test(Plan.decode(data)) else PASSES

    return run


def searching(plan: Plan, run: Run, executor: Executor | None = None, budget: int = 3000) -> Search:
    return Search(executor or Here(), plan, KIND, early=True, budget=budget, stopped=lambda: False, run=run)
