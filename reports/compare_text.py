"""A comparison for a terminal, as CSV, and as words that the page shares.

Fits 100 columns, plain where the output is no terminal, ASCII where it cannot say more. Called by `fleet compare`.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import IO, Final

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from reports.compare import ERRORS, RUNS_MIN, Comparison, Row, Side, shown
from reports.summary import Status
from reports.tables import safe_cell
from reports.terminal import WIDTH, speaks_utf, to_ascii
from reports.text import number_text, printable

_BADGES: Final = {
    "regression": (" REGRESSION ", "bold white on red"),
    "passed": (" PASSED ", "bold white on green"),
    "not judged": (" NOT JUDGED ", "bold black on yellow"),
    "unknown": (" UNKNOWN ", "bold black on yellow"),
    "no baseline": (" NO BASELINE ", "bold black on yellow"),
    "not comparable": (" NOT COMPARABLE ", "bold white on red"),
}
MARKS: Final = {"worse": "✗", "better": "✓", "noise": "≈", "same": "=", "changed": "·", "missing": "?"}
_STYLES: Final = {
    "worse": "bold red",
    "better": "green",
    "noise": "dim",
    "same": "dim",
    "changed": "",
    "missing": "dim",
}
_RULE_MARKS: Final[dict[Status, tuple[str, str]]] = {
    "pass": ("✓", "green"),
    "fail": ("✗", "bold red"),
    "unknown": ("?", "yellow"),
}
ALWAYS: Final = ("latency", "convergence", "faults", "counts", "machine")  # sections that are shown in any case
UNLIKE_MAX: Final = 12
_TITLES: Final = {
    "latency": "LATENCY", "convergence": "CONVERGENCE", "faults": "RECOVERY", "counts": "COUNTS", "groups": "GROUPS",
    "models": "MODELS", "probes": "PROBES", "machine": "THIS MACHINE (does not decide)",
}  # fmt: skip


def print_comparison(comparison: Comparison, file: IO[str], *, all_rows: bool = False) -> None:
    """Writes the comparison to `file`. `all_rows`: also groups, models and probes that are the same."""
    probe = Console(file=file, highlight=False)
    buffer = io.StringIO()
    console = Console(
        file=buffer,
        width=max(60, min(WIDTH, probe.width)) if probe.is_terminal else WIDTH,
        force_terminal=probe.is_terminal,
        color_system=probe.color_system if probe.is_terminal else None,  # type: ignore[arg-type]  # rich's own name
        highlight=False,
        markup=False,
    )
    for part in renderables(comparison, all_rows=all_rows):
        console.print(part)
    text = "".join(f"{line.rstrip()}\n" for line in buffer.getvalue().splitlines())
    file.write(text if speaks_utf(file) else to_ascii(text.translate(str.maketrans("≈σ±", "~s+"))))


def renderables(comparison: Comparison, *, all_rows: bool = False) -> list[RenderableType]:
    label, style = _BADGES[comparison.verdict]
    parts: list[RenderableType] = [
        Text(),
        Text.assemble("   ", (label, style), f"  {comparison.reason}"),
        Text(f"   BASE {side_text(comparison.base)}", "dim"),
        Text(f"   NEW  {side_text(comparison.new)}", "dim"),
    ]
    parts += [Text(f"   {printable(note, 300)}", "yellow") for note in comparison.notes]
    parts += _unlike(comparison)
    if comparison.rules:
        parts += [Text(), Text("   RULES", "bold")]
        for one in comparison.rules:
            said = f"  {one.detail}"
            parts.append(Text.assemble("     ", _RULE_MARKS[one.status], f" {printable(one.rule, 60)}", (said, "dim")))
    if not comparison.rows:
        return parts
    chosen = comparison.rows if all_rows else [row for row in comparison.rows if is_shown(row)]
    parts += [Text(), _table(chosen, has_band=comparison.has_band)]
    hidden = len(comparison.rows) - len(chosen)
    if hidden:
        parts.append(Text(f"   {hidden} more that did not change, or not beyond noise: --all shows them", "dim"))
    parts += [Text(f"   {line}", "dim") for line in legend(comparison)]
    return parts


def side_text(side: Side) -> str:
    """`runs/base: 3 runs, seeds 1, 2, 3; 3 pass`."""
    seeds = ", ".join(map(str, side.seeds[:8])) + (", …" if len(side.seeds) > 8 else "")
    verdicts = ", ".join(f"{count} {name}" for name, count in side.verdicts.items())
    which = f", seed{'' if len(side.seeds) == 1 else 's'} {seeds}; {verdicts}" if side.seeds else ""
    return f"{side.path}: {side.runs} run{'' if side.runs == 1 else 's'}{which}"


def legend(comparison: Comparison) -> list[str]:
    """What the marks and the columns mean."""
    marks = "✗ worse  ✓ better  ≈ within noise  = same  · changed  ? not measured"
    if not comparison.has_band:
        return [marks, f"no noise band: it takes {RUNS_MIN} runs on a side"]
    return [marks, f"medians; the band is {ERRORS:g} standard errors wide each way, and holds all runs of BASE"]


def is_shown(row: Row) -> bool:
    """Of groups, models and probes only what says something."""
    if row.section in ALWAYS:
        return True
    return row.status in ("worse", "better") or (
        row.section == "probes" and row.status == "changed" and row.low is not None
    )


def _unlike(comparison: Comparison) -> list[RenderableType]:
    if not comparison.unlike:
        return []
    lines: list[RenderableType] = [Text(), Text("   NOT THE SAME", "bold")]
    for one in comparison.unlike[:UNLIKE_MAX]:
        said = f"{printable(one.base, 60)} → {printable(one.new, 60)}"
        lines.append(Text(f"     {printable(one.key, 60)}: {said}", "red" if one.forbids else ""))
    if len(comparison.unlike) > UNLIKE_MAX:
        lines.append(Text(f"     and {len(comparison.unlike) - UNLIKE_MAX} more", "dim"))
    return lines


def _table(rows: Sequence[Row], *, has_band: bool) -> Table:
    table = Table(box=None, padding=(0, 1), pad_edge=False, show_edge=False, header_style="dim", collapse_padding=True)
    table.add_column("    ", no_wrap=True)
    table.add_column("", overflow="ellipsis", no_wrap=True, max_width=42)
    for name in ("BASE", "NEW", "change", ""):
        table.add_column(name, justify="right", no_wrap=True)
    if has_band:
        table.add_column("band of BASE", justify="right", no_wrap=True)
    section = ""
    for row in rows:
        if row.section != section:
            section = row.section
            table.add_row("", Text(_TITLES[section], "bold"))
        cells = [printable(row.name, 80), *cells_of(row)]
        style = _STYLES[row.status]
        table.add_row(
            Text(f"   {MARKS[row.status]}", style), *(Text(cell, style) for cell in cells[: 6 if has_band else 5])
        )
    return table


def cells_of(row: Row) -> list[str]:
    """BASE, NEW, change, percent, band."""
    base, new = ("never" if row.never in (side, "both") else shown(value, row.unit) for side, value in _sides(row))
    change = "" if not row.change else ("+" if row.change > 0 else "") + shown(row.change, row.unit)
    percent = "" if not row.change_percent else f"{row.change_percent:+,.1f} %"
    band = "" if row.low is None else f"{shown(row.low, row.unit)} – {shown(row.high, row.unit)}"
    return [base, new, change, percent, band]


def _sides(row: Row) -> tuple[tuple[str, float | None], tuple[str, float | None]]:
    return ("base", row.base), ("new", row.new)


COLUMNS: Final = (
    "metric", "section", "unit", "worse_is", "base", "new", "change", "change_percent", "low", "high", "status",
    "decides",
)  # fmt: skip


def comparison_csv(comparison: Comparison) -> str:
    """One line a metric; an empty cell: nothing was measured; `never`: a time that did not come to its end."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in comparison.rows:
        numbers = ["never" if row.never in (side, "both") else _number(value) for side, value in _sides(row)] + [
            _number(value) for value in (row.change, row.change_percent, row.low, row.high)
        ]
        head = [safe_cell(row.name), row.section, row.unit, row.worse_is]
        writer.writerow([*head, *numbers, row.status, "yes" if row.decides else "no"])
    return out.getvalue()


def _number(value: float | None) -> str:
    return "" if value is None else str(int(value)) if value == int(value) else repr(value)


def regressions_text(comparison: Comparison, most: int = 8) -> str:
    """Names of what is worse, for a sentence."""
    names = [printable(name, 80) for name in comparison.regressions]
    return ", ".join(names[:most]) + (f" and {number_text(len(names) - most)} more" if len(names) > most else "")
