"""What must hold of a pair at every moment and at its end, judged from what was written, committed and shown alone.

Independent of the code under test: it keeps the history of every item in the table and of every local write. Used by
the tests of the agent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from device_rig import Pair
from relay_rig import SCHEMA

from agent.changes import Change
from agent.protocol.messages import Key, Up, decode_from_device
from cloud.head import OP, ORPHAN, head_device, public_image
from cloud.quarantine import HALTED
from cloud.table import PRIVATE_PREFIX, Record

MINE = ("device#home-1", "account#main")


@dataclass
class Write:
    """The last local write of an item: what it should show, and how long the item's history was then."""

    rev: int | None
    updated: int
    since: int
    lost: bool = False  # the relay has decided so
    told: bool = False  # and the device knows: it shows the write no more


class Audit:
    """Raises AssertionError with what is wrong."""

    def __init__(self, pair: Pair) -> None:
        self.pair = pair
        self.history: dict[Key, list[int | None]] = {}  # revs in the table, in order of commits; None: gone
        self.written: dict[Key, Write] = {}
        self.revs: set[int] = set()  # of all that applications wrote
        self.own: set[tuple[Key, int | None]] = set()  # of them, those of the device
        self.seen: dict[Key, int] = {}  # how far in its history an item was shown
        self.head: tuple[str, int] = ("", 0)
        self.applied: dict[Key, tuple[str, int]] = {}
        self.ops: dict[tuple[str, int, str], tuple[Any, ...]] = {}  # (epoch, u, id) -> what was sent
        self.restored = False  # the device's disk was set back: it may need new epochs
        self.snapshots = 0
        self.fuzzy: dict[Key, int] = {}
        pair.rig.table.subscribe(self.committed)
        pair.on_wire_up = self.sent

    # ---------------------------------------------------------------- what happens

    def committed(self, record: Record) -> None:
        key = record.key
        if head_device(key) == "home-1" and record.new is not None:
            epoch, up = record.new["epoch"], record.new["up"]
            marked = record.old is not None and record.old.get(HALTED) != record.new.get(HALTED)  # by quarantine alone
            moved = epoch != self.head[0] or up > self.head[1]
            assert moved or (marked and (epoch, up) == self.head), f"HEAD went from {self.head} to {(epoch, up)}"
            self.head = (epoch, up)
            verdicts = record.new["verdicts"]  # the feed may show what won before the verdict is told
            for (sent_epoch, u, _), (_, written, updated, _) in self.ops.items() if verdicts else ():
                if sent_epoch == epoch and str(u) in verdicts:
                    self.decided_against(written, updated)
        if key[0].startswith(PRIVATE_PREFIX):
            return
        rev = None if record.new is None else record.new["rev"]
        self.history.setdefault(key, []).append(rev)
        assert rev is None or rev in self.revs, f"{key} has {rev}, which no application wrote"
        op = None if record.new is None else record.new.get(OP)
        if op is not None and (record.old is None or record.old.get(OP) != op):
            epoch, last = self.applied.get(key, ("", 0))
            assert op[1] != epoch or op[2] > last, f"{key}: operation {op} after {(epoch, last)}"
            self.applied[key] = (op[1], op[2])
            if record.old is not None and record.new is not None and self.both(key):
                newer = record.old["updated"] < record.new["updated"]
                assert newer, f"{key}: {op} won over something newer"
            if record.old is None:
                since = last if op[1] == epoch else 0
                kinds = [
                    told[0]
                    for (sent_epoch, u, _), told in self.ops.items()
                    if sent_epoch == op[1] and since < u <= op[2] and told[1] == key
                ]
                assert "create" in kinds or not self.both(key), f"{key} lives again by {kinds}"

    def sent(self, payload: bytes) -> None:
        message = decode_from_device(payload)
        if isinstance(message, Up):
            for op in message.ops:
                told = (op.kind, op.key, op.updated, bytes(op.image))
                name = (message.epoch, op.u, op.id)
                assert self.ops.setdefault(name, told) == told, f"operation {op.u} was sent otherwise"
                if not self.restored:
                    ids = {i for e, u, i in self.ops if (e, u) == (message.epoch, op.u)}
                    assert len(ids) == 1, f"operation {op.u} was sent under several ids"

    @staticmethod
    def both(key: Key) -> bool:
        place = SCHEMA.locate(key)
        return place is not None and place.model.sync == "both"

    def forget(self) -> None:
        """The device's disk is another one: what it showed and wrote before counts no more."""
        self.restored = True
        self.seen.clear()
        self.written.clear()
        for key, image in self.pair.device.visible().items():
            place = SCHEMA.locate(key)
            if place is not None and place.model.sync == "up":
                self.written[key] = Write(image["rev"], 0, 0)

    def hears(self, changes: list[Change]) -> None:
        for change in changes:
            if change.origin == "local":
                rev = None if change.image is None else change.image["rev"]
                self.own.add((change.key, rev))
                self.written[change.key] = Write(rev, change.updated, len(self.history.get(change.key, ())))
            elif change.event in ("lost", "rejected"):
                self.decided_against(change.key, change.updated, told=True)

    def decided_against(self, key: Key, updated: int, *, told: bool = False) -> None:
        write = self.written.get(key)
        if write is not None and write.updated == updated:
            write.lost = True
            write.told = write.told or told

    # ---------------------------------------------------------------- what must hold

    def check(self) -> None:
        """After every step, on a device that has power."""
        device = self.pair.device
        self.hears(device.changes)
        device.changes.clear()
        if not device.powered:
            return
        assert self.restored or device.session.mints == 0, "a new epoch without cause"
        store = device.store
        execute, store.execute = store.execute, device.connection.cursor().execute  # looking blows no fuse
        shown = {key: image["rev"] for key, image in device.visible().items()}
        store.execute = execute
        for key in sorted({*shown, *self.history, *self.written}):
            if key[0] in MINE:
                self.check_item(key, shown.get(key))
            else:
                assert key not in shown, f"{key} is not this device's"
        if device.probes["snapshot_loaded"] != self.snapshots:
            self.snapshots = device.probes["snapshot_loaded"]
            # What a snapshot read while it changed is shown again as the rows after it come in: up to now.
            self.fuzzy = {key: len(history) for key, history in self.history.items()}

    def check_item(self, key: Key, rev: int | None) -> None:
        place = SCHEMA.locate(key)
        assert place is not None
        model, write = place.model, self.written.get(key)
        if not model.receives:
            if model.sends:
                expected = None if write is None else write.rev
                assert rev == expected, f"{key} of an up model shows {rev}, written was {expected}"
            return
        history = self.history.get(key, [])
        pending = write is not None and not write.told and rev == write.rev
        before = self.seen.get(key, -1)
        if rev is None:
            absent = [-1, *(i for i, r in enumerate(history) if r is None)]
            index = absent[-1]
        else:
            absent = []
            assert rev in self.revs, f"{key} shows {rev}, which nobody wrote"
            index = history.index(rev) if rev in history else len(history)
            own = (key, rev) in self.own and (write is not None or self.restored)
            assert rev in history or own, f"{key} shows {rev}, which the table never had"
        if write is not None and not write.lost and not pending:
            assert index >= write.since, f"{key} shows {rev}, older than the own write {write.rev}"
            if write.rev is not None and write.rev in history:
                assert index >= history.index(write.rev), f"{key} shows {rev}, older than the own write {write.rev}"
        if not pending and index < len(history):
            index = next((i for i in absent if i >= before), index)  # any of its absences may be the one shown
            assert index >= before or before < self.fuzzy.get(key, 0), f"{key} went back to {rev}"
            self.seen[key] = index

    def check_end(self) -> None:
        """After the heal: device and table are equal, nothing waits."""
        device = self.pair.device
        store = device.store
        assert store.outbox() == [], "the outbox is not empty"
        assert (store.outbox_rows, store.unsent_rows, store.in_flight) == (0, 0, [])
        shown, stored = device.visible(), self.table_side()
        for key in sorted({*shown, *stored}):
            here, there = shown.get(key), stored.get(key)
            assert here == there, f"{key}: the device shows {here}, the table has {there}"
        for feed, owner in (("device", "home-1"), ("account", "main")):
            assert store.cursors[feed] == self.pair.rig.tail(feed, owner)  # type: ignore[arg-type]

    def table_side(self) -> Mapping[Key, dict[str, Any]]:
        """What a device that is in step shows."""
        items: dict[Key, dict[str, Any]] = {}
        for item in self.pair.rig.table.scan():
            key = (item["pk"], item["sk"])
            place = SCHEMA.locate(key)
            synced = place is not None and (place.model.sends or place.model.receives)
            if key[0] in MINE and synced and ORPHAN not in item:
                items[key] = public_image(item)
        return items
