"""Planted bugs: each takes one rule away from the agent or the relay, to show that the checks can fail.

A plant is a subclass of the real class that gets one decision wrong, put in its place when a world is built with it
(`fleet run … --plant NAME`). They live here, in the simulator: neither the agent nor the relay has a switch for them,
so none can be on in production. Most are real defects of shipped systems; docs/proof.md names them.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from agent.changes import Change
from agent.database import Database
from agent.protocol.errors import Problem
from agent.protocol.messages import Ack, FeedName, FeedState, Key, Kind, Rows, SnapshotItem
from agent.replica import Outcome, Replica
from agent.session import NEVER, Session
from agent.store import UNSENT, OutboxRow, Store, Visible
from cloud.catchup import CatchUp
from cloud.feed import Sequencer
from cloud.head import Feed, log_position, public_image
from cloud.ingest import Action, Batch, Decision, Ingest
from cloud.relay import Relay
from cloud.table import Condition, Item, Query, Record, Request, Work
from fleet.world.cloud import CloudWorld
from fleet.world.shards import Shard
from fleet.world.world import Types

# ---------------------------------------------------------------- the agent


class _PubackSession(Session):
    """Takes the broker's acknowledgement for the relay's: the outbox is cleared when the broker has the message."""

    def on_puback(self, _token: Any) -> None:
        store = self.store
        if not store.in_flight:
            return
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


def _puback(types: Types) -> None:
    types.agent.session = _PubackSession
    types.agent.wants_puback = True


class _EarlyCursorReplica(Replica):
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


class _GapReplica(Replica):
    """Applies rows that come after a gap, and moves the cursor over it."""

    def rows(self, message: Rows) -> Outcome:
        cursor = self.store.cursors.get(message.feed)
        if cursor is not None and cursor[0] == message.epoch and message.a > cursor[1]:
            self.store.cursors[message.feed] = (message.epoch, message.a)
        return super().rows(message)


class _MergingReplica(Replica):
    """A snapshot adds to what is there instead of replacing it: what was deleted meanwhile comes back to life."""

    def replace_base(self, feed: FeedName, keys: Sequence[Key], items: Sequence[SnapshotItem]) -> None:
        super().replace_base(feed, [item.key for item in items], items)


class _ImpatientReplica(Replica):
    """Drops an accepted operation of a `both` model at its acknowledgement, before the feed shows it."""

    def settle(self, row: OutboxRow, verdict: str, changes: list[Change]) -> None:
        super().settle(row._replace(seen=1) if not verdict else row, verdict, changes)


class _EchoReplica(Replica):
    """What sync writes fires the upload trigger: the item goes back up."""

    def apply_row(self, feed: FeedName, row: Any, changes: list[Change]) -> None:
        super().apply_row(feed, row, changes)
        place = self.schema.locate(row.key)
        image = bytes(row.image)
        if place is not None and place.model.sends and image:
            visible = self.store.visible(*row.key)
            self.store.add_operation(*row.key, "update", image, visible.updated + 1)


class _ForgetfulStore(Store):
    """Keeps what was not sent in memory only: it is gone after a restart."""

    def load(self) -> None:
        if not hasattr(self, "identity"):
            self.execute(f"DELETE FROM outbox WHERE state={UNSENT} AND kind<>'sweep'")
        super().load()


class _MeddlingDatabase(Database):
    """Merges a newer write into the operation that is in flight."""

    def _put_operation(self, pk: str, sk: str, kind: Kind, data: bytes | None, updated: int, visible: Visible) -> None:
        if visible.n:
            self.store.squash(visible.n, kind, data, updated)
            self.store.in_flight = [
                row._replace(image=data, updated=updated) if row.n == visible.n else row for row in self.store.in_flight
            ]
        else:
            self.store.add_operation(pk, sk, kind, data, updated)


class _ZombieDatabase(Database):
    """A delete of an item whose last write was not sent drops that write, and tells nobody of the delete."""

    def _put_operation(self, pk: str, sk: str, kind: Kind, data: bytes | None, updated: int, visible: Visible) -> None:
        if kind == "delete" and visible.n and visible.state == UNSENT:
            self.store.delete_base(pk, sk)
            self.store.drop_operation(visible.n)
            self.store.unsent_rows -= 1
            return
        super()._put_operation(pk, sk, kind, data, updated, visible)


class _SilentSession(Session):
    """Never sends again on a live connection."""

    def send_batch(self, rows: list[OutboxRow]) -> None:
        super().send_batch(rows)
        self._resend_at = NEVER

    def on_connected(self, event: Any) -> None:
        super().on_connected(event)
        self._resend_at = NEVER


# ---------------------------------------------------------------- the relay


class _HastyIngest(Ingest):
    """Acknowledges before the transaction has committed."""

    def commit(
        self, batch: Batch, todo: Sequence[Any], decision: Decision, actions: Sequence[Action]
    ) -> Generator[Request, Any, str]:
        last = todo[-1]
        verdicts = {u: "lost" if code == "void" else code for u, code in decision.verdicts.items()}
        yield batch.answer(Ack(epoch=batch.epoch, up=last.u, upid=last.id, verdicts=verdicts, now=self.clock_ms()))
        return (yield from super().commit(batch, todo, decision, actions))


class _UnfencedIngest(Ingest):
    """Commits without the condition that HEAD is as it was read: two workers apply one batch twice, out of order."""

    def head_condition(self, head: Item) -> Condition:
        return ()


class _BlindIngest(Ingest):
    """Commits without the condition that the items are as they were read: a write in between is run over."""

    def unchanged(self, old: Item | None, new: Item | None) -> Condition:
        return ()


class _ResurrectingIngest(Ingest):
    """An update of an item that was deleted brings it back."""

    def accepts(self, model: Any, kind: Kind, stamp_ms: int, present: Item | None) -> bool:
        if present is None:
            return kind != "delete"
        return super().accepts(model, kind, stamp_ms, present)


class _VoidIngest(Ingest):
    """Operations that fold to nothing are called accepted: the device waits for a row that never comes."""

    def is_void(self, before: Item | None, after: Item | None) -> bool:
        return False


class _ImageSequencer(Sequencer):
    """Logs the image that the stream record carries instead of reading the item: late records roll it back."""

    def on_record(self, record: Record) -> Work:
        self._images = {**getattr(self, "_images", {}), record.key: record.new}
        return super().on_record(record)

    def fill(self, row: dict[str, Any], feed: Feed, key: Key, by_ttl: bool) -> Generator[Request, Any, None]:
        head = yield from self.read_head(feed)
        row["key"] = [key[0], key[1]]
        if head is not None:
            row["head"] = [head["epoch"], head["up"], head.get("upid")]
        image = self._images.get(key)
        if image is not None:
            row["image"] = public_image(image)


class _LateHeadSequencer(Sequencer):
    """Reads HEAD after the item: it claims operations that the image does not contain."""

    def fill(self, row: dict[str, Any], feed: Feed, key: Key, by_ttl: bool) -> Generator[Request, Any, None]:
        item = yield from self.read_item(key)
        head = yield from self.read_head(feed)
        row["key"] = [key[0], key[1]]
        if head is not None:
            row["head"] = [head["epoch"], head["up"], head.get("upid")]
        if item is not None:
            row["image"] = public_image(item)


class _OverwritingSequencer(Sequencer):
    """Puts a row where another worker has put one already."""

    def condition(self) -> Condition:
        return ()


class _TimestampCatchUp(CatchUp):
    """Serves what was stamped after the row at the device's cursor: a late commit with an early stamp is never pulled
    (RxDB, WatermelonDB)."""

    def rows_after(
        self, feed: Feed, state: FeedState, last: Item | None
    ) -> Generator[Request, Any, Sequence[Item] | None]:
        rows = yield from super().rows_after(feed, state, last)
        if not rows or state.epoch is None:
            return rows
        page = yield Query(feed.pk, f"{state.epoch}#{state.seq:012d}", None, False, 1)
        reached = page.items[0].get("image", {}).get("updated", 0) if page.items else 0
        return [row if row.get("image", {}).get("updated", reached + 1) > reached else _emptied(row) for row in rows]


class _HoleCatchUp(CatchUp):
    """Serves rows though some between them are missing."""

    def is_dense(self, rows: Sequence[Item], after_seq: int) -> bool:
        return bool(rows)

    def rows_after(
        self, feed: Feed, state: FeedState, last: Item | None
    ) -> Generator[Request, Any, Sequence[Item] | None]:
        """And where the log begins after the cursor, it begins there."""
        if last is not None and state.epoch is not None and log_position(last)[0] != state.epoch:
            state = FeedState(state.nonce, log_position(last)[0], 0)
        return (yield from super().rows_after(feed, state, last))


def _emptied(row: Item) -> Item:
    return {name: value for name, value in row.items() if name not in ("key", "image", "head")}


class _HastyCloud(CloudWorld):
    """Checkpoints the records of a batch when it takes them: a worker that dies takes them with it."""

    def _poll(self, shard: Shard) -> None:
        super()._poll(shard)
        if shard.batch is not None:
            shard.position = shard.batch.position


# ---------------------------------------------------------------- the registry


@dataclass(frozen=True, slots=True)
class Plant:
    """`where`: the part that is wrong; `statement`: what it does; `apply`: puts it into a world's types."""

    name: str
    where: str
    statement: str
    apply: Callable[[Types], None]


