"""Aligned columns for a terminal: as wide as they need to be, as narrow as they must, each row on one line.

Pure text in, lines out; never prints. A character that a terminal would act on is shown as its escape. Called by the
commands and by agent.protocol.commands.output.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, Final

COLUMN_MIN: Final = 6  # characters that a column keeps, whatever the others need
GAP: Final = "  "
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")


def cell(value: Any) -> str:
    """A JSON value on one line; nothing for None."""
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return _CONTROL.sub(lambda match: json.dumps(match[0])[1:-1], text)


def cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"


def fitted(widths: Sequence[int], room: int | None) -> list[int]:
    """The widths with the widest made narrower until all fit in `room` characters; as they are when they cannot, or
    when there is no end of room."""
    fit = list(widths)
    if room is None:
        return fit
    spare = room - len(GAP) * (len(fit) - 1)
    while sum(fit) > spare:  # ints
        widest = max(fit)
        if widest <= COLUMN_MIN:
            return list(widths)
        fit[fit.index(widest)] -= 1
    return fit


def widths_of(rows: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(len, column)) for column in zip(*rows, strict=True)]


def line(cells: Sequence[str], widths: Sequence[int], right: Sequence[bool] = ()) -> str:
    """`right`: which columns are numbers."""
    placed = [
        cut(text, width).rjust(width) if at < len(right) and right[at] else cut(text, width).ljust(width)
        for at, (text, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return GAP.join(placed).rstrip()


def table(head: Sequence[str], rows: Sequence[Sequence[str]], room: int | None) -> list[str]:
    """With its head. A table that cannot be as narrow as `room` is wider."""
    everything = [head, *rows]
    widths = fitted(widths_of(everything), room)
    return [line(row, widths) for row in everything]
