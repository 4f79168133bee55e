"""What a device asks for by `hello`: its place in HEAD, the rows that it misses, or a snapshot (rules 10 and 11).

Correct however often it runs, for however many workers at once. Generators: every yield is a request to the table or a
message. Called by `cloud.relay`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from agent.protocol.messages import (
    ITEM_BYTES_MAX,
    QUARANTINE,
    Ack,
    FeedState,
    HeadMark,
    Hello,
    Key,
    Reset,
    Row,
    Rows,
    Snapshot,
    SnapshotItem,
    Wait,
    encode_image,
)
from agent.protocol.schema import Context, Schema
from cloud.answer import Answer
from cloud.config import RelayConfig
from cloud.feed import Sequencer
from cloud.head import (
    Feed,
    adopt,
    head_key,
    head_mark,
    head_verdicts,
    log_position,
    new_head,
    public_image,
    wire_row,
)
from cloud.incarnation import Incarnation, incarnation_of
from cloud.quarantine import HALTED, born, halt
from cloud.table import ITEM_ABSENT, PK, SK, ConditionFailed, Get, Item, Page, Put, Query, Request, Work

_SCAN_DIGITS: Final = 16
_ROW_OVERHEAD_BYTES: Final = 256  # of names, head and numbers beside image and key, as JSON
_KEY_FACTOR: Final = 6  # a character of a key as JSON, at worst


class Place(NamedTuple):
    """A feed, where a device stands in it, and its last row; None where it has none that counts."""

    feed: Feed
    state: FeedState
    last: Item | None


class CatchUp:
    """One decision a method, so that a check of the checks can take one away."""

    def __init__(
        self,
        schema: Schema,
        config: RelayConfig,
        clock_ms: Callable[[], int],
        counters: Counter[str],
        sequencer: Sequencer,
        incarnation: Incarnation,
    ) -> None:
        self.incarnation = incarnation
        self.schema = schema
        self.config = config
        self.clock_ms = clock_ms
        self.counters = counters
        self.sequencer = sequencer
        self.feeds = frozenset(model.feed for model in schema.models.values() if model.receives)

    def hello(self, device: str, account: str, message: Hello, answer: Answer) -> Work:
        head = yield from self.identify(device, message, answer)
        if head is None:
            return
        schema = self.named(message)
        places: list[Place] = []
        for name, state in message.feeds.items():
            if name not in self.feeds:
                self.counters["feed_unknown"] += 1  # the device's schema is newer
                continue
            owner = device if name == "device" else account
            feed = Feed(name, owner, self.config.topic_prefix)
            places.append(Place(feed, state, (yield from self.read_tail(feed))))
        yield answer(
            Ack(
                epoch=head["epoch"],
                up=head["up"],
                upid=head.get("upid"),
                verdicts=head_verdicts(head),
                now=self.clock_ms(),
                n=message.n,
                tails={place.feed.name: self.reaches(place) for place in places} or msgspec.UNSET,
                schema=schema or msgspec.UNSET,
            )
        )
        for place in places:
            yield from self.catch_up(place, Context(device, account), answer, schema)

    def named(self, message: Hello) -> str:
        """The version of this relay's schema where the device goes by another, else "": a device that knows models of
        which this relay does not tell has to ask again once there is a relay that does."""
        return "" if message.schema == self.schema.version else self.schema.version

    def identify(self, device: str, message: Hello, answer: Answer) -> Generator[Request, Any, Item | None]:
        """HEAD as it is for this device: made when there is none, adopted when the device replaces its epoch. None when
        the device is not the one that HEAD knows, or knows another incarnation of the table; it is told so."""
        key = head_key(device)
        sent = message.inc or ""
        while True:
            head: Item | None = yield Get(key)
            if head is not None and HALTED in head:
                self.counters["message_refused_quarantine"] += 1
                yield answer(Wait(hn=message.hn, retry_after=self.config.quarantine_retry_ms, reason=QUARANTINE))
                return None
            seen = (sent,) if head is None else (sent, incarnation_of(head))
            incarnation = yield from self.incarnation.current(*seen)
            if sent != incarnation:
                self.counters["reset_sent"] += 1
                yield answer(Reset(hn=message.hn, head_epoch=None if head is None else head["epoch"], inc=incarnation))
                return None
            if head is None:
                head = new_head(device, message.epoch, incarnation)
                try:
                    yield Put(head, ITEM_ABSENT)
                except ConditionFailed:
                    continue  # another worker made one
                return head
            now_ms = self.clock_ms()
            recent = born(head, now_ms)
            counts = incarnation_of(head) == incarnation  # what a restore of the table makes necessary does not
            if counts:  # else a device that knows the present one is adopted in any case
                if head["epoch"] == message.epoch:
                    return head
                if not self.may_replace(head, message):
                    self.counters["reset_sent"] += 1
                    yield answer(Reset(hn=message.hn, head_epoch=head["epoch"]))
                    return None
            try:
                if counts and self.too_many_epochs(recent):
                    yield halt(key, head, now_ms)
                    self.counters["device_quarantined"] += 1
                    continue  # it is told so
                yield adopt(device, head, message.epoch, incarnation, [*recent, now_ms] if counts else recent)
            except ConditionFailed:
                continue
            self.counters["epoch_adopted"] += 1
            return new_head(device, message.epoch, incarnation)

    def too_many_epochs(self, recent: Sequence[int]) -> bool:
        """Whether one more would be a sign of two copies of the device, each of which takes the other for a reset."""
        return len(recent) >= self.config.epochs_per_hour

    def may_replace(self, head: Item, message: Hello) -> bool:
        return bool(message.replaces == head["epoch"])

    def read_tail(self, feed: Feed) -> Generator[Request, Any, Item | None]:
        last = yield from self.sequencer.read_tail(feed)
        incarnation = yield from self.sequencer.incarnation_now(last)
        return None if last is None or self.sequencer.is_foreign(last, incarnation) else last

    def reaches(self, place: Place) -> tuple[str, int]:
        """How far the feed goes at least, once this hello is answered; beyond where the device stands when it begins
        anew, or gets an empty row."""
        here, last = (place.state.epoch or "", place.state.seq), place.last
        if last is None or self.is_tired(last, () if log_position(last) == here else None):
            return here[0], here[1] + 1
        return log_position(last)

    def catch_up(self, place: Place, context: Context, answer: Answer, schema: str = "") -> Work:
        """Rows when all of them are there, else a snapshot; and a feed that has long been quiet gets an empty row."""
        feed, state, last = place
        rows = yield from self.rows_after(feed, state, last)
        if last is None or self.is_tired(last, rows):
            last = yield from self.sequencer.append(feed, None)
            self.counters["empty_row_appended"] += 1
            if rows is not None and log_position(last)[0] == state.epoch:
                yield self.sequencer.push(feed, last)
                return
            if feed.device is None:
                yield self.sequencer.push(feed, last)  # the account's other devices learn of the new feed epoch
            rows = None
        if rows is None:
            yield from self.snapshot(feed, context, state.nonce, last, answer, schema)
        elif rows:
            yield answer(self.rows_message(feed, state, rows, log_position(last)[1]))

    # Rows

    def rows_after(
        self, feed: Feed, state: FeedState, last: Item | None
    ) -> Generator[Request, Any, Sequence[Item] | None]:
        """The rows after a cursor, as many as fit in one reading; none at the tail; None when only a snapshot helps."""
        if last is None or state.epoch is None:
            return None
        epoch, last_seq = log_position(last)
        if epoch != state.epoch or not 0 <= state.seq <= last_seq:
            return None
        if state.seq == last_seq:
            return ()
        page: Page = yield feed.rows(epoch, state.seq, min(self.config.catchup_rows, last_seq - state.seq))
        if not self.is_dense(page.items, state.seq):
            self.counters["feed_hole"] += 1
            return None
        return page.items

    def is_dense(self, rows: Sequence[Item], after_seq: int) -> bool:
        """Whether these are the rows that follow `after_seq`, none missing: the service sweeps in any order."""
        return bool(rows) and all(log_position(row)[1] == after_seq + i for i, row in enumerate(rows, 1))

    def is_tired(self, last: Item, rows: Sequence[Item] | None) -> bool:
        """Whether the feed would run dry before its devices can be sure to have asked again."""
        now_ms = self.clock_ms()
        if self.sequencer.expired(last, now_ms):
            return True
        left_ms = last[self.config.ttl_attribute] * 1000 - now_ms
        return rows is not None and not rows and left_ms < self.config.retention_ms // 2

    def rows_message(self, feed: Feed, state: FeedState, rows: Sequence[Item], last_seq: int) -> Rows:
        """As many of the rows as fit in one message, the last one of each key alone."""
        assert state.epoch is not None
        sent: dict[Key, tuple[Row, int]] = {}
        size_bytes = 0
        b = state.seq
        for stored in rows:
            if "key" in stored:
                row = wire_row(stored)
                size = _sent_bytes(row.key, row.image)
                replaced = sent.pop(row.key, None)
                grown = size_bytes + size - (0 if replaced is None else replaced[1])
                if grown > self.config.catchup_bytes and b > state.seq:
                    if replaced is not None:
                        sent[row.key] = replaced
                    break
                if replaced is not None:
                    self.counters["rows_coalesced"] += 1
                sent[row.key] = (row, size)
                size_bytes = grown
            b += 1
        self.counters["catchup_rows"] += b - state.seq
        chosen = [row for row, _ in sent.values()]
        return Rows(feed=feed.name, epoch=state.epoch, a=state.seq, b=b, last=max(b, last_seq), rows=chosen)

    # Snapshot

    def snapshot(self, feed: Feed, context: Context, nonce: str, last: Item, answer: Answer, schema: str = "") -> Work:
        """The feed's position was read first, HEAD comes second, the items last: none of them claims too much."""
        head = yield from self.snapshot_head(feed)
        epoch, seq = log_position(last)
        items = yield from self.read_items(feed, context)
        parts = self.parts(items)
        self.counters["snapshot_sent"] += 1
        scan = self.sequencer.random_hex(_SCAN_DIGITS)
        for number, part in enumerate(parts):
            yield answer(
                Snapshot(
                    feed=feed.name,
                    nonce=nonce,
                    epoch=epoch,
                    seq=seq,
                    part=number,
                    parts=len(parts),
                    items=part,
                    head=head,
                    scan=scan,
                    schema=schema or msgspec.UNSET,
                )
            )

    def snapshot_head(self, feed: Feed) -> Generator[Request, Any, HeadMark | None]:
        head = yield from self.sequencer.read_head(feed)
        return None if head is None else head_mark(head)

    def read_items(self, feed: Feed, context: Context) -> Generator[Request, Any, list[SnapshotItem]]:
        """Every item of the feed's models, each once."""
        items: dict[Key, SnapshotItem] = {}
        for pk, prefix in self.schema.ranges(feed.name, context):
            after: str | None = None
            while True:
                page: Page = yield Query(pk, prefix, after, False, self.config.snapshot_page)
                for item in page.items:
                    key = (item[PK], item[SK])
                    if self.belongs(key, feed, context):
                        items[key] = self.snapshot_item(key, item)
                after = page.after
                if after is None:
                    break
        return list(items.values())

    def belongs(self, key: Key, feed: Feed, context: Context) -> bool:
        """Whether an item found by a range is of this feed: ranges of different models may lie within each other."""
        place = self.schema.locate(key)
        return (
            place is not None
            and place.model.receives
            and place.model.feed == feed.name
            and place.device_id in (None, context.device_id)
            and place.account_id in (None, context.account_id)
        )

    def snapshot_item(self, key: Key, item: Item) -> SnapshotItem:
        image = encode_image(public_image(item))
        if len(image) > ITEM_BYTES_MAX:
            self.counters["row_oversize"] += 1
            return SnapshotItem(key, oversize=len(image))
        return SnapshotItem(key, msgspec.Raw(image))

    def parts(self, items: Sequence[SnapshotItem]) -> list[list[SnapshotItem]]:
        """Items in parts that each fit in a message; one part when there is nothing to send."""
        parts: list[list[SnapshotItem]] = [[]]
        size_bytes = 0
        for item in items:
            size = _sent_bytes(item.key, item.image)
            if parts[-1] and size_bytes + size > self.config.snapshot_part_bytes:
                parts.append([])
                size_bytes = 0
            parts[-1].append(item)
            size_bytes += size
        return parts


def _sent_bytes(key: Key, image: msgspec.Raw) -> int:
    """An upper bound of what one row or item takes in a message."""
    return len(memoryview(image)) + _KEY_FACTOR * (len(key[0]) + len(key[1])) + _ROW_OVERHEAD_BYTES
