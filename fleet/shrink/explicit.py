"""A plan in words: the scenario that makes this very plan, though a scenario draws and a plan is drawn.

`explicit` writes out what was drawn, as far as a scenario can say it: each device in a group that boots at its time,
each fault at its times on its devices. `in_words` gives the scenario, or None where the plan made of it again is
another one. Pure, reads no file but the shipped schemas; called by the shrinker and its command.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import msgspec
from msgspec.structs import replace
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap

from agent.protocol.errors import InputError
from agent.protocol.schema import Schema
from fleet.scenario.build import build_plan, link_plan
from fleet.scenario.events import OFFLINE
from fleet.scenario.faults import (
    KINDS,
    Background,
    DeviceRestore,
    FactoryReset,
    FaultBase,
    LinkDown,
    OnDevices,
    PowerCut,
    Reboots,
    Regions,
    Rollout,
    Target,
)
from fleet.scenario.load import from_values
from fleet.scenario.model import Boot, DeviceClock, Expect, Group, Link, Phases, Scenario, Threshold, Workload
from fleet.scenario.plan import DevicePlan, FaultPlan, GroupPlan, LinkPlan, Plan, QuotaPlan, WorkloadPlan
from fleet.scenario.presets import LINKS
from fleet.scenario.quota_settings import OWN, UNITS_MAX, QuotaSettings, quota_plan
from fleet.scenario.settings import AgentSettings, BrokerSettings, CloudSettings
from fleet.scenario.shipped import SCHEMAS

Event = tuple[int, str, int]  # at_us, device, duration_us
Values = dict[str, Any]

# Kinds whose events name a device each; of the others one event is for all that the fault is aimed at.
_EACH: Final = (Reboots, PowerCut, DeviceRestore, FactoryReset, Rollout, LinkDown)
_OFF: Final = (Reboots, PowerCut, DeviceRestore, FactoryReset, Rollout)
_PAIRS: Final = {"late": ("late_min_us", "late_max_us"), "delay": ("delay_min_us", "delay_max_us")}
_RENAMED: Final = {"hops": "hop", "models": "model"}
_RESTART: Final = "restart_us"


# ---------------------------------------------------------------- writing out what was drawn


def explicit(plan: Plan) -> Plan:
    """The same with groups and faults that a scenario can name. It runs as the plan does, but for what happens in the
    same microsecond and for faults that draw for themselves and had to be taken apart: a replay has to say."""
    plan = _grouped(plan)
    faults: list[FaultPlan] = []
    taken = {fault.name for fault in plan.faults}
    for fault in plan.faults:
        parts = _parts(plan, fault)
        for number, part in enumerate(parts):
            name = _free(fault.name, taken) if number or fault.name == OFFLINE else fault.name
            faults.append(replace(part, name=name))
    return replace(plan, faults=faults)


def _free(name: str, taken: set[str]) -> str:
    """`name-2`, `name-3`, ...: not taken yet, and now it is."""
    name = name[:58]
    number = 2
    while f"{name}-{number}" in taken:
        number += 1
    taken.add(f"{name}-{number}")
    return f"{name}-{number}"


def _grouped(plan: Plan) -> Plan:
    """Devices that differ in what their group says of all get a group of their own; groups without devices go."""
    numbers: dict[tuple[int, int, int, int], int] = {}
    devices: list[list[DevicePlan]] = []
    for device in plan.devices:
        what = (device.group, device.boot_at_us, device.clock_offset_us, device.clock_drift_ppb)
        if what not in numbers:
            numbers[what] = len(devices)
            devices.append([])
        devices[numbers[what]].append(device)
    order = sorted(numbers, key=lambda what: (what[0], numbers[what]))
    taken = {group.name for group in plan.groups}
    groups: list[GroupPlan] = []
    members: list[DevicePlan] = []
    former: list[int] = []
    for what in order:
        group = plan.groups[what[0]]
        groups.append(replace(group, name=_free(group.name, taken)) if what[0] in former else group)
        members += [replace(device, group=len(former)) for device in devices[numbers[what]]]
        former.append(what[0])
    return replace(
        plan, groups=groups, devices=members, workloads=[_regrouped(workload, former) for workload in plan.workloads]
    )


def _regrouped(workload: WorkloadPlan, former: Sequence[int]) -> WorkloadPlan:
    """`former`: of each group, the index that it had."""
    if workload.groups is None:
        return workload
    return replace(workload, groups=[index for index, before in enumerate(former) if before in workload.groups])


def _parts(plan: Plan, fault: FaultPlan) -> list[FaultPlan]:
    """A fault for each duration, and for the devices that it hits at the same times."""
    kind = KINDS[fault.kind]
    if issubclass(kind, Background):
        parts = [([event], fault.devices) for event in fault.events]
    else:
        times: dict[tuple[str, int], list[int]] = {}
        for at, device, duration in sorted(fault.events):
            for name in _hit(plan, fault, device) if issubclass(kind, _EACH) else (device,):
                times.setdefault((name, duration), []).append(at)
        alike: dict[tuple[int, tuple[int, ...]], list[str]] = {}
        for (device, duration), found in times.items():
            alike.setdefault((duration, tuple(found)), []).append(device)
        parts = []
        for (duration, moments), names in alike.items():
            each = names if issubclass(kind, _EACH) else [""]
            events = sorted((at, name, duration) for at in moments for name in each)
            parts.append((events, fault.devices if names == [""] else names))
    return [_part(plan, fault, events, devices) for events, devices in parts]


def _hit(plan: Plan, fault: FaultPlan, device: str) -> Iterable[str]:
    if device:
        return (device,)
    return [one.id for one in plan.devices] if fault.devices is None else fault.devices


def _part(plan: Plan, fault: FaultPlan, events: list[Event], devices: Sequence[str] | None) -> FaultPlan:
    params = dict(fault.params)
    if _RESTART in params:
        params[_RESTART] = max(1, events[0][2])
    return spanned(replace(fault, params=params, events=events, devices=aimed(plan, devices)))


def aimed(plan: Plan, devices: Iterable[str] | None) -> list[str] | None:
    """In the fleet's order; None: at all of them."""
    if devices is None:
        return None
    wanted = frozenset(devices)
    found = [device.id for device in plan.devices if device.id in wanted]
    return None if len(found) == len(plan.devices) else found


