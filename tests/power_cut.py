"""Cuts the power at every point of a recorded run, and says which states of the database a machine then finds.

A run is recorded twice: on a real file through the standard sqlite3 module (`reference`: which states there are, one
after the other), and on the simulated disk (`record`: what was asked of it, and when each call had returned). A cut in
the middle of a call may leave the state before it, after it, or one between two transactions that the call is allowed
to make; a cut between two calls, only what the first one left. A state is the whole database, row for row. Used by
test_power_cut.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from device_rig import dump, fresh_memory, memory_of
from power_scenario import RECOVERY, STEPS, Life, Step
from simulated_disk import LOG_PAGES, SHORT_LOG_PAGES, Disk, Fate, Files, Op, Platter, abandon, connect

from agent.files import open_file
from agent.store import Store
from fleet.rng import rng

State = dict[str, list[tuple[Any, ...]]]
NEW: Final[State] = {}  # no database yet


@dataclass
class Recording:
    """`states[0]` is before the first step; `states[k]` has those that step k went through, its last one at the end.
    `marks[k]`: the operations asked of the disk when step k had returned."""

    names: list[str] = field(default_factory=lambda: ["the start"])
    states: list[list[State]] = field(default_factory=lambda: [[NEW]])
    marks: list[int] = field(default_factory=lambda: [0])
    start: Files = field(default_factory=dict)
    log: Sequence[Op] = ()

    def allowed(self, done: int) -> tuple[str, list[State]]:
        """What may be found when the power fails after `done` operations, and a name for that moment."""
        returned = max(k for k, mark in enumerate(self.marks) if mark <= done)
        last = self.states[returned][-1]
        if self.marks[returned] == done or returned + 1 == len(self.marks):
            return f"after {self.names[returned]}", [last]
        return f"during {self.names[returned + 1]}", [last, *self.states[returned + 1]]


_READS = ("SELECT", "WITH", "PRAGMA")  # a store only asks what pragmas say


def watched(seen: Callable[[], None]) -> type[Store]:
    """A store that calls `seen` after everything that is durable by itself."""

    class Watched(Store):
        def __init__(self, opened: sqlite3.Connection) -> None:
            super().__init__(opened)
            execute = self.execute

            def executed(sql: str, values: Any = (), /) -> sqlite3.Cursor:
                cursor = execute(sql, values)
                if not opened.in_transaction and not sql.lstrip().startswith(_READS):
                    seen()
                return cursor

            self.execute = executed

    return Watched


class Unwrapped(Store):
    """A store that has forgotten transactions: each statement stands alone. For tests of the checks."""

    def transaction(self) -> AbstractContextManager[None]:  # type: ignore[override]
        return nullcontext()


class UnexpectedError(Exception):
    """A step did not do what its line in the scenario says, power cut or not."""


def live(
    opened: Callable[[], sqlite3.Connection],
    steps: Sequence[Step],
    start: State,
    done: Callable[[], int] = lambda: 0,
    check: bool = True,
) -> Recording:
    """Goes through `steps` and writes down the states. `start`: what `opened` finds at first; `done`: operations asked
    of the disk so far. Raises UnexpectedError, if `check`, when a step makes another number of transactions than it is
    allowed to, or leaves another outbox than it should."""
    recording = Recording(states=[[start]], marks=[done()])
    connections: list[sqlite3.Connection] = []
    found = [start]

    def watched_opened() -> sqlite3.Connection:
        connections.append(opened())
        return connections[-1]

    def look() -> None:
        state = dump(connections[-1])
        if state != found[-1]:
            found.append(state)

    life = Life(watched_opened, watched(look))
    for step in steps:
        step.act(life)
        states, found[:] = found[1:], found[-1:]
        if check and len(states) != step.commits:
            raise UnexpectedError(f"{step.name}: {len(states)} transactions, {step.commits} are allowed")
        if check and life.outbox() != step.outbox:
            raise UnexpectedError(f"{step.name}: in the outbox are {life.outbox()}, not {step.outbox}")
        recording.names.append(step.name)
        recording.states.append(states or [recording.states[-1][-1]])
        recording.marks.append(done())
    if life.device.powered:
        life.close()
    return recording


def reference(file: Path, steps: Sequence[Step] = STEPS) -> Recording:
    """On a real file, through the standard module. Raises UnexpectedError."""
    return live(lambda: open_file(file), steps, NEW)


def record(
    known: Recording,
    disk: Disk,
    *pragmas: str,
    log_pages: int = LOG_PAGES,
    store_type: type[Store] = Store,
    steps: Sequence[Step] = STEPS,
) -> Recording:
    """On the simulated disk. The states are those of `known`, and each step must end in its own: UnexpectedError."""
    recording = Recording(known.names, known.states)
    life = Life(lambda: connect(disk, *pragmas, log_pages=log_pages), store_type)
    for k, step in enumerate(steps, 1):
        step.act(life)
        if life.device.powered and life.device.dump() != known.states[k][-1]:
            raise UnexpectedError(f"{step.name}: another state than on a real file")
        recording.marks.append(len(disk.log))
    recording.log = tuple(disk.log)
    abandon(life.device.connection)
    return recording


def record_recovery(files: Files) -> Recording:
    """What the machine does that boots with these files: opens the database, writes again, closes it."""
    disk = Disk(files)
    start = boots_to(files)
    recording = live(
        lambda: connect(disk, log_pages=SHORT_LOG_PAGES), RECOVERY, start, lambda: len(disk.log), check=False
    )
    recording.start = files
    recording.log = tuple(disk.log)
    return recording


# ---------------------------------------------------------------- cutting


def boots_to(files: Files) -> State:
    """What a machine finds that boots with these files. Raises whatever it meets when they are not sound."""
    connection = connect(Disk(files))
    try:
        check = connection.execute("PRAGMA integrity_check").fetchall()
        if check != [("ok",)]:
            raise UnexpectedError(f"integrity_check: {check}")
        store = Store(connection)
        if store.is_new():
            return NEW
        store.load()
        if memory_of(store) != fresh_memory(connection):
            raise UnexpectedError("the store remembers what the file does not say")
        return dump(connection)
    finally:
        abandon(connection)


@dataclass
class Result:
    """`points`: power cuts tried, one per operation and fate; `disks`: how many different disks they left."""

    points: int = 0
    disks: int = 0
    failures: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.points} power cuts, {self.disks} different disks, {len(self.failures)} failures"

    def add(self, other: Result) -> None:
        self.points += other.points
        self.disks += other.disks
        self.failures += other.failures


def crashes(recording: Recording, fates: dict[str, Fate], seed: int = 1) -> Iterator[tuple[int, str, Files]]:
    """Every cut: operations done, the name of the fate, the files that are left."""
    platter = Platter(recording.start, recording.log)
    while True:
        for name, fate in fates.items():
            draw = rng(seed, f"{platter.done}", name)
            yield platter.done, name, platter.after(fate, draw)
        if platter.done == len(recording.log):
            return
        platter.step()


def cut_everywhere(recording: Recording, fates: dict[str, Fate], seed: int = 1, failures_max: int = 1_000) -> Result:
    """Cuts the power after every operation, with every fate of what was pending. Ends early at `failures_max`."""
    result = Result()
    known: dict[bytes, State | str] = {}
    for done, fate, files in crashes(recording, fates, seed):
        result.points += 1
        mark = digest(files)
        if mark not in known:
            try:
                known[mark] = boots_to(files)
            except Exception as error:
                known[mark] = f"{type(error).__name__}: {error}"
        found = known[mark]
        moment, allowed = recording.allowed(done)
        if found not in allowed:
            what = found if isinstance(found, str) else place(recording, found)
            result.failures.append(f"{fate} at {done} of {len(recording.log)}, {moment}: {what}")
            if len(result.failures) >= failures_max:
                break
    result.disks = len(known)
    return result


def cut_recoveries(recording: Recording, fates: dict[str, Fate], every: int, seed: int = 1) -> Result:
    """Cuts the power, and then again at every operation of what the machine does that boots: for the first of every so
    many different disks that the first cut leaves."""
    result = Result()
    known: set[bytes] = set()
    for done, fate, files in crashes(recording, fates, seed):
        mark = digest(files)
        if mark in known:
            continue
        known.add(mark)
        if len(known) % every == 1 or every == 1:
            again = cut_everywhere(record_recovery(files), fates, seed)
            again.failures = [f"{fate} at {done}, then {failure}" for failure in again.failures]
            result.add(again)
    return result


def digest(files: Files) -> bytes:
    total = hashlib.blake2b(digest_size=16)
    for name, data in sorted(files.items()):
        total.update(f"{name} {len(data)} ".encode())
        total.update(data)
    return total.digest()


def place(recording: Recording, state: State) -> str:
    """Which of the run's states that is."""
    for name, states in zip(recording.names, recording.states, strict=True):
        if state in states:
            return f"found the state of {name}"
    return "found a state that never was: a part of a transaction"
