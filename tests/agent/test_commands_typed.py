"""What a person types, and what the commands print, mean the same to the database. Called by pytest only."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

import pytest
from command_rig import DEVICE, SCHEMA
from hypothesis import example, given
from hypothesis import strategies as st

from agent.protocol.commands import tables
from agent.protocol.commands.failure import CommandError
from agent.protocol.commands.typed import from_text, json_value, key_fields, parsed_json, properties, to_json
from agent.protocol.errors import ModelError
from agent.protocol.onetable.model import Model
from agent.protocol.process import Context
from agent.protocol.schema import Schema

CONTEXT: Final = Context(DEVICE, "")
THING: Final[Model] = Schema.parse(SCHEMA, "schema").models["Thing"]
KEY: Final = {"group": "g", "id": "1"}

texts = st.text(st.characters(codec="utf-8"), max_size=8)
dates = st.integers(-(10**13), 10**13).map(lambda ms: datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ms))
numbers = st.one_of(
    st.integers(-(2**80), 2**80),
    st.floats(-1e100, 1e100).filter(lambda value: value == 0 or abs(value) > 1e-100),
    st.decimals(-(10**30), 10**30, places=6),
)
sets = st.one_of(
    st.sets(texts, min_size=1, max_size=3), st.sets(numbers, min_size=1, max_size=3), st.sets(st.binary(), min_size=1)
)
plain = st.recursive(
    st.one_of(st.none(), st.booleans(), texts, numbers, st.binary(max_size=4), sets),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(texts, inner, max_size=3)),
    max_leaves=6,
)
FIELDS: Final[dict[str, st.SearchStrategy[Any]]] = {
    "n": numbers,
    "yes": st.booleans(),
    "at": dates,
    "until": dates.map(lambda date: date.replace(microsecond=0)),
    "tags": sets,
    "data": st.binary(max_size=8),
    "list": st.lists(plain, max_size=3),
    "any": st.dictionaries(texts, plain, max_size=3),
    "numbers": st.lists(numbers, max_size=3),
    "place": st.fixed_dictionaries({}, optional={"lat": numbers, "since": dates, "raw": st.binary(max_size=4)}),
}
things = st.fixed_dictionaries({}, optional=FIELDS)


def stored(given: dict[str, Any]) -> Any:
    return THING.create({**KEY, **given}, CONTEXT, 0, lambda kind: kind)


@given(things)
@example({"any": {"$B": "no bytes"}})
@example({"n": Decimal("12345678901234567890.5")})
def test_what_is_printed_as_json_is_read_back_as_the_same_item(thing: dict[str, Any]) -> None:
    key, image = stored(thing)
    printed = json.dumps(to_json(THING, THING.read(key, image)))
    back = properties(THING, ["-"], CONTEXT, printed.encode, writing=True)
    assert stored(back) == (key, image)


@given(things)
def test_each_field_can_be_given_as_a_word(thing: dict[str, Any]) -> None:
    key, image = stored(thing)
    shown = to_json(THING, THING.read(key, image))
    words = [f"{name}:={json.dumps(value)}" for name, value in shown.items() if name not in ("created", "updated")]
    back = properties(THING, words, CONTEXT, lambda: b"", writing=True)
    assert stored(back) == (key, image)


@given(texts.filter(bool), numbers, st.booleans(), dates, st.binary())
def test_a_plain_word_is_read_by_its_type(
    text: str, number: int | float | Decimal, yes: bool, date: datetime, data: bytes
) -> None:
    fields = THING.fields
    for name, value in {"group": text, "n": number, "yes": yes, "at": date, "data": data}.items():
        shown = json_value(fields[name], THING.read(*stored({**KEY, name: value}))[name])
        word = shown if isinstance(shown, str) else shown["$N"] if isinstance(shown, dict) else json.dumps(shown)
        assert stored({**KEY, name: from_text(fields[name], word)}) == stored({**KEY, name: value})


@given(st.text())
def test_any_text_is_a_value_or_a_clear_error(text: str) -> None:
    for field in THING.fields.values():
        try:
            from_text(field, text)
        except (ModelError, CommandError) as error:
            assert field.name in str(error)


@given(st.one_of(st.text(), plain.filter(lambda value: not isinstance(value, bytes)).map(repr)))
def test_any_text_is_json_or_a_clear_error(text: str) -> None:
    try:
        parsed_json(text)
    except ValueError as error:
        assert str(error)


def test_numbers_of_more_digits_than_python_reads_are_refused() -> None:
    with pytest.raises(ValueError, match="digits"):
        parsed_json("9" * 5000)


def test_the_words_of_a_key_are_its_fields_in_order() -> None:
    assert key_fields(THING) == ["group", "id"]
    assert properties(THING, ["a", "b"], CONTEXT, lambda: b"", writing=False) == {"group": "a", "id": "b"}
    assert properties(THING, ["id=b", "a"], CONTEXT, lambda: b"", writing=False) == {"group": "a", "id": "b"}


# --- tables


@given(st.lists(st.integers(0, 60), min_size=1, max_size=8), st.integers(1, 200))
def test_columns_are_made_narrower_until_they_fit(widths: list[int], room: int) -> None:
    fit = tables.fitted(widths, room)
    gaps = len(tables.GAP) * (len(widths) - 1)
    least = [min(width, tables.COLUMN_MIN) for width in widths]
    assert all(now <= was for now, was in zip(fit, widths, strict=True))
    if sum(widths) + gaps <= room:
        assert fit == widths
    elif sum(least) + gaps <= room:
        assert sum(fit) + gaps == room
        assert all(now >= low for now, low in zip(fit, least, strict=True))
    assert tables.fitted(widths, None) == widths


@given(st.one_of(st.text(), plain.filter(lambda value: not isinstance(value, bytes | set))))
def test_a_cell_is_one_line_of_what_a_terminal_can_show(value: Any) -> None:
    text = tables.cell(json_value(None, value))
    assert len(text.splitlines()) <= 1
    assert "\x1b" not in text
    text.encode()
