"""The corpus, part two: properties of fields: templates, defaults, checks, nulls, mapping, nested schemas, unique."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from onetable.case import CONTEXT, GS1, LATER, WHEN, Case, Fields, case, create, find, put, remove, update, upsert

TEXT: Final = {"type": "string"}
NUMBER: Final = {"type": "number"}
STORED_SECOND: Final = "a template takes the second that is stored: what is computed again later finds nothing else"
AT_HAND: Final = "the item is at hand: what is given of a packed attribute changes, the rest of it stays"


def template(value: str, **more: Any) -> dict[str, Any]:
    return {"type": "string", "value": value, **more}


def templates() -> Iterator[Case]:
    abc: Fields = {"a": TEXT, "b": NUMBER, "c": {"type": "boolean"}}
    yield case("template/of-scalars", {**abc, "t": template("${a}-${b}-${c}")}, create(a="x", b=1.5, c=False))
    yield case(
        "template/of-large-numbers",
        {**abc, "t": template("${b}")},
        create(b=123456789012345),
        create("2", b=1e-7),
        create("3", b=-0.0),
    )
    yield case("template/literal", {"t": template("always")}, create(), update(), upsert("2"))
    yield case("template/unresolved-is-absent", {**abc, "t": template("${a}#${b}")}, create(a="x"), create("2"))
    yield case("template/empty-text-resolves", {**abc, "t": template("${a}#${b}")}, create(a="", b=0))
    yield case(
        "template/given-value-wins", {**abc, "t": template("${a}")}, create(a="x", t="mine"), update(a="y", t="z")
    )
    yield case("template/shown", {**abc, "t": template("${a}", hidden=False)}, create(a="x"))
    yield case("template/of-template", {**abc, "t": template("<${u}>"), "u": template("(${a})")}, create(a="x"))
    yield case("template/of-key", {**abc, "t": template("${pk}|${sk}")}, create(a="x"), update(a="y"))
    yield case("template/sees-default", {"a": {**TEXT, "default": "d"}, "t": template("${a}")}, create())
    yield case("template/sees-generated", {"a": {**TEXT, "generate": "uid(6)"}, "t": template("t#${a}")}, create())
    yield case("template/sees-context", {"accountId": TEXT, "t": template("t#${accountId}")}, create())
    yield case("template/required", {**abc, "t": template("${a}", required=True)}, create(), create("2", a="x"))
    yield case("template/validated", {**abc, "t": template("${a}", validate="/^x/")}, create(a="x"), create("2", a="y"))
    yield case("template/enum", {**abc, "t": template("${a}", enum=["x"])}, create(a="x"), create("2", a="y"))
    unlike = "a template gives a text; another type is refused"
    yield case("template/as-number", {**abc, "t": {"type": "number", "value": "${b}"}}, create(b=7), ours=unlike)
    yield case(
        "template/of-object",
        {"o": {"type": "object"}, "t": template("${o}")},
        create(o={"a": 1}),
        ours="a template that can never be rendered is refused with the schema, not at the first write",
    )
    yield case(
        "template/mapped", {"a": {**TEXT, "map": "x"}, "t": template("${a}", map="y")}, create(a="1"), update(a="2")
    )
    yield from _padded()
    yield from _dates_in_templates()
    yield from _recomputed()
    yield from _dotted()


def _padded() -> Iterator[Case]:
    n: Fields = {"n": NUMBER, "a": TEXT}
    for name, text in {
        "zeros": "${n:6:0}",
        "default-pad": "${n:6}",
        "spaces": "${n:4: }",
        "letters": "${a:5:x}",
        "long-pad": "${a:5:ab}",
        "two": "${n:3:0}#${a:3:_}",
    }.items():
        yield case(f"template/padded-{name}", {**n, "t": template(text)}, create(n=42, a="q"), update(n=7, a="r"))
    yield case("template/never-cut", {**n, "t": template("${n:2:0}")}, create(n=123456))
    yield case("template/padded-negative", {**n, "t": template("${n:6:0}")}, create(n=-42))
    yield case("template/padded-in-key", {**n, "sk": template("n#${n:6:0}")}, create(n=42), update(n=42, a="x"))


def _dates_in_templates() -> Iterator[Case]:
    for table in (False, True):
        params = {"isoDates": table}
        form = "iso" if table else "ms"
        at: Fields = {"at": {"type": "date"}, "t": template("at#${at}")}
        yield case(f"template/date-{form}", at, create(at=WHEN), update(at=LATER), params=params)
        # The template's own field decides the form, not the date's.
        own: Fields = {"at": {"type": "date", "isoDates": True}, "t": template("at#${at}")}
        yield case(f"template/date-field-iso-{form}", own, create(at=WHEN), params=params)
        ttl: Fields = {"at": {"type": "date", "ttl": True}, "t": template("at#${at}")}
        yield case(f"template/date-ttl-{form}", ttl, create(at=WHEN), params=params, ours=STORED_SECOND)
    text_iso: Fields = {"at": {"type": "date"}, "t": template("at#${at}", isoDates=True)}
    yield case("template/date-iso-template", text_iso, create(at=WHEN))


def _recomputed() -> Iterator[Case]:
    two: Fields = {"a": TEXT, "b": TEXT, "t": template("${a}#${b}"), "other": TEXT}
    yield case("template/recomputed-when-all-given", two, create(a="1", b="1"), update(a="2", b="2"))
    stale = "the device has the item at hand and computes the template from it: nothing goes stale"
    yield case("template/stale-when-some-given", two, create(a="1", b="1"), update(a="2"), ours=stale)
    yield case("template/untouched-by-others", two, create(a="1", b="1"), update(other="x"))
    yield case("template/stale-when-removed", two, create(a="1", b="1"), update(b=None), ours=stale)
    yield case("template/upsert", two, upsert(a="1", b="1"), upsert(a="2", b="3"))
    keyed: Fields = {"a": TEXT, "sk": template("${a}#${id}")}
    yield case("template/key-variable-changed", keyed, create(a="1"), update(a="2"))


def _dotted() -> Iterator[Case]:
    plain: Fields = {"o": {"type": "object"}, "t": template("${o.a}#${o.deep.b:3:0}")}
    yield case("template/dotted", plain, create(o={"a": "x", "deep": {"b": 5}}), update(o={"a": "y", "deep": {"b": 6}}))
    yield case("template/dotted-unresolved", plain, create(o={"a": "x"}), create("2"))
    schema = {"a": TEXT, "at": {"type": "date"}}
    with_schema: Fields = {"o": {"type": "object", "schema": schema}, "t": template("${o.a}#${o.at}")}
    yield case("template/dotted-schema", with_schema, create(o={"a": "x", "at": WHEN}))
    inside = {"a": TEXT, "b": TEXT, "t": template("${a}#${b}")}
    yield case("template/inside-schema", {"o": {"type": "object", "schema": inside}}, create(o={"a": "1", "b": "2"}))
    mapped = {"a": {**TEXT, "map": "x"}}
    mapped_schema: Fields = {"o": {"type": "object", "schema": mapped}, "t": template("${o.a}")}
    yield case("template/dotted-mapped", mapped_schema, create(o={"a": "1"}))


def defaults() -> Iterator[Case]:
    for name, field in {
        "text": {**TEXT, "default": "d"},
        "empty-text": {**TEXT, "default": ""},
        "zero": {**NUMBER, "default": 0},
        "false": {"type": "boolean", "default": False},
        "object": {"type": "object", "default": {"a": [1]}},
        "mapped": {**TEXT, "default": "d", "map": "m"},
    }.items():
        yield case(f"default/{name}", {"v": field}, create(), create("2", v=None), update(id="1"), upsert("3"))
    v: Fields = {"v": {**TEXT, "default": "d"}}
    over = "a default does not run over what is stored"
    yield case("default/upsert-over-stored", v, create(v="mine"), upsert(), ours=over)
    yield case("default/required", {"v": {**TEXT, "default": "d", "required": True}}, create(), create("2", v=None))
    yield case("default/read-where-absent", v, put({}))
    nested = {"a": {**TEXT, "default": "d"}, "b": TEXT}
    inside: Fields = {"o": {"type": "object", "schema": nested}}
    yield case("default/inside-schema", inside, create(o={"b": "x"}), create("2"), create("3", o={}))
    whole: Fields = {"o": {"type": "object", "schema": nested, "default": {"b": "D"}}}
    yield case("default/of-schema", whole, create(), create("2", o={}))
    required: Fields = {"o": {"type": "object", "schema": nested, "required": True}}
    yield case("default/required-schema-is-made", required, create())
    yield case("default/inside-schema-on-update", inside, create(o={"b": "x"}), update(o={"b": "y"}))
    yield case("default/inside-schema-on-upsert", inside, upsert(o={"b": "x"}), upsert(o={"b": "y", "a": "mine"}))


def generated() -> Iterator[Case]:
    for kind in ("ulid", "uuid", "uid", "uid(4)", "uid(12)"):
        field = {**TEXT, "generate": kind}
        yield case(f"generate/{kind}", {"v": field}, create(), create("2", v="mine"), update("2"), upsert("3"))
    yield case("generate/id", {"id": {**TEXT, "generate": "ulid", "required": True}}, create(None))
    yield case("generate/not-over-default", {"v": {**TEXT, "generate": "ulid", "default": "d"}}, create())
    yield case("generate/not-over-null", {"v": {**TEXT, "generate": "ulid"}}, create(v=None))
    nulls = {"v": {**TEXT, "generate": "ulid", "nulls": True}}
    yield case("generate/not-over-kept-null", nulls, create(v=None))
    yield case("generate/upsert-of-stored", {"v": {**TEXT, "generate": "ulid"}}, create(v="mine"), upsert(),
               ours="a generated id does not run over what is stored")  # fmt: skip
    inside: Fields = {"o": {"type": "object", "schema": {"v": {**TEXT, "generate": "ulid"}, "w": TEXT}}}
    yield case("generate/inside-schema", inside, create(o={"w": "x"}))


def checks() -> Iterator[Case]:
    for name, field, good, bad in (
        ("enum", {**TEXT, "enum": ["a", "b"]}, "b", "c"),
        ("enum-number", {**NUMBER, "enum": [1, 2]}, 2, 3),
        ("validate-slashes", {**TEXT, "validate": "/^[a-c]+$/"}, "abc", "abd"),
        ("validate-flags", {**TEXT, "validate": "/^[a-c]+$/i"}, "ABC", "ABD"),
        ("validate-unanchored", {**TEXT, "validate": "/b+/"}, "abba", "aca"),
        ("validate-plain", {**TEXT, "validate": "b+"}, "abba", "aca"),
        ("validate-slash-inside", {**TEXT, "validate": "/a/b/"}, "xa/by", "ab"),
    ):
        yield case(f"check/{name}", {"v": field}, create(v=good), update(v=good), update(v=bad), create("2", v=bad))
    checked: dict[str, Fields] = {"enum": {**TEXT, "enum": ["a"]}, "validate": {**TEXT, "validate": "/^a/"}}
    for name, fields in checked.items():
        yield case(f"check/{name}-not-given", {"v": fields}, create())
        yield case(f"check/{name}-null", {"v": fields}, create(v="a"), update(v=None))
        with_nulls: Fields = {"v": {**fields, "nulls": True}}
        differs = "a null that is kept is no value: enum does not refuse it" if name == "enum" else ""
        yield case(f"check/{name}-kept-null", with_nulls, create(v="a"), update(v=None), ours=differs)
    needed: Fields = {"v": {**TEXT, "required": True}}
    yield case("required/missing", needed, create(), create("2", v=None), upsert("3", v="x"))
    yield case("required/empty-text", needed, create(v=""))
    yield case("required/removed", needed, create(v="x"), update(v=None), update())
    missing = "an upsert that would create an item without a required field is refused"
    yield case("required/missing-in-upsert", needed, upsert(), ours=missing)
    kept: Fields = {"v": {**TEXT, "required": True, "nulls": True}}
    yield case("required/null", kept, create(v=None))
    inside: Fields = {
        "o": {"type": "object", "schema": {"v": {**TEXT, "required": True}, "e": {**TEXT, "enum": ["a"]}}}
    }
    yield case("required/inside-schema", inside, create(o={}), create("2"), create("3", o={"v": "x"}))
    yield case("check/inside-schema", inside, create(o={"v": "x", "e": "b"}), create("2", o={"v": "x", "e": "a"}))


def nulls() -> Iterator[Case]:
    for table in (False, True):
        for own in (None, False, True):
            field = TEXT if own is None else {**TEXT, "nulls": own}
            words = ["kept" if table else "dropped", {None: "", True: "field-kept", False: "field-dropped"}[own]]
            yield case(
                "nulls/" + "-".join(word for word in words if word),
                {"v": field, "w": {"type": "object", "schema": {"v": field, "x": TEXT}}},
                create(v=None, w={"v": None, "x": "x"}),
                update(v="x", w={"v": "y"}),
                update(v=None, w={"v": None}),
                upsert("2", v=None),
                params={"nulls": table},
            )
        whole: Fields = {"w": {"type": "object", "schema": {"v": TEXT}}}
        broken = "null removes an object with a schema like any other value"
        yield case(f"nulls/schema-object-{'kept' if table else 'dropped'}", whole, create(w={"v": "x"}), update(w=None),
                   create("2", w=None), params={"nulls": table}, ours="" if table else broken)  # fmt: skip
    yield case("nulls/inside-object", {"o": {"type": "object"}}, create(o={"a": None}), update(o={"a": None}))
    yield case("nulls/in-template", {"a": TEXT, "t": template("t#${a}")}, create(a=None))
    kept: Fields = {"a": {**TEXT, "nulls": True}, "t": template("t#${a}")}
    yield case("nulls/kept-in-template", kept, create(a=None))


def mapping() -> Iterator[Case]:
    packed: Fields = {"a": {**TEXT, "map": "box.x"}, "b": {**NUMBER, "map": "box.y"}, "c": TEXT}
    yield case("packed/all-together", packed, create(a="1", b=2), update(a="3", b=4), update(c="c"))
    yield case("packed/some", packed, create(a="1"), create("2", a="1", b=2), update("2", a="3"), ours=AT_HAND)
    refused = "the library's own request is refused by the server: it removes one path twice"
    yield case("packed/null", packed, create(a="1", b=2), update(a=None, b=None), ours=refused)
    yield case("packed/null-for-some", packed, create(a="1", b=2), update(a=None, b=4), ours=AT_HAND)
    yield case("packed/none", packed, create(c="c"))
    dated: Fields = {"a": {"type": "date", "map": "box.x"}, "b": {"type": "date", "map": "box.y", "isoDates": True}}
    yield case("packed/dates", dated, create(a=WHEN, b=WHEN))
    yield case("packed/default", {"a": {**TEXT, "map": "box.x", "default": "d"}, "b": packed["b"]}, create(b=1))
    yield case("packed/template", {**packed, "t": template("${a}#${b}")}, create(a="1", b=2))
    whole: Fields = {"a": {"type": "object", "map": "box.x", "schema": {"v": TEXT}}, "b": packed["b"]}
    yield case("packed/schema", whole, create(a={"v": "1"}, b=2))
    yield case("packed/object", {"a": {"type": "object", "map": "box.x"}, "b": packed["b"]}, create(a={"v": 1}, b=2))
    swapped: Fields = {"a": {**TEXT, "map": "b"}, "b": {**TEXT, "map": "a"}}
    yield case("mapped/swapped", swapped, create(a="1", b="2"))
    wrong = "the library maps the name twice, and writes to the other field"
    yield case("mapped/swapped-update", swapped, create(a="1", b="2"), update(a="3"), ours=wrong)
    yield case("mapped/to-index", {"a": {**TEXT, "map": "gs1pk"}, "b": {**TEXT, "map": "gs1sk"}},
               create(a="x", b="y"), find("gs1", a="x"), indexes={"gs1": GS1})  # fmt: skip


def schemas() -> Iterator[Case]:
    inner = {
        "a": TEXT,
        "b": NUMBER,
        "at": {"type": "date"},
        "deep": {"type": "object", "schema": {"x": TEXT, "y": TEXT}},
    }
    value = {"a": "1", "b": 2, "at": WHEN, "deep": {"x": "3", "y": "4"}}
    for partial in (False, True):
        word = "partial" if partial else "whole"
        for where in ("params", "field"):
            field: dict[str, Any] = {"type": "object", "schema": inner}
            params = {"partial": partial} if where == "params" else {"partial": not partial}
            if where == "field":
                field["partial"] = partial
            yield case(
                f"schema/{word}-by-{where}",
                {"o": field},
                create(o=value),
                update(o={"a": "9"}),
                update(o={"deep": {"x": "8"}}),
                update(o={"b": None, "deep": {"y": None}}),
                update(o={}),
                params=params,
            )
    yield case(
        "schema/whole-upsert", {"o": {"type": "object", "schema": inner}}, upsert(o={"a": "1"}), upsert(o={"b": 2})
    )
    absent = "a partial change of an object that is not there makes it"
    part: Fields = {"o": {"type": "object", "schema": inner, "partial": True}}
    yield case("schema/partial-upsert-of-absent", part, upsert(o={"a": "1"}), ours=absent)
    unknown: Fields = {"o": {"type": "object", "schema": {"a": TEXT}}}
    yield case("schema/unknown-dropped", unknown, create(o={"a": "1", "z": 2}), update(o={"z": 3, "a": "2"}))
    yield case("schema/not-an-object", unknown, create(o="x"), ours="a text is no object: refused")
    stored = put({"o": {"M": {"a": {"S": "1"}, "z": {"N": "1"}}}})
    yield case("schema/unknown-kept-by-partial", unknown, stored, update(o={"a": "2"}), params={"partial": True})
    yield case("schema/unknown-not-read", unknown, stored)
    yield case("schema/partial-of-absent", unknown, create(), update(o={"a": "2"}), params={"partial": True},
               ours=absent)  # fmt: skip
    both: Fields = {"o": {"type": "object", "map": "p", "schema": {"a": {**TEXT, "map": "q"}, "b": TEXT}}}
    changed = [create(o={"a": "1", "b": "2"}), update(o={"a": "3"})]
    yield case("schema/mapped-partial", both, *changed, params={"partial": True})
    hidden: Fields = {"o": {"type": "object", "schema": {"a": {**TEXT, "hidden": True}, "b": TEXT}}}
    yield case("schema/hidden-inside", hidden, create(o={"a": "1", "b": "2"}))
    items: Fields = {"a": {"type": "array", "items": {"type": "object", "schema": {"v": TEXT, "at": {"type": "date"}}}}}
    yield case("schema/array", items, create(a=[{"v": "1", "z": 1}, {"at": LATER}, {}]), update(a=[]), update(a=[{}]))
    yield case("schema/array-partial", items, create(a=[{"v": "1", "at": WHEN}]), update(a=[{"v": "2"}]),
               params={"partial": True}, ours="an array is replaced whole: elements have no identity")  # fmt: skip
    yield case("schema/object-plain", {"o": {"type": "object"}}, create(o={"a": {"b": 1}}), update(o={"a": {"c": 2}}))


def unique() -> Iterator[Case]:
    email: Fields = {"email": {**TEXT, "unique": True}, "name": TEXT}
    yield case("unique/create", email, create(email="a"), create("2", email="b"), create("3", name="none"))
    yield case("unique/taken", email, create(email="a"), create("2", email="a"), create("3", email="b"))
    yield case("unique/update", email, create(email="a"), update(email="b"), create("2", email="a"), update(email="a"))
    yield case("unique/update-same", email, create(email="a"), update(email="a", name="x"))
    yield case("unique/update-other-field", email, create(email="a"), update(name="x"))
    yield case("unique/update-first-value", email, create(name="x"), update(email="a"))
    yield case("unique/update-missing", email, update(email="a"))
    yield case("unique/upsert", email, upsert(email="a"), upsert(email="b"), upsert("2", email="b"))
    yield case("unique/remove", email, create(email="a"), remove(), create("2", email="a"))
    yield case("unique/remove-missing", email, remove())
    yield case("unique/null", email, create(email="a"), update(email=None), create("2", email="a"))
    yield case("unique/number", {"n": {**NUMBER, "unique": True}}, create(n=1.5), create("2", n=1.5))
    mapped: Fields = {"email": {**TEXT, "unique": True, "map": "em"}}
    yield case("unique/mapped", mapped, create(email="a"), update(email="b"))
    two: Fields = {"a": {**TEXT, "unique": True}, "b": {**TEXT, "unique": True}}
    yield case("unique/two", two, create(a="1", b="2"), update(a="3"), create("2", a="1", b="2"), remove())
    scoped: Fields = {"email": {**TEXT, "unique": True, "scope": "${org}"}, "org": TEXT}
    yield case("unique/scoped", scoped, create(email="a", org="x"), create("2", email="a", org="y"),
               create("3", email="a", org="x"))  # fmt: skip
    yield case("unique/scoped-update", scoped, create(email="a", org="x"), update(email="b", org="x"))
    yield case("unique/scoped-remove", scoped, create(email="a", org="x"), remove(org="x"))
    unresolved = "an unresolved scope is an error"
    yield case("unique/scope-unresolved", scoped, create(email="a"), ours=unresolved)
    yield case(
        "unique/scope-unresolved-on-update", scoped, create(email="a", org="x"), update(email="b"), ours=unresolved
    )
    account: Fields = {"email": {**TEXT, "unique": True, "scope": "${accountId}"}, "accountId": TEXT}
    yield case("unique/scope-context", account, create(email="a"), update(email="b"), remove())
    yield case("unique/default", {"v": {**TEXT, "unique": True, "default": "d"}}, create(), create("2"))
    yield case("unique/template", {"a": TEXT, "t": template("t#${a}", unique=True)}, create(a="1"), create("2", a="1"))
    stamped = {"timestamps": True}
    yield case("unique/stamped", email, create(email="a"), update(email="b"), params=stamped)
    yield case("unique/other-type-field", email, create(email="a"), params={"typeField": "kind"}, context=CONTEXT)
