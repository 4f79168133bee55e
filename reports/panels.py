"""Several small plots above each other, over numbered places such as nights. Called by `reports.nights`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from reports.drawing import COLOURS, count_tick, style, svg_of


@dataclass(frozen=True, slots=True)
class Panel:
    """`curves`: role of the colour -> a value for each place."""

    title: str
    curves: dict[str, Sequence[float]]


def draw_panels(name: str, title: str, places: Sequence[int], panels: Sequence[Panel]) -> str:
    """As SVG, with zero at the foot of each panel."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    with style():
        figure = Figure(figsize=(9.0, 1.5 * len(panels) + 0.3), layout="constrained")
        grid = figure.subplots(len(panels), 1, sharex=True, squeeze=False)
        for axes, panel in zip(grid[:, 0], panels, strict=True):
            for role, values in panel.curves.items():
                axes.plot(places, values, color=COLOURS[role], linewidth=1.25, marker="o", markersize=2.5)
            axes.set_title(panel.title, loc="left", fontsize=8, color=COLOURS["ink"])
            axes.set_ylim(bottom=0, top=max(1.0, 1.1 * axes.get_ylim()[1]))
            axes.yaxis.set_major_formatter(FuncFormatter(count_tick))
            axes.grid(axis="y")
        grid[-1, 0].xaxis.set_major_locator(MaxNLocator(integer=True))
        return svg_of(figure, name, title)
