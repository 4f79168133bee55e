"""A memory table that keeps a bill: the read and write units that DynamoDB would count, per kind of request.

Answers as `cloud.memory` does, in the same order and with the same records; measuring every item costs several times
what the table itself does, hence apart. Called where units or cost are reported, and by the protocol's cost tests.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from cloud.memory import MemoryTable
from cloud.memory_stream import RETAIN_MS
from cloud.table import (
    BatchGet,
    Cancelled,
    Check,
    ConditionFailed,
    Delete,
    Get,
    Item,
    Page,
    Put,
    Query,
    TableRequest,
    Transact,
    Update,
)
from cloud.table_rules import key_of, updated
from cloud.units import item_bytes, read_units, write_units

TRANSACTION_FACTOR = 2  # prepare and commit


class MeteredTable(MemoryTable):
    """`read_units`, `write_units`: by the name of the request's class. A failed condition costs, a refused request not.

    An item swept by the service costs nothing."""

    def __init__(self, *, shards: int = 4, retain_ms: int = RETAIN_MS, ttl_attribute: str = "ttl") -> None:
        super().__init__(shards=shards, retain_ms=retain_ms, ttl_attribute=ttl_attribute)
        self.read_units: Counter[str] = Counter()
        self.write_units: Counter[str] = Counter()

    def execute(self, request: TableRequest, now_ms: int) -> Any:
        """As MemoryTable's."""
        kind = type(request).__name__
        if isinstance(request, Get | BatchGet | Query):
            answer = super().execute(request, now_ms)
            self.read_units[kind] += self.reading(request, answer)
            return answer
        before = self.sizes(request)
        try:
            answer = super().execute(request, now_ms)
        except (ConditionFailed, Cancelled):
            self.write_units[kind] += self.writing(request, before)
            raise
        self.write_units[kind] += self.writing(request, before)
        return answer

    def sizes(self, request: Put | Delete | Update | Transact) -> list[tuple[int, int]]:
        """(bytes before, bytes after) of each action."""
        actions = request.actions if isinstance(request, Transact) else (request,)
        return [self.size(action) for action in actions]

    def size(self, action: Put | Delete | Update | Check) -> tuple[int, int]:
        old = self.peek(key_of(action.item) if isinstance(action, Put) else action.key)
        if isinstance(action, Put):
            return _bytes(old), item_bytes(action.item)
        return _bytes(old), _bytes(updated(action, old)) if isinstance(action, Update) else 0

    @staticmethod
    def writing(request: Put | Delete | Update | Transact, sizes: list[tuple[int, int]]) -> int:
        units = sum(write_units(before, after) for before, after in sizes)
        return units * TRANSACTION_FACTOR if isinstance(request, Transact) else units

    @staticmethod
    def reading(request: Get | BatchGet | Query, answer: Any) -> int:
        """Of strong reads. A query pays for what it read together, a batch for each item, found or not."""
        if isinstance(request, Get):
            return read_units(_bytes(answer))
        if isinstance(request, BatchGet):
            return sum(read_units(_bytes(answer.get(key))) for key in request.keys)
        page: Page = answer
        return read_units(sum(map(item_bytes, page.items)))


def _bytes(item: Item | None) -> int:
    return 0 if item is None else item_bytes(item)
