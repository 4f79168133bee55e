"""The plots of a report: the run in time, how latencies were distributed, how the fleet came back after each heal.

What there is to be drawn is a table, PLOTS, and three functions below it. Plain values in, pictures out; how they look
is `reports.drawing`'s matter. Called by `reports.html` (SVG) and `fleet report --png`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from reports import frames
from reports.drawing import (
    COLOURS,
    SERIES_ROLES,
    WIDTH_IN,
    Key,
    Picture,
    Scale,
    band_roles,
    bands,
    count_tick,
    figure_of,
    percent_tick,
    png_of,
    seconds_tick,
    shade,
    style,
    svg_of,
    time_axis,
    value_axis,
)
from reports.frames import POINTS_MAX, Fold
from reports.result import FaultWindow, LatencyPhase, LatencySlot, RunResult
from reports.text import printable

if TYPE_CHECKING:
    from pandas import DataFrame

FEW_POINTS: Final = 96  # of what comes now and then: means of longer stretches are calmer
HEALS_MAX: Final = 6  # curves after heals on one plot
BARS_MAX: Final = 40  # faults in the plot of all windows


@dataclass(frozen=True, slots=True)
class Curve:
    """One line: a column, its name in the legend, its colour's role, and how intervals are put together."""

    column: str
    label: str
    role: str
    fold: Fold


@dataclass(frozen=True, slots=True)
class Plot:
    """`percent`: the values are shares. `when_any`: left out where all is zero."""

    name: str
    title: str
    note: str
    curves: tuple[Curve, ...]
    scale: Scale = "linear"
    filled: bool = False
    percent: bool = False
    when_any: bool = False
    points_max: int = POINTS_MAX


PLOTS: Final = (
    Plot("online", "Devices online", "lowest in the interval", (Curve("online", "online", "a", "min"),), filled=True),
    Plot(
        "convergence",
        "Convergence",
        "devices in step: nothing of their own waiting, nothing missing",
        (Curve("in_step", "in step", "c", "min"),),
        filled=True,
        percent=True,
    ),
    Plot(
        "writes",
        "Writes and synced updates",
        "per second",
        (
            Curve("synced", "synced", "c", "rate"),
            Curve("writes_device", "on devices", "a", "rate"),
            Curve("writes_cloud", "in the cloud", "b", "rate"),
        ),
    ),
    Plot(
        "messages",
        "Messages",
        "per second",
        (Curve("messages_down", "down", "b", "rate"), Curve("messages_up", "up", "a", "rate")),
    ),
    Plot(
        "backlog",
        "Backlog",
        "changes waiting, log scale",
        (Curve("outbox", "on devices (outbox)", "a", "max"), Curve("feed_lag", "in the cloud (feeds)", "b", "max")),
        scale="symlog",
        filled=True,
    ),
    Plot(
        "connections",
        "Connects and disconnects",
        "per second",
        (Curve("connects", "connects", "c", "rate"), Curve("disconnects", "disconnects", "f1", "rate")),
    ),
    Plot(
        "repairs",
        "Repairs",
        "per minute, log scale",
        (
            Curve("duplicates", "duplicates", "b", "per_minute"),
            Curve("retransmits", "retransmits", "d", "per_minute"),
            Curve("snapshots", "snapshots", "a", "per_minute"),
            Curve("conflicts", "conflicts", "f1", "per_minute"),
        ),
        scale="symlog",
        points_max=FEW_POINTS,
    ),
    Plot(
        "refused",
        "Lost and throttled",
        "per minute, log scale",
        (
            Curve("messages_lost", "messages lost", "f1", "per_minute"),
            Curve("throttled", "requests throttled", "f2", "per_minute"),
        ),
        scale="symlog",
        when_any=True,
        points_max=FEW_POINTS,
    ),
)
STORY: Final = (
    "online", "convergence", "backlog", "latency-up", "latency-down", "writes", "messages", "connections", "repairs",
    "refused",
)  # fmt: skip  # the run in time, as the page has it
_WAYS: Final = (("up", "device to cloud", "a"), ("down", "cloud to device", "b"))


@dataclass(frozen=True, slots=True)
class Drawing:
    """A plot for the page."""

    name: str
    title: str
    note: str
    legend: tuple[Key, ...]
    svg: str


def draw(result: RunResult, end_s: float) -> dict[str, Drawing]:
    """All plots that the run has values for, by name."""
    with style():
        return {
            one.name: Drawing(one.name, one.title, one.note, one.legend, svg_of(one.figure, one.name, one.title))
            for one in pictures(result, end_s)
        }


