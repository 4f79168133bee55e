"""The JSON5 reader: agrees with another reader on values, knows where each value stands, and explains bad text."""

from __future__ import annotations

import math
from typing import Any

import json5 as other_reader
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.protocol.errors import InputError, Problem
from agent.protocol.onetable.json5 import CHARS_MAX, DEPTH_MAX, Node, read

_TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
_SCALARS = st.none() | st.booleans() | st.integers(-(10**12), 10**12) | st.floats(allow_nan=False) | _TEXTS
_VALUES = st.recursive(
    _SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXTS, inner, max_size=4), max_leaves=12
)
_BLANKS = st.sampled_from(["", " ", "\n", "\t", "\r\n", "\u00a0", "\ufeff", "// a\n", "/* b { */", "/**/ ", "\u2028"])


@st.composite
def documents(draw: st.DrawFn) -> tuple[str, Any]:
    """A value and one of the ways to write it."""

    def quoted(text: str) -> str:
        quote = draw(st.sampled_from("'\""))
        out: list[str] = []
        for char in text:
            if char in "\\\n\r" or char == quote or draw(st.integers(0, 5)) == 0:
                code = ord(char)
                units = [code] if code < 0x10000 else [0xD7C0 + (code >> 10), 0xDC00 + (code & 0x3FF)]
                out.append("".join(f"\\u{unit:04x}" for unit in units))
            else:
                out.append(char)
        return quote + "".join(out) + quote

    def written(value: Any) -> str:
        if isinstance(value, str):
            return quoted(value)
        if value is None or isinstance(value, bool):
            return {None: "null", True: "true", False: "false"}[value]
        if isinstance(value, int):
            forms = [str(value), hex(value), f"+{value}" if value >= 0 else str(value)]
            return draw(st.sampled_from(forms))
        if isinstance(value, float):
            return repr(value).replace("inf", "Infinity")
        comma = draw(st.sampled_from(["", ","])) if value else ""
        if isinstance(value, list):
            return f"[{','.join(spaced(item) for item in value)}{comma}{draw(_BLANKS)}]"
        members = [
            f"{draw(_BLANKS)}{name if name.isascii() and name.isidentifier() else quoted(name)}"
            f"{draw(_BLANKS)}:{spaced(item)}"
            for name, item in value.items()
        ]
        return f"{{{','.join(members)}{comma}{draw(_BLANKS)}}}"

    def spaced(value: Any) -> str:
        return f"{draw(_BLANKS)}{written(value)}{draw(_BLANKS)}"

    value = draw(_VALUES)
    return spaced(value), value


def walk(node: Node) -> list[Node]:
    value = node.value
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [node, *(deeper for item in inner for deeper in walk(item))]


def other_value(text: str) -> Any:
    """The other reader leaves the two halves of a pair of escapes apart; we make one character of them."""

    def joined(value: Any) -> Any:
        if isinstance(value, str):
            return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le")
        if isinstance(value, list):
            return [joined(item) for item in value]
        return {joined(name): joined(item) for name, item in value.items()} if isinstance(value, dict) else value

    return joined(other_reader.loads(text))


def problem_of(text: str) -> Problem:
    with pytest.raises(InputError) as caught:
        read(text, "f")
    (problem,) = caught.value.problems
    return problem


@given(documents())
def test_every_way_to_write_a_value_reads_as_that_value(document: tuple[str, Any]) -> None:
    text, value = document
    node, repeated = read(text, "f")
    assert node.plain() == value
    assert repeated == []


@given(documents())
def test_it_agrees_with_another_reader(document: tuple[str, Any]) -> None:
    text, _ = document
    assert read(text, "f")[0].plain() == other_value(text)


@given(documents())
def test_every_value_stands_where_its_node_says(document: tuple[str, Any]) -> None:
    text, _ = document
    for node in walk(read(text, "f")[0]):
        tail = text[node.offset :]
        expected = {dict: "{", list: "[", str: "'\"", bool: "tf", type(None): "n"}.get(
            type(node.value), "+-0123456789I"
        )
        assert tail[0] in expected
        assert node.key_offset <= node.offset


_MARKS = st.text(st.sampled_from("{}[]:,'\"\\/*+-.eE0x19aunI\n\u2028 \ud800tf$_"), max_size=40)


