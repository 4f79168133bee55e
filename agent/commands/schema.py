"""`schema check`: every mistake of a schema with the line that it stands in, or else what the schema says.

Reads the files that are named and those that they blend, and changes nothing. Called by agent.cli.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from agent.protocol import listing
from agent.protocol.commands.failure import BAD_INPUT, OK, show
from agent.protocol.commands.output import print_json, print_rows
from agent.protocol.errors import InputError, Problem
from agent.protocol.onetable.loader import read_text
from agent.protocol.onetable.model import Model
from agent.protocol.schema import Schema

SOURCE_CHARS_MAX: Final = 96  # of a line that is shown; of a longer one the part around the mistake
_LINE_END: Final = re.compile(r"\r\n|\n|\r")  # as the reader of JSON5 counts lines
_HEAD: Final = ("model", "enable", "sync", "keys", "fields", "notes")


def check(arguments: argparse.Namespace) -> int:
    code = OK
    for file in arguments.files:
        try:
            schema = Schema.load(file)
        except InputError as error:
            code = BAD_INPUT
            if arguments.json:
                problems = list(map(listing.problem_values, error.problems))
                print_json({"file": file, "ok": False, "problems": problems})
            else:
                show(list(explained(error.problems)))
        else:
            if arguments.json:
                print_json({"file": file, "ok": True, "version": schema.version, "models": listing.values(schema)})
            else:
                print(f"{file}: ok, version {schema.version}, {len(schema.models)} models")
                print_rows(_HEAD, [_row(model) for model in schema.models.values()], None)  # a key is never cut
    return code


# --- mistakes


def explained(problems: Sequence[Problem]) -> Iterator[str]:
    """Each problem with the line of the source that it stands in, and a caret below its column."""
    sources: dict[str, list[str]] = {}
    for problem in problems:
        yield str(problem)
        if problem.line and problem.file not in sources:
            sources[problem.file] = _lines(problem.file)
        lines = sources.get(problem.file, [])
        if problem.line and problem.line <= len(lines):
            yield from _pointed(lines[problem.line - 1], problem.column)


def _lines(file: str) -> list[str]:
    try:
        return _LINE_END.split(read_text(Path(file)))
    except InputError:
        return []  # no UTF-8, or gone by now: the problem stands alone


def _pointed(line: str, column: int) -> tuple[str, str]:
    """The part of a line around a column (from 1), and the caret. A tab is one space, so that the caret is right."""
    start = max(0, min(column - SOURCE_CHARS_MAX // 2, len(line) - SOURCE_CHARS_MAX))
    part = "".join(char if char.isprintable() else " " for char in line[start : start + SOURCE_CHARS_MAX])
    indent = len(part) - len(part.lstrip()) if not start else 0
    indent = min(indent, column - 1)
    return f"    {part[indent:].rstrip()}", f"    {' ' * (column - 1 - start - indent)}^"


# --- what a good schema says


def _row(model: Model) -> tuple[str, ...]:
    keys = f"{model.hash_template or '(given)'} / {model.sort_template or '(given)'}"
    return (model.name, model.enable, model.sync, keys, str(len(model.fields)), ", ".join(_notes(model)))


def _notes(model: Model) -> Iterator[str]:
    """What is unusual about a model."""
    if model.receives and model.feed != "device":
        yield "of every device" if model.feed == "all" else "of the account"
    if model.sync == "both":
        yield f"conflict {model.conflict}"
    if model.period_ms:
        yield f"period {model.period_ms / 1000:g}s"
    if model.mem:
        yield "in memory"
    if model.orphans != "keep":
        yield f"orphans {model.orphans}"
    if model.ttl_attribute is not None:
        yield f"ttl {next(field.name for field in model.fields.values() if field.ttl)}"
    if model.unique_fields:
        yield f"unique {' '.join(field.name for field in model.unique_fields)}"
    if model.own_indexes:
        yield f"indexes {' '.join(index.name for index in model.own_indexes)}"
