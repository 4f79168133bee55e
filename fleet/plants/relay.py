"""Planted bugs of the relay and its workers, one subclass each: the docstring says what goes wrong.

Called by nobody but fleet.plants, which puts them into a world's types. The real relay has no switch for any of them.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any, Final

from agent.protocol.messages import Ack, FeedState, Key, Kind, Op, SnapshotItem
from agent.protocol.schema import Context, Model
from cloud.catchup import CatchUp
from cloud.feed import Sequencer
from cloud.head import Feed, log_position, public_image
from cloud.incarnation import Incarnation
from cloud.ingest import Action, Batch, Decision, Ingest
from cloud.table import Condition, Get, Item, Put, Record, Request, Update, Work
from fleet.world.cloud import CloudWorld
from fleet.world.shards import Shard

_KEPT_MS: Final = 3_600_000

# ---------------------------------------------------------------- what comes up


class HastyIngest(Ingest):
    """Acknowledges before the transaction has committed."""

    def commit(
        self, batch: Batch, todo: Sequence[Op], decision: Decision, actions: Sequence[Action]
    ) -> Generator[Request, Any, str]:
        last = todo[-1]
        yield batch.answer(
            Ack(epoch=batch.epoch, up=last.u, upid=last.id, verdicts=decision.verdicts, now=self.clock_ms())
        )
        return (yield from super().commit(batch, todo, decision, actions))


class RepeatingIngest(Ingest):
    """Takes a batch that comes again as if it were new."""

    def left_to_do(self, batch: Batch, head: Item) -> Sequence[Op]:
        return batch.ops


class UnfencedIngest(Ingest):
    """Commits without the condition that HEAD is as it was read: two workers apply one batch twice, out of order."""

    def head_condition(self, head: Item) -> Condition:
        return ()


class BlindIngest(Ingest):
    """Commits without the condition that the items are as they were read: a write in between is run over."""

    def unchanged(self, old: Item | None, new: Item | None) -> Condition:
        return ()


class ArrivalIngest(Ingest):
    """The last to arrive wins: an old write that was long on its way runs over a newer one."""

    def accepts(self, model: Model, kind: Kind, stamp_ms: int, present: Item | None) -> bool:
        return kind == "create" if present is None else True


class DeletingIngest(Ingest):
    """A delete wins whatever its stamp: a device that knows the old end of a life undoes a renewal in the cloud."""

    def accepts(self, model: Model, kind: Kind, stamp_ms: int, present: Item | None) -> bool:
        return super().accepts(model, kind, stamp_ms, present) or (present is not None and kind == "delete")


class ResurrectingIngest(Ingest):
    """An update of an item that was deleted brings it back."""

    def accepts(self, model: Model, kind: Kind, stamp_ms: int, present: Item | None) -> bool:
        if present is None:
            return kind != "delete"
        return super().accepts(model, kind, stamp_ms, present)


class VoidIngest(Ingest):
    """What changes nothing is called accepted, such as the delete of an item that is gone: the device waits for a row
    that never comes."""

    def accepts(self, model: Model, kind: Kind, stamp_ms: int, present: Item | None) -> bool:
        return super().accepts(model, kind, stamp_ms, present) or (present is None and kind == "delete")

    def is_void(self, before: Item | None, after: Item | None) -> bool:
        return False


class ForgetfulIngest(Ingest):
    """Does not keep verdicts: a batch that comes again is told that all was accepted."""

    def commit(
        self, batch: Batch, todo: Sequence[Op], decision: Decision, actions: Sequence[Action]
    ) -> Generator[Request, Any, str]:
        head = actions[0]
        if isinstance(head, Update) and "verdicts" in head.set:
            actions = [Update(head.key, {**head.set, "verdicts": {}}, head.remove, head.condition), *actions[1:]]
        return (yield from super().commit(batch, todo, decision, actions))


# ---------------------------------------------------------------- what goes into the feeds


class ImageSequencer(Sequencer):
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


class LateHeadSequencer(Sequencer):
    """Reads HEAD after the item: it claims operations that the image does not contain."""

    def fill(self, row: dict[str, Any], feed: Feed, key: Key, by_ttl: bool) -> Generator[Request, Any, None]:
        item = yield from self.read_item(key)
        head = yield from self.read_head(feed)
        row["key"] = [key[0], key[1]]
        if head is not None:
            row["head"] = [head["epoch"], head["up"], head.get("upid")]
        self.fill_state(row, item, by_ttl)


class OverwritingSequencer(Sequencer):
    """Puts a row where another worker has put one already."""

    def condition(self) -> Condition:
        return ()


class SweepBlindSequencer(Sequencer):
    """Takes the service's own sweep for no change: what goes for its age is not logged."""

    def on_record(self, record: Record) -> Work:
        return _nothing() if record.by_ttl else super().on_record(record)


