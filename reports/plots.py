"""The story of a run in time, as SVG by matplotlib: one small plot for each question, faults shaded and labelled.

Takes plain rows and gives text; matplotlib is imported only when a plot is drawn (it takes most of a second). Colours
are written as CSS variables with a fallback, so that one picture serves light, dark and print. Called by
`reports.html` and `reports.nights`.
"""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from reports.result import FaultWindow, Row
from reports.text import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

POINTS_MAX: Final = 480  # of one curve: a plot is about that many pixels wide
BANDS_MAX: Final = 12  # shaded windows on one plot; all are in the table of faults
_LONG_SHARE: Final = 0.5  # a fault that acts most of the time is the background of the run, no window in it

# Role -> colour in light. The style sheet gives the same roles in dark; every colour here must differ.
_COLOURS: Final = {
    "ink": "#1d2733",
    "muted": "#66717f",
    "grid": "#e3e7ec",
    "a": "#2468d8",
    "b": "#d9730d",
    "c": "#12876f",
    "d": "#8a4fd3",
    "f1": "#e0484f",
    "f2": "#e9a23b",
    "f3": "#7d8ce0",
    "f4": "#4aa8a0",
    "f5": "#b06fc0",
}
_BAND_ROLES: Final = ("f1", "f2", "f3", "f4", "f5")
Scale = Literal["linear", "symlog", "log"]
Fold = Literal["rate", "max", "min", "mean"]


@dataclass(frozen=True, slots=True)
class Curve:
    """One line: a column, its name in the legend, its colour's role, and how intervals are put together."""

    column: str
    label: str
    role: str
    fold: Fold


@dataclass(frozen=True, slots=True)
class Plot:
    name: str
    title: str
    note: str
    curves: tuple[Curve, ...]
    scale: Scale = "linear"
    filled: bool = False
    seconds: bool = False


PLOTS: Final = (
    Plot("online", "Devices online", "lowest in the interval", (Curve("online", "online", "a", "min"),), filled=True),
    Plot(
        "writes",
        "Writes and synced updates",
        "per second",
        (
            Curve("writes_device", "on devices", "a", "rate"),
            Curve("writes_cloud", "in the cloud", "b", "rate"),
            Curve("synced", "synced", "c", "rate"),
        ),
    ),
    Plot(
        "messages",
        "Messages",
        "per second",
        (
            Curve("messages_up", "up", "a", "rate"),
            Curve("messages_down", "down", "b", "rate"),
            Curve("messages_lost", "lost", "f1", "rate"),
            Curve("retransmits", "sent again", "d", "rate"),
        ),
    ),
    Plot(
        "backlog",
        "Backlog",
        "changes waiting",
        (Curve("outbox", "on devices (outbox)", "a", "max"), Curve("feed_lag", "in the cloud (feeds)", "b", "max")),
        filled=True,
    ),
    Plot(
        "convergence",
        "Convergence",
        "all changes waiting, log scale; dashed: in step again after a fault",
        (Curve("waiting", "waiting anywhere", "c", "max"),),
        scale="symlog",
        filled=True,
    ),
    Plot(
        "latency",
        "Latency",
        "of the interval, log scale",
        (
            Curve("up_p50_s", "up p50", "a", "mean"),
            Curve("up_p99_s", "up p99", "d", "max"),
            Curve("down_p50_s", "down p50", "b", "mean"),
            Curve("down_p99_s", "down p99", "f1", "max"),
        ),
        scale="log",
        seconds=True,
    ),
    Plot(
        "connections",
        "Connects and disconnects",
        "per second",
        (Curve("connects", "connects", "c", "rate"), Curve("disconnects", "disconnects", "f1", "rate")),
    ),
)


@dataclass(frozen=True, slots=True)
class Drawing:
    name: str
    title: str
    note: str
    svg: str


def draw(timeline: Sequence[Row], faults: Sequence[FaultWindow], end_s: float) -> list[Drawing]:
    """The plots that `timeline` has columns for. Nothing for fewer than two rows."""
    if len(timeline) < 2:
        return []
    step_s = max(1e-9, timeline[1].get("t_s", 0) - timeline[0].get("t_s", 0))
    end_s = max(end_s, timeline[-1].get("t_s", 0) + step_s)
    rows = _with_waiting(timeline)
    columns = {name for row in rows for name in row}
    drawings = []
    for plot in PLOTS:
        curves = [curve for curve in plot.curves if curve.column in columns]
        if not curves or (plot.scale == "log" and not _any_positive(rows, curves)):
            continue
        with _style():
            svg = _draw_one(plot, curves, rows, faults, step_s, end_s)
        drawings.append(Drawing(plot.name, plot.title, plot.note, svg))
    return drawings


