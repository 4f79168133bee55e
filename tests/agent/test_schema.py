"""Schemas: whose a key is, ranges, fingerprints, files and their blending. What is refused: test_schema_problems.py."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.protocol import schema as schema_module
from agent.protocol.onetable.loader import FILES_MAX
from agent.protocol.schema import Context, InputError, Key, Place, Problem, Schema

ME = Context("dev1", "main")
FILE = Path(__file__).parents[2] / "scenarios/schemas/fleet.json5"
FLEET = Schema.load(FILE)
HEAD = "version: '1', indexes: {primary: {hash: 'pk', sort: 'sk'}}"

# name: (sync, hash, sort). The layouts of real tables: several models under one hash key, ids in the sort key.
LAYOUT = {
    "Status": ("up", "device#${deviceId}", "status#"),
    "Fault": ("up", "device#${deviceId}", "fault#${id}"),
    "Store": ("both", "s#${accountId}#${deviceId}", "s#${id}"),
    "Command": ("down", "command#", "command#${accountId}#${deviceId}#${id}"),
    "Rule": ("down", "account#${accountId}", "rule#${id}"),
    "Region": ("down", "region#", "region#${accountId}#${id}"),
    "News": ("down", "news#", "news#${id}"),
    "Old": ("none", "device#${deviceId}", "fault#old#${id}"),
    "Org": ("none", "org#${id}#x", "${id}"),
    "Any": ("none", "device#${deviceId}", "${id}"),
}


def text_of(layout: dict[str, tuple[str, str, str]]) -> str:
    models = ",\n".join(
        f"{name}: {{pk: {{type: 'string', value: '{pk}'}}, sk: {{type: 'string', value: '{sk}'}}, "
        "id: {type: 'string'}}"
        for name, (_, pk, sk) in layout.items()
    )
    process = ", ".join(f"{name}: {{sync: '{sync}'}}" for name, (sync, _, _) in layout.items())
    return f"{{{HEAD}, process: {{{process}}}, models: {{{models}}}}}"


SCHEMA = Schema.parse(text_of(LAYOUT), "layout")


def place(name: str, device: str | None, account: str | None) -> Place:
    return Place(SCHEMA.models[name], device, account)


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (("device#d1", "status#"), ("Status", "d1", None)),
        (("device#d1", "status#x"), ("Any", "d1", None)),
        (("device#d1", "fault#1"), ("Fault", "d1", None)),
        (("device#d1", "fault#old#1"), ("Old", "d1", None)),
        (("device#d1", "f"), ("Any", "d1", None)),
        (("device#d1", ""), ("Any", "d1", None)),
        (("s#acc#d1", "s#k"), ("Store", "d1", "acc")),
        (("s#acc#d1", "t#k"), None),
        (("s#acc", "s#k"), None),
        (("command#", "command#acc#d1#7"), ("Command", "d1", "acc")),
        (("command#", "command#acc#d1"), None),
        (("command#", "command#a/c#d1#7"), None),
        (("command#", "command#all#d1#7"), None),
        (("account#acc", "rule#1"), ("Rule", None, "acc")),
        (("region#", "region#acc#1"), ("Region", None, "acc")),
        (("news#", "news#1"), ("News", None, None)),
        (("org#a#b#x", "anything"), ("Org", None, None)),
        (("account#all", "rule#1"), None),
        (("device#", "status#"), None),
        (("device#a b", "status#"), None),
        (("device#a\n", "status#"), None),
        (("device#" + "x" * 129, "status#"), None),
        (("nothing", "status#"), None),
        (("_fleet#head#d1", "x"), None),
    ],
)
def test_locate_finds_the_model_and_whose_it_is(key: Key, expected: tuple[str, str | None, str | None] | None) -> None:
    for _ in range(2):  # the second answer comes from memory
        assert SCHEMA.locate(key) == (place(*expected) if expected else None)


def test_an_id_in_both_keys_must_be_the_same() -> None:
    layout = {"A": ("up", "device#${deviceId}", "a#${deviceId}#${id}")}
    schema = Schema.parse(text_of(layout), "s")
    assert schema.locate(("device#d1", "a#d1#x")) == Place(schema.models["A"], "d1", None)
    assert schema.locate(("device#d1", "a#d2#x")) is None


def test_a_key_without_variables_of_its_own_is_matched_whole() -> None:
    layout = {"A": ("down", "device#${deviceId}", "a#${accountId}#"), "B": ("down", "b#${deviceId}", "b#")}
    schema = Schema.parse(text_of(layout), "s")
    assert schema.locate(("device#d1", "a#acc#")) == Place(schema.models["A"], "d1", "acc")
    assert schema.locate(("device#d1", "a#acc#more")) is None
    assert schema.locate(("b#d1", "b#")) == Place(schema.models["B"], "d1", None)
    assert schema.locate(("b#d1", "b#more")) is None


def test_the_longest_fixed_prefix_wins_whatever_the_order_in_the_file() -> None:
    for names in (("Fault", "Old", "Any"), ("Any", "Old", "Fault")):
        schema = Schema.parse(text_of({name: LAYOUT[name] for name in names}), "s")
        found = [schema.locate(("device#d", sk)) for sk in ("fault#1", "fault#old#1", "fault#1", "x")]
        assert [f.model.name if f else None for f in found] == ["Fault", "Old", "Fault", "Any"]


_IDS = st.from_regex(r"[A-Za-z0-9:_.-]{1,12}", fullmatch=True).filter(lambda text: text != "all")


@given(_IDS, _IDS, st.text(st.characters(exclude_categories=["Cs"]), max_size=5))
def test_every_key_that_a_synced_model_makes_is_found_as_its_own(device: str, account: str, id_: str) -> None:
    context = Context(device, account)
    for name, (sync, pk, sk) in LAYOUT.items():
        if sync == "none" or (name == "Fault" and id_.startswith("old#")):
            continue
        key = SCHEMA.models[name].key({"id": id_}, context)
        templates = pk + sk
        owner = (device if "deviceId" in templates else None, account if "accountId" in templates else None)
        assert SCHEMA.locate(key) == place(name, *owner)


@given(st.tuples(st.text(max_size=12), st.text(max_size=12)))
def test_any_key_may_be_asked_for(key: Key) -> None:
    assert FLEET.locate(key) is None


def test_the_memory_of_locate_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema_module, "CACHE_MAX", 10)
    schema = Schema.parse(text_of(LAYOUT), "s")
    for i in range(100):
        assert schema.locate((f"device#d{i}", "status#")) == Place(schema.models["Status"], f"d{i}", None)
        assert schema.locate((f"unknown{i}", "status#")) is None
        assert len(schema._cache) <= 10
    remembered = len(schema._cache)
    assert schema.locate(("x" * 3000, "status#")) is None
    assert len(schema._cache) == remembered


def test_ranges_hold_what_each_feed_brings() -> None:
    assert SCHEMA.ranges("device", ME) == [("s#main#dev1", "s#"), ("command#", "command#main#dev1#")]
    assert SCHEMA.ranges("account", ME) == [("account#main", "rule#"), ("region#", "region#main#")]
    assert SCHEMA.ranges("all", ME) == [("news#", "news#")]
    found = [(model.name, pk, prefix) for model, pk, prefix in SCHEMA.up_ranges(ME)]
    assert found == [("Status", "device#dev1", "status#"), ("Fault", "device#dev1", "fault#")]


def test_feeds_and_directions_follow_from_keys_and_process() -> None:
    feeds = {name: model.feed for name, model in SCHEMA.models.items()}
    assert feeds == {
        "Status": "device", "Fault": "device", "Store": "device", "Command": "device", "Rule": "account",
        "Region": "account", "News": "all", "Old": None, "Org": None, "Any": None,
    }  # fmt: skip
    flags = [(m.sends, m.receives) for m in (SCHEMA.models[name] for name in ("Status", "Store", "News", "Any"))]
    assert flags == [(True, False), (True, True), (False, True), (False, False)]
    places = [(FLEET.models[name].on_device, FLEET.models[name].in_cloud) for name in ("Status", "Diagnostic", "Audit")]
    assert places == [(True, True), (True, False), (False, True)]


def test_process_is_read_with_its_units() -> None:
    text = text_of(LAYOUT).replace("sync: 'both'", "sync: 'both', conflict: 'device', period: 1.5")
    text = text.replace("News: {sync: 'down'", "News: {sync: 'down', mem: true, notify: 'x'")
    text = text.replace("Fault: {sync: 'up'", "Fault: {sync: 'up', orphans: 'remove'")
    models = Schema.parse(text, "s").models
    assert (models["Store"].conflict, models["Store"].period_ms, models["Store"].mem) == ("device", 1500, False)
    assert (models["News"].mem, models["Fault"].orphans, models["Status"].orphans) == (True, "remove", "keep")
    assert models["Status"].conflict == "latest"


# --- fingerprints


def test_a_fingerprint_changes_with_the_models_of_its_feed_alone() -> None:
    base = SCHEMA

    def changed(edit: Callable[[str], str]) -> list[str]:
        text = edit(text_of(LAYOUT))
        assert text != text_of(LAYOUT)
        other = Schema.parse(text, "elsewhere")
        return [feed for feed in ("device", "account", "all") if other.fingerprint(feed) != base.fingerprint(feed)]

    def with_field(name: str) -> Callable[[str], str]:
        return lambda text: text.replace(f"{name}: {{pk:", f"{name}: {{extra: {{type: 'number'}}, pk:")

    assert changed(with_field("Store")) == ["device"]
    assert changed(with_field("Rule")) == ["account"]
    assert changed(with_field("News")) == ["all"]
    assert changed(with_field("Status")) == []  # goes up only: no feed brings it
    assert changed(with_field("Any")) == []
    assert changed(lambda text: "// a comment\n" + text) == []
    assert changed(lambda text: text.replace("version: '1'", "version: '2'")) == []
    assert changed(lambda text: text.replace("process:", "params: {isoDates: true}, process:")) == [
        "device",
        "account",
        "all",
    ]
    assert SCHEMA.fingerprint("device") == "029aaf22b03139ce"  # the same in every process and on every Python


# --- files


def test_the_text_of_a_schema_parses_to_the_same_schema() -> None:
    again = Schema.parse(FLEET.text, "again")
    assert list(again.models) == list(FLEET.models)
    assert (again.version, FLEET.file) == (FLEET.version, str(FILE))
    assert [again.fingerprint(feed) for feed in ("device", "account", "all")] == [
        FLEET.fingerprint(feed) for feed in ("device", "account", "all")
    ]


def test_blended_files_are_merged_below_the_file_that_names_them(tmp_path: Path) -> None:
    layout = {name: LAYOUT[name] for name in ("Status", "Store")}
    (tmp_path / "low.json5").write_text(text_of(layout).replace("version: '1'", "version: 'low'"))
    (tmp_path / "more.json5").write_text("{models: {Status: {level: {type: 'number'}}}}")
    top = tmp_path / "top.json5"
    top.write_text("{version: 'top', blend: ['low.json5', 'more.json5'], process: {Store: {conflict: 'cloud'}}}")
    schema = Schema.load(top)
    assert (schema.version, schema.models["Store"].conflict) == ("top", "cloud")
    assert "level" in schema.models["Status"].fields
    again = Schema.parse(schema.text, "again")
    assert again.fingerprint("device") == schema.fingerprint("device")


@pytest.mark.parametrize(
    ("blend", "message"),
    [
        ("['none.json5']", "top.json5:2:9: blend: 'none.json5' cannot be read"),
        ("['top.json5']", "top.json5:2:9: blend: 'top.json5' is blended already"),
        ("['bad.json5']", "bad.json5:1:9: "),
        ("['odd.json5']", "odd.json5:2:17: models.A.x.type: unknown type 'strong'"),
        ("'low.json5'", "top.json5:2:8: blend: expected a list of files"),
        ("[3]", "top.json5:2:9: blend: expected the name of a file"),
    ],
)
def test_a_mistake_in_blending_is_shown_in_its_file(tmp_path: Path, blend: str, message: str) -> None:
    (tmp_path / "bad.json5").write_text("{a: 1, }}")
    (tmp_path / "odd.json5").write_text("{models: {A: {\n      x: {type: 'strong'}}}}")
    layout = text_of({"Status": LAYOUT["Status"]})
    (tmp_path / "top.json5").write_text(f"{{\nblend: {blend},\n{layout[1:]}")
    with pytest.raises(InputError) as caught:
        Schema.load(tmp_path / "top.json5")
    assert any(str(problem).removeprefix(f"{tmp_path}/").startswith(message) for problem in caught.value.problems)


@pytest.mark.parametrize("more", [0, 1])
def test_a_schema_blends_so_many_files_and_no_more(tmp_path: Path, more: int) -> None:
    names = [f"{n}.json5" for n in range(FILES_MAX - 1 + more)]  # and itself
    for name in names:
        (tmp_path / name).write_text("{}")
    top = tmp_path / "top.json5"
    top.write_text(f"{{blend: {names}, {HEAD}, models: {{}}}}")
    if not more:
        assert Schema.load(top).models == {}
        return
    with pytest.raises(InputError) as caught:
        Schema.load(top)
    assert [str(problem).partition("blend: ")[2] for problem in caught.value.problems] == [
        f"too many files (at most {FILES_MAX} files)"
    ]


def test_text_alone_cannot_blend() -> None:
    with pytest.raises(InputError, match="only when the schema is read from a file"):
        Schema.parse(f"{{blend: ['x'], {HEAD}, models: {{}}}}", "s")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", ":1:1: the file is empty"),
        (b"{a: '\xff'}", ":1:6: is not UTF-8"),
        (b"\n{}\n\xff", ":3:1: is not UTF-8"),
        (b" " * (4 * 1024 * 1024 + 1), ": too large"),
        (b"[" * 1000, "deep"),
    ],
)
def test_a_file_that_is_no_schema_is_a_problem_and_no_crash(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "s.json5"
    path.write_bytes(data)
    with pytest.raises(InputError) as caught:
        Schema.load(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_file_that_cannot_be_read_is_a_problem(tmp_path: Path) -> None:
    for path in (tmp_path / "none.json5", tmp_path, tmp_path / "a\0b"):
        with pytest.raises(InputError, match="cannot be read"):
            Schema.load(path)


_WORDS = st.sampled_from(
    ["version", "indexes", "models", "process", "params", "blend", "primary", "hash", "sort", "pk", "sk", "Status",
     "Item", "type", "value", "string", "object", "schema", "items", "array", "default", "enum", "map", "ttl", "sync",
     "both",
     "device#${deviceId}", "${sk}", "${pk}", "x", "date", "number", "generate", "validate", "true", "created"]
)  # fmt: skip
_LOOSE = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.floats() | _WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_WORDS, inner, max_size=6),
    max_leaves=25,
)


@given(
    _LOOSE
    | st.fixed_dictionaries({"version": st.just("1"), "models": _LOOSE}, optional={"process": _LOOSE, "params": _LOOSE})
)
def test_any_value_is_a_schema_or_explained(value: Any) -> None:

    try:
        Schema.parse(json.dumps(value), "s")
    except InputError as error:
        assert all(problem.file == "s" and problem.line >= 1 and problem.message for problem in error.problems)


@given(st.integers(0, len(FLEET.text) - 1), st.sampled_from(["", "}", "'", "{", ",", "x", "3", "${", "null"]))
def test_a_schema_with_a_slip_is_read_or_explained(at: int, slip: str) -> None:
    text = FLEET.text[:at] + slip + FLEET.text[at + 1 :]
    try:
        Schema.parse(text, "s")
    except InputError as error:
        assert error.problems


@given(st.text(max_size=60))
def test_any_text_is_a_schema_or_explained(text: str) -> None:
    with pytest.raises(InputError):
        Schema.parse(text, "s")


def test_no_two_models_of_the_layout_share_a_key() -> None:
    ids = ["a", "d1", "a#b", "", "#"]
    seen: dict[Key, str] = {}
    for name, (sync, _, _) in LAYOUT.items():
        if sync == "none":
            continue
        for device, account, id_ in product(["a", "d1"], ["a", "main"], ids):
            key = SCHEMA.models[name].key({"id": id_}, Context(device, account))
            assert seen.setdefault(key, name) == name


def test_blended_files_come_through_the_reader_that_is_given() -> None:
    files = {
        "app/base.json5": "{version: '0', models: {A: {pk: {type: 'string'}, sk: {type: 'string'}}}}",
        "app/more/b.json5": "{blend: ['../base.json5'], indexes: {primary: {hash: 'pk', sort: 'sk'}}}",
    }

    def reader(path: Path) -> str:
        if os.path.normpath(path) not in files:
            raise InputError([Problem(str(path), 0, 0, "", "is not there")])
        return files[os.path.normpath(path)]

    text = "{blend: ['more/b.json5'], version: '1', models: {A: {n: {type: 'set'}}}}"
    schema = Schema.parse(text, "app/main.json5", reader)
    assert (schema.version, list(schema.models), list(schema.models["A"].fields)[:1]) == ("1", ["A"], ["n"])
    assert dict(schema.indexes) == {}
    with pytest.raises(InputError, match=r"app/main\.json5:1:10: blend: 'x\.json5' is not there"):
        Schema.parse(text.replace("more/b", "x"), "app/main.json5", reader)
    files["app/base.json5"] = "{blend: ['main.json5']}"
    with pytest.raises(InputError, match=r"'main\.json5' is blended already"):
        Schema.parse(text, "app/main.json5", reader)
