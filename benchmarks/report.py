"""How long a report takes and how large it gets, of a made-up run of 10,000 devices: values as a run leaves them.

Nothing is simulated: what a report costs depends on what a run has to tell, and this one has as much as the limits of
its files allow: 2,000 intervals, 128 slots, 40 faults, and every device not in step.
"""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import Final

from benchmarks.measure import Effort, Result, seconds
from reports.html import render
from reports.result import DeviceRow, FaultWindow, LatencyPhase, LatencySlot, Row, RunResult
from reports.rundir import load_run, write_report, write_run
from reports.summary import Check, Counts, Latency, Part, Percentiles, Summary

QUESTION = "how long does a report of 10,000 devices take?"
DEVICES: Final = 10_000
INTERVALS: Final = 2_000
STEP_S: Final = 10.0
FAULTS: Final = 40
SLOTS: Final = 128


def run(effort: Effort) -> Result:
    result = Result("report", QUESTION)
    made = made_up(DEVICES)
    first = seconds(lambda _: render(made), 1)
    result.add("page, the first in a process", [first], "s CPU", "imports matplotlib and pandas")
    again = [seconds(lambda _: render(made), 1) for _ in range(min(effort.repeats, 5))]
    result.add("page", again, "s CPU")
    with tempfile.TemporaryDirectory(prefix="fleet-benchmark-") as scratch:
        folder = Path(scratch) / "run"
        result.add("whole run directory", [seconds(lambda _: write_run(made, folder), 1)], "s CPU")
        result.add("read a run directory", [seconds(lambda _: load_run(folder), 1)], "s CPU")
        result.add("fleet report", [seconds(lambda _: write_report(folder), 1)], "s CPU")
        result.add("report.html", [(folder / "report.html").stat().st_size / 1e6], "MB", "at most 2")
        result.add("figures.json", [(folder / "figures.json").stat().st_size / 1e6], "MB")
    return result


def made_up(devices: int) -> RunResult:
    """A run with as much to tell as there can be, in numbers that look like some."""
    latency = Latency(up=_percentiles(0.1), down=_percentiles(0.4))
    counts = {"local_writes": 500_000, "updates_synced": 700_000, "devices": devices // 8, "messages_up": 600_000}
    parts = {f"part-{n}": Part(counts=counts, latency_s=latency) for n in range(8)}
    end_s = INTERVALS * STEP_S
    return RunResult(
        summary=Summary(
            scenario="made-up",
            seed=1,
            verdict="fail",
            devices=devices,
            virtual_s=end_s,
            counts=Counts(local_writes=4_000_000),
            latency_s=latency,
            probes={f"probe_{n}": n for n in range(60)},
            checks=[Check(name=f"check-{n}", status="pass" if n else "fail", checked=10**6) for n in range(32)],
            groups=parts,
            models=parts,
        ),
        timeline=[_row(n, devices) for n in range(INTERVALS)],
        faults=[_fault(n, end_s) for n in range(FAULTS)],
        devices=[DeviceRow(device=f"home-{n:05}", group="home", reason="outbox-waits") for n in range(devices)],
        scenario_yaml="name: made-up\n" * 200,
        phases=[
            LatencyPhase(name=name, seconds=1000.0, latency_s=latency, up=_counts(n), down=_counts(n + 3))
            for n, name in enumerate(("before", "during", "after"))
        ],
        slots=[LatencySlot(n * end_s / SLOTS, _counts(n), _counts(n + 5)) for n in range(SLOTS)],
    )


def _row(n: int, devices: int) -> Row:
    wave = 1 + math.sin(n / 9) / 2 + math.sin(n * 1.7) / 5
    columns = (
        "writes_device", "writes_cloud", "synced", "messages_up", "messages_down", "messages_lost", "connects",
        "disconnects", "retransmits", "conflicts", "snapshots", "duplicates", "throttled", "outbox", "feed_lag",
    )  # fmt: skip
    row: Row = {"t_s": n * STEP_S, "online": round(devices * wave / 2), "converged": round(devices * wave / 2.1)}
    row.update((name, round(wave * 1000 / (k + 1))) for k, name in enumerate(columns))
    return row


def _fault(n: int, end_s: float) -> FaultWindow:
    start_s = end_s * (0.1 + 0.02 * n)
    return FaultWindow(
        name=f"fault-{n}",
        kind=f"kind-{n % 9}",
        start_s=start_s,
        end_s=start_s + 300,
        healed_s=start_s + 310,
        recovered_s=start_s + 700,
        devices=900,
    )


def _percentiles(p50: float) -> Percentiles:
    return Percentiles(count=4_000_000, p50=p50, p90=3 * p50, p99=9 * p50, p999=80 * p50, max=900 * p50)


def _counts(n: int) -> list[tuple[int, int]]:
    """600 counters, about nine doublings."""
    return [(round(20_000 * 2 ** (k / 64)), 1 + (k * 7 + n) % 90) for k in range(600)]
