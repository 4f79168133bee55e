"""When each fault happens, and to whom: the faults of a scenario drawn into concrete times.

Every draw comes from the stream of one device (or "cloud") and one fault: leaving out a device or a fault leaves all
others as they were. Pure; called by fleet.scenario.build.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fleet.rng import Stream, rng
from fleet.scenario.faults import (
    Background,
    ClockFault,
    DeviceRestore,
    FactoryReset,
    FaultBase,
    Lasting,
    LinkDown,
    OnDevices,
    PowerCut,
    Reboots,
    RelayKill,
    RelayRollout,
    Rollout,
    Shape,
    TableRestore,
    Target,
)
from fleet.scenario.model import Group, Offline, Scenario
from fleet.scenario.plan import FaultPlan

Event = tuple[int, str, int]  # (at_us, device, duration_us)
_Z99 = 2.3263478740408408  # the 99th percentile of the normal distribution


@dataclass(frozen=True, slots=True)
class Member:
    """A device, as far as targets can tell devices apart."""

    id: str
    group: Group


def arrival_us(stream: Stream, over_us: int, shape: Shape) -> int:
    """A time in 0 .. over_us. Draws once, or six times: Beta(3, 4) is the third smallest of six uniform draws."""
    if shape == "uniform":
        return int(stream.unit() * over_us)
    return int(sorted(stream.unit() for _ in range(6))[2] * over_us)


def stream_name(fault: str) -> str:
    """The purpose of a fault's draws; no workload and nothing else of a device has such a name."""
    return f"fault/{fault}"


def fault_plans(scenario: Scenario, seed: int, members: Sequence[Member]) -> list[FaultPlan]:
    """All faults, those of the links themselves among them."""
    plans = [_plan(scenario, fault, seed, members) for fault in scenario.faults]
    offline = _offline(scenario, seed, members)
    return [*plans, offline] if offline is not None else plans


def _plan(scenario: Scenario, fault: FaultBase, seed: int, members: Sequence[Member]) -> FaultPlan:
    name = fault.name or fault.kind  # type: ignore[attr-defined]
    devices: list[str] | None = None
    regions: list[str] | None = None
    if isinstance(fault, OnDevices):
        streams = chosen(fault.target, seed, members, name)
        if len(streams) < len(members):
            devices = list(streams)
        events = _on_devices(scenario, fault, streams)
    else:
        events = _on_cloud(scenario, fault, rng(seed, "cloud", stream_name(name)))
        target = getattr(fault, "target", None)
        if target is not None and target.region:
            regions = list(target.region)
    events.sort()
    return FaultPlan(
        name=name,
        kind=fault.kind,  # type: ignore[attr-defined]
        at_us=events[0][0] if events else 0,
        until_us=max((at + duration for at, _, duration in events), default=0),
        devices=devices,
        regions=regions,
        params=fault.params(),
        events=events,
    )


def chosen(target: Target, seed: int, members: Sequence[Member], name: str) -> dict[str, Stream]:
    """The devices that the fault `name` may hit, in the fleet's order, each with its stream after one draw."""
    groups, regions, devices = frozenset(target.group), frozenset(target.region), frozenset(target.devices)
    streams: dict[str, Stream] = {}
    lowest: tuple[float, str, Stream] | None = None
    for member in members:
        if (
            (groups and member.group.name not in groups)
            or (regions and member.group.region not in regions)
            or (devices and member.id not in devices)
        ):
            continue
        stream = rng(seed, member.id, stream_name(name))
        draw = stream.unit()
        if draw < target.share:
            streams[member.id] = stream
        elif lowest is None or draw < lowest[0]:
            lowest = (draw, member.id, stream)
    if not streams and lowest is not None and target.share > 0:
        streams[lowest[1]] = lowest[2]
    return streams


def _window(scenario: Scenario, fault: FaultBase) -> tuple[int, int]:
    """When a fault at random, or in the background, may hold."""
    begin = getattr(fault, "from_us", None)
    end = getattr(fault, "until_us", None)
    return (
        min(scenario.phases.warm_up_us, scenario.duration_us) if begin is None else begin,
        scenario.duration_us if end is None else min(end, scenario.duration_us),
    )


