"""A reader of JSON5 that keeps the place of every key and value, so that a mistake can be shown where it stands.

Never touches the file system and never raises anything but InputError, whatever the text. Called by
agent.protocol.onetable.loader. The grammar is the JSON5 1.0.0 specification's. Tighter than it in two points: half a
surrogate pair is refused (it could not be stored), and a key that comes twice in one object is reported.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from typing import Any, Final

from agent.protocol.errors import InputError, Problem

DEPTH_MAX: Final = 64
CHARS_MAX: Final = 4 * 1024 * 1024
NUMBER_CHARS_MAX: Final = 400  # longer ones are no numbers that anybody means

_BLANK = "[\\t\\n\\v\\f\\r \\u00a0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000\\ufeff]"
_BLANKS = re.compile(f"{_BLANK}*")
_LINE_COMMENT = re.compile(r"//[^\n\r\u2028\u2029]*")
_NUMBER = re.compile(
    r"[+-]?(?:(?P<hex>0[xX][0-9a-fA-F]+)|(?P<word>Infinity|NaN)"
    r"|(?P<decimal>(?:(?:0|[1-9][0-9]*)(?P<point>\.[0-9]*)?|\.[0-9]+)(?P<exponent>[eE][+-]?[0-9]+)?))"
)
_NAME = re.compile(r"[A-Za-z_$][A-Za-z0-9_$]*")
_PLAIN = {'"': re.compile(r'[^"\\\n\r]*'), "'": re.compile(r"[^'\\\n\r]*")}
_LINE_END = re.compile(r"\r\n|\n|\r")
_ESCAPES: Final = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_WORDS: Final = {"true": True, "false": False, "null": None}
_START: Final = frozenset(("Lu", "Ll", "Lt", "Lm", "Lo", "Nl"))
_PART: Final = _START | frozenset(("Mn", "Mc", "Nd", "Pc"))


class Source:
    """A file's name and text; turns an offset into a line and a column, both from 1."""

    __slots__ = ("_starts", "file", "text")

    def __init__(self, text: str, file: str) -> None:
        self.text = text
        self.file = file
        self._starts: list[int] | None = None

    def problem(self, offset: int, key: str, message: str, hint: str = "") -> Problem:
        if self._starts is None:
            self._starts = [0, *(match.end() for match in _LINE_END.finditer(self.text))]
        line = bisect_right(self._starts, offset)
        return Problem(self.file, line, offset - self._starts[line - 1] + 1, key, message, hint)


class Node:
    """One value and where it stands. `value` is a scalar, a list of nodes, or a dict of name -> node.

    `key_offset`: where its name stands in the object around it; in an array the same as `offset`."""

    __slots__ = ("key_offset", "offset", "source", "value")

    def __init__(self, value: Any, offset: int, source: Source) -> None:
        self.value = value
        self.offset = offset
        self.key_offset = offset
        self.source = source

    def plain(self) -> Any:
        """The value alone, as `json.loads` would give it."""
        value = self.value
        if isinstance(value, dict):
            return {name: node.plain() for name, node in value.items()}
        if isinstance(value, list):
            return [node.plain() for node in value]
        return value


