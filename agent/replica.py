"""Applies what the relay says to the device's database: acknowledgements, rows, snapshots, and a new epoch.

Every message is applied whole or not at all, in one transaction with the cursor that covers it. Sends nothing and sets
no timer: it answers with an Outcome, and Session acts on it. docs/protocol.md numbers the rules named here.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Sequence, Set
from typing import Final

from agent import ids, letters
from agent.changes import Change, Event
from agent.database import Database
from agent.file_errors import StoreError, stored_image
from agent.indexing import Plan
from agent.protocol.errors import MessageError
from agent.protocol.messages import (
    Ack,
    FeedName,
    HeadMark,
    Image,
    Key,
    Kind,
    Row,
    Rows,
    Snapshot,
    SnapshotItem,
    decode_image,
)
from agent.protocol.schema import Model
from agent.store import ACKED, SENT, UNSENT, OutboxRow, Visible

_STAMP_MS_MAX: Final = 253_000_000_000_000  # in the year 9987: what a date can hold, with room for later stamps


class Outcome(enum.Enum):
    APPLIED = "applied"
    NOTHING = "nothing"  # old, repeated or stale: nothing to do
    GAP = "gap"  # rows are missing before these
    ASK = "ask"  # no cursor, or one of another feed epoch: only a hello helps
    ROLLED_BACK = "rolled back"  # this database is older than what the relay committed: a new epoch is needed


# Looked up once: at each message an attribute of an enum costs as much as a small call.
_APPLIED: Final = Outcome.APPLIED
_NOTHING: Final = Outcome.NOTHING
_GAP: Final = Outcome.GAP
_ASK: Final = Outcome.ASK
_ROLLED_BACK: Final = Outcome.ROLLED_BACK


class _RolledBackError(Exception):
    """Leaves the transaction: nothing of the message counts."""


class Replica:
    """The receiving half of one device. `probes` counts the paths that matter."""

    __slots__ = (
        "_plans", "context", "database", "feeds", "feeds_in_memory", "fingerprints", "probes", "schema", "store",
    )  # fmt: skip

    def __init__(self, database: Database, probes: Counter[str]) -> None:
        self.database = database
        self.store = database.store
        self.schema = database.schema
        self.context = database.context
        self.probes = probes
        self.feeds = self.schema.feeds
        self.feeds_in_memory = self.schema.feeds_in_memory
        self._plans = database.indexing.plans
        self.fingerprints = self.schema.fingerprints

    # ---------------------------------------------------------------- rule 7: acknowledgements

    def ack(self, ack: Ack) -> Outcome:
        store = self.store
        identity = store.identity
        if ack.epoch != identity.epoch or ack.up < identity.acked_u:
            return _NOTHING
        if ack.up == identity.acked_u:
            if ack.upid != identity.acked_id:
                return _ROLLED_BACK
            if not identity.adopted:
                store.set_acked(ack.up, ack.upid)
                return _APPLIED
            return _NOTHING
        if not self.sent_by_me(ack.up, ack.upid):
            return _ROLLED_BACK
        changes: list[Change] = []
        done = [row for row in store.in_flight if row.u <= ack.up]
        with store.transaction():
            for row in done:
                self.settle(row, ack.verdicts.get(row.u, ""), changes)
            store.set_acked(ack.up, ack.upid)
        store.in_flight = store.in_flight[len(done) :]
        self.database.emit(changes)
        return _APPLIED

    def sent_by_me(self, u: int, op_id: str | None) -> bool:
        """Whether operation (u, id) is one that this database has sent and not yet seen acknowledged."""
        for row in self.store.in_flight:  # noqa: SIM110  # asked at every acknowledgement: a loop costs less
            if row[1] == u and row[8] == op_id:
                return True
        return False

    def settle(self, row: OutboxRow, verdict: str, changes: list[Change]) -> None:
        """One verdict on one operation: "" accepted, "lost", or the code of a rejection."""
        n, _, _, pk, sk, kind, image, updated, _, _, seen = row
        store = self.store
        key = (pk, sk)
        if kind == "sweep":
            store.drop_operation(n)
            return
        place = self.schema.locate(key)
        name = place.model.name if place is not None else ""
        if (not seen if place is None else not place.model.receives) and verdict != "lost":
            # An up model: the device's image is the truth, also when the relay would not have it. So it is where the
            # schema has lost the model: with the next one that has it, it is there again.
            if image is None:
                store.delete_base(pk, sk)
            else:
                store.put_base(pk, sk, image, updated, verdict or None)
            store.drop_operation(n)
        elif verdict:
            before = store.visible(pk, sk)
            store.drop_operation(n)
            ended = place is not None and self.end_below(place.model, key)
            self.note_change(key, name, before, changes, expired=ended)
            self.probes["conflict_lost"] += verdict == "lost"
        elif seen:
            store.drop_operation(n)
        else:
            store.mark_acked(n)  # the overlay stays until the feed shows it
            if place is not None and place.model.ttl_attribute is not None and image is not None:
                self.end_life(place.model, row)
        if verdict and verdict != "lost":
            store.bury(self.database.clock.now_ms(), pk, sk, kind, image, updated, verdict)
            changes.append(Change("rejected", "sync", name, key, image, None, updated, verdict))
            self.probes["rejected"] += 1
        else:
            changes.append(Change("lost" if verdict else "synced", "sync", name, key, image, None, updated))

    def end_life(self, model: Model, row: OutboxRow) -> None:
        """An operation that was accepted under a later one of its item, and is over by now, never shows again: or the
        item would end once more when the later one is lost."""
        covered = self.store.visible(row.pk, row.sk).n != row.n
        if covered and self.is_surely_over(model, stored_image(row.image or b"")):
            self.store.end_life(row.n)

    def end_below(self, model: Model, key: Key) -> bool:
        """What lay below an operation that came to nothing may have come to its end meanwhile. It never shows again: or
        an item that had ended, or was deleted, would end once more. Returns whether that was so."""
        if model.ttl_attribute is None or not model.receives:
            return False
        below = self.store.visible(*key)
        if below.image is None or not self.is_surely_over(model, _image_of(below.image)):
            return False
        if not below.n:
            self.store.delete_base(*key)
        elif below.state == ACKED:
            self.store.end_life(below.n)
        else:
            return False  # a later operation: agent.due ends it
        return True

    # ---------------------------------------------------------------- the relay's schema

    def relay_goes_by(self, version: str) -> None:
        """What the answer to a hello says of the relay's schema; "": it is the device's own. A cursor remembers what it
        was reached with. With another schema than the device's, a relay may have told nothing of models that it did
        not know: as soon as there is a third one, or none that differs, the feed is fetched anew."""
        store = self.store
        mark = _marked(version)
        for feed, models in tuple(store.models.items()):
            present = self.fingerprints.get(feed, "") + mark
            if models == present:
                continue
            with store.transaction():
                if "/" in models:
                    store.drop_cursor(feed)
                    self.probes["relay_models_changed"] += 1
                else:
                    store.set_models(feed, present)

    @property
    def is_of_other_relay(self) -> bool:
        """Whether a feed was last known to come from a relay with another schema than the device's."""
        return any("/" in models for models in self.store.models.values())

    # ---------------------------------------------------------------- rule 12: rows

    def rows(self, message: Rows) -> Outcome:
        store = self.store
        feed = message.feed
        cursor = store.cursors.get(feed)
        if cursor is None or cursor[0] != message.epoch:
            return _ASK
        if message.b <= cursor[1]:
            self.probes["duplicate_dropped"] += 1
            return _NOTHING
        if message.a > cursor[1]:
            return _GAP
        changes: list[Change] = []
        try:
            with store.transaction():
                for row in message.rows:
                    self.apply_row(feed, row, changes)
                store.set_cursor(feed, message.epoch, message.b, self.fingerprints[feed])
        except _RolledBackError:
            return _ROLLED_BACK
        self.database.emit(changes)
        return _APPLIED

    def apply_row(self, feed: FeedName, row: Row, changes: list[Change]) -> None:
        """The base takes the row's image; own operations that it contains step back (rule 14)."""
        if row.head is not None:
            self.refuse_rolled_back(row.head)
        model = self.admitted(feed, row.key)
        if model is None:
            self.probes["row_set_aside"] += 1
            return
        store = self.store
        pk, sk = row.key
        before = store.visible(pk, sk)
        image = bytes(row.image)
        shown = self.put(model, pk, sk, image, row.oversize)
        if shown and store.has_aside:
            letters.overtaken(store, (row.key,))
        if store.outbox_rows and row.head is not None:
            own = store.outbox("pk=? AND sk=? AND epoch=? AND u<=?", (pk, sk, row.head.epoch, row.head.up))
            self.step_back(own, frozenset() if shown else {row.key})
        # What came with an image and is not there was over when it came.
        self.note_change(row.key, model.name, before, changes, expired=row.expired or bool(image))

    def admitted(self, feed: FeedName, key: Key) -> Model | None:
        """The model of a key that this feed may write on this device, else None: direction and identity are checked
        where a change is applied, on every path (rule 15)."""
        place = self.schema.locate(key)
        if place is None or not place.model.receives or place.model.feed != feed:
            return None
        if place.device_id is not None and place.device_id != self.context.device_id:
            return None
        if place.account_id is not None and place.account_id != self.context.account_id:
            return None
        return place.model

    def put(self, model: Model, pk: str, sk: str, image: bytes, oversize: int = 0) -> bool:
        """`image` empty: the item is gone. What cannot be applied is set aside with its reason: the base stays as it
        is (False is returned), and the rows behind are not held up."""
        code = "oversize" if oversize else ""
        if not image and not code:
            self.store.delete_base(pk, sk)
            return True
        if not code:
            try:
                decoded = decode_image(image)
            except MessageError as error:
                code = error.code
            else:
                if model.ttl_attribute is not None and self.is_surely_over(model, decoded):
                    self.store.delete_base(pk, sk)
                    return True
                # Only a model that the device may write needs the stamp: the next write must be newer.
                updated = min(max(model.updated_ms(decoded), 0), _STAMP_MS_MAX) if model.sends else 0
                self.store.put_base(pk, sk, image, updated)
                return True
        self.probes[f"row_{code}"] += 1
        letters.put_aside(self.store, self.database.clock.now_ms(), (pk, sk), image or None, code)
        return False

    def is_surely_over(self, model: Model, image: Image) -> bool:
        """Whether an item's life is over by the relay's time: such an item is absent on both sides."""
        return self.database.clock.corrected and self.database.is_over(model, image)

    def refuse_rolled_back(self, head: HeadMark) -> None:
        identity = self.store.identity
        if head.epoch == identity.epoch and head.up > identity.acked_u and not self.sent_by_me(head.up, head.upid):
            raise _RolledBackError

    def step_back(self, operations: Sequence[OutboxRow], set_aside: Set[Key] = frozenset()) -> None:
        """Operations whose effect the base now contains: acknowledged ones go, sent ones hide until their verdict.
        `set_aside`: items whose state in the table could not be applied. Their base is older than what was accepted of
        this device's own, so it takes that; what has no verdict yet keeps showing."""
        for row in operations:
            aside = bool(set_aside) and (row.pk, row.sk) in set_aside
            if row.state == ACKED:
                if aside:
                    self.keep(row)
                self.store.drop_operation(row.n)
            elif aside:
                continue
            elif row.state == SENT and not row.seen:
                self.store.mark_seen(row.n)
                self.probes["row_before_ack"] += 1

    def keep(self, row: OutboxRow) -> None:
        """The base takes an accepted operation."""
        if row.image is None:
            self.store.delete_base(row.pk, row.sk)
        else:
            self.store.put_base(row.pk, row.sk, row.image, row.updated)

    def note_change(
        self, key: Key, model: str, before: Visible, changes: list[Change], *, expired: bool = False
    ) -> None:
        """If what an application reads has changed, it will be told. `expired`: why the item is gone, if it is."""
        after = self.store.visible(*key)
        if after.image == before.image:
            return
        was, now = before.image, after.image
        if self._plans and (plan := self._plans.get(model)) is not None:
            was_over, is_over = self.index_change(plan, key, before, after)
            if is_over:
                return  # agent.due drops it, and tells
            if was_over and now is None:
                expired = True  # nobody has been told yet that it was over
            elif was_over:
                was = None
        event: Event = (
            "created" if was is None else "updated" if now is not None else "expired" if expired else "removed"
        )
        changes.append(Change(event, "sync", model, key, now, was, after.updated))

    def index_change(self, plan: Plan, key: Key, before: Visible, after: Visible) -> tuple[bool, bool]:
        """Moves an item in the indexes. Returns whether its life was over before, and is after."""
        images = [None if state.image is None else _image_of(state.image) for state in (before, after)]
        self.database.indexing.move(plan, key, *images)
        was_over, is_over = (image is not None and self.is_surely_over(plan.model, image) for image in images)
        return was_over, is_over

    # ---------------------------------------------------------------- rule 13: snapshot

    def snapshot(self, first: Snapshot, items: Sequence[SnapshotItem]) -> Outcome:
        """A whole snapshot (its nonce was checked): it replaces the base of the feed's models."""
        store = self.store
        feed = first.feed
        cursor = store.cursors.get(feed)
        if cursor is not None and cursor[0] == first.epoch and first.seq < cursor[1]:
            return _NOTHING
        changes: list[Change] = []
        try:
            with store.transaction():
                if first.head is not None:
                    self.refuse_rolled_back(first.head)
                keys = self.feed_keys(feed)
                came = dict.fromkeys(item.key for item in items)
                settled = [] if first.head is None else self.settled_operations(first.head)
                touched = {*keys, *came, *((row.pk, row.sk) for row in settled)}
                before = {key: store.visible(*key) for key in sorted(touched)}
                set_aside = self.replace_base(feed, keys, items)
                if first.head is not None:
                    self.step_back_all(first.head, settled, set_aside)
                store.set_cursor(feed, first.epoch, first.seq, self.fingerprints[feed] + _marked(first.schema or ""))
                for key, was in before.items():
                    place = self.schema.locate(key)
                    name = place.model.name if place is not None else ""
                    self.note_change(key, name, was, changes, expired=key in came)
        except _RolledBackError:
            return _ROLLED_BACK
        self.database.emit(changes)
        return _APPLIED

    def feed_keys(self, feed: FeedName) -> list[Key]:
        """The items of a feed's models that are in the base."""
        return [
            (pk, sk)
            for pk, prefix in self.schema.ranges(feed, self.context)
            for sk in self.store.base_keys(pk, prefix)
            if self.admitted(feed, (pk, sk)) is not None
        ]

    def replace_base(self, feed: FeedName, keys: Sequence[Key], items: Sequence[SnapshotItem]) -> set[Key]:
        """Returns the items that could not be applied, whose base stays as it is."""
        set_aside: set[Key] = set()
        present = {item.key for item in items}
        for key in keys:
            if key not in present:
                self.store.delete_base(*key)
        for item in items:
            model = self.admitted(feed, item.key)
            if model is None:
                self.probes["row_set_aside"] += 1
                continue
            if not self.put(model, *item.key, bytes(item.image), item.oversize):
                set_aside.add(item.key)
        if self.store.has_aside:
            gone = [key for key in letters.set_aside(self.store) if key not in set_aside]
            letters.overtaken(self.store, [key for key in gone if self.admitted(feed, key) is not None])
        return set_aside

    def step_back_all(self, head: HeadMark, settled: Sequence[OutboxRow], set_aside: Set[Key]) -> None:
        epoch = self.store.identity.epoch
        untold = {(row.pk, row.sk) for row in settled if row.state == ACKED and not self.is_told(row)}
        set_aside = set_aside | untold
        if head.epoch == epoch:
            self.step_back([row for row in settled if row.state == ACKED and row.epoch != epoch], set_aside)
        self.step_back([row for row in settled if row.epoch == head.epoch and row.u <= head.up], set_aside)

    def settled_operations(self, head: HeadMark) -> list[OutboxRow]:
        """Operations that the snapshot may contain, of models whose feed tells their end, and accepted ones of models
        that the schema has lost since: no feed will tell theirs. Those of up models end by their verdicts alone, until
        then nothing else holds what the application wrote. What was not sent stays where it is: a device that was
        offline for days may have a hundred thousand of these."""
        sent = f"kind<>'sweep' AND (state={ACKED} OR state={SENT} AND epoch=? AND u<=?)"
        rows = self.store.outbox(sent, (head.epoch, head.up)) if self.store.outbox_rows else ()
        return [row for row in rows if row.state == ACKED or self.is_told(row)]

    def is_told(self, row: OutboxRow) -> bool:
        """Whether a feed tells what becomes of the operation's item."""
        place = self.schema.locate((row.pk, row.sk))
        return place is not None and place.model.receives

    # ---------------------------------------------------------------- rules 16, 17: a new epoch

    def enter(self, incarnation: str) -> None:
        """The table has become another one (rule 19): where this device stood in its feeds says nothing any more."""
        with self.store.transaction():
            self.leave_feeds(incarnation)

    def leave_feeds(self, incarnation: str) -> None:
        for feed in sorted(self.store.cursors):
            self.store.drop_cursor(feed)
        self.store.set_incarnation(incarnation)

    def mint(self, replaces: str | None, incarnation: str | None = None) -> None:
        """A new epoch in one transaction: every live item of an up model is created again, what the relay holds of
        older epochs is swept, and pending operations of `both` models follow with their old stamps. `incarnation`: of
        the table, when it is a new one."""
        store = self.store
        own: list[OutboxRow] = []
        keep: list[OutboxRow] = []
        with store.transaction():
            for row in store.outbox("kind<>'sweep'"):
                place = self.schema.locate((row.pk, row.sk))
                if place is None or place.model.receives:  # what the schema has lost goes on as it is, too
                    if row.state == ACKED:
                        keep.append(row)
                    elif not row.seen:
                        own.append(row)
                elif row.image is None:
                    store.delete_base(row.pk, row.sk)
                else:
                    store.put_base(row.pk, row.sk, row.image, row.updated)
            pending: list[tuple[Kind, OutboxRow]] = [("create", row) for row in self.live_up_items()]
            pending.append(("sweep", OutboxRow(0, 0, "", "", "", "sweep", None, 0, "", UNSENT, 0)))
            pending.extend((row.kind, row) for row in own)
            store.drop_cursor("device")
            if incarnation is not None:
                self.leave_feeds(incarnation)
            store.new_epoch(ids.epoch(self.database.random), replaces, keep, pending)
        self.probes["epoch_minted"] += 1

    def live_up_items(self) -> list[OutboxRow]:
        rows: list[OutboxRow] = []
        for model, pk, prefix in self.schema.up_ranges(self.context):
            for sk in self.store.base_keys(pk, prefix):
                place = self.schema.locate((pk, sk))
                base = self.store.base(pk, sk)
                if place is not None and place.model is model and base is not None:
                    rows.append(OutboxRow(0, 0, "", pk, sk, "create", base[0], base[1], "", UNSENT, 0))
        return rows


def _marked(version: str) -> str:
    """What stands behind the fingerprint of a feed's models, where the relay goes by another schema."""
    return version and "/" + version


def _image_of(data: bytes) -> Image:
    """One that a damaged file has, and that sync replaces, is in no index that it could be found in."""
    try:
        return stored_image(data)
    except StoreError:
        return {}
