"""The real JavaScript library stores, case by case, what raw_items.json says, and reads what others have stored.

So the file can stand for the library where Node is not at hand, and a new release that stores otherwise is seen.
"""

from __future__ import annotations

import subprocess
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from onetable import bridge
from onetable.bridge import LibraryError, Missing, library
from onetable.capture import Library, expected, states
from onetable.case import MODEL
from onetable.cases_types import HOLDS_DATES, VALUES
from onetable.corpus import CASES
from onetable.engine import compare, start
from onetable.values import canonical, from_tagged, to_tagged

EXPECTED: Final = expected()
ENDS: Final = {name: compare(case, EXPECTED[name]) for name, case in CASES.items()}
ACCEPTED: Final = [name for name, end in ENDS.items() if not end.startswith("refuses the schema")]


@pytest.mark.parametrize("name", CASES)
def test_the_library_stores_what_the_file_says(live: Library, name: str) -> None:
    assert live.carry_out(CASES[name]) == EXPECTED[name]


def test_the_file_holds_the_corpus_and_nothing_else() -> None:
    assert list(EXPECTED) == list(CASES)
    for name, case in CASES.items():
        assert len(EXPECTED[name]["steps"]) == len(case.steps)


@pytest.mark.parametrize(
    ("name", "params"),
    [("type/date", {"isoDates": True}), ("type/string", {"nulls": True}), ("stamps/true-ms", {"timestamps": "update"})],
)
def test_a_difference_would_be_seen(live: Library, name: str, params: dict[str, Any]) -> None:
    case = CASES[name]
    changed = replace(case, schema={**case.schema, "params": {**case.schema["params"], **params}})
    assert live.carry_out(changed) != EXPECTED[name]


@pytest.mark.parametrize("name", [name for name, end in ENDS.items() if end])
def test_the_library_reads_what_another_program_has_stored(live: Library, name: str) -> None:
    """What is in the file, put by boto3. Where our engine stores the same, the next test puts it."""
    *_, items = states(EXPECTED[name])
    table = live.open(CASES[name])
    live.put(table, items)
    assert live.read(table, CASES[name], items) == EXPECTED[name]["read"]


# Where an application in JavaScript reads another value than one on the device, of the same stored item.
READ_OTHERWISE: Final = {
    "array/of-dates": "the library does not look at the type of an array's elements",
    "array/of-dates-iso": "the library does not look at the type of an array's elements",
    "array/of-dates-element-iso": "the library does not look at the type of an array's elements",
    "default/read-where-absent": "the library reads a default where nothing is stored",
    "default/inside-schema-on-update": "the library reads a default where nothing is stored",
    **dict.fromkeys(
        (
            "default/text",
            "default/empty-text",
            "default/zero",
            "default/false",
            "default/object",
            "default/mapped",
            "array/default",
        ),
        "the library reads a default where nothing is stored",
    ),
    "packed/schema": "the library reads a packed object with a schema as {}",
    "encode/number": "the library reads an encoded number back as text",
    "number/huge": "beyond 2^53 JavaScript has another type",
    "read/large-numbers": "beyond 2^53 JavaScript has another type",
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_the_library_reads_what_our_engine_stores_as_a_device_does(live: Library, name: str) -> None:
    case = CASES[name]
    engine = start(case)
    for step in case.steps:
        engine.carry_out(step)
    table = live.open(case)
    live.put(table, engine.raw())
    same = from_tagged(live.read(table, case, engine.raw())) == engine.read()
    assert same == (name not in READ_OTHERWISE)


TYPE_CASES: Final = [name for name in CASES if name.startswith("type/")]


@pytest.mark.parametrize("name", TYPE_CASES)
def test_each_type_is_read_back_value_for_value(name: str) -> None:
    """Without Node: the file has what the library read, and the test above that it does."""
    kind = CASES[name].fields["value"]["type"]
    first, second, third, fourth = VALUES[kind]
    iso = CASES[name].schema["params"]["isoDates"]
    read = EXPECTED[name]["read"][:4]
    wanted = [inside(value, iso) if kind in ("object", "array") else value for value in (first, fourth, second, third)]
    assert [from_tagged(props)["value"] for props in read] == wanted
    assert kind in HOLDS_DATES or not iso


def inside(value: Any, iso: bool) -> Any:
    """Dates in an object or array without a schema are not read back as dates."""
    if isinstance(value, dict):
        return {name: inside(item, iso) for name, item in value.items()}
    if isinstance(value, list):
        return [inside(item, iso) for item in value]
    if isinstance(value, datetime):
        text = value.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return text if iso else (value - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
    return value


# --- the bridge itself

NAMES: Final = st.text(st.characters(exclude_characters="$", exclude_categories=["Cs"]), max_size=8).filter(
    lambda name: name != "__proto__"
)
SCALARS: Final = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**53) + 1, 2**53 - 1),
    st.floats(allow_nan=False),
    st.text(st.characters(exclude_categories=["Cs"])),
    st.binary(max_size=20),
    st.binary(max_size=20).map(bytearray),
    st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC)).map(
        lambda date: date.replace(microsecond=date.microsecond // 1000 * 1000)
    ),
    st.frozensets(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), max_size=4),
)
ANYTHING: Final = st.recursive(
    SCALARS, lambda deep: st.lists(deep, max_size=4) | st.dictionaries(NAMES, deep, max_size=4)
)


