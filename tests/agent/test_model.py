"""Models: what create, update, read and check make of properties and images."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from agent.protocol.schema import Context, Image, Key, Model, ModelError, Schema

ME = Context("dev1", "main")
FLEET = Schema.load(Path(__file__).parents[2] / "scenarios/schemas/fleet.json5")
DATE = datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)

EVERYTHING = """{
    version: '1', indexes: {primary: {hash: 'pk', sort: 'sk'}, gs1: {hash: 'gs1pk', sort: 'gs1sk'}},
    params: PARAMS,
    process: {Item: {sync: 'both'}},
    models: {
        Item: {
            pk: {type: 'string', value: 'device#${deviceId}'},
            sk: {type: 'string', value: 'item#${id}#${kind:4:_}'},
            gs1pk: {type: 'string', value: 'kind#${kind}#${note}'},
            gs1sk: {type: 'string', value: '${sk}', hidden: false},
            deviceId: {type: 'string', required: true},
            id: {type: 'String', generate: 'uid(8)'},
            kind: {type: 'string', default: 'a', enum: ['a', 'b', 'c']},
            note: {type: 'string', map: 'n', validate: '/^[^!]*$/'},
            count: {type: 'number'},
            flag: {type: 'boolean'},
            at: {type: 'date'},
            text_at: {type: 'date', isoDates: true},
            expires: {type: 'date', ttl: true},
            secret: {type: 'string', hidden: true},
            any: {type: 'object'},
            list: {type: 'array'},
            gone: {type: 'string', nulls: true},
            limits: {type: 'object', partial: true, schema: {
                low: {type: 'number', required: true}, high: {type: 'number', default: 9},
                since: {type: 'date', map: 's'},
                deep: {type: 'object', schema: {x: {type: 'string'}, y: {type: 'string', hidden: true}}},
            }},
            dates: {type: 'array', items: {type: 'date'}},
            whole: {type: 'object', schema: {a: {type: 'string', default: 'A'}, b: {type: 'string'}}},
        },
    },
}"""


def item_model(params: str = "{}") -> Model:
    return Schema.parse(EVERYTHING.replace("PARAMS", params), "s").models["Item"]


ITEM = item_model()


def fixed_id(kind: str) -> str:
    return f"<{kind}>"


def made(model: Model, now_ms: int = 1000, **props: Any) -> tuple[Key, Image]:
    return model.create(props, ME, now_ms, fixed_id)


def code_of(action: Callable[[], object]) -> tuple[str, str]:
    with pytest.raises(ModelError) as caught:
        action()
    assert caught.value.model == "Item"
    assert str(caught.value).startswith("Item")
    return caught.value.code, caught.value.field


# --- create


def test_create_fills_in_context_defaults_ids_templates_and_stamps() -> None:
    key, image = made(ITEM, note="x")
    assert key == ("device#dev1", "item#<uid(8)>#___a")
    assert image == {
        "_type": "Item", "deviceId": "dev1", "id": "<uid(8)>", "kind": "a", "n": "x", "gs1pk": "kind#a#x",
        "gs1sk": key[1], "created": 1000, "updated": 1000,
    }  # fmt: skip


def test_a_template_that_lacks_a_variable_leaves_its_attribute_out() -> None:
    _, image = made(ITEM)
    assert "gs1pk" not in image


def test_a_template_field_that_the_caller_gives_wins() -> None:
    _, image = made(ITEM, gs1pk="mine", note="x")
    assert image["gs1pk"] == "mine"


def test_the_context_wins_over_a_given_id_and_an_empty_context_does_not() -> None:
    key, _ = made(ITEM, deviceId="other")
    assert key[0] == "device#dev1"
    key, _ = ITEM.create({"deviceId": "other"}, Context("", ""), 1, fixed_id)
    assert key[0] == "device#other"
    assert code_of(lambda: ITEM.create({}, Context("", ""), 1, fixed_id)) == ("required", "deviceId")


def test_unknown_properties_and_given_stamps_are_dropped() -> None:
    _, image = made(ITEM, nonsense=1, created=DATE, updated=DATE, _type="Other", pk="device#dev1")
    assert "nonsense" not in image
    assert (image["_type"], image["created"], image["updated"]) == ("Item", 1000, 1000)


@pytest.mark.parametrize(
    ("name", "value", "stored"),
    [
        ("count", 2**63, {"$N": "9223372036854775808"}), ("count", Decimal("0.5"), 0.5), ("count", 5.0, 5),
        ("count", -0.0, 0), ("count", 0.5, 0.5), ("count", 2.0**62, 2**62), ("count", 1e20, 1e20),
        ("at", DATE, 1767323045678), ("at", DATE.astimezone(tz=None), 1767323045678),
        ("text_at", DATE, "2026-01-02T03:04:05.678Z"),
        ("text_at", datetime(5, 1, 1, tzinfo=UTC), "0005-01-01T00:00:00.000Z"),
        ("expires", DATE, 1767323046), ("expires", DATE.replace(microsecond=0), 1767323045),
        ("any", {"a": [1.0, None, DATE, ("x",)]}, {"a": [1, None, 1767323045678, ["x"]]}),
        ("list", (1, "x", {"a": 2.0}), [1, "x", {"a": 2}]),
        ("dates", [DATE], [1767323045678]),
        ("gone", None, None),
        ("limits", {"low": 1.0, "since": DATE, "x": 1}, {"low": 1, "high": 9, "s": 1767323045678}),
    ],
)  # fmt: skip
def test_a_value_is_stored_as_the_table_holds_it(name: str, value: Any, stored: Any) -> None:
    _, image = made(ITEM, **{name: value})
    found = image[name]
    assert found == stored
    assert json.dumps(found) == json.dumps(stored)  # 1 and 1.0 differ here


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("count", True, "type"), ("count", "1", "type"), ("count", float("nan"), "type"),
        ("count", float("inf"), "type"),
        ("count", 10**38 + 1, "type"),
        ("count", 10**126, "type"), ("count", 2**5000, "type"), ("count", Decimal("NaN"), "type"),
        ("count", 1e-200, "type"), ("count", 1e200, "type"), ("flag", 1, "type"),
        ("flag", "true", "type"), ("note", 5, "type"), ("note", "\ud800", "type"), ("note", "a!", "validate"),
        ("kind", "z", "enum"), ("at", 5, "type"), ("at", datetime(2026, 1, 1), "type"), ("any", [], "type"),
        ("any", {1: 2}, "type"), ("any", {"a": object()}, "type"), ("list", {}, "type"), ("list", "abc", "type"),
        ("dates", [5], "type"), ("dates", [None], "type"), ("limits", {}, "required"), ("limits", 3, "type"),
        ("limits", {"low": "x"}, "type"),
    ],
)  # fmt: skip
def test_a_value_that_does_not_fit_is_refused_by_name(name: str, value: Any, code: str) -> None:
    found, field = code_of(lambda: made(ITEM, **{name: value}))
    assert found == code
    assert field.partition(".")[0] == name


def test_endless_nesting_is_refused() -> None:
    loop: dict[str, Any] = {}
    loop["a"] = loop
    assert code_of(lambda: made(ITEM, any=loop)) == ("type", "any")


def test_an_empty_text_satisfies_required_and_null_does_not() -> None:
    setting = FLEET.models["Setting"]
    setting.create({"name": "", "rev": 1}, ME, 1, fixed_id)
    with pytest.raises(ModelError, match=r"Setting\.rev: is required"):
        setting.create({"name": "x", "rev": None}, ME, 1, fixed_id)


def test_what_was_given_is_not_shared_with_the_image() -> None:
    given: dict[str, Any] = {"a": [1]}
    _, image = made(ITEM, any=given)
    given["a"].append(2)
    assert image["any"] == {"a": [1]}


# --- keys


def test_key_asks_for_what_it_lacks() -> None:
    assert ITEM.key({"id": "x", "kind": "b"}, ME) == ("device#dev1", "item#x#___b")
    with pytest.raises(ModelError, match="needs id and kind for the key") as caught:
        ITEM.key({}, ME)
    assert caught.value.code == "key"
    assert code_of(lambda: ITEM.key({"id": "x", "kind": "b"}, Context("", "")))[0] == "key"


def test_a_given_key_of_a_synced_model_must_be_what_its_template_gives() -> None:
    key, _ = made(ITEM, id="x", sk="item#x#___a")
    assert key[1] == "item#x#___a"
    assert code_of(lambda: made(ITEM, id="x", sk="item#y#___a"))[0] == "key"
    assert code_of(lambda: made(ITEM, id="x", pk="device#dev2"))[0] == "key"


def test_a_key_that_the_table_cannot_hold_is_refused() -> None:
    made(ITEM, id="x" * 1000)
    assert code_of(lambda: made(ITEM, id="x" * 1020))[0] == "key"
    assert code_of(lambda: made(ITEM, id="\u20ac" * 400))[0] == "key"


# --- update


def test_update_changes_only_what_is_given_and_keeps_what_it_does_not_know() -> None:
    key, image = made(ITEM, note="x", count=1, flag=True)
    stored = {**image, "later": {"by": "a newer schema"}}
    changed = ITEM.update(key, stored, {"count": 2, "flag": None, "nonsense": 1}, ME, 2000)
    expected = {**stored, "count": 2, "updated": 2000}
    del expected["flag"]
    assert changed == expected
    assert stored["count"] == 1


def test_update_recomputes_templates_from_the_merged_item() -> None:
    key, image = made(ITEM, note="x")
    assert ITEM.update(key, image, {"note": "y"}, ME, 2000)["gs1pk"] == "kind#a#y"
    assert "gs1pk" not in ITEM.update(key, image, {"note": None}, ME, 2000)
    assert ITEM.update(key, image, {"note": "y", "gs1pk": "given"}, ME, 2000)["gs1pk"] == "given"
    assert ITEM.update(key, {**image, "gs1pk": "by hand"}, {"count": 1}, ME, 2000)["gs1pk"] == "by hand"


@pytest.mark.parametrize("props", [{"id": "y"}, {"kind": "b"}, {"id": None}, {"deviceId": "x"}, {"sk": "item#y#___a"}])
def test_fields_of_the_key_cannot_change(props: dict[str, Any]) -> None:
    key, image = made(ITEM, id="x")
    if props == {"deviceId": "x"}:
        assert code_of(lambda: ITEM.update(key, image, props, ME, 2))[0] == "key"
    else:
        assert code_of(lambda: ITEM.update(key, image, props, ME, 2))[0] in ("key", "required")
    ITEM.update(key, image, {"id": "x", "kind": "a", "sk": key[1], "deviceId": "dev1"}, ME, 2)


@pytest.mark.parametrize("was", [{}, {"name": 7}, {"name": "other"}])
def test_what_the_key_says_may_be_put_into_an_item_that_was_written_without_it(was: dict[str, Any]) -> None:
    setting = FLEET.models["Setting"]
    key, image = setting.create({"name": "mode", "rev": 1}, ME, 1, fixed_id)
    del image["name"]
    mended = setting.update(key, {**image, **was}, {"name": "mode", "rev": 2}, ME, 2)
    setting.check(key, mended)
    with pytest.raises(ModelError, match="cannot change"):
        setting.update(key, {**image, **was}, {"name": "another", "rev": 2}, ME, 2)


def test_a_required_field_cannot_be_removed_and_null_is_stored_where_the_schema_says_so() -> None:
    key, image = made(ITEM, gone="x")
    assert code_of(lambda: ITEM.update(key, image, {"deviceId": None}, ME, 2)) == ("required", "deviceId")
    assert ITEM.update(key, image, {"gone": None}, ME, 2)["gone"] is None


def test_a_partial_object_is_merged_and_any_other_replaced() -> None:
    key, image = made(ITEM, limits={"low": 1, "since": DATE, "deep": {"x": "1"}}, whole={"a": "1", "b": "2"})
    changed = ITEM.update(key, image, {"limits": {"low": 2, "since": None}, "whole": {"b": "3"}}, ME, 2)
    assert changed["limits"] == {"low": 2, "high": 9, "deep": {"x": "1"}}
    assert changed["whole"] == {"b": "3"}  # a default is for create
    assert image["limits"]["low"] == 1
    assert code_of(lambda: ITEM.update(key, image, {"limits": {"low": None}}, ME, 2)) == ("required", "limits.low")


def test_table_wide_parameters_reach_every_field() -> None:
    model = item_model("{isoDates: true, nulls: true, updatedField: 'changed', timestamps: 'update', typeField: 'T'}")
    key, image = made(model, at=DATE, any={"d": DATE}, count=None, expires=DATE, dates=[DATE])
    iso = "2026-01-02T03:04:05.678Z"
    assert (image["at"], image["any"], image["dates"], image["expires"]) == (iso, {"d": iso}, [iso], 1767323046)
    assert image["count"] is None
    assert (image["T"], image["changed"], "created" in image) == ("Item", "1970-01-01T00:00:01.000Z", False)
    model.check(key, image)
    assert model.updated_ms(image) == 1000
    assert model.updated_ms(model.stamp(image, 123456)) == 123456
    assert model.update(key, image, {}, ME, 5)["changed"] == "1970-01-01T00:00:00.005Z"


def test_a_model_without_an_updated_stamp_has_none() -> None:
    schema = Schema.parse(EVERYTHING.replace("PARAMS", "{timestamps: 'create'}").replace("'both'", "'up'"), "s")
    model = schema.models["Item"]
    _, image = made(model)
    assert "updated" not in image
    assert model.updated_ms(image) == 0
    assert model.stamp(image, 5) is image


@pytest.mark.parametrize("junk", [None, "yesterday", True, 1.5, [], {}, "2026-99-02T03:04:05.678Z"])
def test_a_stamp_that_is_no_date_counts_as_none(junk: Any) -> None:
    assert ITEM.updated_ms({"updated": junk}) == 0


# --- read


def test_read_gives_types_back_and_leaves_hidden_fields_out() -> None:
    key, image = made(
        ITEM,
        note="x",
        at=DATE,
        text_at=DATE,
        expires=DATE,
        secret="s",
        gone=None,
        limits={"low": 1, "since": DATE, "deep": {"x": "1", "y": "2"}},
    )
    seen = ITEM.read(key, {**image, "later": 1})
    stamp = datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)
    assert seen == {
        "deviceId": "dev1", "id": "<uid(8)>", "kind": "a", "note": "x", "gs1sk": key[1], "at": DATE, "text_at": DATE,
        "expires": datetime(2026, 1, 2, 3, 4, 6, tzinfo=UTC), "gone": None, "created": stamp, "updated": stamp,
        "limits": {"low": 1, "high": 9, "since": DATE, "deep": {"x": "1"}},
    }  # fmt: skip


def test_read_shares_nothing_with_the_image_and_survives_foreign_values() -> None:
    key, image = made(ITEM, any={"a": [1]}, list=[[1]])
    seen = ITEM.read(key, image)
    seen["any"]["a"].append(2)
    seen["list"][0].append(2)
    assert (image["any"], image["list"]) == ({"a": [1]}, [[1]])
    odd = {
        **image,
        "at": "2026-01-02T03:04:05.678Z",
        "text_at": 1767323045678,
        "dates": "x",
        "limits": 3,
        "expires": 10**30,
    }
    seen = ITEM.read(key, odd)
    assert (seen["at"], seen["text_at"], seen["dates"], seen["limits"], seen["expires"]) == (DATE, DATE, "x", 3, 10**30)


# --- check


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"_type": "Other"}, "model"), ({"_type": None}, "model"), ({"deviceId": None}, "required"),
        ({"deviceId": "dev2"}, "key"), ({"id": "y"}, "key"), ({"id": None}, "type"), ({"count": "x"}, "type"),
        ({"count": True}, "type"), ({"count": 2**70}, "type"), ({"flag": 1}, "type"), ({"kind": "z"}, "enum"),
        ({"n": "!"}, "validate"), ({"at": "2026-01-02T03:04:05.678Z"}, "type"), ({"text_at": 5}, "type"),
        ({"text_at": "soon"}, "type"), ({"expires": 1.5}, "type"), ({"any": []}, "type"), ({"list": {}}, "type"),
        ({"limits": {"high": 1}}, "required"), ({"limits": {"low": 1, "s": "x"}}, "type"), ({"dates": ["x"]}, "type"),
        ({"created": "x"}, "type"), ({"updated": True}, "type"), ({"pk": "device#dev1"}, "key"), ({"sk": "a"}, "key"),
        ({"_op": []}, "key"), ({"_fleet_x": 1}, "key"), ({"_orphan": True}, "key"),
    ],
)  # fmt: skip
def test_check_refuses_an_image_that_this_model_could_not_have_made(change: dict[str, Any], code: str) -> None:
    key, image = made(ITEM, id="x", note="n")
    ITEM.check(key, image)
    with pytest.raises(ModelError) as caught:
        ITEM.check(key, {**image, **change})
    assert caught.value.code == code


def test_check_refuses_another_key_and_allows_unknown_attributes() -> None:
    key, image = made(ITEM, id="x")
    ITEM.check(key, {**image, "later": {"a": [1]}, "gone": None, "count": 1e20})
    assert code_of(lambda: ITEM.check(("device#dev2", key[1]), image))[0] == "key"
    assert code_of(lambda: ITEM.check((key[0], "item#z#___a"), image))[0] == "key"


def test_ids_that_only_the_key_holds_come_from_the_context() -> None:
    text = """{version: '1', indexes: {primary: {hash: 'pk', sort: 'sk'}}, process: {Log: {sync: 'up'}}, models: {Log: {
        pk: {type: 'string', value: 'l#${accountId}#${deviceId}'}, sk: {type: 'string', value: 'l#${id}'},
        id: {type: 'string', required: true}}}}"""
    model = Schema.parse(text, "s").models["Log"]
    key, image = model.create({"id": "1"}, ME, 5, fixed_id)
    assert key == ("l#main#dev1", "l#1") == model.key({"id": "1"}, ME)
    assert "deviceId" not in image
    model.check(key, image)
    with pytest.raises(ModelError):
        model.check(("l#main", "l#1"), image)


# --- over the whole space of values

_TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
_NUMBERS = st.integers(-(2**63), 2**63 - 1) | st.floats(-1e100, 1e100).filter(lambda x: x == 0 or abs(x) > 1e-100)
_DATES = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.just(UTC)).map(
    lambda date: date.replace(microsecond=date.microsecond // 1000 * 1000)
)
_JSON = st.recursive(
    st.none() | st.booleans() | _NUMBERS | _TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXTS, inner, max_size=3),
    max_leaves=6,
)
_PROPS = st.fixed_dictionaries(
    {},
    optional={
        "id": _TEXTS, "note": _TEXTS.filter(lambda text: "!" not in text), "count": _NUMBERS, "flag": st.booleans(),
        "at": _DATES, "text_at": _DATES, "expires": _DATES.map(lambda date: date.replace(microsecond=0)),
        "any": st.dictionaries(_TEXTS, _JSON, max_size=3), "list": st.lists(_JSON, max_size=3),
        "dates": st.lists(_DATES, max_size=3), "gone": st.none() | _TEXTS,
        "limits": st.fixed_dictionaries({"low": _NUMBERS, "high": _NUMBERS}, optional={"since": _DATES}),
    },
)  # fmt: skip


@given(_PROPS)
def test_what_is_written_is_read_back_equal_also_over_the_wire(props: dict[str, Any]) -> None:
    key, image = made(ITEM, **props)
    ITEM.check(key, image)
    wire = msgspec.json.decode(msgspec.json.encode(image))
    ITEM.check(key, wire)
    seen = ITEM.read(key, wire)
    assert {name: seen[name] for name in props} == props
    assert ITEM.key({"id": image["id"], "kind": "a"}, ME) == key


@given(_PROPS, _PROPS, st.sets(st.sampled_from(["note", "count", "flag", "at", "any", "list", "gone", "limits"])))
def test_an_update_is_accepted_by_check_and_reads_as_the_merge(
    first: dict[str, Any], second: dict[str, Any], removed: set[str]
) -> None:
    key, image = made(ITEM, **first)
    second.pop("id", None)
    changes = {**second, **dict.fromkeys(sorted(removed))}
    changed = ITEM.update(key, image, changes, ME, 2000)
    ITEM.check(key, changed)
    seen = ITEM.read(key, changed)
    for name, value in changes.items():
        if value is None and name != "gone":
            assert name not in seen
        elif name == "limits" and "limits" in first:
            assert seen[name] == {**first[name], **value}
        else:
            assert seen[name] == value
    assert changed["updated"] == 2000


@given(st.dictionaries(st.sampled_from([*ITEM.fields, "_type", "n", "pk", "x"]), _JSON | st.binary() | st.dates()))
def test_any_property_is_taken_or_refused_with_a_model_error(props: dict[str, Any]) -> None:
    try:
        key, image = ITEM.create(props, ME, 1, fixed_id)
    except ModelError:
        return
    ITEM.check(key, image)
    assume(props)
    with contextlib.suppress(ModelError):
        ITEM.update(key, image, props, ME, 2)


@given(st.dictionaries(st.sampled_from([*ITEM.fields, "_type", "n", "s"]), _JSON), st.tuples(_TEXTS, _TEXTS))
def test_any_image_is_accepted_or_refused_with_a_model_error(image: Image, key: Key) -> None:
    with pytest.raises(ModelError):
        ITEM.check(key, {"_type": "Item", **image})
    ITEM.read(key, image)
    ITEM.updated_ms(image)


def test_a_model_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        ITEM.name = "Other"
    assert ITEM.read(("a", "b"), {}) == {}


# Where to look for items with given properties


@pytest.mark.parametrize(
    ("model", "props", "expected"),
    [
        ("Status", {}, ("device#home-1", "status#")),
        ("Setting", {}, ("device#home-1", "setting#")),
        ("Setting", {"name": "a"}, ("device#home-1", "setting#a")),
        ("Notice", {"text": "x"}, ("account#main", "notice#")),
        ("Setting", {"sk": "setting#ab"}, ("device#home-1", "setting#ab")),
    ],
)
def test_a_search_begins_with_all_of_the_key_that_is_given(
    model: str, props: dict[str, Any], expected: tuple[str, str]
) -> None:
    assert FLEET.models[model].search(props, Context("home-1", "main")) == expected


def test_a_search_without_a_hash_key_or_with_another_s_is_refused() -> None:
    for props, context in (({}, Context("", "main")), ({"sk": "fault#a"}, Context("home-1", "main"))):
        with pytest.raises(ModelError) as caught:
            FLEET.models["Setting"].search(props, context)
        assert caught.value.code == "key"
