"""The base of the oracle: its records, how they are found, and the counting of synced updates.

No judgement here. Extended by the sides that watch the table, the wire and the applications; see fleet.oracle.oracle.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

from agent.protocol.messages import Key
from agent.protocol.schema import Schema
from fleet.oracle.checks import Checks
from fleet.oracle.state import ABSENT, NO_WRITES, SWEPT, WINDOW_US, Device, Feed, Item, Sent
from fleet.oracle.stored import FeedId
from fleet.oracle.tally import Recorder, Tally, undivided

_LOOKS_MAX: Final = 30_000  # at (item, member) pairs of one feed, for `behind`
_ITEMS_MIN: Final = 4

# HEAD of a device moved from `low` to `high`: (device, low, high, verdicts, t_us, id of `high`)
Move = tuple[Device, int, int, Mapping[str, str], int, str | None]


class TableRecord(Protocol):
    """One change of the table: cloud.table.Record, or anything alike."""

    @property
    def key(self) -> Key: ...
    @property
    def old(self) -> Mapping[str, Any] | None: ...
    @property
    def new(self) -> Mapping[str, Any] | None: ...
    @property
    def by_ttl(self) -> bool: ...


class Ledger:
    """Devices, feeds and items by name; what happened in the present instant; counts."""

    def __init__(
        self,
        schema: Schema,
        devices: Sequence[tuple[str, str]],
        *,
        latency_up: Recorder,
        latency_down: Recorder,
        start_ms: int = 0,
        tallies: Mapping[str, Tally] | None = None,
    ) -> None:
        """`devices`: (name, account). `start_ms`: since 1970, at the start of the run. `tallies`: device -> where it is
        counted, instead of in the two recorders."""
        self.checks = Checks()
        self.updates_synced = 0
        self.local_writes = 0
        self.cloud_writes = 0
        self.cloud_writes_of: Counter[str] = Counter()  # by model
        self.messages_unreadable = 0
        self._schema = schema
        self._relay_lacks: frozenset[str] = frozenset()  # models that no relay knows now
        self._start_us = start_ms * 1000
        self._devices: dict[str, Device] = {}
        self._feeds: dict[FeedId, Feed] = {}
        self._items: dict[Key, Item] = {}
        self._before_damage: dict[Key, int] = {}  # the state last logged when the table's item was damaged
        self._dead: deque[tuple[int, Item]] = deque()
        # Records of one transaction come one by one: what they mean together is settled at the next call.
        self._open: list[Sent | Move] = []
        self._again: list[Sent] = []  # those of it that only an old message can have brought
        self._open_us = 0
        self._stopped_us: int | None = None
        self._healed_us: int | None = None
        self._is_quiet = False
        self._heals: list[list[int]] = []  # [heal, time of the last sync of a write from before it], ascending
        self._booted_us = 0
        tally = undivided(schema.models, latency_up, latency_down)
        for name, account in devices:
            self._add(name, account, tally if tallies is None else tallies[name])

    def _add(self, name: str, account: str, tally: Tally) -> None:
        device = self._devices[name] = Device(name, account, tally)
        for feed_id in (("device", name), ("account", account), ("all", "")):
            feed = self._feeds.get(feed_id)
            if feed is None:
                feed = self._feeds[feed_id] = Feed(*feed_id)
            device.index[feed_id[0]] = len(feed.members)
            device.feeds[feed_id[0]] = feed
            feed.members.append(device)

    @property
    def converged_after_s(self) -> float:
        """From the last heal to the moment when the last write from before it was synced; 0 when none was waiting."""
        return (self._heals[-1][1] - self._heals[-1][0]) / 1e6 if self._heals else 0.0

    def recovered_s(self, healed_us: int) -> float | None:
        """The same for one heal, by the time that `healed` was told; None when there was no such heal."""
        return next(((last - at) / 1e6 for at, last in self._heals if at == healed_us), None)

    def behind(self) -> set[str]:
        """Devices whose applications read something else than what the table holds for them. Of a feed with very many
        items that some of its very many members lack, only the few that most of them lack are looked at: this is asked
        every interval."""
        found: set[str] = set()
        for feed in self._feeds.values():
            unsettled = feed.unsettled
            if not unsettled:
                continue
            kind, members = feed.id[0], feed.members
            if kind == "device":
                device = members[0]
                if any(self._readable(device, item) != item.rev for item in unsettled.values()):
                    found.add(device.name)
                continue
            items = [item for item in unsettled.values() if item.lagging]
            most = max(_ITEMS_MIN, _LOOKS_MAX // len(members))
            if len(items) > most:
                items = sorted(items, key=_lagging, reverse=True)[:most]
            for item in items:
                if item.wide is not None:
                    index = item.index
                    late = [members[n] for n, seen in enumerate(item.wide) if seen != index]
                    found.update([device.name for device in late if self._readable(device, item) != item.rev])
        return found

    def failures(self) -> int:
        """Violations so far, over all checks."""
        return sum(check.failed for check in self.checks.all())  # ints

    def writes_stopped(self, t_us: int) -> None:
        """Applications write no more."""
        self._stopped_us = t_us
        self._calm()

    def healed(self, t_us: int) -> None:
        """A fault has ended. The last one counts for `converged_after_s`."""
        if self._healed_us != t_us:
            self._heals.append([t_us, t_us])
        self._healed_us = t_us
        self._calm()

    def _calm(self) -> None:
        self._is_quiet = self._stopped_us is not None and self._healed_us is not None
        for device in self._devices.values():
            device.idle = 0

    def _find_item(self, key: Key) -> Item | None:
        """The item of a key not met before (or forgotten); None when no model has such keys."""
        place = self._schema.locate(key)
        if place is None:
            return None
        model = place.model
        owner = self._devices.get(place.device_id) if place.device_id is not None else None
        feed: Feed | None = None
        if model.receives:
            if model.feed == "device":
                feed = owner.feeds["device"] if owner is not None else None
            elif model.feed == "account":
                feed = self._feeds.get(("account", place.account_id or ""))
            else:
                feed = self._feeds.get(("all", ""))
        item = self._items[key] = Item(key, model, owner, feed)
        if item.wide is not None and feed is not None:
            feed.items[key] = item
        elif owner is not None:
            owner.items[key] = item
        return item

    def _forget(self, item: Item) -> None:
        key = item.key
        item.last_sent = None  # no cycle: memory comes back at once
        if self._items.get(key) is item:
            del self._items[key]
            self._before_damage.pop(key, None)
            if item.wide is not None and item.feed is not None:
                del item.feed.items[key]
                for member in item.feed.members:
                    if member.hidden:
                        member.hidden -= {key}
            elif item.owner is not None:
                del item.owner.items[key]

    def _forget_dead(self, t_us: int) -> None:
        """Forgets items that went long ago and that everyone knows to be gone; looks again later at the others."""
        dead, horizon = self._dead, t_us - WINDOW_US
        while dead and dead[0][0] < horizon:
            _, item = dead.popleft()
            item.dying = False
            if item.rev is not None or self._items.get(item.key) is not item:
                continue
            if _is_settled(item):
                self._forget(item)
            else:
                item.dying = True
                dead.append((t_us, item))

    def _synced(self, recorder: Recorder, since_us: int, t_us: int) -> None:
        """One write has reached one receiving side."""
        self.updates_synced += 1
        recorder.add(t_us - since_us)
        healed_us = self._healed_us
        if healed_us is not None and since_us < healed_us:
            for heal in reversed(self._heals):
                if heal[0] <= since_us:
                    break
                heal[1] = max(heal[1], t_us)  # what was settled late may have been before it

    def _member(self, device: Device, item: Item) -> int | None:
        """The place of a device among the receivers of an account-wide item; None when it is none of them."""
        feed = item.feed
        if feed is None or device.feeds.get(feed.id[0]) is not feed:
            return None
        return device.index[feed.id[0]]

    def _left_us(self, item: Item, rev: int | None, t_us: int) -> int | None:
        """How long the state `rev` of an item has still to live, negative when it is over; None: without end."""
        end_s = item.ends.get(rev) if item.ends is not None and rev is not None else None
        return None if end_s is None else end_s * 1_000_000 - self._start_us - t_us

    def _readable(self, device: Device, item: Item) -> int | None:
        """What the device's applications read of an item, as far as the oracle knows."""
        if item.wide is None:
            return item.visible
        if item.key in device.hidden:
            return None
        if device.stale and item.key in device.stale:
            return device.stale[item.key]
        seen = item.wide[device.index[item.feed.id[0]]] if item.feed is not None else ABSENT
        return item.at(seen)


def _lagging(item: Item) -> int:
    return item.lagging


def _is_settled(item: Item) -> bool:
    """Whether nothing about an item that is gone from the table is open any more."""
    if item.pending is not NO_WRITES or item.maybe is not None or item.visible is not None:
        return False
    if item.last_sent is not None and item.last_sent.fate is None:
        return False
    if not item.receives:
        return True
    if item.swept == SWEPT:
        return False
    behind = item.lagging > 0 if item.wide is not None else item.seen < item.index
    return not behind and item.logged == item.index
