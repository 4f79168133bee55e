"""What an application may pass in by mistake: a clear ModelError, the transaction undone, the file unharmed."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

import pytest
from device_rig import Device, memory_of
from device_schema import WHOLE
from hypothesis import given
from hypothesis import strategies as st

from agent.database import LOCAL_ITEM_BYTES_MAX, Database
from agent.protocol.errors import ModelError
from agent.protocol.messages import ITEM_BYTES_MAX

JOB: Final[dict[str, Any]] = {"id": "a"}
# (model, properties, the error's code)
BAD: Final[dict[str, tuple[str, Any, str]]] = {
    "an unknown model": ("Nothing", JOB, "model"),
    "a wrong type": ("Job", {**JOB, "rank": "x"}, "type"),
    "a truth for a number": ("Job", {**JOB, "rank": True}, "type"),
    "a missing required field": ("Task", {"id": "a"}, "required"),
    "a key without its variable": ("Job", {}, "required"),
    "no number": ("Job", {**JOB, "rank": float("nan")}, "type"),
    "an endless number": ("Job", {**JOB, "rank": float("inf")}, "type"),
    "a number out of range": ("Job", {**JOB, "rank": 10**130}, "type"),
    "a date for a number": ("Job", {**JOB, "rank": datetime(2026, 1, 1, tzinfo=UTC)}, "type"),
    "a date without a zone": ("Lease", {**JOB, "ttl": datetime(2026, 1, 1)}, "type"),
    "a number for a date": ("Lease", {**JOB, "ttl": 10**20}, "type"),
    "half a surrogate": ("Job", {**JOB, "kind": "a\ud800"}, "type"),
    "half a surrogate in a key": ("Job", {"id": "\udfff"}, "type"),
    "a key over its limit": ("Job", {"id": "k" * 1_100}, "key"),
    "a key over its limit in bytes": ("Job", {"id": "é" * 600}, "key"),
    "a synced item over its limit": ("Job", JOB, "size"),
    "a local item over its limit": ("Task", {"area": "a", "id": "a"}, "size"),
    "what only comes down": ("Offer", JOB, "direction"),
    "what only comes down, into memory": ("Weather", JOB, "direction"),
    "no properties": ("Job", None, "type"),
    "a list of properties": ("Job", ["id"], "type"),
    "a foreign object": ("Job", {**JOB, "kind": object()}, "type"),
}


def too_large(model: str, properties: Any, code: str) -> Any:
    if code != "size":
        return properties
    return {**properties, "body": "x" * (ITEM_BYTES_MAX if model == "Job" else LOCAL_ITEM_BYTES_MAX)}


@pytest.fixture
def device() -> Device:
    made = Device(schema=WHOLE)
    database = made.open()
    database.create("Job", {"id": "there", "rank": 1, "kind": "k"})
    made.changes.clear()
    return made


def refused(device: Device, call: Callable[[], object]) -> ModelError:
    before, memory = device.dump(), memory_of(device.store)
    with pytest.raises(ModelError) as caught:
        call()
    assert (device.dump(), memory_of(device.store)) == (before, memory)
    assert not device.connection.in_transaction
    assert device.changes == []
    assert device.database.check() == []
    return caught.value


@pytest.mark.parametrize("action", ["create", "upsert", "put"])
@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_and_changes_nothing(device: Device, name: str, action: str) -> None:
    model, properties, code = BAD[name]
    error = refused(device, lambda: getattr(device.database, action)(model, too_large(model, properties, code)))
    assert error.code in ((code, "key") if code == "required" else (code,)), error
    assert str(error)


@pytest.mark.parametrize("name", BAD)
def test_bad_input_undoes_the_whole_transaction_that_it_ends(device: Device, name: str) -> None:
    model, properties, code = BAD[name]

    def block() -> None:
        with device.database.transaction():
            device.database.create("Job", {"id": "b"})
            device.database.create(model, too_large(model, properties, code))

    refused(device, block)


def test_an_update_that_is_refused_changes_nothing(device: Device) -> None:
    for properties in (
        {"id": "there", "rank": "x"},
        {"id": "missing"},
        {"id": "there", "body": "x" * ITEM_BYTES_MAX},
        {"id": "there", "sk": "job#other"},
    ):
        refused(device, lambda given=properties: device.database.update("Job", given))  # type: ignore[misc]


ANYTHING: Final = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=5)
    | st.binary(max_size=5) | st.datetimes() | st.just(object()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
CALLS: Final = ("create", "update", "upsert", "put", "remove", "get", "find", "find_one")


@given(
    st.sampled_from(CALLS),
    st.sampled_from(["Task", "Job", "User", "Lease", "Meter", "Note", "Offer"]),
    ANYTHING | st.dictionaries(st.sampled_from(["id", "area", "kind", "rank", "ttl", "pk", "sk", "email"]), ANYTHING),
)
def test_whatever_is_passed_in_the_answer_is_a_result_or_a_model_error(call: str, model: str, given_: Any) -> None:
    database = Device(schema=WHOLE).open()
    try:
        found = getattr(database, call)(model, given_)
        if call == "find":
            list(found)
    except ModelError as error:
        assert error.code
    assert database.check() == []


def test_a_callback_for_what_does_not_happen_is_refused(device: Device) -> None:
    with pytest.raises(ModelError) as caught:
        device.database.on("Job", "exploded", lambda change: None)
    assert caught.value.code == "event"
    with pytest.raises(ModelError):
        device.database.on("Nothing", "created", lambda change: None)


# Taking triggers off again


def test_a_trigger_that_was_taken_off_is_not_called_and_others_are(device: Device) -> None:
    database: Database = device.database
    heard: list[str] = []

    def hear(change: Any) -> None:
        heard.append(change.event)

    first, second = database.on("Job", "created", hear), database.on("Job", "created", hear)
    database.create("Job", {"id": "1"})
    assert heard == ["created", "created"]
    first()
    first()
    database.create("Job", {"id": "2"})
    assert len(heard) == 3
    second()
    database.create("Job", {"id": "3"})
    assert len(heard) == 3


def test_a_trigger_may_take_itself_off(device: Device) -> None:
    heard: list[int] = []

    def hear(_: object) -> None:
        heard.append(1)
        off()

    off = device.database.on("Job", "*", hear)
    device.database.create("Job", {"id": "1"})
    device.database.create("Job", {"id": "2"})
    assert heard == [1]
