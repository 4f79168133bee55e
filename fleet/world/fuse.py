"""A power cut at a chosen statement of the device's database: the store's `execute` blows after so many statements.

Nothing of an interrupted transaction is kept, as on a disk that was synced at every commit. Used by the simulated
device.
"""

from __future__ import annotations

import sqlite3
from typing import Any

from agent.store import Store


class PowerCutError(BaseException):
    """The device has no power. No code of the agent may catch it: it is no Exception."""


def arm(store: Store, statements: int) -> None:
    """The power fails when `statements` more have run: before the next one begins."""
    execute = store.execute
    left = statements

    def count(sql: str, values: Any = ()) -> sqlite3.Cursor:
        nonlocal left
        if left <= 0:
            store.execute = execute
            raise PowerCutError
        left -= 1
        return execute(sql, values)

    store.execute = count


def blow(store: Store) -> None:
    """The power is off: nothing reads or writes through this store any more."""

    def fail(sql: str, values: Any = ()) -> sqlite3.Cursor:
        raise PowerCutError

    store.execute = fail


def disarm(store: Store) -> None:
    """The fuse did not blow."""
    store.execute = store.connection.cursor().execute