def pngs(result: RunResult, end_s: float) -> Iterator[tuple[str, bytes]]:
    """The same plots as PNG, on white: (name, file)."""
    with style():
        for one in pictures(result, end_s):
            yield one.name, png_of(one)


def pictures(result: RunResult, end_s: float) -> Iterator[Picture]:
    """To be used while `style` holds."""
    faults = result.faults
    if faults:
        yield _windows(faults, end_s)
    frame = frames.timeline(result.timeline, result.summary.devices)
    if len(frame) > 1:
        end_s = max(end_s, float(frame.index[-1]) + frames.step_s(frame))
        for plot in PLOTS:
            yield from _in_time(plot, frame, faults, end_s)
    for way, words, role in _WAYS:
        yield from _percentiles(result.slots, way, words, role, faults, end_s)
    for way, words, _ in _WAYS:
        yield from _distribution(result.phases, way, words)
    if len(frame) > 1:
        yield from _after_heals(frame, faults)


def _in_time(plot: Plot, frame: DataFrame, faults: Sequence[FaultWindow], end_s: float) -> Iterator[Picture]:
    curves = [curve for curve in plot.curves if curve.column in frame]
    shown = {curve.column for curve in curves if (frame[curve.column] > 0).any()}
    if not curves or (plot.when_any and not shown):
        return
    values = frames.folded(frame, {curve.column: curve.fold for curve in curves}, plot.points_max)
    figure, axes = figure_of()
    for curve in curves:
        if len(curves) > 1 and curve.column not in shown:
            continue
        colour, column = COLOURS[curve.role], values[curve.column]
        axes.plot(column.index, column, color=colour)
        if plot.filled:
            axes.fill_between(column.index, column, 0, color=colour, alpha=0.13, linewidth=0)
    value_axis(axes, plot.scale, percent_tick if plot.percent else count_tick, room=bool(bands(faults, end_s)))
    time_axis(axes, end_s)
    shade(axes, faults, end_s, recovery=plot.name == "convergence")
    legend = tuple(Key(curve.label, curve.role, shown=curve.column in shown) for curve in curves)
    if plot.name == "convergence" and any(fault.recovered_s is not None for fault in bands(faults, end_s)):
        legend += (Key("in step again after a fault", "muted", dashed=True),)
    yield Picture(plot.name, plot.title, plot.note, legend if len(legend) > 1 else (), figure)


_LINES: Final = (("p99", "p99", 1.0, 0.45), ("p90", "p90", 1.0, 0.75), ("p50", "median", 1.5, 1.0))


def _percentiles(
    slots: Sequence[LatencySlot], way: str, words: str, role: str, faults: Sequence[FaultWindow], end_s: float
) -> Iterator[Picture]:
    """Median and tail of each part of the run, the space between them tinted."""
    values = frames.percentiles(slots, way)
    values = values.where(values > 0)
    if not values.notna().any(axis=None):
        return
    figure, axes = figure_of()
    colour = COLOURS[role]
    # Each value stands for its whole part of the run, so the last one is drawn to the part's end.
    values.loc[end_s] = values.iloc[-1]
    axes.fill_between(values.index, values["p50"], values["p99"], color=colour, alpha=0.13, linewidth=0, step="post")
    for name, _, width, alpha in _LINES:
        axes.plot(values.index, values[name], color=colour, alpha=alpha, linewidth=width, drawstyle="steps-post")
    value_axis(axes, "log", seconds_tick, room=bool(bands(faults, end_s)))
    time_axis(axes, end_s)
    shade(axes, faults, end_s)
    legend = tuple(Key(label, role, alpha=alpha) for _, label, _, alpha in _LINES)
    yield Picture(f"latency-{way}", f"Latency {way}", f"{words}, log scale", legend, figure)


_PHASES: Final = {"before": ("before faults", "a"), "during": ("during", "f1"), "after": ("after", "c")}
_SHARES: Final = (1.0, 0.5, 0.1, 0.01, 0.001, 0.0001, 0.00001)


