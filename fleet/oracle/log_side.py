"""The oracle's view of the feeds' logs: every row appended, changed or gone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent.protocol.messages import Key
from fleet.oracle import stored
from fleet.oracle.ledger import Ledger, TableRecord
from fleet.oracle.payload import REV
from fleet.oracle.state import ABSENT, FLAGGED, RACE_US, SWEPT, UNKNOWN, Feed, Item

Image = Mapping[str, Any]


class LogSide(Ledger):
    """What rows mean."""

    def _log_committed(self, t_us: int, log_key: Key, record: TableRecord) -> None:
        feed = self._feeds.get(stored.log_feed(log_key[0]))
        if feed is None:
            return
        dense, new = self.checks.dense, record.new
        epoch, seq = position = stored.log_position(log_key[1])
        if new is None:
            if not record.by_ttl:
                dense.removed(t_us, feed.id, position)
            return
        row_key = new.get("key")
        key = (row_key[0], row_key[1]) if row_key is not None else None
        if record.old is not None:
            dense.changed(t_us, feed.id, position, key)
            return
        if epoch < feed.epoch and seq == feed.lost.get(epoch, 0) + 1 and t_us - feed.began_us <= RACE_US:
            dense.appended()
            dense.excused += 1
            feed.lost[epoch] = seq
            self._row_stranded(feed, key, new)
            return
        if (seq == feed.seq + 1) if epoch == feed.epoch else (epoch > feed.epoch and seq == 1):
            dense.appended()
        else:
            dense.gap(t_us, feed.id, (feed.epoch, feed.seq + 1), position)
        if epoch == feed.epoch:
            epoch = feed.epoch  # one text for all items of the feed, not one for each
        else:
            if t_us - feed.began_us > RACE_US:
                feed.lost.clear()
            if feed.epoch:
                feed.lost[feed.epoch] = feed.seq
            feed.began_us = t_us
        feed.epoch, feed.seq, feed.appended_us = epoch, seq, t_us
        if key is not None:
            self._row_logged(t_us, feed, key, new)

    def _row_stranded(self, feed: Feed, key: Key | None, row: Image) -> None:
        """Nobody reads the row, and nobody needs to, if its image was in the table before the living epoch began."""
        item = self._items.get(key) if key is not None else None
        if item is None or item.feed is not feed:
            return
        image, oversize = row.get("image"), bool(row.get("oversize"))
        index = item.index if oversize else _logged_index(item, image.get(REV) if image is not None else None)
        before = index >= item.base and item.history[index - item.base][1] <= feed.began_us
        if item.swept == SWEPT and row.get("expired") and image is None and before:
            item.swept = FLAGGED
            self.checks.sweeps.excused += 1
        if index > item.logged and before:
            item.logged = index
            item.log_epoch, item.log_seq = feed.epoch, 1
            item.oversize = oversize
            self.checks.logged.logged()

    def _row_logged(self, t_us: int, feed: Feed, key: Key, row: Image) -> None:
        checks = self.checks
        item = self._items.get(key) or self._find_item(key)
        owner = feed.id[1] if feed.id[0] == "device" else ""
        checks.direction.checked += 1
        checks.isolation.checked += 1
        if item is None or not item.receives:
            model = "(none)" if item is None else item.model.name
            checks.direction.crossed(t_us, owner, key, model, "in the log of a feed")
            return
        if item.feed is not feed:
            checks.isolation.foreign(t_us, owner, key, f"in the log of {'#'.join(feed.id)}")
            return
        index, rev = item.index, item.rev
        if row.get("oversize"):
            item.oversize = True
        else:
            item.oversize = False
            image = row.get("image")
            rev = image.get(REV) if image is not None else None
            if image is None and item.swept == SWEPT and row.get("expired"):
                item.swept = FLAGGED  # a row that another record caused may come before it, without the flag
                checks.sweeps.logged()
            if image is not None and (item.image is None or image.get("text") != item.image.get("text")):
                checks.invented.image(t_us, owner, key, image, "in the log")
            index = _logged_index(item, rev)
        if item.untold and self._before_damage.get(key, item.logged) <= index < item.logged:
            checks.dense.excused += 1
            return
        if index < item.logged or index == UNKNOWN:
            checks.dense.older(t_us, owner, key, item.at(item.logged), rev, feed.id, feed.seq)
            return
        item.logged = index
        item.log_epoch = feed.epoch
        item.log_seq = feed.seq
        if item.untold:
            item.untold = False
            self._before_damage.pop(key, None)
        checks.logged.logged()
        head = row.get("head")
        older = index < item.op_index or _is_earlier_form(item, index, row.get("image"))
        if older and head is not None and head[0] == item.op_epoch and head[1] >= item.op_u:
            checks.dense.head_ahead(t_us, owner, key, head[1], item.op_u, rev)


def _is_earlier_form(item: Item, index: int, image: Image | None) -> bool:
    """Whether the image of the state that the last accepted operation made is one from before it. An operation that
    was sent anew may write the state that is there, with another stamp. A copy's operations the oracle does not see."""
    now, owner = item.image, item.owner
    if not item.index == index == item.op_index or image is None or now is None:
        return False
    return owner is not None and not owner.cloned and not stored.image_equals(image, now)


def _logged_index(item: Item, rev: int | None) -> int:
    """The state that a new log row shows. "No item" is the latest such state: what is logged next is read later; or it
    was read before the first state that is known: one of an item that was forgotten after its end, and exists anew."""
    if rev is not None:
        return item.find(rev, item.logged)
    for n in range(len(item.history) - 1, -1, -1):
        if item.history[n][0] is None:
            return item.base + n
    if item.rev is None:
        return item.index
    return ABSENT if item.base == 0 else UNKNOWN
