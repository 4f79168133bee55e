"""`report.html`: one file that opens offline, without scripts, in light, dark and print.

Fills the template with values that are ready to show; everything is escaped by the template engine, only the plots
(made here, from escaped text) are inserted as they are. Called by `reports.rundir`.
"""

from __future__ import annotations

import math
from base64 import b64encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Final

from reports import live_text, plots, story_text
from reports.breakdown import breakdown
from reports.drawing import band_roles, bands
from reports.plots import Drawing
from reports.quota_text import quota_section
from reports.result import DeviceRow, RunResult
from reports.sections import Maker, Section
from reports.summary import Percentiles, Summary, checks_in_order
from reports.terminal import healing
from reports.text import bytes_text, clock_text, number_text, printable, printable_lines, seconds_text

if TYPE_CHECKING:
    from jinja2 import Template

EXTRA: Final[tuple[Maker, ...]] = (quota_section,)  # sections that only some runs have
DEVICES_MAX: Final = 200  # rows of the page; devices.csv has all
ROWS_MAX: Final = 200  # of any other table
FAULTS_MAX: Final = 200
TEXT_MAX: Final = 400
SCENARIO_CHARS_MAX: Final = 100_000
DETAIL_MAX: Final = 2_000
SKETCH_BYTES_MAX: Final = 400_000
_SKETCHES: Final = {
    "plan.min.svg": "The smallest plan that still fails",
    "plan.when.svg": "From which moment on the failure is likely",
}
_SAYS: Final = {"pass": "Passed", "fail": "Failed", "unknown": "Unknown"}
_MARKS: Final = {"pass": "✓", "fail": "✗", "unknown": "?"}
DRAWERS: Final = ("matplotlib", "pandas", "numpy")  # what the extra `report` brings


@dataclass(frozen=True, slots=True)
class Fact:
    label: str
    value: str
    note: str = ""


def render(result: RunResult) -> str:
    """The page. Reads only `result`; the same result gives the same page. Without the extra `report` it has no plots
    and no tables by group and model, and says so."""
    summary = result.summary
    end_s = _end_s(result)
    drawings, parts = _drawn(result, end_s)
    story = [drawings[name] for name in plots.STORY if name in drawings]
    checks = checks_in_order(summary.checks)
    return template("report.html.jinja").render(
        summary=summary,
        says=_SAYS,
        marks=_MARKS,
        reason=_reason(summary),
        facts=_facts(summary),
        checks=[check for check in checks if check.status != "unknown" or check.required],
        idle=[check for check in checks if check.status == "unknown" and not check.required],
        counts=_counts(summary),
        latencies=_latencies(summary),
        live=live_text,
        scale=_Scale(summary),
        failure=story_text.failure_of(result) if summary.verdict == "fail" else None,
        sketches=[_sketch(name, svg) for name, svg in sorted(result.sketches.items())],
        faults=sorted(result.faults, key=lambda fault: (fault.start_s, fault.name))[:FAULTS_MAX],
        faults_more=max(0, len(result.faults) - FAULTS_MAX),
        roles=band_roles(result.faults),
        healing=healing,
        is_plain=parts is None,
        drawings=drawings,
        first=story[:1],
        story=story[1:],
        hidden_bands=len(result.faults) - len(bands(result.faults, end_s)),
        phases=result.phases,
        parts=parts or [],
        extra=[section for make in EXTRA if (section := make(result)) is not None],
        rows_max=ROWS_MAX,
        probes=sorted(summary.probes.items()),
        devices=result.devices[:DEVICES_MAX],
        devices_more=max(0, len(result.devices) - DEVICES_MAX),
        reasons=_reasons(result.devices),
        scenario_yaml=_cut(printable_lines(result.scenario_yaml), SCENARIO_CHARS_MAX),
        versions=sorted(result.versions.items()),
    )


def pngs(result: RunResult) -> Iterator[tuple[str, bytes]]:
    """The plots of the page as PNG: (name, file)."""
    return plots.pngs(result, _end_s(result))


def _end_s(result: RunResult) -> float:
    return max([result.summary.virtual_s, 1e-6, *(row.get("t_s", 0.0) for row in result.timeline)])


def _sketch(name: str, svg: bytes) -> tuple[str, str, str]:
    """(File, title, address of the picture: empty when it is too large for the page). It is shown as a picture of its
    own: no style of it touches the page, and nothing in it can run."""
    url = f"data:image/svg+xml;base64,{b64encode(svg).decode()}" if len(svg) <= SKETCH_BYTES_MAX else ""
    return name, _SKETCHES.get(name, name), url


def _drawn(result: RunResult, end_s: float) -> tuple[dict[str, Drawing], list[Section] | None]:
    """Plots by name, and the tables by group and model. None for the tables: what draws them is not installed."""
    try:
        return plots.draw(result, end_s), breakdown(result.summary)
    except ModuleNotFoundError as missing:
        if (missing.name or "").split(".")[0] not in DRAWERS:
            raise
        return {}, None