def draw_windows(faults: Sequence[FaultWindow], end_s: float) -> str:
    """All faults as bars over time: solid while acting, hatched until healed, a line until the fleet was in step."""
    with _style():
        return _draw_bars(faults, end_s)


def _draw_bars(faults: Sequence[FaultWindow], end_s: float) -> str:
    shown = sorted(faults, key=lambda fault: (fault.start_s, fault.name))[:40]
    roles = band_roles(faults)
    figure, axes = _figure(height_in=0.42 + 0.25 * len(shown), width_in=12.6, left=1.75, right=0.12, top=0.06)
    for index, fault in enumerate(shown):
        colour = _COLOURS[roles[fault.kind]]
        least = end_s * 0.002  # so that a moment can be seen
        length = max(fault.end_s - fault.start_s, least)
        healed_s = fault.end_s if fault.healed_s is None else max(fault.healed_s, fault.end_s)
        axes.barh(index, length, left=fault.start_s, height=0.62, color=colour, linewidth=0)
        if healed_s > fault.start_s + length:
            left = fault.start_s + length
            axes.barh(index, healed_s - left, left=left, height=0.62, color=colour, alpha=0.35, linewidth=0)
        if fault.recovered_s is not None and fault.recovered_s > healed_s:
            axes.plot([healed_s, fault.recovered_s], [index, index], color=colour, linewidth=1.4)
            axes.plot([fault.recovered_s], [index], marker="o", markersize=4, color=colour)
    axes.set_yticks(range(len(shown)), [printable(fault.name, 26) for fault in shown])
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0, labelcolor=_COLOURS["ink"])
    _time_axis(axes, end_s)
    axes.grid(axis="x")
    return _svg(figure, "windows", "Faults over time")


@dataclass(frozen=True, slots=True)
class Panel:
    """One of several small plots above each other. `curves`: role of the colour -> a value for each place."""

    title: str
    curves: dict[str, Sequence[float]]


