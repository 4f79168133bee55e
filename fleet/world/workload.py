"""Applications that write, on devices and in the cloud, as a plan's workloads say.

Each writer draws from its own stream, rng(seed, writer, "workload/NAME"). Every write carries a number `rev`, unique in
the run, by which the oracle tells writes apart; the text of an item follows from it. Faults are not its business.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Literal

from agent import ids
from agent.protocol.messages import Image, Key
from agent.protocol.onetable.dates import from_ms
from agent.protocol.schema import Context, Model, Schema
from cloud.table import PK, SK, Delete, Get, Put, TableError, Update, Write
from fleet.oracle import Oracle
from fleet.oracle.payload import text_for
from fleet.rng import digest64, rng
from fleet.scenario.orders import order
from fleet.scenario.plan import WorkloadPlan
from fleet.trace import Trace
from fleet.world.clock import Clock
from fleet.world.cloud import CloudWorld
from fleet.world.device import START_MS, SimDevice

Kind = Literal["put", "update", "delete"]

COUNT_BITS: Final = 20  # a writer may write a million times
WRITER_BITS: Final = 33  # together 53: exact in JSON numbers everywhere
OVERHEAD_BYTES: Final = 130  # of an item besides its filler: names, keys, stamps


class Revs:
    """Hands out the first `rev` of each writer. It depends on the writer's name alone, but for a collision."""

    def __init__(self) -> None:
        self._taken: dict[int, str] = {}

    def first(self, writer: str, workload: str) -> int:
        number = digest64(writer, workload, "rev") >> (64 - WRITER_BITS)
        while number in self._taken:
            number = (number + 1) % (1 << WRITER_BITS)
        self._taken[number] = writer
        return number << COUNT_BITS


