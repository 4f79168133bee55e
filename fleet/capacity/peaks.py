"""Peaks of a fleet from those of parts of it: how fast a part is asked when busy, and how much of that is chance.

What a part was asked for in each second has a mean, which grows with the fleet, and a spread, which grows with its
root: the highest second of a small part is high by chance. So the rate is looked for over windows from a second to as
long as the run: of the windows of one width, the highest total S is likely to be the highest of a mean Λ where
S = Λ + z·√(φΛ); z is the expected maximum of as many standard normal draws as there are windows (Blom's formula), φ the
variance over the mean of a second, told by the differences of neighbouring seconds (requests come in bunches: φ > 1).
The whole's peak is then the highest, over all widths, of m + z·√(φm), with m its mean in one of the window's seconds.
Instances at work follow Little's law: their mean is the work done in a second, and around it they are spread as
Poisson's distribution has it (M/G/∞). Pure arithmetic, no draws. Called by fleet.capacity.told.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from statistics import NormalDist
from typing import Final

import msgspec

from fleet.capacity.fit import Estimate, far_apart, total_at

WINDOWS_S: Final = tuple(1 << power for power in range(14))
TRIMMED: Final = 0.05  # of the seconds, the busiest: what all devices do at once is no chance
SIGMAS: Final = 2.0  # of the error of a rate
_NORMAL: Final = NormalDist()

Rows = Sequence[tuple[int, float]]  # (second, what was asked for in it), rising


class Busy(msgspec.Struct, frozen=True, kw_only=True):
    """A part when it was busy. `rates`: Λ a second over each of the windows; `dispersion`: φ."""

    rates: tuple[float, ...] = ()
    dispersion: float = 1.0


def highest_of(draws: float) -> float:
    """The expected maximum of so many standard normal draws, after Blom (1958); 0 of one."""
    return 0.0 if draws <= 1 else _NORMAL.inv_cdf((draws - 0.375) / (draws + 0.25))


def mean_under(highest: float, draws: float, dispersion: float) -> float:
    """Λ of Λ + z·√(φΛ) = highest."""
    spread = highest_of(draws) * math.sqrt(dispersion)
    root = (math.sqrt(spread * spread + 4 * max(highest, 0.0)) - spread) / 2
    return root * root


def dispersion_of(asked: Sequence[float], least: float) -> float:
    """φ: slow changes of the rate are not in it, and neither are the busiest seconds."""
    pairs = sorted(((a + b, (b - a) ** 2) for a, b in pairwise(asked)), reverse=True)
    pairs = pairs[math.ceil(TRIMMED * len(pairs)) :]
    total = math.fsum(both for both, _ in pairs)
    return max(least, math.fsum(square for _, square in pairs) / total) if total > 0 else least


def busy(rows: Rows, seconds: float, least: float = 1.0) -> Busy:
    """Of a run that took so long. `least`: φ of single requests, each alone; 0 for amounts that are no counts."""
    asked = [0.0] * (math.ceil(seconds) + 1)
    for second, amount in rows:
        if 0 <= second < len(asked):
            asked[second] = amount
    dispersion = dispersion_of(asked, least)
    sums = [0.0, *accumulate(asked)]
    rates = []
    for window in WINDOWS_S:
        if window > len(asked):
            break
        highest = max(after - before for before, after in zip(sums, sums[window:], strict=False))
        rates.append(mean_under(highest, len(asked) / window, dispersion) / window)
    return Busy(rates=tuple(rates), dispersion=dispersion)


def peak_of(
    rates: Sequence[float], grown: float, dispersion: float, noise: float | None = None, draws_per_s: float = 1.0
) -> Estimate:
    """In one second, of a fleet that is `grown` times the part with these rates. `noise`: φ of what is looked for,
    where that is another than of what was asked; `draws_per_s`: so often can it be another."""
    best = Estimate()
    for window, rate in zip(WINDOWS_S, rates, strict=False):
        mean = rate * grown
        spread = math.sqrt((dispersion if noise is None else noise) * mean)
        value = mean + highest_of(window * draws_per_s) * spread
        if value > best.value:
            half = SIGMAS * grown * math.sqrt(dispersion * rate / window) + spread
            best = Estimate(value=value, low=max(0.0, value - half), high=value + half)
    return best


def together(found: Mapping[int, Busy], size: int, noise: float | None = None, draws_per_s: float = 1.0) -> Estimate:
    """Of a fleet of that size, by parts of so many devices; the larger ones count more. Where they are far apart, what
    does not grow with the fleet is told from what does, by a line through their rates. The bounds hold what every part
    tells alone, and the noise of the largest."""
    most, devices = max(found), sum(found)
    rates = []
    for index in range(min(len(one.rates) for one in found.values())):
        points = [(n, one.rates[index]) for n, one in sorted(found.items())]
        if far_apart(points):
            rates.append(total_at(points, size).value * most / size)
        else:
            rates.append(math.fsum(rate for _, rate in points) / devices * most)
    whole = peak_of(rates, size / most, found[most].dispersion, noise, draws_per_s)
    alone = [peak_of(one.rates, size / n, one.dispersion, noise, draws_per_s).value for n, one in found.items()]
    return Estimate(value=whole.value, low=min(whole.low, *alone), high=max(whole.high, *alone))