def _agent(attribute: str, kind: type) -> Callable[[Types], None]:
    def apply(types: Types) -> None:
        setattr(types.agent, attribute, kind)

    return apply


def _relay(attribute: str, kind: type) -> Callable[[Types], None]:
    def apply(types: Types) -> None:
        types.relay = type("PlantedRelay", (Relay,), {attribute: kind})

    return apply


def _cloud(types: Types) -> None:
    types.cloud = _HastyCloud


def _plant(name: str, where: str, apply: Callable[[Types], None], kind: type) -> Plant:
    return Plant(name, where, " ".join((kind.__doc__ or "").split()), apply)


_ALL: Final = (
    _plant("ack-before-commit", "relay", _relay("ingest_type", _HastyIngest), _HastyIngest),
    _plant("changes-lost-on-reboot", "agent", _agent("store", _ForgetfulStore), _ForgetfulStore),
    _plant("checkpoint-first", "relay", _cloud, _HastyCloud),
    _plant("cursor-before-apply", "agent", _agent("replica", _EarlyCursorReplica), _EarlyCursorReplica),
    _plant("delete-not-sent", "agent", _agent("database", _ZombieDatabase), _ZombieDatabase),
    _plant("deleted-items-return", "agent", _agent("replica", _MergingReplica), _MergingReplica),
    _plant("echo", "agent", _agent("replica", _EchoReplica), _EchoReplica),
    _plant("edit-in-flight", "agent", _agent("database", _MeddlingDatabase), _MeddlingDatabase),
    _plant("feed-logs-stream-image", "relay", _relay("sequencer_type", _ImageSequencer), _ImageSequencer),
    _plant("feed-overwrites", "relay", _relay("sequencer_type", _OverwritingSequencer), _OverwritingSequencer),
    _plant("gap-skipped", "agent", _agent("replica", _GapReplica), _GapReplica),
    _plant("head-after-item", "relay", _relay("sequencer_type", _LateHeadSequencer), _LateHeadSequencer),
    _plant("items-unfenced", "relay", _relay("ingest_type", _BlindIngest), _BlindIngest),
    _plant("no-resend", "agent", _agent("session", _SilentSession), _SilentSession),
    _plant("outbox-cleared-by-puback", "agent", _puback, _PubackSession),
    _plant("overlay-dropped-on-ack", "agent", _agent("replica", _ImpatientReplica), _ImpatientReplica),
    _plant("serve-holes", "relay", _relay("catchup_type", _HoleCatchUp), _HoleCatchUp),
    _plant("timestamp-cursor", "relay", _relay("catchup_type", _TimestampCatchUp), _TimestampCatchUp),
    _plant("unfenced-commit", "relay", _relay("ingest_type", _UnfencedIngest), _UnfencedIngest),
    _plant("update-resurrects", "relay", _relay("ingest_type", _ResurrectingIngest), _ResurrectingIngest),
    _plant("void-accepted", "relay", _relay("ingest_type", _VoidIngest), _VoidIngest),
)
PLANTS: Final[dict[str, Plant]] = {plant.name: plant for plant in _ALL}


def unknown_plant(name: str) -> Problem:
    """What to tell a person who named one that there is not."""
    import difflib

    close = difflib.get_close_matches(name, PLANTS, 1)
    hint = f"did you mean {close[0]!r}?" if close else "one of " + ", ".join(PLANTS)
    return Problem("--plant", 0, 0, name, "no such planted bug", hint)


def types_with(plant: str) -> Types:
    """The classes of a world: all real when `plant` is empty."""
    types = Types()
    if plant:
        PLANTS[plant].apply(types)
    return types
