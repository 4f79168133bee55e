"""Peaks of a large fleet from what small parts of it are asked for: against fleets of drawn requests."""

from __future__ import annotations

import math
import random
import statistics
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.capacity.fit import total_at
from fleet.capacity.peaks import Busy, busy, dispersion_of, highest_of, mean_under, peak_of, together

SECONDS = 2_000
WHOLE = 20_000


def fleet(devices: int, seed: int, bunch: int = 1, shared: int = 0) -> list[tuple[int, float]]:
    """Each device makes two requests at any time, and three in a storm of 100 seconds; each is a bunch of `bunch`.
    `shared`: requests in second 700 whatever the number of devices."""
    rng = random.Random(seed)
    asked: Counter[int] = Counter({700: shared})
    for _ in range(devices):
        for second in (rng.randrange(SECONDS), rng.randrange(SECONDS), *(1_000 + rng.randrange(100) for _ in "abc")):
            asked[second] += bunch
    return sorted((second, float(count)) for second, count in asked.items() if count)


def top(rows: list[tuple[int, float]]) -> float:
    return max(amount for _, amount in rows)


@pytest.mark.parametrize("bunch", [1, 10])
@pytest.mark.parametrize("parts", [(250, 375, 500), (200, 2_000)])
def test_the_peak_of_a_fleet_is_told_by_small_parts_of_it(parts: tuple[int, ...], bunch: int) -> None:
    seen = top(fleet(WHOLE, 99, bunch))
    errors = []
    for seed in range(5):
        told = together({n: busy(fleet(n, 10 * seed + n, bunch), SECONDS) for n in parts}, WHOLE)
        errors.append((told.value - seen) / seen)
        assert told.low <= seen <= told.high
        # In proportion to its own peak, the largest part would tell far too much.
        assert top(fleet(max(parts), seed, bunch)) * WHOLE / max(parts) > 1.1 * seen
    assert abs(statistics.fmean(errors)) < 0.12 and max(map(abs, errors)) < 0.25


def test_what_all_do_at_once_grows_with_the_fleet_and_is_no_chance() -> None:
    rows = {n: sorted([(500, float(n)), *((s, 1.0) for s in range(0, 400, 5))]) for n in (500, 750, 1_000)}
    told = together({n: busy(one, SECONDS) for n, one in rows.items()}, 100_000)
    assert told.value == pytest.approx(100_000, rel=0.12)


def test_what_does_not_grow_is_told_apart_by_parts_that_are_far_apart() -> None:
    near, far = ({n: busy(fleet(n, n, shared=2_000), SECONDS) for n in parts} for parts in ((250, 375), (500, 5_000)))
    seen = top(fleet(WHOLE, 3, shared=2_000))
    assert together(far, WHOLE).value == pytest.approx(seen, rel=0.35)
    assert together(near, WHOLE).value > 20 * seen


def test_instances_follow_littles_law() -> None:
    """Work of 20 ms each, at random: of a hundredth of the fleet's, the mean is under one, the peak several."""

    def worked(per_s: float, seed: int) -> tuple[list[tuple[int, float]], int]:
        rng, at, found = random.Random(seed), 0.0, []
        while (at := at + rng.expovariate(per_s)) < 400:
            found.append(at)
        busy_s = Counter(int(start) for start in found)
        ends = sorted([(start, 1) for start in found] + [(start + 0.02, -1) for start in found])
        level = most = 0
        for _, step in ends:
            level += step
            most = max(most, level)
        return sorted((second, count * 0.02) for second, count in busy_s.items()), most

    part, peak = worked(20, 1)
    _, seen = worked(2_000, 2)
    told = together({1: busy(part, 400, least=0.0)}, 100, noise=1.0, draws_per_s=50)
    assert told.value == pytest.approx(seen, rel=0.15)
    assert 100 * peak > 3 * seen


def test_nothing_asked_is_nothing_told() -> None:
    assert busy([], 100).rates == (0.0,) * 7
    assert together({10: busy([], 100)}, 1_000).value == 0.0
    assert peak_of((), 10.0, 1.0).value == 0.0
    assert total_at([], 10).value == 0.0


def test_bunches_are_seen_in_neighbouring_seconds_and_slow_changes_are_not() -> None:
    slow = [1_000.0 + 500 * math.sin(second / 300) for second in range(3_000)]
    assert dispersion_of(slow, 0.0) < 0.01
    rng = random.Random(1)
    single = [float(sum(rng.random() < 0.02 for _ in range(500))) for _ in range(2_000)]
    assert dispersion_of(single, 0.0) == pytest.approx(1, abs=0.15)
    assert dispersion_of([7 * count for count in single], 0.0) == pytest.approx(7, abs=1)


def test_the_expected_maximum_of_normal_draws() -> None:
    assert highest_of(1) == highest_of(0.5) == 0.0
    rng = random.Random(2)
    drawn = statistics.fmean(max(rng.gauss(0, 1) for _ in range(100)) for _ in range(2_000))
    assert highest_of(100) == pytest.approx(drawn, abs=0.05)


@given(st.floats(0, 1e6), st.floats(2, 1e5), st.floats(0.1, 50))
def test_a_mean_is_found_under_its_highest(mean: float, draws: float, dispersion: float) -> None:
    highest = mean + highest_of(draws) * math.sqrt(dispersion * mean)
    assert mean_under(highest, draws, dispersion) == pytest.approx(mean, rel=1e-6, abs=1e-3)


@given(st.dictionaries(st.integers(1, 5_000), st.floats(0, 1e4), min_size=1, max_size=4))
def test_bounds_hold_what_is_told(rates: dict[int, float]) -> None:
    told = together({n: Busy(rates=(rate, rate / 2), dispersion=2.0) for n, rate in rates.items()}, 10_000)
    assert 0 <= told.low <= told.value <= told.high
    total = total_at(sorted(rates.items()), 10_000)
    assert total.low <= total.value <= total.high
