"""When items expire, and in which order they are swept: the part of time-to-live that does not depend on the table.

Keeps a heap of (ttl, pk, sk), of which an entry is void once its item has another ttl or none. Deletes nothing, reads
no clock, draws nothing itself. Called by `cloud.memory` and by the simulator's tables on emulators, which sweep alike.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable

from cloud.table import Item, Key


class Expiry:
    """`heap` is open to whoever pushes at every write and cannot spare a call."""

    __slots__ = ("_due", "_ttl", "heap")

    def __init__(self, ttl_attribute: str) -> None:
        self.heap: list[tuple[float, str, str]] = []
        self._due: list[tuple[float, str, str]] = []
        self._ttl = ttl_attribute

    def note(self, key: Key, item: Item) -> None:
        """An item has been written."""
        ttl = item.get(self._ttl)
        if ttl.__class__ is int or ttl.__class__ is float:
            heapq.heappush(self.heap, (ttl, *key))

    def clear(self) -> None:
        """Every item is gone."""
        self.heap.clear()
        self._due.clear()

    def take(self, now_ms: int, limit: int, pick: Callable[[int], int] | None) -> list[tuple[float, Key]]:
        """At most `limit` entries that are due, in the order that `pick(n)` (an index below n) gives: (ttl, key)."""
        now_s = now_ms / 1000
        heap, due = self.heap, self._due
        while heap and heap[0][0] < now_s:
            due.append(heapq.heappop(heap))
        taken = []
        for _ in range(min(limit, len(due))):
            index = pick(len(due)) if pick is not None else 0
            due[index], due[-1] = due[-1], due[index]
            ttl, pk, sk = due.pop()
            taken.append((ttl, (pk, sk)))
        return taken

    def holds(self, item: Item | None, ttl: float) -> bool:
        """Whether an entry's item is still there, and is still the one that expires then."""
        return item is not None and bool(item.get(self._ttl) == ttl)

    def waiting(self, now_ms: int) -> bool:
        """Whether `take` has something to give."""
        return bool(self._due) or bool(self.heap and self.heap[0][0] < now_ms / 1000)

    def next_ms(self) -> int | None:
        """When the next item will have expired; None when no item will."""
        if self._due:
            return 0
        return int(self.heap[0][0] * 1000) + 1 if self.heap else None
