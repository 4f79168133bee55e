"""The database as an application sees it: what it writes is what it reads, whatever lies in base and outbox."""

from __future__ import annotations

import threading
from collections.abc import Callable
from itertools import pairwise
from typing import Any, Final

import pytest
from device_rig import Device, fresh_memory, memory_of
from hypothesis import given
from hypothesis import strategies as st
from relay_rig import NOW_MS

from agent.changes import Change
from agent.database import FIND_PAGE_ITEMS, LOCAL_ITEM_BYTES_MAX, Database
from agent.events import LOCAL_CHANGE
from agent.ids import generator
from agent.protocol.errors import ModelError
from agent.protocol.messages import ITEM_BYTES_MAX, Ack, Rows, decode_image, encode_image
from agent.protocol.schema import Schema
from agent.store import ACKED, SENT, UNSENT
from fleet.rng import rng

KEYED_BY_HAND: Final = """{
    format: 'onetable:1.1.0', version: '0.0.1', indexes: {primary: {hash: 'pk', sort: 'sk'}},
    process: {Note: {enable: 'device'}},
    models: {Note: {pk: {type: 'string'}, sk: {type: 'string'}, text: {type: 'string'}}},
}"""


@pytest.fixture
def device() -> Device:
    made = Device()
    made.open()
    return made


@pytest.fixture
def database(device: Device) -> Database:
    return device.database


def kinds(database: Database) -> list[str]:
    return [row.kind for row in database.store.outbox("kind<>'sweep'")]


# Writing


def test_a_write_is_read_at_once_and_after_reopening(device: Device) -> None:
    written = device.database.create("Status", {"rev": 1, "text": "up"})
    assert device.database.get("Status", {}) == written
    again = Device(connection=device.connection)
    assert again.open().get("Status", {}) == written


def test_each_write_of_an_up_or_both_model_puts_one_operation(database: Database) -> None:
    database.create("Status", {"rev": 1})
    database.create("Setting", {"name": "a", "rev": 2})
    database.create("Diagnostic", {"name": "a", "rev": 3})
    assert [(row.sk, row.kind) for row in database.store.outbox("kind<>'sweep'")] == [
        ("status#", "create"),
        ("setting#a", "create"),
    ]


def test_what_syncs_down_cannot_be_written(database: Database) -> None:
    for model, properties in (("Config", {"rev": 1}), ("Notice", {"id": "a", "rev": 1})):
        with pytest.raises(ModelError) as caught:
            database.create(model, properties)
        assert caught.value.code == "direction"
    assert not list(database.items())


def test_a_model_of_the_cloud_alone_and_an_unknown_one_are_refused(database: Database) -> None:
    for model in ("Audit", "Nothing"):
        with pytest.raises(ModelError) as caught:
            database.get(model, {"id": "a"})
        assert caught.value.code == "model"


def test_what_exists_is_not_created_and_what_is_missing_not_updated(database: Database) -> None:
    with pytest.raises(ModelError) as caught:
        database.update("Status", {"rev": 1})
    assert caught.value.code == "missing"
    assert not database.remove("Status", {})
    database.create("Status", {"rev": 1})
    with pytest.raises(ModelError) as caught:
        database.create("Status", {"rev": 2})
    assert caught.value.code == "exists"
    assert kinds(database) == ["create"]
    assert database.remove("Status", {})
    assert database.get("Status", {}) is None


def test_a_synced_item_may_be_as_large_as_the_wire_takes_and_no_larger(database: Database) -> None:
    item = database.create("Setting", {"name": "a", "rev": 1, "text": ""})
    assert item["text"] == ""
    stored = database.store.visible("device#home-1", "setting#a").image
    room = ITEM_BYTES_MAX - len(stored or b"")
    database.update("Setting", {"name": "a", "text": "x" * room})
    with pytest.raises(ModelError) as caught:
        database.update("Setting", {"name": "a", "text": "x" * (room + 1)})
    assert caught.value.code == "size"
    database.create("Diagnostic", {"name": "a", "rev": 1, "text": "x" * ITEM_BYTES_MAX})
    with pytest.raises(ModelError):
        database.update("Diagnostic", {"name": "a", "text": "x" * LOCAL_ITEM_BYTES_MAX})


