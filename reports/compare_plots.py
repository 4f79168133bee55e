"""The timelines of two sides over each other: the median of each side's runs, and the span of all of them behind it.

Plain values in, SVG out; how plots look is `reports.drawing`'s matter. Called by `reports.compare_html`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from reports import frames
from reports.compare_runs import Run
from reports.drawing import (
    COLOURS,
    Key,
    Scale,
    count_tick,
    figure_of,
    percent_tick,
    seconds_tick,
    shade,
    style,
    svg_of,
    time_axis,
    value_axis,
)
from reports.frames import Fold
from reports.plots import Drawing
from reports.result import FaultWindow

if TYPE_CHECKING:
    from pandas import DataFrame

ROLES: Final = ("a", "b")
LABELS: Final = ("BASE", "NEW")


@dataclass(frozen=True, slots=True)
class Overlay:
    """One plot: a column of the timeline, how intervals are put together, and its axis."""

    column: str
    title: str
    note: str
    fold: Fold
    scale: Scale = "linear"
    tick: Any = count_tick


OVERLAYS: Final = (
    Overlay("online", "Devices online", "lowest in the interval", "min"),
    Overlay("in_step", "Devices in step", "share of all, lowest", "min", tick=percent_tick),
    Overlay("waiting", "Backlog", "changes waiting anywhere, log scale", "max", "symlog"),
    Overlay("synced", "Updates synced", "per second", "rate"),
    Overlay("up_p99_s", "Latency up, p99", "of the interval, log scale", "max", "log", seconds_tick),
    Overlay("down_p99_s", "Latency down, p99", "of the interval, log scale", "max", "log", seconds_tick),
    Overlay("messages_up", "Messages up", "per second", "rate"),
    Overlay("messages_down", "Messages down", "per second", "rate"),
    Overlay("retransmits", "Sent again", "per minute", "per_minute"),
    Overlay("connects", "Connects", "per second", "rate"),
)


def overlays(base: Sequence[Run], new: Sequence[Run]) -> list[Drawing]:
    """Those that both sides have columns for. Raises ModuleNotFoundError without the extra `report`."""
    sides = [[_frame(run) for run in side if len(run.timeline) > 1] for side in (base, new)]
    if not all(sides):
        return []
    faults = next(run.faults for run in base if len(run.timeline) > 1)
    rows = (row.get("t_s", 0.0) for run in (*base, *new) for row in run.timeline[-1:])
    end_s = max(1e-6, *(run.summary.virtual_s for run in (*base, *new)), *rows)
    drawn = []
    with style():
        for overlay in OVERLAYS:
            if all(overlay.column in frame for side in sides for frame in side):
                drawn.append(_draw(overlay, sides, faults, end_s))
    return drawn


def _frame(run: Run) -> DataFrame:
    return frames.timeline(run.timeline, run.summary.devices)


def _draw(
    overlay: Overlay, sides: Sequence[Sequence[DataFrame]], faults: Sequence[FaultWindow], end_s: float
) -> Drawing:
    import pandas as pd

    figure, axes = figure_of()
    for side, role, label in zip(sides, ROLES, LABELS, strict=True):
        columns = [frames.folded(frame, {overlay.column: overlay.fold})[overlay.column] for frame in side]
        table = pd.concat(columns, axis=1)
        if overlay.scale == "log":
            table = table.where(table > 0)
        colour = COLOURS[role]
        if len(columns) > 1:
            axes.fill_between(table.index, table.min(axis=1), table.max(axis=1), color=colour, alpha=0.14, linewidth=0)
        middle = table.median(axis=1)
        axes.plot(middle.index, middle.to_numpy(), color=colour, label=label, linestyle=_LINES[role])
    value_axis(axes, overlay.scale, overlay.tick, room=bool(faults))
    time_axis(axes, end_s)
    shade(axes, faults, end_s)
    keys = tuple(Key(label, role, dashed=role == ROLES[1]) for label, role in zip(LABELS, ROLES, strict=True))
    name = f"compare-{overlay.column.replace('_', '-')}"
    return Drawing(name, overlay.title, overlay.note, keys, svg_of(figure, name, overlay.title))


_LINES: Final[dict[str, Any]] = {"a": "-", "b": (0, (4, 1.5))}  # told apart without colours, too
