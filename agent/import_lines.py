"""Lines of JSON into a database: all of them, or what can be. Which line was refused, and why.

One transaction: whoever else reads or writes waits for its end. Called by `fleet-agent import` where no agent runs on
the database, else by that agent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import IO, Any

from agent.database import Database
from agent.protocol.commands.typed import parsed_json
from agent.transfer import ImportResult


@dataclass(slots=True)
class Imported:
    """`refused`: (number of the line, from 1; why), `refused_count` of them in all. `undone`: some were refused, and so
    nothing was imported."""

    created: int = 0
    updated: int = 0
    unchanged: int = 0
    refused: list[tuple[int, str]] = field(default_factory=list)
    refused_count: int = 0
    undone: bool = False


class _Refused(Exception):
    """Undoes the transaction."""


class _Lines:
    """The rows of a file of JSON lines, and which line each came from. What is no JSON object is refused."""

    def __init__(self, file: IO[bytes]) -> None:
        self.refused: list[tuple[int, str]] = []
        self._file = file
        self._line_of: list[int] = []  # number of the row, from 0 -> of its line, from 1

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        for number, line in enumerate(self._file, 1):
            if not line.strip():
                continue
            try:
                row = parsed_json(line.decode("utf-8-sig" if number == 1 else "utf-8"), float)
            except UnicodeDecodeError:
                self.refused.append((number, "no UTF-8"))
            except ValueError as error:
                self.refused.append((number, f"no JSON: {error}"))
            else:
                if isinstance(row, dict):
                    self._line_of.append(number)
                    yield row
                else:
                    self.refused.append((number, "expected an object with model and item"))

    def refuse_rows(self, refused: list[tuple[int, str]]) -> None:
        """`refused`: by the numbers of the rows, from 1."""
        self.refused += [(self._line_of[row - 1], reason) for row, reason in refused]
        self.refused.sort()


def import_lines(database: Database, file: IO[bytes], *, partial: bool) -> Imported:
    """`partial`: what is not refused is kept where something is."""
    lines = _Lines(file)
    undone = False
    try:
        with database.transaction():
            result = database.import_items(lines)
            lines.refuse_rows(result.refused)
            if lines.refused and not partial:
                raise _Refused
    except _Refused:
        result, undone = ImportResult(), True
    counts = (result.created, result.updated, result.unchanged)
    return Imported(*counts, lines.refused, len(lines.refused), undone)
