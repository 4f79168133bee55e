"""Reads one shard: opens it at a place, reads on, and gets over iterators that expire and records that are gone.

A generator of stream requests; it decides nothing about what is read, and knows no lease. Called by whoever holds the
shard's lease, which gives the place to begin at and notes the place that was done.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator
from typing import Any

import msgspec

from cloud.stream import (
    END,
    LOST_HINT,
    START,
    Change,
    IteratorExpired,
    OpenShard,
    ReadRecords,
    RecordPage,
    ShardGone,
    StreamRequest,
    TrimmedData,
)
from cloud.stream_config import StreamConfig
from cloud.stream_work import Tell
from cloud.table import TableError


class Batch(msgspec.Struct, frozen=True, gc=False):
    """What one look at a shard gave. `place`: the checkpoint once all of `changes` is done; END: that was the last of
    the shard. `pause_ms`: to wait before the next look. `problem`: why there was nothing to see."""

    changes: tuple[Change, ...]
    place: str
    pause_ms: int = 0
    problem: str = ""


class ShardReader:
    """`checkpoint`: where to begin, as a lease has it. `counters`: stream_trimmed, stream_shard_gone,
    stream_iterator_expired, stream_read_failed."""

    def __init__(
        self,
        shard: str,
        checkpoint: str,
        config: StreamConfig,
        *,
        chance: Callable[[], float],
        counters: Counter[str],
        tell: Tell,
    ) -> None:
        self.shard = shard
        self.config = config
        self.chance = chance
        self.counters = counters
        self.tell = tell
        self.place = checkpoint
        self._iterator: str | None = None
        self._failures = 0

    def look(self) -> Generator[StreamRequest, Any, Batch]:
        """One look. What can be got over is got over here, and told in the batch; nothing is raised."""
        try:
            if self._iterator is None:
                self._iterator = yield OpenShard(self.shard, None if self.place == START else self.place)
            page: RecordPage = yield ReadRecords(self._iterator, self.config.batch_records)
        except IteratorExpired:
            self.counters["stream_iterator_expired"] += 1
            return self.again("")
        except TrimmedData as error:
            return self.trimmed(error)
        except ShardGone as error:
            self.counters["stream_shard_gone"] += 1
            self.tell("shard-gone", shard=self.shard, place=self.place, reason=str(error), hint=LOST_HINT)
            return Batch((), END)
        except TableError as error:
            self.counters["stream_read_failed"] += 1
            return self.again(f"{type(error).__name__}: {error}")
        self._failures = 0
        self._iterator = page.next
        if page.changes:
            self.place = page.changes[-1].seq
        pause_ms = 0 if page.changes else self.config.poll_ms
        return Batch(page.changes, END if page.next is None else self.place, pause_ms)

    def trimmed(self, error: TrimmedData) -> Batch:
        """Whatever was between the place and the oldest record there is has been lost, or there was nothing: nobody can
        tell. It goes on at the oldest record."""
        self.counters["stream_trimmed"] += 1
        self.tell("records-trimmed", shard=self.shard, place=self.place, reason=str(error), hint=LOST_HINT)
        self.place = START
        return self.again("")

    def again(self, problem: str) -> Batch:
        """The shard is opened anew at the last place that was read; at once the first time, then with back-off."""
        self._iterator = None
        self._failures += 1
        pause_ms = 0 if self._failures == 1 and not problem else self.config.pause_ms(self._failures, self.chance())
        return Batch((), self.place, pause_ms, problem)
