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


def fitted(points: Sequence[Point]) -> Fit:
    """Of totals: least squares of the relative errors. Nothing shrinks as a fleet grows: a part that would be negative
    is left out. A figure that is alike at all sizes, or known at one, is a constant."""
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
    return Fit(model=LINE, first=0.0, second=by / bb)


def total_at(points: Sequence[Point], devices: int) -> Estimate:
    """At so many devices. What is alike in all parts is so by chance: it grows with the fleet. The bounds hold what
    each point would tell alone, and each two of them that follow one another."""
    points = sorted(points)
    if not points:
        return Estimate()
    largest, _ = points[-1]
    fit = fitted(points)
    value = fit.first * devices / largest if fit.model == CONSTANT else fit.at(devices)
    alone = [y * devices / n for n, y in points]
    pairs = [fitted(two).at(devices) for two in pairwise(points) if two[0][1] != two[1][1]]
    return Estimate(value=value, low=min(value, *alone, *pairs), high=max(value, *alone, *pairs))
