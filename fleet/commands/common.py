"""What commands share: exit codes, how problems and failures of the program itself are shown.

Used by the modules of fleet.commands and by fleet.cli.
"""

from __future__ import annotations

import os
import sys
import tempfile
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final

import typer

from agent.protocol.errors import Problem

EXIT_INPUT: Final = 2
EXIT_HARNESS: Final = 4
EXIT_INTERRUPTED: Final = 130


def show_problems(problems: Iterable[Problem], *, err: bool = True) -> None:
    """One a line. A file's name may hold what no terminal can show."""
    for problem in problems:
        typer.echo(str(problem).encode("utf-8", "backslashreplace").decode(), err=err)


@contextmanager
def cut_short_at_will() -> Iterator[None]:
    """Who reads the output may have seen enough (`| head`): that is no error, and changes no exit code."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or it would break again at the end


def show_crash(error: BaseException) -> None:
    """The program itself has failed: one line for the person, the traceback in a file for whoever mends it."""
    what = " ".join(f"{type(error).__name__}: {error}".split())
    lines = "".join(traceback.format_exception(error))
    try:
        handle, path = tempfile.mkstemp(prefix="fleet-error-", suffix=".txt")
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(f"{sys.argv}\n{lines}")
        where = f"the traceback is in {path}, please report it"
    except OSError as full:
        frame = traceback.extract_tb(error.__traceback__)[-1:]
        place = f" at {frame[0].filename}:{frame[0].lineno}" if frame else ""
        where = f"no file for the traceback: {full.strerror}{place}"
    text = f"fleet: internal error: {what} ({where})"
    typer.echo(text.encode("utf-8", "backslashreplace").decode(), err=True)
