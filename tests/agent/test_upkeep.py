"""What is done to a whole file: figures, a check that finds what is wrong, copies, and giving back what is not used."""

from __future__ import annotations

import re
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest
from device_rig import Device, dump, fresh_memory, memory_of
from device_schema import WHOLE
from relay_rig import NOW_MS

from agent.database import Database
from agent.files import open_file
from agent.protocol.errors import ModelError
from agent.store import Store, StoreError


def filled(connection: sqlite3.Connection | None = None) -> Device:
    device = Device(schema=WHOLE, connection=connection)
    database = device.open()
    with database.transaction():
        for number in range(20):
            database.create("Task", {"area": "a", "id": f"{number:02}", "kind": "k", "rank": number, "text": "t" * 100})
            database.create("Job", {"id": f"{number:02}", "kind": "k", "rank": number})
        database.create("Meter", {"id": "a", "rev": 1})
        database.create("User", {"id": "a", "email": "a@x"})
        database.create("Note", {"pk": "n", "sk": "1", "text": "by hand"})
    database.store.take_batch(1, 100_000, "boot")
    database.store.bury(NOW_MS, "device#home-1", "job#x", "create", b"{}", 1, "size")
    return device


def test_statistics_say_what_is_in_the_file() -> None:
    database = filled().database
    database.store.set_cursor("device", "f", 7, "m")
    found = database.statistics()
    assert found.items == 43
    assert found.items_by_model == {"Job": 20, "Meter": 1, "Note": 1, "Task": 20, "User": 1}
    assert (found.outbox_rows, found.in_flight, found.dead_letters) == (22, 1, 1)
    assert database.pending() == 22
    assert found.outbox_bytes == sum(len(row.image or b"") for row in database.store.outbox())
    assert found.cursors == {"device": ("f", 7)}
    assert (found.epoch, found.adopted) == (database.store.identity.epoch, False)
    assert found.file_bytes > found.outbox_bytes > 0 == found.free_bytes


def test_items_of_no_model_are_counted_as_such() -> None:
    database = filled().database
    database.store.put_base("elsewhere", "x", b'{"_type":"Gone"}', 1)
    assert database.statistics().items_by_model["(no model)"] == 1
    assert database.check() == [], "another schema's item is no damage"


# Check

HARM: Final[dict[str, tuple[str, str]]] = {
    "an image that is none": ("UPDATE item SET image=x'7b' WHERE sk='user#a'", r"item .*user#a.*damaged"),
    "an operation's image": ("UPDATE outbox SET image=x'00' WHERE sk='job#03'", r"outbox .*job#03.*damaged"),
    "an item under another's key": ("UPDATE item SET sk='user#b' WHERE sk='user#a'", r"user#b.*does not agree|index"),
    "a key of another model": ("UPDATE item SET sk='session#a' WHERE sk='user#a'", r"the key is Session's, .*'User'"),
    "a number that is missing": ("DELETE FROM outbox WHERE sk='job#03'", r"outbox: numbers 1-4 6-21 where 1-21"),
    "an operation of an old epoch": ("UPDATE outbox SET epoch='old' WHERE sk='job#19'", r"epoch that is over"),
    "an index without an item": ("DELETE FROM item_index WHERE name='unique'", r"index unique: .*user#a.* is missing"),
    "an item without its index": ("DELETE FROM item WHERE sk='task#a#03'", r"index kinds:Task: .*#03.* belong there"),
}


@pytest.mark.parametrize("name", HARM)
def test_check_finds(name: str) -> None:
    device = filled()
    assert device.database.check() == []
    statement, words = HARM[name]
    device.connection.execute(statement)
    assert any(re.search(words, problem) for problem in device.database.check()), device.database.check()


