"""LatencyRecorder: millions of latencies in flat memory; percentiles at the end.

It is an HDR histogram of three digits (error under 0.1 %) that holds only the counters that were ever used: `add` is on
the path of every synced update, and a run has a hundred recorders, most of them small. The library's own, which counts
in an array of its whole range, took a quarter of the time of a short run to read; a test holds this one against it.
Called by the oracle; reads no clock.
"""

from __future__ import annotations

import math
from array import array
from collections import defaultdict
from collections.abc import Sequence
from typing import Final

from reports.summary import Percentiles

_BITS: Final = 11  # 1 / 2**11 < 0.0005: three digits
_COARSE_BITS: Final = 7
_US: Final = 1e-6


def quantile_us(counts: Sequence[tuple[int, int]], share: float) -> int:
    """The nearest rank among (value, how often) in rising order of the values; 0 among none."""
    rank = max(1, math.ceil(round(share * sum(count for _, count in counts), 6)))  # ints; 0.99 * 100 is above 99
    for value_us, count in counts:
        rank -= count
        if rank <= 0:
            return value_us
    return 0


class CoarseCounts:
    """What `LatencyRecorder.coarse` says, in 16 bytes for each counter: for a run's many parts, of which most only wait
    for its end."""

    __slots__ = ("_counts", "_values")

    def __init__(self, pairs: Sequence[tuple[int, int]] = ()) -> None:
        self._values = array("q", [value_us for value_us, _ in pairs])
        self._counts = array("q", [count for _, count in pairs])

    def pairs(self) -> list[tuple[int, int]]:
        """(value in microseconds, how often), in rising order of the values."""
        return list(zip(self._values, self._counts, strict=True))

    def plus(self, other: CoarseCounts) -> CoarseCounts:
        found = defaultdict(int, self.pairs())
        for value_us, count in other.pairs():
            found[value_us] += count
        return CoarseCounts(sorted(found.items()))


def _last_us(value_us: int) -> int:
    """The largest value that a counter stands for, as an HDR histogram says it: a percentile is no less than told."""
    shift = value_us.bit_length() - _BITS
    return value_us if shift <= 0 else value_us | (1 << shift) - 1


class LatencyRecorder:
    """Latencies in whole microseconds, at least 0. At most 1,024 counters for each doubling of the value."""

    __slots__ = ("_counts", "_max_us")

    def __init__(self) -> None:
        self._counts: defaultdict[int, int] = defaultdict(int)
        self._max_us = 0

    def add(self, value_us: int) -> None:
        if value_us > self._max_us:
            self._max_us = value_us
        shift = value_us.bit_length() - _BITS
        if shift > 0:
            value_us = value_us >> shift << shift
        self._counts[value_us] += 1

    def merge(self, other: LatencyRecorder) -> None:
        """Adds everything that `other` recorded."""
        for value_us, count in other._counts.items():
            self._counts[value_us] += count
        self._max_us = max(self._max_us, other._max_us)

    def clear(self) -> None:
        """Forgets everything: for a recorder that is read once an interval."""
        self._counts.clear()
        self._max_us = 0

    @property
    def buckets(self) -> int:
        """How many counters are held: what memory depends on."""
        return len(self._counts)

    def counts(self) -> list[tuple[int, int]]:
        """(value in microseconds, how often), in rising order of the values."""
        return sorted(self._counts.items())

    def coarse(self) -> list[tuple[int, int]]:
        """The same with 7 significant bits, each value in the middle of what it stands for: to 1 %, in at most 64
        counters for each doubling. For what is drawn and kept in a file."""
        found: defaultdict[int, int] = defaultdict(int)
        for value_us, count in self._counts.items():
            shift = value_us.bit_length() - _COARSE_BITS
            found[value_us if shift <= 0 else (value_us >> shift << shift) + (1 << shift - 1)] += count
        return sorted(found.items())

    def percentiles(self) -> Percentiles:
        """The distribution in seconds. Raises ValueError when a latency was negative: an effect before its cause."""
        if not self._counts:
            return Percentiles()
        least_us = min(self._counts)
        if least_us < 0:
            raise ValueError(f"a latency of {least_us} µs: the effect was recorded before its cause")
        total = len(self)
        ranks = [-(-total * permille // 1000) for permille in (500, 900, 990, 999)]
        p50, p90, p99, p999 = (min(_last_us(value_us), self._max_us) * _US for value_us in self._at(ranks))
        return Percentiles(count=total, p50=p50, p90=p90, p99=p99, p999=p999, max=self._max_us * _US)

    def quantiles_s(self, *percents: float) -> tuple[float, ...]:
        """A few percentiles in seconds, nearest rank, in rising order; 0 where nothing was recorded."""
        total = len(self)
        if not total:
            return (0.0,) * len(percents)
        ranks = [math.ceil(total * percent / 100) for percent in percents]
        return tuple([min(value_us, self._max_us) * _US for value_us in self._at(ranks)])

    def _at(self, ranks: Sequence[int]) -> list[int]:
        """The counters that hold the values of these ranks, which rise and are from 1 to all."""
        counts = sorted(self._counts.items())
        found: list[int] = []
        position, seen = 0, counts[0][1]
        for rank in ranks:
            while seen < rank:
                position += 1
                seen += counts[position][1]
            found.append(counts[position][0])
        return found

    def __len__(self) -> int:
        """How many latencies were recorded."""
        return sum(self._counts.values())  # ints
