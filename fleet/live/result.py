"""A live run as a RunResult, the same that a simulated one gives: performed, judged, compared, in numbers.

Measures real time and memory; decides nothing. Called by `fleet live` and by tests.
"""

from __future__ import annotations

import os
import resource
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from agent.protocol.schema import Schema
from fleet.live.applied import applied, countable
from fleet.live.attach import check_of
from fleet.live.clock import monotonic_us
from fleet.live.comparison import compared
from fleet.live.judge import Verdict, gathered, judged
from fleet.live.run import Finished, Live
from fleet.live.scaling import scaled
from fleet.live.script import CloudOp, Simulated, Totals, applications, count_models, simulated
from fleet.live.setup import Asked
from fleet.run import checks_of, judge, versions
from fleet.scenario.plan import DevicePlan, Plan
from fleet.world.world import OnProgress
from reports.live import LiveRun, NotApplied
from reports.result import DeviceRow, FaultWindow, RunResult
from reports.summary import Counts, Latency, Summary

BACKEND: Final = "live"
_COUNTED: Final = ("messages_up", "messages_down", "bytes_up", "bytes_down", "connects", "disconnects")


class Interrupted(Exception):
    """Before anything was started: there is nothing to report."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A plan as it is run live: at its speed, with the faults that have a real counterpart; and simulated."""

    plan: Plan
    not_applied: list[NotApplied]
    simulated: Simulated


def prepared(
    plan: Plan, speed: float, stopped: Callable[[], bool] | None = None, attach: Sequence[str] = ()
) -> Prepared:
    """Simulates the plan, for what its applications do and to compare with. `attach`: devices for which applications in
    the cloud write too. Raises InputError, and Interrupted."""
    done, left = applied(plan)
    quick = scaled(done, speed)
    found = simulated(quick, stopped)
    if found is None:
        raise Interrupted
    if attach:
        found.cloud_ops = sorted([*found.cloud_ops, *_for_attached(quick, attach)], key=lambda op: op.at_us)
    quick, uncounted = countable(quick, found.probes)
    return Prepared(quick, left + uncounted, found)


def _for_attached(plan: Plan, attach: Sequence[str]) -> list[CloudOp]:
    """What applications in the cloud write for these devices, as members of the first group."""
    workloads = [
        workload
        for workload in plan.workloads
        if workload.side == "cloud" and workload.scope == "device" and (workload.groups is None or 0 in workload.groups)
    ]
    devices = [DevicePlan(device, 0) for device in attach]
    found = simulated(msgspec.structs.replace(plan, devices=devices, workloads=workloads, faults=[]))
    return [] if found is None else found.cloud_ops


def perform(
    ready: Prepared,
    asked: Asked,
    folder: Path,
    *,
    reproduce: str = "",
    scenario_yaml: str = "",
    on_progress: OnProgress | None = None,
    stopped: Callable[[], bool] = lambda: False,
    say: Callable[[str], object] = lambda _: None,
    before_final: Callable[[Live], Awaitable[object]] | None = None,
) -> RunResult:
    """Raises LiveFailed, and InputError for what was given and cannot be used. `folder`: empty, for the run's files."""
    began_us, cpu_s = monotonic_us(), _cpu_s()
    plan = ready.plan
    live = Live(
        plan,
        ready.simulated,
        asked,
        folder,
        on_progress=on_progress,
        stopped=stopped,
        say=say,
        before_final=before_final,
    )
    finished = live.run()
    devices = [device.id for device in plan.devices]
    seen = gathered(folder, devices)
    verdict = judged(
        plan, live.schema, finished.clock, seen, finished.commits, finished.table, finished.end_us, live.is_foreign
    )
    summary = _summary(ready, asked, finished, verdict)
    summary.reproduce = reproduce
    summary.wall_s = round((monotonic_us() - began_us) / 1e6, 3)
    summary.cpu_s = round(_cpu_s() - cpu_s, 3)
    summary.rss_mb_max = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)
    windows = _windows(plan, finished, verdict)
    judge(summary, plan, verdict.timeline, windows)
    rows = _rows(plan, finished)
    return RunResult(
        summary=summary,
        timeline=verdict.timeline,
        faults=windows,
        devices=rows,
        scenario_yaml=scenario_yaml,
        plan_json=plan.encode(),
        log=_log(summary, finished, rows),
        phases=verdict.latencies.phases(),
        slots=verdict.latencies.slots(),
        versions=versions(),
    )


