"""What must hold of a scenario's faults beyond each key: they hit someone, within the scenario, and do something.

Adds problems to the document; called by fleet.scenario.check.
"""

from __future__ import annotations

from agent.protocol.schema import Schema
from fleet.scenario.build import device_ids
from fleet.scenario.check_rollouts import check_stage
from fleet.scenario.document import Document, Path_
from fleet.scenario.draft import Draft, outside, raw_names, regions, span, unknown
from fleet.scenario.events import OFFLINE
from fleet.scenario.faults import (
    IN_TABLE,
    OPERATION,
    Background,
    ClockFault,
    DeviceRestore,
    FactoryReset,
    FaultBase,
    Messages,
    Occurring,
    OnDevices,
    Poison,
    PowerCut,
    Reboots,
    SilentDamage,
    Stage,
    StreamDelay,
    StreamReplay,
    TableSilence,
    TableThrottle,
)
from fleet.scenario.units import format_duration


def check_fault_names(draft: Draft) -> None:
    first: dict[str, int] = {}
    for index, fault in draft.faults:
        name = fault.name or fault.kind  # type: ignore[attr-defined]
        path = ("faults", index, "name" if fault.name else "kind")
        if name in first:
            hint = "" if fault.name else "give it a name of its own with `name:`"
            draft.document.complain(path, f"a second fault named {name}", hint)
        elif name == OFFLINE:
            draft.document.complain(path, f"{OFFLINE} is the name of what link profiles bring; choose another")
        first.setdefault(name, index)


def check_fault(draft: Draft, path: Path_, fault: FaultBase) -> None:
    document = draft.document
    end = draft.duration_us
    if isinstance(fault, Occurring):
        _occurring(draft, path, fault)
    elif isinstance(fault, Background) and end is not None:
        if fault.at_us is not None and fault.at_us >= end:
            outside(draft, (*path, "at"), "begins")
        elif fault.duration_us is not None:
            begin = fault.at_us if fault.at_us is not None else draft.phases.warm_up_us if draft.phases else 0
            if begin + fault.duration_us > end:
                outside(draft, (*path, "duration"), "ends")
    elif isinstance(fault, Stage):
        check_stage(draft, path, fault)
    if isinstance(fault, OnDevices):
        _target(draft, (*path, "target"), fault)
    target = getattr(fault, "target", None)
    if target is not None:
        known = regions(document)
        unknown(document, (*path, "target", "region"), target.region, known, "region")
    if isinstance(fault, StreamReplay | TableThrottle | TableSilence) and fault.share == 0:
        document.complain((*path, "share"), "a share of 0 does nothing")
    if isinstance(fault, TableThrottle | TableSilence) and fault.share == 1:
        document.complain((*path, "share"), "with a share of 100% nothing is ever written", "use less than 100%")
    if isinstance(fault, ClockFault) and not fault.jump_us and not fault.drift_ppb:
        document.complain(path, "does nothing: give `jump` or `drift`")
    if isinstance(fault, Messages):
        _messages(document, path, fault)
    if isinstance(fault, SilentDamage) and draft.schema is not None:
        synced = [model.name for model in draft.schema.models.values() if model.sends or model.receives]
        unknown(document, (*path, "model"), fault.model, synced, "model that syncs")
    if isinstance(fault, Poison) and draft.schema is not None:
        _poison(draft, path, fault, draft.schema)
    if isinstance(fault, StreamReplay | StreamDelay):
        _late(draft, path, fault)


def _poison(draft: Draft, path: Path_, fault: Poison, schema: Schema) -> None:
    """Every kind of poison has a model that it can hit."""
    document = draft.document
    synced = [model.name for model in schema.models.values() if model.sends or model.receives]
    if unknown(document, (*path, "model"), fault.model, synced, "model that syncs"):
        return
    named = [schema.models[name] for name in fault.model or synced]
    if set(fault.what) & set(IN_TABLE) and not any(model.receives for model in named):
        hint = "leave out `model`, or give what: [operation]"
        document.complain((*path, "model"), "nothing of these comes down: no device would meet the poison", hint)
    if OPERATION in fault.what and not any(model.sends for model in named):
        hint = "leave out `model`, or `operation` in `what`"
        document.complain((*path, "model"), "a device sends nothing of these: there is no operation to poison", hint)


