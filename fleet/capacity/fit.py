"""From a few sizes to any: lines through what was measured.

A total is a fixed part and a part for each device: a + b·N. A peak of many independent devices is a mean and a spread:
b·N + k·√N. Which of the two a figure follows is decided by the largest size, which is left out first and predicted from
the others. Pure arithmetic, no draws. Called by fleet.capacity.study.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

Point = tuple[int, float]  # devices, figure
Basis = tuple[Callable[[float], float], Callable[[float], float]]

MODELS: Final[dict[str, Basis]] = {
    "a + b·N": (lambda n: 1.0, lambda n: n),
    "b·N + k·√N": (lambda n: n, math.sqrt),
}
CONSTANT: Final = "constant"


class Fit(msgspec.Struct, frozen=True, kw_only=True):
    """`first`, `second`: the two numbers of the model."""

    model: str
    first: float
    second: float

    def at(self, devices: int) -> float:
        if self.model == CONSTANT:
            return self.first
        one, other = MODELS[self.model]
        return self.first * one(devices) + self.second * other(devices)


def fitted(points: Sequence[Point]) -> Fit:
    """The model that predicts the largest size best from the others, then drawn through all. A figure that is alike at
    all sizes, or known at one, is a constant."""
    points = sorted(points)
    if len({value for _, value in points}) < 2:
        return Fit(model=CONSTANT, first=points[0][1] if points else 0.0, second=0.0)
    rest, (size, value) = points[:-1], points[-1]
    if len(rest) < 2:
        return _through(points, next(iter(MODELS)))
    return _through(points, min(MODELS, key=lambda model: _error(_through(rest, model).at(size), value)))


def _error(predicted: float, measured: float) -> float:
    if measured == 0:
        return 0.0 if predicted == 0 else 1.0
    return abs(predicted - measured) / abs(measured)


def _through(points: Sequence[Point], model: str) -> Fit:
    """Least squares of the relative errors; a part that would be negative is left out: nothing shrinks as a fleet
    grows."""
    one, other = MODELS[model]
    rows = [(one(n) / w, other(n) / w, y / w) for n, y in points for w in (max(abs(y), 1e-9),)]
    aa, ab, bb = (math.fsum(row[i] * row[j] for row in rows) for i, j in ((0, 0), (0, 1), (1, 1)))
    ay, by = (math.fsum(row[i] * row[2] for row in rows) for i in (0, 1))
    determinant = aa * bb - ab * ab
    if determinant > 1e-12 * aa * bb:
        first, second = (ay * bb - by * ab) / determinant, (by * aa - ay * ab) / determinant
        if first >= 0 and second >= 0:
            return Fit(model=model, first=first, second=second)
    alone = [(ay / aa if aa else 0.0, 0.0), (0.0, by / bb if bb else 0.0)]
    best = min(alone, key=lambda pair: math.fsum((pair[0] * row[0] + pair[1] * row[1] - row[2]) ** 2 for row in rows))
    return Fit(model=model, first=best[0], second=best[1])
