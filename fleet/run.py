"""Runs a plan and puts what came out into a RunResult: the one place that measures real time, memory and the harness.

The virtual world does not see any of it. Called by `fleet run` and `fleet replay`, and by tests and benchmarks.
"""

from __future__ import annotations

import gc
import json
import platform
import resource
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final

import msgspec

from agent.protocol.version import __version__
from fleet.backends.opening import MEMORY, Backend, opened
from fleet.native.finder import compiled
from fleet.native.pages import of_this_process
from fleet.oracle import CheckResult
from fleet.plants import types_with
from fleet.scenario.expect import parse_threshold
from fleet.scenario.plan import Plan
from fleet.trace import Event, line_of
from fleet.world.world import OnProgress, World
from reports.result import Checkpoint, DeviceRow, FaultWindow, RunResult, Violation
from reports.summary import Check, Counts, Latency, Summary, Threshold, verdict

_GC_THRESHOLDS: Final = (500_000, 50, 1000)  # few cycles are made: looking for them often only costs


@dataclass(frozen=True, slots=True)
class Request:
    """How a run was asked for; what `reproduce` says and where a trace goes."""

    reproduce: str = ""
    scenario_yaml: str = ""
    trace_path: Path | None = None
    backend: Backend = MEMORY


def execute(
    plan: Plan,
    request: Request | None = None,
    on_progress: OnProgress | None = None,
    stopped: Callable[[], bool] | None = None,
    *,
    hashed: bool = True,
) -> RunResult:
    """One run, to the end or until `stopped` says so. `hashed` False: no trace hash, to measure what it costs.

    Raises Unusable when the emulator that was asked for cannot be used, and BackendFailed when it fails on the way."""
    request = request or Request()
    wall, cpu = time.perf_counter(), time.process_time()
    with _little_gc(request.backend.kind), opened(request.backend, plan.cloud) as table:
        world = World(plan, types_with(plan.plant), table=table, trace_path=request.trace_path, hashed=hashed)
        complete = world.run(on_progress, _looking_after_memory(stopped))
        world.finish(complete)
        trace_hash = world.trace.finish()
    summary = _summary(world, plan, request, trace_hash, complete)
    summary.wall_s = round(time.perf_counter() - wall, 3)
    summary.cpu_s = round(time.process_time() - cpu, 3)
    summary.rss_mb_max = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)
    judge(summary, plan)
    return RunResult(
        summary=summary,
        timeline=world.timeline.rows,
        faults=_fault_windows(world, plan),
        devices=[_device_row(row) for row in world.not_done],
        scenario_yaml=request.scenario_yaml,
        plan_json=plan.encode(),
        checkpoints=[Checkpoint(events=e, t_us=t, hash=h) for e, t, h in world.trace.checkpoints],
        log=_log(world, summary),
        versions=versions(),
        violations=[_violation(check) for check in world.checks if check.first],
        events=world.trace.events,
    )


def _looking_after_memory(stopped: Callable[[], bool] | None) -> Callable[[], bool]:
    """`stopped`, which a run asks at every step, and a look at how the process has grown."""
    pages = of_this_process()

    def look() -> bool:
        pages.look()
        return stopped is not None and stopped()

    return look


@contextmanager
def _little_gc(backend: str = "memory") -> Iterator[None]:
    """Of a world in memory; what emulators leave behind is cycles."""
    if backend != "memory":
        yield
        return
    thresholds = gc.get_threshold()
    gc.set_threshold(*_GC_THRESHOLDS)
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)


def judge(summary: Summary, plan: Plan) -> None:
    """Thresholds and verdict, from the numbers that are in the summary by now."""
    numbers = json.loads(msgspec.json.encode(summary))
    summary.thresholds = []
    for expr in plan.thresholds:
        status, actual = parse_threshold(expr).evaluate(numbers)
        summary.thresholds.append(Threshold(expr=expr, status=status, actual=actual))
    summary.verdict = verdict(summary.checks, summary.thresholds, plan.checks)


def checks_of(results: Iterable[CheckResult], required: Iterable[str]) -> list[Check]:
    """The oracle's checks as a summary has them. `required`: names of those that the scenario calls for."""
    called_for = frozenset(required)
    return [
        Check(
            name=check.name,
            status=check.status,
            checked=check.checked,
            detail=check.detail,
            failures=check.failed,
            required=check.name in called_for,
        )
        for check in results
    ]


def _summary(world: World, plan: Plan, request: Request, trace_hash: str, complete: bool) -> Summary:
    oracle, probes, broker = world.oracle, world.probes, world.broker
    traffic = broker.counts()
    return Summary(
        scenario=plan.scenario,
        seed=plan.seed,
        verdict="unknown",
        trace_hash=trace_hash,
        backend=request.backend.kind,
        devices=len(plan.devices),
        virtual_s=world.clock.now / 1e6,
        counts=Counts(
            local_writes=oracle.local_writes,
            cloud_writes=oracle.cloud_writes,
            updates_synced=oracle.updates_synced,
            messages_up=traffic["messages_up"],
            messages_down=traffic["messages_down"],
            messages_lost=traffic["messages_lost"],
            bytes_up=traffic["bytes_up"],
            bytes_down=traffic["bytes_down"],
            connects=traffic["connects"],
            disconnects=traffic["disconnects"],
            reboots=sum(device.reboots for device in world.devices.values()),
            retransmits=probes["retransmit"],
            snapshots=probes["snapshot_loaded"],
            conflicts=probes["conflict_lost"],
        ),
        latency_s=Latency(up=world.latency_up.percentiles(), down=world.latency_down.percentiles()),
        converged_after_s=None if world.converged_us is None else oracle.converged_after_s,
        probes=dict(sorted(probes.items())),
        checks=checks_of(world.checks, plan.checks),
        reproduce=request.reproduce,
        plant=plan.plant,
        interrupted=not complete,
    )