def _cpu_s() -> float:
    """Of this process and of all that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _summary(ready: Prepared, asked: Asked, finished: Finished, verdict: Verdict) -> Summary:
    plan, oracle = ready.plan, verdict.oracle
    probes = Counter({name: count for name, count in verdict.counts.items() if name not in _COUNTED})
    probes.update(finished.relay_counts)
    counts = verdict.counts
    schema = Schema.parse(plan.schema_text, plan.schema_file)
    totals = Totals(
        local_writes=oracle.local_writes - verdict.answers,
        cloud_writes=oracle.cloud_writes,
        updates_synced=oracle.updates_synced,
        items=count_models(schema, verdict.state),
    )
    state = applications(schema, verdict.state)
    complete = finished.table is not None
    return Summary(
        scenario=plan.scenario,
        seed=plan.seed,
        verdict="unknown",
        backend=BACKEND,
        devices=len(plan.devices),
        virtual_s=finished.end_us / 1e6,
        counts=Counts(
            local_writes=oracle.local_writes,
            cloud_writes=oracle.cloud_writes,
            updates_synced=oracle.updates_synced,
            messages_up=counts["messages_up"],
            messages_down=counts["messages_down"],
            bytes_up=counts["bytes_up"],
            bytes_down=counts["bytes_down"],
            connects=counts["connects"],
            disconnects=counts["disconnects"],
            reboots=finished.reboots,
            retransmits=probes["retransmit"],
            snapshots=probes["snapshot_loaded"],
            conflicts=probes["conflict_lost"],
        ),
        latency_s=Latency(up=verdict.latency_up.percentiles(), down=verdict.latency_down.percentiles()),
        converged_after_s=oracle.converged_after_s if finished.converged and complete else None,
        probes=dict(sorted(probes.items())),
        checks=checks_of(verdict.checks, plan.checks) + ([check_of(finished.attached)] if finished.attached else []),
        plant=plan.plant,
        interrupted=not complete,
        groups=verdict.latencies.by_group(),
        models=verdict.latencies.by_model(),
        live=LiveRun(
            speed=asked.speed,
            broker=finished.broker,
            table=finished.table_address,
            relays=finished.relays,
            processes=finished.processes,
            not_applied=ready.not_applied,
            attached=finished.attached,
            comparison=compared(totals, state, verdict.latency_up, verdict.latency_down, ready.simulated)
            if complete
            else None,
        ),
    )


def _windows(plan: Plan, finished: Finished, verdict: Verdict) -> list[FaultWindow]:
    windows = []
    for fault in plan.faults:
        if not fault.events or fault.at_us >= finished.end_us:
            continue
        healed = finished.healed_us.get(fault.name)
        recovered = None if healed is None else _recovered(verdict, healed)
        windows.append(
            FaultWindow(
                name=fault.name,
                kind=fault.kind,
                start_s=fault.at_us / 1e6,
                end_s=min(fault.until_us, finished.end_us) / 1e6,
                healed_s=None if healed is None else healed / 1e6,
                recovered_s=None if recovered is None or healed is None else healed / 1e6 + recovered,
                devices=finished.touched.get(fault.name, 0),
            )
        )
    return windows


HEALS_WITHIN_US: Final = 1_000_000  # a heal is told a moment after it is done


def _recovered(verdict: Verdict, healed_us: int) -> float | None:
    return next(
        (seconds for at_us in verdict.healed if 0 <= at_us - healed_us <= HEALS_WITHIN_US
         and (seconds := verdict.oracle.recovered_s(at_us)) is not None),
        None,
    )  # fmt: skip


def _rows(plan: Plan, finished: Finished) -> list[DeviceRow]:
    """Devices that are not in step at the end, with the reason."""
    rows = []
    for device in plan.devices:
        status, behind = finished.status[device.id], finished.behind[device.id]
        if not status["on"]:
            reason = "no-power"
        elif status["rows"]:
            reason = "outbox-waits"
        elif behind or not status["cursors"]:
            reason = "feed-behind" if status["online"] else "offline"
        else:
            continue
        rows.append(
            DeviceRow(
                device=device.id,
                group=plan.groups[device.group].name,
                reason=f"{reason}: {status['trouble']}" if status.get("trouble") else reason,
                state=status["state"],
                outbox=status["rows"],
                cursor=" ".join(behind),
            )
        )
    return rows


def _log(summary: Summary, finished: Finished, rows: list[DeviceRow]) -> list[str]:
    live = summary.live
    assert live is not None
    lines = [
        f"{summary.scenario} seed {summary.seed}: {summary.devices} devices in {live.processes} processes, "
        f"{live.relays} relays, broker {live.broker}, table {live.table}, {finished.end_us / 1e6:.0f} s"
    ]
    lines += [f"{at / 1e6:.3f} s: {name} healed" for name, at in sorted(finished.healed_us.items(), key=lambda e: e[1])]
    lines += [f"not applied: {one.name} ({one.kind}): {one.why}" for one in live.not_applied]
    lines += [f"{row.device}: {row.reason} ({row.state}, outbox {row.outbox})" for row in rows]
    return lines
