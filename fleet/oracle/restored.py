"""The oracle's view of a table that was put back to an older copy: what no stream and no commit tells of.

What was committed after the copy is gone, and that is nobody's fault: devices mint new epochs, put their own items of
up models into the table again, and take all others as the table has them. From then on the run is judged as any other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from agent.protocol.messages import ITEM_BYTES_MAX, Key
from fleet.oracle import stored
from fleet.oracle.decided import Decided
from fleet.oracle.payload import REV
from fleet.oracle.state import ABSENT, FLAGGED, SWEPT, Device, Feed, Item, Undone
from fleet.oracle.table_side import TableSide, leave_epoch

Image = Mapping[str, Any]


class RestoredSide(TableSide):
    """What a restore means."""

    def table_restored(self, t_us: int, items: Iterable[Image]) -> None:
        """`items`: all that the table holds now, the relay's own among them."""
        if self._open:
            self._settle()
        public: dict[Key, Image] = {}
        heads: dict[str, Image] = {}
        tails: dict[str, str] = {}
        shortened: dict[Feed, Undone] = {}  # where a log loses rows
        for item in items:
            pk = item["pk"]
            if pk.startswith(stored.HEAD):
                heads[stored.head_device(pk)] = item
            elif pk.startswith(stored.LOG):
                tails[pk] = max(item["sk"], tails.get(pk, ""))
            elif not pk.startswith(stored.PRIVATE):
                public[pk, item["sk"]] = item
        for feed_now in self._feeds.values():
            feed_now.ended = max(feed_now.ended, (feed_now.epoch, feed_now.seq))
        for pk, sk in tails.items():
            feed = self._feeds.get(stored.log_feed(pk))
            if feed is not None and (undone := _undo(feed, *stored.log_position(sk))) is not None:
                shortened[feed] = undone
        for key in public:
            if key not in self._items:
                self._find_item(key)
        for item_now in list(self._items.values()):
            if item_now.swept == SWEPT:  # its record may be one of a table that is no more
                item_now.swept = FLAGGED
                self.checks.sweeps.excused += 1
            cut = shortened.get(item_now.feed) if item_now.feed is not None else None
            if cut is not None and item_now.log_epoch == cut.epoch and item_now.log_seq > cut.a and not item_now.untold:
                cut.rows[item_now.key] = item_now.log_seq
            self._put_back(t_us, item_now, public.get(item_now.key))
        for device in self._devices.values():
            self._head_put_back(t_us, device, heads.get(device.name))

    def _put_back(self, t_us: int, item: Item, image: Image | None) -> None:
        """A state like any other that the table takes on, but no row of a feed will tell of it: a snapshot must."""
        rev = image.get(REV) if image is not None else None
        item.cloud = None
        # No row will say so either, and no snapshot carries it.
        item.oversize = image is not None and stored.image_bytes(image) > ITEM_BYTES_MAX
        was, item.rev, item.image = item.rev, rev, image
        if image is not None:
            item.set_end(rev, image.get(item.model.ttl_attribute or ""))
        if item.receives:
            if rev != was:
                self._advance(t_us, item, rev, False)
            item.logged = item.index
            item.log_epoch, item.log_seq = "", 0
            item.op_epoch = ""
            item.op_index = item.index if image is not None and stored.OP in image else ABSENT
        if image is None and was is not None and not item.dying:
            item.dying = True
            self._dead.append((t_us, item))

    def _head_put_back(self, t_us: int, device: Device, head: Image | None) -> None:
        """What HEAD had reached was committed, and acks of it may still be on their way."""
        device.restored = True
        device.undone, device.undone_us = device.head_epoch or "", t_us
        device.old_epoch = device.head_epoch or ""
        device.idle = 0
        device.replaced_us = []  # HEAD's count is that of the copy
        if device.head_epoch is not None:
            leave_epoch(device, device.head_epoch)
        if head is None:
            device.head_epoch, device.head_up, device.head_id = None, 0, None
            device.verdicts = stored.NO_VERDICTS
        else:
            device.head_epoch, device.head_up, device.head_id = head["epoch"], head["up"], head.get("upid")
            device.verdicts = head["verdicts"]
        if device.head_epoch == device.undone:
            device.decided.put_back(device.head_up, device.head_id)
        else:
            device.decided = Decided()
        for u, sent in device.ops.items():  # without its ack the device sends these again, before it knows
            if sent.fate is not None and (sent.epoch != device.head_epoch or u > device.head_up):
                sent.applied = False
                device.redone.add(u)


def _undo(feed: Feed, epoch: str, seq: int) -> Undone | None:
    """The log ends here now. Returns what came after in the same feed epoch, whose numbers may be given again."""
    feed.undone = tuple(one for one in feed.undone if one.epoch == epoch)
    for one in feed.undone:
        one.a = min(one.a, seq)  # what it had in common with the log that ends now is gone as well
    undone = None
    if feed.epoch == epoch and feed.seq > seq:
        undone = Undone(epoch, seq, feed.seq)
        feed.undone += (undone,)
    feed.epoch, feed.seq = epoch, seq
    return undone
