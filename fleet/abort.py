"""Stops a simulated run early, when a threshold with `abort: true` fails on what was measured so far.

Looks at the end of each of the timeline's intervals after the warm-up, in virtual time: the same run stops at the same
moment on any machine, in a replay too. A run without such thresholds never comes here. Called by fleet.run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from fleet.intervals import interval_us
from fleet.scenario.expect import PROBES
from fleet.scenario.expect_grammar import Threshold, parse_threshold
from fleet.scenario.expect_measure import Finding, Measured, evaluate
from fleet.scenario.plan import Plan
from fleet.world.world import World
from reports.result import FaultWindow, Row
from reports.summary import Counts

_PERCENTS: Final = {"p50": 50.0, "p90": 90.0, "p99": 99.0, "p999": 99.9, "max": 100.0}


class Abort:
    """Asked between two steps of the world whether to stop. `found`: the threshold that failed, and how."""

    def __init__(
        self,
        world: World,
        plan: Plan,
        counts: Callable[[World], Counts],
        windows: Callable[[World, Plan], list[FaultWindow]],
    ) -> None:
        self._world = world
        self._plan = plan
        self._counts = counts
        self._windows = windows
        self._thresholds = [parse_threshold(expr) for expr in plan.aborts]
        self._interval_us = interval_us(plan)
        self._rows: list[Row] = []
        self._next_us = world.timeline.next_us
        self.found: tuple[Threshold, Finding] | None = None

    def __call__(self) -> bool:
        timeline = self._world.timeline
        if self._next_us == timeline.next_us:
            return False
        self._next_us = timeline.next_us
        now_us = self._next_us - self._interval_us
        if now_us <= self._plan.warm_up_us:
            return False
        self._rows += timeline.rows_from(len(self._rows))
        run = Measured(
            self._number,
            self._rows,
            self._windows(self._world, self._plan),
            self._interval_us / 1e6,
            now_us / 1e6,
            len(self._plan.devices),
            is_over=False,
        )
        for threshold in self._thresholds:
            finding = evaluate(threshold, run)
            if finding.status == "fail":
                self.found = threshold, finding
                return True
        return False

    def _number(self, path: str, of: tuple[str, str] | None) -> float | None:
        """As summary.json would have it now."""
        world = self._world
        if path.startswith(PROBES):
            return world.probes[path.removeprefix(PROBES)]
        head, _, name = path.partition(".")
        if head == "counts":
            count: int = getattr(self._counts(world), name)
            return count
        way, _, percentile = name.partition(".")
        group, model = ("", "") if of is None else (of[1], "") if of[0] == "group" else ("", of[1])
        recorder = world.latencies.so_far("up" if way == "up" else "down", group, model)
        if percentile == "count":
            return len(recorder)
        return recorder.quantiles_s(_PERCENTS[percentile])[0] if len(recorder) else None
