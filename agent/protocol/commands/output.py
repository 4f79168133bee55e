"""Prints items: JSON lines for programs, aligned columns or one field a line for a person on a terminal.

JSON where the output is no terminal, or where --json asks for it; --table asks for the other. Called by the commands
that print items.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import chain, islice
from typing import Any, Final, TextIO

from agent.protocol.commands import tables
from agent.protocol.commands.failure import CommandError, note
from agent.protocol.commands.typed import json_value, to_json
from agent.protocol.onetable.model import Model
from agent.protocol.onetable.template import ACCOUNT, DEVICE
from agent.protocol.process import Context

COLUMNS: Final = 100  # where no terminal says how many it has
_MEASURED: Final = 500  # rows that are read before the first is printed, to see how wide the columns are


def wants_json(arguments: argparse.Namespace) -> bool:
    if arguments.json and arguments.as_table:
        raise CommandError("two ways to print were asked for", "name one")
    return bool(arguments.json or not (arguments.as_table or sys.stdout.isatty()))


def columns() -> int | None:
    """Of the terminal; None where there is none, and nothing is cut."""
    return shutil.get_terminal_size((COLUMNS, 24)).columns if sys.stdout.isatty() else None


def print_json(value: Any) -> None:
    print(json_line(value, sys.stdout))


def json_line(value: Any, file: TextIO) -> str:
    """On one line, with escapes where the file's encoding has not every character."""
    return json.dumps(value, ensure_ascii=not file.encoding.lower().startswith("utf"))


def print_item(model: Model, item: Mapping[str, Any], arguments: argparse.Namespace) -> None:
    """One item: a field a line for a person, whole."""
    if wants_json(arguments):
        print_json(to_json(model, item))
        return
    width = max(map(len, item), default=0)
    for name in _in_order(model, item):
        print(f"{name.ljust(width)}  {_cell(model, name, item[name])}")


def print_items(
    model: Model, items: Iterator[Mapping[str, Any]], context: Context, arguments: argparse.Namespace
) -> None:
    """A row an item. For a person the ids that all items share are left out, and long values are cut."""
    if wants_json(arguments):
        for item in items:
            print_json(to_json(model, item))
        return
    first = list(islice(items, _MEASURED))
    if not first:
        note(f"no such {model.name}")
        return
    shared = {DEVICE: context.device_id, ACCOUNT: context.account_id}
    found = {name: None for item in first for name, value in item.items() if shared.get(name) != value}
    head = _in_order(model, found) or ["(no field)"]
    rows = [[_cell(model, name, item.get(name)) for name in head] for item in first]
    widths = tables.fitted(tables.widths_of([head, *rows]), columns())
    right = [name in model.fields and model.fields[name].type == "number" for name in head]
    print(tables.line(head, widths, right))
    rest = ([_cell(model, name, item.get(name)) for name in head] for item in items)
    for row in chain(rows, rest):
        print(tables.line(row, widths, right))


def print_rows(head: Sequence[str], rows: Sequence[Sequence[str]], room: int | None) -> None:
    print(*tables.table(head, rows, room), sep="\n")


def _in_order(model: Model, names: Iterable[str]) -> list[str]:
    """As the schema has the fields: what the key is made of first, stamps last."""
    order = [name for name in model.fields if name in model.key_names]
    order += [name for name in model.fields if name not in model.key_names]
    present = dict.fromkeys(names)
    return [name for name in present if name not in model.fields] + [name for name in order if name in present]


def _cell(model: Model, name: str, value: Any) -> str:
    if isinstance(value, datetime):
        return short_date(value)
    return tables.cell(json_value(model.fields.get(name), value))


def short_date(value: datetime) -> str:
    """UTC; milliseconds only where there are some."""
    text = value.isoformat(" ", "milliseconds").removesuffix("+00:00").removesuffix(".000")
    return f"{text}Z"
