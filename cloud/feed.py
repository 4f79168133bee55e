"""The sequencer: turns changes of items into rows of a feed, in their true order, and pushes them (rules 8 and 9).

A stream record is only a trigger. The row's content is read anew, strongly, between reading the feed's last row and
writing the next one under the condition that it is not there: so rows hold images in the order of their commits, and
`head` never claims more than the image contains. Repeated records and late workers add rows that change nothing.
Generators: every yield is a request to the table or a message. Called by `cloud.relay` and `cloud.catchup`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator
from typing import Any, Final

from agent.protocol.messages import ITEM_BYTES_MAX, Rows, encode, encode_image
from agent.protocol.schema import Schema
from cloud.config import RelayConfig
from cloud.head import (
    Feed,
    feed_epoch_incarnation,
    feed_epoch_ms,
    feed_of,
    head_key,
    log_position,
    log_sk,
    new_feed_epoch,
    public_image,
    wire_row,
)
from cloud.incarnation import Incarnation
from cloud.table import (
    ITEM_ABSENT,
    PK,
    PRIVATE_PREFIX,
    SK,
    Condition,
    ConditionFailed,
    Get,
    Item,
    Key,
    Publish,
    Put,
    Record,
    Request,
    Work,
)

_EPOCH_DIGITS: Final = 16


class Sequencer:
    """Appends to feeds. One decision a method, so that a check of the checks can take one away."""

    def __init__(
        self,
        schema: Schema,
        config: RelayConfig,
        clock_ms: Callable[[], int],
        random_hex: Callable[[int], str],
        counters: Counter[str],
        incarnation: Incarnation,
    ) -> None:
        self.incarnation = incarnation
        self.schema = schema
        self.config = config
        self.clock_ms = clock_ms
        self.random_hex = random_hex
        self.counters = counters

    def wants(self, key: Key) -> bool:
        """Whether a change of this item belongs in a feed. Private and up-only keys do not."""
        if key[0].startswith(PRIVATE_PREFIX):
            return False
        place = self.schema.locate(key)
        return place is not None and place.model.receives

    def feed_pk(self, key: Key) -> str | None:
        """The hash key of the feed that a change of this item goes into; None where it goes into none."""
        place = None if key[0].startswith(PRIVATE_PREFIX) else self.schema.locate(key)
        feed = None if place is None else feed_of(place, self.config.topic_prefix)
        return None if feed is None else feed.pk

    def on_record(self, record: Record) -> Work:
        place = self.schema.locate(record.key)
        feed = None if place is None else feed_of(place, self.config.topic_prefix)
        if feed is not None:
            row = yield from self.append(feed, record.key, record.by_ttl)
            yield self.push(feed, row)

    def append(self, feed: Feed, key: Key | None, by_ttl: bool = False) -> Generator[Request, Any, Item]:
        """Writes the next row of a feed, with the present image of `key` (None: an empty row). Returns it as stored.

        Two workers may begin two epochs at once, and go on in both for a while; in each the order is true. Only the
        last one counts: a device gets into an epoch by a snapshot alone, which is read after the row that it names."""
        while True:
            tail = yield from self.read_tail(feed)
            incarnation = yield from self.incarnation_now(tail)
            now_ms = self.clock_ms()
            epoch, seq = self.next_position(tail, now_ms, incarnation)
            row: dict[str, Any] = {PK: feed.pk, SK: log_sk(epoch, seq)}
            row[self.config.ttl_attribute] = self.ttl_s(tail, now_ms)
            if key is not None:
                yield from self.fill(row, feed, key, by_ttl)
            try:
                yield Put(row, self.condition())
            except ConditionFailed:
                self.counters["append_conflict"] += 1
                continue
            if seq == 1:
                self.counters["feed_epoch_minted"] += 1
            return row

    def read_tail(self, feed: Feed) -> Generator[Request, Any, Item | None]:
        page = yield feed.tail()
        items: tuple[Item, ...] = page.items
        return items[0] if items else None

    def incarnation_now(self, tail: Item | None) -> Generator[Request, Any, str]:
        """The table's, now that the last row of a feed was read: one that was begun in another must not go on."""
        return self.incarnation.current(*(() if tail is None else (feed_epoch_incarnation(log_position(tail)[0]),)))

    def is_foreign(self, tail: Item, incarnation: str) -> bool:
        """Whether a feed's last row is of another incarnation: the cursors of devices may lie beyond it."""
        return feed_epoch_incarnation(log_position(tail)[0]) != incarnation

    def expired(self, tail: Item, now_ms: int) -> bool:
        """Whether the last row is so near its end that nothing may follow it."""
        end_ms: int = tail[self.config.ttl_attribute] * 1000
        return end_ms < now_ms + self.config.expiry_margin_ms

    def next_position(self, tail: Item | None, now_ms: int, incarnation: str = "") -> tuple[str, int]:
        """(feed epoch, seq) of the next row."""
        if tail is None:
            return new_feed_epoch(now_ms, self.random_hex(_EPOCH_DIGITS), incarnation), 1
        epoch, seq = log_position(tail)
        if self.expired(tail, now_ms) or self.is_foreign(tail, incarnation):
            # Above the old one also when this worker's clock is far behind.
            begin_ms = max(now_ms, feed_epoch_ms(epoch) + 1)
            return new_feed_epoch(begin_ms, self.random_hex(_EPOCH_DIGITS), incarnation), 1
        return epoch, seq + 1

    def ttl_s(self, tail: Item | None, now_ms: int) -> int:
        """Never less than the previous row's: a feed is forgotten from its front."""
        end_s = -(-(now_ms + self.config.retention_ms) // 1000)
        return end_s if tail is None else max(end_s, tail[self.config.ttl_attribute])

    def condition(self) -> Condition:
        return ITEM_ABSENT

    def fill(self, row: dict[str, Any], feed: Feed, key: Key, by_ttl: bool) -> Generator[Request, Any, None]:
        """HEAD first, then the item: what HEAD claims is then in the image."""
        head = yield from self.read_head(feed)
        item = yield from self.read_item(key)
        row["key"] = [key[0], key[1]]
        if head is not None:
            row["head"] = [head["epoch"], head["up"], head.get("upid")]
        self.fill_state(row, item, by_ttl)

    def fill_state(self, row: dict[str, Any], item: Item | None, by_ttl: bool) -> None:
        """What the row says of the item."""
        if item is None:
            if by_ttl:
                row["expired"] = True
                self.counters["row_expired"] += 1
            return
        image = public_image(item)
        size_bytes = len(encode_image(image))
        if size_bytes > ITEM_BYTES_MAX:
            row["oversize"] = size_bytes
            self.counters["row_oversize"] += 1
        else:
            row["image"] = image

    def read_head(self, feed: Feed) -> Generator[Request, Any, Item | None]:
        if feed.device is None:
            return None
        head: Item | None = yield Get(head_key(feed.device))
        return head

    def read_item(self, key: Key) -> Generator[Request, Any, Item | None]:
        item: Item | None = yield Get(key)
        return item

    def push(self, feed: Feed, row: Item) -> Publish:
        epoch, seq = log_position(row)
        rows = [wire_row(row)] if "key" in row else []
        return Publish(
            feed.topic, encode(Rows(feed=feed.name, epoch=epoch, a=seq - 1, b=seq, last=seq, rows=rows)), feed.qos
        )
