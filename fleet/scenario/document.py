"""A YAML file as plain values, with the line and column of every key and value.

Built from ruamel.yaml's events, not from its loaded objects: so that limits on size, depth and number of values hold
while reading, a key given twice is seen, and no tag makes an object. Used by fleet.scenario.load only.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    CollectionStartEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)
from ruamel.yaml.reader import ReaderError

from agent.protocol.errors import Problem

FILE_BYTES_MAX: Final = 1 << 20
DEPTH_MAX: Final = 32
VALUES_MAX: Final = 50_000  # aliases count as what they stand for

Path_ = tuple[str | int, ...]
Scalar = str | int | float | bool | None

_INT: Final = re.compile(r"[-+]?[0-9]{1,18}")
_FLOAT: Final = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]{1,3})?")
_WORDS: Final[dict[str, Scalar]] = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None,
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in a text; `line` 0: the text as a whole, as with `--set`."""

    file: str
    line: int = 0
    column: int = 0


@dataclass(slots=True)
class Document:
    """Plain values (dict, list, scalars), and where each came from: the key's place and the value's."""

    file: str
    value: Any = None
    marks: dict[Path_, tuple[Mark, Mark]] = field(default_factory=dict)
    inside: dict[Path_, Mark] = field(
        default_factory=dict
    )  # first character of texts that stand in one line as they are
    problems: list[Problem] = field(default_factory=list)

    def mark(self, path: Path_, *, key: bool = False) -> Mark:
        """Of the value at `path` (or its key), else of the nearest thing around it."""
        for end in range(len(path), -1, -1):
            marks = self.marks.get(path[:end])
            if marks is not None:
                return marks[0 if key and end == len(path) else 1]
        return Mark(self.file)

    def written(self, path: Path_) -> Any:
        """The value at `path` as it was written; None where nothing was."""
        value = self.value
        for part in path:
            if isinstance(value, dict):
                value = value.get(part)
            elif isinstance(value, list) and isinstance(part, int) and part < len(value):
                value = value[part]
            else:
                return None
        return value

    def complain(self, path: Path_, message: str, hint: str = "", *, key: bool = False, at: int | None = None) -> None:
        """`at`: so many characters into the text at `path`, where they stand in the file as they are in the text."""
        mark = self.mark(path, key=key)
        if at is not None and (key or path in self.inside):
            mark = mark if key else self.inside[path]
            mark = replace(mark, column=mark.column + at if mark.line else 0)
        self.problems.append(Problem(mark.file, mark.line, mark.column, dotted(path), message, hint))

    def forget(self, path: Path_) -> None:
        """Marks of what was replaced."""
        for known in [known for known in self.marks if known[: len(path)] == path]:
            del self.marks[known]
            self.inside.pop(known, None)


def dotted(path: Path_) -> str:
    """`devices[0].count`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def scalar(text: str) -> Scalar:
    """A plain YAML 1.2 scalar: null, true, false, numbers; all else is text."""
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text):
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) else text


class _Stop(Exception):
    """Reading any further makes no sense; the problem has been noted."""


class _Builder:
    """Events to values. Recursion is bounded by DEPTH_MAX."""

    def __init__(self, document: Document, events: Iterator[Event], fixed: Mark | None = None) -> None:
        self._document = document
        self._events = events
        self._fixed = fixed  # every value's place, when the text is not the file's
        self._anchors: dict[str, Any] = {}
        self._values = 0

    def mark(self, event: Event) -> Mark:
        if self._fixed is not None:
            return self._fixed
        return Mark(self._document.file, event.start_mark.line + 1, event.start_mark.column + 1)

    def stop(self, mark: Mark, message: str, hint: str = "") -> _Stop:
        self._document.problems.append(Problem(mark.file, mark.line, mark.column, "", message, hint))
        return _Stop()

    def build(self, event: Event, path: Path_, key: Mark | None = None) -> Any:
        mark = self.mark(event)
        self._document.marks[path] = (key or mark, mark)
        self._values += 1
        if self._values > VALUES_MAX:
            raise self.stop(mark, f"more than {VALUES_MAX} values", "aliases count as what they stand for")
        if len(path) > DEPTH_MAX:
            raise self.stop(mark, f"nested more than {DEPTH_MAX} deep")
        if isinstance(event, AliasEvent):
            return self._alias(event, mark)
        if not isinstance(event, CollectionStartEvent | ScalarEvent):
            raise AssertionError(f"{event!r} begins no value")
        if event.tag is not None and event.tag not in ("!", "tag:yaml.org,2002:str"):
            self._document.problems.append(
                Problem(mark.file, mark.line, mark.column, dotted(path), f"tag {event.tag} has no meaning here")
            )
        anchor = event.anchor
        if isinstance(event, ScalarEvent):
            text = self._text(event)
            value: Any = scalar(text) if event.style is None and event.tag is None else text
            quote = 0 if event.style is None else 1
            start, end = event.start_mark, event.end_mark
            if self._fixed is None and start.line == end.line and end.column - start.column == len(text) + 2 * quote:
                self._document.inside[path] = replace(mark, column=mark.column + quote)
        elif isinstance(event, SequenceStartEvent):
            value = self._sequence(path)
        else:
            value = self._mapping(path)
        if anchor:
            self._anchors[anchor] = value
        return value

    def _text(self, event: ScalarEvent) -> str:
        """The scalar's text. An escape may hold half a character: two halves are joined, one alone is refused."""
        text: str = event.value
        if event.style is None or text.isascii():
            return text
        try:
            return text.encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeDecodeError:
            raise self.stop(self.mark(event), "half a surrogate pair is no character") from None

    def _alias(self, event: AliasEvent, mark: Mark) -> Any:
        if event.anchor not in self._anchors:
            raise self.stop(
                mark, f"alias *{event.anchor} stands for nothing", "an anchor must come first, and be whole"
            )
        value = self._anchors[event.anchor]
        self._values += _size(value, VALUES_MAX - self._values)
        if self._values > VALUES_MAX:
            raise self.stop(mark, f"more than {VALUES_MAX} values", "aliases count as what they stand for")
        return copy.deepcopy(value)  # so that an override of one changes one

    def _sequence(self, path: Path_) -> list[Any]:
        values: list[Any] = []
        for event in self._events:
            if isinstance(event, SequenceEndEvent):
                break
            values.append(self.build(event, (*path, len(values))))
        return values

    def _mapping(self, path: Path_) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for event in self._events:
            if isinstance(event, MappingEndEvent):
                break
            mark = self.mark(event)
            if not isinstance(event, ScalarEvent):
                raise self.stop(mark, "a key must be a word", "quote a text that begins with [ { * or &")
            key = self._text(event)
            first = self._document.marks.get((*path, key)) if key in values else None
            if first is not None:
                self._document.problems.append(
                    Problem(
                        mark.file, mark.line, mark.column, dotted((*path, key)), "is given twice",
                        f"first in line {first[0].line}",
                    )
                )  # fmt: skip
            value = self.build(next(self._events), (*path, key), mark)
            if first is None:
                values[key] = value
            else:
                self._document.marks[(*path, key)] = first
        return values


