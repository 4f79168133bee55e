"""What people see of a live run beyond a simulated one: what was real, how it compares, what was not applied.

Makes text from values. Called by reports.terminal and reports.html.
"""

from __future__ import annotations

from reports.live import Attached, Comparison, Distribution, LiveRun
from reports.text import printable, seconds_text

QUANTILES = ("p50", "p90", "p99")


def parts_of(live: LiveRun) -> str:
    """`50 agents' processes · 2 relays · broker mosquitto · table moto · speed 20`."""
    processes = f"{live.processes:,} process{'es' if live.processes != 1 else ''} of agents"
    relays = f"{live.relays} relay{'s' if live.relays != 1 else ''}"
    broker = "WebSocket to the relay" if live.broker == "websocket" else f"broker {printable(live.broker, 60)}"
    return f"{processes} · {relays} · {broker} · table {printable(live.table, 60)} · speed {live.speed:g}"


def verdict_of(comparison: Comparison) -> str:
    """In a few words."""
    other = [total for total in comparison.totals if not total.equal]
    if not other:
        return f"all {len(comparison.totals)} totals equal those of the simulation"
    return f"{len(other)} of {len(comparison.totals)} totals differ from the simulation's"


def items_of(comparison: Comparison) -> str:
    return f"{comparison.same_items:,} of {comparison.items:,} items of the table ended in the same state"


def distance_of(latency: Distribution) -> str:
    if latency.distance is None or latency.at_s is None:
        return "nothing to compare"
    return f"distance {latency.distance:.2f} at {seconds_text(latency.at_s)}"


def quantiles_of(latency: Distribution) -> list[tuple[str, str, str]]:
    """(quantile, live, simulated)."""
    return [(name, seconds_text(latency.live[name]), seconds_text(latency.simulated[name])) for name in QUANTILES]


def attached_of(device: Attached) -> str:
    said = f"{device.hellos} hellos, {device.batches} batches, {device.acks} acks, {device.items} items in the table"
    return f"{said}: {printable(device.detail, 200)}" if device.detail else said
