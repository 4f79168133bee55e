"""Whether the harness itself gets slower or larger in the course of a night.

The same case runs again and again, in the same processes as everything else, which live all night. Of each process,
the first third of these runs is held against the last: the memory that it holds afterwards, and how many events it
simulates in a second of CPU time. Pure. Called by fleet.soak.night.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

import msgspec

OF_A_THIRD_MIN: Final = 3  # samples; with fewer nothing is said


@dataclass(frozen=True, slots=True)
class Bounds:
    """What is no drift: caches fill up, allocators keep what they had once, neighbours take a share of the machine."""

    growth_ratio: float = 1.25
    growth_mb: float = 64.0
    speed_ratio: float = 0.7


class Sample(msgspec.Struct, frozen=True):
    """One run of the reference, or one look at the process that hands out the runs (`events_per_s` 0: not measured)."""

    process: int
    rss_mb: float
    events_per_s: float = 0.0


class Drift(msgspec.Struct, frozen=True, kw_only=True):
    """Of the process that drifted most, memory and speed each by itself. `status` unknown: the night was too short.
    Medians for memory; for speed the best of a third, since what a neighbour takes away is no drift."""

    status: str = "unknown"
    samples: int = 0
    rss_first_mb: float = 0.0
    rss_last_mb: float = 0.0
    events_per_s_first: float = 0.0
    events_per_s_last: float = 0.0
    detail: str = "too few runs of the reference to say anything"

    @property
    def failed(self) -> bool:
        return self.status == "fail"


def judged(samples: Iterable[Sample], bounds: Bounds | None = None) -> Drift:
    """Of all processes of a night, in the order of time."""
    bounds = bounds or Bounds()
    of: dict[int, list[Sample]] = {}
    for sample in samples:
        of.setdefault(sample.process, []).append(sample)
    count = sum(map(len, of.values()))
    long = [each for each in of.values() if len(each) >= 3 * OF_A_THIRD_MIN]
    if not long:
        return Drift(samples=count)
    memory = max((_memory(each) for each in long), key=lambda pair: pair[1] - pair[0] * bounds.growth_ratio)
    speeds = [_speed(each) for each in long if all(sample.events_per_s > 0 for sample in each)]
    speed = min(speeds, key=lambda pair: pair[1] / pair[0], default=(0.0, 0.0))
    wrong = []
    if memory[1] > memory[0] * bounds.growth_ratio + bounds.growth_mb:
        wrong.append(
            f"memory of one process grew from {memory[0]:.0f} to {memory[1]:.0f} MB "
            f"(bound: {bounds.growth_ratio:g} times and {bounds.growth_mb:g} MB)"
        )
    if speed[0] and speed[1] < speed[0] * bounds.speed_ratio:
        wrong.append(
            f"speed of one process fell from {speed[0]:,.0f} to {speed[1]:,.0f} events/s of CPU time "
            f"({speed[1] / speed[0]:.2f} times, bound: {bounds.speed_ratio:g})"
        )
    return Drift(
        status="fail" if wrong else "pass",
        samples=count,
        rss_first_mb=round(memory[0], 1),
        rss_last_mb=round(memory[1], 1),
        events_per_s_first=round(speed[0], 1),
        events_per_s_last=round(speed[1], 1),
        detail="; ".join(wrong) or "within bounds",
    )


def _thirds(samples: Sequence[Sample]) -> tuple[Sequence[Sample], Sequence[Sample]]:
    third = len(samples) // 3
    return samples[:third], samples[-third:]


def _memory(samples: Sequence[Sample]) -> tuple[float, float]:
    first, last = _thirds(samples)
    return median(sample.rss_mb for sample in first), median(sample.rss_mb for sample in last)


def _speed(samples: Sequence[Sample]) -> tuple[float, float]:
    first, last = _thirds(samples)
    return max(sample.events_per_s for sample in first), max(sample.events_per_s for sample in last)
