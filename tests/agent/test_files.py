"""Files that cannot be used: each is refused in words that name the file, what is wrong and what to do; and is left as
it was. Real files, and for the lock real processes.
"""

from __future__ import annotations

import errno
import gc
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

import pytest
from device_rig import Device, memory_of

from agent.file_errors import FileInUseError
from agent.files import open_file, open_memory
from agent.store import APPLICATION_ID, Store, StoreError
from fleet.rng import Stream, rng

ROOT: Final = Path(__file__).resolve().parents[2]
PAGE_BYTES: Final = 4_096

# A process that opens the file and keeps it until its input ends. Root may write anything: it gives that up first.
HOLDER: Final = """
import ctypes, sys
from agent.files import open_file
from agent.store import StoreError
if sys.argv[2] == "without rights":
    libc = ctypes.CDLL(None, use_errno=True)
    header, nothing = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    assert libc.capset(header, nothing) == 0
try:
    connection = open_file(sys.argv[1])
except StoreError as error:
    print("refused", error, flush=True)
else:
    print("open", flush=True)
    sys.stdin.read()
"""


class Holder:
    def __init__(self, file: Path, mode: str = "") -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(file), mode],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        assert self.process.stdout is not None
        self.said = self.process.stdout.readline().strip()

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "agent.db"


@pytest.fixture
def holders() -> Iterator[list[Holder]]:
    running: list[Holder] = []
    yield running
    for holder in running:
        holder.end()


def filled(file: Path, items: int = 60) -> bytes:
    """A closed database; its bytes."""
    device = Device(connection=open_file(file)).boot()
    for number in range(items):
        device.database.create("Fault", {"id": f"{number:03}", "rev": number, "text": "text" * number})
        device.database.upsert("Diagnostic", {"name": f"{number % 7}", "rev": number})
    device.connection.close()
    return file.read_bytes()


def refused(file: Path, *words: str) -> StoreError:
    """Opening it is refused, in these words, with its name and a hint; nothing of it has changed."""
    before = file.read_bytes() if file.is_file() else None
    with pytest.raises(StoreError) as caught:
        open_file(file, wait_ms=0)
    error = caught.value
    assert str(error).startswith(f"{os.path.realpath(file)}") and error.hint
    for word in words:
        assert word in str(error), str(error)
    assert (file.read_bytes() if file.is_file() else None) == before
    return error


# One owner


def test_a_second_process_is_told_who_has_the_file(file: Path, holders: list[Holder]) -> None:
    holders.append(Holder(file))
    assert holders[0].said == "open"
    refused(file, f"in use by process {holders[0].process.pid}", "stop that one")
    holders.append(Holder(file))
    assert holders[1].said.startswith(f"refused {file}: in use by process {holders[0].process.pid} (")


def test_a_process_that_was_killed_leaves_the_file_free(file: Path, holders: list[Holder]) -> None:
    holders.append(Holder(file))
    holders[0].end()
    assert (file.parent / "agent.db-lock").exists()
    open_file(file).close()


def test_one_process_opens_a_file_once_by_whatever_name(file: Path) -> None:
    connection = open_file(file)
    other = file.with_name("other.db")
    other.symlink_to(file)
    for name in (file, other):
        with pytest.raises(FileInUseError, match=rf"in use by this process \({os.getpid()}\)") as caught:
            open_file(name)
        assert isinstance(caught.value.at("elsewhere"), FileInUseError), "it stays what it is"
    Store(connection).initialise("epoch")  # what it holds is still held
    connection.close()
    open_file(other).close()


def test_a_refused_second_opening_takes_no_lock_away(file: Path, holders: list[Holder]) -> None:
    connection = open_file(file)
    with pytest.raises(StoreError):
        open_file(file)
    holders.append(Holder(file))
    assert "in use by process" in holders[0].said
    with closing(sqlite3.connect(file, timeout=0)) as other, pytest.raises(sqlite3.OperationalError, match="locked"):
        other.execute("SELECT count(*) FROM sqlite_master")
    connection.close()