def spanned(fault: FaultPlan) -> FaultPlan:
    """With the times that its events give it."""
    return replace(
        fault,
        at_us=fault.events[0][0] if fault.events else 0,
        until_us=max((at + duration for at, _, duration in fault.events), default=0),
    )


# ---------------------------------------------------------------- in words


@dataclass(frozen=True, slots=True)
class Written:
    """A scenario in words. `schema`: name of the file that must lie beside it, "": it is one that ships."""

    yaml: str
    schema: str


def in_words(plan: Plan, schema_name: str) -> Written | None:
    """The scenario that makes this plan. `schema_name`: for the schema's file, where it is none that ships."""
    shipped = _shipped_schema(plan)
    values = _values(plan, shipped or schema_name)
    if values is None:
        return None
    return Written(_yaml(values), "" if shipped else schema_name)


def can_be_said(plan: Plan) -> bool:
    return _values(plan, "-") is not None


def _values(plan: Plan, schema: str) -> Values | None:
    """As in a scenario's file; None: no scenario makes this plan."""
    try:
        values = _spoken(plan, schema)
        parsed = _schema(plan.schema_text, plan.schema_file)
        made = build_plan(from_values(msgspec.json.decode(msgspec.json.encode(values)), parsed, ""), plant=plan.plant)
    except InputError:
        return None
    return values if _bare(made) == _bare(plan) else None


@lru_cache(maxsize=4)
def _schema(text: str, file: str) -> Schema:
    return Schema.parse(text, file)


