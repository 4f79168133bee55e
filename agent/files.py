"""Opens the connection that a Database is given: one SQLite file, or memory. Knows about pragmas."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Final

MEMORY: Final = ":memory:"
_STATEMENTS: Final = 12  # about those of the path of every message; each costs about 3 KB: a fleet of devices feels it


def open_file(path: str | Path) -> sqlite3.Connection:
    """A durable connection: write-ahead log, and every commit reaches the disk before it returns.

    Raises sqlite3.DatabaseError when the file is no database."""
    connection = sqlite3.connect(path, isolation_level=None, cached_statements=_STATEMENTS, check_same_thread=False)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA busy_timeout=5000")
    return connection


def open_memory(page_size_bytes: int = 1024) -> sqlite3.Connection:
    """A database in memory, small enough to have ten thousand of them: small pages hold a fleet's small items."""
    connection = sqlite3.connect(MEMORY, isolation_level=None, cached_statements=_STATEMENTS, check_same_thread=False)
    connection.execute(f"PRAGMA page_size={page_size_bytes}")
    return connection
