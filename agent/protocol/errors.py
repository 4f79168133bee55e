"""Errors that people see, each with a place and a hint, and errors that one end of the wire counts against the other.

Never raised for a programming mistake: those stay plain exceptions. Called by every room.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in a file that a person wrote. Lines and columns count from 1; 0 means "the whole file"."""

    file: str
    line: int
    column: int
    key: str
    message: str
    hint: str = ""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        key = f" {self.key}:" if self.key else ""
        hint = f" ({self.hint})" if self.hint else ""
        return f"{place}:{key} {self.message}{hint}"


class InputError(Exception):
    """Bad input from a person: every problem at once. Command lines print them and exit with 2."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class ModelError(Exception):
    """An application passed something that the schema does not allow. `code` is stable; the text is for people."""

    def __init__(self, code: str, message: str, *, model: str = "", field: str = "") -> None:
        self.code = code
        self.model = model
        self.field = field
        super().__init__(message)


class MessageError(Exception):
    """A message that must be refused. `code` names the counter: `malformed`, `oversize`, `version`, `unknown`."""

    def __init__(self, code: str, message: str) -> None:
        self.code = code
        super().__init__(message)