def _bare(plan: Plan) -> Plan:
    """Without what is for people."""
    return replace(plan, source="", description="", schema_file="")


def _shipped_schema(plan: Plan) -> str:
    """Name of the shipped schema that is the plan's; "": none is."""
    for path in sorted(SCHEMAS.glob("*.json5")):
        if path.read_text("utf-8") == plan.schema_text:
            return path.name
    return ""


def _spoken(plan: Plan, schema: str) -> Values:
    groups = [_group(plan, index, group) for index, group in enumerate(plan.groups)]
    names = [group.name for group in plan.groups]
    scenario = Scenario.model_construct(
        name=plan.scenario,
        description=plan.description,
        schema_file=schema,
        duration_us=plan.duration_us,
        seed=plan.seed,
        interval_us=plan.interval_us,
        devices=tuple(groups),
        workload=tuple(_workload(plan, workload, names) for workload in plan.workloads),
        faults=tuple(_fault(fault) for fault in plan.faults),
        phases=Phases.model_construct(
            warm_up_us=_warm_up_us(plan), quiesce_us=plan.quiesce_us, converge_within_us=plan.converge_within_us
        ),
        cloud=_settings(CloudSettings, plan.cloud).model_copy(update=_quotas(plan.quotas)),
        broker=_settings(BrokerSettings, plan.broker),
        agent=_settings(AgentSettings, plan.agent),
        expect=Expect.model_construct(checks=tuple(plan.checks), thresholds=tuple(_thresholds(plan))),
    )
    values: Values = scenario.model_dump(mode="json", by_alias=True, exclude_defaults=True, warnings=False)
    for group, written in zip(plan.groups, values["devices"], strict=True):
        _shorten_link(group.link, written)
    if plan.faults:
        values["faults"] = [{"kind": fault["kind"], **fault} for fault in values["faults"]]
    return values


def _warm_up_us(plan: Plan) -> int:
    """As it is by default, where the scenario ends before."""
    default = Phases().warm_up_us
    return default if plan.warm_up_us == min(default, plan.duration_us) else plan.warm_up_us


def _group(plan: Plan, index: int, group: GroupPlan) -> Group:
    members = [device for device in plan.devices if device.group == index]
    first = members[0]
    ids = tuple(device.id for device in members)
    link = group.link
    return Group.model_construct(
        name=group.name,
        count=len(members),
        ids=() if ids == tuple(f"{group.name}-{number:04d}" for number in range(1, len(ids) + 1)) else ids,
        account=group.account,
        region=group.region,
        link=Link.model_construct(**_numbers(Link, link, {"queue": link.queue_packets})),
        clock=DeviceClock.model_construct(offset_us=first.clock_offset_us, rate_ppb=first.clock_drift_ppb),
        boot=Boot.model_construct(at_us=first.boot_at_us, over_us=0),
        encoding=group.encoding,
    )


def _shorten_link(link: LinkPlan, written: Values) -> None:
    """A profile that is as it ships is its name. Its breaks are written out as a fault."""
    profile = LINKS.get(link.profile)
    if profile is None:
        return
    if link_plan(Link.model_validate({"profile": link.profile})) == link:
        written["link"] = {"profile": link.profile}
    if profile.get("offline") is not None:
        written["link"]["offline"] = None
    elif len(written["link"]) == 1:
        written["link"] = link.profile


def _workload(plan: Plan, workload: WorkloadPlan, groups: Sequence[str]) -> Workload:
    return Workload.model_construct(
        name=workload.name,
        side=workload.side,
        model=workload.model,
        action=workload.action,
        every_us=None if workload.poisson else workload.every_us,
        jitter=workload.jitter,
        rate_per_s=1e6 / workload.every_us if workload.poisson else None,
        remove=workload.remove,
        keep=workload.keep,
        items=workload.items,
        life_us=(workload.life_min_us, workload.life_max_us),
        commands=tuple(workload.commands),
        expires_us=(workload.expires_min_us, workload.expires_max_us),
        bytes=(workload.bytes_min, workload.bytes_max),
        groups=() if workload.groups is None else tuple(groups[index] for index in workload.groups),
        from_us=workload.from_us or None,
        until_us=None if workload.until_us == plan.duration_us else workload.until_us,
    )


