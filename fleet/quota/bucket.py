"""Token buckets in virtual time, and gauges of what was asked of a quota: whole numbers, no draws, no events.

A bucket holds thousands of millions of a token and gains `rate` thousandths of one a microsecond, so that nothing is
ever rounded. Used by the parts of fleet.quota that stand between the simulated fleet and its cloud.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final

TOKEN: Final = 1_000_000_000  # a token; a rate of one a second brings 1,000 of these a microsecond
SECOND_US: Final = 1_000_000


class Gauge:
    """What was asked of one quota. `limit` 0: it is only measured. Rates are counted by whole virtual seconds, and
    kept in `by_second`, where the capacity of a larger fleet is read off."""

    __slots__ = (
        "_count",
        "_second",
        "by_second",
        "first_us",
        "last_us",
        "limit",
        "peak",
        "peak_at_us",
        "share",
        "throttled",
        "total",
    )

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self.by_second: dict[int, float] = {}
        self.peak = 0.0
        self.share = 0.0  # the highest of the limit as it was then
        self.peak_at_us = -1
        self.total = 0
        self.throttled = 0
        self.first_us = self.last_us = -1
        self._second = -1
        self._count = 0

    def ask(self, now_us: int, amount: int = 1) -> None:
        """Of a rate."""
        second = now_us // SECOND_US
        if second != self._second:
            self._second = second
            self._count = 0
        self._count += amount
        self.total += amount
        self.by_second[second] = self._count
        self.level(now_us, self._count)

    def most(self, now_us: int, value: float) -> None:
        """Of one of many that each have this quota: the most of its second is kept."""
        second = now_us // SECOND_US
        if value > self.by_second.get(second, 0.0):
            self.by_second[second] = value

    def level(self, now_us: int, value: float) -> None:
        """Of something that is not a rate: how much it is now."""
        if value > self.peak:
            self.peak = float(value)
            self.peak_at_us = now_us
        if self.limit and value > self.share * self.limit:
            self.share = value / self.limit

    def refuse(self, now_us: int, times: int = 1) -> None:
        self.throttled += times
        self.last_us = now_us
        if self.first_us < 0:
            self.first_us = now_us


class Bucket:
    """One token bucket. `burst`: what it holds, at least one token; None: a second of its rate."""

    __slots__ = ("_last_us", "_level", "_most", "_rate")

    def __init__(self, per_s: float, burst: float | None = None) -> None:
        self._rate = max(1, round(per_s * 1000))
        self._most = round(max(1.0, per_s if burst is None else burst) * TOKEN)
        self._level = self._most
        self._last_us = 0

    def set_rate(self, now_us: int, per_s: float) -> None:
        """From now on."""
        self._fill(now_us)
        self._rate = max(1, round(per_s * 1000))
        self._most = round(max(1.0, per_s) * TOKEN)

    def _fill(self, now_us: int) -> int:
        self._level = min(self._most, self._level + (now_us - self._last_us) * self._rate)
        self._last_us = now_us
        return self._level

    def take(self, now_us: int) -> bool:
        """One token, if there is one."""
        if self._fill(now_us) < TOKEN:
            return False
        self._level -= TOKEN
        return True

    def in_debt(self, now_us: int) -> bool:
        return self._fill(now_us) <= 0

    def spend(self, now_us: int, amount: int) -> None:
        """As much as it may cost: a debt, which time pays off."""
        self._fill(now_us)
        self._level -= amount * TOKEN

    def wait_us(self, now_us: int, amount: int) -> int:
        """Spends, and says after how long the bucket is out of debt: what is over the rate is late, not lost."""
        self.spend(now_us, amount)
        return -(self._level // self._rate) if self._level < 0 else 0


class Buckets:
    """One bucket for each key (a client, a partition), all alike. A bucket that is full again is forgotten."""

    __slots__ = ("_buckets", "_counts", "_most", "_rate", "_second", "_swept_us")

    def __init__(self, per_s: float, burst: float | None = None) -> None:
        self._rate = max(1, round(per_s * 1000))
        self._most = round(max(1.0, per_s if burst is None else burst) * TOKEN)
        self._buckets: dict[Hashable, tuple[int, int]] = {}  # level, at that time
        self._counts: dict[Hashable, int] = {}  # asked for in this second
        self._second = -1
        self._swept_us = 0

    def __len__(self) -> int:
        return len(self._buckets)

    def asked(self, now_us: int, key: Hashable, amount: int = 1) -> int:
        """Counts, and gives what was asked of this key in this second."""
        second = now_us // SECOND_US
        if second != self._second:
            self._second = second
            self._counts.clear()
        count = self._counts[key] = self._counts.get(key, 0) + amount
        return count

    def level(self, now_us: int, key: Hashable) -> int:
        found = self._buckets.get(key)
        if found is None:
            return self._most
        return min(self._most, found[0] + (now_us - found[1]) * self._rate)

    def take(self, now_us: int, key: Hashable) -> bool:
        """One token of this key, if there is one."""
        level = self.level(now_us, key)
        if level < TOKEN:
            return False
        self._put(now_us, key, level - TOKEN)
        return True

    def in_debt(self, now_us: int, key: Hashable) -> bool:
        return self.level(now_us, key) <= 0

    def spend(self, now_us: int, key: Hashable, amount: int) -> None:
        self._put(now_us, key, self.level(now_us, key) - amount * TOKEN)

    def wait_us(self, now_us: int, key: Hashable, amount: int) -> int:
        """As Bucket's."""
        level = self.level(now_us, key) - amount * TOKEN
        self._put(now_us, key, level)
        return -(level // self._rate) if level < 0 else 0

    def _put(self, now_us: int, key: Hashable, level: int) -> None:
        if now_us - self._swept_us >= SECOND_US:
            self._swept_us = now_us
            self._buckets = {
                one: (was, at)
                for one, (was, at) in self._buckets.items()
                if was + (now_us - at) * self._rate < self._most
            }
        self._buckets[key] = (level, now_us)
