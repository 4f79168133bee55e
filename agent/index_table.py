"""Where items stand in the indexes of the schema, as a table of the device's file: one row for each item and index.

Says nothing of what an index is: agent.indexing does. Its rows change in the transaction of the item. A schema without
indexes, lives and unique values has no rows, and no statement is ever run for them. Called by Database and Replica
through agent.indexing.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection
from functools import cache
from typing import Final, NamedTuple

from agent.protocol.messages import Key
from agent.protocol.onetable.indexes import Scalar

Entry = tuple[str, Scalar, Scalar]  # (name of the index, hash value, sort value)
Place = tuple[Scalar, str, str]  # (sort value, pk, sk): in this order items stand in an index
END_OF_LIFE: Final = "ttl"  # the index of lives: sorted by seconds since 1970

# Numbers before text before blobs, as SQLite compares; b"" is above every text.
LEAST: Final = -9.9e999
MOST: Final = b""


class _Statements(NamedTuple):
    """Of one table. Made once for all files: a fleet in one process has thousands."""

    insert: str
    delete: str
    first: str
    due: str
    page: str
    page_down: str


@cache
def _statements(table: str) -> _Statements:
    where = "name=? AND hash=?"
    between = f"{where} AND sort>=? AND sort<? AND (sort, pk, sk)"
    return _Statements(
        f"INSERT OR REPLACE INTO {table} VALUES(?, ?, ?, ?, ?)",
        f"DELETE FROM {table} WHERE {where} AND sort=? AND pk=? AND sk=?",
        f"SELECT min(sort) FROM {table} WHERE {where}",
        f"SELECT pk, sk FROM {table} WHERE {where} AND sort<=? ORDER BY sort, pk, sk LIMIT ?",
        f"SELECT sort, pk, sk FROM {table} WHERE {between}>(?, ?, ?) ORDER BY sort, pk, sk LIMIT ?",
        f"SELECT sort, pk, sk FROM {table} WHERE {between}<(?, ?, ?) ORDER BY sort DESC, pk DESC, sk DESC LIMIT ?",
    )


class IndexTable:
    """One table of such rows. `next_end_s`: when the first item's life ends, in seconds since 1970; None: never."""

    __slots__ = ("_execute", "_sql", "next_end_s", "table")

    def __init__(self, execute: Callable[[], Callable[..., sqlite3.Cursor]], table: str) -> None:
        """`execute`: gives what runs a statement, which may change."""
        self._execute = execute
        self.table = table
        self.next_end_s: int | None = None
        self._sql = _statements(table)

    def load(self) -> None:
        self.next_end_s = self._execute()(self._sql.first, (END_OF_LIFE, "")).fetchone()[0]

    def move(self, key: Key, before: Collection[Entry], after: Collection[Entry]) -> None:
        """An item that stood at `before` stands at `after`. In the transaction of the item."""
        run = self._execute()
        for entry in before:
            if entry not in after:
                run(self._sql.delete, (*entry, *key))
        for entry in after:
            if entry not in before:
                run(self._sql.insert, (*entry, *key))
                end_s = entry[2]
                if entry[0] == END_OF_LIFE and isinstance(end_s, int):
                    self.next_end_s = end_s if self.next_end_s is None else min(end_s, self.next_end_s)

    def page(
        self,
        name: str,
        hash_value: Scalar,
        between: tuple[Scalar, Scalar | bytes],
        after: tuple[Scalar | bytes, str | bytes, str | bytes] | None,
        limit: int,
        *,
        reverse: bool = False,
    ) -> list[Place]:
        """Of one index and hash value the items whose sort value lies in [between), in order and beyond `after`."""
        if reverse:
            sql, start = self._sql.page_down, after or (MOST, MOST, MOST)
        else:
            sql, start = self._sql.page, after or (LEAST, "", "")
        return self._execute()(sql, (name, hash_value, *between, *start, limit)).fetchall()

    def due(self, now_s: int, limit: int) -> list[Key]:
        """Items whose lives have ended, the first to end first."""
        return self._execute()(self._sql.due, (END_OF_LIFE, "", now_s, limit)).fetchall()

    def owner(self, name: str, hash_value: Scalar) -> list[Key]:
        """All items at one hash value: of a unique one, who has it."""
        return [(pk, sk) for _, pk, sk in self.page(name, hash_value, (LEAST, MOST), None, 2)]

    def entries(self) -> list[tuple[Entry, Key]]:
        """Everything, to be checked."""
        rows = self._execute()(f"SELECT name, hash, sort, pk, sk FROM {self.table} ORDER BY 1, 2, 3, 4, 5")
        return [((name, hash_value, sort), (pk, sk)) for name, hash_value, sort, pk, sk in rows]

    def clear(self) -> None:
        self._execute()(f"DELETE FROM {self.table}")
        self.next_end_s = None
