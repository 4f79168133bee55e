"""Planted bugs of the agent, one subclass each: the docstring says what goes wrong.

Called by nobody but fleet.plants, which puts them into a world's types. The real agent has no switch for any of them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any

from agent import ids
from agent.changes import Change
from agent.clock import CorrectedClock
from agent.database import Database
from agent.events import Effect, Event
from agent.protocol.messages import Ack, FeedName, Key, Kind, Row, Rows, SnapshotItem
from agent.protocol.schema import Model
from agent.replica import Outcome, Replica
from agent.session import NEVER, Session
from agent.store import SENT, UNSENT, OutboxRow, Store, Visible

Clock = Callable[[], int]

# ---------------------------------------------------------------- the session: what is sent, and when


class PubackSession(Session):
    """Takes the broker's acknowledgement for the relay's: the outbox is cleared when the broker has the message."""

    def on_puback(self, _token: Any, now_ms: int) -> list[Effect]:
        store = self.store
        self._now = now_ms
        self._effects = []
        if not store.in_flight:
            return self._effects
        last = store.in_flight[-1]
        changes: list[Change] = []
        with store.transaction():
            for row in store.in_flight:
                self.replica.settle(row, "", changes)
            store.set_acked(last.u, last.id)
        store.in_flight = []
        self.database.emit(changes)
        self._resend_at = NEVER
        self.settle_state()
        self.flush()
        return self._effects


class SilentSession(Session):
    """Never sends again on a live connection."""

    def send_batch(self, rows: list[OutboxRow]) -> None:
        super().send_batch(rows)
        self._resend_at = NEVER

    def on_connected(self, event: Event) -> None:
        super().on_connected(event)
        self._resend_at = NEVER


class WholeOutboxSession(Session):
    """Sends the whole backlog in one message, what is in flight with what came after it, however large it is."""

    def resend(self) -> None:
        store = self.store
        if store.unsent_rows:
            before = store.in_flight
            store.in_flight = [*before, *store.take_batch(1 << 20, 1 << 40, self.boot_id)]
        super().resend()


class ForgetfulSession(Session):
    """Asks for what it missed when it connects, and never again: neither on a gap, nor now and then."""

    def keep_early(self, rows: Rows) -> None:
        self.probes["gap_seen"] += 1

    def hello_answered(self) -> None:
        self._hello_open = False
        self._hello_at = NEVER

    def rows_applied(self, rows: Rows) -> None:
        return


class MintingSession(Session):
    """Takes a new epoch at every boot."""

    def on_boot(self, event: Event) -> None:
        super().on_boot(event)
        if self.store.identity.adopted:
            self.mints += 1
            self.replica.mint(self.store.identity.epoch)
            self.hn = ids.nonce(self.random)


class StubbornSession(Session):
    """Goes on where its database was set back to, though the relay knows of later writes: their numbers are used a
    second time, and nothing counts until they are passed (Litestream)."""

    def rolled_back(self) -> None:
        self.probes["rollback_seen"] += 1


# ---------------------------------------------------------------- the replica: what is applied


class EarlyCursorReplica(Replica):
    """Stores the cursor in a transaction of its own, before the rows that it covers (PouchDB's permanent loss)."""

    def rows(self, message: Rows) -> Outcome:
        store = self.store
        cursor = store.cursors.get(message.feed)
        if cursor is None or cursor[0] != message.epoch or message.a > cursor[1] or message.b <= cursor[1]:
            return super().rows(message)
        store.set_cursor(message.feed, message.epoch, message.b, self.fingerprints[message.feed])
        changes: list[Change] = []
        with store.transaction():
            for row in message.rows:
                self.apply_row(message.feed, row, changes)
        self.database.emit(changes)
        return Outcome.APPLIED


class HeedlessReplica(Replica):
    """Takes rows for applied that found no room on the disk: they are lost, and the cursor goes on."""

    def rows(self, message: Rows) -> Outcome:
        try:
            return super().rows(message)
        except sqlite3.OperationalError:
            self.store.set_cursor(message.feed, message.epoch, message.b, self.fingerprints[message.feed])
            return Outcome.APPLIED


class GapReplica(Replica):
    """Applies rows that come after a gap, and moves the cursor over it."""

    def rows(self, message: Rows) -> Outcome:
        cursor = self.store.cursors.get(message.feed)
        if cursor is not None and cursor[0] == message.epoch and message.a > cursor[1]:
            self.store.cursors[message.feed] = (message.epoch, message.a)
        return super().rows(message)


class RollingBackReplica(Replica):
    """Applies rows that it has had already, late or repeated: an item goes back to what it was (device shadows)."""

    def rows(self, message: Rows) -> Outcome:
        cursor = self.store.cursors.get(message.feed)
        if cursor is None or cursor[0] != message.epoch or message.b > cursor[1]:
            return super().rows(message)
        changes: list[Change] = []
        with self.store.transaction():
            for row in message.rows:
                self.apply_row(message.feed, row, changes)
        self.database.emit(changes)
        return Outcome.APPLIED


class MergingReplica(Replica):
    """A snapshot adds to what is there instead of replacing it: what was deleted meanwhile comes back to life."""

    def replace_base(self, feed: FeedName, keys: Sequence[Key], items: Sequence[SnapshotItem]) -> set[Key]:
        return super().replace_base(feed, [item.key for item in items], items)


class OverwritingReplica(Replica):
    """A snapshot replaces the device's own pending writes too."""

    def replace_base(self, feed: FeedName, keys: Sequence[Key], items: Sequence[SnapshotItem]) -> set[Key]:
        set_aside = super().replace_base(feed, keys, items)
        store = self.store
        for key in (item.key for item in items):
            for row in store.outbox(f"pk=? AND sk=? AND state={UNSENT}", key):
                store.drop_operation(row.n)
                store.unsent_rows -= 1
        return set_aside


class ImpatientReplica(Replica):
    """Drops an accepted operation of a `both` model at its acknowledgement, before the feed shows it."""

    def settle(self, row: OutboxRow, verdict: str, changes: list[Change]) -> None:
        super().settle(row._replace(seen=1) if not verdict else row, verdict, changes)


class RowIsAckReplica(Replica):
    """Takes the row that shows an own operation for its acknowledgement, and drops the operation."""

    def step_back(self, operations: Sequence[OutboxRow], set_aside: Set[Key] = frozenset()) -> None:
        super().step_back(operations, set_aside)
        store = self.store
        for row in operations:
            if row.state == SENT:
                store.drop_operation(row.n)
                store.in_flight = [other for other in store.in_flight if other.n != row.n]


class ClearingReplica(Replica):
    """An acknowledgement clears every operation there is, also those written since ("clear dirty for all", Dotmim)."""

    def ack(self, ack: Ack) -> Outcome:
        outcome = super().ack(ack)
        store = self.store
        if outcome is Outcome.APPLIED and store.unsent_rows:
            for row in store.outbox(f"state={UNSENT} AND kind<>'sweep'"):
                if row.image is not None:
                    store.put_base(row.pk, row.sk, row.image, row.updated)
                else:
                    store.delete_base(row.pk, row.sk)
                store.drop_operation(row.n)
                store.unsent_rows -= 1
        return outcome


class EchoReplica(Replica):
    """What sync writes fires the upload trigger: the item goes back up."""

    def apply_row(self, feed: FeedName, row: Row, changes: list[Change]) -> None:
        super().apply_row(feed, row, changes)
        place = self.schema.locate(row.key)
        image = bytes(row.image)
        if place is not None and place.model.sends and image:
            visible = self.store.visible(*row.key)
            self.store.add_operation(*row.key, "update", image, visible.updated + 1)


class StoppedReplica(Replica):
    """Does not get past an item that it cannot hold: the message counts for nothing, and its feed stops there."""

    def rows(self, message: Rows) -> Outcome:
        return Outcome.NOTHING if any(row.oversize for row in message.rows) else super().rows(message)


class StubbornReplica(Replica):
    """Sends again, a few times, what the relay has refused, as if another time would help."""

    def settle(self, row: OutboxRow, verdict: str, changes: list[Change]) -> None:
        super().settle(row, verdict, changes)
        tries = self.__dict__.setdefault("_tries", {})
        state = (row.pk, row.sk, row.updated)
        if verdict not in ("", "lost") and tries.get(state, 0) < 3:  # without an end no run would come to its own
            tries[state] = tries.get(state, 0) + 1
            self.store.add_operation(row.pk, row.sk, row.kind, row.image, row.updated)


# ---------------------------------------------------------------- the database: what applications write


class ForgetfulStore(Store):
    """Keeps what was not sent in memory only: it is gone after a restart."""

    def load(self) -> None:
        if not hasattr(self, "identity"):
            self.execute(f"DELETE FROM outbox WHERE state={UNSENT} AND kind<>'sweep'")
        super().load()


class MeddlingDatabase(Database):
    """Merges a newer write into the operation that is in flight."""

    def _put_operation(self, pk: str, sk: str, kind: Kind, data: bytes | None, updated: int, visible: Visible) -> None:
        if visible.n:
            self.store.squash(visible.n, kind, data, updated)
            self.store.in_flight = [
                row._replace(image=data, updated=updated) if row.n == visible.n else row for row in self.store.in_flight
            ]
        else:
            self.store.add_operation(pk, sk, kind, data, updated)


class ZombieDatabase(Database):
    """A delete of an item whose last write was not sent drops that write, and tells nobody of the delete."""

    def _put_operation(self, pk: str, sk: str, kind: Kind, data: bytes | None, updated: int, visible: Visible) -> None:
        if kind == "delete" and visible.n and visible.state == UNSENT:
            self.store.delete_base(pk, sk)
            self.store.drop_operation(visible.n)
            self.store.unsent_rows -= 1
            return
        super()._put_operation(pk, sk, kind, data, updated, visible)


class FirstEditDatabase(Database):
    """Of several offline writes of one item only the first is kept for sending: 1, 2, 3 sends 1."""

    def _put_operation(self, pk: str, sk: str, kind: Kind, data: bytes | None, updated: int, visible: Visible) -> None:
        if visible.n and visible.state == UNSENT and kind == "update":
            return
        super()._put_operation(pk, sk, kind, data, updated, visible)


class _WallClock(CorrectedClock):
    """The device's own clock, uncorrected."""

    __slots__ = ()

    def now_ms(self) -> int:
        return self._wall_ms()

    def learn(self, relay_now_ms: int, asked_ms: int, known_correction_ms: int | None) -> int | None:
        return None


class WallClockDatabase(Database):
    """Stamps writes with the device's own clock as it stands: after a step back a device loses to itself."""

    def __init__(self, *args: Any, monotonic_ms: Clock, wall_ms: Clock, **named: Any) -> None:
        super().__init__(*args, monotonic_ms=monotonic_ms, wall_ms=wall_ms, **named)
        self.clock = _WallClock(monotonic_ms, wall_ms, None)

    def _change(self, m: Model, key: Key, visible: Visible, properties: Mapping[str, Any]) -> dict[str, Any]:
        return super()._change(m, key, visible._replace(updated=0), properties)
