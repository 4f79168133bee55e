"""What a schema says, as lines for a terminal and as plain values for `--json`: one entry per model.

Never prints, reads no file. Called by the command lines of agent and cloud.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from agent.protocol.errors import Problem
from agent.protocol.onetable.model import Model
from agent.protocol.schema import Schema

_PLACES: Final = {"both": "device and cloud", "device": "device only", "cloud": "cloud only"}
_GIVEN: Final = "-"  # no template: whoever writes gives that key
_WAYS: Final = {"none": "not synced", "up": "up", "down": "down", "both": "both ways"}


def values(schema: Schema) -> list[dict[str, Any]]:
    """JSON values, in the order in which the file names the models."""
    return [
        {
            "name": model.name,
            "enable": model.enable,
            "sync": model.sync,
            "feed": model.feed,
            "conflict": model.conflict if model.sync == "both" else None,
            "hash": model.hash_template,
            "sort": model.sort_template,
        }
        for model in schema.models.values()
    ]


def lines(schema: Schema, *, feed: bool = False) -> list[str]:
    """Aligned columns: name, where it lives, which way, (its feed,) the templates of its two keys."""
    return _columns([_cells(model, feed) for model in schema.models.values()])


def _cells(model: Model, feed: bool) -> tuple[str, ...]:
    way = _WAYS[model.sync]
    if model.sync == "both":
        way = f"{way}, {model.conflict}"
    cells: tuple[str, ...] = (model.name, _PLACES[model.enable], way)
    if feed:
        cells += (f"feed {model.feed}" if model.receives else "no feed",)
    return (*cells, model.hash_template or _GIVEN, model.sort_template or _GIVEN)


def _columns(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def problem_values(problem: Problem) -> dict[str, Any]:
    """One mistake as JSON values."""
    return {name: getattr(problem, name) for name in ("file", "line", "column", "key", "message", "hint")}