def draw_panels(name: str, title: str, places: Sequence[int], panels: Sequence[Panel]) -> str:
    """Curves over numbered places, such as nights, with zero at the foot of each panel."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    with _style():
        figure = Figure(figsize=(9.0, 1.5 * len(panels) + 0.3), layout="constrained")
        grid = figure.subplots(len(panels), 1, sharex=True, squeeze=False)
        for axes, panel in zip(grid[:, 0], panels, strict=True):
            for role, values in panel.curves.items():
                axes.plot(places, values, color=_COLOURS[role], linewidth=1.25, marker="o", markersize=2.5)
            axes.set_title(panel.title, loc="left", fontsize=8, color=_COLOURS["ink"])
            axes.set_ylim(bottom=0, top=max(1.0, 1.1 * axes.get_ylim()[1]))
            axes.yaxis.set_major_formatter(FuncFormatter(_count_tick))
            axes.grid(axis="y")
        grid[-1, 0].xaxis.set_major_locator(MaxNLocator(integer=True))
        return _svg(figure, name, title)


def band_roles(faults: Sequence[FaultWindow]) -> dict[str, str]:
    """Kind of fault -> role of its colour, in the order in which the kinds first acted."""
    kinds: dict[str, str] = {}
    for fault in sorted(faults, key=lambda fault: (fault.start_s, fault.name)):
        kinds.setdefault(fault.kind, _BAND_ROLES[len(kinds) % len(_BAND_ROLES)])
    return kinds


def bands(faults: Sequence[FaultWindow], end_s: float) -> list[FaultWindow]:
    """The windows to shade: not those that last most of the run, and the longest when there are too many."""
    short = [fault for fault in faults if fault.end_s - fault.start_s < _LONG_SHARE * end_s]
    longest = sorted(short, key=lambda fault: (fault.start_s - fault.end_s, fault.start_s, fault.name))[:BANDS_MAX]
    return sorted(longest, key=lambda fault: (fault.start_s, fault.name))


def _with_waiting(timeline: Sequence[Row]) -> list[Row]:
    """Rows with the sum of both backlogs, where there is any."""
    if not any("outbox" in row or "feed_lag" in row for row in timeline):
        return list(timeline)
    return [{**row, "waiting": row.get("outbox", 0) + row.get("feed_lag", 0)} for row in timeline]


def _any_positive(rows: Sequence[Row], curves: Sequence[Curve]) -> bool:
    return any(row.get(curve.column, 0) > 0 for row in rows for curve in curves)


def series(rows: Sequence[Row], curve: Curve, step_s: float) -> tuple[list[float], list[float]]:
    """Times and values of one curve in at most POINTS_MAX points. Missing values are gaps (NaN), not zeros."""
    width = max(1, math.ceil(len(rows) / POINTS_MAX))
    times: list[float] = []
    values: list[float] = []
    for start in range(0, len(rows), width):
        part = rows[start : start + width]
        known = [float(row[curve.column]) for row in part if curve.column in row]
        known = [value for value in known if math.isfinite(value)]
        times.append(float(part[0].get("t_s", start * step_s)))
        if not known:
            values.append(math.nan)
        elif curve.fold == "rate":
            values.append(math.fsum(known) / (len(known) * step_s))
        elif curve.fold == "mean":
            values.append(math.fsum(known) / len(known))
        else:
            values.append(max(known) if curve.fold == "max" else min(known))
    return times, values


def _draw_one(
    plot: Plot,
    curves: Sequence[Curve],
    rows: Sequence[Row],
    faults: Sequence[FaultWindow],
    step_s: float,
    end_s: float,
) -> str:
    from matplotlib.ticker import FuncFormatter

    figure, axes = _figure(height_in=2.35, width_in=6.2, left=0.62, right=0.12, top=0.26)
    for curve in curves:
        times, values = series(rows, curve, step_s)
        if plot.scale == "log":
            values = [value if value > 0 else math.nan for value in values]
        colour = _COLOURS[curve.role]
        axes.plot(times, values, color=colour, linewidth=1.25, label=curve.label, solid_joinstyle="round")
        if plot.filled:
            axes.fill_between(times, values, 0, color=colour, alpha=0.14, linewidth=0)
    if plot.scale == "symlog":
        axes.set_yscale("symlog", linthresh=1, linscale=0.4)
    elif plot.scale == "log":
        axes.set_yscale("log")
    if plot.scale != "log":
        axes.set_ylim(bottom=0, top=max(1.0, axes.get_ylim()[1]))
    if bands(faults, end_s):
        _make_room(axes, plot.scale)
    axes.minorticks_off()
    axes.yaxis.set_major_formatter(FuncFormatter(_seconds_tick if plot.seconds else _count_tick))
    _time_axis(axes, end_s)
    axes.grid(axis="y")
    _shade(axes, faults, end_s, recovery=plot.name == "convergence")
    if len(curves) > 1:
        axes.legend(loc="lower right", bbox_to_anchor=(1.01, 1.0), ncols=len(curves), frameon=False, borderaxespad=0.1,
                    handlelength=1.1, columnspacing=1.1, handletextpad=0.45)  # fmt: skip
    return _svg(figure, plot.name, plot.title)


def _shade(axes: Axes, faults: Sequence[FaultWindow], end_s: float, *, recovery: bool) -> None:
    """Bands behind the curves, each labelled inside the top edge; labels that would meet go on rows of their own."""
    roles = band_roles(faults)
    free_from = [-math.inf] * 3
    low, high = 0.0, end_s
    for fault in bands(faults, end_s):
        colour = _COLOURS[roles[fault.kind]]
        until_s = max(fault.end_s, fault.start_s + end_s * 0.004)  # so that a moment can be seen
        axes.axvspan(fault.start_s, until_s, color=colour, alpha=0.17 if fault.end_s == until_s else 0.6, linewidth=0)
        if recovery and fault.recovered_s is not None:
            axes.axvline(fault.recovered_s, color=colour, linewidth=1.0, linestyle=(0, (3, 2)))
        label = printable(fault.name, 20)
        width = end_s * (0.0125 * len(label) + 0.012)  # of an average letter at this size
        left = min(max(low, fault.start_s + end_s * 0.004), high - width)
        row = next((row for row, taken in enumerate(free_from) if left >= taken), None)
        if row is None:
            continue  # no room: the plot of all windows names it
        free_from[row] = left + width
        axes.annotate(label, xy=(left, 1.0), xycoords=("data", "axes fraction"), xytext=(0, -2.5 - 8.8 * row),
                      textcoords="offset points", va="top", ha="left", fontsize=7, color=_COLOURS["muted"],
                      annotation_clip=False)  # fmt: skip


def _make_room(axes: Axes, scale: Scale) -> None:
    """Leaves the top fifth of the plot to the labels of the faults."""
    low, high = axes.get_ylim()
    if scale == "linear":
        axes.set_ylim(low, low + (high - low) * 1.2)
    else:  # on a log axis a fifth of the height is a power of the span
        axes.set_ylim(low, high * (high / max(low, 1.0 if scale == "symlog" else low)) ** 0.25)


def _count_tick(value: float, _position: int | None) -> str:
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:.3g}{unit}"
    return f"{value:.3g}"


def _seconds_tick(value: float, _position: int | None) -> str:
    if value < 0.9995e-3:
        return f"{value * 1e6:.3g} µs"
    if value < 0.9995:
        return f"{value * 1e3:.3g} ms"
    return f"{value:.3g} s" if value < 999.5 else f"{value:,.0f} s"


_STEPS_S: Final = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400)


def _time_axis(axes: Axes, end_s: float) -> None:
    """Ticks at round times since the scenario's start, at most nine."""
    step_s = next((step for step in _STEPS_S if end_s / step <= 9), 86400 * max(1, math.ceil(end_s / 86400 / 9)))
    unit, name = (3600, "h") if step_s >= 3600 else (60, "min") if step_s >= 60 else (1, "s")
    ticks = [i * step_s for i in range(int(end_s / step_s) + 1)]
    axes.set_xlim(0, end_s)
    axes.set_xticks(ticks, [f"{tick / unit:g} {name}" if tick else "0" for tick in ticks])
    for tick, label in zip(ticks, axes.get_xticklabels(), strict=True):
        if tick > 0.97 * end_s:
            label.set_horizontalalignment("right")  # else it would stick out