def _random(scenario: Scenario, fault: FaultBase, stream: Stream) -> Iterator[tuple[int, int]]:
    """(at, duration) of one device's or the cloud's events: Poisson, never two at once, all healed by the end."""
    rate = getattr(fault, "rate_per_s", None)
    assert rate is not None
    at, end = _window(scenario, fault)
    mean_us = 1e6 / rate
    while True:
        at += int(stream.exponential(mean_us)) + 1
        duration = _duration_us(fault, stream)
        if at >= end:
            return
        duration = min(duration, scenario.duration_us - at)
        yield at, duration
        at += duration


def _duration_us(fault: FaultBase, stream: Stream) -> int:
    """Until one event has healed."""
    if isinstance(fault, Reboots | DeviceRestore | FactoryReset | Rollout):
        return stream.between(*fault.off)
    if isinstance(fault, PowerCut):
        return stream.between(*fault.off) + arrival_us(stream, fault.back.over_us, fault.back.shape)
    if isinstance(fault, RelayKill | TableRestore | RelayRollout):
        return fault.restart_us
    if isinstance(fault, Lasting | ClockFault):
        return fault.duration_us or 0
    return 0


def _on_devices(scenario: Scenario, fault: OnDevices, streams: dict[str, Stream]) -> list[Event]:
    assert isinstance(fault, FaultBase)
    if isinstance(fault, Background):
        return _background(scenario, fault)
    times = getattr(fault, "at_us", None)
    if times is None:
        return [
            (at, device, duration)
            for device, stream in streams.items()
            for at, duration in _random(scenario, fault, stream)
        ]
    if not isinstance(
        fault, Reboots | PowerCut | DeviceRestore | FactoryReset | Rollout | LinkDown
    ):  # all alike: one event for all
        return [(at, "", _duration_us(fault, Stream(0))) for at in times]
    stagger = fault.stagger if isinstance(fault, LinkDown) else None
    events: list[Event] = []
    for device, stream in streams.items():
        for at in times:
            late = arrival_us(stream, stagger.over_us, stagger.shape) if stagger and stagger.over_us else 0
            duration = _duration_us(fault, stream)
            events.append((at + late, device, max(0, min(duration, scenario.duration_us - at - late))))
    return events


def _on_cloud(scenario: Scenario, fault: FaultBase, stream: Stream) -> list[Event]:
    if isinstance(fault, Background):
        return _background(scenario, fault)
    times = getattr(fault, "at_us", None)
    if times is None:
        return [(at, "", duration) for at, duration in _random(scenario, fault, stream)]
    return [(at, "", _duration_us(fault, stream)) for at in times]


def _background(scenario: Scenario, fault: Background) -> list[Event]:
    begin, end = _window(scenario, fault)
    at = begin if fault.at_us is None else fault.at_us
    duration = end - at if fault.duration_us is None else fault.duration_us
    return [(at, "", duration)] if duration > 0 else []


OFFLINE = "link-offline"  # the fault that a link profile's own breaks make; no fault of a scenario has this name


def _offline(scenario: Scenario, seed: int, members: Sequence[Member]) -> FaultPlan | None:
    """The breaks that belong to the links themselves."""
    devices: list[str] = []
    events: list[Event] = []
    begin = min(scenario.phases.warm_up_us, scenario.duration_us)
    for member in members:
        offline = member.group.link.offline
        if offline is None:
            continue
        devices.append(member.id)
        events += _breaks(rng(seed, member.id, stream_name(OFFLINE)), offline, begin, scenario.duration_us, member.id)
    if not devices:
        return None
    events.sort()
    return FaultPlan(
        name=OFFLINE,
        kind="link-down",
        at_us=events[0][0] if events else 0,
        until_us=max((at + duration for at, _, duration in events), default=0),
        devices=devices if len(devices) < len(members) else None,
        events=events,
    )


def _breaks(stream: Stream, offline: Offline, at: int, end: int, device: str) -> Iterator[Event]:
    p99_us = offline.p99_us or offline.median_us
    sigma = math.log(p99_us / offline.median_us) / _Z99 if p99_us > offline.median_us else 0.0
    while True:
        at += int(stream.exponential(offline.every_us)) + 1
        length = int(stream.lognormal(offline.median_us, sigma))
        if at >= end:
            return
        length = min(length, end - at)
        yield at, device, length
        at += length
