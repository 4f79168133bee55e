"""A disk in memory under SQLite, whose power can be cut at any point of what was asked of it.

`Disk` is the running machine: files as a program sees them, and a log of every create, write, truncate, delete and
sync. `Platter` walks along such a log and knows, at each point, what is durable and what is pending; `Platter.after`
says what a machine finds that boots after a cut there, given what became of the pending part (`FATES`).

What counts as durable: bytes and length of a file, once that file was synced; a name, once its folder was. The folder
is synced where SQLite's own unix layer does it: with the first sync of a journal or log that it has created, and with a
delete that asks for it. Writes never touch bytes beside their range (SQLite relies on that by default, too).

`connect` opens a database on it and gives it the part of sqlite3.Connection that the agent uses, with the agent's own
settings. Used by the tests of the agent; depends on apsw, because the standard module cannot be given a disk.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from typing import Any, Final, Literal, cast

import apsw

from agent.files import HEADER_BYTES, explained, refuse_at_sight, settle
from fleet.rng import Stream

FILE: Final = "agent.db"
SECTOR_BYTES: Final = 512
LOG_PAGES: Final = 1_000  # SQLite's default
SHORT_LOG_PAGES: Final = 8  # the log is emptied in the middle of what a short test does
_CREATED_WITH_FOLDER: Final = apsw.SQLITE_OPEN_MAIN_JOURNAL | apsw.SQLITE_OPEN_WAL | apsw.SQLITE_OPEN_SUPER_JOURNAL

Kind = Literal["create", "write", "truncate", "delete", "sync", "sync folder"]
Names = dict[str, int]  # name -> number of the file
Files = dict[str, bytes]


@dataclass(frozen=True, slots=True)
class Op:
    """One thing asked of the disk. `file`: its number, which a name may lose; `at`: an offset, or the new length."""

    kind: Kind
    name: str
    file: int
    at: int = 0
    data: bytes = b""

    def apply(self, names: Names, contents: dict[int, bytearray]) -> None:
        if self.kind == "create":
            names[self.name] = self.file
        elif self.kind == "delete":
            names.pop(self.name, None)
        elif self.kind == "write":
            content = contents.setdefault(self.file, bytearray())
            if len(content) < self.at:
                content.extend(bytes(self.at - len(content)))
            content[self.at : self.at + len(self.data)] = self.data
        elif self.kind == "truncate":
            content = contents.setdefault(self.file, bytearray())
            del content[self.at :]
            content.extend(bytes(self.at - len(content)))

    def part(self, start: int, end: int) -> Op:
        """Of a write: what it does to the bytes of its data from `start` to `end`."""
        return Op(self.kind, self.name, self.file, self.at + start, self.data[start:end])

    def sectors(self) -> Iterator[Op]:
        """Of a write: its parts on each sector."""
        start = 0
        while start < len(self.data):
            end = min(len(self.data), start + SECTOR_BYTES - (self.at + start) % SECTOR_BYTES)
            yield self.part(start, end)
            start = end


class Disk:
    """What a running machine sees. `fail`: asked before each operation and each read; may raise an apsw error, and then
    nothing was done. `syncs`: False is a disk that says it has synced, and has not; `syncs_folder`, of folders."""

    def __init__(self, files: Files | None = None, *, syncs: bool = True, syncs_folder: bool = True) -> None:
        self.names: Names = {}
        self.contents: dict[int, bytearray] = {}
        self.log: list[Op] = []
        self.fail: Callable[[str], None] = lambda what: None
        self.syncs = syncs
        self.syncs_folder = syncs_folder
        for number, (name, data) in enumerate(sorted((files or {}).items())):
            self.names[name] = number
            self.contents[number] = bytearray(data)

    def ask(self, kind: Kind, name: str, file: int, at: int = 0, data: bytes = b"") -> None:
        self.fail(kind)
        if (kind == "sync" and not self.syncs) or (kind == "sync folder" and not self.syncs_folder):
            return
        op = Op(kind, name, file, at, data)
        op.apply(self.names, self.contents)
        self.log.append(op)

    def open(self, name: str, *, create: bool) -> int:
        if name not in self.names:
            if not create:
                raise apsw.CantOpenError
            number = len(self.contents)
            self.contents[number] = bytearray()
            self.ask("create", name, number)
        return self.names[name]

    def files(self) -> Files:
        """As they are now, whatever is durable of it."""
        return {name: bytes(self.contents[file]) for name, file in self.names.items()}


# ---------------------------------------------------------------- power cuts

Fate = Callable[[Sequence[Op], Stream], Iterable[Op]]


def keep(pending: Sequence[Op], draw: Stream) -> Iterable[Op]:
    """All was written, though nobody waited for it."""
    return pending


def drop(pending: Sequence[Op], draw: Stream) -> Iterable[Op]:
    """Nothing was written that nobody waited for."""
    return ()


def tear(pending: Sequence[Op], draw: Stream) -> Iterable[Op]:
    """The last write stopped in the middle of a sector."""
    return _torn(pending, draw, first=True)


def tear_front(pending: Sequence[Op], draw: Stream) -> Iterable[Op]:
    """Of the last write, only the end was written, from the middle of a sector on."""
    return _torn(pending, draw, first=False)


def _torn(pending: Sequence[Op], draw: Stream, *, first: bool) -> Iterable[Op]:
    for place in range(len(pending) - 1, -1, -1):
        op = pending[place]
        if op.kind == "write":
            cut = 1 + draw.below(max(1, len(op.data) - 1))
            kept = op.part(0, cut) if first else op.part(cut, len(op.data))
            return (*pending[:place], kept, *pending[place + 1 :])
    return pending


def sectors(pending: Sequence[Op], draw: Stream) -> Iterator[Op]:
    """Each sector of each write was written or not, each length and name changed or not: in any order, that is."""
    for op in pending:
        for part in op.sectors() if op.kind == "write" else (op,):
            if draw.below(2):
                yield part


def log_first(pending: Sequence[Op], draw: Stream) -> Iterable[Op]:
    """What was for the log and the journal was written, what was for the database was not."""
    return [op for op in pending if op.name != FILE]


def database_first(pending: Sequence[Op], draw: Stream) -> Iterable[Op]:
    """What was for the database was written, what was for the log and the journal was not."""
    return [op for op in pending if op.name == FILE]


def garbage(pending: Sequence[Op], draw: Stream) -> Iterator[Op]:
    """Lengths and names changed; in some sectors of the writes stands what nobody wrote."""
    for op in pending:
        for part in op.sectors() if op.kind == "write" else (op,):
            if part.kind == "write" and draw.below(2):
                noise = bytes(draw.below(256) for _ in range(8)) * (len(part.data) // 8 + 1)
                yield Op(part.kind, part.name, part.file, part.at, noise[: len(part.data)])
            else:
                yield part


FATES: Final[dict[str, Fate]] = {
    fate.__name__: fate for fate in (keep, drop, tear, tear_front, sectors, log_first, database_first, garbage)
}


class Platter:
    """What is durable, and what is pending, after the first `done` operations of a log."""

    def __init__(self, files: Files, log: Sequence[Op]) -> None:
        start = Disk(files)
        self.names = start.names
        self.contents = start.contents
        self.log = log
        self.pending: list[Op] = []
        self.done = 0

    def step(self) -> None:
        """One operation more."""
        op = self.log[self.done]
        self.done += 1
        if op.kind == "sync":
            self._settle([p for p in self.pending if p.file == op.file and p.kind in ("write", "truncate")])
        elif op.kind == "sync folder":
            self._settle([p for p in self.pending if p.kind in ("create", "delete")])
        else:
            self.pending.append(op)

    def _settle(self, ops: list[Op]) -> None:
        for op in ops:
            op.apply(self.names, self.contents)
            self.pending.remove(op)

    def after(self, fate: Fate, draw: Stream) -> Files:
        """The files that a machine finds which boots after a cut here."""
        disk = Disk()
        disk.names = dict(self.names)
        disk.contents = {number: bytearray(content) for number, content in self.contents.items()}
        for op in fate(self.pending, draw):
            op.apply(disk.names, disk.contents)
        return {name: bytes(disk.contents.get(file, b"")) for name, file in disk.names.items()}


# ---------------------------------------------------------------- under SQLite


class _Vfs(apsw.VFS):
    """SQLite's view of one Disk."""

    def __init__(self, disk: Disk, name: str) -> None:
        super().__init__(name, base="")
        self.disk = disk
        self.gone = False  # the process that had it: what SQLite still asks for on its way out is not done

    def ask(self, kind: Kind, name: str, file: int, at: int = 0, data: bytes = b"") -> None:
        if not self.gone:
            self.disk.ask(kind, name, file, at, data)

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> _File:
        assert isinstance(name, str | apsw.URIFilename), "no temporary files: their pages stay in memory"
        path = name if isinstance(name, str) else name.filename()
        return _File(self, path, flags[0])

    def xDelete(self, filename: str, syncdir: bool) -> None:
        if filename in self.disk.names:
            self.ask("delete", filename, self.disk.names[filename])
        if syncdir:
            self.ask("sync folder", filename, -1)

    def xAccess(self, pathname: str, flags: int) -> bool:
        return pathname in self.disk.names

    def xFullPathname(self, name: str) -> str:
        return name


