"""The device's file: what is written together, what is kept in memory of it, and what a failure in between leaves."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import pytest
from device_rig import PK, dump, fresh_memory, memory_of
from hypothesis import given
from hypothesis import strategies as st

from agent import letters, tables
from agent.files import open_memory
from agent.protocol.messages import Kind
from agent.store import ACKED, KEY_FACTOR, SENT, UNSENT, OutboxRow, Store, StoreError, prefix_end

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=4)


def opened(connection: sqlite3.Connection | None = None) -> Store:
    store = Store(connection or open_memory())
    if store.is_new():
        store.initialise("epoch-1")
    store.load()
    return store


def adopted() -> Store:
    """The first sweep is done, nothing waits."""
    store = opened()
    store.take_batch(98, 100_000, "boot-1")
    store.drop_operation(1)
    store.set_acked(1, "boot-1")
    store.in_flight = []
    return store


# Opening


def test_a_database_in_memory_is_the_one_that_the_statements_make() -> None:
    copied, made = opened().connection, open_memory()
    made.execute("PRAGMA user_version=9")
    made.execute("PRAGMA user_version=0")  # so that there is something to write over
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "_has_copied", lambda _: False)
        opened(made)
    assert list(copied.iterdump()) == list(made.iterdump())
    for pragma in ("user_version", "application_id", "page_size", "page_count", "integrity_check"):
        assert copied.execute(f"PRAGMA {pragma}").fetchone() == made.execute(f"PRAGMA {pragma}").fetchone()


def test_memory_without_room_for_the_tables_says_so_and_stays_empty() -> None:
    connection = open_memory()
    connection.execute("PRAGMA max_page_count=1")
    with pytest.raises(sqlite3.OperationalError) as caught:
        Store(connection).initialise("epoch-1")
    assert caught.value.sqlite_errorname == "SQLITE_FULL"
    assert Store(connection).is_new()
    connection.execute("PRAGMA max_page_count=1000")
    assert opened(connection).identity.epoch == "epoch-1"


def test_a_new_file_begins_with_a_sweep_of_its_first_epoch() -> None:
    store = opened()
    (row,) = store.outbox()
    assert (row.kind, row.u, row.epoch, row.state) == ("sweep", 1, "epoch-1", UNSENT)
    assert store.identity == ("epoch-1", False, None, 0, None, None)
    assert (store.outbox_rows, store.unsent_rows, store.epoch_next_u) == (1, 1, 2)


def test_a_file_is_made_once() -> None:
    connection = open_memory()
    opened(connection)
    assert not Store(connection).is_new()


def test_a_file_of_another_application_is_refused() -> None:
    connection = open_memory()
    connection.execute("CREATE TABLE notes(text)")
    connection.execute("PRAGMA user_version=1")
    with pytest.raises(StoreError, match="another application"):
        Store(connection).is_new()


def test_a_file_of_a_later_version_is_refused() -> None:
    connection = open_memory()
    opened(connection)
    connection.execute("PRAGMA user_version=3")
    with pytest.raises(StoreError, match="version 3"):
        Store(connection).is_new()


def test_what_is_no_database_is_refused(tmp_path: Any) -> None:
    file = tmp_path / "agent.db"
    file.write_bytes(b"#!/bin/sh\n" * 500)
    with pytest.raises(StoreError, match="not a database"):
        Store(sqlite3.connect(file, isolation_level=None)).is_new()


# Operations


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("create", "update", "create"),
        ("create", "delete", "delete"),
        ("update", "update", "update"),
        ("update", "delete", "delete"),
        ("delete", "create", "create"),
        ("delete", "delete", "delete"),
    ],
)
def test_an_unsent_write_and_a_newer_one_become_one_operation(first: Kind, second: Kind, expected: str) -> None:
    store = adopted()
    store.add_operation(PK, "a", first, None if first == "delete" else b"1", 5)
    (row,) = store.outbox()
    store.squash(row.n, second, None if second == "delete" else b"2", 6)
    (after,) = store.outbox()
    assert (after.n, after.u, after.kind, after.updated) == (row.n, row.u, expected, 6)
    assert after.image == (None if second == "delete" else b"2")


def test_a_batch_is_the_oldest_rows_marked_sent_under_the_boot_s_id() -> None:
    store = adopted()
    for name in "abc":
        store.add_operation(PK, name, "create", b"{}", 1)
    rows = store.take_batch(2, 100_000, "boot-2")
    assert [(row.sk, row.u, row.id, row.state) for row in rows] == [("a", 2, "boot-2", SENT), ("b", 3, "boot-2", SENT)]
    assert store.outbox(f"state={SENT}") == rows == store.in_flight
    assert (store.outbox_rows, store.unsent_rows) == (3, 1)


def test_a_batch_stays_within_its_operations() -> None:
    store = adopted()
    for number in range(150):
        store.add_operation(PK, f"{number:03}", "create", b"{}", 1)
    assert len(store.take_batch(98, 100_000, "boot-2")) == 98


@given(
    st.lists(st.tuples(st.integers(0, 400), st.text(max_size=20)), min_size=1, max_size=30),
    st.integers(200, 2_000),
)
def test_a_batch_stays_within_its_bytes_but_one_row_always_fits(sizes: list[tuple[int, str]], most: int) -> None:
    store = adopted()
    for number, (size, name) in enumerate(sizes):
        with suppress(UnicodeEncodeError):
            store.add_operation(PK, f"{number}{name}", "create", b"x" * size, 1)
    while store.unsent_rows:
        rows = store.take_batch(98, most, "boot-2")
        bytes_ = [KEY_FACTOR * (len(row.pk) + len(row.sk)) + len(row.image or b"") for row in rows]
        assert rows and (len(rows) == 1 or sum(bytes_) <= most)
        store.in_flight = []


def test_a_sweep_travels_alone() -> None:
    store = opened()
    store.add_operation(PK, "a", "create", b"{}", 1)
    store.execute("INSERT INTO outbox VALUES(NULL, 3, 'epoch-1', '', '', 'sweep', NULL, 0, '', 0, 0, 0)")
    store.load()
    store.add_operation(PK, "b", "create", b"{}", 1)
    batches = [[row.kind for row in store.take_batch(98, 100_000, "boot-2")] for _ in range(4)]
    assert batches == [["sweep"], ["create"], ["sweep"], ["create"]]


def test_numbers_go_on_after_everything_was_acknowledged() -> None:
    store = adopted()
    store.add_operation(PK, "a", "create", b"{}", 1)
    store.take_batch(98, 100_000, "boot-2")
    store.drop_operation(store.in_flight[0].n)
    store.set_acked(2, "boot-2")
    again = opened(store.connection)
    assert again.epoch_next_u == 3
    assert again.add_operation(PK, "b", "create", b"{}", 1) == 3


def test_what_an_adopted_epoch_replaced_is_forgotten() -> None:
    store = opened()
    store.set_replaces("old")
    store.set_acked(0, None)
    assert store.identity.replaces is None
    assert opened(store.connection).identity == store.identity


def test_a_new_epoch_keeps_any_number_of_acknowledged_rows() -> None:
    """More than a statement of SQLite may have parameters."""
    store = adopted()
    with store.transaction():
        for number in range(40_000):
            store.execute(
                "INSERT INTO outbox VALUES(NULL, ?, 'epoch-1', ?, ?, 'create', x'7b7d', 1, 'boot-1', 2, 0, 0)",
                (number + 2, PK, f"{number:05}"),
            )
    store.load()
    keep = store.outbox(f"state={ACKED} AND u>2")
    with store.transaction():
        store.new_epoch("epoch-2", "epoch-1", keep, [])
    assert store.outbox() == keep
    assert memory_of(store) == fresh_memory(store.connection)


# Reading


@given(TEXT, TEXT)
def test_a_prefix_ends_after_everything_that_begins_with_it_and_nothing_else(prefix: str, text: str) -> None:
    connection = open_memory()
    connection.execute("CREATE TABLE t(sk TEXT PRIMARY KEY) WITHOUT ROWID")
    for value in {prefix + text, text}:
        connection.execute("INSERT INTO t VALUES(?)", (value,))
    found = connection.execute("SELECT sk FROM t WHERE sk>=? AND sk<? ORDER BY sk", (prefix, prefix_end(prefix)))
    assert [sk for (sk,) in found] == sorted(value for value in {prefix + text, text} if value.startswith(prefix))


# A failure at any statement leaves the file and the memory of it as before, or as after


def prepared() -> Store:
    """Something of everything: base items, rows of each state, cursors."""
    store = adopted()
    with store.transaction():
        for name in "abc":
            store.put_base(PK, name, b"{}", 1)
        store.set_cursor("device", "feed-1", 4, "models")
        store.set_cursor("account", "feed-2", 2, "models")
    for name in "abcd":
        store.add_operation(PK, name, "update", b"{}", 2)
    store.take_batch(3, 100_000, "boot-2")
    with store.transaction():
        store.mark_acked(store.in_flight[0].n)
        store.set_acked(2, "boot-2")
    store.in_flight = store.in_flight[1:]
    return store


def acknowledge(store: Store) -> None:
    rows = store.in_flight
    with store.transaction():
        store.drop_operation(rows[0].n)
        store.put_base(PK, rows[0].sk, b"[1]", 3)
        store.mark_acked(rows[1].n)
        store.bury(1, PK, rows[0].sk, "update", b"{}", 3, "size")
        store.set_acked(4, "boot-2")
    store.in_flight = []


def apply_rows(store: Store) -> None:
    with store.transaction():
        store.put_base(PK, "a", b"[2]", 3)
        store.delete_base(PK, "b")
        store.mark_seen(store.in_flight[0].n)
        letters.put_aside(store, 5, (PK, "c"), b"?", "malformed")
        store.set_cursor("device", "feed-1", 5, "models")
        store.set_cursor("account", "feed-3", 1, "models")


def renew(store: Store) -> None:
    pending: list[tuple[Kind, OutboxRow]] = [("create", row) for row in store.outbox(f"state={UNSENT}")]
    with store.transaction():
        store.drop_cursor("device")
        store.new_epoch("epoch-2", "epoch-1", store.outbox(f"state={ACKED}"), pending)
        store.rename_epoch("epoch-3")
        store.set_replaces("epoch-0")
        store.set_correction(77)


def send(store: Store) -> None:
    store.take_batch(98, 100_000, "boot-3")


def write(store: Store) -> None:
    store.add_operation(PK, "e", "create", b"{}", 9)


def change(store: Store) -> None:
    store.squash(store.outbox(f"state={UNSENT}")[0].n, "delete", None, 9)


def change_schema(store: Store) -> None:
    with store.transaction():
        store.drop_cursors_of_other_models({"device": "models", "account": "others"})


def waiting() -> Store:
    """Nothing in flight, something to send."""
    store = adopted()
    for name in "abcd":
        store.add_operation(PK, name, "update", b"{}", 2)
    return store


Prepare = Callable[[], Store]
Action = Callable[[Store], None]
TRANSACTIONS: Final[dict[str, tuple[Prepare, Action]]] = {
    "acknowledge": (prepared, acknowledge),
    "rows": (prepared, apply_rows),
    "new epoch": (prepared, renew),
    "send": (waiting, send),
    "write": (prepared, write),
    "change": (prepared, change),
    "other schema": (prepared, change_schema),
}


class Disk(Exception):
    """What a disk may answer: full, or broken."""


def fail_after(store: Store, statements: int) -> Callable[[], bool]:
    """The statement after so many raises Disk, once. Returns whether that has happened."""
    execute = store.execute
    left = statements

    def failing(sql: str, values: Any = (), /) -> sqlite3.Cursor:
        nonlocal left
        left -= 1
        if left == -1:
            raise Disk
        return execute(sql, values)

    store.execute = failing
    return lambda: left < 0


@pytest.mark.parametrize("name", TRANSACTIONS)
def test_a_failure_at_any_statement_leaves_all_as_before_and_memory_as_the_file(name: str) -> None:
    prepare, action = TRANSACTIONS[name]
    before, after = prepare(), prepare()
    action(after)
    assert dump(after.connection) != dump(before.connection)
    for statements in range(1_000):
        store = prepare()
        failed = fail_after(store, statements)
        with suppress(Disk):
            action(store)
        happened = failed()
        assert not store.connection.in_transaction
        assert memory_of(store) == fresh_memory(store.connection)
        assert dump(store.connection) == dump((before if happened else after).connection)
        if not happened:
            assert statements > 0
            return
    raise AssertionError("the failure never passes")


def test_a_commit_that_fails_is_undone() -> None:
    store = prepared()
    before = dump(store.connection)
    execute = store.execute

    def failing(sql: str, values: Any = (), /) -> sqlite3.Cursor:
        if sql == "COMMIT":
            raise sqlite3.OperationalError("database or disk is full")
        return execute(sql, values)

    store.execute = failing
    with pytest.raises(sqlite3.OperationalError, match="full"):
        apply_rows(store)
    store.execute = execute
    assert dump(store.connection) == before
    assert memory_of(store) == fresh_memory(store.connection)
    apply_rows(store)
    assert store.cursors["device"] == ("feed-1", 5)


# Dead letters


def test_a_row_set_aside_again_replaces_the_one_before() -> None:
    store = adopted()
    letters.put_aside(store, 1, (PK, "a"), b"?", "malformed")
    letters.put_aside(store, 2, (PK, "b"), b"?", "malformed")
    letters.put_aside(store, 3, (PK, "a"), None, "oversize")
    store.bury(4, PK, "a", "update", b"{}", 3, "size")
    assert [(dead.sk, dead.at_ms, dead.code) for dead in store.dead_letters()] == [
        ("b", 2, "malformed"),
        ("a", 3, "oversize"),
        ("a", 4, "size"),
    ]


# Answers from memory

WAYS = st.sampled_from(["put", "put large", "delete", "create", "remove", "undo", "sweep", "epoch"])
LARGE: Final = b"x" * 5_000


class _UndoneError(Exception):
    pass


def do(store: Store, way: str, sk: str, number: int) -> None:
    if way.startswith("put"):
        store.put_base(PK, sk, LARGE + b"%d" % number if way == "put large" else b"%d" % number, number)
    elif way == "delete":
        store.delete_base(PK, sk)
    elif way in ("create", "remove"):
        kind: Kind = "create" if way == "create" else "delete"
        store.add_operation(PK, sk, kind, b"own %d" % number if way == "create" else None, number)
    elif way == "undo":
        with suppress(_UndoneError), store.transaction():
            store.put_base(PK, sk, b"undone", number)
            store.delete_base(PK, "a")
            store.add_operation(PK, sk, "create", b"undone", number)
            raise _UndoneError
    elif way == "epoch":
        sweep = OutboxRow(0, 0, "", "", "", "sweep", None, 0, "", UNSENT, 0)
        with store.transaction():
            store.new_epoch(f"epoch {number}", None, [], [("sweep", sweep)])
    elif store.sweep_n:  # it is the first row, and travels alone
        (row,) = store.take_batch(98, 100_000, "boot-1")
        store.drop_operation(row.n)
        store.set_acked(row.u, row.id)
        store.in_flight = []


@given(st.lists(st.tuples(WAYS, st.sampled_from("abcdefg")), max_size=30))
def test_what_is_remembered_of_items_is_what_the_file_has(steps: list[tuple[str, str]]) -> None:
    store = opened()
    for number, (way, sk) in enumerate(steps):
        do(store, way, sk, number)
        fresh = Store(store.connection)
        fresh.load()
        assert memory_of(store) == memory_of(fresh)
        for name in "abcdefg":
            assert store.visible(PK, name) == fresh.visible(PK, name), (way, name)


def test_an_item_that_is_written_again_and_again_is_not_read_from_the_file() -> None:
    store = opened()
    store.put_base(PK, "status", b"{}", 1)
    for number in range(3):
        store.put_base(PK, f"other {number}", b"{}", 1)
    run: list[str] = []
    execute = store.execute

    def watched(sql: str, values: Any = (), /) -> sqlite3.Cursor:
        run.append(sql)
        return execute(sql, values)

    store.execute = watched
    assert store.visible(PK, "status").image == b"{}"
    assert run == []  # no statement for the outbox either: a sweep hides no item
    store.put_base(PK, "other 4", b"{}", 1)
    assert store.visible(PK, "status").image == b"{}"
    assert len(run) == 2  # only so many are remembered
