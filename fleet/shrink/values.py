"""Smaller and rounder numbers for a plan: when, how long, how often, how much. Pure; called by fleet.shrink.shrink.

Each change is a function from a plan to a simpler one, or None where it is as simple already. They are made for a plan
that is written out (fleet.shrink.explicit), and none adds or takes away an element, so that places stay what they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from fleet.scenario.faults import Messages
from fleet.scenario.plan import BrokerPlan, CloudPlan, DevicePlan, FaultPlan, GroupPlan, LinkPlan, Plan, WorkloadPlan
from fleet.scenario.settings import BrokerSettings, CloudSettings, broker_plan, cloud_plan
from fleet.shrink.explicit import aimed, spanned

Change = Callable[[Plan], Plan | None]

_MS: Final = 1_000
_S: Final = 1_000_000
_M: Final = 60 * _S
_LENGTHS: Final = tuple(
    n * unit
    for unit, counts in ((_S, (1, 2, 5, 10, 15, 20, 30, 45)), (_M, (1, 2, 3, 5, 7, 10, 15, 20, 30, 45)))
    for n in counts
) + tuple(n * 60 * _M for n in (1, 2, 3, 6, 12, 24))
_ROUND: Final = (_M, _S, _MS)
TRIED_MAX: Final = 6
REORDER_BY_US: Final[int] = Messages.model_fields["reorder_by_us"].default
_SHARES: Final = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
_LINKS: Final = (LinkPlan(), LinkPlan(delay_us=20 * _MS))


def lengths_below(us: int) -> list[int]:
    """Some round times that are shorter, the shortest first; last what it is itself, rounded down. The round after next
    looks more closely."""
    found = [length for length in _LENGTHS if length < us]
    if len(found) > TRIED_MAX:
        found = [found[index * (len(found) - 1) // (TRIED_MAX - 1)] for index in range(TRIED_MAX)]
    return found + [rounded for unit in _ROUND if 0 < (rounded := us - us % unit) < us and rounded not in found]


# ---------------------------------------------------------------- all at once, then one by one


def changes(plan: Plan) -> list[Change]:
    """For the plan as it is now."""
    found: list[Change] = []
    found += _of_settings()
    for index in range(len(plan.devices)):
        found += _of_device(index)
    for index, group in enumerate(plan.groups):
        found += _of_group(index, group)
    for index, workload in enumerate(plan.workloads):
        found += _of_workload(plan, index, workload)
    for index, fault in enumerate(plan.faults):
        found += _of_fault(index, fault)
    return found


def _set(plan: Plan, part: str, index: int, **fields: Any) -> Plan | None:
    """With these in place of what one element of a list has; None: it has them already."""
    elements = list(getattr(plan, part))
    if all(getattr(elements[index], name) == value for name, value in fields.items()):
        return None
    elements[index] = replace(elements[index], **fields)
    return replace(plan, **{part: elements})


def _setting(part: str, index: int, **fields: Any) -> Change:
    return lambda plan: _set(plan, part, index, **fields)


def _lower(part: str, index: int, name: str, value: float, *, more: bool = False) -> Change:
    """`more`: the higher, the simpler."""

    def change(plan: Plan) -> Plan | None:
        now = getattr(getattr(plan, part)[index], name)
        return _set(plan, part, index, **{name: value}) if (value > now if more else value < now) else None

    return change


def _of_settings() -> Iterator[Change]:
    """Of the cloud and the broker: what everyone has who says nothing. The agent's own times stay: with others a
    healthy fleet may need longer to converge than the plan gives it."""
    defaults: tuple[tuple[str, Any], ...] = (
        ("cloud", cloud_plan(CloudSettings())),
        ("broker", broker_plan(BrokerSettings())),
    )
    yield lambda plan: replace(plan, cloud=defaults[0][1], broker=defaults[1][1])
    for part, default in defaults:
        for name in default.__struct_fields__:
            yield _default(part, name, getattr(default, name))
    for workers in (1, 2):
        yield lambda plan, n=workers: (  # type: ignore[misc]
            replace(plan, cloud=replace(plan.cloud, workers=n)) if n < plan.cloud.workers else None
        )
    yield lambda plan: replace(plan, interval_us=10 * _S)
    yield lambda plan: replace(plan, warm_up_us=min(2 * _M, plan.duration_us))


def _default(part: str, name: str, value: Any) -> Change:
    def change(plan: Plan) -> Plan | None:
        now: CloudPlan | BrokerPlan = getattr(plan, part)
        if getattr(now, name) == value or (name == "workers" and getattr(now, name) < value):
            return None
        return replace(plan, **{part: replace(now, **{name: value})})

    return change


def _of_device(index: int) -> Iterator[Change]:
    yield _setting("devices", index, boot_at_us=0, clock_offset_us=0, clock_drift_ppb=0)
    yield _setting("devices", index, boot_at_us=0)
    yield _setting("devices", index, clock_offset_us=0)
    yield _setting("devices", index, clock_drift_ppb=0)

    def rounded(plan: Plan) -> Plan | None:
        device: DevicePlan = plan.devices[index]
        boot, offset, drift = device.boot_at_us, device.clock_offset_us, device.clock_drift_ppb
        return _set(
            plan,
            "devices",
            index,
            boot_at_us=boot - boot % _S,
            clock_offset_us=offset - offset % _S,
            clock_drift_ppb=drift - drift % 1000,
        )

    yield rounded


def _of_group(index: int, group: GroupPlan) -> Iterator[Change]:
    for link in _LINKS:
        yield _better_link(index, link)
    for fields in ({"loss": 0.0, "burst": 1.0}, {"jitter_us": 0}, {"delay_p99_us": 0}, {"queue_packets": 0}):
        yield _setting_of_link(index, **fields)
    yield _setting("groups", index, encoding="json")


def _better_link(index: int, link: LinkPlan) -> Change:
    """Never back to one with a delay: a plan is simple enough with either."""

    def change(plan: Plan) -> Plan | None:
        return None if plan.groups[index].link in _LINKS else _set(plan, "groups", index, link=link)

    return change


def _setting_of_link(index: int, **fields: Any) -> Change:
    def change(plan: Plan) -> Plan | None:
        return _set(plan, "groups", index, link=replace(plan.groups[index].link, **fields))

    return change


def _of_workload(plan: Plan, index: int, workload: WorkloadPlan) -> Iterator[Change]:
    part = "workloads"
    longer = [every for every in reversed(_LENGTHS) if workload.every_us < every <= plan.duration_us // 2]
    for every in longer[:: max(1, len(longer) // TRIED_MAX)]:
        yield _lower(part, index, "every_us", every, more=True)
    for unit in (_M, 10 * _S, _S):
        if rounded := workload.every_us - workload.every_us % unit:
            yield _lower(part, index, "every_us", rounded)
    yield _setting(part, index, jitter=0.0, poisson=False)
    yield _setting(part, index, poisson=False)
    yield _setting(part, index, jitter=0.0)
    yield _setting(part, index, remove=0.0)
    yield _setting(part, index, keep=0)
    for items in (1, 2, 3):
        yield _lower(part, index, "items", items)
    yield _setting(part, index, bytes_min=0, bytes_max=0, filler_field="")
    yield lambda plan: _set(plan, part, index, bytes_max=plan.workloads[index].bytes_min)
    yield lambda plan: _set(plan, part, index, life_max_us=plan.workloads[index].life_min_us)
    for word in dict.fromkeys(workload.commands):
        yield _one_word(index, word)
    for until in lengths_below(workload.until_us - workload.from_us):
        yield _lower(part, index, "until_us", workload.from_us + until)
    for since in (0, *lengths_below(workload.from_us)):
        yield _lower(part, index, "from_us", since)


def _one_word(index: int, word: str) -> Change:
    def change(plan: Plan) -> Plan | None:
        return _set(plan, "workloads", index, commands=[word]) if len(plan.workloads[index].commands) > 1 else None

    return change


# ---------------------------------------------------------------- faults


def _of_fault(index: int, fault: FaultPlan) -> Iterator[Change]:
    for device in fault.devices or ():
        yield _aim(index, device)
    if fault.events:
        for at in (*lengths_below(fault.events[0][0]),):
            yield _timed(index, at_us=at)
        for length in lengths_below(fault.events[0][2]):
            yield _timed(index, length_us=length)
    for name, value in fault.params.items():
        yield from _of_number(index, name, value)
    if "reorder_by_us" in fault.params:
        yield _param(index, "reorder_by_us", REORDER_BY_US, lambda now: bool(now != REORDER_BY_US))


def _aim(index: int, device: str) -> Change:
    def change(plan: Plan) -> Plan | None:
        fault = plan.faults[index]
        if fault.devices is None or len(fault.devices) < 2:
            return None
        events = [event for event in fault.events if event[1] in ("", device)]
        if not events:
            return None
        return _put(plan, index, replace(fault, devices=aimed(plan, [device]), events=events))

    return change


def _put(plan: Plan, index: int, fault: FaultPlan) -> Plan:
    faults = list(plan.faults)
    faults[index] = spanned(fault)
    return replace(plan, faults=faults)


def _timed(index: int, *, at_us: int | None = None, length_us: int | None = None) -> Change:
    """The first event at that time, and the others as much earlier; or all of that length."""

    def change(plan: Plan) -> Plan | None:
        fault = plan.faults[index]
        events = fault.events
        params = fault.params
        if at_us is not None and at_us < events[0][0]:
            by = events[0][0] - at_us
            events = [(at - by, device, length) for at, device, length in events]
        elif length_us is not None and length_us < events[0][2]:
            events = [(at, device, length_us) for at, device, _ in events]
            if "restart_us" in params:
                params = {**params, "restart_us": length_us}
        else:
            return None
        return _put(plan, index, replace(fault, events=events, params=params))

    return change


def _of_number(index: int, name: str, value: Any) -> Iterator[Change]:
    if isinstance(value, list) and len(value) > 1:
        for one in value:
            yield _param(index, name, [one], lambda now: len(now) > 1)
    elif isinstance(value, bool) or value is None:
        return
    elif isinstance(value, float):
        for share in _SHARES:
            if share < value:
                yield _param(index, name, share, share.__lt__)
    elif isinstance(value, int) and name.endswith("_us") and name not in ("restart_us", "reorder_by_us"):
        lower: Sequence[int] = [0, *lengths_below(abs(value))]
        for length in lower:
            yield _param(index, name, -length if value < 0 else length, _shorter(length))
    elif isinstance(value, int) and name.endswith("_ppb"):
        yield _param(index, name, 0, bool)


def _shorter(length: int) -> Callable[[Any], bool]:
    return lambda now: length < abs(now)


def _param(index: int, name: str, value: Any, lower: Callable[[Any], bool]) -> Change:
    def change(plan: Plan) -> Plan | None:
        fault = plan.faults[index]
        if not lower(fault.params[name]):
            return None
        return _put(plan, index, msgspec.structs.replace(fault, params={**fault.params, name: value}))

    return change