class _File(apsw.VFSFile):
    """One open file."""

    def __init__(self, vfs: _Vfs, name: str, flags: int) -> None:  # the base class is for files of another VFS
        self.vfs = vfs
        self.disk = disk = vfs.disk
        self.name = name
        self.sync_folder = bool(flags & _CREATED_WITH_FOLDER) and name not in disk.names
        self.file = disk.open(name, create=bool(flags & apsw.SQLITE_OPEN_CREATE))

    def xClose(self) -> None:
        pass

    def xRead(self, amount: int, offset: int) -> bytes:
        if not self.vfs.gone:
            self.disk.fail("read")
        return bytes(self.disk.contents[self.file][offset : offset + amount])

    def xWrite(self, data: Any, offset: int) -> None:
        self.vfs.ask("write", self.name, self.file, offset, bytes(data))

    def xTruncate(self, newsize: int) -> None:
        self.vfs.ask("truncate", self.name, self.file, newsize)

    def xSync(self, flags: int) -> None:
        self.vfs.ask("sync", self.name, self.file)
        if self.sync_folder:
            self.vfs.ask("sync folder", self.name, self.file)
            self.sync_folder = False

    def xFileSize(self) -> int:
        return len(self.disk.contents[self.file])

    def xLock(self, level: int) -> None:
        pass  # one machine, one process, one connection

    def xUnlock(self, level: int) -> None:
        pass

    def xCheckReservedLock(self) -> bool:
        return False

    def xFileControl(self, op: int, ptr: int) -> bool:
        return False

    def xSectorSize(self) -> int:
        return 4096  # as the unix layer says it; what is kept and dropped here is smaller

    def xDeviceCharacteristics(self) -> int:
        return apsw.SQLITE_IOCAP_POWERSAFE_OVERWRITE


