"""What a schema may not ask of sync: keys that do not say whose an item is, directions that cannot be kept.

Never changes a definition; notes what is wrong. Called by agent.protocol.onetable.loader. The reasons are in
docs/protocol.md: which feed an item belongs to, and whose it is, is read off its key alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from agent.protocol.keys import HASH, SORT
from agent.protocol.messages import FeedName
from agent.protocol.onetable.definition import Definition
from agent.protocol.onetable.inspector import Inspector, did_you_mean
from agent.protocol.onetable.json5 import Node
from agent.protocol.onetable.model_reader import Parts
from agent.protocol.onetable.template import ACCOUNT, DEVICE, Template, Variable, overlap, unseparated
from agent.protocol.process import Conflict, Enable, Orphans, Process, Sync

PROCESS_KEYS: Final = (
    "enable", "sync", "period", "mem", "orphans", "conflict", "notify", "metrics", "triggers", "actions",
)  # fmt: skip
_ENABLE: Final[tuple[Enable, ...]] = ("cloud", "device", "both")
_SYNC: Final[tuple[Sync, ...]] = ("none", "up", "down", "both")
_CONFLICT: Final[tuple[Conflict, ...]] = ("latest", "arrival", "cloud", "device")
_ORPHANS: Final[tuple[Orphans, ...]] = ("keep", "remove")
_PRIVATE_KEYS: Final = ("_fleet#", "_unique#")


def read_process(see: Inspector, section: Node | None, models: Mapping[str, Any]) -> dict[str, Process]:
    """The `process` section: model name -> its entry, checked as far as the entry alone tells."""
    if section is None:
        return {}
    entries: dict[str, Process] = {}
    for name, node in see.members(section, "process").items():
        if name not in models:
            hint = did_you_mean(name, tuple(models))
            see.note(node, f"process.{name}", f"there is no model {name!r}", hint, at_name=True)
        entries[name] = _read_entry(see, node, f"process.{name}")
    return entries


def _read_entry(see: Inspector, node: Node, key: str) -> Process:
    members = see.known_members(node, key, PROCESS_KEYS)
    enable = see.choice(members, key, "enable", _ENABLE, "both")
    sync = see.choice(members, key, "sync", _SYNC, "none")
    entry = Process(
        enable=enable,
        sync=sync,
        conflict=see.choice(members, key, "conflict", _CONFLICT, "latest"),
        period_ms=round(min(see.number(members, key, "period", 0), 1e9) * 1000),
        orphans=see.choice(members, key, "orphans", _ORPHANS, "keep"),
        mem=see.flag(members, key, "mem", False),
    )
    if sync != "none" and enable != "both":
        hint = "enable: 'both', or leave sync out"
        see.note(members["sync"], f"{key}.sync", f"cannot sync: enable is {enable!r}", hint)
    if "conflict" in members and sync != "both":
        see.note(members["conflict"], f"{key}.conflict", f"goes with sync 'both'; sync is {sync!r}", "leave it out")
    if entry.mem and sync != "down":
        see.note(members["mem"], f"{key}.mem", f"goes with sync 'down'; sync is {sync!r}", "leave it out")
    if "orphans" in members and sync != "up":
        see.note(members["orphans"], f"{key}.orphans", f"goes with sync 'up'; sync is {sync!r}", "leave it out")
    return entry


def feed_of(process: Process, hash_template: Template | None, sort_template: Template | None) -> FeedName | None:
    """Which feed a synced model belongs to, by the ids in its hash key and in the fixed prefix of its sort key."""
    if process.sync == "none" or hash_template is None or sort_template is None:
        return None
    fixed = (*hash_template.parts, *sort_template.prefix)
    names = {part.name for part in fixed if isinstance(part, Variable)}
    if DEVICE in names:
        return "device"
    return "account" if ACCOUNT in names else "all"


def check_sync(see: Inspector, name: str, process: Process, parts: Parts, node: Node) -> None:
    """What a synced model's keys and stamps must be."""
    for part, template in ((HASH, parts.hash_template), (SORT, parts.sort_template)):
        if template is not None and template.text.startswith(_PRIVATE_KEYS):
            at = node.value[part].value["value"]
            see.note(at, f"models.{name}.{part}.value", f"keys {template.text!r} are Fleet's or the library's own")
    if process.sync == "none":
        return
    if process.sync == "both" and parts.updated is None:
        hint = "params.timestamps: true or 'update'"
        see.note(node, f"models.{name}", "sync 'both' needs an 'updated' stamp to settle conflicts", hint, at_name=True)
    hash_ok = _check_hash(see, name, parts.hash_template, node)
    sort_ok = _check_sort(see, name, parts.sort_template, node)
    if hash_ok and sort_ok and process.sync != "down":
        feed = feed_of(process, parts.hash_template, parts.sort_template)
        if feed != "device":
            whose = "every device" if feed == "all" else "all devices of an account"
            message = f"sync {process.sync!r} needs deviceId in the key: items under {_keys(parts)} belong to {whose}"
            hint = "put ${deviceId} into the hash key, or sync 'down'"
            see.note(node.value[HASH].value["value"], f"models.{name}.{HASH}.value", message, hint)