@cache
def template(name: str) -> Template:
    """A page of reports/templates, with the filters that make text harmless."""
    from jinja2 import Environment, FunctionLoader, StrictUndefined  # here: starting a command does not pay for it

    folder = files("reports").joinpath("templates")
    environment = Environment(
        loader=FunctionLoader(lambda name: folder.joinpath(name).read_text("utf-8")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        number=number_text,
        seconds=seconds_text,
        clock=clock_text,
        line=lambda text, length=TEXT_MAX: printable(str(text), length),
        detail=lambda text: _cut(printable_lines(text), DETAIL_MAX),
    )
    return environment.get_template(name)


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[:length] + "\n… (cut here: the whole text is in the run directory)"


def _reason(summary: Summary) -> str:
    """Why the verdict is what it is, in one sentence."""
    failed = [check.name for check in summary.checks if check.status == "fail"]
    over = [threshold.expr for threshold in summary.thresholds if threshold.status == "fail"]
    unknown = [check.name for check in summary.checks if check.status == "unknown" and check.required]
    unknown += [threshold.expr for threshold in summary.thresholds if threshold.status == "unknown"]
    if failed or over:
        return "Did not hold: " + _names(failed + over) + "."
    if summary.verdict == "unknown":
        return "Required, but never evaluated: " + (_names(unknown) or "a check that the scenario requires") + "."
    passed = sum(check.status == "pass" for check in summary.checks)
    held = f" and {len(summary.thresholds)} thresholds" if summary.thresholds else ""
    return f"All {passed} checks that had something to check{held} held."


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return ", ".join(printable(name, 80) for name in names[:4]) + more


def _facts(summary: Summary) -> list[Fact]:
    speed = f" ({summary.virtual_s / summary.wall_s:,.0f}×)" if summary.wall_s > 0 else ""
    virtual_s = summary.virtual_s if summary.virtual_s < 3600 else round(summary.virtual_s / 60) * 60
    rate = summary.counts.updates_synced / summary.cpu_s if summary.cpu_s > 0 else 0.0
    return [
        Fact("Devices", f"{summary.devices:,}", f"backend {printable(summary.backend, 20)}"),
        Fact(
            "Time" if summary.live else "Virtual time",
            clock_text(virtual_s),
            f"in {seconds_text(summary.wall_s)}{speed}",
        ),
        Fact("Updates synced", f"{summary.counts.updates_synced:,}", f"{rate:,.0f} a CPU second" if rate else ""),
        Fact("Latency up, p99", _or_dash(summary.latency_s.up), _median(summary.latency_s.up)),
        Fact("Latency down, p99", _or_dash(summary.latency_s.down), _median(summary.latency_s.down)),
        Fact("Converged", *_converged(summary.converged_after_s)),
    ]


def _or_dash(values: Percentiles) -> str:
    return seconds_text(values.p99) if values.count else "–"


def _median(values: Percentiles) -> str:
    return f"median {seconds_text(values.p50)}" if values.count else "nothing was synced this way"


def _converged(after_s: float | None) -> tuple[str, str]:
    if after_s is None:
        return "no", "not within the time allowed"
    return ("at once", "") if not after_s else (seconds_text(after_s), "after the last heal")


def _counts(summary: Summary) -> list[tuple[str, list[Fact]]]:
    counts = summary.counts
    return [
        (
            "Writes",
            [
                Fact("on devices", f"{counts.local_writes:,}"),
                Fact("in the cloud", f"{counts.cloud_writes:,}"),
                Fact("updates synced", f"{counts.updates_synced:,}"),
                Fact("conflicts", f"{counts.conflicts:,}"),
            ],
        ),
        (
            "Messages",
            [
                Fact("up", f"{counts.messages_up:,}", bytes_text(counts.bytes_up)),
                Fact("down", f"{counts.messages_down:,}", bytes_text(counts.bytes_down)),
                Fact("lost", f"{counts.messages_lost:,}"),
                Fact("sent again", f"{counts.retransmits:,}"),
            ],
        ),
        (
            "Devices",
            [
                Fact("connects", f"{counts.connects:,}"),
                Fact("disconnects", f"{counts.disconnects:,}"),
                Fact("reboots", f"{counts.reboots:,}"),
                Fact("snapshots", f"{counts.snapshots:,}"),
            ],
        ),
        (
            "This machine",
            [
                Fact("wall time", seconds_text(summary.wall_s)),
                Fact("CPU time", seconds_text(summary.cpu_s)),
                Fact("memory, most", f"{summary.rss_mb_max:,.0f} MB"),
            ],
        ),
    ]


def _latencies(summary: Summary) -> list[tuple[str, str, Percentiles]]:
    both = summary.latency_s
    return [("up", "device to cloud", both.up), ("down", "cloud to device", both.down)]


class _Scale:
    """Places latencies on a logarithmic bar: the decade below the least median to the one above the largest."""

    def __init__(self, summary: Summary) -> None:
        both = (summary.latency_s.up, summary.latency_s.down)
        known = [value for row in both if row.count for value in (row.p50, row.max) if value > 0]
        self.low = math.floor(math.log10(min(known))) if known else -3
        self.high = max(math.ceil(math.log10(max(known))), self.low + 1) if known else 0

    def percent(self, value_s: float) -> float:
        """0 to 100."""
        if value_s <= 0:
            return 0.0
        share = (math.log10(value_s) - self.low) / (self.high - self.low)
        return round(100 * min(1.0, max(0.0, share)), 2)

    def ticks(self) -> list[tuple[float, str]]:
        decades = range(self.low, self.high + 1)
        return [(self.percent(10.0**decade), _decade_text(decade)) for decade in decades]


def _decade_text(decade: int) -> str:
    if decade < -3:
        return f"{10 ** (decade + 6):g} µs"
    return f"{10 ** (decade + 3):g} ms" if decade < 0 else f"{10**decade:,} s"


def _reasons(devices: Sequence[DeviceRow]) -> list[tuple[str, int]]:
    """Reasons and how many devices have them, the most frequent first, at most ten."""
    counted: dict[str, int] = {}
    for row in devices:
        counted[row.reason] = counted.get(row.reason, 0) + 1
    return sorted(counted.items(), key=lambda pair: (-pair[1], pair[0]))[:10]