class _SyntaxError(Exception):
    def __init__(self, offset: int, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.offset = offset
        self.message = message
        self.hint = hint


def read(text: str, file: str) -> tuple[Node, list[Problem]]:
    """The document's value, and a problem for each key that comes twice. Raises InputError when it is no JSON5."""
    if len(text) > CHARS_MAX:
        raise InputError([Problem(file, 0, 0, "", f"{len(text)} characters; at most {CHARS_MAX} are read")])
    reader = _Reader(Source(text, file))
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError([reader.source.problem(error.start, "", "half a surrogate pair")]) from None
    try:
        return reader.document(), reader.repeated
    except _SyntaxError as error:
        problem = reader.source.problem(min(error.offset, len(text)), "", error.message, error.hint)
        raise InputError([problem]) from None


def _is_name_start(char: str) -> bool:
    return char in "$_" or unicodedata.category(char) in _START


def _is_name_part(char: str) -> bool:
    return char in "$_\u200c\u200d" or unicodedata.category(char) in _PART


class _Reader:
    """One pass over the text. Methods take an offset and give back the value and the offset after it."""

    __slots__ = ("repeated", "source", "text")

    def __init__(self, source: Source) -> None:
        self.source = source
        self.text = source.text
        self.repeated: list[Problem] = []

    def document(self) -> Node:
        start = self.skip(0)
        if start == len(self.text):
            raise _SyntaxError(start, "the file is empty", "expected an object: { ... }")
        node, at = self.value(start, 1, "")
        at = self.skip(at)
        if at < len(self.text):
            raise _SyntaxError(at, f"unexpected {self.text[at]!r} after the end of the document")
        return node

    def skip(self, at: int) -> int:
        """Past blanks and comments."""
        text = self.text
        while True:
            if blanks := _BLANKS.match(text, at):
                at = blanks.end()
            if text[at : at + 1] != "/":
                return at
            if line := _LINE_COMMENT.match(text, at):
                at = line.end()
            elif text.startswith("/*", at):
                end = text.find("*/", at + 2)
                if end < 0:
                    raise _SyntaxError(at, "this comment is never closed", "end it with */")
                at = end + 2
            else:
                return at

    def value(self, at: int, depth: int, key: str) -> tuple[Node, int]:
        if depth > DEPTH_MAX:
            raise _SyntaxError(at, f"nested more than {DEPTH_MAX} deep")
        char = self.text[at : at + 1]
        if char == "{":
            return self.object(at, depth, key)
        if char == "[":
            return self.array(at, depth, key)
        if char in ('"', "'") and char:
            text, end = self.string(at)
            return Node(text, at, self.source), end
        match = _NUMBER.match(self.text, at)
        if match:
            return Node(self.number(match), at, self.source), match.end()
        word = _NAME.match(self.text, at)
        if word and word.group() in _WORDS:
            return Node(_WORDS[word.group()], at, self.source), word.end()
        if not char:
            raise _SyntaxError(at, "unexpected end of the file", "expected a value")
        if word:
            hint = "text stands in quotes"
            raise _SyntaxError(at, f"{word.group()[:40]!r} is no value", hint)
        raise _SyntaxError(at, f"unexpected {char!r}", "expected a value")

    def object(self, start: int, depth: int, key: str) -> tuple[Node, int]:
        members: dict[str, Node] = {}
        at = self.skip(start + 1)
        while self.text[at : at + 1] != "}":
            key_offset = at
            name, at = self.name(at, start)
            at = self.skip(at)
            path = f"{key}.{name}" if key else name
            if self.text[at : at + 1] != ":":
                raise _SyntaxError(at, f"expected ':' after {name[:40]!r}")
            node, at = self.value(self.skip(at + 1), depth + 1, path)
            node.key_offset = key_offset
            if name in members:
                first = self.source.problem(members[name].key_offset, "", "")
                message = f"comes twice, first in line {first.line}"
                self.repeated.append(self.source.problem(key_offset, path, message, "remove one"))
            members[name] = node
            at = self.separator(at, start, "}")
        return Node(members, start, self.source), at + 1

    def array(self, start: int, depth: int, key: str) -> tuple[Node, int]:
        items: list[Node] = []
        at = self.skip(start + 1)
        while self.text[at : at + 1] != "]":
            if at == len(self.text):
                raise _SyntaxError(start, "this '[' is never closed")
            node, at = self.value(at, depth + 1, key)
            items.append(node)
            at = self.separator(at, start, "]")
        return Node(items, start, self.source), at + 1

    def separator(self, at: int, start: int, close: str) -> int:
        """After a member: at the next member, or at the closing bracket."""
        at = self.skip(at)
        char = self.text[at : at + 1]
        if char == ",":
            return self.skip(at + 1)
        if char == close:
            return at
        if not char:
            raise _SyntaxError(start, f"this {self.text[start]!r} is never closed")
        raise _SyntaxError(at, f"unexpected {char!r}", f"expected ',' or '{close}'")

    def name(self, at: int, start: int) -> tuple[str, int]:
        char = self.text[at : at + 1]
        if not char:
            raise _SyntaxError(start, "this '{' is never closed")
        if char in ('"', "'"):
            return self.string(at)
        match = _NAME.match(self.text, at)
        end = match.end() if match else at
        following = self.text[end : end + 1]
        if match and following != "\\" and following.isascii():
            return match.group(), end
        return self.long_name(at)

    def long_name(self, at: int) -> tuple[str, int]:
        """A name with characters beyond ASCII or with escapes."""
        parts: list[str] = []
        end = at
        while end < len(self.text):
            char = self.text[end]
            after = end + 1
            if char == "\\" and self.text[after : after + 1] == "u":
                code, after = self.hexadecimal(after + 1, 4)
                char = chr(code)
            if not (_is_name_part(char) if parts else _is_name_start(char)):
                break
            parts.append(char)
            end = after
        if not parts:
            raise _SyntaxError(at, f"unexpected {self.text[at]!r}", "expected a name or '}'")
        return "".join(parts), end

    def string(self, start: int) -> tuple[str, int]:
        quote = self.text[start]
        plain = _PLAIN[quote]
        parts: list[str] = []
        at = start + 1
        while True:
            match = plain.match(self.text, at)
            if match and match.end() > at:
                parts.append(match.group())
                at = match.end()
            char = self.text[at : at + 1]
            if char == quote:
                break
            if char != "\\":
                raise _SyntaxError(start, "this text is never closed", f"end it with {quote} on the same line")
            part, at = self.escape(at)
            parts.append(part)
        text = "".join(parts)
        if not text.isascii():
            # Two escapes may make one character; what is left over could not be stored.
            try:
                text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le")
            except UnicodeDecodeError:
                raise _SyntaxError(start, "half a surrogate pair in a text") from None
        return text, at + 1

    def escape(self, at: int) -> tuple[str, int]:
        char = self.text[at + 1 : at + 2]
        if char in _ESCAPES:
            return _ESCAPES[char], at + 2
        if char == "x":
            code, end = self.hexadecimal(at + 2, 2)
            return chr(code), end
        if char == "u":
            code, end = self.hexadecimal(at + 2, 4)
            return chr(code), end
        if char == "0" and not self.text[at + 2 : at + 3].isdecimal():
            return "\0", at + 2
        if char == "\r" and self.text[at + 2 : at + 3] == "\n":
            return "", at + 3
        if char in ("\n", "\r", "\u2028", "\u2029"):
            return "", at + 2
        if not char or char in "0123456789":
            raise _SyntaxError(at, "unknown escape in a text", "write \\\\ for a backslash")
        return char, at + 2

    def hexadecimal(self, at: int, digits: int) -> tuple[int, int]:
        text = self.text[at : at + digits]
        if len(text) != digits or not all(char in "0123456789abcdefABCDEF" for char in text):
            raise _SyntaxError(at, f"expected {digits} hexadecimal digits")
        return int(text, 16), at + digits

    def number(self, match: re.Match[str]) -> int | float:
        text = match.group()
        if len(text) > NUMBER_CHARS_MAX:
            raise _SyntaxError(match.start(), f"a number of more than {NUMBER_CHARS_MAX} characters")
        following = self.text[match.end() : match.end() + 1]
        if following and (following == "\\" or _is_name_part(following)):
            raise _SyntaxError(match.end(), f"unexpected {following!r} in a number", "text stands in quotes")
        if match["hex"]:
            return int(text.replace("+", ""), 16)
        if match["word"]:
            return float(text.replace("Infinity", "inf"))
        if match["point"] is None and match["exponent"] is None and not match["decimal"].startswith("."):
            return int(text)
        return float(text)
