"""LatencyRecorder: millions of latencies in flat memory; percentiles at the end.

`add` is on the path of every synced update. It keeps 11 significant bits of a value, as an HDR histogram of three
digits does (error under 0.1 %), in a dict of counts: one array index less per call than the histogram itself, which
then does the percentiles. Called by the oracle; reads no clock.
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
        from hdrh.histogram import HdrHistogram  # here, so that starting a command does not pay for it

        histogram = HdrHistogram(1, max(2, self._max_us), 3)
        for value_us, count in self._counts.items():
            histogram.record_value(value_us, count)

        total = int(histogram.get_total_count())

        def at(permille: int) -> float:
            # The nearest rank, rounded up: the library rounds to the nearest one, which among few values is another.
            rank = -(-total * permille // 1000)
            return min(int(histogram.get_value_at_percentile(100 * rank / total)), self._max_us) * _US

        return Percentiles(
            count=total,
            p50=at(500),
            p90=at(900),
            p99=at(990),
            p999=at(999),
            max=self._max_us * _US,
        )

    def quantiles_s(self, *percents: float) -> tuple[float, ...]:
        """A few percentiles in seconds, nearest rank, in rising order; 0 where nothing was recorded.

        Walks the counters: for the small recorder of one interval, of which a day has thousands and the histogram
        would take longer.
        """
        counts = sorted(self._counts.items())
        total = len(self)
        found: list[float] = []
        position = seen = 0
        for percent in percents:
            rank = math.ceil(total * percent / 100)
            while position < len(counts) and seen + counts[position][1] < rank:
                seen += counts[position][1]
                position += 1
            found.append(min(counts[position][0], self._max_us) * _US if position < len(counts) else 0.0)
        return tuple(found)

    def __len__(self) -> int:
        """How many latencies were recorded."""
        return sum(self._counts.values())  # ints