def _keys(parts: Parts) -> str:
    return " / ".join(repr(t.text) for t in (parts.hash_template, parts.sort_template) if t)


def _template_node(node: Node, part: str) -> Node | None:
    """Where the template of a key stands; None when the file has none there (noted elsewhere if it is a mistake)."""
    member = node.value.get(part) if isinstance(node.value, dict) else None
    return member.value.get("value") if member is not None and isinstance(member.value, dict) else None


def _missing(see: Inspector, name: str, part: str, node: Node) -> bool:
    if _template_node(node, part) is None and isinstance(node.value, dict) and part in node.value:
        message = f"a synced model needs a template for {part!r}"
        see.note(node.value[part], f"models.{name}.{part}", message, "value: 'device#${deviceId}', say", at_name=True)
    return False


def _check_hash(see: Inspector, name: str, template: Template | None, node: Node) -> bool:
    at = _template_node(node, HASH)
    if template is None or at is None:
        return _missing(see, name, HASH, node)
    key = f"models.{name}.{HASH}.value"
    if not template.is_fixed:
        free = next(v.name for v in template.variables if not v.is_id)
        message = f"{template.text!r}: a synced model's hash key is made of literals, deviceId and accountId alone"
        see.note(at, key, message, f"${{{free}}} belongs in the sort key")
        return False
    loose = unseparated(template.parts, at_end=False)
    if loose is not None:
        message = f"{template.text!r}: where ${{{loose}}} ends cannot be told from what follows"
        see.note(at, key, message, "put '#' after it")
        return False
    return True


def _check_sort(see: Inspector, name: str, template: Template | None, node: Node) -> bool:
    at = _template_node(node, SORT)
    if template is None or at is None:
        return _missing(see, name, SORT, node)
    key = f"models.{name}.{SORT}.value"
    prefix = template.prefix
    if not prefix:
        message = f"{template.text!r}: a synced model's sort key begins with a fixed prefix"
        see.note(at, key, message, f"'{name.lower()}#{template.text}', say")
        return False
    loose = unseparated(template.parts[: len(prefix) + 1], at_end=True)
    if loose is not None:
        message = f"{template.text!r}: where ${{{loose}}} ends cannot be told from what follows"
        see.note(at, key, message, "put '#' after it")
        return False
    return True


def check_overlaps(see: Inspector, definitions: Sequence[Definition], nodes: Mapping[str, Node]) -> None:
    """No key of a synced model may be read as another model's."""
    for index, one in enumerate(definitions):
        for other in definitions[:index]:
            if one.process.sync == "none" and other.process.sync == "none":
                continue
            if _ambiguous(one, other):
                at = _template_node(nodes[one.name], SORT) or nodes[one.name]
                message = f"keys of {one.name} and {other.name} overlap: {_texts(one)} and {_texts(other)}"
                hint = f"give each its own beginning, such as '{one.name.lower()}#'"
                see.note(at, f"models.{one.name}.{SORT}.value", message, hint)


def _texts(definition: Definition) -> str:
    templates = (definition.hash_template, definition.sort_template)
    return " / ".join(template.text if template else "(any)" for template in templates)


def _ambiguous(one: Definition, other: Definition) -> bool:
    hashes = (one.hash_template, other.hash_template)
    sorts = (one.sort_template, other.sort_template)
    if hashes[0] is None or hashes[1] is None or sorts[0] is None or sorts[1] is None:
        return False  # a synced model has both; the other's keys are given by hand, and its writes checked by key
    if not overlap(hashes[0].parts, hashes[1].parts):
        return False
    if one.process.sync == "none" or other.process.sync == "none":
        # Beside a model that does not sync, the longer prefix wins, and of equal ones the one without variables.
        return sorts[0].prefix == sorts[1].prefix and sorts[0].is_fixed == sorts[1].is_fixed
    return overlap(sorts[0].prefix, sorts[1].prefix, open_ended=True)
