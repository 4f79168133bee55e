"""Planted bugs, hunted: for each, seed after seed until a check notices, on as many processes as there are.

The number of seeds that a bug takes does not depend on the number of jobs: a bug is caught by the first seed that does,
in the order of the seeds, when all before it have come to their end. Called by `fleet mutants`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from statistics import median
from typing import Final

import msgspec

from fleet.plants import PLANTS
from fleet.scenario.shipped import scenario_paths
from fleet.sweep.attempt import Outcome, attempt, failed
from fleet.sweep.case import Case, Source, source_of
from fleet.sweep.pool import Executor

MIXES: Final = ("own", "fixed", "swarm")
LOOK_EVERY_S: Final = 0.2

CaseOf = Callable[[str, str, int], Case]


class Caught(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one planted bug in one mix. `seeds`: up to the one that caught it, 0: it survives; `checks`: those
    that failed in that run, in which the first one ended it; `expected`: whether one of them was to notice; `cpu_s`:
    of all the runs up to it; `errors`: of the harness."""

    plant: str
    mix: str
    seeds: int
    checks: list[str] = []
    expected: bool = False
    cpu_s: float = 0.0
    errors: list[str] = []
    command: str = ""


def one_run(case: Case) -> Outcome:
    """As short as may be: it ends with the first failure."""
    return attempt(case, hashed=False, until_failure=True, keep=False)


class Mixes:
    """Which scenario a seed runs. `own`: the one where the bug is known to be caught soonest, as it is written;
    `fixed`: all that ship, in turn, as they are written; `swarm`: the same, and the seed draws what goes wrong.
    `scenarios`: these in turn instead of all that ship."""

    def __init__(self, devices: int, scenarios: Sequence[str] = ()) -> None:
        self._devices = devices
        self._sources: dict[str, Source] = {}
        self._names = list(scenarios or scenario_paths())
        for name in self._names:
            self._source(name)

    def _source(self, name: str) -> Source:
        if name not in self._sources:
            self._sources[name] = source_of(name, (), self._devices)
        return self._sources[name]

    def case(self, mix: str, plant: str, seed: int) -> Case:
        name = PLANTS[plant].scenario if mix == "own" else self._names[(seed - 1) % len(self._names)]
        return Case(self._source(name), seed, mix == "swarm", plant)


@dataclass(slots=True)
class _Hunt:
    plant: str
    mix: str
    budget: int
    submitted: int = 0
    pending: int = 0
    found: dict[int, Outcome] = field(default_factory=dict)

    def caught_at(self) -> int:
        """The first seed known to catch it; 0: none yet."""
        return min((seed for seed, outcome in self.found.items() if outcome.verdict == "fail"), default=0)

    @property
    def wants(self) -> bool:
        return self.submitted < (self.caught_at() - 1 if self.caught_at() else self.budget)

    @property
    def is_over(self) -> bool:
        return not self.wants and not self.pending

    def result(self) -> Caught:
        seeds = self.caught_at()
        ran = [outcome for seed, outcome in sorted(self.found.items()) if seed <= (seeds or self.budget)]
        last = self.found.get(seeds)
        checks = [last.kind.check, *last.also] if last is not None and last.kind is not None else []
        return Caught(
            plant=self.plant,
            mix=self.mix,
            seeds=seeds,
            checks=checks,
            expected=bool(set(checks) & set(PLANTS[self.plant].caught_by)),
            cpu_s=round(sum(outcome.cpu_s for outcome in ran), 1),
            errors=[outcome.first for outcome in ran if outcome.verdict == "error"][:1],
            command=last.command if last is not None else "",
        )


def hunt(
    executor: Executor,
    plants: Sequence[str],
    mixes: Sequence[str],
    case_of: CaseOf,
    budget: int,
    tick: Callable[[int], bool] = lambda finished: False,
    function: Callable[[Case], Outcome] = one_run,
) -> Iterator[Caught]:
    """One result for each plant and mix, as they come. `case_of(mix, plant, seed)`; `tick` is given the number of runs
    that have ended, and ends it all by True."""
    hunts = [_Hunt(plant, mix, budget) for plant in plants for mix in mixes]
    pending: dict[Future[Outcome], tuple[_Hunt, int, Case]] = {}
    finished = 0
    try:
        while hunts:
            while len(pending) < executor.handed_out:
                waiting = [one for one in hunts if one.wants]
                if not waiting:
                    break
                one = min(waiting, key=lambda each: each.pending)  # the first of them: others run beside it
                one.submitted += 1
                one.pending += 1
                case = case_of(one.mix, one.plant, one.submitted)
                pending[executor.submit(function, case)] = one, one.submitted, case
            done, _ = wait(pending, timeout=LOOK_EVERY_S, return_when=FIRST_COMPLETED)
            for future in done:
                one, seed, case = pending.pop(future)
                one.pending -= 1
                error = None if future.cancelled() else future.exception()
                if not future.cancelled():
                    one.found[seed] = future.result() if error is None else failed(case, error)
                    finished += 1
            if tick(finished):
                return
            for future, (one, seed, _) in pending.items():
                if 0 < one.caught_at() < seed:
                    future.cancel()
            for one in [one for one in hunts if one.is_over]:
                hunts.remove(one)
                yield one.result()
    finally:
        for future in pending:
            future.cancel()


def in_numbers(rows: Sequence[Caught]) -> dict[str, float]:
    """Of one mix. A bug that survives is counted with the whole budget's CPU time and with no seeds."""
    caught = [row.seeds for row in rows if row.seeds]
    return {
        "caught": len(caught),
        "survive": len(rows) - len(caught),
        "seeds_median": median(caught) if caught else 0,
        "seeds_most": max(caught, default=0),
        "seeds_in_all": sum(caught),
        "cpu_s": round(sum(row.cpu_s for row in rows), 1),
    }