def _style() -> AbstractContextManager[None]:
    """How all plots look. It must hold while anything is drawn: the library reads it whenever it makes a text."""
    from matplotlib import rc_context

    muted = _COLOURS["muted"]
    settings: dict[Any, Any] = {
        "text.parse_math": False,  # a `$` in a name is a letter, not a formula
        "svg.fonttype": "none",  # text stays text
        "font.family": ["DejaVu Sans"],
        "font.size": 8,
        "text.color": _COLOURS["ink"],
        "axes.edgecolor": _COLOURS["grid"],
        "xtick.color": _COLOURS["grid"],
        "ytick.color": _COLOURS["grid"],
        "xtick.labelcolor": muted,
        "ytick.labelcolor": muted,
        "legend.labelcolor": muted,
        "grid.color": _COLOURS["grid"],
        "grid.linewidth": 0.7,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.spines.left": False,
        "axes.axisbelow": True,
        "axes.facecolor": "none",
        "figure.facecolor": "none",
        "ytick.major.size": 0,
        "xtick.major.size": 2.5,
    }
    return rc_context(settings)


def _figure(height_in: float, width_in: float, left: float, right: float, top: float) -> tuple[Figure, Axes]:
    """An empty figure with margins in inches and no frame but the time axis. No pyplot: it keeps global state."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width_in, height_in))
    inner = (1 - (left + right) / width_in, 1 - (0.28 + top) / height_in)
    return figure, figure.add_axes((left / width_in, 0.28 / height_in, *inner))


_ID: Final = re.compile(r'(id="|url\(#|xlink:href="#)')
_HEAD: Final = re.compile(r"^.*?(?=<svg)", re.DOTALL)
_METADATA: Final = re.compile(r"<metadata>.*?</metadata>", re.DOTALL)
_SIZE: Final = re.compile(r'<svg ([^>]*?)(width|height)="[^"]*" ([^>]*?)(width|height)="[^"]*"')
_HEX: Final = re.compile(r"#[0-9a-f]{6}\b")
_COMMENT: Final = re.compile(r"<!--.*?-->\s*", re.DOTALL)
_ROLE_OF: Final = {colour: role for role, colour in _COLOURS.items()}


def _svg(figure: Figure, name: str, title: str) -> str:
    """The figure as an `<svg>` element for a page: scalable, ids of its own, colours by role, text as text."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    out = io.StringIO()
    with rc_context({"svg.hashsalt": name}), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a letter that the font lacks: the browser has its own fonts
        canvas: Any = FigureCanvasSVG(figure)  # untyped in the library
        canvas.print_svg(out, metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = _METADATA.sub("", _COMMENT.sub("", _HEAD.sub("", out.getvalue())))
    text = _SIZE.sub(rf'<svg class="plot" role="img" aria-label="{title}" \1\3', text, count=1)
    text = _ID.sub(rf"\1{name}-", text)
    return _HEX.sub(_variable, text)


def _variable(match: re.Match[str]) -> str:
    role = _ROLE_OF.get(match.group())
    return f"var(--{role}, {match.group()})" if role else match.group()
