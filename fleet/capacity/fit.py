"""From a few sizes to any: lines through totals. A total is a fixed part and a part for each device: a + b·N.

Peaks are another matter: fleet.capacity.peaks. Pure arithmetic, no draws. Called by fleet.capacity.told.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

import msgspec

Point = tuple[int, float]  # devices, figure

CONSTANT: Final = "constant"
FAR_APART: Final = 3  # times as large is the largest size as the smallest
SIGMAS: Final = 2.0  # of the error of a mean
LINE: Final = "a + b·N"
PEAK: Final = "λN + z·√(φλN)"


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """A figure, and between which two it is likely to be."""

    value: float = 0.0
    low: float = 0.0
    high: float = 0.0


class Fit(msgspec.Struct, frozen=True, kw_only=True):
    """`first`, `second`: a and b."""

    model: str
    first: float
    second: float = 0.0

    def at(self, devices: int) -> float:
        return self.first + self.second * devices if self.model == LINE else self.first


def far_apart(points: Sequence[Point]) -> bool:
    """Whether the sizes tell what grows with the fleet from what does not, in spite of chance. `points`: rising."""
    return bool(points) and points[-1][0] >= FAR_APART * points[0][0]


def fitted(points: Sequence[Point]) -> Fit:
    """Of totals: least squares of the relative errors. Nothing shrinks as a fleet grows: a part that would be negative
    is left out, the fixed one where sizes are near to each other. A figure that is alike at all sizes, or known at one,
    is a constant."""
    points = sorted(points)
    if len({value for _, value in points}) < 2:
        return Fit(model=CONSTANT, first=points[0][1] if points else 0.0)
    rows = [(1 / w, n / w, y / w) for n, y in points for w in (max(abs(y), 1e-9),)]
    aa, ab, bb = (math.fsum(row[i] * row[j] for row in rows) for i, j in ((0, 0), (0, 1), (1, 1)))
    ay, by = (math.fsum(row[i] * row[2] for row in rows) for i in (0, 1))
    determinant = aa * bb - ab * ab
    if determinant > 1e-12 * aa * bb:
        first, second = (ay * bb - by * ab) / determinant, (by * aa - ay * ab) / determinant
        if first >= 0 and second >= 0:
            return Fit(model=LINE, first=first, second=second)
        if second < 0 and far_apart(points):
            return Fit(model=LINE, first=ay / aa)
    return Fit(model=LINE, first=0.0, second=by / bb)


def total_at(points: Sequence[Point], devices: int) -> Estimate:
    """At so many devices. What is alike in parts of nearly one size is so by chance: it grows with the fleet. The
    bounds hold what each point would tell alone, each two of them that follow one another, and the error of a mean over
    the devices of the largest, each of which may well have twice the others' figure."""
    points = sorted(points)
    if not points:
        return Estimate()
    largest, _ = points[-1]
    fit = fitted(points)
    grows = fit.model == CONSTANT and not far_apart(points)
    value = fit.first * devices / largest if grows else fit.at(devices)
    alone = [y * devices / n for n, y in points]
    pairs = [fitted(two).at(devices) for two in pairwise(points) if two[0][1] != two[1][1]]
    noise = SIGMAS / math.sqrt(largest)
    return Estimate(
        value=value,
        low=min(max(0.0, value * (1 - noise)), *alone, *pairs),
        high=max(value * (1 + noise), *alone, *pairs),
    )