def test_a_sent_row_never_changes(device: Device) -> None:
    database = device.database
    database.create("Setting", {"name": "a", "rev": 1})
    rows = database.store.take_batch(98, 100_000, "boot") and database.store.take_batch(98, 100_000, "boot")
    database.update("Setting", {"name": "a", "rev": 2})
    database.update("Setting", {"name": "a", "rev": 3})
    assert database.store.outbox(f"state={SENT} AND kind<>'sweep'") == rows
    assert kinds(database) == ["create", "update"]


def test_an_update_carries_attributes_that_the_schema_does_not_know(database: Database) -> None:
    image = {"_type": "Setting", "deviceId": "home-1", "name": "a", "rev": 1, "updated": 5, "colour": "red"}
    database.store.put_base("device#home-1", "setting#a", encode_image(image), 5)
    database.update("Setting", {"name": "a", "rev": 2})
    kept = decode_image(database.store.visible("device#home-1", "setting#a").image or b"")
    assert (kept["colour"], kept["rev"]) == ("red", 2)


@given(st.lists(st.tuples(st.sampled_from(["write", "remove"]), st.integers(-5_000, 5_000)), max_size=12))
def test_stamps_of_an_item_only_grow_however_the_clock_jumps(steps: list[tuple[str, int]]) -> None:
    device = Device()
    database = device.open()
    stamps: list[int] = []
    for action, jump_ms in steps:
        device.set_ms += jump_ms
        if action == "write":
            database.upsert("Setting", {"name": "a", "rev": 1})
        else:
            database.remove("Setting", {"name": "a"})
        stamps.append(database.store.visible("device#home-1", "setting#a").updated)
        image = database.store.visible("device#home-1", "setting#a").image
        assert image is None or decode_image(image)["updated"] == stamps[-1]
    removes = [action == "remove" for action, _ in steps]
    for (before, after), removed in zip(pairwise(stamps), removes[1:], strict=True):
        assert after > before or (removed and after == before)


def test_a_clock_before_1970_makes_ids() -> None:
    assert len(generator(rng(1, "a", "b"), lambda: -5)("ulid")) == 26


# Triggers


def test_a_trigger_sees_the_write_committed(device: Device) -> None:
    seen: list[tuple[str, Any]] = []
    database = device.database
    database.on("Status", "*", lambda change: seen.append((change.event, database.get("Status", {}))))
    database.create("Status", {"rev": 1})
    database.update("Status", {"rev": 2})
    database.remove("Status", {})
    assert [(event, item and item["rev"]) for event, item in seen] == [
        ("created", 1),
        ("updated", 2),
        ("removed", None),
    ]


def test_a_change_tells_before_and_after(device: Device) -> None:
    device.database.create("Status", {"rev": 1})
    device.database.update("Status", {"rev": 2})
    created, updated = device.changes
    assert (created.before, created.image and created.image["rev"]) == (None, 1)
    assert (updated.before and updated.before["rev"], updated.image and updated.image["rev"]) == (1, 2)


def void(_: object) -> None:
    """For a function whose result is not wanted."""


def broken(change: Change) -> None:
    raise ZeroDivisionError


def test_a_failing_trigger_is_reported_and_harms_nobody_else(device: Device) -> None:
    database, errors = device.database, []
    database.on("Status", "created", broken)
    database.on_callback_error = lambda change, error: errors.append((change.event, type(error)))
    device.changes.clear()
    heard: list[Change] = []
    database.on("Status", "created", heard.append)
    database.create("Status", {"rev": 1})
    assert errors == [("created", ZeroDivisionError)]
    assert len(heard) == 1


def test_what_a_failing_trigger_interrupts_is_still_sent(database: Database) -> None:
    told: list[int] = []
    database.on_outbox = lambda: told.append(1)
    database.on("Status", "created", broken)
    with pytest.raises(ZeroDivisionError):
        database.create("Status", {"rev": 1})
    assert told == [1]
    assert database.get("Status", {}) is not None