@pytest.mark.filterwarnings("ignore:unclosed database:ResourceWarning")  # from Python 3.13 on
def test_a_connection_that_was_forgotten_holds_nothing(file: Path) -> None:
    connection = open_file(file)
    del connection
    gc.collect()
    open_file(file).close()


def test_a_file_that_was_refused_is_not_kept_locked(file: Path) -> None:
    file.write_bytes(b"x" * 5_000)
    refused(file, "not a database")
    file.unlink()
    open_file(file).close()


def test_a_program_that_is_no_agent_keeps_the_agent_out_while_it_reads(file: Path) -> None:
    filled(file)
    reader = sqlite3.connect(file)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM item").fetchone()
    refused(file, "in use by a program that is no agent", "close")
    reader.close()
    open_file(file).close()


def test_an_agent_keeps_programs_out_that_know_nothing_of_its_lock(file: Path) -> None:
    connection = open_file(file)
    Store(connection).initialise("epoch")
    with closing(sqlite3.connect(file, timeout=0)) as other, pytest.raises(sqlite3.OperationalError, match="locked"):
        other.execute("DELETE FROM outbox")
    connection.close()


def test_nothing_but_the_file_and_its_lock_is_left_after_a_close(file: Path) -> None:
    filled(file)
    assert sorted(path.name for path in file.parent.iterdir()) == ["agent.db", "agent.db-lock"]


# No right to write, no place


@pytest.mark.parametrize("what", ["file", "folder"])
def test_without_the_right_to_write_it_is_refused(file: Path, holders: list[Holder], what: str) -> None:
    before = filled(file)
    for path in file.parent.iterdir() if what == "file" else ():
        path.chmod(0o444)
    if what == "folder":
        (file.parent / "agent.db-lock").unlink()
        file.parent.chmod(0o555)
    holders.append(Holder(file, "without rights"))
    file.parent.chmod(0o755)
    assert holders[0].said.startswith(f"refused {file}") and "write" in holders[0].said
    assert file.read_bytes() == before


def test_a_file_that_may_only_be_read_is_refused_before_the_first_write(file: Path, holders: list[Holder]) -> None:
    before = filled(file)
    file.chmod(0o444)
    holders.append(Holder(file, "without rights"))
    assert holders[0].said.startswith(f"refused {file}: read-only (give ")
    assert file.read_bytes() == before


