"""`backup compact export import`: the whole database, as a copy or as lines of JSON.

Never writes over a file that is there, and leaves no half of one behind. All but `import` ask the agent, where one runs
on the database. Called by agent.cli.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import IO, Any, Final, TextIO

from agent.commands.items import model_of
from agent.commands.opening import database_path, opened
from agent.commands.reaching import reached
from agent.protocol.commands.failure import BAD_INPUT, OK, CommandError, note, show
from agent.protocol.commands.output import json_line, print_json
from agent.protocol.commands.typed import parsed_json
from agent.transfer import ImportResult

STANDARD: Final = "-"
SHOWN_MAX: Final = 20  # refused lines


def backup(arguments: argparse.Namespace) -> int:
    target = Path(arguments.file)
    with reached(arguments) as database:
        database.backup(target)
    size = target.stat().st_size
    _say(arguments, f"{target}: {size} bytes", {"file": str(target), "bytes": size})
    return OK


def compact(arguments: argparse.Namespace) -> int:
    with reached(arguments) as database:
        before, after = database.compact()
    path = database_path(arguments)
    values = {"file": str(path), "bytes_before": before, "bytes_after": after}
    _say(arguments, f"{path}: {before} bytes before, {after} after", values)
    return OK


def export(arguments: argparse.Namespace) -> int:
    with reached(arguments) as database:
        wanted = {model_of(database, name).name for name in arguments.model or ()}
        count = 0
        with _output(arguments.file) as file:
            for row in database.export_items():
                if not wanted or row["model"] in wanted:
                    file.write(json_line(row, file) + "\n")
                    count += 1
    if arguments.file != STANDARD:
        print(f"{arguments.file}: {count} items")
    return OK


def _say(arguments: argparse.Namespace, text: str, values: dict[str, Any]) -> None:
    if arguments.json:
        print_json(values)
    else:
        print(text)


@contextmanager
def _output(name: str) -> Iterator[TextIO]:
    """Standard output, or a new file that has its name when it is whole."""
    if name == STANDARD:
        yield sys.stdout
        return
    if Path(name).exists():
        raise CommandError(f"{name}: exists already", "name another file: nothing is written over")
    part = f"{name}.part"
    try:
        with open(part, "w", encoding="utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, name)
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise


# --- import


class _Refused(Exception):
    """Undoes the transaction."""


class _Lines:
    """The rows of a file of JSON lines, and which line each came from. What is no JSON object is refused."""

    def __init__(self, file: IO[bytes], name: str) -> None:
        self.name = name
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


def import_(arguments: argparse.Namespace) -> int:
    with _input(arguments.file) as file, opened(arguments, begin=True) as database:
        lines = _Lines(file, "standard input" if arguments.file == STANDARD else arguments.file)
        try:
            with database.transaction():
                result = database.import_items(lines)
                lines.refuse_rows(result.refused)
                if lines.refused and not arguments.partial:
                    raise _Refused
        except _Refused:
            result = ImportResult()
            undone = True
        else:
            undone = False
        whose = "" if database.context.device_id else "; --device says whose items are taken"
    counts = {"created": result.created, "updated": result.updated, "unchanged": result.unchanged}
    refused = [{"line": line, "reason": reason} for line, reason in lines.refused]
    text = ", ".join(f"{count} {name}" for name, count in counts.items())
    if not arguments.json:
        _show_refused(lines)
    if undone:
        note(f"fleet-agent: nothing was imported (--partial keeps what can be{whose})")
    if arguments.json or not undone:
        text += f", {len(refused)} refused" if refused else ""
        _say(arguments, text, {**counts, "refused": refused})
    return BAD_INPUT if refused else OK


def _input(name: str) -> Any:
    return nullcontext(sys.stdin.buffer) if name == STANDARD else open(name, "rb")


def _show_refused(lines: _Lines) -> None:
    shown = [f"{lines.name}:{number}: {' '.join(reason.split())}" for number, reason in lines.refused[:SHOWN_MAX]]
    if len(lines.refused) > SHOWN_MAX:
        shown.append(f"and {len(lines.refused) - SHOWN_MAX} more lines are refused")
    show(shown)