def test_a_trigger_may_write(device: Device) -> None:
    device.boot()
    database = device.database
    database.on("Setting", "created", lambda change: void(database.create("Status", {"rev": 2})))
    database.create("Setting", {"name": "a", "rev": 1})
    assert [key[1] for key in device.visible()] == ["setting#a", "status#"]


# Reading: base and overlay together are one table

NAMES: Final = st.text(st.sampled_from("ab\U0010ffff#é"), min_size=1, max_size=2)
STEPS: Final = st.lists(
    st.tuples(NAMES, st.sampled_from(["base", "gone", "write", "remove", "send", "seen", "acked"])), max_size=24
)


Own = list[tuple[int, int | None]]  # (state, rev or None for a delete) of one item's operations, oldest first


def unsent_left_out(own: Own) -> Own:
    return own[:-1] if own and own[-1][0] == UNSENT else own


def built(steps: list[tuple[str, str]]) -> tuple[Database, dict[str, int]]:
    """A database after `steps`, and by a plain dict what it must show: name -> rev."""
    device = Device()
    database = device.open()
    store = database.store
    store.take_batch(98, 100_000, "boot")
    store.drop_operation(1)
    store.in_flight = []
    base: dict[str, int] = {}
    overlay: dict[str, Own] = {}
    for rev, (name, action) in enumerate(steps, 1):
        pk, sk = "device#home-1", f"setting#{name}"
        image = {"_type": "Setting", "deviceId": "home-1", "name": name, "rev": rev, "updated": NOW_MS}
        own = overlay.setdefault(name, [])
        if action == "base":
            store.put_base(pk, sk, encode_image(image), NOW_MS)
            base[name] = rev
        elif action == "gone":
            store.delete_base(pk, sk)
            base.pop(name, None)
        elif action == "write":
            database.upsert("Setting", {"name": name, "rev": rev})
            overlay[name] = [*unsent_left_out(own), (UNSENT, rev)]
        elif action == "remove":
            if database.remove("Setting", {"name": name}):
                overlay[name] = [*unsent_left_out(own), (UNSENT, None)]
        elif own:
            state = {"send": SENT, "seen": SENT, "acked": ACKED}[action]
            row = store.outbox("pk=? AND sk=? AND seen=0", (pk, sk))[-1]
            store.execute("UPDATE outbox SET state=?, seen=? WHERE n=?", (state, action == "seen", row.n))
            overlay[name] = [*own[:-1], *([] if action == "seen" else [(state, own[-1][1])])]
            store.load()
    shown = {name: own[-1][1] if own else base.get(name) for name, own in overlay.items()}
    return database, {name: rev for name, rev in shown.items() if rev is not None}


@given(STEPS)
def test_find_shows_what_get_shows_in_order_of_the_sort_key(steps: list[tuple[str, str]]) -> None:
    database, expected = built(steps)
    found = [(item["name"], item["rev"]) for item in database.find("Setting")]
    assert found == sorted(expected.items())
    for name in {name for name, _ in steps}:
        item = database.get("Setting", {"name": name})
        assert (item and item["rev"]) == expected.get(name)
    assert {key[1]: image["rev"] for _, key, image in database.items()} == {
        f"setting#{name}": rev for name, rev in expected.items()
    }


@given(STEPS, NAMES, st.integers(0, 5))
def test_find_goes_on_after_a_sort_key_and_stops_at_its_limit(
    steps: list[tuple[str, str]], after: str, limit: int
) -> None:
    database, expected = built(steps)
    found = [item["name"] for item in database.find("Setting", after=f"setting#{after}", limit=limit)]
    assert found == [name for name in sorted(expected) if name > after][:limit]


@given(STEPS, NAMES)
def test_find_by_the_sort_key_s_variable_finds_that_item_alone(steps: list[tuple[str, str]], name: str) -> None:
    database, expected = built(steps)
    assert [item["name"] for item in database.find("Setting", {"name": name})] == [name] * (name in expected)


