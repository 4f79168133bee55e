"""LatencyRecorder: percentiles agree with exact ones, in flat memory."""

from __future__ import annotations

import random

import pytest
from hdrh.histogram import HdrHistogram
from hypothesis import given, settings
from hypothesis import strategies as st

from reports.histogram import LatencyRecorder
from reports.summary import Percentiles


def exact_s(values_us: list[int], permille: int) -> float:
    """Nearest rank: the least value that at least so many of a thousand do not exceed."""
    return sorted(values_us)[-(-len(values_us) * permille // 1000) - 1] / 1e6


def check_close(values_us: list[int]) -> None:
    recorder = LatencyRecorder()
    for value_us in values_us:
        recorder.add(value_us)
    found = recorder.percentiles()
    assert found.count == len(values_us)
    assert found.max == pytest.approx(max(values_us) / 1e6, rel=1e-12)
    for permille, value in ((500, found.p50), (900, found.p90), (990, found.p99), (999, found.p999)):
        assert value == pytest.approx(exact_s(values_us, permille), rel=0.01, abs=1e-9), permille


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 10**12), min_size=1, max_size=300))
def test_percentiles_agree_with_exact_ones_within_one_percent(values_us: list[int]) -> None:
    check_close(values_us)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 10**12), min_size=1, max_size=100))
def test_percentiles_are_those_of_the_library_s_histogram_of_three_digits(values_us: list[int]) -> None:
    recorder, histogram = LatencyRecorder(), HdrHistogram(1, max(2, *values_us), 3)
    for value_us in values_us:
        recorder.add(value_us)
        histogram.record_value(value_us)
    found, total = recorder.percentiles(), len(values_us)
    for permille, value in ((500, found.p50), (900, found.p90), (990, found.p99), (999, found.p999)):
        rank = -(-total * permille // 1000)
        expected_us = min(histogram.get_value_at_percentile(100 * rank / total), max(values_us))
        assert value == expected_us * 1e-6, permille


def test_percentiles_agree_on_a_long_tailed_distribution() -> None:
    chance = random.Random(5)
    check_close([int(chance.lognormvariate(11.0, 1.8)) for _ in range(50_000)])


def test_nothing_recorded_is_all_zero() -> None:
    assert LatencyRecorder().percentiles() == Percentiles()


def test_memory_stays_flat_over_any_number_of_values() -> None:
    recorder = LatencyRecorder()
    chance = random.Random(6)
    for _ in range(100_000):
        recorder.add(chance.randrange(10**6, 4 * 10**6))
    assert recorder.buckets <= 3 * 1024  # two doublings and a bit


def test_merged_recorders_are_as_one() -> None:
    chance = random.Random(7)
    parts, whole = [LatencyRecorder(), LatencyRecorder()], LatencyRecorder()
    for i in range(5_000):
        value_us = chance.randrange(10**7)
        parts[i % 2].add(value_us)
        whole.add(value_us)
    parts[0].merge(parts[1])
    assert parts[0].percentiles() == whole.percentiles()
    parts[0].clear()
    assert parts[0].percentiles() == Percentiles()


def test_an_effect_before_its_cause_is_refused() -> None:
    recorder = LatencyRecorder()
    recorder.add(-5)
    with pytest.raises(ValueError, match="before its cause"):
        recorder.percentiles()
