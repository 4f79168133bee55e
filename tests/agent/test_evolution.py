"""Schemas change, items stay: nothing is lost to a schema that does not know it, and what differs is told."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from agent.protocol.evolution import Difference, differences, inspect
from agent.protocol.onetable.attributes import from_attributes, to_attributes
from agent.protocol.schema import Context, Schema

ME = Context("dev1", "main")
OLD = """{
    version: '1', indexes: {primary: {hash: 'pk', sort: 'sk'}}, process: {Note: {sync: 'both'}, Gone: {sync: 'up'}},
    models: {
        Note: {
            pk: {type: 'string', value: 'device#${deviceId}'}, sk: {type: 'string', value: 'note#${id}'},
            deviceId: {type: 'string'}, id: {type: 'string'}, size: {type: 'number'}, at: {type: 'date'},
            limits: {type: 'object', partial: true, schema: {low: {type: 'number'}, high: {type: 'number'}}},
            list: {type: 'array', items: {type: 'string'}}, street: {type: 'string', map: 'a.s'},
        },
        Gone: {
            pk: {type: 'string', value: 'device#${deviceId}'}, sk: {type: 'string', value: 'gone#${id}'},
            id: {type: 'string'},
        },
        ByHand: {pk: {type: 'string'}, sk: {type: 'string'}, n: {type: 'number'}},
    },
}"""
NEW = (
    OLD.replace("size: {type: 'number'}", "size: {type: 'string'}, more: {type: 'set'}")
    .replace("at: {type: 'date'}", "at: {type: 'date', isoDates: true, map: 'when'}")
    .replace("low: {type: 'number'}, ", "")
    .replace("items: {type: 'string'}", "items: {type: 'number'}")
    .replace("map: 'a.s'", "map: 'a.t'")
    .replace("note#${id}", "note#${id}#")
    .replace("Note: {sync: 'both'}", "Note: {sync: 'up'}")
    .replace("Gone", "Came")
    .replace("gone#", "came#")
)


def parsed(text: str) -> Schema:
    return Schema.parse(text, "s")


def test_every_difference_is_told_with_what_follows_from_it() -> None:
    found = differences(parsed(OLD), parsed(NEW))
    assert found == [
        Difference("keys changed", "Note", "", "device#${deviceId} / note#${id}", "device#${deviceId} / note#${id}#"),
        Difference("sync changed", "Note", "", "both, both", "both, up"),
        Difference("type changed", "Note", "size", "number", "string"),
        Difference("type changed", "Note", "at", "date, milliseconds", "date, text"),
        Difference("attribute changed", "Note", "at", "at", "when"),
        Difference("field removed", "Note", "limits.low"),
        Difference("type changed", "Note", "list.items", "string", "number"),
        Difference("attribute changed", "Note", "street", "a.s", "a.t"),
        Difference("field added", "Note", "more"),
        Difference("model removed", "Gone"),
        Difference("model added", "Came"),
    ]
    assert str(found[5]) == "Note.limits.low: field removed: its stored values stay, and are carried through updates"
    assert str(found[2]).startswith("Note.size: type changed (number -> string): values of the old type are read as")
    assert differences(parsed(OLD), parsed(OLD)) == []


UNKNOWN: dict[str, Any] = {
    "later": {"M": {"deep": {"L": [{"B": b"\x00"}, {"NULL": True}, {"M": {"$B": {"S": "x"}}}]}}},
    "texts": {"SS": ["a", "b"]},
    "numbers": {"NS": ["1", "12345678901234567890123456789012345678"]},
    "bytes": {"BS": [b"", b"\xff"]},
    "blob": {"B": b"\xff\x00"},
    "exact": {"N": "0.1000000000000000055511151231257827"},
}


def test_what_a_schema_does_not_know_goes_through_a_device_and_back_unchanged() -> None:
    note = parsed(OLD).models["Note"]
    key, image = note.create({"id": "1", "limits": {"low": 1}, "street": "x"}, ME, 5, str)
    stored = {**to_attributes(image), **UNKNOWN}
    stored["limits"] = {"M": {**stored["limits"]["M"], "newer": {"SS": ["z"]}}}
    stored["a"] = {"M": {**stored["a"]["M"], "newer": {"B": b"1"}}}
    received = from_attributes(stored)
    note.check(key, received)
    changed = note.update(key, received, {"size": 3, "limits": {"high": 2}, "street": "y"}, ME, 6)
    note.check(key, changed)
    back = to_attributes(changed)
    assert {name: back[name] for name in UNKNOWN} == UNKNOWN
    assert back["limits"] == {"M": {"low": {"N": "1"}, "newer": {"SS": ["z"]}, "high": {"N": "2"}}}
    assert back["a"] == {"M": {"newer": {"B": b"1"}, "s": {"S": "y"}}}


@pytest.mark.parametrize("broken", [{"$SS": ["b", "a"]}, {"a": {"$N": "1"}}, [float("nan")]])
def test_what_no_table_could_hold_is_refused_also_where_no_schema_knows_it(broken: Any) -> None:
    note = parsed(OLD).models["Note"]
    key, image = note.create({"id": "1"}, ME, 5, str)
    for place in ("later", "limits", "list"):
        with pytest.raises(Exception, match="Note") as caught:
            note.check(key, {**image, place: {"x": broken} if place == "limits" else broken})
        assert getattr(caught.value, "code", "") == "type"


def test_a_value_of_another_type_is_read_as_it_is_and_stays_until_it_is_written() -> None:
    old = parsed(OLD)
    new = parsed(OLD.replace("size: {type: 'number'}", "size: {type: 'boolean'}"))
    date = datetime(2026, 1, 2, tzinfo=UTC)
    key, image = old.models["Note"].create({"id": "1", "size": 3, "at": date}, ME, 5, str)
    assert inspect(old, key, image).state == "fits"
    finding = inspect(new, key, image)
    assert (finding.state, list(finding.misfits)) == ("misfits", ["size"])
    assert str(finding) == "Note.size: expected true or false, found 3"
    model = new.models["Note"]
    assert model.read(key, image)["size"] == 3
    changed = model.update(key, image, {"street": "x"}, ME, 6)
    assert changed["size"] == 3
    assert model.update(key, changed, {"size": True}, ME, 7)["size"] is True
    assert inspect(new, key, model.update(key, changed, {"size": True}, ME, 7)).state == "fits"


def test_an_item_of_a_model_that_is_gone_is_told_and_kept() -> None:
    old, new = parsed(OLD), parsed(NEW)
    key, image = old.models["Gone"].create({"id": "1"}, ME, 5, str)
    assert new.locate(key) is None
    finding = inspect(new, key, image)
    assert (finding.state, finding.model) == ("no model", "Gone")
    assert str(finding) == "no model 'Gone' in the schema: the item is kept as it is"
    assert inspect(old, key, {**image, "_type": "Note"}).state == "another model"
    assert inspect(old, key, {**image, "_type": 5}).state == "no model"
    by_hand = old.models["ByHand"].create({"pk": "a", "sk": "b", "n": 1}, ME, 5, str)
    assert inspect(old, *by_hand).state == "fits"
    assert inspect(old, by_hand[0], {}).state == "no model"