def test_find_chooses_by_any_field_and_by_a_function(database: Database) -> None:
    for number in range(6):
        database.create("Setting", {"name": str(number), "rev": number, "level": number % 2})
    assert [item["rev"] for item in database.find("Setting", {"level": 1})] == [1, 3, 5]
    assert [
        item["rev"] for item in database.find("Setting", {"level": 1}, where=lambda item: bool(item["rev"] > 1))
    ] == [
        3,
        5,
    ]
    assert [item["rev"] for item in database.find("Setting", {"level": 1}, limit=2)] == [1, 3]
    assert [item["rev"] for item in database.find("Setting", {"sk": "setting#3"})] == [3]


def test_find_reads_page_after_page(database: Database) -> None:
    count = 2 * FIND_PAGE_ITEMS + 1
    for number in range(count):
        database.create("Fault", {"id": f"{number:04}", "rev": number})
    assert [item["rev"] for item in database.find("Fault")] == list(range(count))


def test_find_keeps_to_its_model(database: Database) -> None:
    database.create("Setting", {"name": "a", "rev": 1})
    database.create("Diagnostic", {"name": "a", "rev": 2})
    database.create("Fault", {"id": "a", "rev": 3})
    assert [item["rev"] for item in database.find("Diagnostic")] == [2]


def test_find_of_an_unknown_model_fails_at_the_call(database: Database) -> None:
    with pytest.raises(ModelError):
        database.find("Nothing")


def test_items_may_change_while_find_reads(database: Database) -> None:
    for number in range(3 * FIND_PAGE_ITEMS):
        database.create("Fault", {"id": f"{number:04}", "rev": number})
    seen: list[int] = []
    for item in database.find("Fault"):
        seen.append(item["rev"])
        database.remove("Fault", {"id": item["id"]})
    assert seen == list(range(3 * FIND_PAGE_ITEMS))
    assert list(database.find("Fault")) == []


def test_a_model_whose_keys_are_given_by_hand_is_found_by_its_type() -> None:
    device = Device(schema=Schema.parse(KEYED_BY_HAND, "schema.json5"))
    database = device.open()
    database.create("Note", {"pk": "a", "sk": "1", "text": "x"})
    assert [item["text"] for item in database.find("Note", {"pk": "a"})] == ["x"]
    with pytest.raises(ModelError):
        database.find("Note")


# Threads


def together(*tasks: Callable[[], None]) -> None:
    """Runs all at once; what one raises is raised here."""
    errors: list[BaseException] = []

    def guarded(task: Callable[[], None]) -> None:
        try:
            task()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(task,)) for task in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def test_threads_that_write_at_once_lose_nothing() -> None:
    device = Device()
    database = device.open()
    count = 200

    def writer(name: str) -> Callable[[], None]:
        def write() -> None:
            for number in range(count):
                database.create("Fault", {"id": f"{name}{number:04}", "rev": number})
                database.upsert("Setting", {"name": "shared", "rev": number})

        return write

    def reader() -> None:
        for _ in range(30):
            found = [item["rev"] for item in database.find("Fault", where=lambda item: item["id"] < "b")]
            assert found == list(range(len(found)))
            list(database.items())

    together(writer("a"), writer("b"), reader)
    assert len(list(database.find("Fault"))) == 2 * count
    assert [row.u for row in database.store.outbox()] == list(range(1, 2 * count + 3))
    assert memory_of(database.store) == fresh_memory(device.connection)


def test_the_session_and_an_application_s_thread_do_not_disturb_each_other() -> None:
    device = Device().boot()
    device.connect()
    epoch = device.store.identity.epoch
    device.hear(Ack(epoch=epoch, up=0, now=NOW_MS))
    device.store.set_cursor("device", "f", 0, "m")
    database = device.database
    database.on_outbox = lambda: None

    def write() -> None:
        for number in range(300):
            database.create("Fault", {"id": f"{number:04}", "rev": number})

    def listen() -> None:
        for number in range(300):
            device.hear(Rows(feed="device", epoch="f", a=number, b=number + 1, last=number + 1, rows=[]))
            device.feed(LOCAL_CHANGE)

    together(write, listen)
    assert device.store.cursors["device"] == ("f", 300)
    assert len(list(database.find("Fault"))) == 300
    assert memory_of(database.store) == fresh_memory(device.connection)
