"""The tables of the device's file: made once, upgraded from older versions, recognised before anything is read.

Tables: `item` (the base: what the cloud said, and local-only items), `outbox` (own operations on top of it, which are
also the tombstones: a pending delete hides the base until the feed shows it), `cursor` (one row a feed), `identity`
(one row), `dead_letter` (operations that the relay rejected, rows that could not be applied), `item_index` (where items
stand in what agent.indexing lists), `note` (what the agent remembers about the file: see agent.evolving).
Called by agent.store.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from functools import cache
from typing import Any, Final

from agent.file_errors import StoreError, newer_version, other_application

SCHEMA_VERSION: Final = 2
APPLICATION_ID: Final = 0x466C6565  # "Flee", in the header of the file: other applications' files have another
Execute = Callable[..., sqlite3.Cursor]
_copying: Final = threading.Lock()

# Since version 2. Sorted as they are read; no row of its own besides the key.
_INDEX: Final = "(name TEXT NOT NULL, hash NOT NULL, sort NOT NULL, pk TEXT NOT NULL, sk TEXT NOT NULL, \
PRIMARY KEY(name, hash, sort, pk, sk)) WITHOUT ROWID"
_SINCE_2: Final = f"""
CREATE TABLE item_index{_INDEX};
CREATE TABLE note(name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
PRAGMA user_version={SCHEMA_VERSION};
"""
_TABLES: Final = f"""
CREATE TABLE item(pk TEXT NOT NULL, sk TEXT NOT NULL, image BLOB NOT NULL, updated INTEGER NOT NULL, rejected TEXT,
    PRIMARY KEY(pk, sk));
CREATE TABLE outbox(n INTEGER PRIMARY KEY, u INTEGER NOT NULL, epoch TEXT NOT NULL, pk TEXT NOT NULL, sk TEXT NOT NULL,
    kind TEXT NOT NULL, image BLOB, updated INTEGER NOT NULL, id TEXT NOT NULL, state INTEGER NOT NULL,
    seen INTEGER NOT NULL, due_ms INTEGER NOT NULL DEFAULT 0);
CREATE INDEX outbox_key ON outbox(pk, sk);
CREATE TABLE cursor(feed TEXT PRIMARY KEY, epoch TEXT NOT NULL, seq INTEGER NOT NULL, models TEXT NOT NULL)
    WITHOUT ROWID;
CREATE TABLE identity(one INTEGER PRIMARY KEY, epoch TEXT NOT NULL, adopted INTEGER NOT NULL, replaces TEXT,
    acked_u INTEGER NOT NULL, acked_id TEXT, correction_ms INTEGER);
CREATE TABLE dead_letter(n INTEGER PRIMARY KEY, at_ms INTEGER NOT NULL, pk TEXT NOT NULL, sk TEXT NOT NULL,
    kind TEXT NOT NULL, image BLOB, updated INTEGER NOT NULL, code TEXT NOT NULL);
PRAGMA application_id={APPLICATION_ID};
{_SINCE_2}"""
_FROM_1: Final = f"ALTER TABLE outbox ADD COLUMN due_ms INTEGER NOT NULL DEFAULT 0;{_SINCE_2}"

# Of items that are kept in memory only: the same tables, gone with the connection. The pages of both are read as one.
_IN_MEMORY: Final = f"""
PRAGMA temp_store=MEMORY;
DROP VIEW IF EXISTS every_item;
DROP TABLE IF EXISTS temp.mem_item;
DROP TABLE IF EXISTS temp.mem_index;
CREATE TEMP TABLE mem_item(pk TEXT NOT NULL, sk TEXT NOT NULL, image BLOB NOT NULL, updated INTEGER NOT NULL,
    rejected TEXT, PRIMARY KEY(pk, sk)) WITHOUT ROWID;
CREATE TEMP TABLE mem_index{_INDEX};
CREATE TEMP VIEW every_item AS SELECT pk, sk, image FROM item UNION ALL SELECT pk, sk, image FROM mem_item;
"""


def version_of(execute: Execute) -> int:
    """0: the file is empty. Raises StoreError when it is something else than a database of this agent."""
    try:
        # One by one: a connection keeps the tables that pragmas can be read as (pragma_user_version) while it lives.
        # The tables come first: their reader waits for its lock as any other, and leaves none behind if it gets none.
        tables: int = execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        version: int = execute("PRAGMA user_version").fetchone()[0]
        if version == 0 and tables == 0:
            return 0
        application: int = execute("PRAGMA application_id").fetchone()[0]
    except sqlite3.DatabaseError as error:
        raise StoreError(f"not a database: {error}", "name another file") from None
    if application != APPLICATION_ID:
        raise other_application()
    if not 1 <= version <= SCHEMA_VERSION:
        raise newer_version(version, SCHEMA_VERSION)
    return version


def make(connection: sqlite3.Connection, execute: Execute, fill: Callable[[], Any]) -> None:
    """The tables of a new file and their first rows, in one transaction. In memory, where nothing outlives a failure,
    the tables come page by page from a database that has them: a fleet in one process makes thousands."""
    _run(connection, execute, "" if _has_copied(connection) else _TABLES, fill)


def _has_copied(connection: sqlite3.Connection) -> bool:
    if any(file for _, _, file in connection.execute("PRAGMA database_list").fetchall()):
        return False
    with _copying:
        try:
            _empty(connection.execute("PRAGMA page_size").fetchone()[0]).backup(connection)
        except sqlite3.OperationalError:  # no room for the pages: making the tables says so in SQLite's words
            return False
    return True


@cache
def _empty(page_size_bytes: int) -> sqlite3.Connection:
    """A database in memory that has the tables and no rows."""
    made = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    made.execute(f"PRAGMA page_size={page_size_bytes}")
    _run(made, made.execute, _TABLES, lambda: None)
    return made


def upgrade(connection: sqlite3.Connection, execute: Execute) -> None:
    """From version 1, in one transaction."""
    _run(connection, execute, _FROM_1, lambda: None)


def _run(connection: sqlite3.Connection, execute: Execute, script: str, fill: Callable[[], Any]) -> None:
    try:
        connection.executescript("BEGIN IMMEDIATE;" + script)
        fill()
        execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.rollback()
        raise


def make_in_memory(connection: sqlite3.Connection) -> None:
    """Empty tables for the items that are kept in memory, in place of those of an earlier boot."""
    connection.executescript(_IN_MEMORY)


def prefix_end(prefix: str) -> str | bytes:
    """The least value above every text that begins with `prefix` (SQLite compares UTF-8 bytes, which is the order of
    code points). Above every text there is: an empty blob."""
    for i in range(len(prefix) - 1, -1, -1):
        point = ord(prefix[i]) + 1
        if point <= 0x10FFFF:
            return prefix[:i] + chr(0xE000 if point == 0xD800 else point)  # no surrogates
    return b""
