"""`timeline.csv` and `devices.csv`: a run's rows as text, and back. No files here; called by `reports.rundir`.

A text that a spreadsheet would take for a formula gets a leading apostrophe (and so does one that begins with an
apostrophe, so that reading back is exact).
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from typing import Final

from reports.result import DeviceRow, Row
from reports.text import printable

DEVICE_COLUMNS: Final = DeviceRow.__struct_fields__
_FORMULA: Final = tuple("=+-@'\t\r|%")


class TableError(ValueError):
    """A table that cannot be read back; the text names the line."""


def safe_cell(text: str) -> str:
    """`text` on one line, never a formula."""
    line = printable(text)
    return f"'{line}" if line.lstrip().startswith(_FORMULA) else line


def _plain(cell: str) -> str:
    return cell[1:] if cell.startswith("'") else cell


def _number(value: int | float | None) -> str:
    """Blank for what has no value: nothing, not-a-number, infinity."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    return repr(value) if isinstance(value, float) else str(int(value))


def timeline_columns(rows: Iterable[Row]) -> list[str]:
    """All columns in the order of first sight, `t_s` first."""
    columns: dict[str, None] = {"t_s": None}
    for row in rows:
        for name in row:
            columns.setdefault(name)
    return list(columns)


def timeline_csv(rows: Sequence[Row]) -> str:
    columns = timeline_columns(rows)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([safe_cell(name) for name in columns])
    writer.writerows([_number(row.get(name)) for name in columns] for row in rows)
    return out.getvalue()


def devices_csv(rows: Iterable[DeviceRow]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(DEVICE_COLUMNS)
    for row in rows:
        cells = (getattr(row, name) for name in DEVICE_COLUMNS)
        writer.writerow([safe_cell(cell) if isinstance(cell, str) else _number(cell) for cell in cells])
    return out.getvalue()


def _parse_number(cell: str, line: int, column: str) -> int | float:
    try:
        return int(cell)
    except ValueError:
        try:
            return float(cell)
        except ValueError:
            raise TableError(f"line {line}, column {column}: {printable(cell, 40)!r} is not a number") from None


def _records(text: str) -> list[list[str]]:
    try:
        return list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except csv.Error as error:
        raise TableError(f"not CSV: {error}") from None


def parse_timeline(text: str) -> list[Row]:
    """The rows of `timeline_csv`; a blank cell is a missing column. Raises TableError."""
    records = _records(text)
    if not records:
        raise TableError("empty: not even a header")
    columns = [_plain(cell) for cell in records[0]]
    rows: list[Row] = []
    for line, cells in enumerate(records[1:], start=2):
        if len(cells) != len(columns):
            raise TableError(f"line {line}: {len(cells)} cells, expected {len(columns)}")
        pairs = zip(columns, cells, strict=True)
        rows.append({name: _parse_number(cell, line, name) for name, cell in pairs if cell})
    return rows


def parse_devices(text: str) -> list[DeviceRow]:
    """The rows of `devices_csv`. Raises TableError."""
    records = _records(text)
    if not records or tuple(records[0]) != DEVICE_COLUMNS:
        raise TableError(f"line 1: expected the columns {', '.join(DEVICE_COLUMNS)}")
    rows = []
    for line, cells in enumerate(records[1:], start=2):
        if len(cells) != len(DEVICE_COLUMNS):
            raise TableError(f"line {line}: {len(cells)} cells, expected {len(DEVICE_COLUMNS)}")
        device, group, reason, state, outbox, cursor, last_ack_s = cells
        rows.append(
            DeviceRow(
                device=_plain(device),
                group=_plain(group),
                reason=_plain(reason),
                state=_plain(state),
                outbox=int(_parse_number(outbox or "0", line, "outbox")),
                cursor=_plain(cursor),
                last_ack_s=float(_parse_number(last_ack_s, line, "last_ack_s")) if last_ack_s else None,
            )
        )
    return rows