class StampedSequencer(Sequencer):
    """Orders a feed by the stamps of its items, as if they were a cursor: what is committed late with an early stamp
    counts as known and never gets a row (RxDB, WatermelonDB, AppSync's design)."""

    def on_record(self, record: Record) -> Work:
        newest = self.__dict__.setdefault("_newest", {})
        place = self.schema.locate(record.key)
        if place is not None and record.new is not None:
            feed, stamp_ms = place.model.feed, place.model.updated_ms(dict(record.new))
            owner = (feed, place.device_id if feed == "device" else place.account_id)
            if stamp_ms < newest.get(owner, 0):
                return _nothing()
            newest[owner] = stamp_ms
        return super().on_record(record)


class CountingSequencer(Sequencer):
    """Takes a row's number outside of its commit, from a counter: a worker that dies leaves a number without a row
    (Sync Gateway)."""

    def append(self, feed: Feed, key: Key | None, by_ttl: bool = False) -> Generator[Request, Any, Item]:
        counter = ("_fleet#counter", feed.pk)
        tail = yield from self.read_tail(feed)
        now_ms = self.clock_ms()
        epoch, seq = self.next_position(tail, now_ms)
        known = yield Get(counter)
        if known is not None and known["epoch"] == epoch:
            seq = max(seq, known["seq"] + 1)
        yield Put({"pk": counter[0], "sk": counter[1], "epoch": epoch, "seq": seq})
        row: dict[str, Any] = {"pk": feed.pk, "sk": f"{epoch}#{seq:012d}"}
        row[self.config.ttl_attribute] = self.ttl_s(tail, now_ms)
        if key is not None:
            yield from self.fill(row, feed, key, by_ttl)
        yield Put(row)
        return row


class TalkativeSequencer(Sequencer):
    """Forgets the direction: what a device reports comes back down to it."""

    def wants(self, key: Key) -> bool:
        return self.schema.locate(key) is not None

    def on_record(self, record: Record) -> Work:
        place = self.schema.locate(record.key)
        if place is None or place.model.receives or place.device_id is None:
            yield from super().on_record(record)
            return
        feed = Feed("device", place.device_id, self.config.topic_prefix)
        row = yield from self.append(feed, record.key, record.by_ttl)
        yield self.push(feed, row)


# ---------------------------------------------------------------- what is caught up


class HoleCatchUp(CatchUp):
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


class CachingCatchUp(CatchUp):
    """Keeps a snapshot's items for an hour and serves them again under the feed's present position: what changed
    in between is never sent."""

    def read_items(self, feed: Feed, context: Context) -> Generator[Request, Any, list[SnapshotItem]]:
        cache: dict[str, tuple[int, list[SnapshotItem]]] = self.__dict__.setdefault("_cache", {})
        kept = cache.get(feed.pk)
        if kept is not None and self.clock_ms() - kept[0] < _KEPT_MS:
            return kept[1]
        now_ms = self.clock_ms()
        items = yield from super().read_items(feed, context)
        cache[feed.pk] = (now_ms, items)
        return items


# ---------------------------------------------------------------- the workers


class HastyCloud(CloudWorld):
    """Checkpoints the records of a batch when it takes them: a worker that dies takes them with it."""

    def _poll(self, shard: Shard) -> None:
        super()._poll(shard)
        if shard.batch is not None:
            shard.position = shard.batch.position


def _nothing() -> Work:
    return
    yield


class PatientCatchUp(CatchUp):
    """Never counts how often a device replaces its epoch: two copies of it take the cloud from each other for ever."""

    def too_many_epochs(self, recent: Sequence[int]) -> bool:
        return False


# ---------------------------------------------------------------- which table it is


class UnmindfulIncarnation(Incarnation):
    """Never looks whether the table was put back to an older copy: devices keep places in feeds and numbers in HEAD
    that it no longer has, and wait for what will never come."""

    def agrees(self, seen: str) -> bool:
        return True

    def current(self, *seen: str) -> Generator[Request, Any, str]:
        return ""
        yield
