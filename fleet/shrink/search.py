"""Tries plans until one fails in the same way: several at once, and the first in order counts, not in time.

That is what makes a minimum independent of the number of jobs. A plan whose process dies or hangs does not fail in the
same way, and costs one step. Bounded by a number of replays, and by whoever looks at the clock (`stopped`).
Called by fleet.shrink.shrink.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from hashlib import blake2b
from typing import Final, TypeVar

from fleet.scenario.plan import Plan
from fleet.shrink.step import Step, broken, step
from fleet.sweep.attempt import Kind
from fleet.sweep.pool import Executor

LOOK_EVERY_S: Final = 0.2

T = TypeVar("T")
Run = Callable[[bytes, bool, bool], Step]


class Enough(Exception):
    """The budget is spent, or somebody has asked to end: what is the best by now stays so."""


class Search:
    """`best` is the smallest plan so far that fails as `kind` says. `early`: whether a run may end with the failure;
    `stopped`: asked often, may show how far it is; `replays`: so many have counted; `acceptable`: what else a plan
    must be."""

    def __init__(
        self,
        executor: Executor,
        best: Plan,
        kind: Kind,
        *,
        early: bool,
        budget: int,
        stopped: Callable[[], bool],
        run: Run = step,
    ) -> None:
        self.best = best
        self.kind = kind
        self.replays = 0
        self.acceptable: Callable[[Plan], bool] = lambda plan: True
        self._executor = executor
        self._ahead = min(executor.handed_out, executor.workers + 1)  # further ones mostly turn out to be in vain
        self._early = early
        self._budget = budget
        self._stopped = stopped
        self._run = run
        self._known: set[bytes] = {_digest(best.encode())}  # plans that need not be tried (again)

    def first(self, candidates: Iterable[Plan | None]) -> int | None:
        """The place of the first candidate that fails in the same way; it is the best one from now on. None: none does.
        Candidates that are None, or were tried before, are passed over. Raises Enough."""
        for index, plan, found in self._tried(candidates):
            if found.verdict == "fail" and found.kind == self.kind:
                self.best = plan
                return index
        return None

    def _tried(self, candidates: Iterable[Plan | None]) -> Iterator[tuple[int, Plan, Step]]:
        """In the order of the candidates, those that are new."""
        fresh = self._fresh(candidates)
        pending: dict[int, tuple[int, Plan, Future[Step]]] = {}
        submitted = settled = 0
        try:
            while True:
                while len(pending) < self._ahead:
                    candidate = next(fresh, None)
                    if candidate is None:
                        break
                    index, plan, data = candidate
                    future = self._executor.submit(self._run, data, self._early, False)
                    pending[submitted] = index, plan, future
                    submitted += 1
                if settled not in pending:
                    return
                index, plan, future = pending[settled]
                self._wait(future)
                del pending[settled]
                settled += 1
                self._count(plan)
                error = future.exception()
                yield index, plan, future.result() if error is None else broken(error)
        finally:
            for _, _, future in pending.values():
                if not future.running():  # one that runs comes to its end: to stop it costs a process
                    future.cancel()

    def _fresh(self, candidates: Iterable[Plan | None]) -> Iterator[tuple[int, Plan, bytes]]:
        """What lies ahead is not known to have been tried: what was handed out too early may never count."""
        ahead: set[bytes] = set()
        for index, plan in enumerate(candidates):
            if plan is None:
                continue
            data = plan.encode()
            digest = _digest(data)
            if digest in self._known or digest in ahead:
                continue
            ahead.add(digest)
            if not self.acceptable(plan):
                continue
            yield index, plan, data

    def _wait(self, future: Future[Step]) -> None:
        while True:
            if self._stopped():
                raise Enough
            done, _ = wait((future,), timeout=LOOK_EVERY_S, return_when=FIRST_COMPLETED)
            if done:
                return

    def _count(self, plan: Plan) -> None:
        if self.replays >= self._budget:
            raise Enough
        self.replays += 1
        self._known.add(_digest(plan.encode()))

    # ---------------------------------------------------------------- lists and steps

    def without(self, items: Sequence[T], rebuild: Callable[[Sequence[T]], Plan | None]) -> list[T]:
        """What is left of a list when all that can be left out is: large parts first, then smaller ones (Zeller and
        Hildebrandt, "Simplifying and Isolating Failure-Inducing Input", 2002). `rebuild`: the plan with these."""
        left = list(items)
        part = len(left)
        while part:
            place = 0
            while place < len(left):
                starts = range(place, len(left), part)
                found = self.first(rebuild(left[:start] + left[start + part :]) for start in starts)
                if found is None:
                    break
                place = starts[found]
                del left[place : place + part]
            part //= 2
        return left

    def simplify(self, changes: Sequence[Callable[[Plan], Plan | None]]) -> bool:
        """Makes each change that can be made, one after the other; whether there was one."""
        place, changed = 0, False
        while place < len(changes):
            found = self.first(change(self.best) for change in changes[place:])
            if found is None:
                break
            changed = True
            place += found + 1
        return changed


def _digest(data: bytes) -> bytes:
    return blake2b(data, digest_size=16).digest()
