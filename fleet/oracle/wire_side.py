"""The oracle's view of the wire: what a device sends, what is delivered to it, and what each link counted.

Each payload is parsed at most once, and only as far as needed; a batch sent again is compared by its bytes first.
"""

from __future__ import annotations

from collections.abc import Sequence

from agent.protocol.messages import NO_IMAGE
from fleet.oracle.reach import Reach
from fleet.oracle.restored import RestoredSide
from fleet.oracle.state import ABSENT, NO_WRITES, PENDING, Device, Item, Sent, Write
from fleet.oracle.wire import Downward, Entry, Operation, Upward, downward, rev_of, states_of, upward

_ACCOUNT_PUSH = b'"feed":"a'  # in the head of a JSON message of an account's feed, or of the feed of all


class WireSide(RestoredSide):
    """What messages mean."""

    _shared_payload: bytes = b""
    _shared: Downward | None = None

    # ------------------------------------------------------------------ up

    def wire_up(self, t_us: int, device: str, payload: bytes) -> None:
        """A message as the device sent it."""
        if self._open:
            self._settle()
        d = self._devices[device]
        if payload == d.last_up:
            self.checks.resend.checked += 1
            if self._is_quiet:
                self._content(t_us, d)
            return
        message = upward(payload)
        if d.old_epoch and message is not None and message.epoch != d.old_epoch:
            d.old_epoch = ""
        if message is None:
            self.messages_unreadable += 1
        elif message.t == "up":
            d.last_up = payload
            self._batch(t_us, d, message)
            if self._is_quiet:
                self._content(t_us, d)
        elif message.t == "hello":
            self._hello(t_us, d, message)
        elif message.t == "digest":
            self._compares(d)

    def _compares(self, d: Device) -> None:
        raise NotImplementedError

    def _content(self, t_us: int, d: Device) -> None:
        d.idle += 1
        self.checks.quiet.message(t_us, d.name, d.idle)

    def _batch(self, t_us: int, d: Device, message: Upward) -> None:
        ops, resend = d.ops, self.checks.resend
        if message.epoch != d.sent_epoch:
            self._new_epoch(d)
            d.restating = bool(d.sent_epoch)  # the first one has nothing to send anew
            d.sent_epoch = message.epoch
            d.epoch_us = t_us
        elif ops:
            first = message.first_u
            for u in [u for u in ops if u < first]:  # in any order: an old disk may number other ones alike
                ops.pop(u).image = NO_IMAGE  # it is not sent again; the image holds the whole message in memory
                d.recalled.pop(u, None)
        waiting = len(ops)
        known = 0
        for op in message.ops:
            sent = ops.get(op.u)
            if sent is None:
                self._first_sent(t_us, d, d.sent_epoch, op)
            else:
                known += 1
                self._sent_again(t_us, d, sent, op)
        if d.restored and d.sent_epoch == d.head_epoch:
            _recall(d, message.ops)
        if waiting and not d.restored and (known != waiting or len(ops) != waiting):
            expected = f"the {waiting} operations in flight sent again, and nothing else"
            found = f"{known} of them and {len(ops) - waiting} others"
            sent_now = {op.u for op in message.ops}
            odd = (
                message.ops[-1].key
                if known == waiting
                else next((s.item.key for u, s in ops.items() if u not in sent_now and s.item is not None), None)
            )
            resend.other_batch(t_us, d.name, odd, expected, found)
        elif not waiting:
            resend.checked += 1

    def _new_epoch(self, d: Device) -> None:
        """Undecided writes of the former epoch must be sent under the new one. As long as HEAD is in the former one, a
        message that waited somewhere may have them decided all the same."""
        if d.left is not None and d.sent_epoch == d.head_epoch:  # what it had left in this epoch may come as before
            d.left = {name: sent for name, sent in d.left.items() if name[0] == d.head_epoch}
        for u in sorted(d.ops, reverse=True):
            sent = d.ops[u]
            if sent.fate is None and sent.epoch == d.head_epoch:
                _leave(d, sent)
            if sent.fate is None and sent.item is not None:
                sent.item.pending = [*sent.writes, *sent.item.pending]
                if not sent.item.receives and sent.kind == "delete":  # no create for it; the sweep does the rest
                    sent.item.pending = _since_delete(sent.item.pending)
            elif u > d.heard_up and d.restored and sent.item is not None and sent.item.period_us:
                d.held |= {sent.item.key}  # a table put back lacks it, and it is sent anew like what was not decided
        d.heard_up = 0
        d.ops.clear()
        d.redone.clear()
        d.recalled.clear()
        for item in d.items.values() if d.restored else ():  # the same for deletes that were never sent
            if item.pending and item.sends and not item.receives:
                before, item.pending = len(item.pending), _since_delete(item.pending)
                if item.period_us and len(item.pending) < before:
                    d.held |= {item.key}

    def _first_sent(self, t_us: int, d: Device, epoch: str, op: Operation) -> None:
        kind, u = op.kind, op.u
        if kind == "sweep":
            d.restating = False
            d.ops[u] = Sent(epoch, u, op.id, op.key, kind, op.updated, op.image, None, None, [])
            return
        checks, key = self.checks, op.key
        item = self._items.get(key) or self._find_item(key)
        checks.direction.checked += 1
        checks.isolation.checked += 1
        if item is None or not item.sends:
            model = "(none)" if item is None else item.model.name
            checks.direction.crossed(t_us, d.name, key, model, f"sent up as operation {u}")
            d.ops[u] = Sent(epoch, u, op.id, op.key, kind, op.updated, op.image, item, rev_of(op.image), [])
            return
        if item.owner is not d:
            checks.isolation.foreign(t_us, d.name, key, f"sent up as operation {u}")
        pending = item.pending
        if len(pending) == 1 and pending[0][1] == op.updated and pending[0][3] == (kind == "delete"):
            writes = [pending[0]]
            item.pending = NO_WRITES
            d.idle = 0
        else:
            writes = self._writes_of(t_us, d, item, op)
            if not writes and d.restating and self._is_late(d, epoch, op):
                d.idle = 0
        held = key in d.held  # what is written before this has gone takes its place, and does not wait anew
        if held:
            d.held -= {key}
        if item.period_us and writes:
            first_us = writes[0][2]
            # A write that comes before its item's turn in a new epoch goes with what is sent anew.
            excused = held or max(d.clock_us, d.epoch_us) >= first_us or d.restating or not d.timed
            # A change that the old disk held, or that its copy has sent as well, and its period.
            if (d.set_back_us is not None or d.cloned) and key not in d.resumed:
                excused = True
                d.resumed |= {key}
            self.checks.period.sent(t_us, d.name, key, t_us - first_us, item.period_us, excused)
        rev = writes[-1][0] if writes else rev_of(op.image)
        sent = Sent(epoch, u, op.id, item.key, kind, op.updated, op.image, item, rev, writes)
        item.last_sent = d.ops[u] = sent

    def _is_late(self, d: Device, epoch: str, op: Operation) -> bool:
        """Whether the epoch that HEAD has states anew, once, what was written before the end of the writes: a device
        that was quarantined until then has all of it to send. What goes up for what came down is stamped later."""
        stopped_us = self._stopped_us
        return stopped_us is not None and epoch == d.head_epoch and op.updated * 1000 - self._start_us <= stopped_us

    def _writes_of(self, t_us: int, d: Device, item: Item, op: Operation) -> list[Write]:
        """The writes that an operation carries: its own one last, before it those that it supersedes."""
        is_delete = op.kind == "delete"
        pending = item.pending
        n = next((n for n, w in enumerate(pending) if w[1] == op.updated and w[3] == is_delete), ABSENT)
        rev = rev_of(op.image)
        if n == ABSENT and not is_delete:
            n = next((n for n, w in enumerate(pending) if w[0] == rev and not w[3]), ABSENT)
        if n != ABSENT:
            writes = list(pending[: n + 1])
            item.pending = list(pending[n + 1 :]) or NO_WRITES
            d.idle = 0
            return writes
        maybe = item.maybe
        if maybe is not None and maybe[3] == is_delete and (is_delete or maybe[0] == rev):
            writes = [*pending, maybe]  # the call did not return, the write is there all the same
            item.pending = NO_WRITES
            item.maybe = None
            item.visible = None if is_delete else rev
            item.own = PENDING
            return writes
        restated = rev is not None and not is_delete and rev in (item.visible, item.rev)
        if not restated and not (d.restored and self._may_be_old(d, item)):
            self.checks.invented.not_written(t_us, d.name, item.key, op.u, op.kind, rev)
        return []

    def _may_be_old(self, d: Device, item: Item) -> bool:
        """Whether an operation that no application has announced may come from an old disk, from before the table was
        put back, or from a copy. Those of one item are sent in their order: none comes after, in the same epoch, one
        that was written since."""
        last = item.last_sent
        if d.cloned or last is None or last.epoch != d.sent_epoch or not last.writes:
            return True
        return last.writes[-1][2] <= d.undone_us

    def _sent_again(self, t_us: int, d: Device, sent: Sent, op: Operation) -> None:
        resend = self.checks.resend
        differs = [
            name
            for name, was, now in (
                ("id", sent.id, op.id),
                ("key", sent.key, op.key),
                ("kind", sent.kind, op.kind),
                ("stamp", sent.updated, op.updated),
                ("image", bytes(sent.image), bytes(op.image)),
            )
            if was != now
        ]
        if not differs:
            resend.same()
        elif d.restored:
            if sent.fate is None and sent.epoch == d.head_epoch:
                _leave(d, sent)
            del d.ops[op.u]
            self._first_sent(t_us, d, d.sent_epoch, op)
        else:
            resend.differs(t_us, d.name, op.key, op.u, " and ".join(differs))

    def _hello(self, t_us: int, d: Device, message: Upward) -> None:
        """Its cursors are durable: what lies behind them has been applied, whether or not anybody could see it."""
        d.asked = message.n
        own = message.feeds.get("device")
        if d.undone is not None and own is not None and own.epoch is not None and self._is_later(d, message.epoch):
            d.undone = None  # a new epoch begins without a place in the feed: a snapshot has given it this one
        for name, cursor in message.feeds.items():
            feed = d.feeds.get(name)
            if feed is None:
                continue
            if d.floors is None:
                d.floors = {}
            known = d.floors.get(name)
            if known is None or known[0] != cursor.nonce:
                d.floors[name] = (cursor.nonce, feed.appended_us)
            if d.replays is not None and name in d.replays:
                d.replays[name].stands(cursor.epoch, cursor.seq)
            if cursor.epoch is None:
                continue
            position = (cursor.epoch, cursor.seq)
            reach = d.reach.get(name)
            gaps = self.checks.gaps
            gaps.checked += 1
            if reach is None or not reach.covers(*position):
                gaps.cursor(t_us, d.name, name, *position, (reach.epoch, reach.seq) if reach is not None else None)
            if position < feed.ended:
                continue  # rows from before the table was put back may still take it through older states
            for item in list(feed.unsettled.values()):
                at = item.logged == item.index and (item.log_epoch, item.log_seq) <= position
                if at and self._readable_latest(d, item):
                    self._reached(d, item, item.index, None)

    def _is_later(self, d: Device, epoch: str) -> bool:
        """Whether HEAD had never had this epoch when disk or table were put back."""
        return epoch != d.undone and not (d.past is not None and epoch in d.past)

    def _readable_latest(self, d: Device, item: Item) -> bool:
        """Whether the present state of the item is what the device's applications read anyway."""
        return self._readable(d, item) == item.rev

    def _reached(self, d: Device, item: Item, index: int, t_us: int | None) -> None:
        """The device has the state at `index`. `t_us` None: it is not known since when, so no latency is recorded."""
        feed = item.feed
        if feed is None:
            return
        place = d.index[feed.id[0]] if item.wide is not None else ABSENT
        seen = item.seen if item.wide is None else item.wide[place]
        first = max(seen + 1, item.base)
        if t_us is None:
            self.updates_synced += max(0, index + 1 - first)
        else:
            recorder = d.tally.down[item.model.name]
            for n in range(first - item.base, index + 1 - item.base):
                self._synced(recorder, item.history[n][1], t_us)
        latest = item.index
        if item.wide is None:
            item.seen = index
            if index == latest:
                feed.unsettled.pop(item.key, None)
            else:
                feed.unsettled[item.key] = item
            return
        item.wide[place] = index
        item.lagging += (index != latest) - (seen != latest)
        if not item.lagging:
            feed.unsettled.pop(item.key, None)
        else:
            feed.unsettled[item.key] = item

    # ------------------------------------------------------------------ down

    def ack_published(self, t_us: int, device: str, payload: bytes) -> None:
        """Optional, sharper: a message to a device as the relay hands it over. An ack must already be true here."""
        if self._open:
            self._settle()
        message = downward(payload)
        if message is not None and message.t == "ack":
            self._ack(t_us, self._devices[device], message)

    def wire_down(self, t_us: int, device: str, payload: bytes) -> None:
        """A message as it is delivered to the device."""
        if self._open:
            self._settle()
        d = self._devices[device]
        if payload is self._shared_payload:
            message = self._shared
        else:
            message = downward(payload)
            if _ACCOUNT_PUSH in payload[:32]:  # the same bytes go to every device of the account
                self._shared_payload, self._shared = payload, message
        if message is None:
            self.messages_unreadable += 1
        elif message.t == "ack":
            self._ack(t_us, d, message)
            if message.epoch == d.sent_epoch and message.up > d.heard_up:
                d.heard_up = message.up
        elif message.t == "rows":
            reach = d.reach.get(message.feed)
            is_known = reach is not None and reach.covers(message.epoch, message.b)
            if reach is not None:
                reach.rows(message.epoch, message.a, message.b)
            replay = d.replays.get(message.feed) if d.replays is not None else None
            if replay is not None and replay.moves(message.epoch, message.a, message.b):
                replay.told = states_of(payload)
            rows = message.rows
            if message.b - message.a > 1:
                self._complete(t_us, d, message)
            if rows:
                self._delivered(t_us, d, rows)
                if self._is_quiet and not is_known and self._is_backlog(rows):
                    d.idle = 0
                elif self._is_quiet:
                    self._content(t_us, d)
        elif message.t == "snapshot":
            d.asked = 0  # a snapshot ends the hello: an answer that comes after it may teach nothing
            self._delivered(t_us, d, message.items)
            reach = d.reach.get(message.feed)
            if reach is None:
                feed = d.feeds.get(message.feed)
                epoch = feed.epoch if feed is not None and feed.epoch == message.epoch else message.epoch  # one text
                d.reach[message.feed] = Reach(epoch, message.seq)
            else:
                reach.snapshot(message.epoch, message.seq)
            floor = d.floors.get(message.feed) if d.floors is not None else None
            if floor is not None and floor[0] == message.nonce:
                if d.fuzzy is None:
                    d.fuzzy = {}
                d.fuzzy[message.feed] = (floor[1], t_us)
                if d.replays is not None and message.feed in d.replays:
                    d.replays[message.feed].stands(None, 0)  # of now, unless it asks for rows again
            if message.part == 0 and self._is_quiet:
                self._content(t_us, d)
        elif message.t == "compared":
            self._compared(t_us, d, message.heal, message.skipped)
        elif message.t == "wait":
            self._waits(t_us, d, message.retry_after)

    def _compared(self, t_us: int, d: Device, models: Sequence[str], skipped: Sequence[str]) -> None:
        raise NotImplementedError

    def _waits(self, t_us: int, d: Device, retry_ms: int) -> None:
        raise NotImplementedError

    def _is_backlog(self, rows: Sequence[Entry]) -> bool:
        """Whether they tell of a change that is older than the end of the writes: a stream that lags is no echo."""
        items = [self._items.get(row.key) for row in rows]
        return any(item is None or _changed_us(item) <= (self._stopped_us or 0) for item in items)

    def _complete(self, t_us: int, d: Device, message: Downward) -> None:
        """Rows of a catch-up: of each item that some receiver has not yet, the last row must be there if it lies in the
        range."""
        feed = d.feeds.get(message.feed)
        gaps = self.checks.gaps
        gaps.checked += 1
        if feed is None:
            return
        held = frozenset(row.key for row in message.rows)
        for item in feed.unsettled.values():
            told = item.log_epoch == message.epoch and not item.untold
            if told and message.a < item.log_seq <= message.b and item.key not in held:
                span = (message.epoch, message.a, message.b)
                if any(item.log_seq > undone.a and undone.may_be(*span, held) for undone in feed.undone):
                    gaps.excused += 1
                    continue
                gaps.left_out(t_us, d.name, item.key, item.log_seq, message.a, message.b)

    def _ack(self, t_us: int, d: Device, message: Downward) -> None:
        acked, up = self.checks.acked, message.up
        if not d.timed:
            d.answered = True
            if message.n and message.n == d.asked and t_us >= d.full_until_us:  # it may have had no room for the answer
                d.timed = True
                d.clock_us = t_us
        if d.restored and d.past is not None and up <= d.past.get(message.epoch, (ABSENT, None))[0]:
            acked.checked += 1  # it was committed before the table was put back
            return
        if message.epoch == d.head_epoch:
            last = d.ops.get(up)
            key = last.item.key if last is not None and last.item is not None else None
            acked.ack(t_us, d.name, key, up, message.upid, d.head_up, d.head_id, message.epoch)
            if d.sent_epoch != message.epoch or up > d.head_up or d.cloned:
                return  # a copy in the same epoch may have let the relay forget verdicts
            told = message.verdicts
            for u, sent in d.ops.items():
                if u > up or up >= d.recalled.get(u, up + 1):
                    continue
                if sent.fate is not None and (told or sent.fate):
                    acked.verdicts(t_us, d.name, up, told, u, sent.fate, sent.item.key if sent.item else None)
        elif d.past is not None and message.epoch in d.past:
            acked.ack(t_us, d.name, None, up, message.upid, *d.past[message.epoch], message.epoch)
        else:
            acked.unknown_epoch(t_us, d.name, message.epoch)

    def _delivered(self, t_us: int, d: Device, entries: list[Entry]) -> None:
        """Keys of rows or of a snapshot: of this device or its account, and of models that come down."""
        checks = self.checks
        checks.direction.checked += len(entries)
        checks.isolation.checked += len(entries)
        for entry in entries:
            key = entry.key
            item = self._items.get(key)
            if item is not None:
                if item.owner is d and item.receives:
                    continue
                model, owner, feed = item.model, item.owner, item.feed
            else:
                place = self._schema.locate(key)
                if place is None:
                    continue  # a model that this schema does not know: to be ignored
                model = place.model
                owner = self._devices.get(place.device_id) if place.device_id is not None else None
                kind = model.feed or ""
                feed = self._feeds.get((kind, place.account_id or "" if kind == "account" else ""))
            if not model.receives:
                checks.direction.crossed(t_us, d.name, key, model.name, "sent down")
            elif owner is not d and (owner is not None or feed is None or d.feeds.get(feed.id[0]) is not feed):
                checks.isolation.foreign(t_us, d.name, key, "sent down to it")

    def message_account(
        self, link: str, direction: str, sent: int, delivered: int, dropped: int, in_flight: int, duplicates: int = 0
    ) -> None:
        """What one link counted in one direction, at the end."""
        self.checks.conservation.link(
            link,
            direction,
            sent=sent,
            delivered=delivered,
            dropped=dropped,
            in_flight=in_flight,
            duplicates=duplicates,
        )


