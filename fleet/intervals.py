"""The timeline of a run from outside: its columns, and how long one of its intervals is.

Beside the timeline itself (fleet.world.timeline) because a scenario's thresholds name columns and windows long before
there is a world. Columns are explained in reports.result.
"""

from __future__ import annotations

from typing import Final

from fleet.scenario.plan import Plan

ROWS_MAX: Final = 2_000
COUNTERS: Final = (
    "writes_device", "writes_cloud", "synced", "messages_up", "messages_down", "messages_lost", "connects",
    "disconnects", "retransmits", "conflicts", "snapshots", "duplicates", "throttled",
)  # fmt: skip
VALUES: Final = ("online", "outbox", "feed_lag", "converged")
LATENCIES: Final = (
    "up_p50_s", "up_p90_s", "up_p99_s", "down_p50_s", "down_p90_s", "down_p99_s",
)  # fmt: skip  # missing where nothing was measured


def interval_us(plan: Plan) -> int:
    """The plan's own, doubled until the longest run has at most ROWS_MAX of them."""
    return widened(plan.interval_us, plan.duration_us + plan.converge_within_us + plan.quiesce_us)


def widened(interval: int, longest: int) -> int:
    """`interval`, doubled until so long a run has at most ROWS_MAX of them. Both in microseconds."""
    while longest > interval * ROWS_MAX:
        interval *= 2
    return interval