def _fault_windows(world: World, plan: Plan) -> list[FaultWindow]:
    windows = []
    for fault in plan.faults:
        if fault.at_us >= world.clock.now:
            continue
        healed = world.healed_us.get(fault.name)
        recovered = None if healed is None else world.oracle.recovered_s(healed)
        windows.append(
            FaultWindow(
                name=fault.name,
                kind=fault.kind,
                start_s=fault.at_us / 1e6,
                end_s=min(fault.until_us, world.clock.now) / 1e6,
                healed_s=None if healed is None else healed / 1e6,
                recovered_s=None if recovered is None or healed is None else healed / 1e6 + recovered,
                devices=len(world.faults.touched[fault.name]),
            )
        )
    return windows


def _device_row(row: object) -> DeviceRow:
    from fleet.world.world import NotDone

    assert isinstance(row, NotDone)
    return DeviceRow(
        device=row.device,
        group=row.group,
        reason=row.reason,
        state=row.state,
        outbox=row.outbox,
        cursor=row.cursor,
        last_ack_s=None if row.last_ack_us is None else row.last_ack_us / 1e6,
    )


def _violation(check: CheckResult) -> Violation:
    first = check.first[0]
    return Violation(
        check=check.name,
        t_s=first.t_us / 1e6,
        device=first.device,
        item=first.item,
        expected=first.expected,
        found=first.found,
    )


def _log(world: World, summary: Summary) -> list[str]:
    lines = [
        f"{summary.scenario} seed {summary.seed}: {summary.devices} devices, {summary.virtual_s:.0f} s of virtual time"
    ]
    for name, at_us in sorted(world.healed_us.items(), key=lambda entry: entry[1]):
        lines.append(f"{at_us / 1e6:.3f} s: {name} healed")
    if world.converged_us is not None:
        lines.append(f"{world.converged_us / 1e6:.3f} s: the last item became equal")
    lines += [f"{row.device}: {row.reason} ({row.state}, outbox {row.outbox})" for row in world.not_done]
    lines.append(f"{world.trace.events} events, trace hash {summary.trace_hash}")
    return lines


def versions() -> dict[str, str]:
    """What a reader of the report wants to know about the program that made it."""
    return {
        "fleet": __version__,
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "simpy": version("simpy"),
        "msgspec": version("msgspec"),
        "core": "compiled" if compiled() else "interpreted",
    }


@dataclass(frozen=True, slots=True)
class Difference:
    """Where a replay parts from the record: at one event, or within a block of events, whose hashes are then shown."""

    first_event: int
    last_event: int
    at_us: int  # of the last one
    recorded: str
    replayed: str


@dataclass(frozen=True, slots=True)
class Record:
    """What a run left behind for a replay. `until_us`: where it was interrupted, None when it came to its end."""

    trace_hash: str
    checkpoints: list[Checkpoint]
    trace: Iterable[bytes] | None = None
    until_us: int | None = None


def replay(
    plan: Plan,
    record: Record | None = None,
    on_progress: OnProgress | None = None,
    stopped: Callable[[], bool] | None = None,
) -> tuple[str, Difference | None]:
    """Runs a plan again, an interrupted run up to where it was. Returns the hash, and where it parts from the record if
    it does. Raises Interrupted when `stopped` says so."""
    with _little_gc():
        return _replay(plan, record, on_progress, stopped)


class Interrupted(Exception):
    """A replay that was not brought to its end says nothing."""


def _replay(
    plan: Plan,
    record: Record | None,
    on_progress: OnProgress | None,
    stopped: Callable[[], bool] | None,
) -> tuple[str, Difference | None]:
    world = World(plan, types_with(plan.plant))
    comparison = _Comparison(record.trace) if record is not None and record.trace is not None else None
    if comparison is not None:
        world.trace.on_block = comparison.look
    until_us = record.until_us if record is not None else None

    def enough() -> bool:
        if stopped is not None and stopped():
            raise Interrupted
        return until_us is not None and world.clock.now >= until_us

    world.finish(world.run(on_progress, enough))
    trace_hash = world.trace.finish()
    if record is None or trace_hash == record.trace_hash:
        return trace_hash, None
    if comparison is not None:
        comparison.end(world.clock.now)
        if comparison.found is not None:
            return trace_hash, comparison.found
    mine = {c.events: c for c in world.trace.checkpoints}
    before = 0
    for old in record.checkpoints:
        own = mine.get(old.events)
        if own is None or own.hash != old.hash:
            shown = "the replay ends before" if own is None else own.hash
            return trace_hash, Difference(before + 1, old.events, old.t_us, old.hash, shown)
        before = old.events
    events, now = world.trace.events, world.clock.now
    return trace_hash, Difference(before + 1, max(events, before + 1), now, record.trace_hash, trace_hash)


class _Comparison:
    """The recorded trace beside the new one, event by event, until the first that differs."""

    def __init__(self, recorded: Iterable[bytes]) -> None:
        self._recorded = iter(recorded)
        self._count = 0
        self.found: Difference | None = None

    def look(self, block: list[Event]) -> None:
        if self.found is not None:
            return
        for event in block:
            new = line_of(event).rstrip("\n")
            old = next(self._recorded, b"").decode("utf-8", "replace").rstrip("\n")
            self._count += 1
            if new != old:
                self.found = Difference(self._count, self._count, event[0], old or "the record ends here", new)
                return

    def end(self, now_us: int) -> None:
        """The replay is over: the record should be."""
        if self.found is None:
            old = next(self._recorded, b"").decode("utf-8", "replace").rstrip("\n")
            if old:
                self.found = Difference(self._count + 1, self._count + 1, now_us, old, "the replay ends here")
