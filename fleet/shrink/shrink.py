"""The order in which a plan is made smaller: first by what the violation names, then whole parts, then numbers.

Coarse steps come first, since each makes all later replays faster: the end of the run, devices, faults, workloads,
single events. What is left is written out as a scenario can say it, and from then on every step stays so. Then numbers
get smaller and rounder. Rounds are repeated until one changes nothing. Called by `fleet shrink`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from msgspec.structs import replace

from fleet.scenario.plan import Plan
from fleet.shrink import reductions as cut
from fleet.shrink.explicit import can_be_said, explicit
from fleet.shrink.search import Enough, Search
from fleet.shrink.values import changes, lengths_below
from fleet.sweep.attempt import HARNESS, THRESHOLD
from reports.result import Violation

ROUNDS_MAX: Final = 6
OTHER_SEEDS: Final = 8  # a race is lost with some probability: without one device more it may take other draws
FASTER: Final = (60, 20, 5, 2)
FEW_DEVICES: Final = 1
FEW_FAULTS: Final = 1
_SECOND: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Size:
    """What people count in a plan."""

    devices: int
    faults: int
    events: int
    workloads: int
    duration_us: int


def size_of(plan: Plan) -> Size:
    events = sum(len(fault.events) for fault in plan.faults)
    return Size(len(plan.devices), len(plan.faults), events, len(plan.workloads), plan.duration_us)


class Shrink:
    """One shrink. `phase`: what it is at, for people."""

    def __init__(self, search: Search, violation: Violation | None) -> None:
        self.search = search
        self.phase = "begins"
        self.is_said = False  # the best plan is written out, and stays so
        self._violation = violation

    def run(self) -> bool:
        """To the end, or as far as the search goes; whether it came to its end. The minimum is `search.best`."""
        try:
            self._run()
        except Enough:
            return False
        return True

    def _run(self) -> None:
        self._guess()
        self._structure_and_draws()
        self._say()
        self._expect_little()
        self._rounds(self._whole_round)
        self._structure_and_draws()
        self._rounds(self._whole_round)

    def _structure_and_draws(self) -> None:
        for _ in range(ROUNDS_MAX):
            self._rounds(self._structure)
            if not self._other_draws():
                return

    def _rounds(self, one: Callable[[], object]) -> None:
        """Until one changes nothing."""
        for _ in range(ROUNDS_MAX):
            before = self.search.best
            one()
            if self.search.best == before:
                return

    # ---------------------------------------------------------------- what the violation names

    def _guess(self) -> None:
        """All in one step, where it was one device alone, soon before."""
        self.phase = "what the violation names"
        plan, found = self.search.best, self._violation
        if found is None:
            return
        named = {
            one.id
            for one in plan.devices
            if one.id == found.device or one.id in found.item.replace("/", "#").split("#")
        }
        end_us = (int(found.t_s) + 2) * _SECOND
        alone = cut.with_devices(plan, named) if named else None
        short = [cut.ending(one, end_us) or one for one in (alone, plan) if one is not None]
        bare = [cut.with_faults(one, ()) for one in short]
        self.search.first([*bare[:1], *short, alone])

    # ---------------------------------------------------------------- whole parts

    def _structure(self) -> None:
        search = self.search
        self._time()
        self.phase = "faults"
        faults = list(search.best.faults)
        search.without(faults, lambda left, plan=search.best: cut.with_faults(plan, left))  # type: ignore[misc]
        self.phase = "devices"
        plan = search.best
        search.without(plan.devices, lambda left: cut.with_devices(plan, {device.id for device in left}))
        self.phase = "workloads"
        writes = search.best
        search.without(writes.workloads, lambda left: cut.with_workloads(writes, left))
        self.phase = "events"
        happens = search.best
        if len(cut.all_events(happens)) > len(happens.faults):
            search.without(cut.all_events(happens), lambda left: cut.with_all_events(happens, happens.faults, left))

    def _time(self) -> None:
        """The end comes as soon as it can, then the beginning is left out."""
        self.phase = "time"
        search = self.search
        plan = search.best
        search.first(cut.ending(plan, end) for end in lengths_below(plan.duration_us))
        plan = search.best
        first = min((fault.at_us for fault in plan.faults), default=0)
        wanted = (first - left for left in (0, *lengths_below(first)))
        search.first(cut.sooner(plan, by) for by in wanted)
        plan = search.best
        search.first(cut.faster(plan, times) for times in FASTER)

    # ---------------------------------------------------------------- in words

    def _say(self) -> None:
        """Written out as a scenario can say it; it stays as it is where that does not fail in the same way."""
        self.phase = "in words"
        search = self.search
        if not can_be_said(search.best):
            plan = explicit(search.best)
            if not can_be_said(plan):
                return
            seeds = (replace(plan, seed=seed) for seed in self._seeds())
            if search.first([plan, *seeds]) is None:
                return
        self.is_said = True
        search.acceptable = can_be_said

    def _expect_little(self) -> None:
        """The check that fails is the one that is expected to look at something."""
        kind = self.search.kind
        plan = self.search.best
        if kind.check == THRESHOLD:
            aborts = [expr for expr in plan.aborts if expr == kind.shape]
            self.search.first([replace(plan, thresholds=[kind.shape], aborts=aborts)])
        elif kind.check != HARNESS:
            self.search.first([replace(plan, thresholds=[], aborts=[], checks=[kind.check])])

    # ---------------------------------------------------------------- numbers

    def _whole_round(self) -> None:
        self._structure()
        self.phase = "numbers"
        self.search.simplify(changes(self.search.best))

    def _seeds(self) -> Iterator[int]:
        return (seed for seed in range(1, OTHER_SEEDS + 1) if seed != self.search.best.seed)

    def _other_draws(self) -> bool:
        """Fewer devices or faults with other draws of all that the run draws for itself."""
        self.phase = "other draws"
        plan = self.search.best
        smaller: list[Plan | None] = []
        if len(plan.devices) > FEW_DEVICES:
            smaller += [cut.with_devices(plan, {device.id}) for device in plan.devices]
            if len(plan.devices) > 2:
                ids = [device.id for device in plan.devices]
                smaller += [cut.with_devices(plan, set(ids) - {one}) for one in ids]
        if len(plan.faults) > FEW_FAULTS:
            smaller += [cut.with_faults(plan, [fault]) for fault in plan.faults]
            if len(plan.faults) > 2:
                smaller += [
                    cut.with_faults(plan, [one for one in plan.faults if one is not fault]) for fault in plan.faults
                ]
        tried = (replace(one, seed=seed) for one in smaller if one is not None for seed in self._seeds())
        return self.search.first(tried) is not None
