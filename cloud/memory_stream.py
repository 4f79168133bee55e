"""The change stream of the memory table: one Record for every change of an item, kept per shard until it is trimmed.

Order holds within a shard, hence per item, as in DynamoDB Streams. It never reads a clock and never drops a record by
itself: whoever reads (a worker's driver, the simulator) says when. Called by `cloud.memory` and by readers.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from operator import attrgetter
from typing import Final

from cloud.table import Item, Key, Record, TableError

RETAIN_MS: Final = 24 * 3_600_000  # how long DynamoDB keeps a record
_SEQ = attrgetter("seq")
_AT = attrgetter("at_ms")


class TrimmedHorizon(TableError):
    """The wanted records have been dropped. `horizon` is the first position that can still be read."""

    def __init__(self, shard: int, position: int, horizon: int) -> None:
        self.shard = shard
        self.position = position
        self.horizon = horizon
        super().__init__(f"shard {shard}: position {position} is below the trim horizon {horizon}")


class _Shard:
    """Records in order of `seq`; `start` counts those that are dropped but not yet cut off, so that a trim is cheap."""

    __slots__ = ("horizon", "next_seq", "records", "start")

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.start = 0
        self.horizon = 1
        self.next_seq = 1

    def index(self, seq: int) -> int:
        return bisect_left(self.records, seq, lo=self.start, key=_SEQ)

    def drop(self, index: int, horizon: int) -> int:
        dropped = index - self.start
        self.start = index
        self.horizon = max(self.horizon, horizon)
        if index > 64 and index * 2 > len(self.records):
            del self.records[:index]
            self.start = 0
        return dropped


class ChangeStream:
    """`position` is the `seq` of the first record wanted. `seq` grows per shard, with gaps where `wants` said no.

    `on_record` is called for each record that is kept, `observers` for every change, wanted or not; both after the
    whole write is committed. They must not write to the table."""

    __slots__ = ("_observers", "_shards", "on_record", "retain_ms", "wants")

    def __init__(self, shards: int, retain_ms: int = RETAIN_MS) -> None:
        if shards < 1:
            raise ValueError(f"shards: {shards}, at least 1")
        self._shards = tuple(_Shard() for _ in range(shards))
        self._observers: tuple[Callable[[Record], None], ...] = ()
        self.retain_ms = retain_ms
        self.on_record: Callable[[Record], None] | None = None
        self.wants: Callable[[Key], bool] | None = None

    @property
    def shards(self) -> int:
        return len(self._shards)

    def subscribe(self, observer: Callable[[Record], None]) -> None:
        self._observers = (*self._observers, observer)

    def change(
        self, shard: int, key: Key, old: Item | None, new: Item | None, at_ms: int, by_ttl: bool
    ) -> tuple[Record, bool] | None:
        """Takes up one change. Returns what `announce` needs; None when nobody wants to hear of it."""
        wants = self.wants
        kept = wants is None or wants(key)
        if not kept and not self._observers:
            return None
        place = self._shards[shard]
        record = Record(shard, place.next_seq, key, old, new, at_ms, by_ttl)
        place.next_seq += 1
        if kept:
            place.records.append(record)
        return record, kept

    def announce(self, record: Record, kept: bool) -> None:
        """Tells observers, then whoever reads the stream."""
        for observer in self._observers:
            observer(record)
        if kept and self.on_record is not None:
            self.on_record(record)

    def read(self, shard: int, position: int, limit: int = 1000) -> tuple[list[Record], int]:
        """Up to `limit` records from `position` on, and the position after them. Raises TrimmedHorizon."""
        place = self._shards[shard]
        if position < place.horizon:
            raise TrimmedHorizon(shard, position, place.horizon)
        first = place.index(position)
        records = place.records[first : first + limit]
        if first + len(records) < len(place.records):
            return records, records[-1].seq + 1 if records else position
        return records, max(position, place.next_seq)

    def horizon(self, shard: int) -> int:
        """The lowest position that can be read."""
        return self._shards[shard].horizon

    def latest(self, shard: int) -> int:
        """The position of the next record that will be written."""
        return self._shards[shard].next_seq

    def trim(self, shard: int, before_seq: int) -> int:
        """Drops every record below `before_seq`; returns how many."""
        place = self._shards[shard]
        return place.drop(place.index(before_seq), min(before_seq, place.next_seq))

    def trim_older(self, before_ms: int) -> int:
        """Drops, in every shard, the records committed before `before_ms`; returns how many."""
        return sum(self._drop_aged(place, before_ms, place.next_seq) for place in self._shards)

    def release(self, shard: int, passed_seq: int, now_ms: int) -> int:
        """Drops what all readers have passed (below `passed_seq`) and no replay may ask for again (`retain_ms`)."""
        return self._drop_aged(self._shards[shard], now_ms - self.retain_ms, passed_seq)

    def count(self) -> int:
        """Records held now."""
        return sum(len(place.records) - place.start for place in self._shards)

    @staticmethod
    def _drop_aged(place: _Shard, before_ms: int, before_seq: int) -> int:
        records = place.records
        if place.start == len(records) or records[place.start].at_ms >= before_ms:
            return 0
        aged = bisect_left(records, before_ms, lo=place.start, key=_AT)
        index = min(aged, place.index(before_seq))
        if index == place.start:
            return 0
        return place.drop(index, records[index - 1].seq + 1)
