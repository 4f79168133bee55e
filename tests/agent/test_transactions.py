"""Several writes in one transaction: all of them are there, or none; triggers and sending wait for the commit."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import trio
from device_rig import Device, PowerCut, arm, fresh_memory, memory_of
from device_schema import WHOLE
from hypothesis import given
from hypothesis import strategies as st
from process_rig import until

from agent.database import Database
from agent.protocol.errors import ModelError
from agent.protocol.messages import Ack, Up
from agent.store import SENT, StoreError


def whole() -> Device:
    device = Device(schema=WHOLE)
    device.open()
    device.changes.clear()
    return device


def write_three(database: Database) -> None:
    """Of three models: local with indexes, up, both."""
    database.create("Task", {"area": "a", "id": "1", "rank": 1, "text": "t", "kind": "k"})
    database.create("Job", {"id": "1", "kind": "k", "rank": 2})
    database.upsert("Lease", {"id": "1", "rev": 1})


def test_the_writes_of_a_block_are_one_transaction() -> None:
    device = whole()
    database = device.database
    run: list[str] = []
    execute = database.store.execute

    def watched(sql: str, values: Any = (), /) -> Any:
        run.append(sql)
        return execute(sql, values)

    database.store.execute = watched
    with database.transaction():
        write_three(database)
        assert database.get("Job", {"id": "1"}) is not None, "a read in the block sees its writes"
        assert [item["id"] for item in database.find("Task", {"kind": "k"}, index="kinds")] == ["1"]
    assert [sql for sql in run if sql in ("BEGIN IMMEDIATE", "COMMIT")] == ["BEGIN IMMEDIATE", "COMMIT"]
    assert len(list(database.items())) == 3
    assert [row.sk for row in database.store.outbox("kind<>'sweep'")] == ["job#1", "lease#1"]


def test_an_exception_undoes_every_write_of_the_block() -> None:
    device = whole()
    database = device.database
    told: list[int] = []
    database.on_outbox = lambda: told.append(1)
    database.create("Job", {"id": "old", "kind": "k", "rank": 1})
    before, memory = device.dump(), memory_of(database.store)
    device.changes.clear()
    told.clear()
    with pytest.raises(ZeroDivisionError), database.transaction():
        write_three(database)
        database.update("Job", {"id": "old", "rank": 5})
        database.remove("Job", {"id": "old"})
        raise ZeroDivisionError
    assert (device.dump(), memory_of(database.store)) == (before, memory)
    assert (device.changes, told) == ([], [])
    assert [item["id"] for item in database.find("Job", {"kind": "k"}, index="kinds")] == ["old"]


def test_triggers_run_after_the_commit_in_the_order_of_the_writes() -> None:
    device = whole()
    database = device.database
    seen: list[tuple[str, str, bool]] = []
    database.on("*", "*", lambda c: seen.append((c.model, c.event, database.store.connection.in_transaction)))
    with database.transaction():
        write_three(database)
        database.update("Job", {"id": "1", "rank": 3})
        assert seen == []
    assert seen == [
        ("Task", "created", False),
        ("Job", "created", False),
        ("Lease", "created", False),
        ("Job", "updated", False),
    ]


def test_a_write_that_is_refused_leaves_the_others_of_the_block() -> None:
    device = whole()
    database = device.database
    with database.transaction():
        database.create("Job", {"id": "1"})
        with pytest.raises(ModelError):
            database.create("Job", {"id": "1"})
        with pytest.raises(ModelError):
            database.create("Offer", {"id": "1"})
        database.create("Job", {"id": "2"})
    assert [item["id"] for item in database.find("Job")] == ["1", "2"]


def test_transactions_do_not_nest_and_the_outer_one_goes_on() -> None:
    database = whole().database
    with database.transaction():
        database.create("Job", {"id": "1"})
        with pytest.raises(ModelError, match="do not nest") as caught, database.transaction():
            pass
        assert caught.value.code == "transaction"
        database.create("Job", {"id": "2"})
    assert len(list(database.find("Job"))) == 2
    with database.transaction():
        database.create("Job", {"id": "3"})
    assert len(list(database.find("Job"))) == 3


def test_a_write_that_fails_in_the_middle_takes_the_whole_block_with_it() -> None:
    """Also where the application swallows the error: half a write must not be committed."""
    device = whole()
    database = device.database
    before = device.dump()
    execute = database.store.execute

    def failing(sql: str, values: Any = (), /) -> Any:
        if "item_index" in sql:
            raise StoreError("the disk failed")
        return execute(sql, values)

    with pytest.raises(StoreError, match="do all of it again"), database.transaction():
        database.create("Job", {"id": "1"})
        database.store.execute = failing
        with pytest.raises(StoreError, match="the disk failed"):
            database.create("Task", {"area": "a", "id": "1", "text": "t"})
        database.store.execute = execute
    assert device.dump() == before
    assert memory_of(database.store) == fresh_memory(device.connection)
    database.create("Job", {"id": "1"})


@given(st.integers(0, 40))
def test_the_power_may_fail_at_any_statement_of_a_block(statements: int) -> None:
    device = whole()
    before = device.dump()
    arm(device.store, statements)
    try:
        with device.database.transaction():
            write_three(device.database)
            device.database.update("Task", {"area": "a", "id": "1", "rank": 7})
    except PowerCut:
        device.off()
        assert device.dump() == before
        assert memory_of(device.store) == fresh_memory(device.connection)
    else:
        assert statements > 8
        device.store.execute = device.connection.cursor().execute
        assert len(list(device.database.items())) == 3


def adopted() -> Device:
    """Nothing in flight, ready to send."""
    device = Device().boot()
    device.connect()
    device.hear(Ack(epoch=device.store.identity.epoch, up=0, now=device.set_ms))
    device.hear(Ack(epoch=device.store.identity.epoch, up=1, upid=device.session.boot_id, now=device.set_ms))
    device.sent()
    return device


def test_the_operations_of_a_block_go_out_in_one_batch_in_order() -> None:
    device = adopted()
    with device.database.transaction():
        device.database.create("Status", {"rev": 1})
        device.database.create("Setting", {"name": "a", "rev": 1})
        device.database.create("Fault", {"id": "x", "rev": 1})
        assert device.sent() == []
    (message,) = device.sent()
    assert isinstance(message, Up)
    assert [op.key[1] for op in message.ops] == ["status#", "setting#a", "fault#x"]
    assert all(row.state == SENT for row in device.store.outbox())


def test_a_write_after_a_block_that_was_undone_is_sent_at_once() -> None:
    device = adopted()
    with pytest.raises(ZeroDivisionError), device.database.transaction():
        device.database.create("Status", {"rev": 1})
        raise ZeroDivisionError
    device.database.create("Status", {"rev": 2})
    (message,) = device.sent()
    assert isinstance(message, Up) and [op.u for op in message.ops] == [2]


def test_what_a_failing_trigger_interrupts_is_still_sent_after_a_block() -> None:
    device = adopted()

    def broken(_: object) -> None:
        raise ZeroDivisionError

    device.database.on("Status", "created", broken)
    with pytest.raises(ZeroDivisionError), device.database.transaction():
        device.database.create("Status", {"rev": 1})
    assert len(device.sent()) == 1


# Threads


def test_threads_with_transactions_and_indexes_lose_nothing_and_see_whole_blocks() -> None:
    device = whole()
    database = device.database
    names = ("a", "b", "c")

    def writer(name: str) -> None:
        for number in range(40):
            with database.transaction():
                database.create("Task", {"area": name, "id": f"{number:03}", "kind": name, "rank": number})
                database.put("Job", {"id": f"{name}{number:03}", "kind": name, "rank": -number})
                database.put("Meter", {"id": "shared", "rev": number})

    def reader() -> None:
        for _ in range(40):
            with database.transaction():
                tasks = [len(list(database.find("Task", {"kind": name}, index="kinds"))) for name in names]
                jobs = [len(list(database.find("Job", {"kind": name}, index="kinds"))) for name in names]
                assert tasks == jobs
            database.find_one("Meter")

    errors: list[BaseException] = []

    def guarded(work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    works: list[Callable[[], None]] = [partial(writer, name) for name in names]
    threads = [threading.Thread(target=guarded, args=(work,)) for work in (*works, reader, reader)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert database.statistics().items_by_model == {"Job": 120, "Meter": 1, "Task": 120}
    assert database.check() == []
    assert memory_of(database.store) == fresh_memory(device.connection)


# trio


def test_a_program_on_trio_goes_on_while_the_database_works() -> None:
    """The pattern of docs/database.md: each piece of work, whole transactions too, in a thread of trio's."""
    database = whole().database

    def work(name: str) -> None:
        with database.transaction():
            for number in range(50):
                database.create("Job", {"id": f"{name}{number:03}", "rank": number})
            before = ticks
            until(lambda: ticks > before, "the program goes on", lambda: None)

    ticks = 0

    async def main() -> None:
        nonlocal ticks
        done = trio.Event()

        async def tick() -> None:
            nonlocal ticks
            while not done.is_set():
                await trio.lowlevel.checkpoint()
                ticks += 1

        async with trio.open_nursery() as ticking:
            ticking.start_soon(tick)
            async with trio.open_nursery() as working:
                for name in "abc":
                    working.start_soon(trio.to_thread.run_sync, work, name)
            done.set()

    trio.run(main)
    assert len(list(database.find("Job"))) == 150
    numbers = [row.sk[:5] for row in database.store.outbox("kind<>'sweep'")]
    assert [numbers[at : at + 50] for at in (0, 50, 100)] == [[text] * 50 for text in numbers[::50]], "blocks mixed"