class _Cursor:
    """The part of sqlite3.Cursor that the agent uses. Reads all rows at once: nothing stays open between statements."""

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection
        self._rows: Iterator[tuple[Any, ...]] = iter(())

    @property
    def lastrowid(self) -> int:
        return self._connection.raw.last_insert_rowid()

    def execute(self, sql: str, parameters: Sequence[Any] = (), /) -> _Cursor:
        self._rows = iter(self._connection.run(sql, parameters))
        return self

    def fetchone(self) -> tuple[Any, ...] | None:
        return next(self._rows, None)

    def fetchall(self) -> list[tuple[Any, ...]]:
        return list(self._rows)

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return self._rows


class _Connection:
    """The part of sqlite3.Connection that the agent uses, with its errors: as agent.files.FileConnection has them."""

    def __init__(self, raw: apsw.Connection, vfs: _Vfs, log_pages: int) -> None:
        self.raw = raw
        self.vfs = vfs  # lives as long as the connection
        self.log_pages = log_pages
        raw.set_wal_hook(self.tidy)

    def tidy(self, raw: apsw.Connection, database: str, pages: int) -> int:
        """As SQLite's own hook after a commit: a long log is moved into the file. If that fails, the commit has been
        made all the same, and its caller hears of no error: apsw would raise what the disk has raised."""
        if pages >= self.log_pages:
            with suppress(apsw.Error):
                raw.wal_checkpoint(database)
        return apsw.SQLITE_OK

    def run(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        try:
            return list(self.raw.execute(sql, parameters))
        except apsw.Error as error:
            raise explained(_standard(error), FILE) from error

    def cursor(self) -> _Cursor:
        return _Cursor(self)

    def execute(self, sql: str, parameters: Sequence[Any] = (), /) -> _Cursor:
        return _Cursor(self).execute(sql, parameters)

    def executescript(self, script: str, /) -> _Cursor:
        return _Cursor(self).execute(script)

    @property
    def in_transaction(self) -> bool:
        return self.raw.in_transaction

    def rollback(self) -> None:
        self.run("ROLLBACK")

    def close(self) -> None:
        with suppress(apsw.Error):  # SQLite tidies up as far as it can, and says nothing: the log holds everything
            self.raw.close()

    def abandon(self) -> None:
        """As a process leaves it that is killed: nothing is asked of the disk any more."""
        self.vfs.gone = True
        self.close()


def _standard(error: apsw.Error) -> sqlite3.Error:
    """As the standard module raises it. What the disk has raised comes through SQLite as it is, without a code."""
    raised = {
        apsw.FullError: apsw.SQLITE_FULL,
        apsw.IOError: apsw.SQLITE_IOERR,
        apsw.CantOpenError: apsw.SQLITE_CANTOPEN,
    }
    standard = sqlite3.OperationalError(str(error) or "refused by the disk")
    standard.sqlite_errorcode = getattr(error, "result", raised.get(type(error), apsw.SQLITE_IOERR))
    return standard


def connect(disk: Disk, *pragmas: str, log_pages: int = LOG_PAGES) -> sqlite3.Connection:
    """The database FILE on `disk`, as agent.files.open_file opens one on a real disk; then `pragmas`, such as
    `synchronous=OFF`. `log_pages`: the length of the log that is too long. Raises StoreError like it."""
    if FILE in disk.names:
        refuse_at_sight(bytes(disk.contents[disk.names[FILE]][:HEADER_BYTES]), FILE)
    taken = apsw.vfs_names()  # by the other disks of this process that have not been thrown away yet
    name = next(name for name in (f"simulated-{n}" for n in count()) if name not in taken)
    vfs = _Vfs(disk, name)
    try:
        raw = apsw.Connection(FILE, vfs=name)
    except apsw.Error as error:
        raise explained(_standard(error), FILE) from error
    connection = cast(sqlite3.Connection, _Connection(raw, vfs, log_pages))
    try:
        settle(connection, FILE)
        for pragma in pragmas:
            connection.execute(f"PRAGMA {pragma}")
    except BaseException:
        abandon(connection)
        raise
    return connection


def abandon(connection: sqlite3.Connection) -> None:
    """Lets go of a connection that `connect` has made, without the tidying up of a close."""
    cast(_Connection, connection).abandon()
