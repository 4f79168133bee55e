"""Requests to the table: what they leave there is what the model says, and they refuse what they cannot know."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from expression_table import ExpressionTable, Refused
from hypothesis import given
from hypothesis import strategies as st

from agent.protocol.messages import Image, Key
from agent.protocol.onetable.attributes import from_item, to_item
from agent.protocol.onetable.expressions import Requests
from agent.protocol.schema import Context, ModelError, Schema

ME = Context("dev1", "main")
SCHEMA = Schema.parse(
    """{
    version: '1', indexes: {primary: {hash: 'pk', sort: 'sk'}, gs1: {hash: 'gs1pk', sort: 'gs1sk'}},
    models: {
        Item: {
            pk: {type: 'string', value: 'device#${deviceId}'},
            sk: {type: 'string', value: 'item#${id}#${code}'},
            gs1pk: {type: 'string', value: 'kind#${kind}'},
            gs1sk: {type: 'string', value: '${kind}#${note}'},
            label: {type: 'string', value: '${id}/${code}'},
            newest: {type: 'string', value: '${updated}#${code}'},
            depth: {type: 'string', value: 'd#${limits.low}'},
            deviceId: {type: 'string', required: true},
            id: {type: 'string', required: true, encode: ['sk', '#', 1]},
            code: {type: 'number', default: 7},
            kind: {type: 'string', default: 'a'},
            note: {type: 'string'},
            at: {type: 'date', required: true},
            tags: {type: 'set'},
            list: {type: 'array'},
            gone: {type: 'string', nulls: true},
            limits: {type: 'object', partial: true, schema: {
                low: {type: 'number'}, high: {type: 'number', default: 9},
                range: {type: 'string', value: '${low}-${high}'},
                deep: {type: 'object', schema: {x: {type: 'string'}, y: {type: 'string'}}},
            }},
            whole: {type: 'object', schema: {a: {type: 'string', default: 'A'}, b: {type: 'string'}}},
            street: {type: 'string', map: 'address.s'},
            zip: {type: 'string', map: 'address.z'},
            count: {type: 'number'},
        },
        User: {
            pk: {type: 'string', value: 'user#'},
            sk: {type: 'string', value: 'user#${id}'},
            accountId: {type: 'string'},
            id: {type: 'string', generate: 'uid(4)'},
            email: {type: 'string', unique: true, scope: '${accountId}'},
            phone: {type: 'number', unique: true},
            nick: {type: 'string', unique: true, map: 'names.nick'},
            name: {type: 'string', required: true},
        },
        Plain: {pk: {type: 'string', value: 'p#'}, sk: {type: 'string', value: 'p#${id}'}, id: {type: 'string'}},
    },
}""",
    "s",
)
ITEM, USER, PLAIN = (SCHEMA.models[name] for name in ("Item", "User", "Plain"))
ITEMS, USERS = Requests(ITEM, "T"), Requests(USER, "T")
DATE = datetime(2026, 1, 2, tzinfo=UTC)
BASE: dict[str, Any] = {"id": "x", "code": 1, "at": DATE}


def new_id(kind: str) -> str:
    return f"<{kind}>"


def stored(table: ExpressionTable, key: Key) -> Image:
    back, image = from_item(table.items[key])
    assert back == key
    return image


def code_of(action: Callable[[], object]) -> str:
    with pytest.raises(ModelError) as caught:
        action()
    return caught.value.code


# --- create


def test_create_puts_the_item_only_where_there_is_none() -> None:
    write = ITEMS.create({**BASE, "tags": {"b", "a"}}, ME, 1000, new_id)
    name, arguments = write.request()
    assert name == "put_item"
    assert arguments["TableName"] == "T"
    assert arguments["ConditionExpression"] == "attribute_not_exists(#pk) and attribute_not_exists(#sk)"
    assert arguments["Item"]["tags"] == {"SS": ["a", "b"]}
    assert "id" not in arguments["Item"]  # encoded in the key
    table = ExpressionTable()
    table.run(write.actions)
    assert stored(table, write.key) == ITEM.create({**BASE, "tags": {"b", "a"}}, ME, 1000, new_id)[1]
    with pytest.raises(Refused):
        table.run(write.actions)


# --- update


def test_an_update_changes_what_it_is_given_leaf_by_leaf_and_nothing_else() -> None:
    write = ITEMS.update({"id": "x", "code": 1, "limits": {"low": 2, "high": 3}, "gone": None, "list": None}, ME, 5)
    name, arguments = write.request()
    assert name == "update_item"
    names = arguments["ExpressionAttributeNames"]
    said = arguments["UpdateExpression"]
    for placeholder, attribute in names.items():
        said = said.replace(placeholder + ".", attribute + ".").replace(placeholder + " ", attribute + " ")
    assert "limits.low = " in said
    assert "limits = " not in said
    assert "REMOVE" in said
    assert arguments["ConditionExpression"] == "attribute_exists(#pk) and attribute_exists(#sk)"
    with pytest.raises(Refused):
        ExpressionTable().run(write.actions)


@pytest.mark.parametrize(
    ("props", "why"),
    [
        ({"kind": "b"}, "gs1sk is"), ({"note": "n"}, "gs1sk is"), ({"limits": {"low": 1}}, "limits.range is"),
    ],
)  # fmt: skip
def test_a_template_of_which_a_part_is_given_needs_the_stored_item(props: dict[str, Any], why: str) -> None:
    with pytest.raises(ModelError, match=f"Item: {why}.*read the item first") as caught:
        ITEMS.update({**BASE, **props}, ME, 5)
    assert caught.value.code == "before"


def test_a_template_of_which_all_is_known_is_made_without_the_stored_item() -> None:
    table = ExpressionTable()
    key = _make(table)
    table.run(ITEMS.update({**BASE, "kind": "b", "note": "n"}, ME, 5).actions)
    image = stored(table, key)
    assert (image["gs1pk"], image["gs1sk"], image["newest"]) == ("kind#b", "b#n", "5#1")
    table.run(ITEMS.update({**BASE, "kind": "b", "note": None}, ME, 6).actions)
    assert "gs1sk" not in stored(table, key)


def test_an_id_that_is_given_and_in_the_context_is_written_once() -> None:
    table = ExpressionTable()
    key = _make(table)
    table.run(ITEMS.update({**BASE, "deviceId": "dev1", "accountId": "x"}, ME, 5).actions)
    assert stored(table, key)["deviceId"] == "dev1"
    assert "accountId" not in stored(table, key)


def test_packed_fields_are_written_whole_when_all_are_given_else_by_member() -> None:
    table = ExpressionTable()
    key = _make(table)
    table.run(ITEMS.update({**BASE, "street": "s", "zip": "z"}, ME, 5).actions)
    assert stored(table, key)["address"] == {"s": "s", "z": "z"}
    table.run(ITEMS.update({**BASE, "zip": "y"}, ME, 5).actions)
    assert stored(table, key)["address"] == {"s": "s", "z": "y"}
    table.run(ITEMS.update({**BASE, "zip": None}, ME, 5).actions)
    assert stored(table, key)["address"] == {"s": "s"}


def test_numbers_sets_and_arrays_can_grow_and_shrink_in_place() -> None:
    table = ExpressionTable()
    key = _make(table)
    write = ITEMS.update({"id": "x", "code": 1}, ME, 5, add={"count": 3, "tags": {"a", "b"}}, push={"list": ["p"]})
    table.run(write.actions)
    table.run(
        ITEMS.update(
            {"id": "x", "code": 1}, ME, 6, add={"count": -1}, delete={"tags": {"a"}}, push={"list": ("q", 2)}
        ).actions
    )
    image = stored(table, key)
    assert (image["count"], image["tags"], image["list"]) == (2, {"$SS": ["b"]}, ["p", "q", 2])


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [
        ("add", {"nonsense": 1}), ("add", {"note": "x"}), ("add", {"code": 1}), ("add", {"count": 1}),
        ("delete", {"count": 1}), ("push", {"tags": ["x"]}), ("add", {"street": 1}), ("add", {"id": 1}),
    ],
)  # fmt: skip
def test_what_cannot_be_added_to_is_refused(kind: str, wanted: dict[str, Any]) -> None:
    props = {"id": "x", "code": 1, "count": 5}
    assert code_of(lambda: ITEMS.update(props, ME, 5, **{kind: wanted})) == "operation"


def _make(table: ExpressionTable, **props: Any) -> Key:
    write = ITEMS.create({**BASE, **props}, ME, 1, new_id)
    table.run(write.actions)
    return write.key


_TEXTS = st.sampled_from(["", "a", "$B", "\u20ac"])
_PARTS = st.fixed_dictionaries(
    {},
    optional={
        "low": st.integers(0, 3) | st.none(), "high": st.integers(0, 3), "range": _TEXTS,
        "deep": st.fixed_dictionaries({}, optional={"x": _TEXTS, "y": _TEXTS}),
    },
)  # fmt: skip
_CHANGES = st.fixed_dictionaries(
    {},
    optional={
        "kind": _TEXTS.filter(bool) | st.none(), "note": _TEXTS.filter(bool) | st.none(), "limits": _PARTS | st.none(),
        "whole": st.fixed_dictionaries({}, optional={"a": _TEXTS, "b": _TEXTS}) | st.none(),
        "street": _TEXTS | st.none(), "zip": _TEXTS | st.none(), "gone": _TEXTS | st.none(),
        "tags": st.sets(_TEXTS, min_size=1) | st.none(), "gs1sk": _TEXTS.filter(bool), "label": _TEXTS,
        "list": st.lists(_TEXTS, max_size=2),
    },
)  # fmt: skip


def _given(changes: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in changes.items() if value is not None}


@given(_CHANGES, _CHANGES)
def test_an_update_leaves_in_the_table_what_the_model_makes_of_the_item(
    first: dict[str, Any], second: dict[str, Any]
) -> None:
    table = ExpressionTable()
    key = _make(table, **_given(first))
    table.items[key]["later"] = {"M": {"by": {"B": b"another"}}}
    before = stored(table, key)
    props = {**BASE, **second}
    expected = ITEM.update(key, before, props, ME, 2000)
    table.run(ITEMS.update(props, ME, 2000, before=before).actions)
    assert _no_empty_pack(stored(table, key)) == expected
    again = ExpressionTable()
    again.items[key] = to_item(key, before)
    try:
        blind = ITEMS.update(props, ME, 2000)
    except ModelError as error:
        assert error.code == "before"
        return
    try:
        again.run(blind.actions)
    except AssertionError as error:
        assert "no map at" in str(error)  # a part of an object that is not there: the service refuses it too
        return
    seen = ITEM.read(key, stored(again, key))
    assert seen == ITEM.read(key, expected)


def _no_empty_pack(image: Image) -> Image:
    return {name: value for name, value in image.items() if name != "address" or value != {}}


@given(_CHANGES, _CHANGES)
def test_an_upsert_makes_what_create_makes_and_changes_as_update_does(
    first: dict[str, Any], second: dict[str, Any]
) -> None:
    props = {**BASE, **second}
    try:
        write = ITEMS.upsert(props, ME, 2000, new_id)
    except ModelError as error:
        assert error.code == "before"
        return
    empty = ExpressionTable()
    empty.run(write.actions)
    assert stored(empty, write.key) == ITEM.create(props, ME, 2000, new_id)[1]
    table = ExpressionTable()
    key = _make(table, **_given(first))
    before = stored(table, key)
    table.run(write.actions)
    after = stored(table, key)
    assert after["created"] == 1
    for name in ("kind", "limits", "gs1pk"):  # no default over what is there
        if name not in props and "kind" not in props:
            assert after.get(name) == before.get(name)
    for name, value in ITEM.read(key, ITEM.update(key, before, props, ME, 2000)).items():
        if name != "whole":  # an object that is replaced gets its nested defaults here, and not on update
            assert ITEM.read(key, after)[name] == value


def test_an_upsert_that_knows_the_item_is_a_create_or_an_update() -> None:
    assert "Put" in ITEMS.upsert(BASE, ME, 5, new_id, before=None).actions[0]
    key, image = ITEM.create({**BASE, "kind": "b"}, ME, 1, new_id)
    table = ExpressionTable()
    table.items[key] = to_item(key, image)
    table.run(ITEMS.upsert({**BASE, "note": "n"}, ME, 5, new_id, before=image).actions)
    assert stored(table, key)["gs1sk"] == "b#n"
    assert code_of(lambda: ITEMS.upsert({**BASE, "note": "n"}, ME, 5, new_id)) == "before"
    assert code_of(lambda: ITEMS.upsert({**BASE, "limits": {"low": 1}}, ME, 5, new_id)) == "before"
    assert code_of(lambda: ITEMS.upsert({**BASE, "zip": "z"}, ME, 5, new_id)) == "before"
    assert code_of(lambda: ITEMS.upsert({"id": "x", "code": 1}, ME, 5, new_id)) == "required"


# --- remove


def test_remove_deletes_the_item_and_asks_for_nothing_else() -> None:
    write = Requests(PLAIN, "T").remove({"id": "x"}, ME)
    assert write.request() == ("delete_item", {"TableName": "T", "Key": {"pk": {"S": "p#"}, "sk": {"S": "p#x"}}})


# --- unique values


def uniques(table: ExpressionTable) -> list[str]:
    for (pk, sk), item in table.items.items():
        if pk.startswith("_unique#"):
            assert sk == "_unique#"
            assert item == {"pk": {"S": pk}, "sk": {"S": sk}, "_type": {"S": "_Unique"}}
    return sorted(pk.removeprefix("_unique#") for pk, _ in table.items if pk.startswith("_unique#"))


def _user(table: ExpressionTable, **props: Any) -> Key:
    write = USERS.create({"name": "n", **props}, ME, 1, new_id)
    table.run(write.actions)
    return write.key


def test_each_unique_value_has_an_item_made_in_the_same_transaction() -> None:
    table = ExpressionTable()
    write = USERS.create({"id": "1", "name": "n", "email": "a@b", "phone": 5, "nick": "z"}, ME, 1, new_id)
    assert write.request()[0] == "transact_write_items"
    table.run(write.actions)
    assert uniques(table) == ["User#names,nick#z", "User#phone#5", "main#User#email#a@b"]
    for taken in ({"email": "a@b"}, {"phone": 5}, {"nick": "z"}):
        with pytest.raises(Refused):
            _user(table, id="2", **taken)
    assert len(table.items) == 4
    _user(table, id="2", email="b@b")


def test_an_update_that_changes_a_unique_value_takes_the_new_and_frees_the_old() -> None:
    table = ExpressionTable()
    key = _user(table, id="1", email="a@b", nick="z")
    _user(table, id="2", email="b@b")
    before = stored(table, key)
    with pytest.raises(Refused):
        table.run(USERS.update({"id": "1", "email": "b@b"}, ME, 5, before=before).actions)
    write = USERS.update({"id": "1", "email": "c@b", "nick": None, "phone": 8}, ME, 5, before=before)
    table.run(write.actions)
    assert uniques(table) == ["User#phone#8", "main#User#email#b@b", "main#User#email#c@b"]
    assert "names" not in stored(table, key)
    with pytest.raises(Refused):  # made from a state that is no more
        table.run(USERS.update({"id": "1", "email": "d@b"}, ME, 6, before=before).actions)
    same = USERS.update({"id": "1", "email": "c@b"}, ME, 6, before=stored(table, key))
    assert same.request()[0] == "update_item"
    assert USERS.update({"id": "1", "name": "m"}, ME, 6).request()[0] == "update_item"


def test_a_remove_frees_the_unique_values() -> None:
    table = ExpressionTable()
    key = _user(table, id="1", email="a@b", phone=5)
    stale = stored(table, key)
    table.run(USERS.update({"id": "1", "phone": 6}, ME, 5, before=stale).actions)
    with pytest.raises(Refused):
        table.run(USERS.remove({"id": "1"}, ME, before=stale).actions)
    table.run(USERS.remove({"id": "1"}, ME, before=stored(table, key)).actions)
    assert table.items == {}
    assert USERS.remove({"id": "1"}, ME, before=None).request()[0] == "delete_item"


def test_what_frees_or_takes_a_unique_value_needs_the_stored_item() -> None:
    assert code_of(lambda: USERS.update({"id": "1", "email": "x"}, ME, 5)) == "before"
    assert code_of(lambda: USERS.update({"id": "1", "accountId": "x"}, ME, 5)) == "before"
    assert code_of(lambda: USERS.remove({"id": "1"}, ME)) == "before"
    assert code_of(lambda: USERS.upsert({"id": "1", "name": "n"}, ME, 5, new_id)) == "before"


def test_a_scope_that_lacks_its_variable_is_an_error_and_no_text_undefined() -> None:
    nobody = Context("", "")
    assert code_of(lambda: USERS.create({"id": "1", "name": "n", "email": "a@b"}, nobody, 1, new_id)) == "scope"
    USERS.create({"id": "1", "name": "n"}, nobody, 1, new_id)
    key, image = USER.create({"id": "1", "name": "n"}, nobody, 1, new_id)
    assert USER.unique_keys(key, image) == ()
    assert code_of(lambda: USERS.update({"id": "1", "email": "x"}, nobody, 5, before=image)) == "scope"
    assert (
        code_of(lambda: USERS.create({"id": "1", "name": "n", "phone": 1, "nick": "x" * 2100}, ME, 1, new_id)) == "key"
    )


TEMPLATED = Schema.parse(
    """{
    version: '1', indexes: {primary: {hash: 'pk', sort: 'sk'}},
    models: {
        Item: {
            pk: {type: 'string', value: 'item#${id}'}, sk: {type: 'string', value: 'item#'},
            id: {type: 'string', required: true}, code: {type: 'string'},
            label: {type: 'string', value: 'x-${code}', validate: '/^x-[0-9]+$/'},
            limits: {type: 'object', partial: true, schema: {
                low: {type: 'string'}, name: {type: 'string', value: 'l${low}', enum: ['l1', 'l2']},
            }},
        },
    },
}""",
    "templated.json5",
)


@pytest.mark.parametrize(
    ("changes", "code"), [({"code": "abc"}, "validate"), ({"limits": {"low": "3"}}, "enum")], ids=["top", "nested"]
)
def test_what_a_template_gives_is_checked_also_where_the_item_was_not_read(changes: dict[str, Any], code: str) -> None:
    templated = Requests(TEMPLATED.models["Item"], "t")
    with pytest.raises(ModelError) as refused:
        templated.update({"id": "1", **changes}, ME, 1)
    assert refused.value.code == code
    templated.update({"id": "1", "code": "7", "limits": {"low": "2"}}, ME, 1)


def test_a_partial_object_that_is_given_empty_is_made_and_harms_none_that_is_there() -> None:
    requests = Requests(TEMPLATED.models["Item"], "t")
    table = ExpressionTable()
    key = _created(table, requests, id="1")
    table.run(requests.update({"id": "1", "limits": {}}, ME, 2).actions)
    assert stored(table, key)["limits"] == {}
    table.run(requests.update({"id": "1", "limits": {"low": "1"}}, ME, 3).actions)
    table.run(requests.update({"id": "1", "limits": {}}, ME, 4).actions)
    assert stored(table, key)["limits"] == {"low": "1", "name": "l1"}


def test_an_upsert_that_removes_a_variable_removes_what_was_made_of_it() -> None:
    requests = Requests(TEMPLATED.models["Item"], "t")
    table = ExpressionTable()
    key = _created(table, requests, id="1", code="7")
    assert stored(table, key)["label"] == "x-7"
    table.run(requests.upsert({"id": "1", "code": None}, ME, 2, new_id).actions)
    assert not {"code", "label"} & set(stored(table, key))


def test_the_ids_of_who_acts_go_over_nothing_that_was_read() -> None:
    table = ExpressionTable()
    key = _user(table, id="1", email="a@b")
    before = stored(table, key)
    table.run(USERS.update({"id": "1", "name": "n2"}, Context("dev2", "other"), 5, before=before).actions)
    assert (stored(table, key)["name"], stored(table, key)["accountId"]) == ("n2", before["accountId"])
    assert uniques(table) == ["main#User#email#a@b"]


def test_a_scope_of_what_is_in_the_key_needs_the_stored_item_no_oftener() -> None:
    schema = Schema.parse(
        """{
        version: '1', indexes: {primary: {hash: 'pk', sort: 'sk'}},
        models: {Seat: {
            pk: {type: 'string', value: 'room#${room}'}, sk: {type: 'string', value: 'seat#${id}'},
            room: {type: 'string', encode: ['pk', '#', 1]}, id: {type: 'string'}, note: {type: 'string'},
            label: {type: 'string', unique: true, scope: '${room}'},
        }},
    }""",
        "seats.json5",
    )
    seats = Requests(schema.models["Seat"], "t")
    table = ExpressionTable()
    key = _created(table, seats, room="r", id="1", label="a")
    table.run(seats.update({"room": "r", "id": "1", "note": "n"}, ME, 2).actions)
    table.run(seats.update({"room": "r", "id": "1", "label": "b"}, ME, 3, before=stored(table, key)).actions)
    assert uniques(table) == ["r#Seat#label#b"]
    assert stored(table, key)["label"] == "b"


def test_a_scope_that_has_changed_since_the_item_was_read_refuses_the_write() -> None:
    nobody = Context("", "")
    table = ExpressionTable()
    key = _user(table, id="1", email="a@b")
    stale = stored(table, key)
    table.run(USERS.update({"id": "1", "accountId": "other"}, nobody, 5, before=stale).actions)
    assert uniques(table) == ["other#User#email#a@b"]
    with pytest.raises(Refused):
        table.run(USERS.update({"id": "1", "email": "c@d"}, nobody, 6, before=stale).actions)
    table.run(USERS.update({"id": "1", "email": "c@d"}, nobody, 7, before=stored(table, key)).actions)
    assert uniques(table) == ["other#User#email#c@d"]


def _created(table: ExpressionTable, requests: Requests, **props: Any) -> Key:
    write = requests.create(props, ME, 1, new_id)
    table.run(write.actions)
    return write.key
