"""The simulated cloud's table on an emulator of DynamoDB: requests go through the real adapter, at their virtual time.

After each write the emulator's stream is read, and what it tells becomes the records that the world's readers and the
oracle see: with the images of the stream, and with the time, shard and number that the memory table would give them.
The only thing taken from the request itself is which items must have changed, so that a record that does not come is an
error of the run and no silence. Faults of a scenario are made above this table; whatever fails here is no part of a
scenario and ends the run. Made by fleet.backends.opening.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final
from zlib import crc32

from cloud.dynamodb import DynamoTable
from cloud.dynamodb_errors import RAISED, fault_of
from cloud.dynamodb_values import item_of
from cloud.expiry import Expiry
from cloud.memory_stream import ChangeStream
from cloud.table import (
    PRIVATE_PREFIX,
    BatchGet,
    Cancelled,
    Check,
    ConditionFailed,
    Delete,
    Get,
    InvalidRequest,
    Item,
    Key,
    Put,
    Query,
    TableError,
    TableRequest,
    Throttled,
    Transact,
    Update,
    Write,
)
from cloud.table_rules import key_of, same, updated
from fleet.backends.failure import BackendFailed
from fleet.backends.stream import StreamReader, Told

PAUSE_S: Final = 0.02  # between two looks at a stream that lags
LOOKS_MAX: Final = 500
_NOTHING_DONE: Final = (ConditionFailed, Cancelled, InvalidRequest)


class EmulatedTable:
    """One table, empty when it is given. Single-threaded. `wait` takes seconds, of real time; `pause_s`: between two
    looks at the stream."""

    def __init__(
        self,
        client: Any,
        table: DynamoTable,
        reader: StreamReader,
        shards: int,
        *,
        retain_ms: int,
        wait: Callable[[float], None],
        pause_s: float = PAUSE_S,
        ttl_attribute: str = "ttl",
    ) -> None:
        self.stream = ChangeStream(shards, retain_ms)
        self._client = client
        self._table = table
        self._reader = reader
        self._shards = shards
        self._wait = wait
        self._pause_s = pause_s
        self._expiry = Expiry(ttl_attribute)
        self._items: dict[Key, Item] = {}  # as the stream has told them
        self._read()  # what was before the run is not part of it

    def execute(self, request: TableRequest, now_ms: int) -> Any:
        """As MemoryTable's. Raises BackendFailed where the adapter has given up."""
        answer = self._asked(request)
        if not isinstance(request, Get | BatchGet | Query):
            self._follow(request, now_ms)
        return answer

    def peek(self, key: Key) -> Item | None:
        """One item as the stream has told it; asks the emulator nothing."""
        return self._items.get(key)

    # The sweep: the service's own is off, because it would come at moments of real time.

    def sweep(self, now_ms: int, limit: int = 1000, pick: Callable[[int], int] | None = None) -> int:
        """As MemoryTable's. The records say `by_ttl`; only that mark does not come from the stream."""
        deleted = 0
        for ttl, key in self._expiry.take(now_ms, limit, pick):
            if self._expiry.holds(self._asked(Get(key)), ttl):
                request = Delete(key)
                self._asked(request)
                self._follow(request, now_ms, by_ttl=True)
                deleted += 1
        return deleted

    def expired_waiting(self, now_ms: int) -> bool:
        return self._expiry.waiting(now_ms)

    # The final read.

    def scan(self, *, private: bool = False) -> Iterator[Item]:
        """Every item, in order of its key, from the emulator itself; with `private` those of the relay too."""
        found: list[Item] = []
        start: dict[str, Any] = {}
        while True:
            try:
                page = self._client.scan(TableName=self._table.name, ConsistentRead=True, **start)
            except RAISED as error:
                raise BackendFailed(f"reading the whole table: {fault_of(error).error}") from None
            found.extend(map(item_of, page["Items"]))
            if not page.get("LastEvaluatedKey"):
                break
            start = {"ExclusiveStartKey": page["LastEvaluatedKey"]}
        for item in sorted(found, key=key_of):
            if private or not item["pk"].startswith(PRIVATE_PREFIX):
                yield item

    # Backup and restore.

    def backup(self) -> list[Item]:
        """As MemoryTable's."""
        return list(self.scan(private=True))

    def restore(self, items: Iterable[Item]) -> None:
        """As MemoryTable's: items are put back one by one, and what the emulator's stream tells of it is not passed
        on."""
        copy = {key_of(item): item for item in items}
        for key in [*self._items]:
            if key not in copy:
                self._put_back(Delete(key))
        for item in copy.values():
            self._put_back(Put(item))
        for shard in range(self._shards):
            self.stream.trim(shard, self.stream.latest(shard))

    def put_back(self, key: Key, item: Item | None) -> None:
        """As MemoryTable's: what the emulator's stream tells of it is not passed on."""
        self._put_back(Delete(key) if item is None else Put(item))

    def _put_back(self, request: Put | Delete) -> None:
        self._asked(request)
        for key, (_, new) in self._changes(self._wanted(request)).items():
            if new is None:
                self._items.pop(key, None)
            else:
                self._items[key] = new
                self._expiry.note(key, new)

    # Requests and the records of them.

    def _asked(self, request: TableRequest) -> Any:
        try:
            return self._table.execute(request)
        except _NOTHING_DONE:
            raise
        except TableError as error:
            raise BackendFailed(f"{type(request).__name__}: {error}") from None

    def _follow(self, request: Write, now_ms: int, by_ttl: bool = False) -> None:
        """Reads the stream until it has told all that a write changed, and passes it on in the order of the actions:
        the service promises none among the items of a transaction, and a seed has to repeat it."""
        wanted = self._wanted(request)
        changes = self._changes(wanted)
        news = []
        for key in wanted:
            old, new = changes.get(key, (None, None))
            if _equal(old, new):
                continue
            if new is None:
                del self._items[key]
            else:
                self._items[key] = new
                self._expiry.note(key, new)
            shard = crc32(key[0].encode("utf-8", "surrogatepass")) % self._shards
            news.append(self.stream.change(shard, key, old, new, now_ms, by_ttl))
        for entry in news:
            if entry is not None:
                self.stream.announce(*entry)

    def _wanted(self, request: Write) -> dict[Key, bool]:
        """The items that a write touches, in order, and whether the stream has to tell of a change."""
        wanted: dict[Key, bool] = {}
        for action in request.actions if isinstance(request, Transact) else (request,):
            if isinstance(action, Check):
                continue
            key = key_of(action.item) if isinstance(action, Put) else action.key
            old = self._items.get(key)
            new: Item | None = None
            if isinstance(action, Put):
                new = action.item
            elif isinstance(action, Update):
                new = updated(action, old)
            wanted[key] = not _equal(old, new)
        return wanted

    def _changes(self, wanted: dict[Key, bool]) -> dict[Key, tuple[Item | None, Item | None]]:
        """(old, new) by item. One write changes an item once: several records of it (moto gives two for an update that
        creates) are one change, from the first's old image to the last's new one."""
        changes: dict[Key, tuple[Item | None, Item | None]] = {}
        for look in range(LOOKS_MAX):
            if look:
                self._wait(self._pause_s)
                self._reader.look_for_shards()
            for told in self._read():
                if told.key not in wanted:
                    raise BackendFailed(f"the stream tells of {'/'.join(told.key)}, which nobody here has written")
                before = changes.get(told.key)
                changes[told.key] = (told.old if before is None else before[0], told.new)
            if all(key in changes for key, must in wanted.items() if must):
                return changes
        missing = next(key for key, must in wanted.items() if must and key not in changes)
        raise BackendFailed(f"the stream does not tell of {'/'.join(missing)}, which was written")

    def _read(self) -> list[Told]:
        try:
            return self._reader.read()
        except RAISED as error:
            found = fault_of(error).error
            if isinstance(found, Throttled):
                return []  # a shard may be read so many times a second: the next look will tell
            raise BackendFailed(f"reading the stream: {found}") from None


def _equal(old: Item | None, new: Item | None) -> bool:
    if old is None or new is None:
        return old is new
    return same(old, new)