def _late(draft: Draft, path: Path_, fault: StreamReplay | StreamDelay) -> None:
    key, longest_us = ("late", fault.late[1]) if isinstance(fault, StreamReplay) else ("delay", fault.delay[1])
    if draft.cloud is not None and longest_us >= draft.cloud.record_life_us:
        message = f"must be shorter than cloud.record_life, {format_duration(draft.cloud.record_life_us)}"
        draft.document.complain((*path, key), message, "a record that old is no longer delivered")


def _messages(document: Document, path: Path_, fault: Messages) -> None:
    if not (fault.lose or fault.duplicate or fault.reorder or fault.delay_us):
        document.complain(path, "does nothing: give `lose`, `duplicate`, `reorder` or `delay`")
    if fault.lose == 1:
        document.complain((*path, "lose"), "loses everything", "use a fault: link-down or broker-outage")
    if fault.lose and fault.qos == 1 and not {"relay-to-broker"} & set(fault.hop):
        hint = "MQTT runs over TCP: drop `lose` or `qos: 1`, or use a fault: half-open"
        document.complain((*path, "lose"), "no message of QoS 1 is lost on these hops", hint)


def _occurring(draft: Draft, path: Path_, fault: Occurring) -> None:
    document, end = draft.document, draft.duration_us
    if (fault.at_us is None) == (fault.rate_per_s is None):
        message = "needs `at` or `rate`" if fault.at_us is None else "takes `at` or `rate`, not both"
        document.complain(path if fault.at_us is None else (*path, "rate"), message, "such as at: 10m, rate: 1/h")
    if fault.at_us is not None:
        for key in ("from", "until"):
            if getattr(fault, f"{key}_us") is not None:
                document.complain((*path, key), "goes with `rate` only")
        if not fault.at_us:
            document.complain((*path, "at"), "an empty list of times")
    else:
        span(draft, path, fault.from_us, fault.until_us)
    if end is None:
        return
    for at_us in fault.at_us or ():
        if at_us >= end:
            outside(draft, (*path, "at"), "begins")
        elif at_us + _least_us(fault) > end:
            keys = ("duration", "off", "restart")
            key = next((key for key in keys if document.written((*path, key)) is not None), "at")
            document.complain(
                (*path, key), f"at {format_duration(at_us)} it lasts beyond the scenario's end, {format_duration(end)}"
            )
    warm_up_us = draft.phases.warm_up_us if draft.phases is not None else 0
    if fault.rate_per_s is not None and fault.from_us is None and warm_up_us >= end:
        document.complain((*path, "rate"), "never happens: the warm-up lasts to the scenario's end")


def _least_us(fault: Occurring) -> int:
    """The longest that one event of it is sure to last."""
    if isinstance(fault, Reboots | DeviceRestore | FactoryReset):
        return fault.off[1]
    if isinstance(fault, PowerCut):
        return fault.off[1] + fault.back.over_us
    lasting = getattr(fault, "duration_us", None) or getattr(fault, "restart_us", None) or 0
    stagger = getattr(fault, "stagger", None)
    return int(lasting) + (stagger.over_us if stagger is not None else 0)


def _target(draft: Draft, path: Path_, fault: OnDevices) -> None:
    document, target = draft.document, fault.target
    groups = [name for _, name in raw_names(document, "devices")]
    bad = unknown(document, (*path, "group"), target.group, groups, "group")
    if target.share == 0:
        document.complain((*path, "share"), "aimed at no device: a share of 0")
        bad = True
    whole = len(groups) == len(draft.devices)  # else names of devices are not all known
    hit = [
        group
        for _, group in draft.devices
        if (not target.group or group.name in target.group) and (not target.region or group.region in target.region)
    ]
    if not whole:
        return
    if target.devices:
        everyone = [id for _, group in draft.devices for id in device_ids(group)]
        bad |= unknown(document, (*path, "devices"), target.devices, everyone, "device")
        aimed = set(target.devices)
        hit = [group for group in hit if aimed & set(device_ids(group))]
    if not hit and not bad and set(target.region) <= set(regions(document)):
        document.complain(path, "aimed at no device: none meets all that is said here")
