"""`backup compact export import`: the whole database, as a copy or as lines of JSON.

Never writes over a file that is there, and leaves no half of one behind. All ask the agent, where one runs on the
database. Called by agent.cli.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Final, TextIO

from agent.commands.items import model_of
from agent.commands.opening import database_path
from agent.commands.reaching import reached
from agent.database import Database
from agent.import_lines import Imported, import_lines
from agent.protocol.commands.failure import BAD_INPUT, OK, CommandError, note, show
from agent.protocol.commands.output import json_line, print_json

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


def import_(arguments: argparse.Namespace) -> int:
    with _input(arguments.file) as file, reached(arguments, begin=True) as database:
        partial = bool(arguments.partial)
        if isinstance(database, Database):
            done = import_lines(database, file, partial=partial)
        else:
            done = database.import_lines(file, partial=partial)
        whose = "" if database.context.device_id else "; --device says whose items are taken"
    counts = {"created": done.created, "updated": done.updated, "unchanged": done.unchanged}
    refused = [{"line": line, "reason": reason} for line, reason in done.refused]
    text = ", ".join(f"{count} {name}" for name, count in counts.items())
    if not arguments.json:
        _show_refused("standard input" if arguments.file == STANDARD else arguments.file, done)
    if done.undone:
        note(f"fleet-agent: nothing was imported (--partial keeps what can be{whose})")
    if arguments.json or not done.undone:
        text += f", {done.refused_count} refused" if refused else ""
        _say(arguments, text, {**counts, "refused": refused})
    return BAD_INPUT if refused else OK


def _input(name: str) -> Any:
    return nullcontext(sys.stdin.buffer) if name == STANDARD else open(name, "rb")


def _show_refused(name: str, done: Imported) -> None:
    shown = [f"{name}:{number}: {' '.join(reason.split())}" for number, reason in done.refused[:SHOWN_MAX]]
    if done.refused_count > SHOWN_MAX:
        shown.append(f"and {done.refused_count - SHOWN_MAX} more lines are refused")
    show(shown)
