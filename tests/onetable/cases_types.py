"""The corpus, part one: every type of field: as a date, a ttl, null, mapped, packed, nested, inside an array."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final

from onetable.case import LATER, WHEN, Case, Fields, case, create, put, update, upsert

# Type -> four values of it.
VALUES: Final[dict[str, tuple[Any, Any, Any, Any]]] = {
    "string": ("text", "", "Zoë 雪 🚲", "a#b"),
    "number": (7, -2.5, 0, 9007199254740991),
    "boolean": (True, False, True, False),
    "date": (WHEN, LATER, datetime(1969, 12, 31, 23, 59, 59, 999_000, UTC), datetime(2026, 1, 1, tzinfo=UTC)),
    "object": ({"a": 1, "when": WHEN}, {}, {"deep": {"list": [1, "x", {"when": LATER}]}}, {"a": None, "b": [None]}),
    "array": ([1, "a", True], [], [WHEN, {"when": LATER}], [[1, [2]], {"a": {"b": "c"}}]),
    "set": ({"b", "a"}, {3, 1, 2.5}, {b"\x00\xff", b"x"}, {"one"}),
    "buffer": (b"\x00\xff\x10", b"x", b"text", b"\x80"),
    "binary": (b"\x00\xff\x10", b"x", b"text", b"\x80"),
    "arraybuffer": (b"\x00\xff\x10", b"x", b"text", b"\x80"),
}
HOLDS_DATES: Final = ("date", "object", "array")
MAPPED: Final[dict[str, dict[str, str]]] = {"": {}, "mapped": {"map": "v"}, "packed": {"map": "box.v"}}

# Other values of a type, which the library takes as well.
ODD_NUMBERS: Final = {
    "fraction": 0.1,
    "sum": 0.1 + 0.2,
    "tiny": 1.5e-7,
    "minus-zero": -0.0,
    "smallest-safe": -9007199254740991,
}

UNREADABLE: Final = "the library cannot read an item in which bytes are NULL: absent instead"


def types() -> Iterator[Case]:
    """Every type x mapped or packed x nulls x isoDates (of the table, where the value can hold a date)."""
    for kind, values in VALUES.items():
        for mapped, mapping in MAPPED.items():
            for nulls in (False, True):
                for iso in (False, True) if kind in HOLDS_DATES else (False,):
                    words = [kind, mapped, "nulls" if nulls else "", "iso" if iso else ""]
                    name = "type/" + "-".join(word for word in words if word)
                    yield _type(name, kind, values, mapping, {"nulls": nulls, "isoDates": iso})


def _type(name: str, kind: str, values: tuple[Any, ...], mapping: dict[str, str], params: dict[str, Any]) -> Case:
    fields: dict[str, Any] = {"value": {"type": kind, **mapping}}
    packed = mapping.get("map") == "box.v"
    emptied = [] if packed and not params["nulls"] else [update("5", value=None, **({"size": None} if packed else {}))]
    if packed:
        fields["size"] = {"type": "number", "map": "box.s"}
    more: dict[str, Any] = {"size": 1} if packed else {}
    nothing: dict[str, Any] = {"size": None} if packed else {}
    first, second, third, fourth = values
    return case(
        name,
        fields,
        create(value=first, **more),
        create("2", value=second, **more),
        update("2", value=fourth, **more),
        upsert("3", value=third, **more),
        upsert("3", value=second, **more),
        create("4", value=third, **more),
        create("5", value=None, **nothing),
        upsert("5", value=first, **more),
        *emptied,  # packed fields cannot be removed: see packed/null
        create("6"),
        params=params,
        ours=UNREADABLE if params["nulls"] and kind in ("buffer", "binary", "arraybuffer") else "",
    )


def dates() -> Iterator[Case]:
    """The field's own isoDates, ttl, and the forms in which a date may be given or found."""
    for table in (False, True):
        for own in (None, False, True):
            for ttl in (False, True):
                field: dict[str, Any] = {"type": "date"}
                if own is not None:
                    field["isoDates"] = own
                if ttl:
                    field["ttl"] = True
                words = ["iso" if table else "ms", {None: "", True: "field-iso", False: "field-ms"}[own], "ttl" * ttl]
                yield case(
                    "date/" + "-".join(word for word in words if word),
                    {"at": field},
                    create(at=WHEN),
                    update(at=LATER),
                    upsert(at=datetime(2026, 1, 1, tzinfo=UTC)),
                    upsert("2", at=WHEN),
                    update(at=None),
                    params={"isoDates": table},
                    ours="one isoDates for the table: a field cannot switch it off" if table and own is False else "",
                )
    at: Fields = {
        "at": {"type": "date"},
        "iso": {"type": "date", "isoDates": True},
        "ttl": {"type": "date", "ttl": True},
    }
    refused = "a date is given as a date: other forms are refused"
    text = "2026-02-03T04:05:06.789Z"
    yield case("date/given-as-number", at, create(at=1234, iso=1234, ttl=1234), ours=refused)
    yield case("date/given-as-text", at, create(at=text, iso=text, ttl=text), ours=refused)
    millis, seconds = {"N": "1770091506789"}, {"N": "1770091507"}
    yield case("date/found-in-the-other-form", at, put({"at": {"S": text}, "iso": millis, "ttl": seconds}))
    default = {"at": {"type": "date", "default": text}, "iso": {"type": "date", "isoDates": True, "default": text}}
    yield case("date/default", default, create())
    yield case("date/default-number", {"at": {"type": "date", "default": 1770091506789}}, create())


