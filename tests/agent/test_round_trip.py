"""Write, then read: the same value, for every type x isoDates x ttl x nulls x nesting x mapping, over every hop.

The hops: the image, the wire in both encodings, the table's attribute map, and back. Numbers compare by their digits: a
Decimal that a float says exactly comes back as that float.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.protocol.messages import Ack, Image, Key, decode_image, decode_to_device, encode, encode_image
from agent.protocol.onetable.attributes import from_item, to_item
from agent.protocol.onetable.fields import BUFFERS
from agent.protocol.schema import Context, Model, Schema

ME = Context("dev1", "main")
_TEXTS: Final = st.text(st.characters(exclude_categories=["Cs"]), max_size=5) | st.sampled_from(
    ["$B", "$$NS", "#", "${a}"]
)
_NUMBERS: Final = (
    st.integers(-(10**38) + 1, 10**38 - 1)
    | st.floats(-1e100, 1e100).filter(lambda x: x == 0 or abs(x) > 1e-100)
    | st.decimals(-(10**20), 10**20, places=17)
)
_BYTES: Final = st.binary(max_size=5)
_DATES: Final = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.just(UTC)).map(
    lambda date: date.replace(microsecond=date.microsecond // 1000 * 1000)
)
_SETS: Final = st.sets(_TEXTS, min_size=1) | st.sets(_NUMBERS, min_size=1) | st.sets(_BYTES, min_size=1)
_ANY: Final = st.recursive(
    st.none() | st.booleans() | _NUMBERS | _TEXTS | _BYTES | _SETS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXTS, inner, max_size=3),
    max_leaves=5,
)
VALUES: Final[dict[str, st.SearchStrategy[Any]]] = {
    "string": _TEXTS,
    "Number": _NUMBERS,
    "boolean": st.booleans(),
    "date": _DATES,
    "object": st.dictionaries(_TEXTS, _ANY, max_size=3),
    "array": st.lists(_ANY, max_size=3),
    "SET": _SETS,
    "buffer": _BYTES,
    "binary": _BYTES,
    "ArrayBuffer": _BYTES,
}
# where the field stands: its definition with FIELD for the properties, and how an application gives its value
PLACES: Final[dict[str, str]] = {
    "top": "f: {FIELD}",
    "mapped": "f: {map: 'other', FIELD}",
    "packed": "f: {map: 'both.f', FIELD}, g: {type: 'string', map: 'both.g'}",
    "nested": "o: {type: 'object', schema: {f: {FIELD}, g: {type: 'string'}}}",
    "nested and mapped": "o: {type: 'object', map: 'p', schema: {f: {map: 'q', FIELD}, g: {type: 'string'}}}",
    "nested twice": "o: {type: 'object', schema: {f: {type: 'object', schema: {f: {FIELD}}}, g: {type: 'string'}}}",
    "partial": "o: {type: 'object', partial: true, schema: {f: {FIELD}, g: {type: 'string'}}}",
    "partial and mapped": "o: {type: 'object', partial: true, schema: {f: {map: 'q', FIELD}, g: {type: 'string'}}}",
    "element": "l: {type: 'array', items: {FIELD}}, g: {type: 'string'}",
    "in an element": "l: {type: 'array', items: {type: 'object', schema: {f: {FIELD}}}}, g: {type: 'string'}",
    "packed array": "l: {type: 'array', map: 'both.l', items: {FIELD}}, g: {type: 'string', map: 'both.g'}",
}


def schema_text(place: str, properties: str, iso: bool, nulls: bool) -> str:
    fields = PLACES[place].replace("FIELD", properties)
    params = f"{{isoDates: {str(iso).lower()}, nulls: {str(nulls).lower()}}}"
    return f"""{{version: '1', indexes: {{primary: {{hash: 'pk', sort: 'sk'}}}}, params: {params},
        process: {{M: {{sync: 'up'}}}},
        models: {{M: {{
            pk: {{type: 'string', value: 'd#${{deviceId}}'}}, sk: {{type: 'string', value: 'm#${{id}}'}},
            id: {{type: 'number', encode: ['sk', '#', 1]}}, {fields}}}}}}}"""


def given_as(place: str, value: Any) -> dict[str, Any]:
    if place.startswith("nested twice"):
        return {"o": {"f": {"f": value}}}
    if place.startswith(("nested", "partial")):
        return {"o": {"f": value}}
    if place in ("element", "packed array"):
        return {"l": [value, value]}
    return {"l": [{"f": value}]} if place == "in an element" else {"f": value}


def comparable(value: Any) -> Any:
    """With numbers by their digits, so that 0.1 and Decimal('0.1') are one and 1 and True are two."""
    if isinstance(value, bool):
        return ("bool", value)
    if isinstance(value, float) and not (value.is_integer() and abs(value) < 2**63):
        return ("number", Decimal(repr(value)))
    if isinstance(value, int | float | Decimal):
        return ("number", Decimal(value))
    if isinstance(value, dict):
        return {name: comparable(item) for name, item in value.items()}
    if isinstance(value, set | frozenset):
        return frozenset(comparable(item) for item in value)
    return [comparable(item) for item in value] if isinstance(value, list) else value


def over_every_hop(model: Model, key: Key, image: Image) -> Image:
    """The image after all of them, each of which must leave it as it is."""
    model.check(key, image)
    assert decode_image(encode_image(image)) == image
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(image)) == image
    back_key, back = from_item(to_item(key, image))
    assert back_key == key
    assert json.dumps(back) == json.dumps(image)
    assert model.misfits(key, back) == {}
    return back


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", VALUES)
@settings(max_examples=20)  # of each of the 110 combinations
@given(data=st.data())
def test_what_is_written_is_read(kind: str, place: str, data: st.DataObject) -> None:
    flag = st.booleans()
    iso, field_iso, nulls = data.draw(flag), data.draw(flag), data.draw(flag)
    ttl = kind == "date" and place in ("top", "mapped") and data.draw(flag)
    properties = f"type: '{kind}'"
    properties += ", isoDates: true" if field_iso else ""
    properties += ", ttl: true" if ttl else ""
    model = Schema.parse(schema_text(place, properties, iso, nulls), "s").models["M"]
    values = VALUES[kind].map(lambda date: date.replace(microsecond=0)) if ttl else VALUES[kind]
    first, second = data.draw(values), data.draw(values)
    number = data.draw(st.integers(-5, 5) | st.floats(0.1, 2))

    props = given_as(place, first)
    key, image = model.create({"id": number, **props}, ME, 1, str)
    seen = model.read(key, over_every_hop(model, key, image))
    assert comparable(seen["id"]) == comparable(number)
    assert comparable({name: seen[name] for name in props}) == comparable(props)

    props = given_as(place, second)
    changed = model.update(key, image, {**props, "g": "x"} if "g" in model.fields else props, ME, 2)
    seen = model.read(key, over_every_hop(model, key, changed))
    assert comparable({name: seen[name] for name in props}) == comparable(props)

    (name,) = props
    gone = model.update(key, changed, {name: None}, ME, 3)
    seen = model.read(key, over_every_hop(model, key, gone))
    assert seen.get(name) is None
    assert (name in seen) == (nulls and model.fields[name].type not in BUFFERS)  # bytes are never NULL
    assert comparable(model.read(key, model.update(key, gone, props, ME, 4))[name]) == comparable(props[name])


@given(
    st.builds(
        Ack,
        epoch=_TEXTS,
        up=st.integers(0, 2**53),
        now=st.integers(0, 2**53),
        upid=st.none() | _TEXTS,
        verdicts=st.just({}) | st.just({7: "lost"}),
        n=st.integers(0, 2**32),
    )
)
def test_an_acknowledgement_in_messagepack_is_its_json_byte_for_byte(ack: Ack) -> None:
    sent = encode(ack, compact=True)
    assert sent == msgspec.msgpack.encode(json.loads(encode(ack)))
    assert decode_to_device(sent) == ack