class Writer:
    """What all writers share: when to write, which item, how large."""

    __slots__ = ("_clock", "_entity", "_live", "_plan", "_rev", "_stream", "_tie", "paused")

    def __init__(self, clock: Clock, seed: int, entity: str, plan: WorkloadPlan, revs: Revs) -> None:
        self._clock = clock
        self._plan = plan
        self._entity = entity
        self._stream = rng(seed, entity, f"workload/{plan.name}")
        self._tie = clock.tie(f"{entity}/{plan.name}")
        self._rev = revs.first(entity, plan.name)
        self._live: list[str] = []  # create: keys of what is there, oldest first
        first = plan.from_us + int(self._stream.unit() * plan.every_us)
        if first < plan.until_us:
            clock.post_at(first, self._tie, self._fire, None)

    def _fire(self, _: None) -> None:
        plan = self._plan
        stream = self._stream
        self._act()
        if plan.poisson:
            gap = int(stream.exponential(plan.every_us))
        else:
            gap = int(plan.every_us * (1.0 + plan.jitter * (2.0 * stream.unit() - 1.0)))
        at = self._clock._now + max(gap, 1)
        if at < plan.until_us:
            self._clock.post_at(at, self._tie, self._fire, None)

    def _act(self) -> None:
        plan = self._plan
        if plan.action == "create":
            live = self._live
            if live and ((plan.keep and len(live) >= plan.keep) or self._stream.chance(plan.remove)):
                # The oldest goes where a limit was reached, any where the workload removes.
                index = 0 if plan.keep and len(live) >= plan.keep else self._stream.below(len(live))
                self._remove(live.pop(index))
                if not plan.keep or len(live) + 1 < plan.keep:
                    return
            made = self._create(self._properties())
            if made is not None:
                live.append(made)
            return
        name = f"item-{1 + self._stream.below(plan.items)}" if plan.key_field else ""
        if plan.action == "toggle" and self._exists(name):
            self._remove(name)
        else:
            self._write(name, self._properties())

    def _next_rev(self) -> int:
        self._rev += 1
        return self._rev

    def _properties(self) -> dict[str, Any]:
        plan = self._plan
        rev = self._next_rev()
        properties: dict[str, Any] = {"rev": rev}
        if plan.filler_field:
            size = plan.bytes_min + self._stream.below(plan.bytes_max - plan.bytes_min + 1) - OVERHEAD_BYTES
            properties[plan.filler_field] = text_for(rev, max(size, 8))
        if plan.ttl_field:
            life_us = plan.life_min_us + self._stream.below(plan.life_max_us - plan.life_min_us + 1)
            properties[plan.ttl_field] = from_ms(self._now_ms() + life_us // 1000)
        if plan.commands:
            properties.update(order(self._stream.choice(plan.commands), self._stream))
            wait_us = self._stream.between(plan.expires_min_us, plan.expires_max_us)
            properties["expires"] = from_ms(self._now_ms() + wait_us // 1000)
        return properties

    def _named(self, name: str) -> dict[str, Any]:
        return {self._plan.key_field: name} if name else {}

    # What a side does.

    def _now_ms(self) -> int:
        """Since 1970, by the clock that the application goes by."""
        raise NotImplementedError

    def _exists(self, name: str) -> bool:
        raise NotImplementedError

    def _create(self, properties: dict[str, Any]) -> str | None:
        raise NotImplementedError

    def _write(self, name: str, properties: dict[str, Any]) -> None:
        raise NotImplementedError

    def _remove(self, name: str) -> None:
        raise NotImplementedError


class DeviceWriter(Writer):
    """An application on a device; a device without power writes nothing."""

    __slots__ = ("_device",)

    def __init__(self, clock: Clock, seed: int, device: SimDevice, plan: WorkloadPlan, revs: Revs) -> None:
        self._device = device
        super().__init__(clock, seed, device.device_id, plan, revs)

    def _now_ms(self) -> int:
        database = self._device.database
        return 0 if database is None else database.clock.now_ms()

    def _exists(self, name: str) -> bool:
        return self._device.has(self._plan.model, self._named(name))

    def _create(self, properties: dict[str, Any]) -> str | None:
        made = self._device.write("create", self._plan.model, properties)
        return str(made[self._plan.key_field]) if isinstance(made, dict) else None

    def _write(self, name: str, properties: dict[str, Any]) -> None:
        if name:
            properties[self._plan.key_field] = name
        self._device.write("put", self._plan.model, properties)

    def _remove(self, name: str) -> None:
        self._device.delete_rev = self._next_rev()
        self._device.write("remove", self._plan.model, self._named(name))


class CloudWriter(Writer):
    """An application in the cloud, on the items of one device, of one account, or of all. It writes as applications do
    that use the table: some replace the whole item, some update it in place and keep attributes that they do not know.

    One write after the other: while the table refuses one, what the application has decided since then waits."""

    __slots__ = (
        "_cloud", "_context", "_in_place", "_model", "_new_id", "_oracle", "_table", "_trace", "_waiting", "_writing",
    )  # fmt: skip

    def __init__(
        self,
        clock: Clock,
        seed: int,
        entity: str,
        plan: WorkloadPlan,
        revs: Revs,
        *,
        schema: Schema,
        context: Context,
        cloud: CloudWorld,
        oracle: Oracle,
        trace: Trace,
    ) -> None:
        super().__init__(clock, seed, entity, plan, revs)
        self._model: Model = schema.models[plan.model]
        self._context = context
        self._in_place = ("rev", plan.filler_field, self._model.ttl_attribute or "")  # what an update changes
        self._cloud = cloud
        self._table = cloud.table
        self._oracle = oracle
        self._trace = trace
        self._new_id: Callable[[str], str] = ids.generator(self._stream, self._now_ms)
        self._waiting: list[Callable[[], Write]] = []  # the first is with the table; seldom more than one
        self._writing = False

    def _now_ms(self) -> int:
        return START_MS + self._clock.now // 1000

    def _exists(self, name: str) -> bool:
        return self._living(self._key(name)) is not None

    def _living(self, key: Key) -> Image | None:
        """An item that the table has not swept yet is none any more once its life is over."""
        now_ms = self._now_ms()
        item: Image | None = self._table.execute(Get(key), now_ms)
        if item is None or not self._plan.ttl_field:
            return item
        return None if item.get(self._in_place[2], now_ms) * 1000 <= now_ms else item

    def _key(self, name: str) -> Key:
        return self._model.key(self._named(name), self._context)

    def _submit(self, make: Callable[[], Write]) -> None:
        """`make` reads what it needs and tells the oracle, at the moment when the table takes the write."""
        self._waiting.append(make)
        if len(self._waiting) == 1:
            self._write_next()

    def _write_next(self) -> None:
        """A loop, not a call of the next write by the one before: many may wait after a long refusal."""
        waiting = self._waiting
        while waiting:
            left = len(waiting)
            self._writing = True
            self._cloud.write(waiting[0], self._tie, self._done)
            self._writing = False
            if len(waiting) == left:
                return  # refused for now: `_done` comes later

    def _done(self, error: TableError | None) -> None:
        del self._waiting[0]
        if error is not None:
            raise error  # an application's write can only be refused for a while
        if not self._writing:
            self._write_next()

    def _create(self, properties: dict[str, Any]) -> str | None:
        key, image = self._model.create(properties, self._context, self._now_ms(), self._new_id)
        self._submit(lambda: self._put(key, image, properties["rev"]))
        return str(image[self._plan.key_field])

    def _put(self, key: Key, image: Image, rev: int) -> Write:
        self._tell(key, rev, "put")
        return Put({PK: key[0], SK: key[1], **image})

    def _tell(self, key: Key, rev: int, kind: Kind) -> None:
        self._trace("cloud-write", self._entity, f"{key[1]} {rev}")
        self._oracle.cloud_wrote(self._clock.now, key, rev, kind)

    def _write(self, name: str, properties: dict[str, Any]) -> None:
        properties.update(self._named(name))
        in_place = self._stream.chance(0.5)
        self._submit(lambda: self._put_or_update(properties, in_place))

    def _put_or_update(self, properties: dict[str, Any], in_place: bool) -> Write:
        now = self._now_ms()
        key, image = self._model.create(properties, self._context, now, self._new_id)
        # Without a filler of its own it must not leave that of another's write beside its number.
        item = self._living(key) if in_place and self._plan.filler_field else None
        if item is None:
            return self._put(key, image, properties["rev"])
        changed = {name: image[name] for name in self._in_place if name in image}
        # An application's clock is near the truth, and it never stamps older than what it read.
        changed = self._model.stamp(changed, max(now, self._model.updated_ms(item) + 1))
        self._tell(key, properties["rev"], "update")
        return Update(key, changed)

    def _remove(self, name: str) -> None:
        key, rev = self._key(name), self._next_rev()
        self._submit(lambda: self._delete(key, rev))

    def _delete(self, key: Key, rev: int) -> Write:
        self._tell(key, rev, "delete")
        return Delete(key)