def numbers_and_texts() -> Iterator[Case]:
    for name, number in ODD_NUMBERS.items():
        yield case(f"number/{name}", {"n": {"type": "number"}}, create(n=number), update(n=number))
    anything: Fields = {"n": {"type": "number"}, "s": {"type": "string"}, "b": {"type": "boolean"}}
    yield case("number/not-a-number", anything, create(n=float("nan")))
    yield case("number/infinite", anything, create(n=float("inf")))
    wide = "the library's client refuses a number beyond 2^53; a table holds it"
    yield case("number/huge", anything, create(n=1e21), create("2", n=2.0**53), ours=wide)
    refused = "a wrong type is refused, not converted"
    yield case("coerced/number-from-text", anything, create(n="12.50"), ours=refused)
    yield case("coerced/number-from-other-text", anything, create(n="twelve"))
    yield case("coerced/number-from-boolean", anything, create(n=True), ours=refused)
    yield case("coerced/text-from-number", anything, create(s=12.5), ours=refused)
    yield case("coerced/text-from-boolean", anything, create(s=True), ours=refused)
    yield case("coerced/boolean-from-text", anything, create(b="false"), create("2", b="yes"), ours=refused)
    yield case("coerced/boolean-from-number", anything, create(b=0), create("2", b=1), ours=refused)


def sets() -> Iterator[Case]:
    field: Fields = {"s": {"type": "set"}}
    yield case("set/empty", field, create(s=set()))
    yield case("set/emptied-by-update", field, create(s={"a"}), update(s=set()))
    mixed = "a set has members of one kind: refused"
    yield case("set/from-array", field, create(s=["b", "a", "b"]), ours="an array given for a set is stored as a set")
    yield case("set/mixed", field, create(s={"a", 1}), ours=mixed)
    yield case("set/default", {"s": {"type": "set", "default": ["a"]}}, create(), ours="a default of a set is a set")
    nested: Fields = {"o": {"type": "object", "schema": {"s": {"type": "set"}, "b": {"type": "buffer"}}}}
    yield case("set/in-schema", nested, create(o={"s": {"a", "b"}, "b": b"\x00"}), update(o={"s": {1}}))
    yield case("set/in-object", {"o": {"type": "object"}}, create(o={"s": {"a"}}))


def binaries() -> Iterator[Case]:
    array = "a byte array is stored as text too: one stored form for one value"
    for kind in ("buffer", "binary", "arraybuffer"):
        field: Fields = {"b": {"type": kind}}
        yield case(f"binary/{kind}-from-bytes", field, create(b=bytearray(b"\x00\xff")), ours=array)
        yield case(f"binary/{kind}-from-arraybuffer", field, create(b=memoryview(b"\x00\xff")), ours=array)
        yield case(f"binary/{kind}-from-text", field, create(b="not base64!"), ours="a text is no bytes: refused")
        yield case(f"binary/{kind}-empty", field, create(b=b""))
        yield case(
            f"binary/{kind}-found-in-both-forms", field, put({"b": {"S": "AP8="}}), put({"b": {"B": "AP8="}}, "2")
        )
    yield case("binary/in-object", {"o": {"type": "object"}}, create(o={"b": b"\x00\xff", "d": bytearray(b"x")}))
    yield case("binary/in-array", {"a": {"type": "array"}}, create(a=[b"\x00\xff"]))


def nested() -> Iterator[Case]:
    """Every type inside a nested schema, and as the element of an array with a schema."""
    for kind, values in VALUES.items():
        for iso in (False, True) if kind in HOLDS_DATES else (False,):
            inner = {"value": {"type": kind}, "mine": {"type": kind, "map": "m"}}
            first, second, third, fourth = values
            name = f"{kind}-iso" if iso else kind
            params = {"isoDates": iso}
            yield case(
                f"nested/{name}",
                {"o": {"type": "object", "schema": inner}},
                create(o={"value": first, "mine": second}),
                update(o={"value": third, "mine": fourth}),
                create("2", o={"value": None, "mine": first}),
                params=params,
            )
            yield case(
                f"array/{name}",
                {"a": {"type": "array", "items": {"type": "object", "schema": inner}}},
                create(a=[{"value": first, "mine": second}, {"value": third}]),
                update(a=[{"mine": fourth}]),
                params=params,
            )
    when: Fields = {"a": {"type": "array", "items": {"type": "date"}}}
    iso_items: Fields = {"a": {"type": "array", "items": {"type": "date", "isoDates": True}}}
    yield case("array/of-dates", when, create(a=[WHEN, LATER]), update(a=[LATER]))
    yield case("array/of-dates-iso", when, create(a=[WHEN]), params={"isoDates": True})
    own = "an element's own isoDates counts"
    yield case("array/of-dates-element-iso", iso_items, create(a=[WHEN]), ours=own)
    for kind, texts in {"string": ["a", ""], "number": [1, 2.5], "boolean": [True, False]}.items():
        element: Fields = {"a": {"type": "array", "items": {"type": kind}}}
        yield case(f"array/of-{kind}", element, create(a=texts), update(a=[]), update(a=None))
    yield case("array/nulls-inside", {"a": {"type": "array"}}, create(a=[1, None, {"x": None}]))
    yield case("array/from-text", {"a": {"type": "array"}}, create(a="x"))
    empty = "an empty text is no array: refused"
    yield case("array/from-empty-text", {"a": {"type": "array"}}, create(a=""), ours=empty)
    yield case("array/default", {"a": {"type": "array", "default": [1, "a"]}}, create(), create("2", a=None))
