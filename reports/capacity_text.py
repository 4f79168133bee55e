"""A capacity plan for people and spreadsheets: tables of the terminal (100 columns) and of the page, and a CSV file.

Values in, texts out: the terminal and the page show the same tables. Called by the command and by
reports.capacity_html.
"""

from __future__ import annotations

import csv
import io
import textwrap
from collections.abc import Sequence
from typing import Final

from rich.text import Text

from reports.capacity import FIGURES, BackOff, Capacity, Compared, Figure, SizeRow
from reports.cost import CostItem
from reports.quota_text import MARKS_TOLD
from reports.sections import Column, Table
from reports.tables import safe_cell
from reports.text import clock_text, number_text, printable, seconds_text

WIDTH: Final = 100
ABOUT: Final = "~"  # before a figure that was not simulated
_CELL_MAX: Final = 120  # letters of a name
_NOTE_MAX: Final = 400
_WORDS: Final = {"connect_cap": "cap of the agent's back-off"}


def count_text(value: float) -> str:
    """Four digits and a unit at most: `0.25`, `812`, `12.4 k`, `3.02 M`."""
    for limit, unit in ((1e9, " G"), (1e6, " M"), (1e4, " k")):
        if abs(value) >= limit:
            return f"{value / (limit if unit != ' k' else 1e3):.3g}{unit}"
    return number_text(round(value)) if value >= 100 else f"{value:.3g}"


def money_text(dollars: float) -> str:
    return f"${dollars:,.2f}" if dollars < 1_000 else f"${dollars:,.0f}"


def figure_text(figure: Figure) -> str:
    return f"{ABOUT if figure.model else ''}{count_text(figure.value)}"


def name_text(name: str) -> str:
    return printable(_WORDS.get(name, name.removesuffix("_per_s").replace("_", " ")), _CELL_MAX)


def near_quotas(plan: Capacity) -> list[str]:
    """Names of the quotas that any size comes within a tenth of, the nearest first."""
    peaks = {use.name: max((row.shares.get(use.name, 0.0) for row in plan.rows), default=0.0) for use in plan.quotas}
    return sorted((name for name, peak in peaks.items() if peak >= 0.1), key=lambda name: (-peaks[name], name))


def sizes_table(plan: Capacity) -> Table:
    """A row a figure, a column a size."""
    rows: list[list[str]] = [["simulated", *(_how(row) for row in plan.rows)]]
    for name, (unit, words) in FIGURES.items():
        rows.append([f"{words}, {unit}", *(figure_text(row.figures[name]) for row in plan.rows)])
    return Table(
        _columns(plan, "Load"), rows, f"{ABOUT}: drawn through parts of the fleet that were simulated, see below."
    )


def quotas_table(plan: Capacity) -> Table:
    """Peak over limit, and what happened there."""
    rows = []
    for name in near_quotas(plan):
        rows.append([name_text(name), *(_share(row, name) for row in plan.rows)])
    return Table(_columns(plan, "Peak of the quota"), rows, "×: it said no, so often.")


def recovery_table(plan: Capacity) -> Table:
    rows = [
        ["floor: lost / rate", *(_of(row, "floor_s") for row in plan.rows)],
        ["50 % back", *(_of(row, "back_50_s") for row in plan.rows)],
        ["95 % back", *(_of(row, "back_95_s") for row in plan.rows)],
        ["99 % back", *(_of(row, "back_99_s") for row in plan.rows)],
        ["all equal again", *(_or_never(row.converged_after_s) for row in plan.rows)],
        ["verdict of the run", *(row.verdict for row in plan.rows)],
    ]
    sizes = ", ".join(f"{size:,}" for size in plan.coarse)
    note = f"Coarse at {sizes}: the part that stands for it may connect less than once a second." if sizes else ""
    return Table(_columns(plan, "After the outage"), rows, note)


def cost_table(plan: Capacity) -> Table | None:
    if not plan.rows or not plan.rows[0].cost:
        return None
    rows = []
    for index, item in enumerate(plan.rows[0].cost):
        rows.append([item.item, *(_dollars(row.cost[index]) for row in plan.rows)])
    rows.append(["in all", *("–" if row.dollars is None else money_text(row.dollars) for row in plan.rows)])
    whose = plan.prices or "no price is known here: --price hub_unit=DOLLARS gives what a unit costs a month"
    return Table(_columns(plan, "US $ a month"), rows, f"As if all of the month were as this run; {whose}.")


def _dollars(item: CostItem) -> str:
    if item.dollars is None:
        return f"{number_text(round(item.quantity))} {item.unit}"
    return money_text(item.dollars)


def breaks_table(plan: Capacity) -> Table:
    columns = [Column("What gives way"), Column("From devices on", True), Column("Limit", True), Column("What happens")]
    rows = [
        [
            name_text(one.name) + ("" if one.name in _WORDS else f", {one.per}"),
            _from(one.devices),
            f"{number_text(one.limit)} {one.unit}",
            one.effect,
        ]
        for one in plan.breaks
    ]
    return Table(columns, rows)


