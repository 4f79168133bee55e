"""What must hold between the keys of a scenario: names that exist, faults that hit someone, writes that are allowed.

Works on the parts that are right by themselves, so that one mistake does not hide another. Adds problems to the
document; called by fleet.scenario.load.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from agent.protocol.schema import Schema
from agent.protocol.topics import valid_id
from fleet.scenario.build import device_ids
from fleet.scenario.document import Document, Path_
from fleet.scenario.events import OFFLINE
from fleet.scenario.expect import CHECKS, PATHS, PROBES, parse_threshold
from fleet.scenario.explain import guess
from fleet.scenario.facts import FILLER, REV, Facts, facts
from fleet.scenario.faults import (
    Background,
    ClockFault,
    FaultBase,
    Messages,
    Occurring,
    OnDevices,
    PowerCut,
    Reboots,
    StreamDelay,
    StreamReplay,
    TableSilence,
    TableThrottle,
)
from fleet.scenario.model import DEVICES_MAX, Expect, Group, Link, Offline, Phases, Workload
from fleet.scenario.settings import CloudSettings
from fleet.scenario.units import format_duration


@dataclass(slots=True)
class Draft:
    """The parts of a scenario that are right by themselves; a list's elements with their index in the file."""

    document: Document
    duration_us: int | None = None
    schema: Schema | None = None
    devices: list[tuple[int, Group]] = field(default_factory=list)
    workload: list[tuple[int, Workload]] = field(default_factory=list)
    faults: list[tuple[int, FaultBase]] = field(default_factory=list)
    phases: Phases | None = None
    cloud: CloudSettings | None = None
    expect: Expect | None = None


def check(draft: Draft) -> None:
    """All problems between keys."""
    _names(draft.document, "devices", "group")
    _names(draft.document, "workload", "workload")
    _fault_names(draft)
    total = 0
    for index, group in draft.devices:
        total += group.count
        _group(draft.document, ("devices", index), group)
    if total > DEVICES_MAX:
        draft.document.complain(("devices",), f"{total} devices, at most {DEVICES_MAX}")
    for index, workload in draft.workload:
        _workload(draft, ("workload", index), workload)
    for index, fault in draft.faults:
        _fault(draft, ("faults", index), fault)
    _broken(draft)
    _phases(draft)
    if draft.cloud is not None:
        _cloud(draft.document, draft.cloud)
    if draft.expect is not None:
        _expect(draft.document, draft.expect)


def _broken(draft: Draft) -> None:
    """Names in elements that are wrong otherwise: one mistake must not hide another."""
    document = draft.document
    whole = {index for index, _ in draft.workload}
    for index, _ in enumerate(document.written(("workload",)) or ()):
        model = document.written(("workload", index, "model"))
        if draft.schema is not None and index not in whole and isinstance(model, str):
            _model_exists(document, ("workload", index, "model"), model, draft.schema)
    whole = {index for index, _ in draft.faults}
    groups = [name for _, name in _raw_names(document, "devices")]
    for index, _ in enumerate(document.written(("faults",)) or ()):
        aimed = document.written(("faults", index, "target", "group"))
        names = [aimed] if isinstance(aimed, str) else aimed if isinstance(aimed, list) else []
        if index not in whole and all(isinstance(name, str) for name in names):
            _unknown(document, ("faults", index, "target", "group"), names, groups, "group")


def _raw_names(document: Document, section: str) -> list[tuple[int, str]]:
    """Names as written, also of elements that are wrong otherwise."""
    elements = document.value.get(section) if isinstance(document.value, dict) else None
    if not isinstance(elements, list):
        return []
    return [
        (index, element["name"])
        for index, element in enumerate(elements)
        if isinstance(element, dict) and isinstance(element.get("name"), str)
    ]


def _names(document: Document, section: str, what: str) -> None:
    first: dict[str, int] = {}
    for index, name in _raw_names(document, section):
        if name in first:
            line = document.mark((section, first[name], "name")).line
            hint = f"first in line {line}" if line else ""
            document.complain((section, index, "name"), f"a second {what} named {name}", hint)
        first.setdefault(name, index)


def _fault_names(draft: Draft) -> None:
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


def _group(document: Document, path: Path_, group: Group) -> None:
    if not valid_id(group.account):
        hint = "1 to 128 letters, digits and : _ . -; not `all`"
        document.complain((*path, "account"), f"{group.account!r} cannot be an account", hint)
    _link(document, (*path, "link"), group.link)


