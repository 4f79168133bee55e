"""How everything here is measured: repeats, medians, spreads, and ratios of runs that take turns.

A machine that does other things as well slows down both sides of a ratio alike, when they take turns: ratios are what
to compare between machines and days. Rates are per second of CPU time of this process unless a row says `wall`: only
what waits for the disk is measured by the clock on the wall. Measures, never judges. Called by the subjects.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median
from typing import Final, TypeVar

T = TypeVar("T")
Clock = Callable[[], float]
Work = Callable[[int], object]  # does the thing n times

CPU: Final[Clock] = time.process_time
WALL: Final[Clock] = time.perf_counter
_MOST: Final = 1 << 24  # of one batch


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to measure. `batch_s`: least CPU time of one batch, since short ones measure the clock. `small`: on
    fewer devices as well, for a first look and for tests."""

    repeats: int = 7
    batch_s: float = 0.2
    small: bool = False


QUICK: Final = Effort(3, 0.02, True)


@dataclass(frozen=True, slots=True)
class Row:
    """One figure: the median of `repeats`, and how far these lie apart as a share of the median."""

    name: str
    value: float
    unit: str
    repeats: int = 1
    spread: float = 0.0
    note: str = ""


@dataclass(slots=True)
class Result:
    """What one subject found. `subject` names the file."""

    subject: str
    question: str
    rows: list[Row] = field(default_factory=list)

    def add(self, name: str, values: list[float], unit: str, note: str = "") -> float:
        """A row of several repeats; returns the median."""
        middle = median(values)
        spread = (max(values) - min(values)) / middle if middle else 0.0
        self.rows.append(Row(name, middle, unit, len(values), spread, note))
        return middle


def batch_size(work: Work, effort: Effort, clock: Clock = CPU) -> int:
    """How often the thing must be done to take long enough. Also warms it up."""
    n = 1
    while n < _MOST:
        start = clock()
        work(n)
        taken_s = clock() - start
        if taken_s >= effort.batch_s:
            return n
        n *= 2 if taken_s > effort.batch_s / 8 else 8
    return n


def seconds(work: Work, n: int, clock: Clock = CPU) -> float:
    """Time of one batch."""
    return _seconds(work, n, clock)


def _seconds(work: Callable[[T], object], what: T, clock: Clock = CPU) -> float:
    """Without the collector of cycles, whose turn comes at random."""
    gc.collect()
    enabled = gc.isenabled()
    gc.disable()
    try:
        start = clock()
        work(what)
        return max(clock() - start, 1e-9)
    finally:
        if enabled:
            gc.enable()


def rates(work: Work, effort: Effort, clock: Clock = CPU) -> list[float]:
    """Things a second, once for each repeat."""
    n = batch_size(work, effort, clock)
    return [n / seconds(work, n, clock) for _ in range(effort.repeats)]


def rates_prepared(prepare: Callable[[int], list[T]], use: Callable[[T], object], effort: Effort) -> list[float]:
    """Things a second where each needs something made beforehand, whose making does not count."""

    def run(made: list[T]) -> None:
        for one in made:
            use(one)

    n = 256
    while n < 1 << 16:
        taken_s = _seconds(run, prepare(n))
        if taken_s >= effort.batch_s:
            break
        n *= 2
    return [n / _seconds(run, prepare(n)) for _ in range(effort.repeats)]


def side_by_side(one: Work, other: Work, effort: Effort, clock: Clock = CPU) -> tuple[list[float], list[float]]:
    """Rates of two ways to do a thing, taking turns, each turn the other way round."""
    sizes = (batch_size(one, effort, clock), batch_size(other, effort, clock))
    found: tuple[list[float], list[float]] = ([], [])
    for repeat in range(effort.repeats):
        for side in (0, 1) if repeat % 2 == 0 else (1, 0):
            found[side].append(sizes[side] / seconds((one, other)[side], sizes[side], clock))
    return found


def ratios(one: list[float], other: list[float]) -> list[float]:
    """Turn by turn."""
    return [a / b for a, b in zip(one, other, strict=True)]
