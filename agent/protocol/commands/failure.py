"""From what went wrong to the lines that a person reads: what, where, and what to do about it; never a traceback.

Knows the errors of the protocol; a command line adds its own. Called by agent.commands.failure and cloud.cli.
"""

from __future__ import annotations

import sys
import traceback
from typing import Final

from agent.protocol.errors import InputError, ModelError

OK: Final = 0
BAD_INPUT: Final = 2
INTERNAL: Final = 4
INTERRUPTED: Final = 130

_HINTS: Final = {
    "ambiguous": "give more fields",
    "exists": "`update` changes it, `upsert` does either",
    "missing": "`create` makes it, `upsert` does either",
}


class CommandError(Exception):
    """What a person asked for cannot be done. `hint`: what to do instead."""

    def __init__(self, message: str, hint: str = "") -> None:
        self.message = message
        self.hint = hint
        super().__init__(f"{message} ({hint})" if hint else message)


def lines_of(
    error: Exception, program: str, told: tuple[type[Exception], ...], direction_hint: str
) -> tuple[int, list[str]]:
    """The exit code, and what to say. `told`: errors whose text is for people. An error that no command expects is the
    program's own, and says so."""
    if isinstance(error, InputError):
        return BAD_INPUT, [str(problem) for problem in error.problems]
    if isinstance(error, ModelError):
        hint = direction_hint if error.code == "direction" else _HINTS.get(error.code, "") or _id_hint(error)
        return BAD_INPUT, [_line(program, f"{error} ({hint})" if hint else str(error))]
    if isinstance(error, (CommandError, *told)):
        return BAD_INPUT, [_line(program, str(error))]
    if isinstance(error, OSError):
        where = error.filename if error.filename is not None else "standard input or output"
        return BAD_INPUT, [_line(program, f"{where}: {(error.strerror or str(error)).lower()}")]
    frame = traceback.extract_tb(error.__traceback__)[-1:]
    place = f" at {frame[0].filename}:{frame[0].lineno}" if frame else ""
    return INTERNAL, [_line(program, f"internal error: {type(error).__name__}: {error}{place} (please report it)")]


def _id_hint(error: Exception) -> str:
    for name, option in (("deviceId", "--device"), ("accountId", "--account")):
        if f"{name}: is required" in str(error) or f"needs {name}" in str(error):
            return f"{option} says whose"
    return ""


def _line(program: str, text: str) -> str:
    return f"{program}: {' '.join(text.split())}"


def show(lines: list[str]) -> None:
    """On standard error, whatever characters the lines hold."""
    for line in lines:
        print(line.encode("utf-8", "backslashreplace").decode(), file=sys.stderr)


def note(text: str) -> None:
    """Something that a person may want to know, and a script that reads the output does not."""
    show([text])