def _link(document: Document, path: Path_, link: Link) -> None:
    if link.delay_p99_us and link.delay_p99_us <= link.delay_us:
        document.complain((*path, "delay_p99"), "must be more than `delay`, the median")
    if link.delay_p99_us and link.jitter_us:
        document.complain((*path, "jitter"), "has no effect with `delay_p99`", "give one of the two")
    if link.jitter_us > link.delay_us:
        document.complain((*path, "jitter"), "must not be more than `delay`")
    if link.loss >= 0.9:
        document.complain((*path, "loss"), "no connection lives with 90% loss or more", "use a fault: link-down")
    elif link.loss > 0 and link.loss / (1 - link.loss) > link.burst:
        hint = "Gilbert-Elliott: loss / (1 - loss) is at most burst"
        document.complain((*path, "loss"), "cannot be reached with bursts so short", hint)
    offline: Offline | None = link.offline
    if offline is not None and offline.p99_us is not None and offline.p99_us < offline.median_us:
        document.complain((*path, "offline", "p99"), "must not be less than `median`")


def _unknown(document: Document, path: Path_, names: Iterable[str], known: Sequence[str], what: str) -> bool:
    """Complains about names that do not exist; a list's element at its own place."""
    found = False
    written = document.written(path)
    for index, name in enumerate(names):
        if name not in known:
            found = True
            place: Path_ = (*path, index) if isinstance(written, list) else path
            document.complain(place, f"unknown {what} {name!r}", guess(name, known) or _first(known))
    return found


def _first(known: Sequence[str]) -> str:
    more = f", ... ({len(known)} in all)" if len(known) > 8 else ""
    return f"known: {', '.join(known[:8])}{more}" if known else ""


def _workload(draft: Draft, path: Path_, workload: Workload) -> None:
    document = draft.document
    if (workload.every_us is None) == (workload.rate_per_s is None):
        message = "needs `every` or `rate`" if workload.every_us is None else "takes `every` or `rate`, not both"
        document.complain(
            path if workload.every_us is None else (*path, "rate"), message, "such as every: 60s, rate: 2/h"
        )
    if workload.jitter and workload.every_us is None:
        document.complain((*path, "jitter"), "goes with `every` only", "the times of `rate` are random as they are")
    if workload.action != "create":
        for key in ("remove", "keep"):
            if getattr(workload, key):
                document.complain((*path, key), "goes with `action: create` only")
    elif workload.items != 1:
        document.complain((*path, "items"), "goes with `action: update` and `toggle` only", "`keep` bounds new items")
    _unknown(
        document, (*path, "groups"), workload.groups, [name for _, name in _raw_names(document, "devices")], "group"
    )
    _span(draft, path, workload.from_us, workload.until_us)
    if draft.schema is not None:
        _model(draft, path, workload, draft.schema)


def _span(draft: Draft, path: Path_, from_us: int | None, until_us: int | None) -> None:
    end = draft.duration_us
    if from_us is not None and end is not None and from_us >= end:
        _outside(draft, (*path, "from"), "begins")
    if until_us is not None and end is not None and until_us > end:
        _outside(draft, (*path, "until"), "ends")
    if from_us is not None and until_us is not None and from_us >= until_us:
        draft.document.complain((*path, "until"), "must be later than `from`")


def _outside(draft: Draft, path: Path_, verb: str) -> None:
    assert draft.duration_us is not None
    draft.document.complain(path, f"{verb} after the scenario's end, {format_duration(draft.duration_us)}")


def _model(draft: Draft, path: Path_, workload: Workload, schema: Schema) -> None:
    document = draft.document
    place = (*path, "model")
    if not _model_exists(document, place, workload.model, schema):
        return
    model = schema.models[workload.model]
    lives = f"{model.name} has enable: {model.enable}, sync: {model.sync}"
    if workload.side == "device" and not (model.on_device and (model.sends or model.enable == "device")):
        document.complain(place, f"a device may not write {model.name}", lives)
    if workload.side == "cloud" and not (model.in_cloud and model.sync != "up"):
        document.complain(place, f"the cloud may not write {model.name}", lives)
    _fields(document, path, workload, facts(schema, workload.model))


def _model_exists(document: Document, path: Path_, name: str, schema: Schema) -> bool:
    if name in schema.models:
        return True
    hint = guess(name, schema.models) or _first(list(schema.models))
    document.complain(path, f"no model {name!r} in the schema", hint)
    return False


def _fields(document: Document, path: Path_, workload: Workload, known: Facts) -> None:
    name = workload.model
    if REV not in known.numbers:
        hint = "the checks tell writes apart by it; add rev: {type: 'number'} to the model"
        document.complain((*path, "model"), f"{name} has no number field `{REV}`", hint)
    if workload.bytes[1] and FILLER not in known.texts:
        document.complain((*path, "bytes"), f"{name} has no text field `{FILLER}` to bring an item to a size")
    if known.unfilled:
        message = f"{name} requires {', '.join(known.unfilled)}, which a workload does not fill"
        document.complain((*path, "model"), message, "give the field a default")
    if known.key_count > 1:
        document.complain((*path, "model"), f"the key of {name} has several variables; a workload fills one")
    elif known.key_count == 0 and workload.action == "create":
        message = f"every writer has only one {name}: its key has no variable of its own"
        document.complain((*path, "action"), message, "use update or toggle")
    elif known.key_count == 0 and workload.items > 1:
        document.complain((*path, "items"), f"every writer has only one {name}: its key has no variable of its own")


