"""The parts of the memory table below its requests: sizes, and one hash key's items.

A pure function and a container; they never raise anything but InvalidRequest. Called by `cloud.memory`.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right

import msgspec

from cloud.table import ITEM_BYTES_MAX, InvalidRequest, Item, Query
from cloud.units import item_bytes

_encode = msgspec.json.Encoder().encode


def _after_prefix(prefix: str) -> str | None:
    """The least string above all that begin with `prefix`; None when there is no such string."""
    kept = prefix.rstrip("\U0010ffff")
    return kept[:-1] + chr(ord(kept[-1]) + 1) if kept else None


class Partition:
    """The items of one hash key. `keys[start:]` are its sort keys in order (code points, which is UTF-8's byte order):
    appending at the end and deleting at the front, what a log does, are cheap."""

    __slots__ = ("items", "keys", "shard", "start")

    def __init__(self, shard: int) -> None:
        self.items: dict[str, Item] = {}
        self.keys: list[str] = []
        self.start = 0
        self.shard = shard

    def insert(self, sk: str) -> None:
        keys = self.keys
        if len(keys) == self.start or sk > keys[-1]:
            keys.append(sk)
        else:
            keys.insert(bisect_left(keys, sk, lo=self.start), sk)

    def remove(self, sk: str) -> None:
        keys = self.keys
        if keys[self.start] == sk:
            self.start += 1
            if self.start > 64 and self.start * 2 > len(keys):
                del keys[: self.start]
                self.start = 0
        elif keys[-1] == sk:
            keys.pop()
        else:
            del keys[bisect_left(keys, sk, lo=self.start)]

    def span(self, request: Query) -> range:
        """Indexes into `keys` of what a query may see, in the query's order."""
        keys, first, last = self.keys, self.start, len(self.keys)
        if request.prefix:
            first = bisect_left(keys, request.prefix, lo=first)
            end = _after_prefix(request.prefix)
            if end is not None:
                last = bisect_left(keys, end, lo=first)
        if request.after is not None:
            if request.reverse:
                last = min(last, bisect_left(keys, request.after, lo=self.start))
            else:
                first = max(first, bisect_right(keys, request.after, lo=self.start))
        return range(last - 1, first - 1, -1) if request.reverse else range(first, last)


def measure(item: Item) -> int:
    """An upper bound of the item's size; the exact size only for the few items near the limit.

    JSON is never much shorter than the service's own count (single digits, empty lists and maps differ by a byte or
    two), and encoding in C costs a fraction of counting in Python. What can't be encoded can't be stored."""
    try:
        size = len(_encode(item)) + 64
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InvalidRequest(f"item cannot be stored: {error}") from None
    return size if size * 2 < ITEM_BYTES_MAX else item_bytes(item)
