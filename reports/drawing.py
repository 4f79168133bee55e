"""How all plots look, and how they become text or pictures: style, axes, fault windows behind curves, SVG and PNG.

matplotlib is imported only when something is drawn. An SVG has its colours as CSS variables with a fallback, so that
one picture serves light, dark and print, its text as text, and neither dates nor chance: the same values give the same
bytes. Called by `reports.plots`.
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

from reports.result import FaultWindow
from reports.text import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BANDS_MAX: Final = 12  # shaded windows on one plot; all are in the table of faults
WIDTH_IN, HEIGHT_IN = 5.4, 2.0
# A fault that acts for a larger share of the run is its background, no window in it; where that leaves none, the next.
_LONG_SHARES: Final = (0.5, 0.8)

# Role -> colour in light. The style sheet gives the same roles in dark; every colour here must differ.
COLOURS: Final = {
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
BAND_ROLES: Final = ("f1", "f2", "f3", "f4", "f5")
SERIES_ROLES: Final = ("a", "b", "c", "d", "f1", "f4")
Scale = Literal["linear", "symlog", "log"]


@dataclass(frozen=True, slots=True)
class Key:
    """One entry of a legend. `shown` False: there is nothing of it to be seen."""

    label: str
    role: str
    dashed: bool = False
    shown: bool = True
    alpha: float = 1.0


@dataclass(frozen=True, slots=True)
class Picture:
    """A plot that is drawn. The legend is not in it: the page has it beside the title."""

    name: str
    title: str
    note: str
    legend: tuple[Key, ...]
    figure: Figure


def style() -> AbstractContextManager[None]:
    """How all plots look. It must hold while anything is drawn: the library reads it whenever it makes a text."""
    from matplotlib import rc_context

    muted = COLOURS["muted"]
    settings: dict[Any, Any] = {
        "text.parse_math": False,  # a `$` in a name is a letter, not a formula
        "svg.fonttype": "none",  # text stays text
        "font.family": ["DejaVu Sans"],
        "font.size": 7.6,
        "text.color": COLOURS["ink"],
        "axes.edgecolor": COLOURS["grid"],
        "xtick.color": COLOURS["grid"],
        "ytick.color": COLOURS["grid"],
        "xtick.labelcolor": muted,
        "ytick.labelcolor": muted,
        "legend.labelcolor": muted,
        "grid.color": COLOURS["grid"],
        "grid.linewidth": 0.7,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.spines.left": False,
        "axes.axisbelow": True,
        "axes.facecolor": "none",
        "figure.facecolor": "none",
        "ytick.major.size": 0,
        "xtick.major.size": 2.5,
        "lines.linewidth": 1.2,
        "lines.solid_joinstyle": "round",
    }
    return rc_context(settings)


def figure_of(
    height_in: float = HEIGHT_IN,
    width_in: float = WIDTH_IN,
    left: float = 0.6,
    right: float = 0.1,
    top: float = 0.1,
    bottom: float = 0.24,
) -> tuple[Figure, Axes]:
    """An empty figure with margins in inches and no frame but the lower axis. No pyplot: it keeps global state."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width_in, height_in))
    inner = (1 - (left + right) / width_in, 1 - (bottom + top) / height_in)
    return figure, figure.add_axes((left / width_in, bottom / height_in, *inner))


# Axes.


def count_tick(value: float, _position: int | None = None) -> str:
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:.3g}{unit}"
    return f"{value:.3g}"


def percent_tick(value: float, _position: int | None = None) -> str:
    return f"{100 * value:.4g} %"


def seconds_tick(value: float, _position: int | None = None) -> str:
    if value < 0.9995e-3:
        return f"{value * 1e6:.3g} µs"
    if value < 0.9995:
        return f"{value * 1e3:.3g} ms"
    return f"{value:.3g} s" if value < 999.5 else f"{value:,.0f} s"


