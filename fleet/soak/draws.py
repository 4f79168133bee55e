"""What a night runs: random scenarios, seeds and sizes, as written or as a swarm, and a reference between them.

All of it follows from the night's own seed but where the references fall and where it ends, which the clock says: it is
given. Pure but for that. Called by fleet.soak.night.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.protocol.errors import InputError, Problem
from fleet.plants import PLANTS
from fleet.rng import rng
from fleet.scenario.shipped import scenario_paths
from fleet.sweep.case import Case, Source, source_of

DEVICES: Final = (8, 15, 20, 30)
SEEDS: Final = 1 << 31
TWICE_EVERY: Final = 20
REFERENCE: Final = "outage"  # faults of every kind that is usual, and always the same
REFERENCE_SEED: Final = 1
REFERENCE_DEVICES: Final = 10
REFERENCES_OF_A_WORKER: Final = 24  # spread over the night
BETWEEN_REFERENCES_MIN: Final = 3  # other runs
CANARY_DEVICES: Final = 20
SETS: Final = ("expect.thresholds=[]",)  # they are written for the scenario's own number of devices


class Reference(Case):
    """The one case that is the same at each time of every night: by it the harness is watched."""


class Again(Case):
    """A case that has just run, once more: its trace must be the same."""


@dataclass(frozen=True, slots=True)
class Budget:
    """How long the night lasts, in seconds of the clock that is given, and with how many workers."""

    seconds: float
    workers: int


def names_in(directory: Path | None) -> list[str]:
    """Scenarios to draw from: files of `directory`, or all that ship. Raises InputError."""
    if directory is None:
        return list(scenario_paths())
    found = sorted(str(path) for path in directory.glob("*.yaml")) if directory.is_dir() else []
    if not found:
        what = "holds no scenario (*.yaml)" if directory.is_dir() else "is no directory"
        hint = "without --scenarios the ones that ship are taken"
        raise InputError([Problem("--scenarios", 0, 0, str(directory), what, hint)])
    return found


def canary_of(seed: int) -> str:
    """The planted bug of the night with this seed."""
    return rng(seed, "soak", "canary").choice(list(PLANTS))


class Draws:
    """The cases of one night. Raises InputError when a scenario is wrong, before anything runs."""

    def __init__(self, names: Sequence[str], seed: int) -> None:
        self._names = list(names)
        self._seed = seed
        self._sources: dict[tuple[str, int], Source] = {}
        for name in names:
            self._source(name, DEVICES[0])
        self.reference = Reference(source_of(REFERENCE, (), REFERENCE_DEVICES), REFERENCE_SEED)

    def _source(self, name: str, devices: int) -> Source:
        key = name, devices
        if key not in self._sources:
            self._sources[key] = source_of(name, SETS, devices)
        return self._sources[key]

    def case(self, number: int) -> Case:
        """The n-th of the night."""
        stream = rng(self._seed, "soak", str(number))
        name, devices = stream.choice(self._names), stream.choice(DEVICES)
        swarm, seed = stream.chance(0.5), stream.below(SEEDS)
        return Case(self._source(name, devices), seed, swarm)

    def cases(self, budget: Budget, clock: Callable[[], float]) -> Iterator[Case]:
        """Without an end but the budget's. Two references at least, the first one first."""
        start = clock()
        every_s = budget.seconds / (REFERENCES_OF_A_WORKER * budget.workers)
        yield self.reference
        yield self.reference
        due_s, between, number = start + every_s, 0, 0
        while clock() - start < budget.seconds:
            if between >= BETWEEN_REFERENCES_MIN and clock() >= due_s:
                due_s, between = clock() + every_s, 0
                yield self.reference
                continue
            case = self.case(number)
            yield case
            if number % TWICE_EVERY == 0:
                yield Again(case.source, case.seed, case.swarm)
            number += 1
            between += 1

    def canary(self) -> str:
        """The planted bug of this night."""
        return canary_of(self._seed)

    def canary_case(self, _mix: str, plant: str, number: int) -> Case:
        """Its n-th run: in the scenario where it is caught soonest."""
        seed = rng(self._seed, "soak", f"canary/{number}").below(SEEDS)
        return Case(source_of(PLANTS[plant].scenario, (), CANARY_DEVICES), seed, plant=plant)
