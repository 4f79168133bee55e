"""From a finished run's plain values to files and tables that people read. Never imports the simulator."""

from __future__ import annotations

from reports.result import Checkpoint, DeviceRow, FaultWindow, RunResult
from reports.rundir import RunDirError, load_run, write_run
from reports.summary import Check, Counts, Latency, Percentiles, Summary, Threshold, exit_code, verdict

__all__ = [
    "Check",
    "Checkpoint",
    "Counts",
    "DeviceRow",
    "FaultWindow",
    "Latency",
    "Percentiles",
    "RunDirError",
    "RunResult",
    "Summary",
    "Threshold",
    "exit_code",
    "load_run",
    "verdict",
    "write_run",
]
