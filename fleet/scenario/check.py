"""What must hold between the keys of a scenario: names that exist, faults that hit someone, writes that are allowed.

Works on the parts that are right by themselves, so that one mistake does not hide another. Adds problems to the
document; called by fleet.scenario.load.
"""

from __future__ import annotations

from typing import Final

from agent.protocol.schema import Schema
from agent.protocol.topics import valid_id
from fleet.scenario.build import device_ids
from fleet.scenario.check_faults import check_fault, check_fault_names
from fleet.scenario.check_orders import FILLED, check_orders, check_schema
from fleet.scenario.document import Document, Path_
from fleet.scenario.draft import Draft, elements, first_of, outside, raw_names, span, unknown
from fleet.scenario.expect_check import check_expect
from fleet.scenario.explain import guess
from fleet.scenario.facts import FILLER, REV, Facts, facts
from fleet.scenario.model import DEVICES_MAX, Group, Link, Offline, Workload
from fleet.scenario.settings import CloudSettings
from fleet.scenario.units import format_duration

_ID_HINT: Final = "1 to 128 letters, digits and : _ . -; not `all`"


def check(draft: Draft) -> None:
    """All problems between keys."""
    _names(draft.document, "devices", "group")
    _names(draft.document, "workload", "workload")
    check_fault_names(draft)
    total = 0
    for index, group in draft.devices:
        total += group.count
        _group(draft.document, ("devices", index), group)
    _ids(draft)
    if draft.schema is not None:
        check_schema(draft.document, draft.schema)
    if total > DEVICES_MAX:
        draft.document.complain(("devices",), f"{total} devices, at most {DEVICES_MAX}")
    for index, workload in draft.workload:
        _workload(draft, ("workload", index), workload)
    for index, fault in draft.faults:
        check_fault(draft, ("faults", index), fault)
    _broken(draft)
    _phases(draft)
    if draft.cloud is not None:
        _cloud(draft.document, draft.cloud)
    check_expect(draft)


def _broken(draft: Draft) -> None:
    """Names in elements that are wrong otherwise: one mistake must not hide another."""
    document = draft.document
    whole = {index for index, _ in draft.workload}
    for index, _ in enumerate(elements(document, "workload")):
        model = document.written(("workload", index, "model"))
        if draft.schema is not None and index not in whole and isinstance(model, str):
            _model_exists(document, ("workload", index, "model"), model, draft.schema)
    whole = {index for index, _ in draft.faults}
    groups = [name for _, name in raw_names(document, "devices")]
    for index, _ in enumerate(elements(document, "faults")):
        aimed = document.written(("faults", index, "target", "group"))
        names = [aimed] if isinstance(aimed, str) else aimed if isinstance(aimed, list) else []
        if index not in whole and all(isinstance(name, str) for name in names):
            unknown(document, ("faults", index, "target", "group"), names, groups, "group")


def _names(document: Document, section: str, what: str) -> None:
    first: dict[str, int] = {}
    for index, name in raw_names(document, section):
        if name in first:
            line = document.mark((section, first[name], "name")).line
            hint = f"first in line {line}" if line else ""
            document.complain((section, index, "name"), f"a second {what} named {name}", hint)
        first.setdefault(name, index)


def _group(document: Document, path: Path_, group: Group) -> None:
    if not valid_id(group.account):
        document.complain((*path, "account"), f"{group.account!r} cannot be an account", _ID_HINT)
    _link(document, (*path, "link"), group.link)


def _ids(draft: Draft) -> None:
    """Names of devices that groups give themselves."""
    given = [(index, group) for index, group in draft.devices if group.ids]
    taken: set[str] = set()
    for _, group in draft.devices if given else ():
        if not group.ids:
            taken.update(device_ids(group))
    for index, group in given:
        path = ("devices", index, "ids")
        if len(group.ids) != group.count:
            draft.document.complain(path, f"{len(group.ids)} ids for {group.count} devices", "one for each device")
        for id in group.ids:
            if not valid_id(id):
                draft.document.complain(path, f"{id!r} cannot be a device's id", _ID_HINT)
            elif id in taken:
                draft.document.complain(path, f"a second device named {id}")
            taken.add(id)


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
    unknown(document, (*path, "groups"), workload.groups, [name for _, name in raw_names(document, "devices")], "group")
    span(draft, path, workload.from_us, workload.until_us)
    check_orders(document, path, workload, draft.schema)
    if draft.schema is not None:
        _model(draft, path, workload, draft.schema)


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
    hint = guess(name, schema.models) or first_of(list(schema.models))
    document.complain(path, f"no model {name!r} in the schema", hint)
    return False


def _fields(document: Document, path: Path_, workload: Workload, known: Facts) -> None:
    name = workload.model
    if REV not in known.numbers:
        hint = "the checks tell writes apart by it; add rev: {type: 'number'} to the model"
        document.complain((*path, "model"), f"{name} has no number field `{REV}`", hint)
    if workload.bytes[1] and FILLER not in known.texts:
        document.complain((*path, "bytes"), f"{name} has no text field `{FILLER}` to bring an item to a size")
    if workload.life_us[1] and not known.ttl_field:
        hint = "add one, such as ttl: {type: 'date', ttl: true}"
        document.complain((*path, "life"), f"{name} has no ttl field to end an item's life", hint)
    unfilled = [field for field in known.unfilled if not (workload.commands and field in FILLED)]
    if unfilled:
        message = f"{name} requires {', '.join(unfilled)}, which a workload does not fill"
        document.complain((*path, "model"), message, "give the field a default")
    if known.key_count > 1:
        document.complain((*path, "model"), f"the key of {name} has several variables; a workload fills one")
    elif known.key_count == 0 and workload.action == "create":
        message = f"every writer has only one {name}: its key has no variable of its own"
        document.complain((*path, "action"), message, "use update or toggle")
    elif known.key_count == 0 and workload.items > 1:
        document.complain((*path, "items"), f"every writer has only one {name}: its key has no variable of its own")


def _phases(draft: Draft) -> None:
    if draft.phases is None or draft.duration_us is None:
        return
    if draft.phases.warm_up_us > draft.duration_us and draft.document.written(("phases", "warm_up")) is not None:
        outside(draft, ("phases", "warm_up"), "ends")
    if draft.phases.quiesce_us > draft.phases.converge_within_us:
        draft.document.complain(("phases", "converge_within"), "must not be shorter than `quiesce`")


def _cloud(document: Document, cloud: CloudSettings) -> None:
    if cloud.units is not None and not (cloud.preset or "").startswith("azure"):
        document.complain(("cloud", "units"), "goes with a preset of Azure IoT Hub", "such as azure-iot-hub-s1")
    life_us = cloud.record_life_us + cloud.worker_life_us
    if cloud.feed_retention_us <= life_us:
        message = f"must be longer than record_life + worker_life, {format_duration(life_us)}"
        hint = "else a late worker may log a change into a feed that has been forgotten"
        document.complain(("cloud", "feed_retention"), message, hint)
    elif cloud.ttl_margin_us >= cloud.feed_retention_us / 2:
        document.complain(("cloud", "ttl_margin"), "must be shorter than half of feed_retention")
    if cloud.ttl_margin_us < cloud.worker_life_us:
        hint = "else a worker may write after a row that has been swept"
        document.complain(("cloud", "ttl_margin"), "must not be shorter than worker_life", hint)
