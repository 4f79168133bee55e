"""The parts of the memory table below its requests: equality, conditions, sizes, one hash key's items.

Pure functions and one container; they never raise anything but InvalidRequest. Called by `cloud.memory`.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from cloud.table import ITEM_BYTES_MAX, PK, SK, Condition, InvalidRequest, Item, Key, Query, Update
from cloud.units import item_bytes

PK_BYTES_MAX: Final = 2048
SK_BYTES_MAX: Final = 1024
MISSING: Final = object()
_encode = msgspec.json.Encoder().encode


def same(a: Any, b: Any) -> bool:
    """Equality as the service has it: true is not 1, while 1 and 1.0 are one number."""
    if a.__class__ is b.__class__:
        if isinstance(a, dict):
            return len(a) == len(b) and all(name in b and same(value, b[name]) for name, value in a.items())
        if isinstance(a, list | tuple):
            return len(a) == len(b) and all(map(same, a, b))
        return bool(a == b)
    if isinstance(a, bool) or isinstance(b, bool):
        return False
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return same(dict(a), dict(b))
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return same(list(a), list(b))
    return bool(a == b)


def holds(condition: Condition, item: Item | None) -> bool:
    """Whether every test of a condition holds on an item (None: there is no such item)."""
    if item is None:
        return all(kind == "absent" for kind, _, _ in condition)
    for kind, name, value in condition:
        present = item.get(name, MISSING)
        if kind == "eq":
            if present is MISSING or (present is not value and not same(present, value)):
                return False
        elif (present is MISSING) is (kind == "exists"):
            return False
    return True


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


def updated(request: Update, old: Item | None) -> Item:
    new: dict[str, Any] = {PK: request.key[0], SK: request.key[1]} if old is None else dict(old)
    if PK in request.set or SK in request.set or PK in request.remove or SK in request.remove:
        raise InvalidRequest("an update may not touch the key")
    if request.remove:
        for name in request.remove:
            if name in request.set:
                raise InvalidRequest(f"{name!r} both set and removed")
            new.pop(name, None)
    new.update(request.set)
    return new


def measure(item: Item) -> int:
    """An upper bound of the item's size; the exact size only for the few items near the limit.

    JSON is never much shorter than the service's own count (single digits, empty lists and maps differ by a byte or
    two), and encoding in C costs a fraction of counting in Python. What can't be encoded can't be stored."""
    try:
        size = len(_encode(item)) + 64
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InvalidRequest(f"item cannot be stored: {error}") from None
    return size if size * 2 < ITEM_BYTES_MAX else item_bytes(item)


def key_of(item: Item) -> Key:
    try:
        key = (item[PK], item[SK])
    except KeyError:
        raise InvalidRequest(f"an item without {PK} or {SK}") from None
    check_key(key)
    return key


def check_key(key: Key) -> None:
    pk, sk = key
    if pk.__class__ is not str or sk.__class__ is not str or not pk or not sk:
        raise InvalidRequest("a key attribute must be a string that is not empty")
    if len(pk) + len(sk) > SK_BYTES_MAX // 4:
        sizes = len(pk.encode("utf-8", "surrogatepass")), len(sk.encode("utf-8", "surrogatepass"))
        if sizes[0] > PK_BYTES_MAX or sizes[1] > SK_BYTES_MAX:
            raise InvalidRequest(f"key of {sizes[0]} and {sizes[1]} bytes, at most {PK_BYTES_MAX} and {SK_BYTES_MAX}")
