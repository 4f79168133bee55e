"""Regular expressions of a schema's `validate`, written for JavaScript, made Python's.

Never runs an expression. Called by agent.protocol.onetable.loader.
Differences that matter are translated: `$` (Python's also matches before a last newline), `.`, named groups, `\\d`,
`\\w` and `\\b` (ASCII in JavaScript), `\\s`, letters without a meaning, characters that Python reserves in a class.
"""

from __future__ import annotations

import re
import warnings
from typing import Final

CHARS_MAX: Final = 2000
_FLAGS: Final = {"i": re.IGNORECASE, "m": re.MULTILINE, "s": re.DOTALL, "g": 0, "u": 0, "d": 0}
_SPACE: Final = r"\t\n\v\f\r \u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000\ufeff"
_WORD: Final = "A-Za-z0-9_"
_LITERAL = re.compile(r"/(.*)/([a-z]*)", re.DOTALL)
_OUTSIDE: Final = {
    "d": "[0-9]",
    "D": "[^0-9]",
    "w": f"[{_WORD}]",
    "W": f"[^{_WORD}]",
    "s": f"[{_SPACE}]",
    "S": f"[^{_SPACE}]",
    "b": f"(?:(?<=[{_WORD}])(?![{_WORD}])|(?<![{_WORD}])(?=[{_WORD}]))",
    "B": f"(?:(?<=[{_WORD}])(?=[{_WORD}])|(?<![{_WORD}])(?![{_WORD}]))",
}
_INSIDE: Final = {"d": "0-9", "w": _WORD, "s": _SPACE, "D": r"\D", "W": r"\W", "S": r"\S", "b": r"\b"}
_SAME: Final = frozenset("fnrtvxu")


class PatternError(ValueError):
    """An expression that cannot be used; the text says why."""


def compile_pattern(text: str) -> re.Pattern[str]:
    """`/expression/flags`, or a plain expression; not anchored: use `search`. Raises PatternError."""
    if len(text) > CHARS_MAX:
        raise PatternError(f"{len(text)} characters, at most {CHARS_MAX}")
    flags = 0
    body = text
    literal = _LITERAL.fullmatch(text)
    if literal:
        body = literal[1]
        for letter in literal[2]:
            if letter not in _FLAGS:
                raise PatternError(f"unknown flag {letter!r}")
            flags |= _FLAGS[letter]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return re.compile(_translate(body, flags), flags)
    except (re.error, RecursionError, OverflowError, Warning) as error:
        raise PatternError(str(error)) from None


def _translate(body: str, flags: int) -> str:
    out: list[str] = []
    in_class = False
    at = 0
    while at < len(body):
        char = body[at]
        step = 1
        if char == "\\":
            text, step = _escape(body, at, in_class)
            out.append(text)
        elif in_class:
            in_class = char != "]"
            out.append("\\" + char if char in "[&~|" else char)
        elif char == "[":
            if body.startswith(("[]", "[^]"), at):
                raise PatternError("an empty class '[]'")
            in_class = True
            step = 2 if body.startswith("[^", at) else 1
            out.append(body[at : at + step])
        elif char == "$":
            out.append("$" if flags & re.MULTILINE else r"\Z")
        elif char == ".":
            out.append("." if flags & re.DOTALL else r"[^\n\r\u2028\u2029]")
        elif body.startswith("(?<", at) and body[at + 3 : at + 4] not in ("=", "!"):
            out.append("(?P<")
            step = 3
        else:
            out.append(char)
        at += step
    return "".join(out)


def _escape(body: str, at: int, in_class: bool) -> tuple[str, int]:
    """What `\\` and the characters after it become, and how many characters they are."""
    letter = body[at + 1 : at + 2]
    if not letter:
        raise PatternError("a '\\' at the end")
    named = (_INSIDE if in_class else _OUTSIDE).get(letter)
    if named is not None:
        return named, 2
    if letter == "k" and body.startswith("<", at + 2):
        end = body.find(">", at)
        if end < 0:
            raise PatternError("a group's name without its '>'")
        return f"(?P={body[at + 3 : end]})", end + 1 - at
    if letter in "pPc" or body.startswith("u{", at + 1):
        raise PatternError(f"'\\{letter}' is not supported")
    if letter.isascii() and letter.isalpha() and letter not in _SAME:
        return letter, 2  # no meaning in JavaScript; some have one in Python
    return body[at : at + 2], 2