def back_offs_table(plan: Capacity) -> Table:
    columns = [Column("Back-off"), Column("Jitter", True), Column("Cap", True), Column("95 % back", True)]
    columns += [Column("99 % back", True), Column("Refused a device", True)]
    rows = [
        [
            one.label,
            f"{100 * one.jitter:.0f} %",
            clock_text(one.cap_s),
            _or_never(one.back_95_s),
            _or_never(one.back_99_s),
            f"{one.refused:.1f}",
        ]
        for one in plan.back_offs
    ]
    return Table(columns, rows)


def errors_table(plan: Capacity) -> Table:
    """What parts of a fleet told of a size that was run as well: how far off each figure was."""
    held = plan.held_out
    if held is None:
        return Table([], [])
    near = near_quotas(plan)
    rows = []
    for one in held.rows:
        quota = one.name.removeprefix("quota.")
        if quota != one.name and quota not in near:
            continue
        words = f"quota: {name_text(quota)}" if quota != one.name else one.words
        unit = "" if one.unit == "s" else f", {one.unit}"
        rows.append([f"{words}{unit}", *(_told_text(one, value) for value in (one.told, one.seen)), *_error(one)])
    columns = [Column(f"At {held.devices:,} devices")]
    columns += [Column(title, True) for title in ("Told", "Seen", "Error", "Told from … to", "Seen in it")]
    by = ", ".join(f"{devices:,}" for devices in held.by)
    said = f"{held.devices:,} devices were run as they are, and told by parts of it ({by}), as larger sizes are"
    return Table(columns, rows, f"{said}; + is told too high.")


def _told_text(one: Compared, value: float | None) -> str:
    if one.unit == "s":
        return _or_never(value)
    if value is None:
        return "–"
    return money_text(value) if one.unit == "$" else count_text(value)


def _error(one: Compared) -> list[str]:
    """Error, bounds, whether what was seen lies within them."""
    error = "–" if one.error is None else f"{100 * one.error:+.1f} %"
    if one.low is None or one.high is None or one.seen is None:
        return [error, "", ""]
    within = "yes" if one.low * 0.999 <= one.seen <= one.high * 1.001 else "no"
    return [error, bounds_text(one.low, one.high), within]


def bounds_text(low: float, high: float) -> str:
    return f"{count_text(low)} … {count_text(high)}"


def bounds_table(plan: Capacity) -> Table:
    """Of sizes that were not simulated: between what each figure is likely to be."""
    drawn = [row for row in plan.rows if row.how == "scaled"]
    if not drawn:
        return Table([], [])
    rows = []
    for name, (unit, words) in FIGURES.items():
        cells = [_bounds(row.figures[name].low, row.figures[name].high) for row in drawn]
        rows.append([f"{words}, {unit}", drawn[-1].figures[name].model, *cells])
    for name in near_quotas(plan):
        cells = [_share_bounds(row, name) for row in drawn]
        rows.append([f"quota: {name_text(name)}", "", *cells])
    columns = [Column("Likely from … to"), Column("By"), *(Column(f"{row.devices:,}", True) for row in drawn)]
    return Table(columns, rows, "From what the part says that tells the least to the one that tells the most.")


def _bounds(low: float | None, high: float | None) -> str:
    return "–" if low is None or high is None else bounds_text(low, high)


def _share_bounds(row: SizeRow, name: str) -> str:
    bounds = row.bounds.get(name)
    return "–" if bounds is None else f"{100 * bounds[0]:,.0f} … {100 * bounds[1]:,.0f} %"


def floor_text(plan: Capacity) -> str:
    """The line that every capacity plan should begin with."""
    if not plan.floor_s or not plan.rows:
        return "No CONNECT quota, or no fault that cost connections: there is no floor."
    lost = plan.rows[-1].recovery
    assert lost is not None
    said = (
        f"{lost.lost:,} devices that come back together need {seconds_text(plan.floor_s)} at the account's rate; "
        f"the agent's back-off has a cap of {clock_text(plan.cap_s)} and {100 * plan.jitter:.0f} % jitter"
    )
    if plan.cap_s < plan.floor_s or plan.jitter < 0.5:
        return f"{said}: the storm repeats."
    return f"{said}, enough for that."


def best_text(plan: Capacity) -> str:
    if not plan.back_offs:
        return ""
    best: BackOff = plan.back_offs[0]
    return f"The best found, for {best.devices:,} devices: {printable(best.settings, _NOTE_MAX)}"


def tables(plan: Capacity) -> list[tuple[str, Table]]:
    """All that have something to say, with their titles."""
    found: list[tuple[str, Table | None]] = [
        ("LOAD", sizes_table(plan)),
        ("QUOTAS", quotas_table(plan)),
        ("RECOVERY", recovery_table(plan)),
        ("COST", cost_table(plan)),
        ("WHAT BREAKS FIRST", breaks_table(plan)),
        ("BACK-OFF", back_offs_table(plan)),
        ("EXTRAPOLATION", bounds_table(plan)),
        ("TOLD AND SEEN", errors_table(plan)),
    ]
    return [(title, _plain(table)) for title, table in found if table is not None and table.rows]


