"""What the adapter would send: within the service's limits, and only through placeholders."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud import dynamodb_requests as requests
from cloud.dynamodb_values import attributes_bytes, attributes_of, item_of
from cloud.table import (
    ITEM_ABSENT,
    BatchGet,
    Cancelled,
    Check,
    Condition,
    Delete,
    InvalidRequest,
    Put,
    Query,
    Transact,
    Update,
)
from cloud.table_rules import same
from cloud.units import item_bytes

NAMES = st.text(alphabet="aA.#:[]$ é", min_size=1, max_size=4)
LEAVES = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(max_size=5) | st.floats(-1e9, 1e9)
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3))
ITEMS = st.dictionaries(NAMES, VALUES, max_size=5)


@given(item=ITEMS.filter(lambda item: all(abs(x) > 1e-100 or x == 0 for x in item.values() if isinstance(x, float))))
def test_what_an_item_holds_comes_back(item: dict[str, Any]) -> None:
    try:
        attributes = attributes_of({"pk": "p", "sk": "s", "all": item})
    except InvalidRequest:
        # Only what is no value of an image: a name that looks like a tag, a fraction below the service's range.
        assert re.search(r"\$+(?:B|N|SS|NS|BS)'|e-1[3-9]\d|e-[23]\d\d", repr(item))
        return
    assert same(item_of(attributes), {"pk": "p", "sk": "s", "all": item})


@given(item=st.dictionaries(st.sampled_from("abcé"), VALUES, max_size=4))
def test_sizes_are_those_that_the_bill_counts(item: dict[str, Any]) -> None:
    try:
        attributes = attributes_of(item)
    except InvalidRequest:
        return
    # A number in the table is written without an exponent's digits or trailing zeros: a byte or two each.
    numbers = len(re.findall(r"'N'", repr(attributes)))
    assert abs(attributes_bytes(attributes) - item_bytes(item)) <= 3 * numbers


def test_binary_counts_its_bytes_and_a_set_its_elements() -> None:
    assert attributes_bytes(attributes_of({"b": {"$B": "AAAA"}})) == 1 + 3
    assert attributes_bytes(attributes_of({"s": {"$SS": ["ab", "cde"]}})) == 1 + 5


@pytest.mark.parametrize("text", ["\ud800", "a\udfffb"])
@pytest.mark.parametrize("place", ["value", "name", "inner"])
def test_half_of_a_surrogate_pair_is_refused(text: str, place: str) -> None:
    items: dict[str, dict[str, Any]] = {"value": {"a": text}, "name": {text: 1}, "inner": {"a": [{"b": text}]}}
    item = items[place]
    with pytest.raises(InvalidRequest, match="surrogate"):
        requests.put("t", Put({"pk": "p", "sk": "s", **item}))
    with pytest.raises(InvalidRequest, match="surrogate"):
        requests.update("t", Update(("p", "s"), item))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), (1, 2), b"x", 10**40 + 1, {1: 2}])
def test_what_no_table_can_hold_is_refused_by_name(value: Any) -> None:
    with pytest.raises(InvalidRequest, match="cannot be stored"):
        requests.put("t", Put({"pk": "p", "sk": "s", "field": value}))


WORDS = re.compile(r"(?:SET|REMOVE|AND|attribute_exists|attribute_not_exists|begins_with|[#:]\d+|[ =,()])*")


@given(name=NAMES, other=NAMES, value=LEAVES.filter(lambda v: not isinstance(v, float)))
def test_no_name_or_value_gets_into_an_expression(name: str, other: str, value: Any) -> None:
    condition: Condition = (("eq", name, value), ("absent", other, None), ("exists", name, None))
    removed = (other,) if other != name else ()
    parameters = requests.update("t", Update(("p", "s"), {name: value}, removed, condition)).parameters
    for kind in ("UpdateExpression", "ConditionExpression"):
        assert WORDS.fullmatch(parameters[kind])
    used = set(re.findall(r"[#:]\d+", parameters["UpdateExpression"] + parameters["ConditionExpression"]))
    assert used == {*parameters["ExpressionAttributeNames"], *parameters["ExpressionAttributeValues"]}


def test_an_expression_beyond_the_limits_is_refused() -> None:
    long: Condition = tuple(("absent", f"attribute{n}", None) for n in range(160))
    with pytest.raises(InvalidRequest, match="4096"):
        requests.put("t", Put({"pk": "p", "sk": "s"}, long))
    many: Condition = tuple(("eq", "a", n) for n in range(200))
    with pytest.raises(InvalidRequest, match="300"):
        requests.put("t", Put({"pk": "p", "sk": "s"}, many))
    with pytest.raises(InvalidRequest, match="4096"):
        requests.update("t", Update(("p", "s"), {f"name{n}": n for n in range(400)}))


def test_an_item_too_large_for_a_transaction_is_told_by_its_place() -> None:
    large = Put({"pk": "p", "sk": "large", "text": "x" * 410_000})
    with pytest.raises(Cancelled) as cancelled:
        requests.transact("t", Transact((Delete(("p", "a")), large)), "token")
    assert cancelled.value.reasons == (None, "size")
    with pytest.raises(InvalidRequest, match="410"):
        requests.put("t", large)


def test_a_check_of_nothing_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="condition"):
        requests.transact("t", Transact((Check(("p", "a"), ()),)), "token")


def test_every_read_is_strong() -> None:
    assert requests.query("t", Query("p")).parameters["ConsistentRead"]  # type: ignore[union-attr]
    keys = requests.batch_keys(BatchGet((("p", "s"),)))
    assert requests.batch_get("t", keys).parameters["RequestItems"]["t"]["ConsistentRead"]


def test_an_attribute_removed_twice_is_named_once() -> None:
    parameters = requests.update("t", Update(("p", "s"), {}, ("a", "b", "a"))).parameters
    assert parameters["UpdateExpression"] == "REMOVE #0, #1"


def test_a_transaction_names_its_token_and_its_table_in_every_action() -> None:
    actions = (Put({"pk": "p", "sk": "1"}, ITEM_ABSENT), Delete(("p", "2")), Update(("p", "3"), {}))
    parameters = requests.transact("t", Transact(actions), "token").parameters
    assert parameters["ClientRequestToken"] == "token"
    assert [next(iter(action.values()))["TableName"] for action in parameters["TransactItems"]] == ["t"] * 3
