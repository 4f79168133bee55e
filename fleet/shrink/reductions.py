"""What can be taken from a plan as a whole: devices, faults, events, workloads, time. Pure.

Each gives a smaller plan, or None where there is nothing to take or nothing would be left. Called by the shrink.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from msgspec.structs import replace

from fleet.scenario.plan import FaultPlan, Plan, WorkloadPlan
from fleet.shrink.explicit import Event, aimed, spanned

SECOND: int = 1_000_000


def with_devices(plan: Plan, ids: Collection[str]) -> Plan | None:
    """These devices alone, and what concerns them: groups, workloads and faults that are left without any go too."""
    devices = [device for device in plan.devices if device.id in ids]
    if not devices:
        return None
    used = sorted({device.group for device in devices})
    number = {before: index for index, before in enumerate(used)}
    smaller = replace(
        plan,
        groups=[plan.groups[index] for index in used],
        devices=[replace(device, group=number[device.group]) for device in devices],
    )
    workloads = [_of_groups(workload, number) for workload in plan.workloads]
    faults = [_of_devices(smaller, fault, ids) for fault in plan.faults]
    return replace(
        smaller,
        workloads=[workload for workload in workloads if workload is not None],
        faults=[fault for fault in faults if fault is not None],
    )


def _of_groups(workload: WorkloadPlan, number: dict[int, int]) -> WorkloadPlan | None:
    if workload.groups is None:
        return workload
    groups = [number[index] for index in workload.groups if index in number]
    return replace(workload, groups=groups) if groups else None


def _of_devices(plan: Plan, fault: FaultPlan, ids: Collection[str]) -> FaultPlan | None:
    if fault.devices is not None and not any(name in ids for name in fault.devices):
        return None
    regions = {group.region for group in plan.groups}
    if fault.regions is not None and not regions.intersection(fault.regions):
        return None
    fault = replace(
        fault,
        devices=aimed(plan, fault.devices),
        regions=None if fault.regions is None else [region for region in fault.regions if region in regions],
    )
    return with_events(fault, [event for event in fault.events if not event[1] or event[1] in ids])


def with_events(fault: FaultPlan, events: Sequence[Event]) -> FaultPlan | None:
    return spanned(replace(fault, events=list(events))) if events else None


def with_faults(plan: Plan, faults: Sequence[FaultPlan]) -> Plan:
    return replace(plan, faults=list(faults))


def with_workloads(plan: Plan, workloads: Sequence[WorkloadPlan]) -> Plan | None:
    return replace(plan, workloads=list(workloads)) if workloads else None


def all_events(plan: Plan) -> list[tuple[int, Event]]:
    """With each, the place of its fault."""
    return [(index, event) for index, fault in enumerate(plan.faults) for event in fault.events]


def with_all_events(plan: Plan, faults: Sequence[FaultPlan], events: Sequence[tuple[int, Event]]) -> Plan:
    """`faults`: those that the events' places mean."""
    left: dict[int, list[Event]] = {}
    for index, event in events:
        left.setdefault(index, []).append(event)
    made = [with_events(fault, left.get(index, ())) for index, fault in enumerate(faults)]
    return with_faults(plan, [fault for fault in made if fault is not None])


def ending(plan: Plan, duration_us: int) -> Plan | None:
    """A shorter one: what lasts longer is cut, what comes later does not come. The phases at the end stay as they are:
    a plan that is given less time to converge fails for that alone."""
    if not 0 < duration_us < plan.duration_us:
        return None
    faults = []
    for fault in plan.faults:
        events = [
            (at, device, min(length, duration_us - at)) for at, device, length in fault.events if at < duration_us
        ]
        cut = with_events(fault, events)
        if cut is not None:
            faults.append(cut)
    workloads = [
        replace(workload, until_us=min(workload.until_us, duration_us))
        for workload in plan.workloads
        if workload.from_us < duration_us
    ]
    if not workloads:
        return None
    return replace(
        plan,
        duration_us=duration_us,
        warm_up_us=min(plan.warm_up_us, duration_us),
        faults=faults,
        workloads=workloads,
    )


def faster(plan: Plan, times: int) -> Plan | None:
    """All that the plan says of time, so many times as fast: writes, faults, and the end. What agents, relay and links
    take for something stays, so that not all that happened slowly happens then."""
    duration_us = plan.duration_us // times
    if duration_us < SECOND:
        return None
    workloads = [
        replace(
            workload,
            every_us=max(SECOND, workload.every_us // times),
            from_us=workload.from_us // times,
            until_us=min(duration_us, workload.until_us // times),
        )
        for workload in plan.workloads
    ]
    faults = [
        spanned(replace(fault, events=[(at // times, device, _less(n, times)) for at, device, n in fault.events]))
        for fault in plan.faults
    ]
    warm_up_us = min(plan.warm_up_us, duration_us)
    return replace(plan, duration_us=duration_us, warm_up_us=warm_up_us, workloads=workloads, faults=faults)


def _less(length_us: int, times: int) -> int:
    return max(1, length_us // times) if length_us else 0


def sooner(plan: Plan, by_us: int) -> Plan | None:
    """All faults, and the end, come earlier by so much: the beginning is left out."""
    first = min((fault.at_us for fault in plan.faults), default=0)
    if not 0 < by_us <= first or by_us >= plan.duration_us:
        return None
    faults = [
        spanned(replace(fault, events=[(at - by_us, device, length) for at, device, length in fault.events]))
        for fault in plan.faults
    ]
    return ending(replace(plan, faults=faults), plan.duration_us - by_us)
