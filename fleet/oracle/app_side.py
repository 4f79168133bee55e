"""The oracle's view of the applications on the devices: what they wrote, what they were told, what they can read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from agent.protocol.messages import Key
from fleet.oracle.checks.lives import ahead_us
from fleet.oracle.payload import TEXT, is_genuine
from fleet.oracle.replay import Replay
from fleet.oracle.state import (
    ABSENT,
    ACCEPTED,
    GONE,
    LOST,
    NEVER_SWEPT,
    NO_KEYS,
    NO_WRITES,
    NONE,
    NOT_PAUSED,
    PENDING,
    UNKNOWN,
    WINDOW_US,
    Device,
    Item,
    Write,
)
from fleet.oracle.stored import image_equals
from fleet.oracle.wire_side import WireSide


class AppSide(WireSide):
    """What applications did and saw."""

    # ------------------------------------------------------------------ writes

    def device_wrote(
        self,
        t_us: int,
        device: str,
        key: Key,
        kind: str,
        rev: int,
        updated_ms: int,
        before_rev: int | None,
        durable: bool = True,
    ) -> None:
        """An application's write has returned. kind: create, update or delete. `before_rev`: what it could read just
        before (None: no item). `durable` False: the call did not return, the power went; it may be there or not."""
        if self._open:
            self._settle()
        item = self._items.get(key) or self._find_item(key)
        if item is None:
            return
        d = self._devices[device]
        self.local_writes += 1
        d.tally.writes[item.model.name] += 1
        checks = self.checks
        checks.direction.checked += 1
        sends = item.sends
        if not sends and (item.receives or not item.model.on_device):
            checks.direction.crossed(t_us, device, key, item.model.name, "written by the device's application")
        if item.owner is not d:
            if item.wide is None:
                checks.isolation.foreign(t_us, device, key, "written by its application")
            return
        if before_rev == item.visible:
            checks.own_writes.checked += 1
        elif before_rev is None and self._hidden(t_us, d, item, item.visible):
            before_rev = item.visible
        else:
            self._read_otherwise(t_us, d, item, before_rev)
        if sends and not item.receives:
            checks.up_models.read(t_us, device, key, item.visible, before_rev)
        is_delete = kind == "delete"
        write = (rev, updated_ms, t_us, is_delete)
        if not durable:
            item.maybe = write
            return
        item.maybe = None
        self._take_write(item, write)

    def _take_write(self, item: Item, write: Write) -> None:
        item.visible = None if write[3] else write[0]
        if not item.sends:
            if item.visible is None and not item.receives:
                self._forget(item)
            return
        item.own = PENDING
        pending = item.pending
        if isinstance(pending, list):
            pending.append(write)
        else:
            item.pending = [write]

    def device_sets_end(self, key: Key, rev: int, end_s: Any) -> None:
        """Before a write is told, of a schema with lives: when that state's life ends, in seconds since 1970."""
        item = self._items.get(key) or self._find_item(key)
        if item is not None:
            item.set_end(rev, end_s)

    def device_read(self, t_us: int, device: str, key: Key, rev: int | None) -> None:
        """An application on the device that owns the item has read it, for no reason of its own."""
        if self._open:
            self._settle()
        item = self._items.get(key)
        if item is None or item.owner is not self._devices[device]:
            return
        if rev == item.visible:
            self.checks.own_writes.checked += 1
        else:
            self._read_otherwise(t_us, item.owner, item, rev)

    def _read_otherwise(self, t_us: int, d: Device, item: Item, rev: int | None) -> None:
        """An application reads something that it was not told of. Where sync may change the item, it may be ahead of
        the trigger; it may not be older than what was shown, nor hide an undecided own write."""
        index = item.find(rev, item.seen) if item.receives and item.own != PENDING else UNKNOWN
        if index == UNKNOWN or index < item.seen or (item.own == ACCEPTED and index < item.own_index):
            self.checks.own_writes.before_write(t_us, d.name, item.key, item.visible, rev)
        else:
            self.checks.own_writes.checked += 1
            self._show(t_us, d, item, index, rev, item.seen)

    # ------------------------------------------------------------------ lives

    def device_expired(self, t_us: int, device: str, key: Key, rev: int | None, updated_ms: int, *, own: bool) -> None:
        """A trigger: the state `rev` is gone for its age. `own`: the device found it over, and what syncs up must be
        deleted in the cloud too, as by a write stamped `updated_ms`; else sync says so."""
        if self._open:
            self._settle()
        d = self._devices[device]
        item = self._items.get(key) or self._find_item(key)
        if item is None:
            self.checks.direction.crossed(t_us, device, key, "(none)", "shown to applications")
            return
        if item.owner is not d if item.wide is None else self._member(d, item) is None:
            self.checks.isolation.foreign(t_us, device, key, "shown to its applications")
            return
        left_us = self._left_us(item, rev, t_us)
        if self._end_is_forgotten(d, item, rev):
            pass
        elif own or not self._ended_in_cloud(d, item, t_us):
            self.checks.early.gone(t_us, device, key, rev, left_us, ahead_us(t_us))
        if own and not d.answered:
            self.checks.early.unset(t_us, device, key, rev)
        if rev != self._readable(d, item):  # it came to light only now, when an own write over it was lost
            if item.wide is None and d.set_back_us is None:
                self._read_otherwise(t_us, d, item, rev)
        elif d.timed and left_us is not None:
            self.checks.expired.dropped(t_us, device, key, rev, min(-left_us, t_us - max(d.clock_us, d.full_until_us)))
        if item.receives and not own:
            seen = self._seen(d, item)
            index = self._until_gone(t_us, item, seen)
            is_below = item.own == LOST and rev != item.at(seen)  # a lost write was above what was seen
            if index > seen and not (is_below and self._is_over(t_us, item, seen)):
                self._reached(d, item, index, t_us)
        self._vanish(t_us, d, item)
        if own and item.sends:
            self._take_write(item, (rev or 0, updated_ms, t_us, True))
        elif not item.sends and not item.receives:
            self._forget(item)

    def _vanish(self, t_us: int, d: Device, item: Item) -> None:
        """Applications on the device cannot read it any more, whatever the table has."""
        if item.wide is not None:
            d.hidden |= {item.key}
        else:
            item.visible = None
            item.shown_us = t_us

    def _until_gone(self, t_us: int, item: Item, seen: int) -> int:
        """The index of the earliest state after `seen` that no application can read now: no item, or one whose life
        is over. A device that hears late what there was may get the states after that one still, deletion or not. What
        Item.find says of no item, if there is none."""
        index = item.find(None, seen)
        states = range(max(seen + 1, item.base), index if index >= seen else item.index + 1)
        return next((later for later in states if self._is_over(t_us, item, later)), index)

    def _is_over(self, t_us: int, item: Item, index: int) -> bool:
        """Whether the life of the state at `index` has ended."""
        left_us = self._left_us(item, item.at(index), t_us)
        return left_us is not None and left_us <= ahead_us(t_us)

    def _ended_in_cloud(self, d: Device, item: Item, t_us: int) -> bool:
        """Whether a state that the device did not show, or not yet, was swept by the table or is over: its life may
        have been the shorter one. A copy of the device may hold one from before what the other has seen."""
        if item.swept != NEVER_SWEPT:
            return True
        first = 0 if d.cloned else max(0, self._seen(d, item) - item.base)
        lives = (self._left_us(item, rev, t_us) for rev, _ in item.history[first:])
        return any(left_us is not None and left_us <= ahead_us(t_us) for left_us in lives)

    def _hidden(self, t_us: int, d: Device, item: Item, rev: int | None) -> bool:
        """Whether applications may be unable to read the state `rev` for its age, or for a clock that is not set."""
        left_us = self._left_us(item, rev, t_us)
        if left_us is None:
            return self._end_is_forgotten(d, item, rev)
        early = self.checks.early
        if left_us <= ahead_us(t_us):
            early.checked += 1
            return True
        if not d.timed:
            early.excused += 1
        return not d.timed

    def _end_is_forgotten(self, d: Device, item: Item, rev: int | None) -> bool:
        """Whether the state is of an old disk, and when its life was to end is not known any more."""
        return d.set_back_us is not None and item.ends is not None and rev not in item.ends

    # ------------------------------------------------------------------ triggers

    def device_saw(self, t_us: int, device: str, key: Key, rev: int | None, image: Mapping[str, Any] | None) -> None:
        """A trigger: sync has changed what applications on this device read. `rev` None: the item is gone. `image`:
        the raw image. Also for a lost write under which something else comes to light."""
        if self._open:
            self._settle()
        d = self._devices[device]
        checks = self.checks
        checks.direction.checked += 1
        checks.isolation.checked += 1
        item = self._items.get(key) or self._find_item(key)
        if item is None:
            checks.direction.crossed(t_us, device, key, "(none)", "shown to applications")
            return
        if not item.receives:
            if item.owner is not d:
                checks.isolation.foreign(t_us, device, key, "shown to its applications")
            elif item.sends:
                checks.up_models.changed(t_us, device, key, item.visible, rev)
            else:
                checks.direction.crossed(t_us, device, key, item.model.name, "changed by sync")
            item.visible = rev
            return
        if item.owner is not d if item.wide is None else self._member(d, item) is None:
            checks.isolation.foreign(t_us, device, key, "shown to its applications")
            return
        if item.ends is not None and d.timed and (left_us := self._left_us(item, rev, t_us)) is not None:
            late_us = max(left_us, d.clock_us - t_us)
            checks.expired.read(t_us, device, key, rev, late_us, "shown to applications")
        seen = item.seen if item.wide is None else self._seen(d, item)
        index = item.find(rev, seen)
        if rev is None and seen == ABSENT and item.own == LOST and item.base == 0:
            index = ABSENT  # below the lost write there is what was before the first state
        self._judge_image(t_us, d, item, index, rev, image)
        if item.own == PENDING:
            checks.own_writes.undecided(t_us, device, key, item.visible, rev)
        if rev is None and item.ends is not None and index < seen and self._ended_in_cloud(d, item, t_us):
            self._vanish(t_us, d, item)  # an own write was lost to one that is over, and was never shown
            return
        if rev is None and (key, GONE) in d.rotten:
            self._vanish(t_us, d, item)  # an own write was lost, and below it the disk has nothing
            return
        if item.own == ACCEPTED and index != UNKNOWN and not self._explained(t_us, d, item, index):
            older = not checks.own_writes.accepted(t_us, device, key, item.own_index, index, rev)
            if older:
                item.visible = rev
                item.seen = index
                return
        self._show(t_us, d, item, index, rev, seen)

    def _seen(self, d: Device, item: Item) -> int:
        feed = item.feed
        return item.seen if item.wide is None or feed is None else item.wide[d.index[feed.id[0]]]

    def _judge_image(
        self, t_us: int, d: Device, item: Item, index: int, rev: int | None, image: Mapping[str, Any] | None
    ) -> None:
        invented = self.checks.invented
        if image is None or (d.rotten and d.is_rotten(item.key, rev, image)):
            return
        if index != item.index or item.image is None or index == UNKNOWN:
            invented.image(t_us, d.name, item.key, image, "on the device")
            return
        invented.checked += 1
        if not image_equals(image, item.image):
            if is_genuine(rev, image.get(TEXT)):
                invented.other_image(t_us, d.name, item.key, rev, "on the device")
            else:
                invented.image(t_us, d.name, item.key, image, "on the device")

    def _show(self, t_us: int, d: Device, item: Item, index: int, rev: int | None, seen: int) -> None:
        """Applications on `d`, which had seen up to `seen`, now read the state at `index`."""
        checks, wide = self.checks, item.wide
        before = self._readable(d, item)
        if wide is not None and rev is not None and d.hidden:
            d.hidden -= {item.key}
        if d.stale and d.stale.pop(item.key, None) is not None and item.rev is None and not item.dying:
            item.dying = True  # it was forgotten once
            self._dead.append((t_us, item))
        if index == UNKNOWN:
            explained = self._explained(t_us, d, item, index) or _was_undone(d, item)
            if _is_told_again(d, item, rev):
                checks.monotone.replayed()
                if rev is not None and wide is not None:
                    d.stale[item.key] = rev
            elif before is None and rev is not None and item.rev is None and not explained:
                checks.resurrection.came_back(t_us, d.name, item.key, rev)
            else:
                checks.monotone.unknown(t_us, d.name, item.key, rev, explained)
        elif index >= seen:
            checks.monotone.checked += 1
            if before is None:
                checks.resurrection.checked += 1
            d.idle = 0
            if index > seen:
                self._reached(d, item, index, t_us)
        else:
            explained = self._explained(t_us, d, item, index) or _was_undone(d, item)
            if before is None and rev is not None and not explained:
                checks.resurrection.came_back(t_us, d.name, item.key, rev)
            else:
                checks.monotone.back(t_us, d.name, item.key, before, rev, explained)
            self._reached(d, item, index, t_us)
        if wide is None:
            item.visible = rev
            item.shown_us = t_us

    def _explained(self, t_us: int, d: Device, item: Item, index: int) -> bool:
        """Whether a snapshot may show this older state: it ended after the log's tail at the time of the hello, and
        began before the snapshot was delivered. The first row after it may show it too, but none after that."""
        feed = item.feed
        fuzzy = d.fuzzy.get(feed.id[0]) if d.fuzzy is not None and feed is not None else None
        if fuzzy is None:
            return False
        floor_us, delivered_us = fuzzy
        if item.wide is None and item.shown_us > delivered_us:
            return False
        if index == UNKNOWN:
            return floor_us < t_us - WINDOW_US
        ended = item.superseded_us(index)
        n = index - item.base
        began = item.history[n][1] if 0 <= n < len(item.history) else 0
        return ended is not None and ended >= floor_us and began <= delivered_us

    def device_verdict(self, t_us: int, device: str, key: Key, updated_ms: int, verdict: str) -> None:
        """A trigger about an own write, named by key and stamp: synced, lost or rejected."""
        if self._open:
            self._settle()
        item = self._items.get(key)
        sent = item.last_sent if item is not None else None
        d = self._devices[device]
        if sent is None or sent.updated != updated_ms:
            candidates = (s for s in d.ops.values() if s.updated == updated_ms)
            sent = next((s for s in candidates if s.item is not None and s.item.key == key), None)
        if sent is not None:
            self.checks.decided.told(t_us, device, key, updated_ms, verdict, sent.fate)
        elif not d.restored:
            self.checks.decided.told_of_nothing(t_us, device, key, updated_ms, verdict)

    # ------------------------------------------------------------------ power

    def disk_full(self, device: str, until_us: int) -> None:
        """The device's disk has no room until then: what it was to write it may write later."""
        d = self._devices[device]
        d.full_until_us = max(d.full_until_us, until_us)

    def device_booted(self, t_us: int, device: str) -> None:
        """The device is up again. `device_reads` should follow before anything else of this device."""
        if self._open:
            self._settle()
        d = self._devices[device]
        d.idle = d.asked = d.unanswered = 0
        d.heard_up = 0  # what it heard last may have been lost with its power
        d.paused = NOT_PAUSED
        d.timed = d.answered = False
        d.clock_us = t_us
        self._booted_us = t_us

    def device_file(self, t_us: int, device: str, keys: Iterable[Key]) -> None:
        """What a boot finds in the device's file, of a schema with models that are kept in memory."""
        memory = self.checks.memory
        memory.file()
        for key in keys:
            item = self._items.get(key) or self._find_item(key)
            if item is not None and item.model.mem:
                memory.in_file(t_us, device, key)

    def device_reads(self, device: str, items: Iterable[tuple[Key, int | None]]) -> None:
        """All that applications can read right after a boot: every item of every model."""
        d = self._devices[device]
        t_us = self._booted_us
        found = dict(items)
        for item in list(d.items.values()):
            self._reads_after_boot(t_us, d, item, found.pop(item.key, None))
        for kind in ("account", "all"):
            for item in list(d.feeds[kind].items.values()):
                self._reads_after_boot(t_us, d, item, found.pop(item.key, None))
        d.returned = frozenset()
        for key, rev in found.items():
            if rev is None or d.stale.get(key) != rev:
                self.checks.survive.differs(t_us, device, key, None, rev)

    def _reads_after_boot(self, t_us: int, d: Device, item: Item, rev: int | None) -> None:
        survive = self.checks.survive
        name = item.model.name
        if name in d.lacks:
            return  # it is in the file, and nobody can read it
        if name in d.returned and item.receives:  # what became of it meanwhile no trigger has told; a snapshot follows
            if item.wide is None:
                item.visible = rev
            return
        expected = self._readable(d, item)
        maybe, item.maybe = item.maybe, None
        if item.model.mem:
            self.checks.memory.after_boot(t_us, d.name, item.key, rev)
            if item.wide is None:
                item.visible = None
            elif expected is not None:
                d.hidden |= {item.key}
            return
        if rev is None and expected is not None and self._hidden(t_us, d, item, expected):
            survive.checked += 1
            return
        if rev == expected:
            survive.checked += 1
        elif maybe is not None and rev == (None if maybe[3] else maybe[0]):
            survive.checked += 1
            self._take_write(item, maybe)
        elif item.receives and item.own != PENDING:
            seen = self._seen(d, item)
            index = item.find(rev, seen)
            if index < seen or (item.own == ACCEPTED and index < item.own_index):
                survive.differs(t_us, d.name, item.key, expected, rev)
            else:
                survive.checked += 1
            self._show(t_us, d, item, index, rev, seen)
        else:
            survive.differs(t_us, d.name, item.key, expected, rev)
            item.visible = rev
        if item.sends and not item.receives:
            self.checks.up_models.read(t_us, d.name, item.key, item.visible, rev)

    def device_restored(self, t_us: int, device: str, items: Iterable[tuple[Key, int | None]]) -> None:
        """The device's disk was set back to an older one, or wiped: what applications read now is where it starts
        again. Writes that were not yet decided may be gone; a new epoch is expected of it from here on."""
        if self._open:
            self._settle()
        d = self._devices[device]
        d.restored = True
        d.set_back_us = d.undone_us = t_us
        d.undone = d.head_epoch or ""
        d.resumed = NO_KEYS
        d.idle = 0
        d.last_up = b""
        d.fuzzy = None
        d.stale = {}
        d.replays = {name: Replay(reach.epoch, reach.seq) for name, reach in d.reach.items()}
        found = dict(items)
        for key in found:
            if key not in self._items:
                self._find_item(key)
        for item in list(d.items.values()):
            item.pending = NO_WRITES
            item.maybe = None
            item.own = NONE
            item.visible = found.get(item.key)
            self._set_back(d, item, item.visible)
        for kind in ("account", "all"):
            for item in list(d.feeds[kind].items.values()):
                self._set_back(d, item, found.get(item.key))
                if (rev := found.get(item.key)) is not None and item.find(rev, ABSENT) == UNKNOWN:
                    d.stale[item.key] = rev
        for sent in d.ops.values():
            sent.writes = []

    def _set_back(self, d: Device, item: Item, rev: int | None) -> None:
        if item.receives and item.feed is not None:
            # Of no item it is not known which of the times without one the old disk is from: the first will do.
            index = UNKNOWN if rev is None else item.find(rev, ABSENT)
            self._reached(d, item, ABSENT if index == UNKNOWN else index, None)


def _is_told_again(d: Device, item: Item, rev: int | None) -> bool:
    """The device's disk was set back, and the rows that bring it up to date tell of this state of long ago."""
    replay = d.replays.get(item.feed.id[0]) if d.replays is not None and item.feed is not None else None
    return replay is not None and replay.shows(item.key, rev)


def _was_undone(d: Device, item: Item) -> bool:
    """The table was put back, and the device does not know yet: messages from before may reach it. Or its write to an
    item that the table does not have is lost, and it shows what it had before, until the snapshot of its new epoch; for
    longer, if the table's is too large for a snapshot, or if nobody has told of what the table has."""
    if d.old_epoch:
        return True
    sent = item.last_sent
    may_be_older = d.cloned or d.undone is not None or (item.oversize and d.set_back_us is not None) or item.untold
    return may_be_older and sent is not None and bool(sent.fate)
