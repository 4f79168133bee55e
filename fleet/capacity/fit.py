"""From a few sizes to any: lines through totals, and what the peaks of small fleets say of those of large ones.

A total is a fixed part and a part for each device: a + b·N. A peak of one second is a mean of that moment, which grows
with the fleet, and a spread above it, which grows with its root: small fleets have high peaks for their size. With the
spread of a Poisson process, peak = λN + c·√(λN), and each part gives a λ. Pure arithmetic, no draws. Called by
fleet.capacity.study.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import msgspec

Point = tuple[int, float]  # devices, figure

CONSTANT: Final = "constant"
LINE: Final = "a + b·N"
PEAK: Final = "λN + c·√(λN)"
SIGMAS: Final = 3.5  # c: so far above its mean is the highest of some thousand seconds of a Poisson process


class Fit(msgspec.Struct, frozen=True, kw_only=True):
    """`first`, `second`: the numbers of the model: a and b, or λ alone."""

    model: str
    first: float
    second: float = 0.0

    def at(self, devices: int) -> float:
        if self.model == LINE:
            return self.first + self.second * devices
        if self.model == PEAK:
            mean = self.first * devices
            return mean + SIGMAS * math.sqrt(mean)
        return self.first


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


def fitted_peaks(points: Sequence[Point]) -> Fit:
    """Of peaks: one λ for all sizes, the larger ones counting more."""
    means = math.fsum(mean_of_peak(peak) for _, peak in points)
    devices = sum(n for n, _ in points)
    return Fit(model=PEAK, first=means / devices if devices else 0.0)


def mean_of_peak(peak: float) -> float:
    """λN of λN + c·√(λN) = peak."""
    root = (math.sqrt(SIGMAS * SIGMAS + 4 * max(peak, 0.0)) - SIGMAS) / 2
    return root * root
