"""A comparison as one page that opens offline, in light, dark and print: verdict, rules, metrics, timelines over each
other. Everything is escaped by the template engine but the plots, which are made here. Called by `fleet compare`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Final

from reports.compare import Comparison
from reports.compare_plots import overlays
from reports.compare_runs import Run
from reports.compare_text import MARKS, cells_of, is_shown, legend, regressions_text, side_text
from reports.html import DRAWERS, ROWS_MAX, template
from reports.plots import Drawing

_STATUS: Final = {
    "regression": "fail", "passed": "pass", "not judged": "unknown", "unknown": "unknown", "no baseline": "unknown",
    "not comparable": "fail",
}  # fmt: skip
_TONES: Final = {"worse": "fail", "better": "pass"}
_TITLES: Final = {
    "latency": "Latency", "convergence": "Convergence", "faults": "Recovery", "counts": "Counts", "groups": "Groups",
    "models": "Models", "probes": "Probes", "machine": "The machine (does not decide)",
}  # fmt: skip


def comparison_html(comparison: Comparison, base: Sequence[Run], new: Sequence[Run]) -> str:
    """The page. Without the extra `report` it has no plots, and says so."""
    drawings = _drawn(base, new) if comparison.rows else []
    return template("compare.html.jinja").render(
        comparison=comparison,
        status=_STATUS[comparison.verdict],
        label=comparison.verdict,
        regressions=regressions_text(comparison),
        sides=[("BASE", side_text(comparison.base)), ("NEW", side_text(comparison.new))],
        tables=_tables(comparison),
        legend="; ".join(legend(comparison)),
        drawings=drawings or [],
        is_plain=drawings is None,
        rule_marks={"pass": "✓", "fail": "✗", "unknown": "?"},
        marks={},
        rows_max=ROWS_MAX,
    )


def _drawn(base: Sequence[Run], new: Sequence[Run]) -> list[Drawing] | None:
    """None: what draws them is not installed."""
    try:
        return overlays(base, new)
    except ModuleNotFoundError as missing:
        if (missing.name or "").split(".")[0] not in DRAWERS:
            raise
        return None


def _tables(comparison: Comparison) -> list[tuple[str, list[tuple[str, str, list[str]]], int]]:
    """(Title, rows of (class, mark, cells), how many are left out) of each section."""
    found = []
    for section, rows in groupby(comparison.rows, key=lambda row: row.section):
        every = list(rows)
        chosen = [row for row in every if is_shown(row)][:ROWS_MAX]
        if chosen:
            lines = [(_TONES.get(row.status, ""), MARKS[row.status], [row.name, *cells_of(row)]) for row in chosen]
            found.append((_TITLES[section], lines, len(every) - len(chosen)))
    return found