def _size(value: Any, limit: int) -> int:
    """Number of values in `value`; stops counting beyond `limit`."""
    count, todo = 0, [value]
    while todo and count <= limit:
        one = todo.pop()
        count += 1
        if isinstance(one, dict):
            todo.extend(one.values())
        elif isinstance(one, list):
            todo.extend(one)
    return count


def read_document(path: Path, shown: str, missing_hint: str) -> Document:
    """The file at `path`. Whatever is wrong with it is in `problems`; `value` is None when nothing could be read."""
    document = Document(shown)
    try:
        if path.is_dir():
            raise IsADirectoryError(0, "it is a directory")
        with path.open("rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
    except (OSError, ValueError) as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else getattr(error, "strerror", None) or error
        document.complain((), f"cannot be read: {reason}", missing_hint)
        return document
    if len(data) > FILE_BYTES_MAX:
        document.complain((), "larger than 1 MB", "a scenario is a few KB of text")
        return document
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - (data.rfind(b"\n", 0, error.start) + 1) + 1
        message = f"not UTF-8: byte 0x{data[error.start]:02x}"
        document.problems.append(Problem(shown, line, column, "", message, "save the file as UTF-8"))
        return document
    _fill(document, text)
    return document


def _in_plain_words(error: MarkedYAMLError) -> tuple[str, str]:
    """What the parser says, and what it mostly comes from."""
    what = " ".join(part for part in (error.context, error.problem) if part)
    if "'\\t'" in what:
        return "a tab", "indent with spaces"
    return what, "mostly an indent, a missing quote or an open bracket, here or just above"


def read_value(text: str, file: str) -> Document:
    """A value given on the command line, in YAML; every place is `file` as a whole."""
    document = Document(file)
    _fill(document, text, Mark(file))
    return document


def _fill(document: Document, text: str, fixed: Mark | None = None) -> None:
    yaml = YAML(typ="safe", pure=True)
    mark = fixed or Mark(document.file, 1, 1)
    try:
        events = iter(yaml.parse(text))
        builder = _Builder(document, events, fixed)
        seen = False
        for event in events:
            if isinstance(event, DocumentStartEvent):
                if seen:
                    raise builder.stop(builder.mark(event), "a second document", "one file holds one scenario")
                seen = True
                document.value = builder.build(next(events), ())
    except _Stop:
        document.value = None
        return
    except MarkedYAMLError as error:
        place = error.problem_mark or error.context_mark
        if place is not None and fixed is None:
            mark = Mark(document.file, place.line + 1, place.column + 1)
        what, hint = _in_plain_words(error)
        document.problems.append(Problem(mark.file, mark.line, mark.column, "", f"not YAML: {what}", hint))
        document.value = None
        return
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        column = error.position - (text.rfind("\n", 0, error.position) + 1) + 1
        mark = fixed or Mark(document.file, line, column)
        what = f"not YAML: the character U+{ord(text[error.position]):04X} is not allowed"
        document.problems.append(Problem(mark.file, mark.line, mark.column, "", what))
        document.value = None
        return
    except (YAMLError, RecursionError, ValueError) as error:
        document.problems.append(Problem(mark.file, mark.line, mark.column, "", f"not YAML: {error}"))
        document.value = None
        return
    if document.value is None and not document.problems and fixed is None:
        document.complain((), "the file is empty", "`fleet init DIR` writes a scenario to start from")
