"""The oracle's view of the table: every commit, of items and of HEAD (of LOG: log_side).

Called at each commit, in the order of commits. It never reads the table: it only follows what it is told.
"""

from __future__ import annotations

from typing import Any, cast

from agent.protocol.messages import NO_IMAGE, Key
from fleet.oracle import stored
from fleet.oracle.decided import Decided
from fleet.oracle.ledger import Move, TableRecord
from fleet.oracle.log_side import Image, LogSide
from fleet.oracle.payload import REV
from fleet.oracle.state import ACCEPTED, FLAGGED, GONE, HOUR_US, LOST, NO_WRITES, SWEPT, Device, Item, Sent


class TableSide(LogSide):
    """What a table's commits mean."""

    def cloud_wrote(self, t_us: int, key: Key, rev: int, kind: str) -> None:
        """A cloud application's write is about to be executed. kind: put, update or delete. Call it again before a
        repetition; a write that is refused costs nothing."""
        item = self._items.get(key) or self._find_item(key)
        if item is None:
            return
        self.cloud_writes += 1
        self.cloud_writes_of[item.model.name] += 1
        is_delete = kind == "delete"
        if not is_delete:
            item.cloud = (rev, False)
        elif item.rev is not None:  # deleting nothing changes nothing
            item.cloud = (None, True)
        if not item.model.in_cloud:
            self.checks.direction.crossed(t_us, "", key, item.model.name, "written by a cloud application")

    def committed(self, t_us: int, record: TableRecord) -> None:
        """One change of the table, private keys too. All records of a transaction come with the same time, before any
        other call."""
        if self._open and t_us != self._open_us:
            self._settle()
        key = record.key
        pk = key[0]
        if pk[:1] == "_" and pk.startswith(stored.PRIVATE):
            if pk.startswith(stored.HEAD):
                self._head_committed(t_us, pk, record.new)
            elif pk.startswith(stored.LOG):
                if self._open:
                    self._settle()
                self._log_committed(t_us, key, record)
            return
        item = self._items.get(key) or self._find_item(key)
        if item is not None:
            self._item_committed(t_us, item, record.old, record.new, record.by_ttl)
        if self._dead:
            self._forget_dead(t_us)

    def device_cloned(self, device: str) -> None:
        """From now on a second device of this name may send operations, which the oracle does not see; a new epoch is
        expected of the first."""
        if self._open:
            self._settle()
        d = self._devices[device]
        d.cloned = d.restored = True

    def device_released(self, device: str) -> None:
        """A person has ended its quarantine: the relay believes again what it believes in an hour, though copies of the
        device may still live."""
        self._devices[device].replaced_us = []
        self.checks.epoch.excused += 1

    # ------------------------------------------------------------------ items

    def _item_committed(self, t_us: int, item: Item, old: Image | None, new: Image | None, by_ttl: bool) -> None:
        checks = self.checks
        rev: int | None = None
        own = False
        cloud = item.cloud
        name = item.owner.name if item.owner is not None else ""
        checks.direction.checked += 1
        if item.ends is not None:
            self._lives(t_us, item, new, by_ttl)
        if not item.model.in_cloud:
            checks.direction.crossed(t_us, name, item.key, item.model.name, "in the table")
        if new is None:
            checks.invented.checked += 1
            if cloud is not None and cloud[1]:
                item.cloud = None
            elif not by_ttl:
                own = self._deleted_by_device(t_us, item, old)
        else:
            rev = new.get(REV)
            checks.invented.image(t_us, name, item.key, new, "in the table")
            op = new.get(stored.OP)
            was = old.get(stored.OP) if old is not None else None
            if op is not None and op is not was and op != was and (cloud is None or cloud[0] != rev):
                own = True
                self._made_by_operation(t_us, item, op, rev, old, new)
            elif cloud is not None and cloud[0] == rev:
                item.cloud = None
            elif rev != item.rev or rev is None:
                checks.invented.nobody(t_us, name, item.key, item.rev, rev)
            if rev is not None and rev == item.rev:  # the same write again, or a mark on it: no new state
                item.image = new
                return
            if item.rev is None:
                checks.resurrection.appeared()
        item.rev = rev
        item.image = new
        if item.receives:
            self._advance(t_us, item, rev, own)
        if new is None and not item.dying:
            item.dying = True
            self._dead.append((t_us, item))

    def _lives(self, t_us: int, item: Item, new: Image | None, by_ttl: bool) -> None:
        """A change of an item of a model with a ttl: one that is over is swept, and nothing else is."""
        if new is not None:
            item.set_end(new.get(REV), new.get(item.model.ttl_attribute or ""))
        elif by_ttl:
            name = item.owner.name if item.owner is not None else ""
            self.checks.early.gone(t_us, name, item.key, item.rev, self._left_us(item, item.rev, t_us), 0)
            item.swept = SWEPT
            return
        if item.swept == SWEPT:
            item.swept = FLAGGED

    def _advance(self, t_us: int, item: Item, rev: int | None, own: bool) -> None:
        """A new state, to be received. The device that wrote it has it already, and needs none from before."""
        item.advance(rev, t_us)
        feed = item.feed
        if feed is None:
            return
        if item.wide is not None:
            item.lagging = len(item.wide)
            feed.unsettled[item.key] = item
        elif not own:
            feed.unsettled[item.key] = item
        else:
            assert item.owner is not None  # the feed is its owner's
            recorder = item.owner.tally.down[item.model.name]
            for n in range(max(0, item.seen + 1 - item.base), len(item.history) - 1):
                self._synced(recorder, item.history[n][1], t_us)
            item.seen = item.index
            feed.unsettled.pop(item.key, None)

    def _made_by_operation(
        self, t_us: int, item: Item, op: Any, rev: int | None, old: Image | None, new: Image
    ) -> None:
        """The item carries a new operation's mark: it must be one that its device has sent, and for the first time."""
        checks, device, key = self.checks, item.owner, item.key
        sender, epoch, u = op[0], op[1], op[2]
        checks.isolation.checked += 1
        if device is None or sender != device.name:
            checks.isolation.foreign(t_us, sender, key, "written by its operation")
            return
        if not item.sends:
            checks.direction.crossed(t_us, sender, key, item.model.name, f"written by the device's operation {u}")
        sent = device.ops.get(u)
        if device.cloned and (sent is None or sent.id != op[3]):
            return  # its copy may have sent it
        given_up = sent is not None and sent.id != op[3] and (epoch, u, op[3]) in (device.left or ())
        if sent is None or sent.epoch != epoch or sent.item is not item or given_up:
            if epoch != device.head_epoch:
                checks.double.old_epoch(t_us, sender, key, u, epoch)
                return
            again = self._brought_again(device, item, u, op[3], rev)
            if again is None:
                if sent is None and u <= self._head_before(device):
                    checks.double.late(t_us, sender, key, u, device.head_up, rev)
                else:
                    checks.invented.not_sent(t_us, sender, key, u, rev)
                return
            sent = again
        self._take_effect(t_us, device, item, sent, rev)
        if rev != sent.rev and sent.rev is not None:
            checks.invented.other_image(t_us, sender, key, sent.rev, f"(rev {rev}) in the table")
        if item.receives and old is not None:
            self._replaced(t_us, device, item, sent, old, new)
        elif item.receives and sent.kind == "update" and not _created_before(device, sent):
            checks.resurrection.by_update(t_us, sender, key, u, rev)

    def _replaced(self, t_us: int, device: Device, item: Item, sent: Sent, old: Image, new: Image | None) -> None:
        """An operation on a both model's item has taken the place of `old`. A put keeps the stamp it was judged by."""
        model = item.model
        after_ms = sent.updated if new is None else model.updated_ms(cast(dict[str, Any], new))
        stamps = (model.updated_ms(cast(dict[str, Any], old)), after_ms)
        over_cloud = item.op_index != item.index  # a cloud application's update leaves the operation's mark in place
        self.checks.policy.replaced(t_us, device.name, item.key, model.conflict, sent.u, stamps, over_cloud)

    def _head_before(self, device: Device) -> int:
        """Where HEAD stood before the present transaction."""
        return next((m[1] for m in self._open if isinstance(m, tuple) and m[0] is device), device.head_up)

    def _brought_again(self, device: Device, item: Item, u: int, op_id: str, rev: int | None) -> Sent | None:
        """Operation `u` of HEAD's epoch, where HEAD had passed it before the table was put back, and has not since. A
        message that waited somewhere may bring it once more, long after the device has heard its verdict and has sent
        others, with which the oracle has forgotten it; the last one of the item is still known. Or one that the device
        has sent and then given up, for an older disk or a new epoch, before HEAD has heard of it. `op_id`: "" of a
        delete of which nothing says which one it is."""
        epoch = device.head_epoch
        left = self._left_behind(device, item, u, op_id)
        if left is not None:
            sent = Sent(left.epoch, left.u, left.id, item.key, "", left.updated, NO_IMAGE, item, left.rev, [])
            self._again.append(sent)
            return sent
        before = device.past.get(epoch) if device.past is not None and epoch is not None else None
        if epoch is None or before is None or not self._head_before(device) < u <= before[0]:
            return None
        last, updated = item.last_sent, 0
        if last is not None and (last.epoch, last.u, last.id) == (epoch, u, op_id):
            rev, updated = last.rev, last.updated
        sent = Sent(epoch, u, op_id, item.key, "", updated, NO_IMAGE, item, rev, [])
        self._again.append(sent)
        return sent

    def _left_behind(self, device: Device, item: Item, u: int, op_id: str) -> Sent | None:
        low = self._head_before(device)
        for (epoch, sent_u, sent_id), sent in (device.left or {}).items():
            is_it = (sent_u, sent_id) == (u, op_id) or (not op_id and sent.kind == "delete")
            if is_it and epoch == device.head_epoch and sent_u > low and sent.item is item:
                return sent
        return None

    def _deleted_by_device(self, t_us: int, item: Item, old: Image | None) -> bool:
        """Nobody in the cloud has deleted the item: an operation or a sweep of its device must have. Whether it was an
        operation."""
        checks, device, key, last = self.checks, item.owner, item.key, item.last_sent
        if device is None:
            checks.invented.nobody(t_us, "", key, item.rev, None)
            return False
        if last is not None and last.kind != "delete":
            last = None
        sent = last
        if sent is None or not _is_open(device, sent) or device.ops.get(sent.u) is not sent:
            deletes = (s for s in device.ops.values() if s.item is item and s.kind == "delete")
            sent = next((s for s in deletes if _is_open(device, s)), None)
        if sent is None:
            if item.sends and any(s.kind == "sweep" and s.fate is None for s in device.ops.values()):
                return False
            if device.cloned:
                return False
            if last is not None and last.epoch == device.head_epoch:
                sent = self._brought_again(device, item, last.u, last.id, None)
            sent = sent or self._brought_again(device, item, self._head_before(device) + 1, "", None)
        if sent is not None:
            self._take_effect(t_us, device, item, sent, None)
            if item.receives and old is not None and sent.id:
                self._replaced(t_us, device, item, sent, old, None)
            return True
        if last is None:
            checks.invented.nobody(t_us, device.name, key, item.rev, None)
        elif last.epoch == device.head_epoch:
            checks.double.late(t_us, device.name, key, last.u, device.head_up, None)
        else:
            checks.double.old_epoch(t_us, device.name, key, last.u, last.epoch)
        return False

    def _take_effect(self, t_us: int, device: Device, item: Item, sent: Sent, rev: int | None) -> None:
        if sent.applied:
            self.checks.double.again(t_us, device.name, item.key, sent.u, rev)
        elif sent.fate is not None and sent.u not in device.redone:
            self.checks.double.late(t_us, device.name, item.key, sent.u, device.head_up, rev)
        else:
            self.checks.double.applied()
            sent.applied = True
            again = rev is not None and rev == item.rev  # no new state: what a device put back sends anew was there
            sent.index = item.index if again else item.index + 1
            self._open.append(sent)
            self._open_us = t_us

    # ------------------------------------------------------------------ HEAD

    def _head_committed(self, t_us: int, pk: str, new: Image | None) -> None:
        device = self._devices.get(stored.head_device(pk))
        if device is None:
            return
        checks = self.checks
        epoch = new.get("epoch") if new is not None else None
        low = device.head_up
        if new is None or epoch != device.head_epoch:
            before = device.head_epoch
            if before is not None:
                leave_epoch(device, before)
                device.replaced_us = [at_us for at_us in device.replaced_us if t_us - at_us < HOUR_US] + [t_us]
                checks.epoch.pace(t_us, device.name, (pk, "head"), len(device.replaced_us))
                if device.sent_epoch == before and not device.restored:
                    checks.epoch.replaced(t_us, device.name, (pk, "head"), before, epoch)
                else:
                    checks.epoch.kept()
            device.head_epoch = epoch
            device.decided = Decided()
            low = 0
        if new is None:
            device.head_up, device.head_id, device.verdicts = 0, None, stored.NO_VERDICTS
            return
        up: int = new["up"]
        if up < low:
            checks.double.head_back(t_us, device.name, (pk, "head"), low, up)
        device.head_up = up
        device.head_id = new.get("upid")
        device.verdicts = verdicts = new["verdicts"]
        if up > low:
            self._open.append((device, low, up, verdicts, t_us, device.head_id))
            self._open_us = t_us

    def _settle(self) -> None:
        """The records of one transaction are all in: HEAD's moves decide operations; effects must belong to a move."""
        entries, again = self._open, self._again
        self._open = []
        by_others: list[Device] = []
        for entry in entries:
            if type(entry) is tuple and not self._decide(entry):
                by_others.append(entry[0])
        if again:
            self._again = []
            self._decide_again(entries, again)
        for entry in entries:
            if isinstance(entry, Sent) and entry.fate is None and entry.item is not None:
                owner = entry.item.owner
                if owner in by_others and entry.kind == "delete" and _has_other_delete(owner, entry):
                    entry.applied = False  # nothing in the table says whose delete it was: that of the other batch
                    continue
                up = owner.head_up if owner is not None else 0
                name = owner.name if owner is not None else ""
                self.checks.double.apart(self._open_us, name, entry.item.key, entry.u, up)

    def _decide(self, move: Move) -> bool:
        """Whether the move is by what the device sends now: not by a batch of its copy, nor by one that it has given
        up for an older disk, which has the same numbers. All operations of a batch have one id."""
        device, low, high, verdicts, t_us, op_id = move
        checks, ops, epoch = self.checks, device.ops, device.head_epoch
        if device.cloned and high == device.head_up:
            last = ops.get(high)
            if last is None or last.epoch != epoch or last.id != device.head_id:
                return False  # a batch of its copy, which uses the same numbers
        left, own = device.left or {}, True
        folded: list[Sent] = []
        deletes: list[Sent] = []
        for u in range(low + 1, high + 1):
            sent = ops.get(u)
            if sent is None or sent.epoch != epoch:
                if not device.restored and not any(key[:2] == (epoch, u) for key in left):
                    checks.decided.never_sent(t_us, device.name, u)
                continue
            if op_id is not None and sent.id != op_id and (epoch, u, op_id) in left:
                own = False
                continue
            verdict = verdicts.get(str(u), "") if verdicts else ""
            item = sent.item
            redone = u in device.redone
            if redone:
                device.redone.discard(u)
                checks.decided.excused += 1
            elif sent.fate is not None:
                key = item.key if item is not None else None
                checks.decided.twice(t_us, device.name, key, u, sent.fate or "accepted", verdict or "accepted")
            sent.fate = verdict
            device.decided.add(t_us, u, sent.id, verdict)
            if item is None:
                continue
            checks.decided.checked += len(sent.writes)
            if not verdict:
                item.op_epoch = sent.epoch
                item.op_u = u
                item.op_index = sent.index
                for write in () if redone else sent.writes:
                    self._synced(device.tally.up[item.model.name], write[2], t_us)
                if not sent.applied:
                    folded.append(sent)
            elif sent.applied and not self._is_of_another_delete(move, sent, folded):
                checks.double.despite_verdict(t_us, device.name, item.key, u, verdict)
            elif verdict == "lost":
                mine = item.rev is not None and item.op_index == item.index and item.op_epoch == sent.epoch
                to_itself = mine and item.receives and item.model.conflict == "latest"
                if to_itself and (item.key, GONE) in device.rotten:
                    checks.policy.excused += 1
                    to_itself = False
                checks.policy.lost(t_us, device.name, item.key, u, to_itself, item.rev)
            if item.last_sent is sent and item.pending is NO_WRITES:
                item.own = LOST if verdict else ACCEPTED
                item.own_index = sent.index
                item.rejected = bool(verdict) and verdict != "lost"
            if sent.kind == "delete":
                deletes.append(sent)
        for sent in folded:
            self._decide_folded(t_us, device, sent)
        for sent in deletes:
            self._gone(t_us, sent)
        return own

    def _is_of_another_delete(self, move: Move, sent: Sent, folded: list[Sent]) -> bool:
        """Whether the item went by an accepted delete of the same batch, and not by this one, which was refused: the
        table does not say by which, and the newest was taken for it."""
        if sent.kind != "delete":
            return False
        device, low, high, verdicts = move[:4]
        for u in range(low + 1, high + 1):
            other = device.ops.get(u)
            if other is None or other.kind != "delete" or other.item is not sent.item or other.epoch != sent.epoch:
                continue
            if verdicts.get(str(u)):
                continue
            sent.applied, other.applied, other.index = False, True, sent.index
            if other in folded:
                folded.remove(other)
            return True
        return False

    def _decide_again(self, entries: list[Sent | Move], again: list[Sent]) -> None:
        """Operations that an old message has brought once more are decided by a move like any other."""
        for sent in again:
            item = sent.item
            if item is None:
                continue
            moves = (m for m in entries if type(m) is tuple and m[0] is item.owner)
            move = next((m for m in moves if m[1] < sent.u <= m[2]), None)
            if move is None:
                continue
            verdict = move[3].get(str(sent.u), "") if sent.id else ""
            if verdict:
                self.checks.double.despite_verdict(move[4], move[0].name, item.key, sent.u, verdict)
            sent.fate = verdict
            self.checks.decided.excused += 1
            item.op_epoch, item.op_u, item.op_index = sent.epoch, sent.u, sent.index

    def _gone(self, t_us: int, sent: Sent) -> None:
        """A delete was decided: an item that is nowhere any more will be forgotten."""
        item = sent.item
        if item is None or item.rev is not None:
            return
        if not item.receives and item.visible is None and item.pending is NO_WRITES:
            self._forget(item)
        elif not item.dying:
            item.dying = True
            self._dead.append((t_us, item))

    def _decide_folded(self, t_us: int, device: Device, sent: Sent) -> None:
        """Accepted without a commit of its own: a later operation of the same transaction took its place, or the item
        was already as it wants (a delete of nothing, the same image under a new epoch)."""
        item = sent.item
        if item is None or item.op_u != sent.u:
            return
        wanted = None if sent.kind == "delete" else sent.rev
        self.checks.acked.applied(t_us, device.name, item.key, sent.u, wanted, item.rev)
        item.op_index = item.index
        if item.last_sent is sent:
            item.own_index = item.index


def _is_open(device: Device, sent: Sent) -> bool:
    """Whether the operation may take effect now: it has not yet, or the table that was put back does not have it."""
    return sent.epoch == device.head_epoch and (sent.fate is None or sent.u in device.redone)


def _has_other_delete(device: Device, sent: Sent) -> bool:
    """Whether a copy of the device may have deleted the item, or something that the device has given up."""
    left = (device.left or {}).values()
    return device.cloned or any(s.item is sent.item and s.kind == "delete" for s in left)


def _created_before(device: Device, sent: Sent) -> bool:
    """Whether the same batch creates the item before this operation."""
    for s in device.ops.values():
        if s.item is sent.item and s.u < sent.u and s.kind == "create" and _is_open(device, s):
            return True
    return False


def leave_epoch(device: Device, epoch: str) -> None:
    """HEAD is in this epoch no more, or no longer where it stood. It stays known how far it ever was: a table that was
    put back ends the epoch earlier than the one before it, whose acks may still be on their way."""
    if device.past is None:
        device.past = {}
    known = device.past.get(epoch)
    if known is None or known[0] <= device.head_up:
        device.past[epoch] = (device.head_up, device.head_id)
