"""Silent damage: an item is changed or lost in the table or in a device's file, and nobody is told.

What bit rot, a disk that took back a page, an operator past the stream, or a record of the stream that never came do.
Strikes only where device and table agree and nothing is on its way, so that nothing but a comparison can find it; then
looks now and then, with its own eyes, whether they agree again. A copy of a disk that is put back brings back what was
damaged when it was made. Called by fleet.world.faults; tells the oracle.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from agent.file_errors import stored_image
from agent.protocol.messages import ITEM_BYTES_MAX, Image, Key, encode_image
from agent.protocol.schema import Model
from agent.records import ACKED
from cloud.table import Get, Item
from fleet.oracle import Oracle
from fleet.oracle.damaged import HealBound
from fleet.oracle.payload import REV, TEXT, text_for
from fleet.oracle.stored import ORPHAN, image_bytes, image_equals
from fleet.rng import Stream, rng
from fleet.scenario.plan import FaultPlan, Plan
from fleet.trace import Trace
from fleet.world import disk as disks
from fleet.world import fuse
from fleet.world.clock import Clock
from fleet.world.device import START_MS, SimDevice
from fleet.world.table import WorldTable

LOOK_EVERY_US: Final = 5_000_000
_ONLINE: Final = ("idle", "sending")


Position = tuple[str, int]  # (feed epoch, seq); epochs sort by time


class Damaged:
    """One item of one device, damaged here or there. `tail`: where its feed's log ended then: a device that has not
    come so far may agree, and will not for long. `since_us`: copies of the disk from then on differ too, until
    `healed_us`, None so far. `is_lost`: from the disk. `waited_us`: how long the device has been online since, and
    since its last boot, at which it forgets what it suspected."""

    __slots__ = ("boots", "device", "healed_us", "is_lost", "key", "model", "since_us", "tail", "waited_us")

    def __init__(
        self, device: SimDevice, key: Key, model: Model, tail: Position | None, since_us: int, *, is_lost: bool
    ) -> None:
        self.device = device
        self.key = key
        self.model = model
        self.tail = tail
        self.since_us = since_us
        self.healed_us: int | None = None
        self.is_lost = is_lost
        self.boots = device.reboots
        self.waited_us = 0

    def is_online(self) -> None:
        """It was, for another while."""
        if self.boots != self.device.reboots or self.device.full:  # a session that finds no room forgets it, too
            self.boots, self.waited_us = self.device.reboots, 0
        self.waited_us += LOOK_EVERY_US

    def is_in_copy(self, copied_us: int) -> bool:
        """Whether it is over, and a copy of the disk that was made then differs from the table about it still."""
        return self.healed_us is not None and self.since_us <= copied_us <= self.healed_us

    def is_behind(self) -> bool:
        if self.tail is None or self.model.feed is None or self.device.database is None:
            return False
        cursor = self.device.database.store.cursors.get(self.model.feed)
        return cursor is None or cursor < self.tail


class Damage:
    """All of one run. `first_rev`: of the numbers by which the oracle tells what is put into the table."""

    def __init__(
        self,
        clock: Clock,
        seed: int,
        devices: Mapping[str, SimDevice],
        table: WorldTable,
        oracle: Oracle,
        trace: Trace,
        probes: Counter[str],
        first_rev: int,
        tail_of: Callable[[SimDevice, str], Position | None],
    ) -> None:
        self._clock = clock
        self._seed = seed
        self._devices = devices
        self._table = table
        self._oracle = oracle
        self._trace = trace
        self._probes = probes
        self._tie = clock.tie("damage")
        self._streams: dict[tuple[str, str], Stream] = {}
        self._rev = first_rev
        self._tail_of = tail_of
        self.open: list[Damaged] = []
        self._of: dict[str, list[Damaged]] = {}  # by device: all, those that are over too

    def strike(self, device: SimDevice, plan: FaultPlan) -> None:
        """Damages one item of the device, if it has one that will do."""
        name = (device.device_id, plan.name)
        stream = self._streams.get(name)
        if stream is None:
            stream = self._streams[name] = rng(self._seed, device.device_id, f"damage/{plan.name}")
        where = plan.params["where"]
        in_table = where == "table" or (where == "any" and stream.chance(0.5))
        lose = stream.chance(0.5)
        models: list[str] = plan.params["models"]
        try:
            found = [entry for entry in self._sound(device, models) if self._fits(entry, in_table, lose, bool(models))]
        except fuse.PowerCutError:  # it was to fail at the device's next statement, which is ours
            device.cut()
            found = []
        if not found:
            self._probes["damage_found_nothing"] += 1
            return
        model, key, image, item = found[stream.below(len(found))]
        self._trace("damage", device.device_id, f"{key[1]} {'table' if in_table else 'device'} {lose}")
        self._probes["damaged_in_table" if in_table else "damaged_on_device"] += 1
        if in_table:
            self._in_table(key, item, lose)
        else:
            self._on_device(device, key, image, lose)
        hit = self._receivers(model, device) if in_table else [device]
        since_us = 0 if in_table else self._clock.now  # no row tells what the table has now: older copies lack it, too
        for one in hit:
            self._opens(one, key, model, since_us, is_lost=lose and not in_table)

    def put_back(self, device: SimDevice, copied_us: int) -> None:
        """The device's disk was set back to a copy that was made then. What was damaged on the disk at that time is so
        again; and what was damaged in the table, and healed since, the copy does not know."""
        again = {hit.key: hit for hit in self._of.get(device.device_id, ()) if hit.is_in_copy(copied_us)}
        if not again:
            return
        assert device.disk is not None
        held = set(disks.keys_in_file(device.disk))
        for key, hit in again.items():
            self._trace("damage", device.device_id, f"{key[1]} again")
            self._probes["damage_put_back"] += 1
            is_lost = hit.is_lost and key not in held
            if is_lost:
                self._oracle.device_damaged(self._clock.now, device.device_id, key)
            self._opens(device, key, hit.model, self._clock.now, is_lost=is_lost)

    def _opens(self, device: SimDevice, key: Key, model: Model, since_us: int, *, is_lost: bool) -> None:
        if not self.open:
            self._clock.post_in(LOOK_EVERY_US, self._tie, self._look, None)
        tail = self._tail_of(device, model.feed) if model.receives and model.feed is not None else None
        hit = Damaged(device, key, model, tail, since_us, is_lost=is_lost)
        self.open.append(hit)
        self._of.setdefault(device.device_id, []).append(hit)
        self._oracle.damage_done(device.device_id, model.name)

    # ---------------------------------------------------------------- which

    def _sound(self, device: SimDevice, models: list[str]) -> Iterator[tuple[Model, Key, Image, Item]]:
        """Synced items that device and table agree about, with nothing on its way, and without an end of their own."""
        database = device.database
        if database is None:
            return
        for model, key, image in database.items():
            if not (model.sends or model.receives) or (models and model.name not in models):
                continue
            if model.ttl_attribute is not None and model.ttl_attribute in image:
                continue
            visible = database.store.visible(*key)
            if visible.n or visible.state != ACKED or any(hit.key == key for hit in self.open):
                continue
            item = self._item(key)
            if item is not None and image_equals(image, item):
                yield model, key, image, item

    def _fits(self, entry: tuple[Model, Key, Image, Item], in_table: bool, lose: bool, named: bool) -> bool:
        """What is damaged in the table for many devices at once has to be asked for by name. What changes on the device
        in an up model is what the device says."""
        model, _, image, _ = entry
        if in_table and model.feed != "device" and model.receives and not named:
            return False
        return lose or (isinstance(image.get(TEXT), str) and (in_table or model.receives))

    def _receivers(self, model: Model, device: SimDevice) -> list[SimDevice]:
        if not model.receives or model.feed == "device":
            return [device]
        return [one for one in self._devices.values() if model.feed == "all" or one.account == device.account]

    # ---------------------------------------------------------------- how

    def _in_table(self, key: Key, item: Item, lose: bool) -> None:
        new: dict[str, Any] | None = None
        if not lose:
            self._rev += 1
            new = {**item, REV: self._rev, TEXT: text_for(self._rev, len(item[TEXT]))}
        self._table.put_back(key, new)
        self._oracle.table_damaged(self._clock.now, key, new)

    def _on_device(self, device: SimDevice, key: Key, image: Image, lose: bool) -> None:
        assert device.database is not None
        store = device.database.store
        fuse.disarm(store)  # what is done here is not the device's
        sql = "SELECT count(*) FROM main.item WHERE pk=? AND sk=?"
        table = "item" if store.execute(sql, key).fetchone()[0] else "mem_item"
        if lose:
            store.execute(f"DELETE FROM {table} WHERE pk=? AND sk=?", key)
            self._oracle.device_damaged(self._clock.now, device.device_id, key)
        else:
            text: str = image[TEXT]
            text = text[:-1] + ("-" if text[-1] != "-" else "+")
            rotten = encode_image({**image, TEXT: text})
            store.execute(f"UPDATE {table} SET image=? WHERE pk=? AND sk=?", (rotten, *key))
            self._oracle.device_rotten(device.device_id, key, image[REV], text)
        store.load()  # what it remembers of the file it reads again

    # ---------------------------------------------------------------- whether it is healed

    def _item(self, key: Key) -> Item | None:
        found: Item | None = self._table.execute(Get(key), START_MS + self._clock.now // 1000)
        return found

    def _look(self, _: None) -> None:
        left: list[Damaged] = []
        is_rough = self._clock.now < self._oracle.heal_bound.rough_until_us
        for hit in self.open:
            session = hit.device.session
            if session is not None and session.state.value in _ONLINE and not is_rough:
                hit.is_online()
            if self._looks_equal(hit):
                hit.healed_us = self._clock.now
                self._oracle.damage_healed(
                    self._clock.now, hit.device.device_id, hit.key, hit.model.name, hit.waited_us
                )
                self._probes["damage_healed"] += 1
            else:
                left.append(hit)
        self.open = left
        if left:
            self._clock.post_in(LOOK_EVERY_US, self._tie, self._look, None)

    def _looks_equal(self, hit: Damaged) -> bool:
        try:
            return self._agree(hit)
        except fuse.PowerCutError:
            hit.device.cut()
            return False

    def _agree(self, hit: Damaged) -> bool:
        database = hit.device.database
        if database is None or hit.is_behind():
            return False
        if self._oracle.is_refused(hit.key):
            return True  # they differ about it for another reason now, and it is not compared
        visible = database.store.visible(*hit.key)
        data = visible.image
        if data is None and visible.n:
            return False  # a delete of the device's own is on top: it may be refused, and the item be there again
        item = self._item(hit.key)
        if item is not None and image_bytes(item) > ITEM_BYTES_MAX:
            return True  # it has become larger than any message: what the device has of it is not compared
        if data is None or item is None:
            return data is None and (item is None or ORPHAN in item)
        return image_equals(stored_image(data), item)


def heal_bound(plan: Plan) -> HealBound:
    """How long a silent damage may last on a device that is online: until the next comparison, until it is sure, until
    the last heal of its feed is old enough; each comparison may have to be tried again, and another damage of the same
    model begins the waiting anew. Other faults and quotas may lose a push: a row that shows an own write, without which
    nothing is compared, may come only with the next hello. Under quotas each question that is not answered adds to
    it."""
    agent, cloud = plan.agent, plan.cloud
    sure_us = cloud.record_life_us + cloud.worker_life_us
    within_us = 1000 * (2 * agent.digest_period_ms + agent.digest_heal_ms + 8 * agent.digest_retry_ms) + 3 * sure_us
    again_us = 500 * (3 * agent.digest_period_ms + 4 * agent.digest_retry_ms)
    others = [fault.until_us for fault in plan.faults if fault.kind != "silent-damage"]
    if others or plan.quotas is not None:
        within_us += int(1000 * agent.hello_period_ms * (1 + agent.hello_jitter))
    return HealBound(within_us, again_us if plan.quotas is not None else 0, max(others, default=0), sure_us)
