"""The oracle's view of what was damaged behind everybody's back, and of what devices are told of comparisons.

A damage is a fact that the simulated world tells; the oracle takes the damaged state for what it is, and judges from
then on as ever. It does not count, compare or hash anything that the agent or the relay does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from agent.protocol.messages import ITEM_BYTES_MAX, Key
from fleet.oracle import stored
from fleet.oracle.app_side import AppSide
from fleet.oracle.restored import Image
from fleet.oracle.state import FLAGGED, GONE, HOUR_US, SWEPT, Device

JUST_NOW_US = 120_000_000  # an answer may be on its way while what it tells of is healed


class HealBound(NamedTuple):
    """How long a silent damage may last on a device that is online: `within_us`, from `rough_until_us` on, until when
    other faults lose messages, delay rows and refuse requests; and `again_us` more for each question of the device's
    without a whole answer, which is 0 but under quotas. `record_us`: how long a stream's record and its worker live."""

    within_us: int
    again_us: int
    rough_until_us: int
    record_us: int = 24 * HOUR_US


class DamagedSide(AppSide):
    """What a damage means."""

    heal_bound = HealBound(0, 0, 0)

    def table_damaged(self, t_us: int, key: Key, image: Image | None) -> None:
        """The table holds this now, or nothing; no stream and no commit tells of it."""
        if self._open:
            self._settle()
        item = self._items.get(key) or self._find_item(key)
        if item is not None:
            if not item.untold:
                self._before_damage[key] = item.logged
            self._put_back(t_us, item, image)
            if item.feed is not None:  # devices that are behind still get rows from before
                item.log_epoch, item.log_seq = item.feed.epoch, item.feed.seq
                item.untold = True

    def device_damaged(self, t_us: int, device: str, key: Key) -> None:
        """The item is gone from the device's disk: its applications cannot read it any more."""
        if self._open:
            self._settle()
        item = self._items.get(key)
        if item is not None:
            d = self._devices[device]
            d.rotten = {**d.rotten, (key, GONE): ""}
            self._vanish(t_us, d, item)

    def device_rotten(self, device: str, key: Key, rev: int, text: str) -> None:
        """The item has this text on the device's disk: its applications may come to read it, until it is healed."""
        d = self._devices[device]
        d.rotten = {**d.rotten, (key, rev): text}

    def damage_done(self, device: str, model: str) -> None:
        """An item of the model differs between the device and the table from now on."""
        damaged = self._devices[device].damaged
        damaged[model] = (damaged.get(model, (0, 0))[0] + 1, 0)

    def damage_healed(self, t_us: int, device: str, key: Key, model: str, waited_us: int) -> None:
        """They agree again. `waited_us`: how long the device was online meanwhile, with no other fault left to heal."""
        d = self._devices[device]
        d.damaged[model] = (d.damaged[model][0] - 1, t_us)
        if (key, GONE) in d.rotten:
            d.rotten = {state: text for state, text in d.rotten.items() if state != (key, GONE)}
        bound = self.heal_bound
        within_us = bound.within_us + bound.again_us * d.unanswered + d.paused[0]
        self.checks.heals.healed(t_us, device, key, waited_us, within_us)

    def is_refused(self, key: Key) -> bool:
        """Whether the cloud would not have the last write of this item of an up model. Device and table differ about it
        whatever else has become of it, until the device writes it again: comparisons leave it out."""
        item = self._items.get(key)
        return item is not None and item.rejected and not item.receives

    def damage_lasts(self, t_us: int, device: str, key: Key) -> None:
        """The run is over, and they differ."""
        self._devices[device].lasting |= {key}
        self.checks.heals.lasts(t_us, device, key)

    def device_lacks(self, t_us: int, device: str, models: frozenset[str]) -> None:
        """From its next boot on the device's schema has not these models: its applications cannot read their items."""
        if self._open:
            self._settle()
        d = self._devices[device]
        d.returned = (d.returned | d.lacks) - models
        d.lacks = models

    def relay_lacks(self, t_us: int, models: frozenset[str]) -> None:
        """From now on no relay knows these models. Of what changed while it did not know one no row will tell: devices
        get the present state by a snapshot, once there is a relay that knows it."""
        if self._open:
            self._settle()
        known = self._relay_lacks - models
        self._relay_lacks = models
        for item in self._items.values():
            if item.receives and item.model.name in known:
                item.logged, item.untold = item.index, True
                item.log_epoch, item.log_seq = "", 0
                item.swept = FLAGGED if item.swept == SWEPT else item.swept
                item.oversize = item.image is not None and stored.image_bytes(item.image) > ITEM_BYTES_MAX

    def poison_delivered(self, t_us: int, device: str, key: Key, seq: int, at: int, *, moved: bool) -> None:
        """Rows up to `seq` that fit, with a poisoned item among them, were delivered; the device is `at` that row."""
        self.checks.poison.delivered(t_us, device, key, seq, at, moved=moved)

    def _waits(self, t_us: int, d: Device, retry_ms: int) -> None:
        """The relay tells the device to be quiet for so long; by chance it will be for up to twice that, and ask
        nothing."""
        paused_us, until_us = d.paused
        end_us = t_us + 2_000 * retry_ms
        if end_us > until_us:
            d.paused = (paused_us + end_us - max(t_us, until_us), end_us)

    def _compares(self, d: Device) -> None:
        """The device asks whether it holds the same as the table."""
        d.unanswered += 1

    def _compared(self, t_us: int, d: Device, models: Sequence[str], skipped: Sequence[str]) -> None:
        """The device is told what came of that: these models differ for good. `skipped`: those of which nothing can be
        said, since something was on its way."""
        if not skipped:
            d.unanswered = max(0, d.unanswered - 1)
        if d.cloned:
            return  # what its copy holds is not looked at
        alarms = self.checks.alarms
        alarms.compared()
        for model in models:
            count, healed_us = d.damaged.get(model, (0, -JUST_NOW_US))
            if count or t_us - healed_us <= JUST_NOW_US:
                continue
            if d.old_epoch or self._outlives_its_record(t_us, d, model):
                alarms.excused += 1
            else:
                alarms.alarm(t_us, d.name, model)

    def _outlives_its_record(self, t_us: int, d: Device, model: str) -> bool:
        """Whether a change of such an item has had no row for longer than a record of the stream and its worker live:
        then it is taken for one that no row will ever tell of."""
        for feed in d.feeds.values():
            for item in feed.unsettled.values():
                if item.model.name == model and item.logged < item.index:
                    changed_us = item.superseded_us(max(item.logged, item.base - 1))
                    if changed_us is not None and t_us - changed_us > self.heal_bound.record_us:
                        return True
        return False
