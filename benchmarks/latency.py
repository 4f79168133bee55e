"""Latencies a second into the recorder that the oracle fills: it is called for every synced update."""

from __future__ import annotations

from benchmarks.measure import Effort, Result, rates
from fleet.rng import rng
from reports.histogram import LatencyRecorder

QUESTION = "what does it cost to record a latency?"


def run(effort: Effort) -> Result:
    stream = rng(1, "benchmark", "latency")
    values = [int(stream.lognormal(80_000, 1.0)) for _ in range(4096)]

    def work(n: int) -> None:
        add = LatencyRecorder().add
        for i in range(n):
            add(values[i & 4095])

    result = Result("latency", QUESTION)
    result.add("LatencyRecorder.add", rates(work, effort), "1/s")
    return result
