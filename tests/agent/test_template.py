"""Templates of keys: what they render, what they match, and when two of them can give the same key."""

from __future__ import annotations

import re
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.protocol.onetable.template import (
    ACCOUNT,
    DEVICE,
    Part,
    Template,
    TemplateError,
    Variable,
    overlap,
    parse,
    pattern,
    text_of,
    unseparated,
)


def made(text: str) -> Template:
    return Template(text, parse(text))


@pytest.mark.parametrize(
    ("text", "image", "expected"),
    [
        ("status#", {}, "status#"),
        ("device#${id}", {"id": "a"}, "device#a"),
        ("device#${id}#x", {"id": 5}, "device#5#x"),
        ("${a}#${b}", {"a": "1", "b": "2"}, "1#2"),
        ("${a}#${b}", {"a": "1"}, None),
        ("${a.b.c}", {"a": {"b": {"c": "x"}}}, "x"),
        ("${a.b.c}", {"a": {"b": 1}}, None),
        ("${n:6:0}", {"n": 42}, "000042"),
        ("${n:2:0}", {"n": 12345}, "12345"),
        ("${n:6:ab}", {"n": "x"}, "abababx"),
        ("${n}", {"n": True}, "true"),
        ("${n}", {"n": {"a": 1}}, None),
        ("${n}", {"n": ""}, ""),
        ("$a{b}", {}, "$a{b}"),
    ],
)
def test_a_template_renders(text: str, image: dict[str, Any], expected: str | None) -> None:
    assert made(text).render(image) == expected


@pytest.mark.parametrize(
    "text", ["${", "a${b", "${}", "${a.}", "${a:}", "${a:6:}", "${a:x:0}", "${a:0:0}", "${a:9999:0}", "${:2:0}"]
)
def test_a_broken_template_is_refused(text: str) -> None:
    with pytest.raises(TemplateError):
        parse(text)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.5, "1.5"), (1e20, "100000000000000000000"), (1e21, "1e+21"), (1.5e-7, "1.5e-7"), (0.000001, "0.000001"),
        (-2.5, "-2.5"), (123456789012345680000.0, "123456789012345680000"), (5e-324, "5e-324"), (1.25e30, "1.25e+30"),
        (None, None), ([1], None),
    ],
)  # fmt: skip
def test_numbers_in_keys_look_as_javascript_writes_them(value: Any, text: str | None) -> None:
    assert text_of(value) == text


_SOME: list[Part] = ["a", "#", "a#", "-", *(Variable(name, name) for name in (DEVICE, ACCOUNT, "x"))]
_PARTS = st.lists(st.sampled_from(_SOME), max_size=4).map(lambda parts: Template("", tuple(parts)).parts)
_FILLS = {DEVICE: ("a", "-", "a-a"), ACCOUNT: ("a", "-", "aa"), "x": ("", "a", "#", "a#-")}


def texts(parts: tuple[Part, ...]) -> set[str]:
    """Some of the texts that the parts can give."""
    choices = [[part] if isinstance(part, str) else _FILLS[part.name] for part in parts]
    return {"".join(choice) for choice in product(*choices)}


@given(_PARTS, _PARTS)
def test_templates_that_give_one_text_overlap(a: tuple[Part, ...], b: tuple[Part, ...]) -> None:
    if texts(a) & texts(b):
        assert overlap(a, b)
        assert overlap(b, a)
    if any(one.startswith(other) or other.startswith(one) for one in texts(a) for other in texts(b)):
        assert overlap(a, b, open_ended=True)


@pytest.mark.parametrize(
    ("a", "b", "whole", "open_ended"),
    [
        ("device#${deviceId}", "device#${deviceId}", True, True),
        ("device#${deviceId}", "account#${accountId}", False, False),
        ("device#${deviceId}", "device#${accountId}", True, True),
        ("s#${accountId}#${deviceId}", "s#${accountId}", False, True),
        ("status#", "status#old#", False, True),
        ("status#", "state#", False, False),
        ("d#${deviceId}", "d#x", True, True),
        ("d#${deviceId}", "d##", False, False),
    ],
)
def test_overlap_of_usual_layouts(a: str, b: str, whole: bool, open_ended: bool) -> None:
    assert overlap(parse(a), parse(b)) is whole
    assert overlap(parse(a), parse(b), open_ended=True) is open_ended


@pytest.mark.parametrize(
    ("text", "at_end", "loose"),
    [
        ("device#${deviceId}", False, None),
        ("device#${deviceId}", True, DEVICE),
        ("s#${accountId}#${deviceId}", False, None),
        ("s#${accountId}-${deviceId}", False, ACCOUNT),
        ("s#${accountId}${deviceId}", False, ACCOUNT),
        ("c#${deviceId}#", True, None),
        ("c#${deviceId}.x", True, DEVICE),
        ("c#${deviceId}-x", False, None),
    ],
)
def test_an_id_must_be_told_from_what_follows(text: str, at_end: bool, loose: str | None) -> None:
    assert unseparated(parse(text), at_end=at_end) == loose


@given(_PARTS)
def test_a_pattern_matches_what_its_template_gives(parts: tuple[Part, ...]) -> None:
    matcher = re.compile(pattern(parts))
    fills = {DEVICE: "dev-1", ACCOUNT: "acc", "x": "any#thing"}
    text = "".join(part if isinstance(part, str) else fills[part.name] for part in parts)
    assert matcher.fullmatch(text)


def test_an_id_that_comes_twice_must_be_the_same() -> None:
    matcher = re.compile(pattern(parse("${deviceId}#${deviceId}")))
    assert matcher.fullmatch("a#a")
    assert not matcher.fullmatch("a#b")