_STEPS_S: Final = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400)
_TICKS_MAX: Final = 8


def time_axis(axes: Axes, end_s: float) -> None:
    """Ticks at round times, at most eight."""
    step_s = next(
        (step for step in _STEPS_S if end_s / step <= _TICKS_MAX), 86400 * max(1, math.ceil(end_s / 86400 / _TICKS_MAX))
    )
    unit, name = (3600, "h") if step_s >= 3600 else (60, "min") if step_s >= 60 else (1, "s")
    ticks = [i * step_s for i in range(int(end_s / step_s) + 1)]
    axes.set_xlim(0, end_s)
    axes.set_xticks(ticks, [f"{tick / unit:g} {name}" if tick else "0" for tick in ticks])
    for tick, label in zip(ticks, axes.get_xticklabels(), strict=True):
        if tick > 0.96 * end_s:
            label.set_horizontalalignment("right")  # else it would stick out


def value_axis(axes: Axes, scale: Scale, tick: Any, *, room: bool) -> None:
    """The upright axis: from 0 unless it is logarithmic. `room`: the top fifth is left to the labels of faults."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    if scale == "symlog":
        axes.set_yscale("symlog", linthresh=1, linscale=0.4)
    elif scale == "log":
        axes.set_yscale("log")
    else:
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    if scale != "log":
        axes.set_ylim(bottom=0, top=1.0 if tick is percent_tick else max(1.0, axes.get_ylim()[1]))
    if tick is percent_tick:
        axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
    if room:
        low, high = axes.get_ylim()
        if scale == "linear":
            axes.set_ylim(low, low + (high - low) * 1.2)
        else:  # on a log axis a fifth of the height is a power of the span
            axes.set_ylim(low, high * (high / max(low, 1.0 if scale == "symlog" else low)) ** 0.25)
    axes.minorticks_off()
    axes.yaxis.set_major_formatter(FuncFormatter(tick))
    axes.grid(axis="y")


# Faults behind the curves.


def band_roles(faults: Sequence[FaultWindow]) -> dict[str, str]:
    """Kind of fault -> role of its colour, in the order in which the kinds first acted."""
    kinds: dict[str, str] = {}
    for fault in sorted(faults, key=lambda fault: (fault.start_s, fault.name)):
        kinds.setdefault(fault.kind, BAND_ROLES[len(kinds) % len(BAND_ROLES)])
    return kinds


def bands(faults: Sequence[FaultWindow], end_s: float) -> list[FaultWindow]:
    """The windows to shade: not those that last most of the run, and the longest when there are too many."""
    by_share = ([one for one in faults if one.end_s - one.start_s < share * end_s] for share in _LONG_SHARES)
    short: list[FaultWindow] = next((found for found in by_share if found), [])
    longest = sorted(short, key=lambda fault: (fault.start_s - fault.end_s, fault.start_s, fault.name))[:BANDS_MAX]
    return sorted(longest, key=lambda fault: (fault.start_s, fault.name))


def shade(axes: Axes, faults: Sequence[FaultWindow], end_s: float, *, recovery: bool = False) -> None:
    """Bands behind the curves, each labelled inside the top edge; labels that would meet go on rows of their own.
    `recovery`: a dashed line where the fleet was in step again."""
    roles = band_roles(faults)
    free_from = [-math.inf] * 3
    for fault in bands(faults, end_s):
        colour = COLOURS[roles[fault.kind]]
        until_s = max(fault.end_s, fault.start_s + end_s * 0.004)  # so that a moment can be seen
        axes.axvspan(fault.start_s, until_s, color=colour, alpha=0.15 if fault.end_s == until_s else 0.6, linewidth=0)
        if recovery and fault.recovered_s is not None:
            axes.axvline(fault.recovered_s, color=colour, linewidth=1.0, linestyle=(0, (3, 2)))
        label = printable(fault.name, 20)
        width = end_s * (0.0135 * len(label) + 0.012)  # of an average letter at this size
        left = max(0.0, min(fault.start_s + end_s * 0.006, end_s - width))
        row = next((row for row, taken in enumerate(free_from) if left >= taken), None)
        if row is None:
            continue  # no room: the plot of all windows names it
        free_from[row] = left + width
        axes.annotate(label, xy=(left, 1.0), xycoords=("data", "axes fraction"), xytext=(0, -2.5 - 8.8 * row),
                      textcoords="offset points", va="top", ha="left", fontsize=6.8, color=COLOURS["muted"],
                      annotation_clip=False)  # fmt: skip


# What becomes of a figure.

_ID: Final = re.compile(r'(id="|url\(#|xlink:href="#)')
_HEAD: Final = re.compile(r"^.*?(?=<svg)", re.DOTALL)
_METADATA: Final = re.compile(r"<metadata>.*?</metadata>", re.DOTALL)
_SIZE: Final = re.compile(r'<svg ([^>]*?)(width|height)="[^"]*" ([^>]*?)(width|height)="[^"]*"')
_HEX: Final = re.compile(r"#[0-9a-f]{6}\b")
_COMMENT: Final = re.compile(r"<!--.*?-->\s*", re.DOTALL)
_DIGITS: Final = re.compile(r"(?<=\d\.\d\d)\d+")
_PATH: Final = re.compile(r'(?<= d=")[^"]*')
_ROLE_OF: Final = {colour: role for role, colour in COLOURS.items()}


def svg_of(figure: Figure, name: str, title: str) -> str:
    """The figure as an `<svg>` element for a page: scalable, ids of its own, colours by role, text as text. `name` and
    `title` are the program's own words, never a scenario's."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    out = io.StringIO()
    with rc_context({"svg.hashsalt": name}), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a letter that the font lacks: the browser has its own fonts
        canvas: Any = FigureCanvasSVG(figure)  # untyped in the library
        canvas.print_svg(out, metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = _METADATA.sub("", _COMMENT.sub("", _HEAD.sub("", out.getvalue())))
    text = _SIZE.sub(rf'<svg class="plot" role="img" aria-label="{title}" \1\3', text, count=1)
    text = _PATH.sub(lambda match: _DIGITS.sub("", match.group()), text)  # a hundredth of a point cannot be seen
    text = _ID.sub(rf"\1{name}-", text)
    return _HEX.sub(_variable, text)


def _variable(match: re.Match[str]) -> str:
    role = _ROLE_OF.get(match.group())
    return f"var(--{role}, {match.group()})" if role else match.group()


def png_of(picture: Picture, dots_per_inch: int = 160) -> bytes:
    """The picture with its title and legend, on white."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.lines import Line2D

    figure = picture.figure
    width, height = figure.get_size_inches()
    head_in = 0.5
    figure.set_size_inches(width, height + head_in)
    for axes in figure.axes:
        place = axes.get_position()
        share = height / (height + head_in)
        axes.set_position((place.x0, place.y0 * share, place.width, place.height * share))
    top = 1 - 0.06 / (height + head_in)
    figure.text(0.012, top, picture.title, va="top", fontsize=9.5, weight="bold", color=COLOURS["ink"])
    lines = [
        Line2D(
            [],
            [],
            color=COLOURS[key.role],
            alpha=key.alpha,
            linestyle=(0, (3, 2)) if key.dashed else "-",
            label=key.label,
        )
        for key in picture.legend
        if key.shown
    ]
    if lines:
        figure.legend(handles=lines, loc="upper left", bbox_to_anchor=(0.004, top - 0.17 / (height + head_in)),
                      ncols=len(lines), frameon=False, handlelength=1.1, columnspacing=1.1)  # fmt: skip
    out = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        FigureCanvasAgg(figure)
        figure.savefig(out, format="png", dpi=dots_per_inch, facecolor="white", metadata={"Software": None})
    return out.getvalue()
