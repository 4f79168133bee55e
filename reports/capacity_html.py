"""`capacity.html`: a capacity plan on one page that opens offline, in light, dark and print.

The tables are those of the terminal; two plots beside them: how the fleet comes back under each back-off setting, and
how near each quota is at each size. Called by the command `fleet capacity`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from reports.capacity import BackOff, Capacity
from reports.capacity_text import SOURCES_NOTE, best_text, floor_text, name_text, near_quotas, tables
from reports.drawing import (
    COLOURS,
    SERIES_ROLES,
    Key,
    count_tick,
    figure_of,
    percent_tick,
    style,
    svg_of,
    time_axis,
    value_axis,
)
from reports.html import template
from reports.plots import Drawing
from reports.quota_text import by_need
from reports.quotas import Quotas
from reports.sections import Column, Section, Table
from reports.text import number_text, printable

CURVES_MAX: Final = 4
_LABELS: Final = ("as configured", "no jitter", "full jitter, same cap")


def render(plan: Capacity) -> str:
    """The page; without the extra `report` it has no plots."""
    sections = []
    for title, table in tables(plan):
        name = title.lower().replace(" ", "-").replace("-", "")
        intro = best_text(plan) if title == "BACK-OFF" else ""
        sections.append(Section(name, title.capitalize(), intro, [table], _drawn(plan, title)))
    sections.append(Section("limits", "Limits", SOURCES_NOTE, [_limits(plan)]))
    return template("capacity.html.jinja").render(
        plan=plan,
        floor=floor_text(plan),
        sections=sections,
        marks={},
        rows_max=200,
    )


def _limits(plan: Capacity) -> Table:
    columns = [Column("Quota"), Column("Per"), Column("Limit", True), Column("Unit"), Column("Source")]
    uses = by_need(Quotas(uses=list(plan.quotas)))
    rows = [
        [name_text(use.name), use.per, number_text(use.limit) if use.limit else "none", use.unit, use.source]
        for use in uses
    ]
    return Table(columns, rows)


def _drawn(plan: Capacity, title: str) -> Sequence[Drawing]:
    try:
        if title == "BACK-OFF":
            return [_recovery(plan)]
        if title == "QUOTAS" and len(plan.rows) > 1 and near_quotas(plan):
            return [_shares(plan)]
    except ModuleNotFoundError as missing:
        if (missing.name or "").split(".")[0] not in ("matplotlib", "numpy"):
            raise
    return []


def told_apart(plan: Capacity) -> list[BackOff]:
    """The curves worth a look: what is, what it would be without or with jitter, and the best."""
    chosen = [plan.back_offs[0]] if plan.back_offs else []
    chosen += [one for one in plan.back_offs[1:] if one.label in _LABELS]
    return chosen[:CURVES_MAX]


def _recovery(plan: Capacity) -> Drawing:
    curves = told_apart(plan)
    end_s = max([plan.floor_s * 4, *((one.back_95_s or 0.0) * 1.1 for one in curves)])
    last_s = max(point[0] for one in curves for point in one.curve)
    end_s = max(1.0, min(end_s, last_s))
    with style():
        figure, axes = figure_of()
        for one, role in zip(curves, SERIES_ROLES, strict=False):
            points = [point for point in one.curve if point[0] <= end_s]
            axes.step([x for x, _ in points], [y for _, y in points], where="post", color=COLOURS[role])
        axes.axvline(plan.floor_s, color=COLOURS["muted"], linewidth=1.0, linestyle=(0, (3, 2)))
        time_axis(axes, end_s)
        value_axis(axes, "linear", percent_tick, room=False)
        svg = svg_of(figure, "recovery", "Connections back")
    keys = [Key(printable(one.label, 80), role) for one, role in zip(curves, SERIES_ROLES, strict=False)]
    keys.append(Key("floor", "muted", dashed=True))
    note = "share of the connections lost, since the fault's end"
    return Drawing(name="recovery", title="Connections back", note=note, legend=tuple(keys), svg=svg)


def _shares(plan: Capacity) -> Drawing:
    names = near_quotas(plan)[: len(SERIES_ROLES)]
    with style():
        figure, axes = figure_of()
        sizes = [row.devices for row in plan.rows]
        for name, role in zip(names, SERIES_ROLES, strict=False):
            axes.plot(sizes, [row.shares.get(name, 0.0) for row in plan.rows], color=COLOURS[role], marker=".")
        axes.axhline(1.0, color=COLOURS["muted"], linewidth=1.0, linestyle=(0, (3, 2)))
        axes.set_xscale("log")
        _ticks(axes, sizes)
        value_axis(axes, "log", _share_tick, room=False)
        svg = svg_of(figure, "shares", "Peak of each quota")
    keys = [Key(name_text(name), role) for name, role in zip(names, SERIES_ROLES, strict=False)]
    keys.append(Key("the limit", "muted", dashed=True))
    return Drawing(name="shares", title="Peak of each quota", note="over its limit", legend=tuple(keys), svg=svg)


def _share_tick(value: float, _position: int | None = None) -> str:
    return f"{100 * value:,.0f} %" if value >= 0.1 else f"{100 * value:.3g} %"


def _ticks(axes: Any, sizes: Sequence[int]) -> None:
    from matplotlib.ticker import NullLocator

    axes.set_xticks(list(sizes), [count_tick(size) for size in sizes])
    axes.xaxis.set_minor_locator(NullLocator())
