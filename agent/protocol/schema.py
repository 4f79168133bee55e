"""A OneTable schema: its models, and which model and which device a key belongs to.

Never does I/O but `Schema.load`, never reads a clock. The whole API of the schema engine is here; called by the
database, the session, the relay, the simulator and the command lines.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from agent.protocol.errors import InputError, ModelError, Problem
from agent.protocol.keys import HASH_BYTES_MAX
from agent.protocol.messages import FeedName, Image, Key
from agent.protocol.onetable.definition import Definition
from agent.protocol.onetable.indexes import Index
from agent.protocol.onetable.loader import Loaded, ReadText, load_file, load_text
from agent.protocol.onetable.model import Model
from agent.protocol.onetable.template import ACCOUNT, DEVICE, Part, Template, Variable, pattern, resolve
from agent.protocol.process import Context
from agent.protocol.topics import valid_id

__all__ = ["Context", "Image", "InputError", "Key", "Model", "ModelError", "Place", "Problem", "Schema"]

CACHE_MAX: Final = 1 << 16  # hash keys whose models are remembered
_Ids = tuple[str | None, str | None]  # (device, account)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a key belongs. `device_id`, `account_id`: as the key names them, None where it does not."""

    model: Model
    device_id: str | None
    account_id: str | None


class _Slot:
    """One model's keys as `locate` looks for them: the literal that its sort keys begin with, and the rest."""

    __slots__ = ("is_fixed", "literal", "matcher", "model")

    def __init__(self, model: Model, template: Template | None) -> None:
        prefix: tuple[Part, ...] = template.prefix if template else ()
        self.model = model
        self.literal = prefix[0] if prefix and isinstance(prefix[0], str) else ""
        self.is_fixed = template is not None and template.is_fixed
        dynamic = any(isinstance(part, Variable) for part in prefix)
        # A prefix with ids in it needs more than a comparison; rare, so that it may cost more.
        self.matcher = re.compile(pattern(prefix)) if dynamic else None


_Bucket = tuple[tuple[str, bool, int], ...]  # (sort prefix, no more may follow, number of the slot)


class _Group:
    """The models that can live under one hash key, by the first characters of their sort keys."""

    __slots__ = ("buckets", "ids_of", "others", "size", "slots")

    def __init__(self, slots: list[_Slot], ids_of: list[int]) -> None:
        self.slots = slots
        self.ids_of = ids_of  # number of the slot -> number of its hash template
        order = sorted(range(len(slots)), key=lambda i: (-len(slots[i].literal), not slots[i].is_fixed, i))
        lengths = [len(slot.literal) for slot in slots if slot.literal]
        self.size = min(lengths, default=0)
        entries = [(slots[i].literal, slots[i].is_fixed and slots[i].matcher is None, i) for i in order]
        heads = dict.fromkeys(literal[: self.size] for literal, _, _ in entries if literal)
        self.buckets: dict[str, _Bucket] = {
            head: tuple(entry for entry in entries if not entry[0] or entry[0][: self.size] == head) for head in heads
        }
        self.others: _Bucket = tuple(entry for entry in entries if not entry[0])


class _HashKey:
    """What is remembered of one hash key."""

    __slots__ = ("buckets", "group", "ids", "others", "places", "size")

    def __init__(self, group: _Group, ids: dict[int, _Ids]) -> None:
        self.group = group
        self.size = group.size
        self.buckets = group.buckets
        self.others = group.others
        self.ids = ids
        self.places: dict[int, Place] = {}


