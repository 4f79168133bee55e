"""What is compared of two runs: one table of metrics, which way is worse, and how each is read from a summary.

Names are the paths of `summary.json`, with ` of group NAME`, ` of model NAME` or ` of fault NAME` behind them where
there are several. Values only. Called by `reports.compare`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from reports.result import FaultWindow
from reports.summary import Latency, Part, Summary

Worse = Literal["more", "less", ""]  # "": neither is worse, it only tells that something else happened
Unit = Literal["s", "B", "MB", "", "/update"]


@dataclass(frozen=True, slots=True)
class Metric:
    """`decides`: a regression of it is one of the comparison. What the machine has a part in does not decide: such
    figures are of where a run was made."""

    name: str
    unit: Unit = ""
    worse: Worse = ""
    decides: bool = True
    section: str = "counts"


PERCENTILES: Final = ("p50", "p90", "p99", "p999", "max")
WAYS: Final = ("up", "down")

# One row a metric: the only place that knows what is worse.
METRICS: Final = (
    *(Metric(f"latency_s.{way}.{name}", "s", "more", section="latency") for way in WAYS for name in PERCENTILES),
    Metric("converged_after_s", "s", "more", section="convergence"),
    Metric("counts.messages_up", "", "more"),
    Metric("counts.messages_down", "", "more"),
    Metric("counts.messages_lost", "", "more"),
    Metric("counts.bytes_up", "B", "more"),
    Metric("counts.bytes_down", "B", "more"),
    Metric("messages_per_update", "/update", "more"),
    Metric("bytes_per_update", "B", "more"),
    Metric("counts.connects", "", "more"),
    Metric("counts.disconnects", "", "more"),
    Metric("counts.retransmits", "", "more"),
    Metric("counts.snapshots", "", "more"),
    # What applications and faults did, and what came of their chances.
    Metric("counts.local_writes"),
    Metric("counts.cloud_writes"),
    Metric("counts.updates_synced"),
    Metric("counts.conflicts"),
    Metric("counts.reboots"),
    Metric("virtual_s", "s"),
    Metric("wall_s", "s", "more", decides=False, section="machine"),
    Metric("cpu_s", "s", "more", decides=False, section="machine"),
    Metric("rss_mb_max", "MB", "more", decides=False, section="machine"),
)
SECTIONS: Final = ("latency", "convergence", "faults", "counts", "groups", "models", "probes", "machine")
PROBES: Final = "probes."
OF: Final = (" of group ", " of model ", " of fault ")
INFINITE: Final = float("inf")


def metrics_of(summary: Summary, faults: Sequence[FaultWindow]) -> dict[str, tuple[Metric, float | None]]:
    """Every metric of one run, in the order in which people read them; None where nothing was measured, infinity where
    a time never came to its end."""
    found: dict[str, tuple[Metric, float | None]] = {}
    for metric, value in _all(summary, faults):
        found[metric.name] = metric, value
    return dict(sorted(found.items(), key=lambda entry: SECTIONS.index(entry[1][0].section)))


def _all(summary: Summary, faults: Sequence[FaultWindow]) -> Iterator[tuple[Metric, float | None]]:
    updates, counts = summary.counts.updates_synced, summary.counts
    derived = {
        "messages_per_update": counts.messages_up + counts.messages_down,
        "bytes_per_update": counts.bytes_up + counts.bytes_down,
    }
    for metric in METRICS:
        head, _, name = metric.name.partition(".")
        if head == "latency_s":
            yield metric, _latency(summary.latency_s, name)
        elif head == "counts":
            yield metric, float(getattr(counts, name))
        elif head in derived:
            yield metric, derived[head] / updates if updates else None
        elif head == "converged_after_s":
            yield metric, INFINITE if summary.converged_after_s is None else summary.converged_after_s
        else:
            yield metric, float(getattr(summary, metric.name))
    for fault in faults:
        if fault.healed_s is not None:
            after_s = INFINITE if fault.recovered_s is None else max(0.0, fault.recovered_s - fault.healed_s)
            yield Metric(f"recovered_s of fault {fault.name}", "s", "more", section="faults"), after_s
    yield from _parts("group", summary.groups)
    yield from _parts("model", summary.models)
    for name, count in sorted(summary.probes.items()):
        yield Metric(PROBES + name, section="probes"), float(count)


def _parts(what: Literal["group", "model"], parts: dict[str, Part]) -> Iterator[tuple[Metric, float | None]]:
    for name, part in parts.items():
        for way in WAYS:
            for percentile in ("p50", "p99"):
                path = f"{way}.{percentile}"
                section = f"{what}s"
                metric = Metric(f"latency_s.{path} of {what} {name}", "s", "more", section=section)
                yield metric, _latency(part.latency_s, path)


def _latency(latency: Latency, path: str) -> float | None:
    way, _, name = path.partition(".")
    values = latency.up if way == "up" else latency.down
    value: float = getattr(values, name)
    return value if values.count else None