def test_a_file_system_that_is_read_only_is_named(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refusing(*_: object) -> int:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("os.open", refusing)
    with pytest.raises(StoreError, match="read-only file system") as caught:
        open_file(file, wait_ms=0)
    assert "mount it for writing" in caught.value.hint


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    refused(tmp_path / "missing" / "agent.db", "cannot be opened", "no such file or directory")


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    refused(tmp_path, "a folder")


# Something else


@pytest.mark.parametrize("mode", ["DELETE", "WAL"])
@pytest.mark.parametrize("application", [0, 77])
def test_a_file_of_another_application_is_left_as_it_was(file: Path, mode: str, application: int) -> None:
    other = sqlite3.connect(file, isolation_level=None)
    other.execute(f"PRAGMA journal_mode={mode}")
    other.execute(f"PRAGMA application_id={application}")
    other.execute("CREATE TABLE notes(text)")
    other.execute("INSERT INTO notes VALUES('mine')")
    other.close()
    refused(file, "another application", "left as it was")


def test_the_log_of_another_application_is_left_as_it_was(file: Path) -> None:
    """Whoever opens such a file through SQLite moves what is in the log into the file as he leaves."""
    other = sqlite3.connect(file.with_name("theirs.db"), isolation_level=None)
    other.execute("PRAGMA application_id=77")
    other.execute("PRAGMA journal_mode=WAL")
    other.execute("CREATE TABLE notes(text)")
    log = file.with_name("agent.db-wal")
    file.write_bytes(file.with_name("theirs.db").read_bytes())
    log.write_bytes(file.with_name("theirs.db-wal").read_bytes())
    other.close()
    before = log.read_bytes()
    assert before
    error = refused(file, "another application")
    assert log.read_bytes() == before
    assert str(refused(file)) == str(error), "the lock is free again, though the first error is still held"


@pytest.mark.parametrize("written", range(5))
@pytest.mark.parametrize("front", [True, False])
def test_a_header_half_written_is_none_of_another_application(file: Path, written: int, front: bool) -> None:
    """The power went while page 1 was moved from the log into the file; the log has it whole."""
    connection = open_file(file)
    Store(connection).initialise("epoch")
    log = file.with_name("agent.db-wal").read_bytes()
    before, own = file.read_bytes(), APPLICATION_ID.to_bytes(4, "big")
    connection.close()
    assert before[68:72] == bytes(4)
    torn = own[:written] + bytes(4 - written) if front else bytes(4 - written) + own[4 - written :]
    file.write_bytes(before[:68] + torn + before[72:])
    file.with_name("agent.db-wal").write_bytes(log)
    connection = open_file(file)
    assert not Store(connection).is_new()
    connection.close()


def test_a_file_of_a_newer_version_is_left_as_it_was(file: Path) -> None:
    filled(file)
    newer = sqlite3.connect(file, isolation_level=None)
    newer.execute("PRAGMA user_version=3")
    newer.close()
    refused(file, "version 3, this agent knows 2", "install")


def test_a_newer_version_that_is_still_in_the_log_is_seen(file: Path) -> None:
    """The header of the file is that of an older one: the log counts."""
    filled(file)
    newer = sqlite3.connect(file, isolation_level=None)
    newer.execute("PRAGMA journal_mode=WAL")
    newer.execute("PRAGMA user_version=3")
    copy = file.with_name("copy.db")
    copy.write_bytes(file.read_bytes())
    copy.with_name("copy.db-wal").write_bytes(file.with_name("agent.db-wal").read_bytes())
    newer.close()
    assert copy.read_bytes()[60:64] == bytes((0, 0, 0, 2))
    with pytest.raises(StoreError, match="version 3, this agent knows 2"):
        open_file(copy)


@pytest.mark.parametrize(
    "content", [b"#!/bin/sh\n" * 500, b"\0" * 5_000, b"SQLite format 3\0", b"SQLite format 3\0" + b"\0" * 999]
)
def test_what_is_no_database_is_refused(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    refused(file, "not a database")


def test_an_empty_file_is_a_new_database(file: Path) -> None:
    file.touch()
    assert filled(file, 1)[68:72] == APPLICATION_ID.to_bytes(4, "big")


# Damage


def damaged(data: bytes, draw: Stream, way: int) -> bytes:
    """Bytes anywhere, in the first page, in the head of a page; a page of zeros; the end cut off."""
    changed = bytearray(data)
    page = draw.below(len(data) // PAGE_BYTES) * PAGE_BYTES
    if way == 0:
        for _ in range(1 + draw.below(20)):
            changed[draw.below(len(data))] = draw.below(256)
    elif way == 1:
        for _ in range(30):
            changed[draw.below(700)] = draw.below(256)
    elif way == 2:
        for _ in range(3):
            changed[page + draw.below(60)] = draw.below(256)
    elif way == 3:
        changed[page : page + PAGE_BYTES] = bytes(PAGE_BYTES)
    else:
        del changed[draw.below(len(data)) :]
    return bytes(changed)


def use(connection: sqlite3.Connection) -> None:
    """Reads everything, by every way there is, and writes."""
    device = Device(connection=connection).boot()
    database = device.database
    list(database.items())
    list(database.find("Fault"))
    for number in range(60):
        database.get("Fault", {"id": f"{number:03}"})
    database.dead_letters()
    database.create("Fault", {"id": "new", "rev": 1})
    database.upsert("Fault", {"id": "004", "rev": 1})
    database.remove("Fault", {"id": "005"})
    device.store.outbox()
    device.store.take_batch(98, 100_000, "boot")


@pytest.mark.parametrize("way", range(5))
def test_a_damaged_file_is_refused_in_words_or_works(file: Path, way: int) -> None:
    """SQLite keeps no checksums: damage within a value may be read as a value. Anything else is said."""
    data = filled(file)
    outcomes = {"opened": 0, "refused": 0, "said later": 0}
    for seed in range(300):
        content = damaged(data, rng(seed, "file", f"damage {way}"), way)
        for path in file.parent.glob("agent.db*"):
            path.unlink()
        file.write_bytes(content)
        try:
            connection = open_file(file)
        except StoreError as error:
            assert str(file) in str(error) and error.hint
            assert file.read_bytes() == content
            outcomes["refused"] += 1
            continue
        try:
            use(connection)
            outcomes["opened"] += 1
        except StoreError as error:
            assert "damaged" in str(error) and error.hint
            outcomes["said later"] += 1
        finally:
            connection.close()
    assert outcomes["refused"] + outcomes["said later"] > 100, outcomes


def test_a_write_that_meets_damage_is_undone(file: Path) -> None:
    """The index of the items is damaged: nothing looks at it before a write needs it."""
    filled(file)
    connection = open_file(file)
    (root,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name='sqlite_autoindex_item_1'").fetchone()
    connection.close()
    data = bytearray(file.read_bytes())
    data[(root - 1) * PAGE_BYTES] = 99
    file.write_bytes(data)
    store = Store(open_file(file))
    store.load()
    for _ in range(2):
        before = memory_of(store)
        with pytest.raises(StoreError, match=r"agent\.db: .*malformed"):
            store.put_base("device#home-1", "diagnostic#new", b"{}", 1)
        assert memory_of(store) == before
        with pytest.raises(StoreError, match=r"agent\.db: .*malformed"), store.transaction():
            store.set_correction(7)
            store.add_operation("device#home-1", "fault#new", "create", b"{}", 1)
            store.put_base("device#home-1", "diagnostic#new", b"{}", 1)
        assert memory_of(store) == before
        assert not store.connection.in_transaction
    store.connection.close()
    assert file.read_bytes() == bytes(data)


# A full disk


def test_a_database_that_finds_no_room_at_first_is_made_when_there_is_some(file: Path) -> None:
    connection = open_file(file)
    for pages in (2, 3, 5, 7):
        connection.execute(f"PRAGMA max_page_count={pages}")
        with pytest.raises(StoreError, match=r"agent\.db: the disk is full: .*make room"):
            Store(connection).initialise("epoch")
        assert not connection.in_transaction and Store(connection).is_new()
    connection.execute("PRAGMA max_page_count=100")
    Store(connection).initialise("epoch")
    connection.close()
    open_file(file).close()


# A mistake of a program is no damage


@pytest.mark.parametrize("sql", ["SELECT", "SELECT ?", "COMMIT", "INSERT INTO identity(one, epoch) VALUES(1, NULL)"])
def test_a_wrong_statement_stays_what_it_is(file: Path, sql: str) -> None:
    connection = open_file(file)
    Store(connection).initialise("epoch")
    with pytest.raises(sqlite3.Error):
        connection.execute(sql)
    connection.close()


def test_text_that_is_no_unicode_is_the_callers_mistake(file: Path) -> None:
    connection = open_file(file)
    with pytest.raises(UnicodeEncodeError):
        connection.execute("SELECT ?", ("\ud800",))
    connection.close()


def test_a_file_and_memory_answer_alike(file: Path) -> None:
    for connection in (open_file(file), open_memory()):
        connection.executescript("CREATE TABLE t(a); INSERT INTO t VALUES(1),(2);")
        rows = connection.execute("SELECT a FROM t ORDER BY a")
        assert next(rows) == (1,) and rows.fetchone() == (2,) and rows.fetchone() is None and list(rows) == []
        assert connection.execute("SELECT a FROM t ORDER BY a").fetchall() == [(1,), (2,)]
        assert connection.execute("INSERT INTO t VALUES(9)").lastrowid == 3
        connection.close()
