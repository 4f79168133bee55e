"""Images and attribute maps: nothing is lost either way, whatever an application stored."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.protocol.errors import ModelError
from agent.protocol.messages import decode_image, encode_image
from agent.protocol.onetable import values
from agent.protocol.onetable.attributes import from_attributes, from_item, to_attributes, to_item

# (attribute as the table holds it, the same in an image)
PAIRS: list[tuple[dict[str, Any], Any]] = [
    ({"S": ""}, ""),
    ({"S": "\u20ac"}, "\u20ac"),
    ({"BOOL": True}, True),
    ({"NULL": True}, None),
    ({"N": "0"}, 0),
    ({"N": "-7"}, -7),
    ({"N": "9223372036854775807"}, 2**63 - 1),
    ({"N": "0.5"}, 0.5),
    ({"N": "0.1"}, 0.1),
    ({"N": "100000000000000000000"}, 1e20),
    ({"N": "1e+21"}, 1e21),
    ({"N": "1.5e-7"}, 1.5e-7),
    ({"N": "9223372036854775808"}, {"$N": "9223372036854775808"}),
    ({"N": "18446744073709551616"}, {"$N": "18446744073709551616"}),
    ({"N": "0.1000000000000000055511151231257827"}, {"$N": "0.1000000000000000055511151231257827"}),
    ({"N": "12345678901234567890123456789012345678"}, {"$N": "12345678901234567890123456789012345678"}),
    ({"N": "1.2345678901234567890123456789012345678E+125"}, {"$N": "1.2345678901234567890123456789012345678E+125"}),
    ({"B": b"\x00\xff"}, {"$B": "AP8="}),
    ({"B": b""}, {"$B": ""}),
    ({"SS": ["a", "b"]}, {"$SS": ["a", "b"]}),
    ({"NS": ["-1", "0.5", "2", "9223372036854775808"]}, {"$NS": [-1, 0.5, 2, {"$N": "9223372036854775808"}]}),
    ({"BS": [b"", b"\x01"]}, {"$BS": ["", "AQ=="]}),
    ({"L": [{"S": "a"}, {"N": "1"}, {"L": []}]}, ["a", 1, []]),
    ({"M": {}}, {}),
    ({"M": {"a": {"M": {"b": {"B": b"x"}}}}}, {"a": {"b": {"$B": "eA=="}}}),
    ({"M": {"$B": {"S": "x"}}}, {"$$B": "x"}),
    ({"M": {"$$SS": {"L": []}}}, {"$$$SS": []}),
    ({"M": {"$B": {"S": "x"}, "a": {"N": "1"}}}, {"$B": "x", "a": 1}),
    ({"M": {"$C": {"S": "x"}}}, {"$C": "x"}),
]


@pytest.mark.parametrize(("attribute", "value"), PAIRS)
def test_each_type_has_one_form_in_an_image(attribute: dict[str, Any], value: Any) -> None:
    assert from_attributes({"a": attribute}) == {"a": value}
    assert json.dumps(from_attributes({"a": attribute})) == json.dumps({"a": value})  # 1 and 1.0 differ here
    assert to_attributes({"a": value}) == {"a": attribute}
    values.check_value(value)


@pytest.mark.parametrize(
    ("attribute", "value"),
    [
        ({"N": "5.0"}, 5),
        ({"N": "5E+0"}, 5),
        ({"N": "-0"}, 0),
        ({"N": "1E+2"}, 100),
        ({"N": "007.50"}, 7.5),
        ({"N": "1e20"}, 1e20),
        ({"SS": ["b", "a", "b"]}, {"$SS": ["a", "b"]}),
        ({"NS": ["10", "9", "9.0"]}, {"$NS": [9, 10]}),
        ({"B": "AP8="}, {"$B": "AP8="}),
        ({"BS": ["AQ==", b"\x00"]}, {"$BS": ["AA==", "AQ=="]}),
    ],
)
def test_other_ways_to_write_a_value_come_to_the_same(attribute: dict[str, Any], value: Any) -> None:
    assert json.dumps(from_attributes({"a": attribute})) == json.dumps({"a": value})


@pytest.mark.parametrize(
    "attribute",
    [
        {}, {"S": 1}, {"S": "a", "N": "1"}, {"N": 5}, {"N": "five"}, {"N": "NaN"}, {"N": "Infinity"}, {"N": "1e126"},
        {"N": "1e-131"}, {"N": "1" * 39}, {"N": "0." + "1" * 39}, {"N": "1" * 1000}, {"N": "1e99999"}, {"SS": []},
        {"SS": "ab"}, {"SS": [1]}, {"NS": ["x"]}, {"BS": ["?"]}, {"B": "?"}, {"B": 5}, {"M": []}, {"L": {}},
        {"BOOL": "x"}, {"X": "x"}, "text", None, {"M": {"a": {"N": "x"}}}, {"N": "\u0661"},
    ],
)  # fmt: skip
def test_what_is_no_attribute_is_refused_by_name(attribute: Any) -> None:
    with pytest.raises(ModelError, match="attribute 'a': ") as caught:
        from_attributes({"a": attribute})
    assert (caught.value.code, caught.value.field) == ("type", "a")


BROKEN = [
    float("nan"), float("inf"), 1e200, 1e-200, 2**500, object(), (1,), b"x", {"$N": "5"}, {"$N": "x"}, {"$N": 5},
    {"$N": "0.5"}, {"$B": "x"}, {"$B": 5}, {"$B": "QQ"}, {"$SS": []}, {"$SS": ["b", "a"]}, {"$SS": ["a", "a"]},
    {"$SS": [1]}, {"$SS": "a"}, {"$NS": ["1"]}, {"$NS": [1.0]}, {"$NS": [True]}, {"$NS": [2, 1]},
    {"$NS": [{"$N": "1"}]},
    {"$BS": ["AQ==", "AA=="]}, {"$BS": ["x"]},
]  # fmt: skip


@pytest.mark.parametrize("value", BROKEN)
def test_what_an_image_cannot_hold_is_refused(value: Any) -> None:
    with pytest.raises(ModelError, match="attribute 'a': "):
        to_attributes({"a": value})
    with pytest.raises(ValueError, match=r"\w"):
        values.check_value([value])
    values.plain(value)  # shown as it is, without an error


def test_endless_nesting_is_refused_both_ways() -> None:
    deep: Any = "x"
    attribute: Any = {"S": "x"}
    for _ in range(40):
        deep, attribute = [deep], {"L": [attribute]}
    for refused in (lambda: to_attributes({"a": deep}), lambda: from_attributes({"a": attribute})):
        with pytest.raises(ModelError, match="nested more than 32"):
            refused()
    with pytest.raises(ValueError, match="nested"):
        values.check_value(deep)


def test_an_item_is_its_key_and_its_image() -> None:
    item = to_item(("p", "s"), {"a": 1})
    assert item == {"pk": {"S": "p"}, "sk": {"S": "s"}, "a": {"N": "1"}}
    assert from_item(item) == (("p", "s"), {"a": 1})
    for part in ("pk", "sk"):
        with pytest.raises(ModelError, match=f"{part}: expected the text of a key"):
            from_item({name: value for name, value in item.items() if name != part})


# --- over the whole space

_TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=4) | st.sampled_from(["$B", "$$B", "$NS", "$N"])
_DECIMALS = st.builds(
    lambda sign, digits, exponent: Decimal((sign, tuple(int(digit) for digit in str(digits)), exponent)),
    st.integers(0, 1),
    st.integers(0, 10**38 - 1),
    st.integers(-130, 80),
).filter(lambda d: not d or -130 <= d.adjusted() <= 125)
_BYTES = st.binary(max_size=4)
_LEAVES = (
    _TEXTS.map(lambda text: {"S": text})
    | _DECIMALS.map(lambda number: {"N": str(number)})
    | st.integers(-(2**65), 2**65).map(lambda number: {"N": str(number)})
    | st.floats(-1e100, 1e100).filter(lambda x: abs(x) > 1e-100).map(lambda number: {"N": repr(number)})
    | st.booleans().map(lambda flag: {"BOOL": flag})
    | st.just({"NULL": True})
    | _BYTES.map(lambda data: {"B": data})
    | st.sets(_TEXTS, min_size=1, max_size=3).map(lambda items: {"SS": sorted(items)})
    | st.sets(_DECIMALS, min_size=1, max_size=3).map(lambda items: {"NS": [str(item) for item in sorted(items)]})
    | st.sets(_BYTES, min_size=1, max_size=3).map(lambda items: {"BS": sorted(items)})
)
ATTRIBUTES = st.recursive(
    _LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: {"L": items})
        | st.dictionaries(_TEXTS, inner, max_size=2).map(lambda items: {"M": items})
    ),
    max_leaves=6,
)


def exact(attribute: Any) -> Any:
    """The attribute with its numbers as exact values, however they are written."""
    for kind, value in attribute.items():
        if kind == "N":
            return {"N": Decimal(value)}
        if kind == "NS":
            return {"NS": [Decimal(item) for item in value]}
        if kind == "L":
            return {"L": [exact(item) for item in value]}
        if kind == "M":
            return {"M": {name: exact(item) for name, item in value.items()}}
    return attribute


@given(st.dictionaries(_TEXTS, ATTRIBUTES, max_size=4))
def test_an_attribute_map_survives_the_image_and_both_encodings_of_the_wire(attributes: dict[str, Any]) -> None:
    image = from_attributes(attributes)
    wires = [decode_image(encode_image(image)), msgspec.msgpack.decode(msgspec.msgpack.encode(image))]
    for wire in wires:
        assert json.dumps(wire) == json.dumps(image)
        for value in wire.values():
            values.check_value(value)
        back = to_attributes(wire)
        assert {name: exact(item) for name, item in back.items()} == {n: exact(a) for n, a in attributes.items()}
        assert json.dumps(from_attributes(back)) == json.dumps(image)


@given(st.sets(_TEXTS, min_size=1) | st.sets(_DECIMALS, min_size=1) | st.sets(_BYTES, min_size=1))
def test_a_set_comes_back_as_the_same_set(items: set[Any]) -> None:
    made = values.set_of(items)
    values.check_value(made)
    assert {Decimal(repr(item)) if isinstance(item, float) else item for item in values.plain(made)} == items
    assert values.set_of(list(reversed(sorted(items)))) == made


@pytest.mark.parametrize("items", [[], [1, "a"], [b"", ""], [True], [None], [[1]]])
def test_a_set_that_the_table_has_not_is_refused(items: list[Any]) -> None:
    with pytest.raises(ValueError, match="set"):
        values.set_of(items)