def _distribution(phases: Sequence[LatencyPhase], way: str, words: str) -> Iterator[Picture]:
    """How many took longer than so long, before, during and after faults."""
    from matplotlib.ticker import FuncFormatter

    known = [(phase, phase.up if way == "up" else phase.down) for phase in phases]
    known = [(phase, [(us, count) for us, count in counts if us > 0]) for phase, counts in known]
    known = [(phase, counts) for phase, counts in known if counts]
    if not known:
        return
    figure, axes = figure_of(bottom=0.26)
    least = min(1 / sum(count for _, count in counts) for _, counts in known)
    legend = []
    for phase, counts in known:
        label, role = _PHASES.get(phase.name, (printable(phase.name, 20), "d"))
        curve = frames.slower(counts)["share"]
        curve = curve.where(curve > 0, least / 2)
        axes.plot([curve.index[0], *curve.index], [1.0, *curve], color=COLOURS[role], drawstyle="steps-post",
                  linewidth=1.4)  # fmt: skip
        legend.append(Key(label, role))
    axes.set_xscale("log")
    axes.set_yscale("log")
    shares = [share for share in _SHARES if share >= least * 0.9]
    axes.set_yticks(shares, [percent_tick(share) for share in shares])
    axes.set_ylim(least * 0.8, 1.25)
    axes.minorticks_off()
    axes.xaxis.set_major_formatter(FuncFormatter(seconds_tick))
    axes.grid(axis="both")
    note = f"{words}: share of updates that took longer; log scales"
    yield Picture(f"distribution-{way}", f"Latency {way}", note, tuple(legend), figure)


def _after_heals(frame: DataFrame, faults: Sequence[FaultWindow]) -> Iterator[Picture]:
    """Changes waiting and devices in step since each heal. Of faults that are no event in the run, the last heals."""
    end_s = float(frame.index[-1]) + frames.step_s(frame)
    heals = frames.heals_of(bands(faults, end_s) or faults, HEALS_MAX)
    heals = [heal for heal in heals if heal[1] < end_s]
    if not heals:
        return
    width_s = frames.step_s(frame)
    longest = max([again - healed for _, healed, again in heals if again is not None], default=0.0)
    until_s = min(max(1.15 * longest, 12 * width_s), end_s - min(healed for _, healed, _ in heals))
    for column, name, title, note in (
        ("in_step", "recovery-devices", "Devices in step after each heal", "dot: nothing from before the heal waits"),
        ("waiting", "recovery-backlog", "Backlog after each heal", "changes waiting, log scale"),
    ):
        if column not in frame:
            continue
        curves = frames.recoveries(frame, [heal[:2] for heal in heals], column, until_s)
        if not curves.notna().any(axis=None):
            continue
        figure, axes = figure_of()
        for number, (_, healed, again) in enumerate(heals):
            if number not in curves:
                continue
            curve, colour = curves[number].dropna(), COLOURS[SERIES_ROLES[number]]
            axes.plot(curve.index, curve, color=colour)
            if column == "in_step" and again is not None and len(curve):
                at = curve.loc[curve.index >= again - healed]
                axes.plot([again - healed], [at.iloc[0] if len(at) else curve.iloc[-1]], marker="o", markersize=3.5,
                          color=colour)  # fmt: skip
        is_share = column == "in_step"
        value_axis(axes, "linear" if is_share else "symlog", percent_tick if is_share else count_tick, room=False)
        time_axis(axes, until_s)
        legend = tuple(Key(printable(name, 24), SERIES_ROLES[n]) for n, (name, _, _) in enumerate(heals))
        yield Picture(name, title, note, legend, figure)


def _windows(faults: Sequence[FaultWindow], end_s: float) -> Picture:
    """All faults as bars over time: solid while acting, pale until healed, a line until the fleet was in step."""
    shown = sorted(faults, key=lambda fault: (fault.start_s, fault.name))[:BARS_MAX]
    roles = band_roles(faults)
    figure, axes = figure_of(height_in=0.36 + 0.21 * len(shown), width_in=2 * WIDTH_IN, left=1.6, top=0.04)
    for index, fault in enumerate(shown):
        colour = COLOURS[roles[fault.kind]]
        least = end_s * 0.002  # so that a moment can be seen
        length = max(fault.end_s - fault.start_s, least)
        healed_s = fault.end_s if fault.healed_s is None else max(fault.healed_s, fault.end_s)
        _bar(axes, index, fault.start_s, length, colour, 0.8)
        if healed_s > fault.start_s + length:
            _bar(axes, index, fault.start_s + length, healed_s - fault.start_s - length, colour, 0.3)
        if fault.recovered_s is not None and fault.recovered_s > healed_s:
            axes.plot([healed_s, fault.recovered_s], [index, index], color=colour, linewidth=1.3)
            axes.plot([fault.recovered_s], [index], marker="o", markersize=3.5, color=colour)
    axes.set_yticks(range(len(shown)), [printable(fault.name, 26) for fault in shown])
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0, labelcolor=COLOURS["ink"])
    time_axis(axes, end_s)
    axes.grid(axis="x")
    return Picture("windows", "Faults over time", "", (), figure)


def _bar(axes: Any, row: int, left: float, width: float, colour: str, alpha: float) -> None:
    if math.isfinite(width):
        axes.barh(row, width, left=left, height=0.58, color=colour, alpha=alpha, linewidth=0)