class Schema:
    """Immutable but for the memory of `locate`."""

    __slots__ = (
        "_cache",
        "_fingerprints",
        "_groups",
        "_hashes",
        "_slots",
        "feeds",
        "feeds_in_memory",
        "file",
        "fingerprints",
        "indexes",
        "models",
        "models_on_device",
        "text",
        "version",
    )

    version: str
    models: Mapping[str, Model]
    models_on_device: dict[str, Model]
    indexes: Mapping[str, Index]  # the secondary ones
    feeds: tuple[FeedName, ...]  # those that models receive in
    feeds_in_memory: tuple[FeedName, ...]  # of these, those with models that are kept in memory
    fingerprints: dict[str, str]  # of each of these: see `fingerprint`
    file: str
    text: str

    def __init__(self, loaded: Loaded, file: str) -> None:
        self.version = loaded.version
        self.file = file
        self.text = loaded.text
        models = [Model(definition) for definition in loaded.definitions]
        self.models = MappingProxyType({model.name: model for model in models})
        self.indexes = MappingProxyType({index.name: index for index in loaded.indexes})
        self.models_on_device = {model.name: model for model in models if model.on_device}
        order: tuple[FeedName, ...] = ("device", "account", "all")
        receiving = [model for model in models if model.receives]
        self.feeds = tuple(feed for feed in order if any(m.feed == feed for m in receiving))
        self.feeds_in_memory = tuple(feed for feed in self.feeds if any(m.mem and m.feed == feed for m in receiving))
        self._fingerprints = {feed: _fingerprint(loaded, feed) for feed in order}
        self.fingerprints = {feed: self._fingerprints[feed] for feed in self.feeds}
        self._cache: dict[str, _HashKey | None] = {}
        self._groups: dict[tuple[int, ...], _Group] = {}
        # One matcher per distinct hash template, with the models that have it.
        self._hashes: list[re.Pattern[str]] = []
        self._slots: list[list[_Slot]] = []
        numbers: dict[tuple[Part, ...], int] = {}
        for model in models:
            hash_template = model.definition.hash_template
            if hash_template is None:
                continue  # keys given by hand: nothing tells whose they are
            parts = hash_template.parts
            if parts not in numbers:
                numbers[parts] = len(self._hashes)
                self._hashes.append(re.compile(pattern(parts)))
                self._slots.append([])
            self._slots[numbers[parts]].append(_Slot(model, model.definition.sort_template))

    @classmethod
    def load(cls, path: str | Path) -> Schema:
        """Raises InputError with every problem."""
        return cls(load_file(Path(path)), str(path))

    @classmethod
    def parse(cls, text: str, file: str, reader: ReadText | None = None) -> Schema:
        """`file`: the name that problems show. `reader`: gives the text of the files that the schema blends; without
        one it blends none. Raises InputError with every problem."""
        return cls(load_text(text, file, reader), file)

    # --- whose is a key

    def locate(self, key: Key) -> Place | None:
        """The model that a key belongs to (the longest fixed prefix wins) and whose it is; None: no model's."""
        pk, sk = key
        try:
            known = self._cache[pk]
        except KeyError:
            known = self._remember(pk)
        if known is None:
            return None
        for prefix, alone, number in known.buckets.get(sk[: known.size], known.others):
            if sk == prefix if alone else sk.startswith(prefix):
                place = known.places.get(number)
                return place if place is not None else self._place(known, sk, number)
        return None

    def _remember(self, pk: str) -> _HashKey | None:
        if len(pk) > HASH_BYTES_MAX:
            return None  # no table holds it: not worth the memory that a hostile peer could fill
        ids: dict[int, _Ids] = {}
        for number, matcher in enumerate(self._hashes):
            match = matcher.fullmatch(pk)
            if match is None:
                continue
            found = match.groupdict()
            if all(valid_id(text) for text in found.values()):
                ids[number] = (found.get(DEVICE), found.get(ACCOUNT))
        known = _HashKey(self._group(tuple(ids)), ids) if ids else None
        if len(self._cache) >= CACHE_MAX:
            self._cache.clear()
        self._cache[pk] = known
        return known

    def _group(self, numbers: tuple[int, ...]) -> _Group:
        group = self._groups.get(numbers)
        if group is None:
            slots = [(slot, number) for number in numbers for slot in self._slots[number]]
            group = _Group([slot for slot, _ in slots], [number for _, number in slots])
            self._groups[numbers] = group
        return group

    def _place(self, known: _HashKey, sk: str, number: int) -> Place | None:
        """Not yet remembered, or one with ids in the sort key: those are looked for anew each time."""
        best: Place | None = None
        best_length = -1
        cached = True
        group = known.group
        for prefix, alone, other in known.buckets.get(sk[: known.size], known.others):
            if not (sk == prefix if alone else sk.startswith(prefix)):
                continue
            slot = group.slots[other]
            device, account = known.ids[group.ids_of[other]]
            length = len(prefix)
            if slot.matcher is not None:
                cached = False
                match = slot.matcher.fullmatch(sk) if slot.is_fixed else slot.matcher.match(sk)
                if match is None:
                    continue
                found = match.groupdict()
                if not _agree(found, device, account):
                    continue
                device, account = found.get(DEVICE, device), found.get(ACCOUNT, account)
                length = match.end()
            if length > best_length:
                best, best_length = Place(slot.model, device, account), length
        if cached and best is not None:
            known.places[number] = best
        return best

    # --- ranges of keys

    def ranges(self, feed: FeedName, context: Context) -> list[tuple[str, str]]:
        """Distinct (hash key, sort prefix) of the models that receive in this feed: what a snapshot has to read.

        A range may hold other keys too (of models that do not sync): ask `locate` of each."""
        found = [_range(m, context) for m in self.models.values() if m.receives and m.feed == feed]
        return list(dict.fromkeys(found))

    def up_ranges(self, context: Context) -> list[tuple[Model, str, str]]:
        """(model, hash key, sort prefix) of the models that sync up only: what a sweep has to read."""
        return [(model, *_range(model, context)) for model in self.models.values() if model.sync == "up"]

    def synced_ranges(self, context: Context) -> dict[tuple[str, str], list[str]]:
        """(hash key, sort prefix) -> the names of the models that sync and whose items lie there; each model in one."""
        found: dict[tuple[str, str], list[str]] = {}
        for model in self.models.values():
            if model.sends or model.receives:
                found.setdefault(_range(model, context), []).append(model.name)
        return found

    def fingerprint(self, feed: FeedName) -> str:
        """16 hexadecimal digits that change when the definition of a model that receives in this feed changes."""
        return self._fingerprints[feed]


def _agree(found: dict[str, str], device: str | None, account: str | None) -> bool:
    """Ids in the sort key are valid, and the hash key's own where it has them."""
    for name, text in found.items():
        there = device if name == DEVICE else account
        if not valid_id(text) or there not in (None, text):
            return False
    return True


def _range(model: Model, context: Context) -> tuple[str, str]:
    ids = {DEVICE: context.device_id, ACCOUNT: context.account_id}
    definition = model.definition
    if definition.hash_template is None or definition.sort_template is None:  # refused for a synced model
        raise AssertionError(f"{model.name} has no key templates")
    return resolve(definition.hash_template.parts, ids), resolve(definition.sort_template.prefix, ids)


def _fingerprint(loaded: Loaded, feed: FeedName) -> str:
    def receives(definition: Definition) -> bool:
        return definition.feed == feed and definition.process.sync in ("down", "both")

    names = [definition.name for definition in loaded.definitions if receives(definition)]
    models: dict[str, Any] = loaded.plain["models"]
    process: dict[str, Any] = loaded.plain.get("process") or {}
    seen = {
        "params": loaded.plain.get("params"),
        "models": {name: {"fields": models[name], "process": process.get(name)} for name in names},
    }
    text = json.dumps(seen, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
