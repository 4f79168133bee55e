"""What the trace costs: the same plan with and without its hash, taking turns."""

from __future__ import annotations

from benchmarks.measure import Effort, Result, ratios
from benchmarks.plans import outage
from fleet.run import execute

QUESTION = "what does it cost to hash every event?"


def run(effort: Effort) -> Result:
    result = Result("tracing", QUESTION)
    plan = outage(effort)
    execute(plan)  # warm: caches and pools
    times: dict[bool, list[float]] = {True: [], False: []}
    for repeat in range(min(effort.repeats, 5)):
        for hashed in (True, False) if repeat % 2 else (False, True):
            times[hashed].append(max(execute(plan, hashed=hashed).summary.cpu_s, 1e-3))
    result.add("run, hashed", times[True], "s CPU")
    result.add("run, not hashed", times[False], "s CPU")
    result.add("hashed / not hashed", ratios(times[True], times[False]), "ratio", "less is better")
    return result
