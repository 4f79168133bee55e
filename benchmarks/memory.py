"""Bytes of memory for each device: growth of the resident set in a child process, which holds nothing else.

`python -m benchmarks.memory KIND DEVICES` is that child: it prints how much it grew. Linux only (/proc).
"""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.measure import Effort, Result

QUESTION = "how much memory does a device take?"
DEVICES = 1000
DEVICES_QUICK = 200
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
# kind -> what it says
KINDS = {
    "database": "an open database with one item, not in a world",
    "boot": "a simulated device, booted and in step",
    "hour": "the same after an hour of writes of the outage scenario, without its faults",
}


def resident_bytes() -> int:
    """Of this process, now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE_BYTES


def _databases(devices: int) -> Any:
    from agent.files import open_memory
    from benchmarks.ground import database, load_schema, properties

    schema = load_schema()
    made = []
    for _ in range(devices):
        db = database(open_memory(), schema)
        db.upsert("Status", properties(1))
        made.append(db)
    return made


def _world(devices: int, minutes: int) -> Any:
    from fleet.scenario.build import build_plan
    from fleet.scenario.load import load
    from fleet.world.world import World

    world = World(build_plan(load("outage", ["faults=[]"], devices)))
    world.clock.run_until(minutes * 60_000_000)
    return world


def _make(kind: str, devices: int) -> Any:
    if kind == "database":
        return _databases(devices)
    return _world(devices, 3 if kind == "boot" else 63)


def child(kind: str, devices: int) -> int:
    """Bytes by which this process grows when it gets the devices."""
    kept = [_make(kind, 2)]  # imports, caches and pools are there before
    gc.collect()
    before = resident_bytes()
    kept.append(_make(kind, devices))
    gc.collect()
    return resident_bytes() - before


def _measure(kind: str, devices: int) -> float:
    command = [sys.executable, "-m", "benchmarks.memory", kind, str(devices)]
    root = Path(__file__).resolve().parent.parent
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    return int(done.stdout) / devices / 1024


def run(effort: Effort) -> Result:
    result = Result("memory", QUESTION)
    devices = DEVICES_QUICK if effort.small else DEVICES
    for kind, note in KINDS.items():
        if effort.small and kind == "hour":
            continue
        values = [_measure(kind, devices) for _ in range(min(effort.repeats, 1 if effort.small else 3))]
        result.add(f"device, {kind}", values, "KB", f"{note}; {devices:,} devices")
    return result


if __name__ == "__main__":
    print(child(sys.argv[1], int(sys.argv[2])))
