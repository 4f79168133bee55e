"""What the JavaScript library stores, we store: attribute for attribute, for the same schema and the same input.

javascript_items.json holds the items that version 2.7.7 of the library made of the inputs below (the parameters of its
put requests; bytes as hexadecimal text). Both ways: our item equals its, and its item reads as what was written.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pytest

from agent.protocol.onetable.attributes import from_item, to_item
from agent.protocol.onetable.dates import iso_ms
from agent.protocol.schema import Context, Model, Schema

ME = Context("dev1", "")
DATE = datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)
RECORDED: Final = json.loads((Path(__file__).parent / "javascript_items.json").read_text("utf-8"))
SCHEMA: Final = """{
    format: 'onetable:1.1.0', version: '0.0.1',
    indexes: {primary: {hash: 'pk', sort: 'sk'}, gs1: {hash: 'gs1pk', sort: 'gs1sk'}},
    params: PARAMS,
    models: {Item: {
        pk: {type: 'string', value: 'device#${deviceId}'}, sk: {type: 'string', value: 'item#${id}'},
        gs1pk: {type: 'string', value: 'k#${kind}'},
        gs1sk: {type: 'string', value: '${count:6:0}#${limits.low}#${at}'},
        deviceId: {type: 'string', required: true}, id: {type: 'string', encode: ['sk', '#', 1]},
        kind: {type: 'string', default: 'a'}, count: {type: 'number'}, flag: {type: 'boolean'}, at: {type: 'date'},
        iso: {type: 'date', isoDates: true}, expires: {type: 'date', ttl: true}, tags: {type: 'set'},
        nums: {type: 'set'}, buf: {type: 'buffer'}, raw: {type: 'binary'}, list: {type: 'array'},
        any: {type: 'object'}, gone: {type: 'string', nulls: true}, drop: {type: 'string'},
        limits: {type: 'object', required: true, schema: {
            low: {type: 'number'}, high: {type: 'number', default: 9},
            label: {type: 'string', value: '${low}-${high}'}, when: {type: 'date'}}},
        items: {type: 'array', items: {type: 'object', schema: {
            n: {type: 'number'}, d: {type: 'string', default: 'D'}}}},
        street: {type: 'string', map: 'address.s'}, zip: {type: 'string', map: 'address.z'},
        note: {type: 'string', map: 'n'}, stamp: {type: 'string', value: '${created}'},
    }},
}"""
INPUTS: Final[dict[str, dict[str, Any]]] = {
    "1": {
        "count": 5, "flag": True, "at": DATE, "iso": DATE, "expires": DATE, "tags": {"b", "a"}, "nums": {2, 1.5},
        "buf": b"\x00\xff", "raw": b"\x01\x02", "list": [1, "x", {"a": DATE}], "any": {"b": DATE, "c": None,
        "n": {"x": 1.5}}, "gone": None, "drop": None, "limits": {"low": 1, "when": DATE, "zzz": 1},
        "items": [{"n": 1}, {"n": 2, "d": "x", "q": 1}], "street": "s", "zip": "z", "note": "n", "unknown": 1,
    },
    "2": {"street": "", "zip": "z", "limits": {}, "count": 0, "any": {}},
    "3": {"kind": None, "street": "a", "zip": "b", "limits": {"low": None, "high": None}},
}  # fmt: skip


def model_with(params: dict[str, Any]) -> Model:
    text = SCHEMA.replace("PARAMS", json.dumps(params))
    if params.get("timestamps") is False:  # a template of a stamp that is never set: refused, there it is never filled
        text = text.replace(", stamp: {type: 'string', value: '${created}'}", "")
    return Schema.parse(text, "s").models["Item"]


def as_client(item: dict[str, Any]) -> dict[str, Any]:
    """As the service's client gives an item: bytes are bytes."""
    return {name: {"B": bytes.fromhex(value["B"])} if "B" in value else value for name, value in item.items()}


def in_order(item: dict[str, Any]) -> dict[str, Any]:
    """Sets have no order."""
    return {
        name: {kind: sorted(value) if kind in ("SS", "NS") else value for kind, value in attribute.items()}
        for name, attribute in item.items()
    }


def stamp_ms(item: dict[str, Any]) -> int:
    created = item.get("created", {"N": "0"})
    return int(created["N"]) if "N" in created else iso_ms(created["S"]) or 0


@pytest.mark.parametrize("row", RECORDED, ids=lambda row: f"{row['params']}-{row['id']}")
def test_an_item_is_the_one_that_the_javascript_library_stores(row: dict[str, Any]) -> None:
    model = model_with(row["params"])
    props = {"id": row["id"], **INPUTS[row["id"]]}
    key, image = model.create(props, ME, stamp_ms(row["item"]), str)
    ours, theirs = to_item(key, image), as_client(row["item"])
    # The one difference that is meant: of bytes that are no Buffer it makes binary. We read both and write text.
    if "raw" in theirs:
        assert (ours.pop("raw"), theirs.pop("raw")) == ({"S": "AQI="}, {"B": b"\x01\x02"})
    assert in_order(ours) == in_order(theirs)


@pytest.mark.parametrize("row", RECORDED, ids=lambda row: f"{row['params']}-{row['id']}")
def test_an_item_of_the_javascript_library_reads_as_what_was_written(row: dict[str, Any]) -> None:
    model = model_with(row["params"])
    key, image = from_item(as_client(row["item"]))
    assert model.misfits(key, image) == {}
    model.check(key, image)
    seen = model.read(key, image)
    props = INPUTS[row["id"]]
    assert seen["id"] == row["id"]
    for name in ("count", "flag", "at", "iso", "tags", "nums", "buf", "raw", "street", "zip", "note"):
        assert seen.get(name) == props.get(name)
    if "expires" in props:
        assert seen["expires"] == DATE.replace(second=6, microsecond=0)
    assert "gs1pk" not in seen


def test_a_set_that_it_stored_as_a_list_reads_as_a_set() -> None:
    model = model_with({})
    row = RECORDED[0]
    key, image = from_item(as_client({**row["item"], "tags": {"L": [{"S": "b"}, {"S": "a"}]}}))
    model.check(key, image)
    assert model.read(key, image)["tags"] == {"a", "b"}
