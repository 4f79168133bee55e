"""The Stream port: what a reader of the table's change stream asks for, as plain data, and how it is answered.

Like `cloud.table`, for generators: they yield these requests, a driver executes them (`cloud.dynamodb_streams`, or a
scripted stream in tests) and sends the answer in or throws one of the errors. Nothing here does I/O.

A stream is a tree of shards. A shard that is closed gets no more records, and its children go on with its items: they
must not be read before it has been read to its end. A place in a shard is a sequence number, a text of digits.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Final

import msgspec

from cloud.table import Key, Record, Request, TableError

RECORDS_MAX: Final = 1000  # of one ReadRecords
START: Final = "START"  # a checkpoint: nothing of the shard has been done
END: Final = "END"  # a checkpoint: the shard is closed, and all of it has been done


class ListShards(msgspec.Struct, frozen=True, gc=False):
    """One page of the stream's shards, those after `after`. Answer: ShardPage."""

    after: str | None = None


class Shard(msgspec.Struct, frozen=True, gc=False):
    """`parent` may be so old that the stream no longer lists it."""

    id: str
    parent: str | None = None
    closed: bool = False


class ShardPage(msgspec.Struct, frozen=True, gc=False):
    shards: tuple[Shard, ...]
    after: str | None  # pass on in the next ListShards; None: that was the last page


class OpenShard(msgspec.Struct, frozen=True, gc=False):
    """A place to read from: after a sequence number, or (None) from the oldest record there is. Answer: an iterator.

    Raises TrimmedData and ShardGone."""

    shard: str
    after: str | None = None


class ReadRecords(msgspec.Struct, frozen=True, gc=False):
    """Answer: RecordPage. Raises IteratorExpired and TrimmedData."""

    iterator: str
    limit: int = RECORDS_MAX


class Change(msgspec.Struct, frozen=True, gc=False):
    """One record of a shard. `record` None: it concerns no reader (private), or it cannot be read (`problem`)."""

    seq: str
    key: Key
    at_ms: int
    record: Record | None
    problem: str = ""


class RecordPage(msgspec.Struct, frozen=True, gc=False):
    changes: tuple[Change, ...]
    next: str | None  # the iterator to go on with; None: the shard is closed, and that was the last of it


class Pause(msgspec.Struct, frozen=True, gc=False):
    """Not for the stream: let this time pass. Answer: None."""

    ms: int


StreamRequest = ListShards | OpenShard | ReadRecords
Step = Request | StreamRequest | Pause
Steps = Generator[Step, Any, Any]  # what a driver of readers runs
LOST_HINT: Final = "changes may be in no feed: `fleet-cloud restore-mark` makes every device fetch its feeds anew"


class StreamError(TableError):
    """Base of what a stream answers besides the table's own errors (Throttled, Unavailable)."""


class IteratorExpired(StreamError):
    """An iterator lives for a quarter of an hour: open the shard again."""


class TrimmedData(StreamError):
    """The place is older than the oldest record that the stream still has."""


class ShardGone(StreamError):
    """The stream has no such shard any more."""
