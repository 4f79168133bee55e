"""What the simulated cloud needs of its table, wherever that is: in memory, or on an emulator (fleet.backends).

No logic. A table's `stream` is filled by the table itself at each write, before `execute` returns: readers and the
oracle see commits in their order, at their virtual time. Used by the layers of fleet.world.cloud and by
fleet.world.world.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

from cloud.memory import MemoryTable
from cloud.memory_stream import ChangeStream
from cloud.table import Item, Key, TableRequest
from fleet.scenario.plan import CloudPlan


class WorldTable(Protocol):
    """As `cloud.memory.MemoryTable`, of which these are a part."""

    stream: ChangeStream

    def execute(self, request: TableRequest, now_ms: int) -> Any: ...
    def scan(self, *, private: bool = False) -> Iterator[Item]: ...
    def sweep(self, now_ms: int, limit: int = 1000, pick: Callable[[int], int] | None = None) -> int: ...
    def expired_waiting(self, now_ms: int) -> bool: ...
    def backup(self) -> list[Item]: ...
    def restore(self, items: Iterable[Item]) -> None: ...
    def put_back(self, key: Key, item: Item | None) -> None: ...


def retain_ms(plan: CloudPlan) -> int:
    """For how long a record of the stream may be asked for: while it lives, and while it may be replayed."""
    return 2 * plan.record_life_us // 1000


def in_memory(plan: CloudPlan) -> MemoryTable:
    return MemoryTable(shards=plan.shards, retain_ms=retain_ms(plan))
