"""Export and import: what goes out comes in as it was; what cannot come in is told, and stops nothing else."""

from __future__ import annotations

import json
import re
from datetime import UTC
from typing import Any, Final

import pytest
from device_rig import Device, dump
from device_schema import WHOLE
from hypothesis import given
from hypothesis import strategies as st

from agent.protocol.schema import Schema
from agent.transfer import ROWS_MAX

RICH: Final = Schema.parse(
    """{
    format: 'onetable:1.1.0', version: '0.0.1', indexes: {primary: {hash: 'pk', sort: 'sk'}},
    params: {timestamps: true, isoDates: true}, process: {Thing: {enable: 'device'}},
    models: {Thing: {
        pk: {type: 'string', value: 'thing#'}, sk: {type: 'string', value: '${id}'},
        id: {type: 'string', required: true}, when: {type: 'date'}, data: {type: 'buffer'}, tags: {type: 'set'},
        number: {type: 'number'}, secret: {type: 'string', hidden: true}, any: {type: 'object'}}},
    }""",
    "rich.json5",
)
TEXT: Final = st.characters(exclude_categories=["Cs"])
WHOLE_NUMBERS: Final = st.integers(-(10**30), 10**30)
THINGS: Final = st.fixed_dictionaries(
    {"id": st.text(TEXT, min_size=1, max_size=8)},
    optional={
        "when": st.datetimes(timezones=st.just(UTC)),
        "data": st.binary(max_size=9),
        "tags": st.sets(st.text(TEXT, max_size=4), min_size=1)
        | st.sets(st.binary(max_size=3), min_size=1)
        | st.sets(WHOLE_NUMBERS, min_size=1),
        "number": WHOLE_NUMBERS | st.decimals(-1000, 1000, places=3) | st.integers(-9999, 9999).map(lambda n: n / 8),
        "secret": st.text("ab"),
        "any": st.dictionaries(st.sampled_from(["a", "$B", "$$B"]), st.integers(0, 9) | st.binary(max_size=3)),
    },
)


def lines(database: Any) -> list[str]:
    return [json.dumps(row, allow_nan=False) for row in database.export_items()]


@given(st.lists(THINGS, max_size=5, unique_by=lambda thing: thing["id"]))
def test_what_was_exported_is_imported_as_it_was(things: list[dict[str, Any]]) -> None:
    source = Device(schema=RICH).open()
    for thing in things:
        source.create("Thing", thing)
    target = Device(schema=RICH).open()
    result = target.import_items(json.loads(line) for line in lines(source))
    assert (result.created, result.refused) == (len(things), [])
    assert list(target.find("Thing")) == list(source.find("Thing"))
    assert [image.get("secret") for _, _, image in target.items()] == [i.get("secret") for _, _, i in source.items()]
    again = target.import_items(json.loads(line) for line in lines(source))
    assert (again.created, again.updated, again.unchanged) == (0, 0, len(things))


def test_an_import_is_an_own_write_of_each_item() -> None:
    source, device = Device(schema=WHOLE).open(), Device(schema=WHOLE)
    source.create("Job", {"id": "a", "rank": 1})
    source.create("Job", {"id": "b", "rank": 1})
    source.create("Task", {"area": "x", "id": "a", "kind": "k", "rank": 1})
    target = device.open()
    target.create("Job", {"id": "b", "rank": 2})
    device.changes.clear()
    result = target.import_items(source.export_items())
    assert (result.created, result.updated, result.unchanged) == (2, 1, 0)
    assert [(change.event, change.key[1]) for change in device.changes] == [
        ("created", "job#a"),
        ("updated", "job#b"),
        ("created", "task#x#a"),
    ]
    assert sorted(row.sk for row in target.store.outbox("kind<>'sweep'")) == ["job#a", "job#b"]
    assert [item["id"] for item in target.find("Task", {"kind": "k"}, index="kinds")] == ["a"]
    assert target.check() == []


def test_attributes_that_the_schema_does_not_know_are_kept() -> None:
    source, target = Device(schema=WHOLE).open(), Device(schema=WHOLE).open()
    source.create("Job", {"id": "a"})
    (row,) = source.export_items()
    row["item"]["colour"] = "red"
    assert target.import_items([row]).created == 1
    ((_, _, image),) = target.items()
    assert image["colour"] == "red"


GOOD: Final[dict[str, Any]] = {
    "model": "Job",
    "key": ["device#home-1", "job#a"],
    "item": {"_type": "Job", "deviceId": "home-1", "id": "a"},
}
BAD: Final[dict[str, tuple[Any, str]]] = {
    "no object": ("text", "expected an object"),
    "no model": ({**GOOD, "model": None}, "not a name"),
    "an unknown model": ({**GOOD, "model": "Nothing"}, "no model"),
    "no key": ({**GOOD, "key": "job#a"}, "not \\[pk, sk\\]"),
    "another model's key": ({**GOOD, "key": ["device#home-1", "meter#a"]}, "key of Meter"),
    "another device's item": ({**GOOD, "key": ["device#home-2", "job#a"]}, "another device's"),
    "a key that does not agree": ({**GOOD, "key": ["device#home-1", "job#b"]}, "does not agree"),
    "no item": ({**GOOD, "item": []}, "not an object"),
    "a wrong type": ({**GOOD, "item": {**GOOD["item"], "rank": "x"}}, "rank"),
    "a required field that is missing": ({**GOOD, "item": {"_type": "Job", "deviceId": "home-1"}}, "required"),
    "what JSON has not": ({**GOOD, "item": {**GOOD["item"], "kind": object()}}, "Job"),
    "text that is no Unicode": ({**GOOD, "item": {**GOOD["item"], "kind": "\ud800"}}, "Job"),
    "too large": ({**GOOD, "item": {**GOOD["item"], "x": "x" * 99_000}}, "at most"),
    "what only comes down": (
        {"model": "Offer", "key": ["device#home-1", "offer#a"],
         "item": {"_type": "Offer", "deviceId": "home-1", "id": "a"}}, "syncs down"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_imported_is_told_and_stops_nothing_else(name: str) -> None:
    device = Device(schema=WHOLE)
    database = device.open()
    row, words = BAD[name]
    result = database.import_items([row, GOOD])
    assert result.created == 1
    ((number, reason),) = result.refused
    assert number == 1
    assert re.search(words, reason), reason
    assert [key[1] for _, key, _ in database.items()] == ["job#a"]


def test_an_import_may_be_large_and_an_error_of_its_source_undoes_only_what_was_not_complete() -> None:
    database = Device(schema=WHOLE).open()

    def rows() -> Any:
        for number in range(ROWS_MAX + 9):
            name = f"{number:05}"
            yield {**GOOD, "key": ["device#home-1", f"job#{name}"], "item": {**GOOD["item"], "id": name}}
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        database.import_items(rows())
    assert len(list(database.find("Job"))) == ROWS_MAX
    before = dump(database.store.connection)
    assert before["item"] == []
