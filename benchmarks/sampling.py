"""Where the CPU time of a run goes: the stack is looked at every few milliseconds of CPU time, and counted by room.

A sample costs the program nothing in between, so that small functions are not blamed for being measured. Time inside
SQLite and other C code counts for the module that called it. One thread, Linux and macOS (SIGPROF).
"""

from __future__ import annotations

import signal
from collections import Counter
from pathlib import Path
from types import FrameType

from benchmarks.measure import Effort, Result, Row
from benchmarks.plans import outage
from fleet.run import execute

QUESTION = "where does the time of a run go?"
EVERY_S = 0.002
MODULES = 15  # shown
OTHER = "other"
_ROOT = str(Path(__file__).resolve().parent.parent) + "/"
_OURS = tuple(_ROOT + room for room in ("agent/", "cloud/", "fleet/", "reports/"))
# The first that fits names the room.
ROOMS = (
    ("agent/protocol/", "agent.protocol: schema, messages"),
    ("agent/", "agent: database, session"),
    ("cloud/memory", "cloud: the table in memory"),
    ("cloud/table_rules", "cloud: the table in memory"),
    ("cloud/", "cloud: relay"),
    ("fleet/oracle/", "fleet.oracle"),
    ("fleet/world/clock", "fleet.world: clock"),
    ("fleet/world/", "fleet.world: broker, devices, workers"),
    ("fleet/trace", "fleet.trace"),
    ("fleet/", "fleet: the rest"),
    ("reports/", "reports"),
)


class Sampler:
    """Counts samples by module. OTHER is what is no part of this project: a room of its own, and no module."""

    def __init__(self) -> None:
        self.modules: Counter[str] = Counter()

    def __call__(self, _signal: int, frame: FrameType | None) -> None:
        # What a library does is counted for the module of ours that asked for it.
        while frame is not None and not frame.f_code.co_filename.startswith(_OURS):
            frame = frame.f_back
        self.modules[OTHER if frame is None else frame.f_code.co_filename.removeprefix(_ROOT)] += 1

    @property
    def samples(self) -> int:
        return self.modules.total()


def room_of(module: str) -> str:
    return next((room for prefix, room in ROOMS if module.startswith(prefix)), OTHER)


def run(effort: Effort) -> Result:
    plan = outage(effort)
    execute(plan)  # warm: imports and caches are no part of a long run
    sampler = Sampler()
    before = signal.signal(signal.SIGPROF, sampler)
    signal.setitimer(signal.ITIMER_PROF, EVERY_S, EVERY_S)
    try:
        for _ in range(1 if effort.small else 3):
            execute(plan)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
    return profile_of(sampler)


def profile_of(sampler: Sampler) -> Result:
    result = Result("profile", QUESTION)
    total = max(sampler.samples, 1)
    rooms: Counter[str] = Counter()
    for module, samples in sampler.modules.items():
        rooms[room_of(module)] += samples
    for room, samples in sorted(rooms.items(), key=lambda entry: (-entry[1], entry[0])):
        result.rows.append(Row(room, 100 * samples / total, "%", samples, 0.0, "room"))
    modules = {module: samples for module, samples in sampler.modules.items() if module != OTHER}
    for module, samples in sorted(modules.items(), key=lambda entry: (-entry[1], entry[0]))[:MODULES]:
        result.rows.append(Row(module, 100 * samples / total, "%", samples, 0.0, "module"))
    return result