@given(_MARKS | st.text(max_size=30))
def test_any_text_is_read_or_explained(text: str) -> None:
    try:
        read(text, "f")
    except InputError as error:
        (problem,) = error.problems
        lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
        assert 1 <= problem.line <= len(lines)
        assert 1 <= problem.column <= len(lines[problem.line - 1]) + 2
        assert problem.message


@given(_MARKS)
def test_what_it_accepts_another_reader_accepts_with_the_same_value(text: str) -> None:
    try:
        node, repeated = read(text, "f")
    except InputError:
        return
    value = node.plain()
    if not repeated and not (isinstance(value, float) and math.isnan(value)):
        assert other_value(text) == value


@pytest.mark.parametrize(
    ("text", "line", "column", "message"),
    [
        ("", 1, 1, "empty"),
        ("  // nothing\n", 2, 1, "empty"),
        ("{\n  a: 1\n  b: 2\n}", 3, 3, "unexpected 'b'"),
        ("{\n  a: [1, 2", 2, 6, "never closed"),
        ("{\n  a: 'x\n}", 2, 6, "never closed"),
        ("{a: 1 /* x", 1, 7, "never closed"),
        ("{a: yes}", 1, 5, "'yes' is no value"),
        ("{a: 012}", 1, 6, "in a number"),
        ("{a: 0x}", 1, 6, "in a number"),
        ("{a: 1,, b: 2}", 1, 7, "unexpected ','"),
        ("{a 1}", 1, 4, "expected ':'"),
        ("{1: 1}", 1, 2, "unexpected '1'"),
        ("{a: 1} b", 1, 8, "after the end"),
        ("{a: '\\u12'}", 1, 8, "hexadecimal"),
        ("{a: '\\ud800'}", 1, 5, "surrogate"),
        ("{a: '\\1'}", 1, 6, "escape"),
        ("{a:", 1, 4, "end of the file"),
        ("{\r\n a: 1,\r\n a}", 3, 3, "expected ':'"),
        ("// \ud800\n{}", 1, 4, "surrogate"),
    ],
)
def test_a_mistake_is_shown_where_it_stands(text: str, line: int, column: int, message: str) -> None:
    problem = problem_of(text)
    assert message in problem.message
    assert (problem.file, problem.line, problem.column) == ("f", line, column)


def test_a_key_that_comes_twice_is_reported_at_its_second_place() -> None:
    _, repeated = read("{\n a: {b: 1,\n  b: 2},\n}", "f")
    assert [(p.line, p.column, p.key, p.message) for p in repeated] == [(3, 3, "a.b", "comes twice, first in line 2")]


@pytest.mark.parametrize("brackets", ["[", "{a:"])
def test_deep_nesting_is_a_problem_and_no_crash(brackets: str) -> None:
    assert "deep" in problem_of(brackets * 100_000).message
    closing = "]" if brackets == "[" else "}"
    inner = "" if brackets == "[" else "1"
    allowed = DEPTH_MAX if brackets == "[" else DEPTH_MAX - 1
    read(brackets * allowed + inner + closing * allowed, "f")


def test_a_huge_text_or_number_is_a_problem_and_no_crash() -> None:
    assert "characters" in problem_of("[" + " " * CHARS_MAX).message
    assert "number" in problem_of("9" * 5_000).message


def test_numbers_of_all_forms() -> None:
    text = "[1, -1, +1, 0x1F, -0x10, .5, 5., 1e3, 1E-2, Infinity, -Infinity, 0]"
    expected = [1, -1, 1, 31, -16, 0.5, 5.0, 1000.0, 0.01, math.inf, -math.inf, 0]
    assert read(text, "f")[0].plain() == expected
    assert math.isnan(read("NaN", "f")[0].plain())


def test_texts_with_escapes_and_continued_lines() -> None:
    text = "['\\x41\\u0042\\n\\0\\'', \"a\\\nb\", 'c\\\r\nd', '\\q', '\\ud83d\\ude00', 'a\u2028b']"
    assert read(text, "f")[0].plain() == ["AB\n\0'", "ab", "cd", "q", "\U0001f600", "a\u2028b"]


def test_names_beyond_ascii_and_with_escapes() -> None:
    assert read("{\u00e9t\u00e9: 1, \\u0061b: 2, $_1: 3}", "f")[0].plain() == {"\u00e9t\u00e9": 1, "ab": 2, "$_1": 3}
