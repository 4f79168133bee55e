"""The corpus, part three: whole items: the verbs, context, stamps, secondary indexes, encode, what is read back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from onetable.case import GS1, LATER, WHEN, Case, Fields, case, create, find, get, put, remove, update, upsert
from onetable.cases_fields import NUMBER, STORED_SECOND, TEXT, template


def verbs() -> Iterator[Case]:
    v: Fields = {"v": TEXT, "w": TEXT}
    yield case("verb/create-over-existing", v, create(v="1"), create(v="2"))
    yield case("verb/update-missing", v, update(v="1"))
    yield case("verb/update-some", v, create(v="1", w="2"), update(v="3"))
    yield case("verb/update-nothing", v, create(v="1"), update())
    yield case("verb/upsert-creates", v, upsert(v="1"))
    yield case("verb/upsert-some", v, create(v="1", w="2"), upsert(v="3"))
    yield case("verb/upsert-nothing", v, upsert())
    yield case("verb/remove", v, create(v="1"), create("2"), remove(), get())
    yield case("verb/remove-missing", v, remove())
    yield case("verb/get-missing", v, get())
    yield case("verb/unknown-dropped", v, create(v="1", zzz="2"), update(w="3", yyy=4), upsert("2", xxx=[]))
    stored = put({"v": {"S": "1"}, "other": {"N": "5"}, "deep": {"M": {"a": {"NULL": True}}}})
    yield case("verb/unknown-kept", v, stored, update(v="2"), upsert(w="3"), update(v=None))
    untyped = put({"v": {"S": "1"}})
    assert untyped.raw is not None
    bare = replace(untyped, raw={name: value for name, value in untyped.raw.items() if name != "_type"})
    yield case(
        "verb/update-of-untyped",
        v,
        bare,
        update(v="2"),
        ours="an item without a type gets it with its first update: by it a synced item is told",
    )
    yield case("verb/upsert-of-untyped", v, bare, upsert(v="2"))
    yield case("verb/no-id", v, create(None, v="1"))
    yield case("verb/key-given", v, create(sk="mine"), update(sk="mine", v="1"))
    literal: Fields = {"sk": template("only"), "v": TEXT}
    yield case("verb/singleton", literal, create(v="1"), update(v="2"), upsert(v="3"), remove())
    byhand: Fields = {"pk": TEXT, "sk": TEXT, "v": TEXT}
    yield case("verb/keys-without-templates", byhand, create(pk="p", sk="s", v="1"), update(pk="p", sk="s", v="2"))
    yield case("verb/empty-sort-key", byhand, create(pk="p", sk=""))
    yield case("verb/number-as-id", {"id": NUMBER}, create(None, id=7), update(None, id=7))
    yield case("verb/types-in-any-case", {"a": {"type": "String"}, "b": {"type": "NUMBER"}}, create(a="1", b=2))


def contexts() -> Iterator[Case]:
    account: Fields = {"accountId": TEXT}
    yield case("context/into-items", account, create(), update(), upsert("2"))
    yield case("context/wins", account, create(accountId="other", deviceId="other"))
    yield case("context/wins-on-update", account, create(), update(accountId="other"))
    yield case("context/none", account, create(deviceId="dev7"), update(deviceId="dev7"), context={})
    yield case("context/none-missing", account, create(), context={})
    other = {"deviceId": "dev1", "color": "red"}
    yield case("context/other-field", {"color": TEXT}, create(), update(color="blue"), context=other,
               ours="a device's context has ids alone")  # fmt: skip


def stamps() -> Iterator[Case]:
    v: Fields = {"v": TEXT}
    for kept in (True, False, "create", "update"):
        for iso in (False, True):
            name = f"stamps/{str(kept).lower()}-{'iso' if iso else 'ms'}"
            params: dict[str, Any] = {"timestamps": kept, "isoDates": iso}
            steps = [create(v="1"), update(v="2")]
            if isinstance(kept, bool):
                steps += [upsert(v="3"), upsert("2", v="4"), upsert("2")]
            yield case(name, v, *steps, params=params)
    yield case("stamps/create-upsert", v, upsert(v="1"), upsert(v="2"), params={"timestamps": "create"},
               ours="an upsert that creates stamps created, too")  # fmt: skip
    yield case("stamps/update-upsert", v, upsert(v="1"), upsert(v="2"), params={"timestamps": "update"},
               ours="a schema that does not stamp created has none")  # fmt: skip
    yield case("stamps/over-the-given", v, create(created=WHEN, updated=WHEN), update(updated=LATER, v="1"),
               params={"timestamps": True})  # fmt: skip
    yield case("stamps/created-on-update", v, create(), update(created=LATER), params={"timestamps": True},
               ours="created stays what it was")  # fmt: skip
    named = {"timestamps": True, "createdField": "made", "updatedField": "changed"}
    yield case("stamps/named", v, create(v="1"), update(v="2"), upsert("2", v="3"), params=named)
    listed: Fields = {"v": TEXT, "created": {"type": "date", "isoDates": True}, "updated": {"type": "date"}}
    yield case("stamps/listed", listed, create(v="1"), upsert(v="2"), upsert("2", v="3"), params={"timestamps": True})
    mapped: Fields = {"v": TEXT, "updated": {"type": "date", "map": "up"}, "created": {"type": "date", "map": "cr"}}
    yield case("stamps/mapped", mapped, create(v="1"), update(v="2"), params={"timestamps": True})
    yield case("stamps/mapped-upsert", mapped, upsert(v="1"), upsert(v="2"), params={"timestamps": True})
    dated: Fields = {"t": template("u#${updated}")}
    yield case("stamps/in-template", dated, create(), update(), params={"timestamps": True})
    yield case(
        "stamps/type-field", v, create(v="1"), upsert("2", v="2"), params={"typeField": "kind", "timestamps": True}
    )


def indexes() -> Iterator[Case]:
    gs1 = {"gs1": GS1}
    sparse: Fields = {
        "kind": TEXT,
        "rank": NUMBER,
        "gs1pk": template("kind#${kind}"),
        "gs1sk": template("rank#${rank:4:0}#${id}"),
    }
    yield case("index/full", sparse, create(kind="a", rank=5), create("2", kind="a", rank=12), find("gs1", kind="a"),
               indexes=gs1)  # fmt: skip
    yield case("index/sparse", sparse, create(rank=5), create("2", kind="a"), find("gs1", kind="a"), indexes=gs1)
    yield case("index/updated", sparse, create(kind="a", rank=5), update(kind="b", rank=6), find("gs1", kind="b"),
               find("gs1", kind="a"), indexes=gs1)  # fmt: skip
    stale = "the device has the item at hand and computes the template from it: nothing goes stale"
    gone = [create(kind="a", rank=5), update(kind=None), find("gs1", kind="a")]
    yield case("index/stale-after-removal", sparse, *gone, indexes=gs1, ours=stale)
    yield case("index/begins-with", sparse, create("1", kind="a", rank=5), create("2", kind="a", rank=50),
               find("gs1", kind="a", rank=5), indexes=gs1)  # fmt: skip
    yield case("index/upserted", sparse, upsert(kind="a", rank=1), upsert(kind="a", rank=2), find("gs1", kind="a"),
               indexes=gs1)  # fmt: skip
    keys = {"gs1": {**GS1, "project": "keys"}}
    yield case("index/keys-only", {**sparse, "v": TEXT}, create(kind="a", rank=1, v="x"), find("gs1", kind="a"),
               indexes=keys)  # fmt: skip
    some = {"gs1": {**GS1, "project": ["kind"]}}
    yield case("index/some-projected", {**sparse, "v": TEXT}, create(kind="a", rank=1, v="x"), find("gs1", kind="a"),
               indexes=some)  # fmt: skip
    local = {"ls1": {"type": "local", "sort": "lsort", "project": "all"}}
    yield case("index/local", {"v": TEXT, "lsort": template("v#${v}")}, create(v="b"), create("2", v="a"), create("3"),
               find("ls1"), indexes=local)  # fmt: skip
    plain: Fields = {"gs1pk": TEXT, "gs1sk": TEXT}
    yield case("index/attributes-given", plain, create(gs1pk="a", gs1sk="b"), find("gs1", gs1pk="a"), indexes=gs1)
    yield case("find/prefix", {"v": TEXT}, create("a1"), create("a2", v="x"), create("b"), find(), find(v="x"))
    deeper: Fields = {"sk": template("thing#${v}#${id}"), "v": TEXT}
    yield case("find/part-of-sort-key", deeper, create("1", v="a"), create("2", v="a"), create("3", v="b"), find(v="a"))
    literal: Fields = {"sk": template("thing#${v}#x#${id}"), "v": TEXT}
    yield case(
        "find/begins-up-to-the-first-unresolved", literal, create("1", v="a"), create("2", v="b"), find(), find(v="b")
    )


def encoded() -> Iterator[Case]:
    parts: Fields = {"sk": template("thing#${a}#${id}"), "a": {**TEXT, "encode": ["sk", "#", 1]}}
    yield case("encode/part-of-key", parts, create(a="x"), get(a="x"), find())
    yield case("encode/update", parts, create(a="x"), update(a="x"))
    first: Fields = {"sk": template("${a}#${id}"), "a": {**TEXT, "encode": "sk"}}
    short = "the short form is refused"
    yield case("encode/short-form", first, create(a="x"), get(a="x"), ours=short)
    literal: Fields = {"sk": template("thing#${a}#${id}"), "a": {**TEXT, "encode": "sk"}}
    yield case("encode/short-form-after-a-literal", literal, create(a="x"), get(a="x"), ours=short)
    number: Fields = {"sk": template("n#${n}#${id}"), "n": {**NUMBER, "encode": ["sk", "#", 1]}}
    yield case("encode/number", number, create(n=5), get(n=5))
    other: Fields = {"b": template("x:${c}"), "c": {**TEXT, "encode": ["b", ":", 1]}}
    yield case("encode/part-of-other-field", other, create(c="y"))


def other_properties() -> Iterator[Case]:
    ignored = {"fixed": True, "filter": False, "reference": "Other", "description": "text", "timestamp": True}
    yield case("ignored/properties", {"v": {**TEXT, **ignored}}, create(v="1"), update(v="2"))
    yield case("hidden/field", {"v": {**TEXT, "hidden": True}, "w": TEXT}, create(v="1", w="2"), update(v="3"))
    yield case("hidden/keys-shown", {"pk": template("device#${deviceId}", hidden=False)}, create())
    secret = "an encrypted field is refused: it would be stored in clear"
    yield case("crypt/without-secret", {"v": {**TEXT, "crypt": True}}, create(v="1"), ours=secret)
    yield case("read/attributes-of-another-type", {"v": TEXT, "n": NUMBER, "b": {"type": "boolean"}},
               put({"v": {"N": "1"}, "n": {"S": "1"}, "b": {"NULL": True}}))  # fmt: skip
    yield case("read/large-numbers", {"n": NUMBER}, put({"n": {"N": "9007199254740993"}}))
    yield case("read/nulls", {"v": TEXT, "at": {"type": "date"}, "o": {"type": "object", "schema": {"a": TEXT}}},
               put({"v": {"NULL": True}, "at": {"NULL": True}, "o": {"NULL": True}}))  # fmt: skip


def order() -> Iterator[Case]:
    """What a write does first: context, defaults, generated ids, templates, nulls, checks."""
    chain: Fields = {
        "accountId": TEXT,
        "a": {**TEXT, "default": "d"},
        "b": {**TEXT, "generate": "uid(5)"},
        "t": template("${accountId}#${a}#${b}", validate="/^acc1#d#/"),
    }
    yield case("order/templates-after-context-defaults-and-generated", chain, create())
    early: Fields = {"o": {"type": "object", "schema": {"a": {**TEXT, "default": "in"}}}, "t": template("${o.a}")}
    yield case("order/nested-before-templates", early, create(o={}))
    dropped: Fields = {"a": {**TEXT, "enum": ["x"]}}
    yield case("order/nulls-before-checks", dropped, create(a=None))
    text: Fields = {"n": {**NUMBER, "enum": [1]}}
    yield case("order/checks-before-conversion", text, create(n="1"))
    yield case("order/templates-before-conversion", {"at": {"type": "date", "ttl": True}, "t": template("${at}")},
               create(at=WHEN), ours=STORED_SECOND)  # fmt: skip