def test_check_finds_pages_that_are_damaged(tmp_path: Path) -> None:
    file = tmp_path / "agent.db"
    connection = open_file(file)
    filled(connection).database.close()
    data = bytearray(file.read_bytes())
    at = 4096 * (len(data) // 4096 // 2)
    data[at : at + 4096] = bytes(4096)
    file.write_bytes(data)
    try:
        device = Device(schema=WHOLE, connection=open_file(file))
        problems = device.open().check()
    except StoreError as error:
        problems = [error.message]
    assert any("file:" in problem or "damaged" in problem for problem in problems)


# Copies


def test_a_backup_is_a_whole_database_as_of_now(tmp_path: Path) -> None:
    device = filled(open_file(tmp_path / "agent.db"))
    database = device.database
    before = device.dump()
    database.backup(tmp_path / "copy.db")
    database.create("Job", {"id": "later"})
    assert sorted(path.name for path in tmp_path.iterdir() if "copy" in path.name) == ["copy.db"]
    copy = Device(schema=WHOLE, connection=open_file(tmp_path / "copy.db"))
    assert dump(copy.connection) == before
    assert copy.open().check() == []
    assert copy.database.get("Job", {"id": "later"}) is None
    copy.database.close()
    database.close()


def test_others_write_while_a_backup_is_made_and_the_copy_is_of_one_moment(tmp_path: Path) -> None:
    device = filled(open_file(tmp_path / "agent.db"))
    database = device.database
    with database.transaction():
        for number in range(5_000):
            database.create("Task", {"area": "b", "id": f"{number:04}", "text": "t" * 900})
    written: list[int] = []
    ended = threading.Event()

    def writing() -> None:
        while not ended.is_set():
            with database.transaction():  # two items that belong together
                for area in ("c", "d"):
                    database.create("Task", {"area": area, "id": f"{len(written):06}", "text": "t"})
            written.append(len(written))

    writer = threading.Thread(target=writing)
    writer.start()
    try:
        database.backup(tmp_path / "copy.db")
        during = len(written)
    finally:
        ended.set()
        writer.join()
    assert during > 40, "they did not wait for the whole of it"
    copy = Device(schema=WHOLE, connection=open_file(tmp_path / "copy.db")).open()
    assert copy.check() == []
    kept = [[item["id"] for item in copy.find("Task", {"area": area})] for area in ("c", "d")]
    assert kept[0] == kept[1] == [f"{number:06}" for number in range(len(kept[0]))], "a part of a transaction"
    assert len(list(copy.find("Task", {"area": "b"}))) == 5_000
    copy.close()
    database.close()


def test_a_database_that_is_damaged_gives_no_backup(tmp_path: Path) -> None:
    file = tmp_path / "agent.db"
    device = filled(open_file(file))
    (root,) = device.connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'item'").fetchone()
    device.database.close()
    data = bytearray(file.read_bytes())
    data[4096 * (root - 1) + 1 : 4096 * root] = b"x" * 4095
    file.write_bytes(data)
    database = Device(schema=WHOLE, connection=open_file(file)).open()
    with pytest.raises(StoreError, match="damaged"):
        database.backup(tmp_path / "copy.db")
    assert not [path for path in tmp_path.iterdir() if "copy" in path.name]
    database.close()


def test_a_backup_of_a_database_in_memory_is_a_file(tmp_path: Path) -> None:
    filled().database.backup(str(tmp_path / "copy.db"))
    copy = Device(schema=WHOLE, connection=open_file(tmp_path / "copy.db"))
    assert len(list(copy.open().items())) == 43
    copy.database.close()


def test_a_backup_writes_over_nothing(tmp_path: Path) -> None:
    database = filled().database
    (tmp_path / "there").write_text("precious")
    with pytest.raises(StoreError, match="exists already"):
        database.backup(tmp_path / "there")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(StoreError, match="exists already"):
        database.backup(tmp_path / "link")
    assert (tmp_path / "there").read_text() == "precious"
    with pytest.raises(StoreError, match=r"no/copy\.db: cannot be written"):
        database.backup(tmp_path / "no" / "copy.db")


def test_a_backup_that_cannot_be_finished_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database = filled().database

    def failing(source: object, target: object) -> None:
        raise FileExistsError("came meanwhile")

    monkeypatch.setattr("os.link", failing)
    with pytest.raises(StoreError, match="came meanwhile"):
        database.backup(tmp_path / "copy.db")
    assert list(tmp_path.iterdir()) == []


def test_what_an_interrupted_backup_has_left_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "copy.db.partial").write_text("half")
    filled().database.backup(tmp_path / "copy.db")
    assert [path.name for path in tmp_path.iterdir()] == ["copy.db"]


def test_compact_gives_back_what_was_removed_and_keeps_the_rest(tmp_path: Path) -> None:
    device = filled(open_file(tmp_path / "agent.db"))
    database = device.database
    with database.transaction():
        for number in range(300):
            database.create("Task", {"area": "b", "id": str(number), "text": "t" * 900})
    with database.transaction():
        for number in range(300):
            database.remove("Task", {"area": "b", "id": str(number)})
    content, memory = device.dump(), memory_of(database.store)
    free = database.statistics().free_bytes
    assert free > 200_000
    before, after = database.compact()
    assert before - after >= free
    assert (tmp_path / "agent.db").stat().st_size == after
    assert (device.dump(), memory_of(database.store)) == (content, memory)
    assert database.statistics().free_bytes == 0
    assert Store(device.connection).synchronous() == 2
    database.close()


@pytest.mark.parametrize("call", [Database.compact, lambda database: database.backup("nowhere")])
def test_neither_is_done_within_a_transaction(call: Callable[[Database], object]) -> None:
    database = filled().database
    with database.transaction():
        with pytest.raises(ModelError, match="within a transaction"):
            call(database)
        database.create("Job", {"id": "later"})
    assert database.get("Job", {"id": "later"}) is not None


# Files of older versions


def test_a_file_of_the_first_version_is_taken_over_with_all_that_is_in_it(tmp_path: Path) -> None:
    connection = open_file(tmp_path / "agent.db")
    device = Device(connection=connection)
    device.open().create("Status", {"rev": 1})
    before = device.visible()
    connection.executescript(
        "ALTER TABLE outbox DROP COLUMN due_ms; DROP TABLE item_index; DROP TABLE note; PRAGMA user_version=1;"
    )
    connection.close()
    again = Device(schema=WHOLE, connection=open_file(tmp_path / "agent.db"))
    database = again.open()
    assert [row.sk for row in database.store.outbox("kind<>'sweep'")] == ["status#"]
    database.create("Job", {"id": "a", "rank": 1})
    assert database.check() == []
    assert memory_of(database.store) == fresh_memory(again.connection)
    database.close()
    shipped = Device(connection=open_file(tmp_path / "agent.db"))
    shipped.open()
    assert before.items() <= shipped.visible().items()
    shipped.database.close()