def _fault(draft: Draft, path: Path_, fault: FaultBase) -> None:
    document = draft.document
    end = draft.duration_us
    if isinstance(fault, Occurring):
        _occurring(draft, path, fault)
    elif isinstance(fault, Background) and end is not None:
        if fault.at_us is not None and fault.at_us >= end:
            _outside(draft, (*path, "at"), "begins")
        elif fault.duration_us is not None:
            begin = fault.at_us if fault.at_us is not None else draft.phases.warm_up_us if draft.phases else 0
            if begin + fault.duration_us > end:
                _outside(draft, (*path, "duration"), "ends")
    if isinstance(fault, OnDevices):
        _target(draft, (*path, "target"), fault)
    target = getattr(fault, "target", None)
    if target is not None:
        known = list(dict.fromkeys(group.region for _, group in draft.devices))
        _unknown(document, (*path, "target", "region"), target.region, known, "region")
    if isinstance(fault, StreamReplay | TableThrottle | TableSilence) and fault.share == 0:
        document.complain((*path, "share"), "a share of 0 does nothing")
    if isinstance(fault, TableThrottle | TableSilence) and fault.share == 1:
        document.complain((*path, "share"), "with a share of 100% nothing is ever written", "use less than 100%")
    if isinstance(fault, ClockFault) and not fault.jump_us and not fault.drift_ppb:
        document.complain(path, "does nothing: give `jump` or `drift`")
    if isinstance(fault, Messages):
        _messages(document, path, fault)
    if isinstance(fault, StreamReplay | StreamDelay):
        _late(draft, path, fault)


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
        _span(draft, path, fault.from_us, fault.until_us)
    if end is None:
        return
    for at_us in fault.at_us or ():
        if at_us >= end:
            _outside(draft, (*path, "at"), "begins")
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
    if isinstance(fault, Reboots):
        return fault.off[1]
    if isinstance(fault, PowerCut):
        return fault.off[1] + fault.back.over_us
    lasting = getattr(fault, "duration_us", None) or getattr(fault, "restart_us", None) or 0
    stagger = getattr(fault, "stagger", None)
    return int(lasting) + (stagger.over_us if stagger is not None else 0)


def _target(draft: Draft, path: Path_, fault: OnDevices) -> None:
    document, target = draft.document, fault.target
    groups = [name for _, name in _raw_names(document, "devices")]
    bad = _unknown(document, (*path, "group"), target.group, groups, "group")
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
        bad |= _unknown(document, (*path, "devices"), target.devices, everyone, "device")
        aimed = set(target.devices)
        hit = [group for group in hit if aimed & set(device_ids(group))]
    if not hit and not bad and set(target.region) <= {group.region for _, group in draft.devices}:
        document.complain(path, "aimed at no device: none meets all that is said here")


def _phases(draft: Draft) -> None:
    if draft.phases is None or draft.duration_us is None:
        return
    if draft.phases.warm_up_us > draft.duration_us and draft.document.written(("phases", "warm_up")) is not None:
        _outside(draft, ("phases", "warm_up"), "ends")
    if draft.phases.quiesce_us > draft.phases.converge_within_us:
        draft.document.complain(("phases", "converge_within"), "must not be shorter than `quiesce`")


def _cloud(document: Document, cloud: CloudSettings) -> None:
    life_us = cloud.record_life_us + cloud.worker_life_us
    if cloud.feed_retention_us <= life_us:
        message = f"must be longer than record_life + worker_life, {format_duration(life_us)}"
        hint = "else a late worker may log a change into a feed that has been forgotten"
        document.complain(("cloud", "feed_retention"), message, hint)
    elif cloud.ttl_margin_us >= cloud.feed_retention_us / 2:
        document.complain(("cloud", "ttl_margin"), "must be shorter than half of feed_retention")


def _expect(document: Document, expect: Expect) -> None:
    _unknown(document, ("expect", "checks"), expect.checks, CHECKS, "check")
    for index, expr in enumerate(expect.thresholds):
        path = ("expect", "thresholds", index)
        try:
            parse_threshold(expr)
        except KeyError as error:
            known = [*PATHS, PROBES + "NAME"]
            unknown = str(error.args[0])
            document.complain(path, f"unknown number {unknown!r}", guess(unknown, known) or _first(known))
        except ValueError as error:
            document.complain(path, str(error))
