"""The study behind `fleet capacity`: which runs it takes.

Sizes up to a limit are run as they are. A larger one is told by parts of it, each with its share of the quotas
(fleet.capacity.scaling). How far off that is gets measured: a size that is run as it is is told by its parts as well.
What the runs say: fleet.capacity.told. Draws nothing itself: the seed's runs do. Called by the command.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

from fleet.capacity.runs import Kept, run_all
from fleet.capacity.scaling import part_of_plan
from fleet.scenario.build import build_plan
from fleet.scenario.load import load
from fleet.scenario.plan import Plan

DEFAULT_PRESET: Final = "aws-iot-default"
PARTS: Final = (0.5, 0.75, 1.0)  # of the largest of the three
PART_SHARE: Final = 4  # the largest part is that part of the largest size that is run as it is, or more:
CONNECTS_MIN: Final = 5.0  # a part that may connect less than that a second is coarse: what is let in comes by ones


@dataclass(frozen=True, slots=True)
class Wanted:
    """What was asked for. `sizes`, `parts`, `measured`: rising. `parts`: devices that larger sizes are told by; empty:
    three parts of up to a quarter of `simulate_up_to`. `measured`: of the sizes, larger ones that are run as well."""

    scenario: str
    sizes: tuple[int, ...]
    simulate_up_to: int
    seed: int | None = None
    preset: str = ""  # empty: the scenario's own, else DEFAULT_PRESET
    changes: tuple[str, ...] = ()
    parts: tuple[int, ...] = ()
    measured: tuple[int, ...] = ()
    prices: tuple[tuple[str, str], ...] = ()  # item, dollars: in place of the price table's


@dataclass(frozen=True, slots=True)
class Planned:
    """One run: `devices` of a fleet of `size`, with their part of its quotas."""

    scenario: str
    devices: int
    size: int
    changes: tuple[str, ...]
    seed: int | None

    def plan(self) -> Plan:
        """Raises InputError."""
        plan = build_plan(load(self.scenario, self.changes, self.devices), self.seed)
        plan = msgspec.structs.replace(plan, thresholds=[])  # a scenario's thresholds are for its own size
        return plan if plan.quotas is None else part_of_plan(plan, self.size)

    def __str__(self) -> str:
        return f"{self.size:,} devices" + (f", by {self.devices:,} of them" if self.devices < self.size else "")


@dataclass(slots=True)
class Study:
    """Runs as it goes. `step`: told what is being run. `directory`: where runs are kept, and found again."""

    wanted: Wanted
    step: Callable[[str], object]
    stopped: Callable[[], bool]
    directory: Path | None = None
    jobs: int = 1
    runs: dict[int, Kept] = field(default_factory=dict)  # by size, those that are run as they are
    parts: dict[int, dict[int, Kept]] = field(default_factory=dict)  # by size, then by devices that were run
    _preset: str = ""

    def planned(self, devices: int, size: int, changes: Sequence[str] = ()) -> Planned:
        wanted = self.wanted
        preset = wanted.preset or self._preset
        given = (*wanted.changes, *([f"cloud.preset={preset}"] if preset else []), *changes)
        return Planned(wanted.scenario, devices, size, given, wanted.seed)

    def plan(self, devices: int, changes: Sequence[str] = ()) -> Plan:
        """Of a whole fleet. Raises InputError."""
        plan = self.planned(devices, devices, changes).plan()
        if plan.quotas is None and not self.wanted.preset and not self._preset:
            self._preset = DEFAULT_PRESET
            return self.plan(devices, changes)
        return plan

    def least(self) -> int:
        """Devices that the scenario needs. Raises InputError."""
        return len(load(self.wanted.scenario, list(self.wanted.changes)).devices)

    def run(self, planned: Planned, words: str) -> Kept:
        """Raises fleet.capacity.runs.Stopped when somebody has said so."""
        self.step(words)
        return run_all([planned], self.directory, 1, self.stopped)[planned]

    def run_all(self) -> None:
        """Every run but those of the search. Raises fleet.capacity.runs.Stopped."""
        self.plan(self.least())  # which settles the preset
        whole, parts = self._whole(), self._parts()
        all_of_them = dict.fromkeys([*whole, *parts])
        if self.jobs == 1:
            found = {planned: self.run(planned, str(planned)) for planned in all_of_them}
        else:
            self.step("; ".join(map(str, all_of_them)))
            found = run_all(list(all_of_them), self.directory, self.jobs, self.stopped)
        self.runs = {planned.size: found[planned] for planned in whole}
        for planned in parts:
            self.parts.setdefault(planned.size, {})[planned.devices] = found[planned]

    def _whole(self) -> list[Planned]:
        wanted = self.wanted
        sizes = [size for size in wanted.sizes if size <= wanted.simulate_up_to]
        more = [wanted.simulate_up_to] if len(sizes) < len(wanted.sizes) and not wanted.measured else []
        return [self.planned(size, size) for size in sorted({*sizes, *more, *wanted.measured})]

    def _parts(self) -> list[Planned]:
        """Of every size that is not run as it is, and of those whose parts are measured by it."""
        wanted = self.wanted
        large = [size for size in wanted.sizes if size > wanted.simulate_up_to]
        also = [wanted.simulate_up_to] if large and not wanted.measured else wanted.measured
        told = sorted({*large, *also})
        return [self.planned(devices, size) for size in told for devices in self.parts_of(size)]

    def part(self, size: int, wanted: int, most: int) -> int:
        """So many devices stand for that size: `wanted`; more where the CONNECT rate would be coarse, up to `most`."""
        quotas = self.plan(self.least()).quotas
        rate = quotas.connects_per_s if quotas is not None else 0.0
        fine = math.ceil(CONNECTS_MIN * size / rate) if rate else 0
        return max(self.least(), min(most, max(wanted, fine)))

    def parts_of(self, size: int) -> list[int]:
        """Devices of each part that tells of that size, rising."""
        up_to, least = self.wanted.simulate_up_to, self.least()
        given = [devices for devices in self.wanted.parts if least <= devices < size]
        if given:
            return given
        part = self.part(size, up_to // PART_SHARE, up_to if size > up_to else up_to // 2)
        return list(dict.fromkeys(max(least, round(part * share)) for share in PARTS))