def _fault(fault: FaultPlan) -> FaultBase:
    kind = KINDS[fault.kind]
    duration = fault.events[0][2] if fault.events else 0
    times = tuple(dict.fromkeys(at for at, _, _ in fault.events))
    fields: Values = {"kind": fault.kind, "name": "" if fault.name == fault.kind else fault.name}
    known = kind.model_fields
    params = dict(fault.params)
    for name, (low, high) in _PAIRS.items():
        if name in known and low in params:
            fields[name] = (params.pop(low), params.pop(high))
    for name, value in params.items():
        fields[_RENAMED.get(name, name)] = tuple(value) if isinstance(value, list) else value
    if issubclass(kind, Background):
        fields["at_us"] = times[0] if times else 0
    else:
        fields["at_us"] = times
    if issubclass(kind, _OFF):
        fields["off"] = (duration, duration)
    elif "duration_us" in known and duration:
        fields["duration_us"] = duration
    if issubclass(kind, OnDevices) and fault.devices is not None:
        fields["target"] = Target.model_construct(devices=tuple(fault.devices))
    elif fault.regions is not None:
        fields["target"] = Regions.model_construct(region=tuple(fault.regions))
    return kind.model_construct(**fields)


_UNITS: Final = re.compile(r"_(us|ms|max|bps)$")


def _settings(kind: type[Any], plan: msgspec.Struct) -> Any:
    """The numbers of `cloud`, `broker` and `agent`: a setting has its number's name, but for the unit."""
    renamed = {"hello_every_us": "hello_period_ms", "digest_every_us": "digest_period_ms"}
    numbers = {}
    for name in kind.model_fields:
        stem = _UNITS.sub("", name)
        for candidate in (name, renamed.get(name, ""), f"{stem}_ms", f"{stem}_max"):
            value = getattr(plan, candidate, None)
            if value is not None:
                numbers[name] = value * 1000 if candidate.endswith("_ms") else value
                break
    return kind.model_construct(**numbers)


def _thresholds(plan: Plan) -> Iterator[Threshold]:
    for expr in plan.thresholds:
        yield Threshold.model_construct(expr=expr, abort=expr in plan.aborts)


def _quotas(quotas: QuotaPlan | None) -> Values:
    """The preset and what the scenario changed of it."""
    if quotas is None:
        return {}
    own: Values = {name: getattr(quotas, name) for name, mark in quotas.sources.items() if mark == OWN}
    own["preset"] = quotas.preset or None
    counts = (units for units in (None, *range(2, UNITS_MAX + 1)) if _is_made_of(quotas, {**own, "units": units}))
    return {**own, "units": next(counts, None)}


def _is_made_of(quotas: QuotaPlan, values: Values) -> bool:
    return quota_plan(QuotaSettings.model_construct(**values)) == quotas


def _numbers(kind: type[Any], plan: msgspec.Struct, more: Mapping[str, Any]) -> Values:
    return {**{name: getattr(plan, name) for name in kind.model_fields if hasattr(plan, name)}, **more}


def _yaml(values: Values) -> str:
    """Groups, workloads and faults take a line each, as where people write them."""
    yaml = YAML()
    yaml.default_flow_style = None
    yaml.width = 118
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.representer.add_representer(
        type(None), lambda representer, _: representer.represent_scalar("tag:yaml.org,2002:null", "null")
    )
    for section in ("devices", "workload", "faults"):
        if section in values:
            values = {**values, section: [_on_a_line(one) for one in values[section]]}
    out = io.StringIO()
    yaml.dump(values, out)
    return out.getvalue()


def _on_a_line(values: Values) -> CommentedMap:
    line = CommentedMap(values)
    line.fa.set_flow_style()
    return line
