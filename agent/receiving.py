"""What a session does with what comes down: rows in their order, rows too early, the parts of snapshots.

The part of Session that applies and asks for what is missing, by hellos; Replica does the applying.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from agent import ids
from agent.config import AgentConfig
from agent.early import Early
from agent.events import NEVER
from agent.parts import Parts
from agent.protocol.messages import FeedName, Rows, Snapshot
from agent.replica import Outcome, Replica
from agent.store import Store

if TYPE_CHECKING:
    from agent.digests import Digests

_APPLIED: Final = Outcome.APPLIED  # looked up once, as in agent.session
_GAP: Final = Outcome.GAP
_ASK: Final = Outcome.ASK
_ROLLED_BACK: Final = Outcome.ROLLED_BACK


class Receiving:
    """Base of Session, which has the attributes."""

    __slots__ = (
        "_asked_at", "_gap_at", "_hello_at", "_hello_open", "_hello_sent_at", "_hello_wanted", "_part_at", "_tails"
    )  # set in both  # fmt: skip

    config: AgentConfig
    digests: Digests
    nonces: dict[FeedName, str]
    probes: Counter[str]
    random: ids.Random
    replica: Replica
    store: Store
    _asked_at: int  # the first of the hellos that wait for their answers
    _early: Early
    _gap_at: int
    _hello_at: int
    _hello_open: bool
    _hello_sent_at: int
    _hello_wanted: bool
    _now: int
    _part_at: int  # when the last part of a snapshot came
    _parts: Parts
    _tails: dict[FeedName, tuple[str, int]]  # of feeds of which the last hello's answer has not all come

    def say_hello(self) -> None:
        raise NotImplementedError

    def want_hello(self, delay_ms: int) -> None:
        """Soon, but not more often than the spacing allows, and not while one waits for its answer."""
        if self._hello_open:
            return
        at = max(self._now + delay_ms, self._hello_sent_at + self.config.hello_spacing_ms)
        if at <= self._now:
            self.say_hello()
        elif at < self._hello_at:
            self._hello_at = at
            self._hello_wanted = True

    def set_next_hello(self) -> None:
        raise NotImplementedError

    def rolled_back(self) -> None:
        raise NotImplementedError

    @property
    def is_behind(self) -> bool:
        """Whether a feed has no cursor, or ends beyond it as far as the last hello's answer told."""
        cursors = self.store.cursors
        return bool(self._tails) or any(feed not in cursors for feed in self.replica.feeds)

    def keep_tails(self, tails: Mapping[FeedName, tuple[str, int]]) -> None:
        """Where feeds end that have not come so far: later epochs of a feed are greater."""
        cursors, feeds = self.store.cursors, self.replica.feeds
        held = {feed: cursors.get(feed, ("", 0)) for feed in feeds}
        self._tails = {feed: tail for feed, tail in tails.items() if feed in held and held[feed] < tail}

    def on_rows(self, rows: Rows) -> None:
        feed = rows.feed
        if feed not in self.nonces:
            self.probes["row_set_aside"] += 1
            return
        outcome = self.replica.rows(rows)
        if outcome is _APPLIED:
            self.rows_applied(rows)
        elif outcome is _GAP:
            self.keep_early(rows)
        elif outcome is _ASK:
            self.want_hello(0)
        elif outcome is _ROLLED_BACK:
            self.rolled_back()

    def rows_applied(self, rows: Rows) -> None:
        """What came too early may now fit; what the sender knows beyond it is asked for at once."""
        last = rows.last
        while self._early:
            following = self._early.take(rows.feed, self.store.cursors[rows.feed][1])
            if following is None:
                break
            last = max(last, following.last)
            if self.replica.rows(following) is _ROLLED_BACK:
                self.rolled_back()
                return
        if not self._early:
            self._gap_at = NEVER
        if last > self.store.cursors[rows.feed][1]:
            self._hello_open = False
            self.probes["catchup_continued"] += 1
            self.say_hello()
        elif self._tails:
            self.keep_tails(self._tails)
            if not self.is_behind and not self._hello_wanted:
                self.set_next_hello()

    def keep_early(self, rows: Rows) -> None:
        """A gap: a straggler may still fill it; then ask."""
        self.probes["gap_seen"] += 1
        self._early.keep(rows)
        if self._gap_at == NEVER:
            self._gap_at = self._now + self.config.gap_wait_ms

    def wait_for_parts(self) -> None:
        """More is on its way, and on a slow link it takes about as long again as the part that came. Asked before that,
        the relay would put another whole answer behind it, and the link would never get to its end. Of any answer: what
        the last hello asked for stands behind those before it."""
        config = self.config
        took_ms = self._now - max(self._part_at, self._asked_at)
        self._part_at = self._now
        wait_ms = min(max(config.resend_base_ms, 2 * took_ms), config.resend_cap_ms)
        self._hello_at = max(self._hello_at, self._now + wait_ms)

    def on_snapshot(self, part: Snapshot) -> None:
        """Parts are gathered until all are there; another snapshot of the same feed starts anew (rule 13)."""
        feed = part.feed
        self.wait_for_parts()
        if self.nonces.get(feed) != part.nonce or not 0 <= part.part < part.parts <= self.config.snapshot_parts_max:
            self.probes["stale_snapshot"] += 1
            return
        items = self._parts.add(part)
        if items is None:
            return
        outcome = self.replica.snapshot(part, items)
        if outcome is _ROLLED_BACK:
            self.rolled_back()
        elif outcome is _APPLIED:
            self.probes["snapshot_loaded"] += 1
            self.digests.snapshot_loaded(feed)
            self.nonces[feed] = ids.nonce(self.random)
            self._early.forget(feed)
            self._hello_open = False
            self.want_hello(0)
