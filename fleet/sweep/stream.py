"""Cases in, outcomes out: as many at once as there are workers, in the order of the cases, whatever comes back first.

Order is what makes a sweep's result independent of the number of jobs. A run that raises, or whose process dies, is an
outcome like any other. Called by fleet.sweep.sweep and fleet.sweep.mutants.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Final, TypeVar

from fleet.sweep.attempt import Outcome, failed
from fleet.sweep.case import Case, Runnable
from fleet.sweep.pool import Executor

AHEAD_MAX: Final = 1000  # outcomes that wait for one before them; their number bounds the memory
LOOK_EVERY_S: Final = 0.2

R = TypeVar("R", bound=Runnable)
Attempt = Callable[[Case], Outcome]


def in_order(
    executor: Executor,
    cases: Iterable[R],
    function: Callable[[R], Outcome],
    tick: Callable[[int], bool] = lambda finished: False,
) -> Iterator[Outcome]:
    """The outcome of each case, in the order of the cases, which are taken when there is room for them. `tick`: called
    now and then with the number of runs that have come to their end; True stops it all, without the outcomes that are
    not there yet."""
    source = iter(cases)
    pending: dict[Future[Outcome], tuple[int, R]] = {}
    ready: dict[int, Outcome] = {}
    submitted = settled = finished = 0
    more = True
    try:
        while more or settled < submitted:
            room = min(executor.handed_out - len(pending), settled + AHEAD_MAX - submitted)
            while more and room > 0:
                case = next(source, None)
                if case is None:
                    more = False
                    break
                pending[executor.submit(function, case)] = submitted, case
                submitted += 1
                room -= 1
            done, _ = wait(pending, timeout=LOOK_EVERY_S, return_when=FIRST_COMPLETED)
            for future in done:
                index, case = pending.pop(future)
                error = future.exception()
                ready[index] = future.result() if error is None else failed(case, error)
                finished += 1
            if tick(finished):
                return
            while settled in ready:
                yield ready.pop(settled)
                settled += 1
    finally:
        for future in pending:
            future.cancel()
