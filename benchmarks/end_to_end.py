"""Synced updates a second of CPU time, end to end: databases, sessions, relay, broker, faults, oracle and trace."""

from __future__ import annotations

from benchmarks.measure import Effort, Result
from benchmarks.plans import outage
from fleet.run import execute

QUESTION = "how many updates does a simulation bring across?"


def run(effort: Effort) -> Result:
    result = Result("end-to-end", QUESTION)
    plan = outage(effort)
    updates: list[float] = []
    messages: list[float] = []
    speeds: list[float] = []
    for _ in range(min(effort.repeats, 5)):
        summary = execute(plan).summary
        counts, cpu_s = summary.counts, max(summary.cpu_s, 1e-3)
        updates.append(counts.updates_synced / cpu_s)
        messages.append((counts.messages_up + counts.messages_down) / cpu_s)
        speeds.append(summary.virtual_s * len(plan.devices) / cpu_s)
    size = f"{len(plan.devices)} devices, {plan.duration_us // 60_000_000} min, outage"
    result.add("synced updates", updates, "1/s", size)
    result.add("one synced update", [1e6 / value for value in updates], "µs CPU", size)
    result.add("messages", messages, "1/s", size)
    result.add("virtual seconds of one device", speeds, "1/s", size)
    return result
