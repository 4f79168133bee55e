"""Opens the connection that a Database is given: one SQLite file, or memory. Knows about pragmas, about who owns the
file, and what SQLite's errors mean to a person.

A file belongs to one process at a time. The lock is on a file of its own beside it (`agent.db-lock`), never on the
database file: a process that closes any descriptor of that file loses the locks that SQLite holds there. The kernel
lets go of it when the process ends, however it ends; the file stays, and what stands in it counts only while the lock
is held. SQLite's own exclusive mode keeps other programs out, which know nothing of our lock.
"""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
from pathlib import Path
from typing import Any, Final, Protocol

from agent.file_errors import DAMAGED_HINT, FileInUseError, StoreError, newer_version, other_application
from agent.store import APPLICATION_ID, SCHEMA_VERSION, Store

MEMORY: Final = ":memory:"
BUSY_MS: Final = 5_000
_STATEMENTS: Final = 10  # those of a write, its acknowledgement and a row; each costs about 4 KB, and a fleet feels it
_MAGIC: Final = b"SQLite format 3\0"
HEADER_BYTES: Final = 100

_RIGHTS: Final = "give the agent's user the right to write the file and its folder"
_MOUNT: Final = "mount it for writing; the system's log says why it is not, where that was not meant"
# SQLite's primary result codes -> what is wrong, and what to do about it. Others are mistakes of a program.
_MEANING: Final[dict[int, tuple[str, str]]] = {
    sqlite3.SQLITE_FULL: ("the disk is full", "nothing was changed; make room, then write again"),
    sqlite3.SQLITE_IOERR: ("the disk failed", "nothing was changed; look at the system's log, then at the disk"),
    sqlite3.SQLITE_READONLY: ("read-only", _RIGHTS),
    sqlite3.SQLITE_PERM: ("no permission", _RIGHTS),
    sqlite3.SQLITE_CANTOPEN: ("cannot be opened", _RIGHTS),
    sqlite3.SQLITE_BUSY: ("in use by a program that is no agent", "close what else has the file open"),
    sqlite3.SQLITE_NOTADB: ("not a database", "name another file"),
    sqlite3.SQLITE_CORRUPT: ("damaged", DAMAGED_HINT),
}
# What a statement of ours meets only when the tables in the file are not as we made them.
_FOREIGN_TABLES: Final = ("no such ", "table ", "malformed ", "Could not decode to UTF-8")


def explained(error: sqlite3.Error | UnicodeDecodeError, path: str) -> Exception:
    """The StoreError that says what `error` means for the file at `path`; `error` itself when it is a program's
    mistake. A UnicodeDecodeError comes where SQLite quotes a damaged part of the file."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    meaning = _MEANING.get(code & 0xFF)
    if isinstance(error, UnicodeDecodeError) or (
        code == sqlite3.SQLITE_ERROR and str(error).startswith(_FOREIGN_TABLES)
    ):
        meaning = _MEANING[sqlite3.SQLITE_CORRUPT]
    if meaning is None:
        return error
    what, hint = meaning
    return StoreError(f"{path}: {what}: {error}" if what not in str(error) else f"{path}: {error}", hint)


class _Cursor(sqlite3.Cursor):
    """Of a file: SQLite's errors come out as StoreError. Memory has the plain one: its disk cannot fail."""

    connection: FileConnection

    def execute(self, sql: str, parameters: Any = (), /) -> _Cursor:
        try:
            _execute(self, sql, parameters)
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise explained(error, self.connection.path) from error
        return self

    def executescript(self, sql_script: str, /) -> _Cursor:
        try:
            super().executescript(sql_script)
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise explained(error, self.connection.path) from error
        return self

    def fetchone(self) -> Any:
        try:
            return super().fetchone()
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise explained(error, self.connection.path) from error

    def fetchall(self) -> list[Any]:
        try:
            return super().fetchall()
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise explained(error, self.connection.path) from error

    def __next__(self) -> Any:
        try:
            return super().__next__()
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise explained(error, self.connection.path) from error


_execute: Final = sqlite3.Cursor.execute


class FileConnection(sqlite3.Connection):
    """A connection that owns its file: until it is closed, nobody else opens it."""

    path = ""
    lock: _Lock | None = None

    def cursor(self, factory: Any = _Cursor) -> Any:
        return super().cursor(factory)

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        cursor: sqlite3.Cursor = self.cursor().execute(sql, parameters)
        return cursor

    def executescript(self, sql_script: str, /) -> sqlite3.Cursor:
        cursor: sqlite3.Cursor = self.cursor().executescript(sql_script)
        return cursor

    def close(self) -> None:
        super().close()
        if self.lock is not None:
            self.lock.release()


