"""Nights beside each other: the history of `fleet soak` as JSON lines, and its trend as a table and as a picture.

One line a night, appended when the night is over; a line that was cut off by a power cut is left out, never an error.
Takes plain values. Called by fleet.commands.soak.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Final

import msgspec

from reports.panels import Panel, draw_panels

HISTORY: Final = "history.jsonl"
PICTURE: Final = "trend.svg"
TEXT: Final = "trend.txt"
NIGHTS_SHOWN: Final = 14
NIGHTS_DRAWN: Final = 120
BEFORE: Final = 7  # nights that tonight's probes are held against
EXPECTED_RUNS_MIN: Final = 5.0  # that should have hit a probe, before it is missed
RARE_SHARE: Final = 0.01


class NightRow(msgspec.Struct, frozen=True, kw_only=True):
    """One night. `started`: UTC; `seed`: of the night; `events_per_s`: of the reference, in CPU time, the best;
    `updates_per_s`: synced in a second of CPU time, over all runs; `rss_mb`: most that a worker held after the
    reference; `canary`: the planted bug, `canary_seeds`: runs until it was caught, 0: never, -1: not looked for;
    `failing`, `fixed`: size of the corpus; `probes`: name -> share of the runs that hit it."""

    night: int
    started: str
    seed: int
    verdict: str
    release: str = ""
    python: str = ""
    core: str = ""
    jobs: int = 0
    wall_s: float = 0.0
    runs: int = 0
    failed: int = 0
    errors: int = 0
    mismatches: int = 0
    kinds: list[str] = []
    new: list[str] = []
    events_per_s: float = 0.0
    updates_per_s: float = 0.0
    rss_mb: float = 0.0
    drift: str = "unknown"
    drift_detail: str = ""
    canary: str = ""
    canary_seeds: int = -1
    failing: int = 0
    fixed: int = 0
    probes: dict[str, float] = {}


def read_history(directory: Path) -> list[NightRow]:
    """In the order of the nights. Raises OSError when the file is there and cannot be read."""
    path = directory / HISTORY
    rows = []
    for line in path.read_bytes().splitlines() if path.exists() else []:
        try:
            rows.append(msgspec.json.decode(line, type=NightRow))
        except ValueError:
            continue  # cut off half-way
    return rows


def append(directory: Path, row: NightRow) -> None:
    """One more line, on the disk when this returns. Raises OSError."""
    path = directory / HISTORY
    whole = not path.exists() or path.read_bytes()[-1:] in (b"", b"\n")
    with path.open("ab") as file:
        file.write((b"" if whole else b"\n") + msgspec.json.encode(row) + b"\n")
        file.flush()
        os.fsync(file.fileno())


def trend_lines(rows: Sequence[NightRow], known: Sequence[str]) -> list[str]:
    """The last nights, one a line, then what is to be said of the last one's probes. `known`: all probes there are."""
    head = (
        f"{'NIGHT':>5}  {'STARTED':16}  {'VERDICT':11}  {'RUNS':>7}  {'FAILED':>6}  {'CORPUS':>6}  {'EVENTS/S':>8}  "
        f"{'UPDATES/S':>9}  {'MB':>5}  CANARY"
    )
    lines = [head, *map(_line, rows[-NIGHTS_SHOWN:])]
    if not rows:
        return lines
    hit = rows[-1].probes
    gone = probes_gone(rows)
    rare = [name for name, share in sorted(hit.items()) if share < RARE_SHARE]
    never = [name for name in known if not any(row.probes.get(name) for row in rows)]
    lines += ["", f"probes: {len(hit)} of {len(known)} hit in the last night"]
    lines += [f"   hit in the nights before, and no more: {', '.join(gone)}"] if gone else []
    lines += [f"   in less than {RARE_SHARE:.0%} of the runs: {', '.join(rare)}"] if rare else []
    lines += [f"   in no night: {', '.join(never)}"] if never else []
    return lines


def _line(row: NightRow) -> str:
    canary = {0: "NOT FOUND", -1: "not looked for"}.get(row.canary_seeds, f"{row.canary_seeds} runs")
    return (
        f"{row.night:>5}  {row.started[:16]:16}  {row.verdict:11}  {row.runs:>7,}  {row.failed + row.errors:>6,}  "
        f"{row.failing:>6,}  {row.events_per_s:>8,.0f}  {row.updates_per_s:>9,.1f}  {row.rss_mb:>5,.0f}  "
        f"{row.canary} ({canary})"
    )


def probes_gone(rows: Sequence[NightRow]) -> list[str]:
    """Probes that the last night should have hit, by what the nights before it did, and did not."""
    if len(rows) < 2:
        return []
    last, before = rows[-1], [row for row in rows[-1 - BEFORE : -1] if row.runs]
    names = sorted({name for row in before for name in row.probes})
    usual = {name: median(row.probes.get(name, 0.0) for row in before) for name in names}
    return [
        name for name in names if usual[name] * last.runs >= EXPECTED_RUNS_MIN and not last.probes.get(name)
    ]  # fmt: skip


def picture(rows: Sequence[NightRow]) -> str:
    """The trend as one SVG file; empty for fewer than two nights."""
    rows = rows[-NIGHTS_DRAWN:]
    if len(rows) < 2:
        return ""
    panels = [
        Panel("Events in a second of CPU time, of the reference", {"a": [row.events_per_s for row in rows]}),
        Panel("Updates synced in a second of CPU time, all runs", {"c": [row.updates_per_s for row in rows]}),
        Panel("Memory of a worker, MB", {"d": [row.rss_mb for row in rows]}),
        Panel("Plans of the corpus that fail", {"f1": [float(row.failing) for row in rows]}),
        Panel("Probes hit", {"b": [float(len(row.probes)) for row in rows]}),
    ]
    return draw_panels("nights", "Nights", [row.night for row in rows], panels)


def write_trend(directory: Path, rows: Sequence[NightRow], known: Sequence[str]) -> list[str]:
    """Writes the table, and the picture when there is one; returns the table. Raises OSError."""
    lines = trend_lines(rows, known)
    (directory / TEXT).write_text("\n".join(lines) + "\n", "utf-8")
    svg = picture(rows)
    if svg:
        (directory / PICTURE).write_text(svg, "utf-8")
    return lines
