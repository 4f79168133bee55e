"""What the oracle remembers: devices, items, operations on their way, feeds. Plain slotted records, no judgement.

Flat in memory: an item that is gone everywhere is forgotten, an item's history goes back only to what the slowest
reader has seen (and a recent window), an operation is forgotten when the device sends what comes after it.
Only the oracle's own modules touch these.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from agent.protocol.messages import Key
from agent.protocol.schema import Model
from fleet.oracle.decided import Decided
from fleet.oracle.payload import TEXT
from fleet.oracle.reach import Reach
from fleet.oracle.replay import Replay
from fleet.oracle.stored import NO_VERDICTS
from fleet.oracle.tally import Tally

HOUR_US: Final = 3_600_000_000
WINDOW_US: Final = 600_000_000  # superseded states and dead items are kept this long
RACE_US: Final = 900_000_000  # a worker's life: so long may one that saw an empty log take to begin a feed epoch
_HISTORY_MIN: Final = 8
_ENDS_MIN: Final = 16

# One write of an application: (rev, updated_ms, t_us, is_delete)
Write = tuple[int, int, int, bool]
NO_WRITES: Final[tuple[Write, ...]] = ()
# Of most devices, which share them: each empty set would be one of its own.
NO_KEYS: Final[frozenset[Key]] = frozenset()
NO_TEXTS: Final[Mapping[tuple[Key, int], str]] = {}
NOT_PAUSED: Final = (0, 0)  # for how long the relay has told a device to be quiet since its last boot, and until when

# What became of the last own write of an item, as far as the table knows.
NONE: Final = 0
PENDING: Final = 1
ACCEPTED: Final = 2
LOST: Final = 3

# Whether the table has swept an item of a feed.
NEVER_SWEPT: Final = 0
SWEPT: Final = 1  # and no row is flagged so yet
FLAGGED: Final = 2  # or written again since

UNKNOWN: Final = -2  # an index: not a state that the window holds
ABSENT: Final = -1  # an index: the time before the first state
GONE: Final = -1  # in place of a revision: what the device had of the item is lost from its disk


class Sent:
    """One operation that a device has put on the wire. `fate`: None until HEAD passes it, then "" or the verdict."""

    __slots__ = (
        "applied", "epoch", "fate", "id", "image", "index", "item", "key", "kind", "rev", "u", "updated", "writes",
    )  # fmt: skip

    def __init__(
        self,
        epoch: str,
        u: int,
        op_id: str,
        key: Key,
        kind: str,
        updated: int,
        image: msgspec.Raw,
        item: Item | None,
        rev: int | None,
        writes: list[Write],
    ) -> None:
        self.epoch = epoch
        self.u = u
        self.id = op_id
        self.key = key  # of a sweep: of no item
        self.kind = kind
        self.updated = updated
        self.image = image
        self.item = item
        self.rev = rev
        self.writes = writes  # the one it carries last, those that it supersedes before
        self.applied = False
        self.index = ABSENT  # of the state that it made
        self.fate: str | None = None


class Undone:
    """The end of a feed's log that a table put back does not have: the rows after `a` up to `b` of one feed epoch.

    Messages that hold them may still be on their way when a relay gives these numbers again."""

    __slots__ = ("a", "b", "epoch", "rows")

    def __init__(self, epoch: str, a: int, b: int) -> None:
        self.epoch = epoch
        self.a = a
        self.b = b
        self.rows: dict[Key, int] = {}  # item -> its last row

    def may_be(self, epoch: str, a: int, b: int, keys: frozenset[Key]) -> bool:
        """Whether a message of the rows after `a` up to `b` can have been sent before: it holds what lay there then."""
        if epoch != self.epoch or not self.a < b <= self.b:
            return False
        return all(key in keys for key, seq in self.rows.items() if a < seq <= b)


class Feed:
    """One feed: where its log stands, who receives it, which items some receiver has not caught up with."""

    __slots__ = (
        "appended_us", "began_us", "ended", "epoch", "id", "items", "lost", "members", "seq", "undone", "unsettled",
    )  # fmt: skip

    def __init__(self, kind: str, owner: str) -> None:
        self.id = (kind, owner)
        self.members: list[Device] = []
        self.epoch = ""
        self.seq = 0
        self.appended_us = 0
        self.began_us = 0  # when the first row of the present epoch was appended
        self.lost: dict[str, int] = {}  # epochs that it has overtaken: the last row of each, while workers may be late
        self.undone: tuple[Undone, ...] = ()
        self.ended = ("", 0)  # the furthest end of a log that was put back: older rows may be on their way
        self.unsettled: dict[Key, Item] = {}
        self.items: dict[Key, Item] = {}  # of account-wide feeds


class Device:
    """One device, as the wire, HEAD and its applications show it."""

    __slots__ = (
        "account",
        "answered",
        "asked",
        "clock_us",
        "cloned",
        "damaged",
        "decided",
        "epoch_us",
        "feeds",
        "floors",
        "full_until_us",
        "fuzzy",
        "head_epoch",
        "head_id",
        "head_up",
        "heard_up",
        "held",
        "hidden",
        "idle",
        "index",
        "items",
        "lacks",
        "last_up",
        "lasting",
        "left",
        "name",
        "old_epoch",
        "ops",
        "past",
        "paused",
        "reach",
        "recalled",
        "redone",
        "replaced_us",
        "replays",
        "restating",
        "restored",
        "resumed",
        "returned",
        "rotten",
        "sent_epoch",
        "set_back_us",
        "stale",
        "tally",
        "timed",
        "unanswered",
        "undone",
        "undone_us",
        "verdicts",
    )

    def __init__(self, name: str, account: str, tally: Tally) -> None:
        self.name = name
        self.account = account
        self.tally = tally
        self.index: dict[str, int] = {}  # kind of feed -> place among its members
        self.feeds: dict[str, Feed] = {}
        self.items: dict[Key, Item] = {}  # those that belong to this device alone
        self.head_epoch: str | None = None
        self.head_up = 0
        self.head_id: str | None = None
        self.verdicts: Mapping[str, str] = NO_VERDICTS
        self.past: dict[str, tuple[int, str | None]] | None = None  # former epochs of HEAD -> where they ended
        self.sent_epoch = ""
        self.epoch_us = 0  # when it first sent something in that epoch
        self.restating = False  # it has not yet sent the sweep that ends what a new epoch sends anew
        self.ops: dict[int, Sent] = {}
        self.decided = Decided()  # in the present epoch of HEAD
        self.left: dict[tuple[str, int, str], Sent] | None = None  # sent, given up by the device, and not decided
        self.last_up = b""
        self.floors: dict[str, tuple[str, int]] | None = None  # feed -> (nonce, time of the log's tail at the hello)
        self.fuzzy: dict[str, tuple[int, int]] | None = None  # feed -> (floor, delivery) of the last snapshot
        self.reach: dict[str, Reach] = {}
        self.replays: dict[str, Replay] | None = None  # feed -> what it is told once more, since its disk was set back
        self.restored = False
        self.undone: str | None = None  # HEAD's epoch when disk or table were put back, until a snapshot of a later one
        self.undone_us = 0  # when that was
        self.recalled: dict[int, int] = {}  # an old disk's operation -> from what on HEAD need not keep its verdict
        self.redone: set[int] = set()  # decided operations that a table put back does not have: they may be again
        self.damaged: dict[str, tuple[int, int]] = {}  # model -> items damaged now, and when the last one was healed
        self.unanswered = 0  # questions about digests since the last boot, without a whole answer
        self.paused = NOT_PAUSED
        self.old_epoch = ""  # in which it lives on, though the table was put back: it does not know yet
        self.set_back_us: int | None = None  # when its disk was last put back to an older one, or wiped
        self.resumed: frozenset[Key] = NO_KEYS  # items with a period that it has sent since then
        self.heard_up = 0  # how far HEAD is in the epoch in which it sends, by the acks that came
        self.held: frozenset[Key] = NO_KEYS  # items of which it has held something since the former epoch
        self.stale: dict[Key, int] = {}  # account-wide items in states of long ago, since its disk was set back
        self.rotten: Mapping[tuple[Key, int], str] = NO_TEXTS  # states of items -> their texts, changed on its disk
        self.lasting: frozenset[Key] = NO_KEYS  # items damaged here or in the table, and not healed at the end
        self.full_until_us = 0  # its disk has no room until then
        self.lacks: frozenset[str] = frozenset()  # models that its schema does not have now
        self.returned: frozenset[str] = frozenset()  # that it has again, or at last, from its next boot on
        self.cloned = False  # a second one of this name lives, or has lived
        self.replaced_us: list[int] = []  # when HEAD took another epoch, of the last hour
        self.idle = 0  # messages with content since this device's last progress
        self.asked = 0  # the number of the last hello since the boot
        self.answered = False  # the relay has answered anything since the boot
        self.timed = False  # the relay has told it the time since the boot: its last hello was answered
        self.clock_us = 0  # when its clock was set: at the boot, and by the first answer after it
        self.hidden: frozenset[Key] = NO_KEYS  # account-wide items that it has seen, and has no more for now

    def is_rotten(self, key: Key, rev: int | None, image: Mapping[str, Any]) -> bool:
        """Whether this image of the item has the very text that was put on the disk in that state."""
        text = self.rotten.get((key, rev)) if rev is not None else None
        return text is not None and image.get(TEXT) == text


class Item:
    """One item. `rev`, `image`: the table's present state. `visible`: what the owner's applications read."""

    __slots__ = (
        "base",
        "cloud",
        "dying",
        "ends",
        "feed",
        "history",
        "image",
        "index",
        "key",
        "lagging",
        "last_sent",
        "limit",
        "limit_ends",
        "log_epoch",
        "log_seq",
        "logged",
        "maybe",
        "model",
        "op_epoch",
        "op_index",
        "op_u",
        "oversize",
        "own",
        "own_index",
        "owner",
        "pending",
        "period_us",
        "receives",
        "rejected",
        "rev",
        "seen",
        "sends",
        "shown_us",
        "swept",
        "untold",
        "visible",
        "wide",
    )

    def __init__(self, key: Key, model: Model, owner: Device | None, feed: Feed | None) -> None:
        self.key = key
        self.model = model
        self.sends = model.sends
        self.receives = model.receives
        self.owner = owner
        self.feed = feed
        self.rev: int | None = None
        self.image: Mapping[str, Any] | None = None
        self.index = ABSENT  # of the present state, counted from 0; only where the model comes down
        self.history: list[tuple[int | None, int]] = []  # (rev, commit time), the last one is `index`
        self.base = 0  # index of history[0]
        self.limit = _HISTORY_MIN
        self.seen = ABSENT  # index that the owner's applications have (or know better than)
        self.wide: array[int] | None = None  # the same for each member of an account-wide feed
        self.lagging = 0  # members that are behind
        self.logged = ABSENT
        self.log_epoch = ""
        self.log_seq = 0
        self.visible: int | None = None
        self.shown_us = ABSENT  # when sync last changed what the owner's applications read
        self.own = NONE
        self.own_index = ABSENT
        self.pending: list[Write] | tuple[Write, ...] = NO_WRITES  # not yet sent
        self.maybe: Write | None = None  # a write during which the power went
        self.last_sent: Sent | None = None
        self.cloud: tuple[int | None, bool] | None = None  # (rev, is_delete) announced by a cloud application
        self.op_epoch = ""  # the last accepted operation of the owner
        self.op_u = 0
        self.op_index = ABSENT
        self.rejected = False
        self.oversize = False
        self.dying = False
        self.period_us = model.period_ms * 1000
        # Of a model with a ttl: rev -> when the life of that state ends, in seconds since 1970. None: of any other.
        self.ends: dict[int, int] | None = None if model.ttl_attribute is None else {}
        self.limit_ends = _ENDS_MIN
        self.swept = NEVER_SWEPT
        self.untold = False  # the state came past the stream: where the log ended then is no row of it
        if receives_wide(feed):
            assert feed is not None
            self.wide = array("i", [ABSENT]) * len(feed.members)

    def advance(self, rev: int | None, t_us: int) -> None:
        """A new state of an item that comes down."""
        self.index += 1
        self.history.append((rev, t_us))
        if len(self.history) > self.limit:
            self._prune(t_us)
            self.limit = max(_HISTORY_MIN, 2 * len(self.history))

    def _prune(self, t_us: int) -> None:
        floor = self.seen if self.wide is None else min(self.wide)
        history, base, horizon, n = self.history, self.base, t_us - WINDOW_US, 0
        while n < len(history) - 1 and base + n < floor and history[n + 1][1] < horizon:
            n += 1
        if n:
            del history[:n]
            self.base = base + n

    def set_end(self, rev: int | None, end_s: Any) -> None:
        """The state `rev` has a life that ends; anything else than a whole number says that it has none."""
        ends = self.ends
        if ends is None or rev is None or type(end_s) is not int:
            return
        ends[rev] = end_s
        if len(ends) > self.limit_ends:
            needed = {self.rev, self.visible, rev, *(rev for rev, _ in self.history), *(w[0] for w in self.pending)}
            self.ends = {rev: end_s for rev, end_s in ends.items() if rev in needed}
            self.limit_ends = max(_ENDS_MIN, 2 * len(self.ends))

    def find(self, rev: int | None, seen: int) -> int:
        """The index of the state `rev`; UNKNOWN when the window does not hold it. "No item" is the earliest such
        state from `seen` on, else the latest before it."""
        history, base = self.history, self.base
        if rev is not None:
            if history and history[-1][0] == rev:
                return self.index
            for n in range(len(history) - 2, -1, -1):
                if history[n][0] == rev:
                    return base + n
            return UNKNOWN
        for n in range(max(0, seen - base), len(history)):
            if history[n][0] is None:
                return base + n
        for n in range(min(seen - base, len(history)) - 1, -1, -1):
            if history[n][0] is None:
                return base + n
        return ABSENT if base == 0 else UNKNOWN

    def superseded_us(self, index: int) -> int | None:
        """When the state at `index` ended; None for the present one."""
        n = index + 1 - self.base
        return self.history[n][1] if 0 <= n < len(self.history) else None

    def at(self, index: int) -> int | None:
        """The rev of a state that the window holds."""
        n = index - self.base
        return self.history[n][0] if 0 <= n < len(self.history) else None


def receives_wide(feed: Feed | None) -> bool:
    return feed is not None and feed.id[0] != "device"