def _plain(table: Table) -> Table:
    """Whatever the names in it are, one line each."""
    columns = [Column(printable(column.title, _CELL_MAX), column.number) for column in table.columns]
    rows = [[printable(cell, _CELL_MAX) for cell in row] for row in table.rows]
    return Table(columns, rows, printable(table.note, _NOTE_MAX), table.marks)


# The terminal.


def capacity_lines(plan: Capacity, width: int = WIDTH) -> list[Text]:
    """No line longer than `width`, as long as there are at most six sizes."""
    preset = f" on {printable(plan.preset, 24)}" if plan.preset else ""
    head = f"   capacity of {printable(plan.scenario, 44)}{preset}  seed {plan.seed}"
    lines = [Text(), Text(head, "bold"), *_wrapped(floor_text(plan), width)]
    for title, table in tables(plan):
        lines += [Text(), Text(f"   {title}", "bold"), *_grid(table, width)]
        if title == "BACK-OFF":
            lines += _wrapped(best_text(plan), width)
        if table.note:
            lines += _wrapped(table.note, width, "dim")
    return lines


def _grid(table: Table, width: int) -> list[Text]:
    cells = [[column.title for column in table.columns], *(list(row) for row in table.rows)]
    widths = [max(len(row[index]) for row in cells) for index in range(len(table.columns))]
    room = width - 5 - 2 * (len(widths) - 1)
    while sum(widths) > room:
        widest = widths.index(max(widths))
        widths[widest] -= 1
    lines = []
    for number, row in enumerate(cells):
        parts = []
        for index, cell in enumerate(row):
            text = cell if len(cell) <= widths[index] else cell[: widths[index] - 1] + "…"
            parts.append(text.rjust(widths[index]) if table.columns[index].number else text.ljust(widths[index]))
        lines.append(Text("     " + "  ".join(parts).rstrip(), "dim" if number == 0 else ""))
    return lines


def _wrapped(text: str, width: int, style: str = "") -> list[Text]:
    return [Text(f"     {row}", style) for row in textwrap.wrap(text, width - 5, break_on_hyphens=False)]


# The file.


def capacity_csv(plan: Capacity) -> str:
    """A row for each size and figure: devices, how, figure, value, model, bounds; then what parts told of a size that
    was run as well: `told` and `seen`, and the error as a share of what was seen."""
    out = io.StringIO()
    lines = csv.writer(out, lineterminator="\n")
    blank = [""] * 4  # model, bounds, error

    def put(cells: Sequence[object]) -> None:
        lines.writerow([safe_cell(cell) if isinstance(cell, str) else cell for cell in cells])

    put(["devices", "how", "simulated", "figure", "value", "model", "low", "high", "error"])
    for row in plan.rows:
        start: list[object] = [row.devices, row.how, row.simulated]
        for name, one_of in row.figures.items():
            put([*start, name, one_of.value, one_of.model, *_cells(one_of.low, one_of.high), ""])
        for name, share in row.shares.items():
            put([*start, f"share.{name}", share, "", *row.bounds.get(name, ("", "")), ""])
        for one in row.reached:
            put([*start, f"throttled.{one.name}", one.times, *blank])
            put([*start, f"throttled_first_s.{one.name}", one.first_s, *blank])
        if row.recovery is not None:
            for name in ("lost", "floor_s", "back_50_s", "back_95_s", "back_99_s"):
                value = getattr(row.recovery, name)
                put([*start, f"recovery.{name}", "" if value is None else value, *blank])
        for item in row.cost:
            put([*start, f"cost.{item.item}", *_cells(item.dollars), *blank])
        put([*start, "cost.total", *_cells(row.dollars), *blank])
    held = plan.held_out
    if held is not None:
        for figure in held.rows:
            bounds = _cells(figure.low, figure.high, figure.error)
            told = [*_cells(figure.told), figure.model, *bounds]
            put([held.devices, "told", held.by[-1], figure.name, *told])
            put([held.devices, "seen", held.devices, figure.name, *_cells(figure.seen), *blank])
    return out.getvalue()


def _cells(*values: float | None) -> list[object]:
    return ["" if value is None else value for value in values]


def _columns(plan: Capacity, title: str) -> Sequence[Column]:
    return [Column(title), *(Column(f"{row.devices:,}", True) for row in plan.rows)]


def _how(row: SizeRow) -> str:
    return "yes" if row.how == "simulated" else f"by {row.simulated:,}"


def _share(row: SizeRow, name: str) -> str:
    share = row.shares.get(name)
    if share is None:
        return "–"
    about = ABOUT if row.how == "scaled" else ""
    times = next((one.times for one in row.reached if one.name == name), 0)
    return f"{about}{100 * share:,.0f} %" + (f" {count_text(times)}×" if times else "")


def _of(row: SizeRow, name: str) -> str:
    return "–" if row.recovery is None else _or_never(getattr(row.recovery, name))


def _or_never(value_s: float | None) -> str:
    return "never" if value_s is None else seconds_text(value_s)


def _from(devices: int) -> str:
    return "any size" if devices <= 1 else f"{float(f'{devices:.3g}'):,.0f}"


SOURCES_NOTE: Final = f"Sources of the limits: {MARKS_TOLD}; scenario: set there."
