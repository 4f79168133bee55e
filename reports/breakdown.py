"""The tables by group of devices and by model. Called by the page; needs pandas."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from reports import frames
from reports.sections import Column, Section, Table
from reports.summary import Part, Summary
from reports.text import bytes_text, number_text, printable, seconds_text

if TYPE_CHECKING:
    from pandas import Series


def _bytes(value: float | None) -> str:
    return bytes_text(int(value or 0))


# Column of the frame -> title, how its numbers are said. Columns of zeros only are left out.
_COLUMNS: Final = {
    "devices": ("Devices", number_text),
    "not_in_step": ("Not in step", number_text),
    "local_writes": ("Writes on devices", number_text),
    "cloud_writes": ("Writes in the cloud", number_text),
    "updates_synced": ("Synced", number_text),
    "up_p50": ("Up p50", seconds_text),
    "up_p99": ("Up p99", seconds_text),
    "down_p50": ("Down p50", seconds_text),
    "down_p99": ("Down p99", seconds_text),
    "messages_up": ("Messages up", number_text),
    "messages_down": ("Messages down", number_text),
    "messages_lost": ("Lost", number_text),
    "bytes_up": ("Bytes up", _bytes),
    "bytes_down": ("Bytes down", _bytes),
    "reboots": ("Reboots", number_text),
}
_NAME_MAX: Final = 60


def breakdown(summary: Summary) -> list[Section]:
    """One section for groups and one for models, where the run knows of any."""
    found = []
    for name, title, parts in (("groups", "Groups", summary.groups), ("models", "Models", summary.models)):
        if parts:
            found.append(Section(name, title, tables=[_table(title.removesuffix("s"), parts)]))
    return found


def _table(title: str, parts: Mapping[str, Part]) -> Table:
    frame = frames.parts(parts)
    names = [name for name in _COLUMNS if name in frame and (frame[name].fillna(0) != 0).any()]
    rows: list[list[str]] = [[printable(str(name), _NAME_MAX)] for name in frame.index]
    for name in names:
        for row, text in zip(rows, _said(frame[name], _COLUMNS[name][1]), strict=True):
            row.append(text)
    return Table([Column(title), *(Column(_COLUMNS[name][0], number=True) for name in names)], rows)


def _said(column: Series[Any], say: Any) -> list[str]:
    return ["–" if math.isnan(value) else say(value) for value in column]
