"""What people see of a run's quotas: a part of the terminal's summary, and a section of the report.

Values in, texts out. Called by reports.terminal and reports.html.
"""

from __future__ import annotations

from typing import Final

from rich.text import Text

from reports.cost import DATE, REGION, a_month_of, priced, total
from reports.quotas import Quotas, QuotaUse, Recovery
from reports.result import RunResult
from reports.sections import Column, Section, Table
from reports.text import clock_text, number_text, printable, seconds_text

NEAR: Final = 0.1  # of a quota: below that the terminal only counts it
MARKS_TOLD: Final = "(v) the vendor's own text, (2) a second-hand copy, (a) an assumption"


def words(use: QuotaUse) -> str:
    """`connects_per_s` -> `connects, account`."""
    return f"{use.name.removesuffix('_per_s').removeprefix('client_').replace('_', ' ')}, {use.per}"


def share_text(use: QuotaUse) -> str:
    return f"{100 * use.peak_share:,.0f} %" if use.limit else "–"


def when_text(use: QuotaUse) -> str:
    if use.first_s is None or use.last_s is None:
        return ""
    first, last = clock_text(round(use.first_s)), clock_text(round(use.last_s))
    return f"at {first}" if first == last else f"{first} to {last}"


def by_need(quotas: Quotas) -> list[QuotaUse]:
    """Those that said no first, then by how near they were."""
    return sorted(quotas.uses, key=lambda use: (not use.throttled, -use.peak_share, use.name))


def recovery_text(one: Recovery) -> str:
    back = ", ".join(
        f"{percent} % after {seconds_text(value)}" if value is not None else f"{percent} % not within the run"
        for percent, value in ((50, one.back_50_s), (95, one.back_95_s), (99, one.back_99_s))
    )
    return back + (f"; floor {seconds_text(one.floor_s)}" if one.floor_s else "")


def quota_lines(quotas: Quotas | None) -> list[Text]:
    """Of the terminal's summary; none of a run without quotas."""
    if quotas is None:
        return []
    title = f"QUOTAS ({printable(quotas.preset, 40)})" if quotas.preset else "QUOTAS"
    lines = [Text(), Text(f"   {title}", "bold")]
    near = [use for use in by_need(quotas) if use.throttled or use.peak_share >= NEAR]
    for use in near:
        limit = number_text(use.limit)
        style = "yellow" if use.throttled else ""
        head = f"     {words(use):<33} "
        lines.append(Text.assemble(head, (f"{share_text(use):>9}", style), (f" of {limit} {use.unit}", "dim")))
        if use.throttled:
            lines.append(Text(f"         {use.effect} {use.throttled:,} times, {when_text(use)}", style))
    limited = sum(1 for use in quotas.uses if use.limit)
    if limited > len(near):
        lines.append(Text(f"     {limited - len(near)} others below {100 * NEAR:.0f} %", "dim"))
    for one in quotas.recoveries:
        name = printable(one.fault, 24)
        lines.append(Text(f"     after {name}: {one.lost:,} connections lost; back {recovery_text(one)}"))
    if priced(quotas.preset) and quotas.usage.seconds:
        dollars = dollars_text(total(a_month_of(quotas.usage)))
        lines.append(Text(f"     ${dollars} a month as this run was ({REGION}, prices of {DATE})", "dim"))
    return lines


def quota_section(result: RunResult) -> Section | None:
    """Of the report."""
    quotas = result.summary.quotas
    if quotas is None:
        return None
    tables = [quota_table(quotas)]
    if quotas.recoveries:
        tables.append(recovery_table(quotas))
    if priced(quotas.preset) and quotas.usage.seconds:
        tables.append(cost_table(quotas))
    intro = f"Preset {quotas.preset}." if quotas.preset else "Quotas that the scenario has set itself."
    return Section("quotas", "Quotas", f"{intro} Peaks are what was asked for within one second.", tables)


def quota_table(quotas: Quotas) -> Table:
    columns = [
        Column("Quota"),
        Column("Limit", True),
        Column("Unit"),
        Column("Peak", True),
        Column("Of the limit", True),
    ]
    columns += [Column("Said no", True), Column("When"), Column("Effect"), Column("Source")]
    rows, marks = [], []
    for use in by_need(quotas):
        limit = number_text(use.limit) if use.limit else "none"
        said_no = f"{use.throttled:,}" if use.throttled else ""
        peak = number_text(round(use.peak, 1))
        when = when_text(use)
        rows.append([words(use), limit, use.unit, peak, share_text(use), said_no, when, use.effect, use.source])
        marks.append("unknown" if use.throttled else "")
    return Table(columns, rows, f"Sources: {MARKS_TOLD}; scenario: set there.", marks)


def recovery_table(quotas: Quotas) -> Table:
    columns = [Column("After"), Column("Connections lost", True), Column("Floor", True)]
    columns += [Column(f"{percent} % back", True) for percent in (50, 95, 99)]
    rows = [
        [
            one.fault,
            f"{one.lost:,}",
            seconds_text(one.floor_s) if one.floor_s else "–",
            *(seconds_text(value) for value in (one.back_50_s, one.back_95_s, one.back_99_s)),
        ]
        for one in quotas.recoveries
    ]
    return Table(columns, rows, "Floor: the connections lost, at the CONNECTs a second that the account may make.")


def dollars_text(dollars: float | None) -> str:
    return "–" if dollars is None else f"{dollars:,.2f}"


def cost_table(quotas: Quotas) -> Table:
    items = a_month_of(quotas.usage)
    columns = [Column("A month as this run was"), Column("Quantity", True), Column("Unit"), Column("US $", True)]
    rows = [[item.item, number_text(round(item.quantity)), item.unit, dollars_text(item.dollars)] for item in items]
    rows.append(["in all", "", "", dollars_text(total(items))])
    return Table(columns, rows, f"List prices of {REGION}, {DATE}.")
