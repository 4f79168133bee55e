"""What commands share: how problems are shown. Used by the modules of fleet.commands and by fleet.cli."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import typer

from agent.protocol.errors import Problem

EXIT_INPUT = 2


def show_problems(problems: Iterable[Problem], *, err: bool = True) -> None:
    """One a line. A file's name may hold what no terminal can show."""
    for problem in problems:
        typer.echo(str(problem).encode("utf-8", "backslashreplace").decode(), err=err)


def problem_values(problem: Problem) -> dict[str, Any]:
    """For `--json`."""
    return {name: getattr(problem, name) for name in ("file", "line", "column", "key", "message", "hint")}
