"""The oracle's view of remote commands: what was ordered, what reached its device, what was really done, what is said.

Follows the table's commits and what devices show, as the other sides do, and what the world's own handlers tell. Looks
at nothing where the schema has no results of commands.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from agent.protocol.messages import Key
from agent.protocol.process import Context
from agent.protocol.schema import Schema
from fleet.oracle.check import CheckResult
from fleet.oracle.final import DeviceItems
from fleet.oracle.final import Final as FinalSide
from fleet.oracle.ledger import TableRecord
from fleet.oracle.state import Device, Item
from fleet.oracle.tally import Recorder, Tally
from fleet.oracle.wire import Downward, Upward

COMMAND: Final = "Command"
RESULT: Final = "CommandResult"
REBOOT: Final = "reboot"
STARTED: Final = "started"
KEEP_US: Final = 10 * 60_000_000  # devices keep results so long, and say nothing of older commands
FORGET_US: Final = 3_600_000_000  # a withdrawn command that nobody has done is forgotten: done, it fails anyway
# A device's clock may be wrong by a tenth of that, and it waits for a moment before it looks: 90 s of ten minutes.
LOOK_PERCENT: Final = 15
LOOK_MIN_US: Final = 10_000_000

Image = Mapping[str, Any]
Name = tuple[str, str]  # device, id


class Order:
    """One command, of a device."""

    __slots__ = (
        "absences", "away_us", "ends_us", "expires_us", "final", "heard_us", "kept", "key", "lost", "present", "ran",
        "reached_us", "reboots", "recorded",
    )  # fmt: skip

    def __init__(self, key: Key) -> None:
        self.key = key
        self.expires_us = 0
        self.ends_us: int | None = None  # of its result's life
        self.kept = True  # never withdrawn, swept, or lost, with a restore of the table or silently
        self.reached_us: int | None = None
        self.heard_us: int | None = None  # when its device had the next answer of the relay
        self.lost = False  # from its device's disk, silently, before the device could look at it, and not back so far
        self.ran = 0
        self.reboots = False  # it orders a restart
        self.final: str | None = None  # the first final state that the table has had
        self.present: str | None = None  # the state that it has
        self.recorded: tuple[int, int] | None = None  # when its device last wrote its result, and that life's end
        self.absences = 0  # times of that life in which its device had no answer of the relay, short ones left out
        self.away_us = 0  # how long they were

    def was_away(self, from_us: int, until_us: int, least_us: int) -> None:
        """Its device had no answer in that time, which is no short one if it is longer than `least_us`."""
        if self.recorded is not None and until_us - from_us >= least_us:
            began_us, ends_us = self.recorded
            time_us = min(until_us, ends_us) - max(from_us, began_us)
            if time_us > 0:
                self.away_us += time_us
                self.absences += 1

    @property
    def is_open(self) -> bool:
        """Whether nothing has come of it so far."""
        return self.kept and not self.ran and self.final is self.present is None


class Refetch:
    """A time in which a device has no place in its feed, as after a `resync`."""

    __slots__ = ("answered_us", "asked_us", "is_there", "until_us")

    def __init__(self, answered_us: int, asked_us: int) -> None:
        self.answered_us = answered_us  # it began no earlier than this answer
        self.asked_us = asked_us  # and no later than this hello
        self.is_there = False  # the last hello has named a place again
        self.until_us = 0  # the first answer after that, or after a snapshot


class CommandSide(FinalSide):
    """What becomes of commands."""

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
        super().__init__(
            schema, devices, latency_up=latency_up, latency_down=latency_down, start_ms=start_ms, tallies=tallies
        )
        self._takes_commands = RESULT in self._schema.models
        self._keep_us = KEEP_US
        self._orders: dict[Name, Order] = {}
        self._rebooted_us: dict[str, int] = {}
        self._withdrawn: deque[tuple[int, Name]] = deque()
        self._restarts_us: dict[str, int] = {}  # by device: its last boot
        self._unheard: dict[str, list[Order]] = {}  # by device: reached it, and no answer of the relay has since
        self._heard: dict[str, list[Order]] = {}  # by device: one has, and the device has not booted since
        self._answered_us: dict[str, int] = {}  # by device: the relay's last answer
        self._recorded: dict[str, list[Order]] = {}  # by device: it has written a result, which the table has not yet
        self._refetching: dict[str, Refetch] = {}  # by device: it has no place in its feed now
        self._refetched: dict[str, list[Refetch]] = {}  # it had none for a time

    def commands_are(self, keep_us: int, spacing_us: int) -> None:
        """How long devices keep results, and the least time between two restarts by command."""
        self._keep_us = keep_us
        self.checks.spaced.spacing_us = spacing_us

    # ------------------------------------------------------------------ what is told

    def command_ran(self, t_us: int, device: str, command_id: str, name: str) -> None:
        """The device, or a copy of it, really does what the command says: told by whoever does it, just before."""
        if self._open:
            self._settle()
        checks, d = self.checks, self._devices[device]
        order = self._orders.get((device, command_id))
        if order is None:
            checks.once.ran(t_us, device, (device, command_id), 1, ordered=False)
            return
        order.ran += 1
        checks.once.ran(t_us, device, order.key, order.ran, ordered=True)
        checks.in_time.ran(t_us, device, order.key, order.expires_us - t_us)
        if not d.cloned:
            checks.after_clock.ran(t_us, device, order.key, d.answered)
        if name == REBOOT:
            last_us = self._rebooted_us.get(device)
            is_forgotten = last_us is None or d.cloned or (d.set_back_us or 0) > last_us
            checks.spaced.rebooted(t_us, device, order.key, None if is_forgotten else t_us - (last_us or 0))
            self._rebooted_us[device] = t_us

    def _ack(self, t_us: int, d: Device, message: Downward) -> None:
        super()._ack(t_us, d, message)
        name = d.name
        if unheard := self._unheard.pop(name, None):
            for order in unheard:
                order.heard_us = t_us
            self._heard[name] = [one for one in (*self._heard.get(name, ()), *unheard) if one.is_open]
        if self._takes_commands:
            answered_us = self._answered_us.get(name, t_us)
            if recorded := self._recorded.pop(name, None):
                for order in recorded:
                    order.was_away(answered_us, t_us, self._away_us)
                if recorded := [one for one in recorded if one.final is None and _lives(one, t_us)]:
                    self._recorded[name] = recorded
            self._answered_us[name] = t_us
            refetch = self._refetching.get(name)
            if refetch is not None and (refetch.is_there or _snapshot_us(d) > refetch.asked_us):
                refetch.until_us = t_us
                self._refetched.setdefault(name, []).append(self._refetching.pop(name))

    def _hello(self, t_us: int, d: Device, message: Upward) -> None:
        super()._hello(t_us, d, message)
        answered_us = self._answered_us.get(d.name)
        own = message.feeds.get("device")
        if answered_us is None or own is None:
            return
        refetch = self._refetching.get(d.name)
        if refetch is not None:
            refetch.is_there = own.epoch is not None
        elif own.epoch is None:
            self._refetching[d.name] = Refetch(answered_us, t_us)

    def _heard_us(self, t_us: int, device: str, order: Order) -> int:
        """When its device could first look at an order that has reached it, or `t_us`. No order is looked at without a
        place in the feed: of one that is not too old then, and waits its turn, nothing is said until it is back."""
        heard_us = t_us if order.heard_us is None else order.heard_us
        now = self._refetching.get(device)
        for refetch in (*self._refetched.get(device, ()), *((now,) if now is not None else ())):
            if (order.reached_us or 0) <= refetch.asked_us and refetch.answered_us < order.expires_us:
                heard_us = max(heard_us, t_us if refetch is now else refetch.until_us)
        return heard_us

    def _is_forgotten(self, t_us: int, device: str, order: Order) -> bool:
        """Nothing was done or said of it, and its device, cut off when it came, fetching its feed anew, or without it
        since its disk lost it, had no answer of the relay before the command was too old to be told from one whose
        result was dropped."""
        if order.ran or order.final is not None or order.present is not None or order.reached_us is None:
            return False
        heard_us = self._heard_us(t_us, device, order)
        return heard_us > order.expires_us + self._keep_us - self._look_us

    def _ended_unsent(self, t_us: int, device: str, order: Order) -> bool:
        """Its device has written a result, and had no answer of the relay from then on until that result's life was
        over, but for a moment, or two: it may have had others to send before. The life was as long as it has to be."""
        if order.recorded is None or order.ran or order.final is not None or order.present is not None:
            return False
        began_us, ends_us = order.recorded
        if not max(began_us, order.expires_us) + self._keep_us - self._look_us <= ends_us < t_us:
            return False
        order.was_away(self._answered_us.get(device, t_us), t_us, self._away_us)
        return order.away_us >= ends_us - began_us - min(order.absences, 2) * self._look_us

    @property
    def _away_us(self) -> int:
        """A device that is there and has nothing to say may be without an answer for a while, too."""
        return max(LOOK_MIN_US, self._keep_us // 3)

    @property
    def _look_us(self) -> int:
        return max(LOOK_MIN_US, self._keep_us * LOOK_PERCENT // 100)

    def _restarted(self, device: str, order: Order) -> int:
        """A restart was ordered, and there was one, for whatever reason: the order is carried out."""
        was_ordered = order.reboots and order.final == "done" and order.reached_us is not None
        return int(was_ordered and self._restarts_us.get(device, -1) > (order.reached_us or 0))

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
        super().device_wrote(t_us, device, key, kind, rev, updated_ms, before_rev, durable)
        item = self._items.get(key) if self._takes_commands else None
        if item is not None and item.model.name == RESULT and item.ends is not None and rev in item.ends:
            order = self._orders.get(_name_of(item))
            if order is not None and item.owner is self._devices[device]:
                order.recorded = (t_us, item.ends[rev] * 1_000_000 - self._start_us)
                order.away_us = order.absences = 0
                recorded = self._recorded.setdefault(device, [])
                if order not in recorded:
                    recorded.append(order)

    def device_booted(self, t_us: int, device: str) -> None:
        super().device_booted(t_us, device)
        self._restarts_us[device] = t_us
        for order in self._heard.pop(device, ()):  # it has no time again, without which it looks at none
            if order.is_open:
                order.heard_us = None
                self._unheard.setdefault(device, []).append(order)

    def committed(self, t_us: int, record: TableRecord) -> None:
        super().committed(t_us, record)
        if self._takes_commands:
            self._follow(t_us, record.key, record.new)

    def device_saw(self, t_us: int, device: str, key: Key, rev: int | None, image: Image | None) -> None:
        super().device_saw(t_us, device, key, rev, image)
        if self._takes_commands and image is not None:
            item = self._items.get(key)
            order = None if item is None else self._orders.get(_name_of(item))
            if order is not None and order.key == key and (order.reached_us is None or order.lost):
                order.reached_us = t_us if order.reached_us is None else order.reached_us
                order.lost = False
                self._unheard.setdefault(device, []).append(order)

    def table_restored(self, t_us: int, items: Iterable[Image]) -> None:
        items = list(items)
        super().table_restored(t_us, items)
        keys = {(item["pk"], item["sk"]) for item in items}
        for order in self._orders.values():
            order.kept = order.kept and order.key in keys

    def table_damaged(self, t_us: int, key: Key, image: Image | None) -> None:
        super().table_damaged(t_us, key, image)
        item = self._items.get(key)
        order = self._orders.get(_name_of(item)) if item is not None else None
        if order is not None and order.key == key and image is None:
            order.kept = False

    def device_damaged(self, t_us: int, device: str, key: Key) -> None:
        super().device_damaged(t_us, device, key)
        item = self._items.get(key)
        order = self._orders.get(_name_of(item)) if item is not None else None
        if order is None or order.key != key or not self._awaits(t_us, device, order):
            return
        order.lost = True  # as if it had never come: it is looked at when a comparison has brought it back
        order.heard_us = None
        for orders in (self._unheard.get(device, []), self._heard.get(device, [])):
            if order in orders:
                orders.remove(order)

    def _awaits(self, t_us: int, device: str, order: Order) -> bool:
        """Its device has it, has written nothing of it, and has a reason: no answer of the relay since it came, no room
        on the disk for a result, or another command that is not over."""
        if order.reached_us is None or order.recorded is not None or not order.is_open:
            return False
        if order.heard_us is None or t_us < self._devices[device].full_until_us:
            return True
        others = (one for (name, _), one in self._orders.items() if name == device)
        return any(one.recorded is not None and one.final is None and one.kept for one in others)

    def _follow(self, t_us: int, key: Key, image: Image | None) -> None:
        item = self._items.get(key)
        owner = item.owner if item is not None else None
        if item is None or owner is None or item.model.name not in (COMMAND, RESULT):
            return
        name = _name_of(item)
        order = self._orders.get(name)
        if item.model.name == COMMAND:
            if order is None:
                order = self._orders[name] = Order(key)
            if image is None:
                order.kept = False
                self._withdrawn.append((t_us, name))
                self._forget_withdrawn(t_us)
            else:
                order.reboots = image.get("name") == REBOOT
                order.expires_us = image.get("expires", 0) * 1000 - self._start_us
        elif order is not None:
            order.present = state = None if image is None else image["state"]
            if image is not None and "ttl" in image:
                order.ends_us = image["ttl"] * 1_000_000 - self._start_us
            if state is not None and state != STARTED:
                if order.final is None:
                    order.final = state
                elif order.final != state and not (owner.cloned or _was_before(order, owner)):
                    self.checks.answered.changed(t_us, owner.name, key, order.final, state)

    def _forget_withdrawn(self, t_us: int) -> None:
        """Memory is flat over virtual days: of what came to nothing, nothing is kept."""
        while self._withdrawn and self._withdrawn[0][0] < t_us - FORGET_US:
            name = self._withdrawn.popleft()[1]
            order = self._orders.get(name)
            if order is not None and not order.kept and not order.ran and order.final is order.present is None:
                del self._orders[name]

    # ------------------------------------------------------------------ the end

    def finish(
        self,
        t_us: int,
        device_items: DeviceItems,
        table_items: Iterable[Image],
        outboxes: Mapping[str, int],
        identity_changes: Mapping[str, int],
        waiting: Mapping[str, Key] | None = None,
    ) -> list[CheckResult]:
        super().finish(t_us, device_items, table_items, outboxes, identity_changes, waiting)
        answered = self.checks.answered
        for (device, _), order in self._orders.items():
            in_time = order.kept and order.reached_us is not None and order.reached_us < order.expires_us
            is_over = order.final is None and order.ends_us is not None and order.ends_us < t_us
            d = self._devices[device]
            is_late = in_time and (self._is_forgotten(t_us, device, order) or self._ended_unsent(t_us, device, order))
            if d.cloned or _was_before(order, d) or is_over or is_late:
                answered.excused += 1
            elif in_time or order.ran or order.present is not None:
                ran = order.ran or self._restarted(device, order)
                answered.at_end(t_us, device, order.key, ran, order.final, order.present)
        return self.results()


def _lives(order: Order, t_us: int) -> bool:
    return order.recorded is not None and order.recorded[1] >= t_us


def _was_before(order: Order, d: Device) -> bool:
    """Whether the device's disk was put back since it had the command: it may know nothing of it, or do it again."""
    return d.set_back_us is not None and (order.reached_us is None or order.reached_us <= d.set_back_us)


def _snapshot_us(d: Device) -> int:
    """When the last snapshot of its own feed that it had asked for came."""
    return (d.fuzzy or {}).get("device", (0, -1))[1]


def _name_of(item: Item) -> Name:
    """Device and id, of a command or of its result: keys that end with the id, as the agent demands."""
    owner = item.owner
    if owner is None:
        return "", ""
    _, prefix = item.model.search({}, Context(owner.name, owner.account))
    return owner.name, item.key[1][len(prefix) :]
