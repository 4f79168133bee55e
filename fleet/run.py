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
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final

import msgspec

from agent.protocol.version import __version__
from fleet import parts
from fleet.abort import Abort
from fleet.backends.opening import MEMORY, Backend, opened
from fleet.intervals import interval_us
from fleet.native.finder import compiled
from fleet.native.pages import of_this_process
from fleet.oracle import CheckResult
from fleet.plants import types_with
from fleet.quota.setup import asked_of, load_of, quotas_of
from fleet.scenario.expect_grammar import ExpressionError, parse_threshold
from fleet.scenario.expect_grammar import Threshold as Parsed
from fleet.scenario.expect_measure import Finding, Measured, evaluate, from_summary
from fleet.scenario.plan import Plan
from fleet.trace import Event, line_of
from fleet.world.world import OnProgress, Types, World
from reports.result import Checkpoint, DeviceRow, FaultWindow, Row, RunResult, Violation
from reports.summary import Check, Counts, Latency, Summary, Threshold, verdict
from reports.text import clock_text

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
    types: Types | None = None,
) -> RunResult:
    """One run, to the end or until `stopped` says so. `hashed` False: no trace hash, to measure what it costs. `types`:
    what the world is made of, instead of what the plan's plant makes of the real classes.

    Raises Unusable when the emulator that was asked for cannot be used, and BackendFailed when it fails on the way."""
    request = request or Request()
    wall, cpu = time.perf_counter(), time.process_time()
    with _little_gc(request.backend.kind), opened(request.backend, plan.cloud) as table:
        made_of = types_with(plan.plant) if types is None else types
        world = World(plan, made_of, table=table, trace_path=request.trace_path, hashed=hashed)
        abort = Abort(world, plan, _counts, _fault_windows) if plan.aborts else None
        complete = world.run(on_progress, either(abort, _looking_after_memory(stopped)))
        world.finish(complete)
        trace_hash = world.trace.finish()
    summary = _summary(world, plan, request, trace_hash, complete)
    summary.wall_s = round(time.perf_counter() - wall, 3)
    summary.cpu_s = round(time.process_time() - cpu, 3)
    summary.rss_mb_max = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)
    if abort is not None and abort.found is not None:
        summary.aborted, summary.interrupted = abort.found[0].expr, False
    rows, faults = world.timeline.rows, _fault_windows(world, plan)
    judge(summary, plan, rows, faults, None if abort is None else abort.found)
    return RunResult(
        summary=summary,
        timeline=rows,
        faults=faults,
        devices=[_device_row(row) for row in world.not_done],
        scenario_yaml=request.scenario_yaml,
        plan_json=plan.encode(),
        checkpoints=[Checkpoint(events=e, t_us=t, hash=h) for e, t, h in world.trace.checkpoints],
        log=_log(world, summary),
        versions=versions(),
        violations=[_violation(check) for check in world.checks if check.first],
        load=load_of(world),
        asked=asked_of(world),
        phases=world.latencies.phases(),
        slots=world.latencies.slots(),
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


def either(abort: Abort | None, stopped: Callable[[], bool] | None) -> Callable[[], bool] | None:
    """What ends a run early: a threshold, or a person."""
    if abort is None:
        return stopped
    return lambda: abort() or (stopped is not None and stopped())


def judge(
    summary: Summary,
    plan: Plan,
    rows: Sequence[Row] = (),
    faults: Sequence[FaultWindow] = (),
    aborted: tuple[Parsed, Finding] | None = None,
) -> None:
    """Thresholds and verdict, from the numbers that are in the summary by now, the timeline and the faults. `aborted`:
    the threshold that ended the run, as it was found then."""
    run = Measured(
        from_summary(json.loads(msgspec.json.encode(summary))),
        rows,
        faults,
        rows[1]["t_s"] - rows[0]["t_s"] if len(rows) > 1 else interval_us(plan) / 1e6,
        summary.virtual_s,
        summary.devices,
    )
    summary.thresholds = [_judged(expr, expr in plan.aborts, run, aborted) for expr in plan.thresholds]
    summary.verdict = verdict(summary.checks, summary.thresholds, plan.checks)


def _judged(expr: str, aborts: bool, run: Measured, aborted: tuple[Parsed, Finding] | None) -> Threshold:
    """`aborts`: it may end a run early. A plan that somebody changed may hold what is no threshold."""
    if aborted is not None and aborted[0].expr == expr:
        finding = aborted[1]
        detail = f"{finding.detail}; the run was stopped at {clock_text(run.now_s)}"
        return Threshold(expr=expr, status=finding.status, actual=finding.actual, detail=detail, abort=True)
    try:
        finding = evaluate(parse_threshold(expr), run)
    except ExpressionError as error:
        finding = Finding("unknown", detail=str(error))
    return Threshold(expr=expr, status=finding.status, actual=finding.actual, detail=finding.detail, abort=aborts)


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
    oracle, quotas = world.oracle, quotas_of(world)
    return Summary(
        scenario=plan.scenario,
        seed=plan.seed,
        verdict="unknown",
        trace_hash=trace_hash,
        backend=request.backend.kind,
        devices=len(plan.devices),
        virtual_s=world.clock.now / 1e6,
        counts=_counts(world),
        latency_s=Latency(up=world.latency_up.percentiles(), down=world.latency_down.percentiles()),
        converged_after_s=None if world.converged_us is None else oracle.converged_after_s,
        probes=dict(sorted(world.probes.items())),
        checks=checks_of(world.checks, plan.checks),
        reproduce=request.reproduce,
        plant=plan.plant,
        interrupted=not complete,
        quotas=quotas,
        groups=parts.groups(world),
        models=parts.models(world),
    )


def _counts(world: World) -> Counts:
    """By now."""
    oracle, probes, traffic = world.oracle, world.probes, world.broker.counts()
    return Counts(
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

    abort = Abort(world, plan, _counts, _fault_windows) if plan.aborts else None
    world.finish(world.run(on_progress, either(abort, enough)))
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
