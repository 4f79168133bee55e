"""Field properties one by one: nested defaults, templates and ids, index keys, stamps in templates, packed, encoded."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from agent.protocol.schema import Context, Image, Model, ModelError, Schema

ME = Context("dev1", "main")
DATE = datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)
HEAD = "version: '1', indexes: {primary: {hash: 'pk', sort: 'sk'}, gs1: {hash: 'gs1pk', sort: 'gs1sk'}}"
KEYS = "pk: {type: 'string', value: 'd#${deviceId}'}, sk: {type: 'string', value: 'm#${id}'}, id: {type: 'string'}"


def model(fields: str, params: str = "{}", keys: str = KEYS) -> Model:
    text = f"{{{HEAD}, params: {params}, models: {{M: {{{keys}, {fields}}}}}}}"
    return Schema.parse(text, "s").models["M"]


def made(m: Model, **props: Any) -> Image:
    ids = iter("ABCDEFGH")
    return m.create({"id": "1", **props}, ME, 1000, lambda kind: f"{kind}-{next(ids)}")[1]


def code_of(m: Model, **props: Any) -> tuple[str, str]:
    with pytest.raises(ModelError) as caught:
        made(m, **props)
    return caught.value.code, caught.value.field


def test_nested_fields_get_defaults_ids_and_templates_on_create() -> None:
    m = model("""o: {type: 'object', required: true, schema: {
        a: {type: 'string', default: 'A'}, u: {type: 'string', generate: 'uid(4)'}, n: {type: 'number'},
        t: {type: 'string', value: '${a}/${u}'}, s: {type: 'string', value: '${n}', required: true}}}""")
    assert made(m, o={"n": 1})["o"] == {"a": "A", "u": "uid(4)-A", "n": 1, "t": "A/uid(4)-A", "s": "1"}
    assert made(m, o={"n": 1, "a": None, "t": "mine"})["o"] == {"u": "uid(4)-A", "n": 1, "t": "mine", "s": "1"}
    assert code_of(m) == ("required", "o.s")
    assert code_of(m, o=None) == ("required", "o")


def test_a_required_object_or_array_with_a_schema_begins_empty() -> None:
    m = model("""o: {type: 'object', required: true, schema: {a: {type: 'string', default: 'A'}}},
        l: {type: 'array', required: true, items: {type: 'object', schema: {a: {type: 'string'}}}}""")
    assert (made(m)["o"], made(m)["l"]) == ({"a": "A"}, [])
    strict = model("o: {type: 'object', required: true, schema: {a: {type: 'string', required: true}}}")
    assert code_of(strict) == ("required", "o")
    assert code_of(model("l: {type: 'array', required: true}")) == ("required", "l")


def test_elements_get_ids_of_their_own() -> None:
    m = model("l: {type: 'array', items: {type: 'object', schema: {u: {type: 'string', generate: 'ulid'}}}}")
    assert made(m, l=[{}, {"u": "x"}, {}])["l"] == [{"u": "ulid-A"}, {"u": "x"}, {"u": "ulid-B"}]


def test_partial_goes_down_to_what_is_nested() -> None:
    m = model("""o: {type: 'object', partial: true, schema: {p: {type: 'object', schema: {a: {type: 'number'},
        b: {type: 'number'}}}, q: {type: 'object', partial: false, schema: {a: {type: 'number'}, b: {type: 'number'}}},
        t: {type: 'string', value: '${p.a}.${p.b}'}}}""")
    key, image = m.create({"id": "1", "o": {"p": {"a": 1, "b": 2}, "q": {"a": 1, "b": 2}}}, ME, 1, str)
    changed = m.update(key, image, {"o": {"p": {"a": 3}, "q": {"a": 3}}}, ME, 2)
    assert changed["o"] == {"p": {"a": 3, "b": 2}, "q": {"a": 3}, "t": "3.2"}


def test_nothing_takes_the_place_of_a_property_that_is_none() -> None:
    m = model(
        "a: {type: 'string', default: 'A'}, b: {type: 'string', generate: 'uid'}, c: {type: 'string', value: 'c'}"
    )
    assert set(made(m, a=None, b=None, c=None)) == {"_type", "id", "created", "updated"}
    assert made(m)["c"] == "c"
    nested = model("o: {type: 'object', schema: {a: {type: 'string', default: 'A'}, t: {type: 'string', value: 't'}}}")
    assert made(nested, o={"a": None, "t": None})["o"] == {}


def test_a_date_in_a_template_has_the_form_of_the_template_s_own_field() -> None:
    m = model("""at: {type: 'date', isoDates: true}, end: {type: 'date', ttl: true}, plain: {type: 'date'},
        a: {type: 'string', value: '${at}#${end}#${plain}'},
        b: {type: 'string', isoDates: true, value: '${at}#${end}#${plain}'}""")
    image = made(m, at=DATE, end=DATE, plain=DATE)
    assert image["a"] == "1767323045678#1767323046000#1767323045678"
    assert image["b"] == "2026-01-02T03:04:05.678Z#2026-01-02T03:04:06.000Z#2026-01-02T03:04:05.678Z"


def test_a_template_may_hold_the_stamps_and_follows_them() -> None:
    m = model("a: {type: 'string', value: '${updated}#${id}'}, b: {type: 'string', value: '${created}'}")
    key, image = m.create({"id": "1"}, ME, 1000, str)
    assert (image["a"], image["b"]) == ("1000#1", "1000")
    changed = m.update(key, image, {}, ME, 2000)
    assert (changed["a"], changed["b"]) == ("2000#1", "1000")
    assert m.stamp(image, 3000)["a"] == "3000#1"
    by_hand = m.update(key, image, {"a": "mine"}, ME, 2000)
    assert m.update(key, by_hand, {}, ME, 3000)["a"] == m.stamp(by_hand, 3000)["a"] == "mine"


# --- indexes


INDEXED = model(
    "gs1pk: {type: 'string', value: '${note}'}, gs1sk: {type: 'number', nulls: true}, note: {type: 'string'}",
    "{nulls: true}",
)


def test_an_item_is_in_an_index_when_it_has_both_of_its_keys() -> None:
    key, image = INDEXED.create({"id": "1", "note": "n", "gs1sk": 5}, ME, 1, str)
    assert INDEXED.index_keys(key, image) == {"gs1": ("n", 5)}
    for props in ({"note": "n"}, {"gs1sk": 5}, {"note": "", "gs1sk": 5}, {"note": "n", "gs1sk": None}):
        image = made(INDEXED, **props)
        assert INDEXED.index_keys(key, image) == {}
        assert "gs1pk" in image or not props.get("note")  # an empty text is no key: the attribute is left out
        assert image.get("gs1sk", 0) is not None  # nor is NULL
    assert INDEXED.index_keys(key, {"gs1pk": "", "gs1sk": 1}) == {}
    assert INDEXED.index_keys(key, {"gs1pk": {"$B": ""}, "gs1sk": 1}) == {}


def test_the_key_of_an_index_has_the_table_s_limits() -> None:
    assert code_of(INDEXED, gs1pk="", gs1sk=1) == ("key", "gs1pk")
    assert code_of(INDEXED, note="x" * 2049, gs1sk=1) == ("key", "gs1pk")
    made(INDEXED, note="x" * 2048)


def test_a_search_in_an_index_goes_as_far_as_its_templates_are_given() -> None:
    m = model("""gs1pk: {type: 'string', value: 'k#${kind}'}, gs1sk: {type: 'string', value: 's#${a}#${b}'},
        kind: {type: 'string'}, a: {type: 'string'}, b: {type: 'string'}""")
    assert m.index_search("gs1", {"kind": "x"}, ME) == ("k#x", "s#")
    assert m.index_search("gs1", {"kind": "x", "a": "1"}, ME) == ("k#x", "s#1#")
    assert m.index_search("gs1", {"kind": "x", "gs1sk": "given"}, ME) == ("k#x", "given")
    assert INDEXED.index_search("gs1", {"note": "n", "gs1sk": 0}, ME) == ("n", 0)
    for index, props, code in (("gs1", {}, "key"), ("gs2", {"kind": "x"}, "index")):
        with pytest.raises(ModelError) as caught:
            m.index_search(index, props, ME)
        assert caught.value.code == code


def test_a_local_index_is_another_order_of_the_same_hash_key() -> None:
    head = HEAD.replace("gs1: {", "ls1: {type: 'local', sort: 'at'}, gs1: {")
    m = Schema.parse(f"{{{head}, models: {{M: {{{KEYS}, at: {{type: 'date'}}}}}}}}", "s").models["M"]
    key, image = m.create({"id": "1", "at": DATE}, ME, 1, str)
    assert m.index_keys(key, image) == {"ls1": ("d#dev1", 1767323045678)}
    assert m.index_search("ls1", {}, ME) == ("d#dev1", None)


# --- packed, encoded


def test_packed_fields_share_an_attribute_and_keep_its_other_members() -> None:
    m = model("a: {type: 'string', map: 'm.a'}, b: {type: 'number', map: 'm.b'}, t: {type: 'string', value: '${a}!'}")
    key, image = m.create({"id": "1", "a": "x"}, ME, 1, str)
    assert (image["m"], image["t"]) == ({"a": "x"}, "x!")
    foreign = {**image, "m": {"a": "x", "z": [1]}}
    changed = m.update(key, foreign, {"b": 2}, ME, 2)
    assert changed["m"] == {"a": "x", "b": 2, "z": [1]}
    assert "m" not in m.update(key, image, {"a": None}, ME, 2)
    with pytest.raises(ModelError, match="holds packed fields"):
        m.check(key, {**image, "m": "text"})
    assert m.read(key, {**image, "m": "text"}).keys() == {"id", "created", "updated"}


def test_an_encoded_value_that_could_not_be_read_back_is_refused() -> None:
    m = model(
        "x: {type: 'number'}", keys=KEYS.replace("id: {type: 'string'}", "id: {type: 'number', encode: ['sk', '#', 1]}")
    )
    key, image = m.create({"id": 7}, ME, 1, str)
    assert (key[1], m.read(key, image)["id"], "id" in image) == ("m#7", 7, False)
    text = model(
        "x: {type: 'number'}", keys=KEYS.replace("id: {type: 'string'}", "id: {type: 'string', encode: ['sk', '#', 1]}")
    )
    assert code_of(text, id="a#b") == ("encode", "id")
    padded = model(
        "x: {type: 'number'}",
        keys=KEYS.replace("${id}", "${id:3:0}").replace("'string'}", "'string', encode: ['sk', '#', 1]}"),
    )
    assert code_of(padded, id="7") == ("encode", "id")
    assert padded.create({"id": "007"}, ME, 1, str)[0][1] == "m#007"


def test_a_set_that_the_javascript_library_stored_as_a_list_is_taken_and_reads_as_a_set() -> None:
    m = model("s: {type: 'set'}")
    key = ("d#dev1", "m#1")
    image = {**made(m), "s": ["b", "a"]}
    m.check(key, image)
    assert m.misfits(key, image) == {}
    assert m.read(key, image)["s"] == {"a", "b"}
    with pytest.raises(ModelError, match="expected a set"):
        m.check(key, {**image, "s": [["b"], "a"]})