class _Lock:
    """Held until it is released or forgotten, or the process ends."""

    __slots__ = ("_descriptor",)

    def __init__(self, path: str) -> None:
        """Takes it, or raises StoreError that names the process that has it."""
        self._descriptor = -1
        beside = f"{path}-lock"
        try:
            descriptor = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _cannot_open(beside, error) from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            owner = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip()
            os.close(descriptor)
            who = f"process {owner}" if owner.isdigit() else "another process"
            if owner == str(os.getpid()):
                who = f"this process ({owner})"
            raise FileInUseError(
                f"{path}: in use by {who}",
                "one process owns a database: ask the agent that runs on it, or stop that one first",
            ) from None
        self._descriptor = descriptor
        try:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        except OSError:
            pass  # a full disk: the lock holds all the same, it only does not say whose it is

    def release(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __del__(self) -> None:
        self.release()


def _cannot_open(path: str, error: OSError) -> StoreError:
    reason = (error.strerror or str(error)).lower()
    return StoreError(f"{path}: cannot be opened: {reason}", _MOUNT if error.errno == errno.EROFS else _RIGHTS)


def refuse_at_sight(header: bytes, path: str) -> None:
    """Other applications' files and those of newer agents, by their first HEADER_BYTES alone: SQLite would tidy up
    behind their last user as it opens them. Raises StoreError.

    Says nothing of a header that a power cut may have left of ours, old bytes and new ones mixed: the log or a journal
    beside it has what is right, and SQLite will see."""
    if len(header) < HEADER_BYTES or not header.startswith(_MAGIC):
        return
    version = int.from_bytes(header[60:64], "big")
    application = header[68:72]
    ours = APPLICATION_ID.to_bytes(4, "big")
    if any(byte not in (0, own) for byte, own in zip(application, ours, strict=True)):
        raise other_application().at(path)
    if application == ours and version > SCHEMA_VERSION:
        raise newer_version(version, SCHEMA_VERSION).at(path)


def _header(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(HEADER_BYTES)
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise _cannot_open(path, error) from None


class _Executes(Protocol):
    def execute(self, sql: str, /) -> Any: ...


def settle(connection: _Executes, path: str, wait_ms: int = BUSY_MS) -> None:
    """Makes a connection that has just been opened durable and alone: a write-ahead log, every commit on the disk
    before it returns, the file locked for as long as the connection lives. Changes no file that is not an agent's.

    Raises StoreError when the file is another application's, damaged, read-only or in use."""
    try:
        connection.execute(f"PRAGMA busy_timeout={wait_ms}")
        connection.execute("PRAGMA locking_mode=EXCLUSIVE")  # before the first read: then the log needs no shared file
        Store(connection).is_new()  # type: ignore[arg-type]
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("BEGIN IMMEDIATE")  # what cannot be written shows now, not at the first write
        connection.execute("COMMIT")
    except StoreError as error:
        raise error.at(path) from error.__cause__


def open_file(path: str | Path, wait_ms: int = BUSY_MS) -> sqlite3.Connection:
    """A durable connection, the only one to its file: see `settle`. Beside the file, `-wal` and `-lock` belong to it.
    `wait_ms`: how long to wait for a program that looks at the file; another agent is not waited for.

    Raises StoreError, with a hint, when the file is in use, read-only, damaged, of a newer version, of another
    application, or no database; it is then as it was."""
    place = os.path.realpath(path)  # one lock, whatever name the file is opened by
    if os.path.isdir(place):
        raise StoreError(f"{place}: a folder", "name a file in it")
    lock = _Lock(place)
    try:
        if os.path.exists(place) and not os.access(place, os.R_OK | os.W_OK, effective_ids=True):
            raise StoreError(f"{place}: read-only", _RIGHTS)
        refuse_at_sight(_header(place), place)
        connection = _connect(place)
    except BaseException:
        lock.release()
        raise
    connection.lock = lock
    try:
        settle(connection, place, wait_ms)
    except BaseException:
        connection.close()
        raise
    return connection


def _connect(path: str) -> FileConnection:
    try:
        connection = sqlite3.connect(
            path,
            isolation_level=None,
            cached_statements=_STATEMENTS,
            check_same_thread=False,
            factory=FileConnection,
        )
    except sqlite3.Error as error:
        raise explained(error, path) from error
    connection.path = path
    return connection


def open_memory(page_size_bytes: int = 1024) -> sqlite3.Connection:
    """A database in memory, small enough to have ten thousand of them: small pages hold a fleet's small items."""
    connection = sqlite3.connect(MEMORY, isolation_level=None, cached_statements=_STATEMENTS, check_same_thread=False)
    connection.execute(f"PRAGMA page_size={page_size_bytes}")
    return connection