def _recall(d: Device, batch: Sequence[Operation]) -> None:
    """A disk that was put back may hold a batch of which the device has heard since that it is decided, and it sends it
    again. It was forgotten when the device sent what comes after. HEAD still tells of the last batch that it passed,
    whose last operation it names by its id. Of those before, acks that are on their way may tell, but HEAD need not:
    nor of the last one, once what the newer disk sent after it, and was on its way, has come."""
    is_last = any(op.u == d.head_up and op.id == d.head_id for op in batch)
    later = min((u for u, sent in d.ops.items() if sent.fate is None and u > batch[-1].u), default=None)
    for op in batch:
        sent = d.ops.get(op.u)
        if sent is None or sent.fate is not None:
            continue
        if is_last and op.u <= d.head_up:
            sent.fate = d.verdicts.get(str(op.u), "")
            if later is not None:
                d.recalled[op.u] = later
        elif (verdict := d.decided.verdict(op.u, op.id)) is not None:
            sent.fate = verdict
            d.recalled[op.u] = 0


def _changed_us(item: Item) -> int:
    return item.history[-1][1] if item.history else 0


def _since_delete(writes: Sequence[Write]) -> list[Write] | tuple[Write, ...]:
    """Those after the last delete, which superseded all before it."""
    last = max((n for n, write in enumerate(writes) if write[3]), default=ABSENT)
    return list(writes[last + 1 :]) or NO_WRITES


def _leave(d: Device, sent: Sent) -> None:
    if d.left is None:
        d.left = {}
    d.left[sent.epoch, sent.u, sent.id] = sent
