"""From when on a failure cannot be avoided: the run is drawn anew from a moment on, many times, at several moments.

Up to that moment a run is the one that failed; from there everything that it draws is other, and every event of a fault
that lies ahead comes at another time. The share that fails all the same, over the moment, tells how much was decided by
then. Called by `fleet shrink --when`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from typing import Final

from msgspec.structs import replace

from fleet.rng import rng
from fleet.scenario.plan import FaultPlan, Plan, Reseed
from fleet.shrink.explicit import spanned
from fleet.shrink.step import Step, step
from fleet.sweep.attempt import Kind
from fleet.sweep.pool import Executor

SURE: Final = 0.9  # a failure that comes in so many of the runs cannot be avoided any more
LOOK_EVERY_S: Final = 0.2
CLOSER: Final = 3  # times that it looks more closely, between the last moment without and the first with
CLOSER_POINTS: Final = 4
NEAR_US: Final = 1_000  # no need to look more closely than this


def reseeded(plan: Plan, at_us: int, number: int) -> Plan:
    """The plan drawn anew from `at_us` on. A fault has as many events as before: they order what else happens."""
    faults = [_moved(plan, fault, at_us, number) for fault in plan.faults]
    return replace(plan, faults=faults, reseed=Reseed(at_us=at_us, number=number))


def _moved(plan: Plan, fault: FaultPlan, at_us: int, number: int) -> FaultPlan:
    stream = rng(plan.seed, f"fault/{fault.name}", f"reseed/{number}")
    past = [event for event in fault.events if event[0] <= at_us]
    ahead = []
    for at, device, length in fault.events[len(past) :]:
        room = plan.duration_us - length - at_us
        drawn = stream.bits()
        ahead.append((at if room <= 1 else at_us + 1 + drawn % (room - 1), device, length))
    return spanned(replace(fault, events=past + sorted(ahead)))


@dataclass(frozen=True, slots=True)
class Point:
    """At this moment `failed` of `runs` failed in the same way."""

    at_us: int
    failed: int
    runs: int

    @property
    def ratio(self) -> float:
        return self.failed / self.runs if self.runs else 0.0


@dataclass(slots=True)
class Localised:
    """`points` in order of time. `moment_us`: the first from which on the failure came in nine of ten runs or more,
    None: there is none; `before_us`: the last one before it, None: it is the first of all."""

    points: list[Point] = field(default_factory=list)
    moment_us: int | None = None
    before_us: int | None = None
    complete: bool = True

    def judge(self) -> None:
        self.points.sort(key=lambda point: point.at_us)
        self.moment_us = self.before_us = None
        for point in reversed(self.points):
            if point.ratio < SURE:
                self.before_us = point.at_us if self.moment_us is not None else None
                break
            self.moment_us = point.at_us


Stopped = Callable[[Localised, int], bool]  # what is known by now, and how many runs there were; True: end it


def localise(
    executor: Executor,
    plan: Plan,
    kind: Kind,
    end_us: int,
    *,
    points: int,
    runs: int,
    early: bool,
    stopped: Stopped,
) -> Localised:
    """Looks at moments from the beginning to `end_us`, when the failure is there; then more closely where it becomes
    sure."""
    found = Localised()
    end_us = max(1, min(end_us, plan.duration_us))
    moments = sorted({end_us * index // max(1, points - 1) for index in range(points)})
    ran = _Runs(executor, plan, kind, early, lambda count: stopped(found, count))
    for _ in range(1 + CLOSER):
        new = ran.points(moments, runs)
        found.complete = new is not None
        if new is None:
            return found
        found.points += new
        found.judge()
        if found.moment_us is None or found.before_us is None or found.moment_us - found.before_us <= NEAR_US:
            break
        width = found.moment_us - found.before_us
        moments = [found.before_us + width * index // (CLOSER_POINTS + 1) for index in range(1, CLOSER_POINTS + 1)]
    return found


class _Runs:
    def __init__(self, executor: Executor, plan: Plan, kind: Kind, early: bool, stopped: Callable[[int], bool]) -> None:
        self._executor = executor
        self._plan = plan
        self._kind = kind
        self._early = early
        self._stopped = stopped
        self._count = 0

    def points(self, moments: Sequence[int], runs: int) -> list[Point] | None:
        """None: it was stopped."""
        wanted = [(at, number) for at in moments for number in range(1, runs + 1)]
        failed = dict.fromkeys(moments, 0)
        pending: dict[Future[Step], int] = {}
        while wanted or pending:
            while wanted and len(pending) < self._executor.handed_out:
                at, number = wanted.pop(0)
                data = reseeded(self._plan, at, number).encode()
                pending[self._executor.submit(step, data, self._early, False)] = at
            done, _ = wait(pending, timeout=LOOK_EVERY_S, return_when=FIRST_COMPLETED)
            for future in done:
                at = pending.pop(future)
                self._count += 1
                failed[at] += future.exception() is None and future.result().kind == self._kind
            if self._stopped(self._count):
                return None
        return [Point(at, failed[at], runs) for at in moments]
