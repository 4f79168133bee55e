"""The table in memory: executes the requests of `cloud.table` as DynamoDB would, with its limits and its change stream.

It never reads a clock, never sleeps and never copies an item: items are shared by reference and must not be changed.
Time-to-live deletes nothing by itself: `sweep` does, as late and in any order as the caller likes, as the service may.
Called by the simulator, by tests, and by `cloud.drive` where a whole relay runs in one process.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any
from zlib import crc32

from cloud.expiry import Expiry
from cloud.memory_items import Partition, measure
from cloud.memory_stream import RETAIN_MS, ChangeStream
from cloud.table import (
    ACTIONS_MAX,
    BATCH_KEYS_MAX,
    ITEM_BYTES_MAX,
    PAGE_BYTES_MAX,
    PRIVATE_PREFIX,
    TRANSACTION_BYTES_MAX,
    BatchGet,
    Cancelled,
    Check,
    ConditionFailed,
    Delete,
    Get,
    InvalidRequest,
    Item,
    Key,
    Page,
    Put,
    Query,
    Record,
    TableRequest,
    Transact,
    Update,
)
from cloud.table_rules import check_key, holds, key_of, same, updated
from cloud.units import item_bytes


class MemoryTable:
    """One table. `ttl_attribute` holds epoch seconds. Every method is atomic: callers interleave between calls only."""

    def __init__(self, *, shards: int = 4, retain_ms: int = RETAIN_MS, ttl_attribute: str = "ttl") -> None:
        self.stream = ChangeStream(shards, retain_ms)
        self._partitions: dict[str, Partition] = {}
        self._shards = shards
        self._ttl = ttl_attribute
        self._expiry = Expiry(ttl_attribute)
        self._expiring = self._expiry.heap
        self._handlers: dict[type, Callable[[Any, int], Any]] = {
            Get: self._get,
            Transact: self._transact,
            Put: self._put,
            Query: self._query,
            Update: self._update,
            Delete: self._delete,
            BatchGet: self._batch_get,
        }

    def execute(self, request: TableRequest, now_ms: int) -> Any:
        """The answer to a request as `cloud.table` states it. Raises ConditionFailed, Cancelled, InvalidRequest."""
        handler = self._handlers.get(request.__class__)
        if handler is None:
            raise InvalidRequest(f"{request.__class__.__name__} is no request of a table")
        return handler(request, now_ms)

    # The stream, as readers use it (see ChangeStream).

    @property
    def on_record(self) -> Callable[[Record], None] | None:
        return self.stream.on_record

    @on_record.setter
    def on_record(self, reader: Callable[[Record], None] | None) -> None:
        self.stream.on_record = reader

    def subscribe(self, observer: Callable[[Record], None]) -> None:
        """`observer` is told of every change of every item, private ones too, at commit."""
        self.stream.subscribe(observer)

    def read(self, shard: int, position: int, limit: int = 1000) -> tuple[list[Record], int]:
        return self.stream.read(shard, position, limit)

    def trim(self, shard: int, before_seq: int) -> int:
        return self.stream.trim(shard, before_seq)

    def shard_of(self, pk: str) -> int:
        return crc32(pk.encode("utf-8", "surrogatepass")) % self._shards

    # Looking at the whole table: for an oracle and for tests, never for a relay.

    def peek(self, key: Key) -> Item | None:
        partition = self._partitions.get(key[0])
        return None if partition is None else partition.items.get(key[1])

    def scan(self, *, private: bool = False) -> Iterator[Item]:
        """Every item, grouped by hash key, in order of the sort key; with `private` those of the relay too."""
        for pk, partition in self._partitions.items():
            if private or not pk.startswith(PRIVATE_PREFIX):
                for sk in partition.keys[partition.start :]:
                    yield partition.items[sk]

    def count(self) -> int:
        return sum(len(partition.items) for partition in self._partitions.values())

    # Backup and restore.

    def backup(self) -> list[Item]:
        """Every item as it is now, those of the relay too."""
        return list(self.scan(private=True))

    def restore(self, items: Iterable[Item]) -> None:
        """The table holds these items and no others. Its stream tells nothing of it, and what it held is gone: as with
        a table that was restored under its old name."""
        self._partitions.clear()
        self._expiry.clear()
        for item in items:
            pk, sk = key_of(item)
            partition = self._partitions.get(pk)
            if partition is None:
                partition = self._partitions[pk] = Partition(self.shard_of(pk))
            partition.insert(sk)
            partition.items[sk] = item
            self._expiry.note((pk, sk), item)
        for shard in range(self._shards):
            self.stream.trim(shard, self.stream.latest(shard))

    def put_back(self, key: Key, item: Item | None) -> None:
        """One item that is there is another from now on, or gone, and the stream tells nothing of it."""
        pk, sk = key
        partition = self._partitions[pk]
        if item is not None:
            partition.items[sk] = item
            self._expiry.note(key, item)
            return
        del partition.items[sk]
        if partition.items:
            partition.remove(sk)
        else:
            del self._partitions[pk]

    # Requests.

    def _get(self, request: Get, now_ms: int) -> Item | None:
        partition = self._partitions.get(request.key[0])
        return None if partition is None else partition.items.get(request.key[1])

    def _batch_get(self, request: BatchGet, now_ms: int) -> dict[Key, Item]:
        if not 0 < len(request.keys) <= BATCH_KEYS_MAX:
            raise InvalidRequest(f"{len(request.keys)} keys, 1 to {BATCH_KEYS_MAX} in a batch")
        if len(set(request.keys)) < len(request.keys):
            raise InvalidRequest("a key twice in a batch")
        found = ((key, self.peek(key)) for key in request.keys)
        return {key: item for key, item in found if item is not None}

    def _query(self, request: Query, now_ms: int) -> Page:
        limit = request.limit
        if limit is not None and limit < 1:
            raise InvalidRequest(f"limit {limit}, at least 1")
        partition = self._partitions.get(request.pk)
        if partition is None:
            return Page((), None)
        keys, items = partition.keys, partition.items
        if limit == 1:  # the log's tail: asked for at every append
            span = partition.span(request)
            return Page((items[keys[span[0]]],), keys[span[0]]) if span else Page((), None)
        found: list[Item] = []
        size_bytes = 0
        for index in partition.span(request):
            item = items[keys[index]]
            found.append(item)
            size_bytes += item_bytes(item)
            if len(found) == limit or size_bytes >= PAGE_BYTES_MAX:
                return Page(tuple(found), keys[index])
        return Page(tuple(found), None)

    def _put(self, request: Put, now_ms: int) -> None:
        item = request.item
        key = key_of(item)
        if measure(item) > ITEM_BYTES_MAX:
            raise InvalidRequest(f"item of {item_bytes(item)} bytes, at most {ITEM_BYTES_MAX}")
        if request.condition and not holds(request.condition, self.peek(key)):
            raise ConditionFailed
        self._change(key, item, now_ms)

    def _delete(self, request: Delete, now_ms: int) -> None:
        check_key(request.key)
        if request.condition and not holds(request.condition, self.peek(request.key)):
            raise ConditionFailed
        self._change(request.key, None, now_ms)

    def _update(self, request: Update, now_ms: int) -> None:
        check_key(request.key)
        old = self.peek(request.key)
        new = updated(request, old)
        if request.condition and not holds(request.condition, old):
            raise ConditionFailed
        if measure(new) > ITEM_BYTES_MAX:
            raise InvalidRequest(f"item of {item_bytes(new)} bytes, at most {ITEM_BYTES_MAX}")
        self._change(request.key, new, now_ms)

    def _transact(self, request: Transact, now_ms: int) -> None:
        """All conditions first, then all changes, then the news of them."""
        actions = request.actions
        if not 0 < len(actions) <= ACTIONS_MAX:
            raise InvalidRequest(f"{len(actions)} actions, 1 to {ACTIONS_MAX} in a transaction")
        changes: dict[Key, Item | None] = {}
        checked: list[Key] = []
        reasons: list[str | None] = [None] * len(actions)
        cancelled = False
        size_bytes = 0
        for index, action in enumerate(actions):
            new: Item | None = None
            if action.__class__ is Put:
                new = action.item
                key = key_of(new)
                old = self.peek(key) if action.condition else None
            else:
                key = action.key
                check_key(key)
                old = self.peek(key)
                if action.__class__ is Update:
                    new = updated(action, old)
            if action.condition and not holds(action.condition, old):
                reasons[index] = "condition"
                cancelled = True
            elif new is not None:
                size = measure(new)
                size_bytes += size
                if size > ITEM_BYTES_MAX:
                    reasons[index] = "size"
                    cancelled = True
            if action.__class__ is Check:
                checked.append(key)
            else:
                changes[key] = new
        if len(changes) + len(checked) < len(actions) or (checked and len({*changes, *checked}) < len(actions)):
            raise InvalidRequest("a key twice in a transaction")
        if size_bytes > TRANSACTION_BYTES_MAX:
            raise InvalidRequest(f"{size_bytes} bytes, at most {TRANSACTION_BYTES_MAX} in a transaction")
        if cancelled:
            raise Cancelled(tuple(reasons))
        self._change_all(changes, now_ms)

    def _change_all(self, changes: Mapping[Key, Item | None], now_ms: int) -> None:
        news = [self._apply(key, new, now_ms, False) for key, new in changes.items()]
        for entry in news:
            if entry is not None:
                self.stream.announce(*entry)

    def _change(self, key: Key, new: Item | None, now_ms: int, by_ttl: bool = False) -> None:
        entry = self._apply(key, new, now_ms, by_ttl)
        if entry is not None:
            self.stream.announce(*entry)

    def _apply(self, key: Key, new: Item | None, now_ms: int, by_ttl: bool) -> tuple[Record, bool] | None:
        """Stores a change and hands it to the stream; a write that changes nothing gives no record."""
        pk, sk = key
        partition = self._partitions.get(pk)
        if partition is None:
            if new is None:
                return None
            partition = self._partitions[pk] = Partition(self.shard_of(pk))
        items = partition.items
        old = items.get(sk)
        if new is None:
            if old is None:
                return None
            del items[sk]
            if items:
                partition.remove(sk)
            else:
                del self._partitions[pk]
        else:
            if old is None:
                partition.insert(sk)
            elif old is new or (old == new and same(old, new)):
                return None
            items[sk] = new
            ttl = new.get(self._ttl)  # Expiry.note, without a call
            if ttl.__class__ is int or ttl.__class__ is float:
                heapq.heappush(self._expiring, (ttl, pk, sk))
        return self.stream.change(partition.shard, key, old, new, now_ms, by_ttl)

    # Time to live.

    def sweep(self, now_ms: int, limit: int = 1000, pick: Callable[[int], int] | None = None) -> int:
        """Deletes at most `limit` expired items, in the order that `pick(n)` (an index below n) gives; returns how many
        were deleted. Items that have got a later ttl since are left alone."""
        deleted = 0
        for ttl, key in self._expiry.take(now_ms, limit, pick):
            if self._expiry.holds(self.peek(key), ttl):
                self._change(key, None, now_ms, by_ttl=True)
                deleted += 1
        return deleted

    def expired_waiting(self, now_ms: int) -> bool:
        """Whether `sweep` may find something to delete."""
        return self._expiry.waiting(now_ms)

    def next_expiry_ms(self) -> int | None:
        """When the next item will have expired; None when no item will."""
        return self._expiry.next_ms()
