"""The end of a run: the final states of devices and table against each other and against what was followed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from agent.protocol.messages import ITEM_BYTES_MAX, Key
from fleet.oracle import stored
from fleet.oracle.check import CheckResult
from fleet.oracle.checks.lives import LATE_US, ahead_us
from fleet.oracle.damaged import DamagedSide
from fleet.oracle.payload import REV
from fleet.oracle.state import NO_WRITES, SWEPT, Device, Item

Image = Mapping[str, Any]
DeviceItems = Callable[[str], Iterable[tuple[Key, int | None, Image]]]


class Final(DamagedSide):
    """The last look."""

    def results(self) -> list[CheckResult]:
        """The checks as they stand, in the order of the report. Without `finish`, convergence is unknown."""
        return self.checks.results()

    def finish(
        self,
        t_us: int,
        device_items: DeviceItems,
        table_items: Iterable[Image],
        outboxes: Mapping[str, int],
        identity_changes: Mapping[str, int],
        waiting: Mapping[str, Key] | None = None,
    ) -> list[CheckResult]:
        """Judges the final states. `device_items`: (key, rev, raw image) of all that applications on a device can read.
        `table_items`: every item of the table; private ones are skipped. `outboxes`: operations waiting, by device.
        `identity_changes`: epochs minted by an adopted device. `waiting`: of an operation in each outbox, its item."""
        if self._open:
            self._settle()
        table = {(item["pk"], item["sk"]): item for item in table_items if not item["pk"].startswith(stored.PRIVATE)}
        self._table_is_what_was_committed(t_us, table)
        self._all_decided(t_us, outboxes)
        self._all_logged(t_us)
        if self._is_quiet:
            self.checks.quiet.checked += len(self._devices)
        for name, d in self._devices.items():
            self.checks.epoch.minted(t_us, name, identity_changes.get(name, 0), d.restored)
            self.checks.convergence.outbox(t_us, name, waiting.get(name) if waiting else None, outboxes.get(name, 0))
            self._converged(t_us, d, device_items(name), table)
        return self.results()

    def _table_is_what_was_committed(self, t_us: int, table: Mapping[Key, Image]) -> None:
        acked = self.checks.acked
        for key, found in table.items():
            item = self._items.get(key) or self._find_item(key)
            if item is not None:
                rev = found.get(REV)
                same = item.image is found or (item.rev == rev and item.image is not None and item.image == found)
                acked.kept(t_us, _owner(item), key, item.rev, rev, same)
        for item in self._items.values():
            if item.image is not None and item.key not in table:
                acked.kept(t_us, _owner(item), item.key, item.rev, None, False)

    def _all_decided(self, t_us: int, outboxes: Mapping[str, int]) -> None:
        decided = self.checks.decided
        for name, d in self._devices.items():
            where = f"{outboxes.get(name, 0)} operations in the outbox"
            for sent in d.ops.values():
                if sent.fate is None:
                    for write in sent.writes:
                        key = sent.item.key if sent.item is not None else None
                        decided.undecided(t_us, name, key, write[0], f"sent as operation {sent.u}, {where}")
        for item in self._items.values():
            if item.pending is not NO_WRITES:
                name = _owner(item)
                where = f"never sent, {outboxes.get(name, 0)} operations in the outbox"
                for write in item.pending:
                    decided.undecided(t_us, name, item.key, write[0], where)

    def _all_logged(self, t_us: int) -> None:
        for item in self._items.values():
            if item.model.name in self._relay_lacks:
                continue  # no relay knows of it now
            if item.receives and item.feed is not None and item.index > item.logged:
                self.checks.logged.missing(t_us, _owner(item), item.key, item.rev, item.at(item.logged))
            if item.swept == SWEPT and item.receives and item.feed is not None:
                self.checks.sweeps.missing(t_us, _owner(item), item.key)

    def _converged(
        self, t_us: int, d: Device, readable: Iterable[tuple[Key, int | None, Image]], table: Mapping[Key, Image]
    ) -> None:
        checks = self.checks
        seen: set[Key] = set()
        for key, rev, image in readable:
            seen.add(key)
            item = self._items.get(key) or self._find_item(key)
            if item is None or (item.owner is not d and (item.wide is None or self._member(d, item) is None)):
                checks.isolation.foreign(t_us, d.name, key, "held at the end")
                continue
            if not self._stays_rotten(d, item, rev, image, table.get(key)):
                checks.invented.image(t_us, d.name, key, image, "on the device at the end")
            if item.sends or item.receives:
                self._equal(t_us, d, item, image, table.get(key))
                if item.receives and self._readable_latest(d, item):
                    self._reached(d, item, item.index, None)
            elif not item.model.on_device:
                checks.direction.crossed(t_us, d.name, key, item.model.name, "on the device at the end")
            elif rev != item.visible:
                checks.own_writes.before_write(t_us, d.name, key, item.visible, rev)
        for item in list(d.items.values()):
            if item.key not in seen:
                self._absent(t_us, d, item, table)
        for kind in ("account", "all"):
            for item in list(d.feeds[kind].items.values()):
                if item.key not in seen:
                    self._absent(t_us, d, item, table)

    def _stays_rotten(self, d: Device, item: Item, rev: int | None, image: Image, found: Image | None) -> bool:
        """Whether this is the text that was put on the disk, and is there with cause: it was not healed so far, which
        is for digest-heals to judge; or the item is too large to be sent by now, so that nothing takes the place of
        what the device has, and no comparison looks at it."""
        if not d.is_rotten(item.key, rev, image):
            return False
        if item.key in d.lasting:
            return True
        return item.oversize and found is not None and stored.image_bytes(found) > ITEM_BYTES_MAX

    def _absent(self, t_us: int, d: Device, item: Item, table: Mapping[Key, Image]) -> None:
        """An item that the device does not have."""
        if item.model.name in d.lacks:
            return
        if not (item.sends or item.receives):
            if item.visible is not None:
                self.checks.own_writes.before_write(t_us, d.name, item.key, item.visible, None)
            return
        found = table.get(item.key)
        if found is not None:
            self._equal(t_us, d, item, None, found)
        elif item.receives and self._readable_latest(d, item):
            self._reached(d, item, item.index, None)

    def _equal(self, t_us: int, d: Device, item: Item, image: Image | None, found: Image | None) -> None:
        if (item.rejected and not item.receives) or (found is not None and stored.ORPHAN in found):
            return
        if item.oversize and found is not None:
            size_bytes = stored.image_bytes(found)
            if size_bytes > ITEM_BYTES_MAX:  # else the log calls too large what is not
                self.checks.convergence.too_large(item.key, size_bytes)
                return
        if item.ends is not None:
            judged = self._living(t_us, d, item, image, found)
            if judged is None:
                return
            image, found = judged
        self.checks.convergence.items(t_us, d.name, item.key, item.model, image, found)

    def _living(
        self, t_us: int, d: Device, item: Item, image: Image | None, found: Image | None
    ) -> tuple[Image | None, Image | None] | None:
        """(image, found) without those whose lives are over, which the table sweeps when it likes. None: one of them
        ends so near that a device cannot know."""
        expired, judged = self.checks.expired, []
        for state in (image, found):
            end_s = None if state is None else state.get(item.model.ttl_attribute or "")
            if type(end_s) is not int:
                judged.append(state)
                continue
            left_us = end_s * 1_000_000 - self._start_us - t_us
            if -LATE_US <= left_us <= ahead_us(t_us):
                expired.excused += 1
                return None
            if state is image:
                expired.read(t_us, d.name, item.key, None if image is None else image.get(REV), left_us, "at the end")
            judged.append(state if left_us > 0 else None)
        return judged[0], judged[1]


def _owner(item: Item) -> str:
    return item.owner.name if item.owner is not None else ""