@given(value=ANYTHING)
def test_every_value_comes_back_from_javascript_as_it_went(live: Library, value: Any) -> None:
    assert from_tagged(live.bridge.ask("echo", value=to_tagged(value))) == value


def test_items_that_differ_in_spelling_alone_are_one() -> None:
    one = {
        "n": {"N": "1e+3"},
        "s": {"NS": ["10", "9.50"]},
        "l": {"L": [{"M": {"b": {"SS": ["b", "a"]}, "a": {"N": "-0"}}}]},
    }
    other = {
        "l": {"L": [{"M": {"a": {"N": "0"}, "b": {"SS": ["a", "b"]}}}]},
        "n": {"N": "1000"},
        "s": {"NS": ["9.5", "10"]},
    }
    assert canonical(one) == canonical(other) == other
    assert canonical({"n": {"N": "1"}}) != canonical({"n": {"S": "1"}})


def test_what_javascript_alone_has_is_not_taken_for_data() -> None:
    assert from_tagged([{"$undefined": True}, {"$date": "invalid"}]) == [{"$undefined": True}, {"$date": "invalid"}]
    with pytest.raises(TypeError, match="no JavaScript value"):
        to_tagged(object())


def test_an_error_of_the_library_has_its_code_and_its_words(live: Library) -> None:
    case = CASES["required/missing"]
    table = live.open(case)
    with pytest.raises(LibraryError, match='Validation Error in "Thing" for "v"') as caught:
        live.bridge.call(table, MODEL, "create", {"id": "1"})
    assert caught.value.code == "ValidationError"


def test_a_bridge_that_has_ended_is_an_error_with_its_last_words(moto: str, live: Library) -> None:
    with (
        library(moto) as other,
        pytest.raises(RuntimeError, match=r"(?s)Node has ended during 'echo'.*no such command"),
    ):
        other.process.stdin.write("no such command\n")  # type: ignore[union-attr]
        other.ask("echo", value=1)
        other.ask("echo", value=1)


def test_a_machine_without_node_is_told_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Missing, match=r"missing: node, npm .*apt install nodejs npm"):
        bridge.node()


def test_a_failing_install_is_an_error_with_npms_words(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "package.json").write_text("{}")
    for name in ("node", "npm"):
        (tmp_path / name).write_text("#!/bin/sh\necho no such package >&2\nexit 1\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    monkeypatch.setattr(bridge, "HERE", tmp_path)
    with pytest.raises(RuntimeError, match=r"npm could not install .*no such package"):
        bridge.node()


def test_the_packages_are_those_that_package_json_pins(live: Library) -> None:
    listed = subprocess.run(
        ["node", "-p", "require('./node_modules/dynamodb-onetable/package.json').version"],
        cwd=bridge.HERE, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert listed.stdout.strip() == "2.7.7"
