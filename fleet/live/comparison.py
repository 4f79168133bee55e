"""A live run beside the same plan simulated: totals, final states, and the distributions of latencies.

Pure. Called by fleet.live.run.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from fleet.live.script import Simulated, Totals
from reports.histogram import LatencyRecorder
from reports.live import Comparison, Distribution, Total

_US = 1e-6


def compared(
    live: Totals, state: Mapping[tuple[str, str], int | None], up: LatencyRecorder, down: LatencyRecorder,
    simulated: Simulated,
) -> Comparison:  # fmt: skip
    """`state`: key -> rev, of the table at the end."""
    totals = [
        Total(name=name, live=getattr(live, name), simulated=getattr(simulated.totals, name))
        for name in ("local_writes", "cloud_writes", "updates_synced")
    ]
    models = dict.fromkeys((*simulated.totals.items, *live.items))
    totals += [
        Total(name=f"items.{model}", live=live.items.get(model, 0), simulated=simulated.totals.items.get(model, 0))
        for model in models
    ]
    keys = dict.fromkeys((*state, *simulated.state))
    missing = object()
    same = sum(state.get(key, missing) == simulated.state.get(key, missing) for key in keys)
    return Comparison(
        totals=totals,
        latencies=[
            distribution("up", up, simulated.latency_up),
            distribution("down", down, simulated.latency_down),
        ],
        same_items=same,
        items=len(keys),
        simulated_passed=simulated.verdict_ok,
    )


def distribution(name: str, live: LatencyRecorder, simulated: LatencyRecorder) -> Distribution:
    distance, at_us = kolmogorov_smirnov(live, simulated)
    return Distribution(
        name=name,
        live=msgspec.to_builtins(live.percentiles()),
        simulated=msgspec.to_builtins(simulated.percentiles()),
        distance=distance,
        at_s=None if at_us is None else at_us * _US,
    )


def kolmogorov_smirnov(one: LatencyRecorder, other: LatencyRecorder) -> tuple[float | None, int | None]:
    """The largest difference of the two shares of latencies up to any value, and that value in microseconds; None and
    None where either is empty. Values are those of the recorders' counters: within 0.1 %."""
    total, total_other = len(one), len(other)
    if not total or not total_other:
        return None, None
    counts, counts_other = dict(one.counts()), dict(other.counts())
    seen = seen_other = 0
    largest, where = 0.0, 0
    for value in sorted({**counts, **counts_other}):
        seen += counts.get(value, 0)
        seen_other += counts_other.get(value, 0)
        difference = abs(seen / total - seen_other / total_other)
        if difference > largest:
            largest, where = difference, value
    return largest, where
