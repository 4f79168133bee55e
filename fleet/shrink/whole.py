"""A shrink from its beginning to its end: does the plan fail, and the same each time; its minimum; what is seen there.

Called by `fleet shrink` and by tests. Simulates nothing itself: all runs are the executor's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import Final, TypeVar

from fleet.scenario.plan import Plan
from fleet.shrink.explicit import can_be_said, explicit
from fleet.shrink.search import Search
from fleet.shrink.shrink import Shrink
from fleet.shrink.step import Step, broken, step
from fleet.shrink.witness import Watched, watch
from fleet.sweep.attempt import Kind
from fleet.sweep.pool import Executor
from reports.result import Violation

LOOK_EVERY_S: Final = 0.2

T = TypeVar("T")
Stopped = Callable[[], bool]


class NothingToShrink(Exception):
    """The plan does not fail. The text is for people."""


class NotTheSame(Exception):
    """The run is another one than was recorded, or than it was a moment ago; or it broke. The text is for people."""


class Interrupted(Exception):
    """Somebody has asked to end before there was anything to keep."""


@dataclass(frozen=True, slots=True)
class Failure:
    """How a plan fails. `early`: a run that ends with the failure tells the same kind as one that goes on."""

    kind: Kind
    step: Step
    early: bool

    @property
    def violation(self) -> Violation | None:
        return self.step.violation

    @property
    def end_us(self) -> int:
        """When the failure is there."""
        found = self.step.violation
        return round((self.step.virtual_s if found is None else found.t_s) * 1e6)


def await_all(futures: Iterable[Future[T]], stopped: Stopped) -> list[Future[T]]:
    """When all have come to their end. Raises Interrupted."""
    futures = list(futures)
    while wait(futures, timeout=LOOK_EVERY_S).not_done:
        if stopped():
            raise Interrupted
    return futures


def failure_of(executor: Executor, plan: Plan, recorded_hash: str, stopped: Stopped) -> Failure:
    """Runs the plan twice, or once where a hash is known, and once as short as may be. Raises NothingToShrink,
    NotTheSame and Interrupted."""
    data = plan.encode()
    whole = [executor.submit(step, data, False, True) for _ in range(1 if recorded_hash else 2)]
    short = executor.submit(step, data, True, False)
    done = [
        broken(error) if (error := future.exception()) is not None else future.result()
        for future in await_all([*whole, short], stopped)
    ]
    first, early = done[0], done[-1]
    if first.verdict == "error":
        raise NotTheSame(f"the harness failed in this run, nothing was shrunk: {first.first}")
    for other in (recorded_hash, *(again.trace_hash for again in done[1:-1])):
        if other and other != first.trace_hash:
            where = "recorded" if recorded_hash else "the second time"
            hint = "; the program may have changed since, then shrink its plan.json" if recorded_hash else ""
            raise NotTheSame(f"not reproducible: trace hash {first.trace_hash}, {where} {other}{hint}")
    if first.kind is None:
        raise NothingToShrink(f"nothing to shrink: the run's verdict is {first.verdict}, no check or threshold failed")
    return Failure(first.kind, first, early.kind == first.kind)


@dataclass(slots=True)
class Shrunk:
    """`complete`: it came to its end, and is the same whatever the number of jobs. `failure`: of the minimum."""

    plan: Plan
    failure: Failure
    complete: bool
    replays: int


def shrink(
    executor: Executor,
    plan: Plan,
    failure: Failure,
    *,
    budget: int,
    stopped: Callable[[Shrink], bool],
) -> Shrunk:
    """The smallest plan that fails in the same way. A run that ends with the failure is taken for one that goes on only
    while that holds for the minimum as well. Raises NotTheSame."""
    replays = 0
    for early in (True, False) if failure.early else (False,):
        work: list[Shrink] = []
        search = Search(
            executor,
            plan,
            failure.kind,
            early=early,
            budget=budget - replays,
            stopped=lambda work=work: bool(work) and stopped(work[0]),  # type: ignore[misc]
        )
        work.append(Shrink(search, failure.violation))
        complete = work[0].run()
        replays += search.replays
        # Whoever ended it early may yet have it in words, if these fail in the same way.
        said = [] if complete or can_be_said(search.best) else [explicit(search.best)]
        for best in (*(one for one in said if can_be_said(one)), search.best):
            future = executor.submit(step, best.encode(), False, True)
            found = await_all([future], lambda: False)[0].result()
            if found.kind == failure.kind:
                return Shrunk(best, Failure(failure.kind, found, early), complete, replays)
    raise NotTheSame(f"not reproducible: the minimum fails as {found.kind}")


def watched(executor: Executor, shrunk: Shrunk) -> Watched:
    """The minimum's run, with all that can be seen. Raises NotTheSame."""
    seen = await_all([executor.submit(watch, shrunk.plan.encode())], lambda: False)[0].result()
    if seen.trace_hash != shrunk.failure.step.trace_hash:
        raise NotTheSame(
            f"not reproducible: trace hash {shrunk.failure.step.trace_hash}, and {seen.trace_hash} when it was watched"
        )
    return seen
