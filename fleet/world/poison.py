"""Poison: what devices cannot hold and the relay must refuse, put there by programs that go past the model.

Items in the table with values of other types, without what is required, too large for any message, or with something
else where the relay keeps its mark; operations that no relay may take; messages that nobody can read. After a while
each is mended by whoever made it. Watches, with its own eyes, that a message with such an item is taken as any other:
a feed must not stop at it. Called by fleet.world.faults; tells the oracle what applications wrote.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Final

from agent import ids
from agent.file_errors import stored_image
from agent.protocol import topics
from agent.protocol.errors import MessageError
from agent.protocol.messages import Image, Key, Rows, decode_to_device
from agent.protocol.remote import COMMAND, RESULT, has_commands
from agent.protocol.schema import Context, Model, Schema
from cloud.head import OP
from cloud.table import PK, SK, Get, Item, Put, TableError, Write
from fleet.oracle import Oracle
from fleet.oracle.payload import REV, TEXT, text_for
from fleet.rng import Stream, rng
from fleet.scenario.facts import facts
from fleet.scenario.faults import IN_TABLE, MESSAGE, OPERATION
from fleet.scenario.plan import FaultPlan
from fleet.trace import Trace
from fleet.world import disk, fuse
from fleet.world.broker import Broker
from fleet.world.clock import Clock
from fleet.world.cloud import CloudWorld
from fleet.world.device import START_MS, SimDevice

TEXT_CHARS: Final = 60
OVERSIZE_CHARS: Final = 130_000  # more than any message holds
AGAIN_US: Final = 5_000_000  # a device that is off, or lacks the model, is mended later
# What stands in a field instead of a value of its type.
WRONG: Final[Mapping[str, Any]] = {
    "string": 7, "number": "seven", "boolean": "perhaps", "date": [], "object": 7, "array": {"no": "list"}, "set": 7,
}  # fmt: skip
MARKS: Final[tuple[Any, ...]] = (
    7,
    [],
    "home-0001",
    [1, 2, 3, 4],
    {"epoch": 1},
    ["home-0001", "e", "seven", None],
    None,
)
UNREADABLE: Final = (
    b"{", b"\xc1", b"", b"{}", b"[1, 2, 3]", b'{"t": "up"}', b'{"t": "rows", "v": 99}', b'{"t": "nonsense", "v": 1}',
    b'{"t": "hello", "v": 1, "epoch": ""}', b"\x81\xa1t\xa4rows", b'{"t": "rows", "v": 1, "feed": "device", "a": "b"}',
)  # fmt: skip


class Watching(Oracle):
    """The oracle of a run with poison: what is delivered to a device is looked at before it is taken."""

    poison: Poison | None = None

    def wire_down(self, t_us: int, device: str, payload: bytes) -> None:
        super().wire_down(t_us, device, payload)
        if self.poison is not None:
            self.poison.delivered(device, payload)


def watching(kind: type[Oracle]) -> type[Oracle]:
    """The same oracle, which also watches how poison is taken."""
    return type("Watching", (Watching, kind), {}) if kind is not Oracle else Watching


class Poison:
    """All of one run. `revs`: gives the first of the numbers by which the oracle tells a writer's writes apart."""

    def __init__(
        self,
        clock: Clock,
        seed: int,
        devices: Mapping[str, SimDevice],
        broker: Broker,
        cloud: CloudWorld,
        schema: Schema,
        oracle: Oracle,
        trace: Trace,
        probes: Counter[str],
        revs: Callable[[str, str], int],
        end_us: int,
    ) -> None:
        self._clock = clock
        self._seed = seed
        self._devices = devices
        self._broker = broker
        self._cloud = cloud
        self._schema = schema
        self._oracle = oracle
        self._trace = trace
        self._probes = probes
        self._rev = revs("poison", "")
        self._end_us = end_us  # nobody mends anything after that
        self._tie = clock.tie("poison")
        self._streams: dict[tuple[str, str], Stream] = {}
        self._new_id = ids.generator(rng(seed, "poison", "ids"), self._now_ms)
        self.poisoned: dict[Key, int] = {}  # items that are poisoned in the table now -> the number of that write
        if isinstance(oracle, Watching):
            oracle.poison = self

    def strike(self, device: SimDevice, plan: FaultPlan, lasts_us: int) -> None:
        """One poison of the device, to be mended after that time."""
        name = (device.device_id, plan.name)
        stream = self._streams.get(name)
        if stream is None:
            stream = self._streams[name] = rng(self._seed, device.device_id, f"poison/{plan.name}")
        what: str = stream.choice(plan.params["what"])
        models = self._models(what, plan.params["models"], device.schema)
        chosen = stream.below(1 << 32)
        if what == MESSAGE:
            self._unreadable(device, stream)
        elif models and what == OPERATION:
            self._operation(device, models[chosen % len(models)], stream, lasts_us)
        elif models:
            self._item(device, models[chosen % len(models)], what, stream, lasts_us)

    def _models(self, what: str, named: list[str], has: Schema) -> list[Model]:
        """Those that can be hit: what belongs to many devices at once has to be asked for by name. `has`: the device's
        schema. Nothing writes an item of a model there that the agent does not know."""
        found = []
        for model in self._schema.models.values():
            known = facts(self._schema, model.name)
            if named and model.name not in named:
                continue
            if what == OPERATION:
                fits = model.sends and model.ttl_attribute is None and model.name in has.models
            else:
                fits = model.receives and (bool(named) or model.feed == "device")
            if model.name in (COMMAND, RESULT) and has_commands(self._schema):
                continue  # orders are obeyed: what becomes of them is judged by other checks
            if fits and not known.unfilled and REV in known.numbers and TEXT in known.texts:
                found.append(model)
        return found

    def _now_ms(self) -> int:
        return START_MS + self._clock.now // 1000

    def _next_rev(self) -> int:
        self._rev += 1
        return self._rev

    def _good(self, device: SimDevice, model: Model, name: str) -> tuple[Key, Image]:
        """An item of the model as it should be. `name`: of the item, where the model has several."""
        rev = self._next_rev()
        properties: dict[str, Any] = {REV: rev, TEXT: text_for(rev, TEXT_CHARS)}
        key_field = facts(self._schema, model.name).key_field
        if key_field:
            properties[key_field] = name
        context = Context(device.device_id, device.account)
        return model.create(properties, context, self._now_ms(), self._new_id)

    # ---------------------------------------------------------------- in the table

    def _item(self, device: SimDevice, model: Model, what: str, stream: Stream, lasts_us: int) -> None:
        name = stream.choice(("item-1", "poison"))
        mark = stream.choice(MARKS)
        key, image = self._good(device, model, name)
        rev: int = image[REV]
        poison = spoilt(model, image, what)
        if what == "mark":
            poison[OP] = mark
        self._probes["poisoned_in_table"] += 1
        self.poisoned[key] = rev

        def mend(_: object) -> None:
            if self.poisoned.get(key) == rev:
                del self.poisoned[key]
            found: Item | None = self._cloud.table.execute(Get(key), self._now_ms())
            if found is None or found.get(REV) != rev:
                self._probes["poison_overwritten"] += 1  # somebody else has written the item since
                return
            self._probes["poison_mended"] += 1
            good = self._good(device, model, name)[1]
            self._put(key, good)

        self._trace("poison", device.device_id, f"{what} {key[1]} {rev}")
        self._put(key, poison)
        self._clock.post_in(max(1, lasts_us), self._tie, mend, None)

    def _put(self, key: Key, image: Image) -> None:
        def make() -> Write:
            self._trace("cloud-write", "poison", f"{key[1]} {image[REV]}")
            self._oracle.cloud_wrote(self._clock.now, key, image[REV], "put")
            return Put({PK: key[0], SK: key[1], **image})

        self._cloud.write(make, self._tie, _done)

    # ---------------------------------------------------------------- on the device

    def _operation(self, device: SimDevice, model: Model, stream: Stream, lasts_us: int) -> None:
        """A program on the device writes past the model: the relay must refuse what comes of it."""
        name = stream.choice(("item-1", "poison"))
        what = stream.choice(("type", "missing"))
        key, image = self._good(device, model, name)
        rev: int = image[REV]
        if not self._replace(device, model, key, spoilt(model, image, what)):
            return
        self._probes["poisoned_on_device"] += 1

        def mend(_: object) -> None:
            """What the relay refused of a `both` model is no more; an up model's item is as the device has it."""
            cannot = device.database is None or model.name not in device.schema.models
            if cannot and self._clock.now + AGAIN_US < self._end_us:
                self._clock.post_in(AGAIN_US, self._tie, mend, None)
            elif not cannot and self._shown_rev(device, key) == rev:
                good = self._good(device, model, name)[1]
                if self._replace(device, model, key, good):
                    self._probes["poison_mended"] += 1

        self._clock.post_in(max(1, lasts_us), self._tie, mend, None)

    def _replace(self, device: SimDevice, model: Model, key: Key, image: Image) -> bool:
        """As the import of a file does. Whether the application was told that it is done."""
        database = device.database
        if database is None:
            return False
        self._trace("poison", device.device_id, f"{OPERATION} {key[1]} {image[REV]}")
        try:
            database.replace(model, key, image, database.store.visible(*key))
        except fuse.PowerCutError:
            device.cut()
            return False
        except sqlite3.OperationalError as error:
            disk.refused(device, error)
            return False
        return True

    def _shown_rev(self, device: SimDevice, key: Key) -> int | None:
        if device.database is None:
            return None
        try:
            image = device.database.store.visible(*key).image
        except fuse.PowerCutError:
            device.cut()
            return None
        return None if image is None else stored_image(image).get(REV)

    # ---------------------------------------------------------------- on the wire

    def _unreadable(self, device: SimDevice, stream: Stream) -> None:
        """To the relay in the device's name, and to the device."""
        payloads = [stream.choice(UNREADABLE) for _ in range(2)]
        self._probes["poisoned_on_wire"] += 1
        self._trace("poison", device.device_id, MESSAGE)
        self._broker.publish(device, topics.from_device(device.device_id), payloads[0], 1)
        self._broker.publish_from_cloud(topics.to_device(device.device_id), payloads[1], 1)

    # ---------------------------------------------------------------- whether it holds anything up

    def delivered(self, device_id: str, payload: bytes) -> None:
        """A message, before the device takes it. One of rows that fits, with a poisoned item in it, is to move the
        device to its end. Looked at right after, at the same moment."""
        if not self.poisoned:
            return
        device = self._devices[device_id]
        database = device.database
        if database is None or device.session is None:
            return
        try:
            message = decode_to_device(payload)
        except MessageError:
            return
        if not isinstance(message, Rows):
            return
        hits = [row.key for row in message.rows if row.key in self.poisoned]
        cursor = database.store.cursors.get(message.feed)
        if not hits or cursor is None or cursor[0] != message.epoch or not message.a <= cursor[1] < message.b:
            return
        epoch = database.store.identity.epoch
        boots, refused = device.reboots, self._probes["disk_full_session_ended"]

        def look(_: None) -> None:
            if device.database is not database or device.reboots != boots or database.store.identity.epoch != epoch:
                return  # the power went, or the message showed that the database was put back
            if device.full or self._probes["disk_full_session_ended"] != refused:
                return
            there = database.store.cursors.get(message.feed)
            moved = there is None or there[0] != message.epoch or there[1] >= message.b
            at = 0 if there is None else there[1]
            self._oracle.poison_delivered(self._clock.now, device_id, hits[0], message.b, at, moved=moved)

        self._clock.post_in(1, device.tie, look, None)


def spoilt(model: Model, image: Image, what: str) -> dict[str, Any]:
    """The image as no application that goes by the schema writes it. Its number, and the text that goes with it, stay:
    by them it is known."""
    if what == "oversize":
        return {**image, TEXT: text_for(image[REV], OVERSIZE_CHARS)}
    found = dict(image)
    for field in model.fields.values():
        attribute = field.attribute
        if field.name in (REV, TEXT) or attribute in (PK, SK) or field.packed is not None or field.encode is not None:
            continue
        if field.ttl or field.template is not None:
            continue
        if what == "missing" and field.required:
            found.pop(attribute, None)
        elif what == "type" and field.type in WRONG and attribute not in ("created", "updated"):
            found[attribute] = WRONG[field.type]
        elif what == "stamp" and attribute in ("created", "updated"):
            found[attribute] = "the day before yesterday"
    if what == "stamp":
        found.update(created=[], updated="the day before yesterday")
    return found


def _done(error: TableError | None) -> None:
    if error is not None:
        raise error  # it can only be refused for a while


assert set(IN_TABLE) == {"type", "missing", "stamp", "mark", "oversize"}
