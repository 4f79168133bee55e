"""Digests on the device: now and then it asks the relay whether both hold the same items, and heals what does not pass.

Counts a page at a time, and begins again when anything was written meanwhile; asks only when nothing is on its way. A
difference may come from a change that is still on its way down, so nothing is done about one until the relay has found
the very same again, after the time that it names. Then a feed's snapshot is asked for, or an up model restated
(agent.restating), each at most once in a while. Remembers in memory alone. docs/protocol.md has the argument. Called by
Session; costs nothing between comparisons.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from agent import outgoing, restating
from agent.events import NEVER, ONLINE
from agent.protocol import digest
from agent.protocol.messages import APART_MAX, Claim, Compared, FeedName, Key
from agent.protocol.schema import Model
from agent.records import ROW
from agent.restating import Restatement

if TYPE_CHECKING:
    from agent.database import Database
    from agent.session import Session

AHEAD_MS: Final = 2 * 60_000  # items whose lives end within this time are left out: it is more than a comparison takes
AFTER_MS_MAX: Final = 7 * 24 * 3_600_000
_BEGINNINGS_MAX: Final = 5  # of a count that writes come between; then it is tried later
_DIFFERENCES_MAX: Final = 8  # remembered of one model
_TURN_MS: Final = 1_000  # between two turns of a restatement
_BACK_OFF_MAX: Final = 20
_NOTHING: Final[frozenset[str]] = frozenset()  # of all devices: each empty set would be one of its own
_TRY_MS_MAX: Final = 24 * 3_600_000  # for one comparison that was asked for, where there are no others
_APART: Final = "SELECT pk, sk FROM item WHERE rejected IS NOT NULL UNION SELECT pk, sk FROM dead_letter WHERE kind=? \
ORDER BY 1, 2"


class Suspicion(NamedTuple):
    """A difference of a model's sums, and since when (monotonic ms) it has been found to be just this."""

    delta: str
    since_ms: int


class Count:
    """A count under way, of what the cloud is known to have: the base, without own operations on top. It holds for the
    file as it was when it began."""

    __slots__ = ("_after", "_db", "_ranges", "apart", "changes", "cut_s", "tallies")

    def __init__(self, db: Database) -> None:
        self._db = db
        self.changes = db.store.connection.total_changes
        self.cut_s = (db.clock.now_ms() + AHEAD_MS) // 1000
        models = {model.name for model in db.schema.models.values() if model.sends or model.receives}
        self.apart: list[Key] = list(db.store.execute(_APART, (ROW,)).fetchall())
        if len(self.apart) > APART_MAX:
            models -= {place.model.name for key in self.apart if (place := db.schema.locate(key)) is not None}
            self.apart = []
        self.tallies = digest.Tallies(db.schema, db.context, sorted(models), self.cut_s, self.apart)
        self._ranges = self.tallies.ranges()
        self._after = ""

    def is_stale(self) -> bool:
        """Whether anything was written since it began, or it has taken long."""
        aged_ms = self._db.clock.now_ms() + AHEAD_MS // 2 - self.cut_s * 1000
        return self._db.store.connection.total_changes != self.changes or aged_ms > 0

    def step(self, rows_max: int) -> bool:
        """Reads so many items at most. True when all are counted."""
        while self._ranges and rows_max > 0:
            pk, prefix, models = self._ranges[0]
            rows = self._db.store.page(pk, prefix, self._after, rows_max, base=True)
            for sk, image in rows:
                key = (pk, sk)
                model = self.tallies.model_of(key, models)
                if model is not None:
                    self.tallies.add(model, key, image)
            if len(rows) == rows_max:
                self._after = rows[-1][0]
            else:
                self._after = ""
                del self._ranges[0]
            rows_max -= len(rows)
        return not self._ranges


class Digests:
    """One session's comparisons. `at_ms`: when `on_timer` wants to be called; NEVER without a connection."""

    __slots__ = (
        "_asked", "_beginnings", "_count", "_due_ms", "_epoch", "_first_ms", "_healed", "_n", "_restating",
        "_suspicions", "_tries", "_waits", "at_ms", "session",
    )  # fmt: skip

    def __init__(self, session: Session) -> None:
        self.session = session
        self.at_ms = self._due_ms = NEVER
        self._n = 0  # of the last question since boot
        self._asked = _NOTHING  # the models of the last question, until it is answered
        self._waits = False  # for that answer
        self._count: Count | None = None
        self._beginnings = self._tries = 0
        self._suspicions: dict[str, Suspicion] = {}  # by model: what the last comparison found
        self._first_ms: dict[str, dict[str, int]] = {}  # by model: differences, and when each was first found
        self._healed: dict[str, int] = {}  # feed or up model -> when it was last healed, monotonic ms
        self._restating: list[Restatement] = []  # the first one is under way
        self._epoch = ""  # of the restatements

    @property
    def is_healing(self) -> bool:
        """Whether an up model is being restated."""
        return bool(self._restating)

    @property
    def is_calm(self) -> bool:
        """Whether base and cloud must be equal: no operation was sent that the base does not show yet, and none is to
        be sent now. Those that wait for their period have no number, and the cloud knows nothing of them."""
        session = self.session
        return session.is_calm and (not session.store.outbox_rows or restating.only_held(session.store))

    # ---------------------------------------------------------------- when

    def on_boot(self, now_ms: int) -> None:
        config = self.session.config
        if config.digest_period_ms:  # by chance: many may boot at once
            self._due_ms = now_ms + int(self.session.random.unit() * config.digest_period_ms)
        self._n = 0

    def on_connected(self, now_ms: int) -> None:
        if self._restating:
            self.at_ms = now_ms + _TURN_MS
        elif self._due_ms != NEVER:
            self.at_ms = max(now_ms, self._due_ms)

    def forget_connection(self) -> None:
        self.at_ms = NEVER
        self._count = None
        self._asked = _NOTHING
        self._waits = False

    def compare_soon(self, now_ms: int) -> None:
        """Somebody wants to know now."""
        self._due_ms = now_ms
        if self.session.state in ONLINE and not self._waits and not self._restating:
            self.at_ms = now_ms

    def _again_at(self, at_ms: int) -> None:
        self._due_ms = self.at_ms = at_ms

    def _next_period(self, now_ms: int) -> None:
        config = self.session.config
        self._tries = 0
        if not config.digest_period_ms:
            self._again_at(NEVER)
            return
        spread = 1.0 + config.digest_jitter * (2.0 * self.session.random.unit() - 1.0)
        self._again_at(now_ms + int(config.digest_period_ms * spread))

    def _later(self, now_ms: int) -> None:
        """Not now: after a wait that doubles, up to the period."""
        config = self.session.config
        wait_ms = config.digest_retry_ms << min(self._tries, _BACK_OFF_MAX)
        self._tries += 1
        if wait_ms >= (config.digest_period_ms or _TRY_MS_MAX):
            self._next_period(now_ms)
        else:
            self._again_at(now_ms + self._wait_ms(wait_ms))

    def _wait_ms(self, base_ms: int) -> int:
        return base_ms + int(self.session.random.unit() * base_ms)

    def on_timer(self, now_ms: int) -> None:
        session = self.session
        if self._restating:
            self._restate(now_ms)
        elif self._waits:
            session.probes["digest_unanswered"] += 1
            self._waits = False  # the answer may still come
            self._later(now_ms)
        elif not self.is_calm:
            self._count = None
            self.at_ms = now_ms + self._wait_ms(session.config.digest_retry_ms)
        else:
            self._go_on(now_ms)

    # ---------------------------------------------------------------- counting and asking

    def _go_on(self, now_ms: int) -> None:
        """One page more; the question, when that was the last one."""
        session = self.session
        count = self._count
        if count is None or count.is_stale():
            self._beginnings = 1 if count is None else self._beginnings + 1
            self._count = None
            if self._beginnings > _BEGINNINGS_MAX:
                session.probes["digest_disturbed"] += 1
                self.at_ms = now_ms + self._wait_ms(session.config.digest_retry_ms)
                return
            count = self._count = Count(session.database)
        if not count.step(session.config.digest_rows):
            self.at_ms = now_ms + 1
            return
        self._count = None
        self._ask(count, now_ms)

    def _ask(self, count: Count, now_ms: int) -> None:
        session = self.session
        claims = {name: self.claim(count, name, now_ms) for name in count.tallies.sums}
        if not claims:
            self._next_period(now_ms)
            return
        self._n += 1
        self._asked = frozenset(claims)
        self._waits = True
        session.probes["digest_sent"] += 1
        feeds = session.replica.feeds
        fingerprint = digest.fingerprint(session.database.schema)
        session.send(outgoing.digest(session.store, count, claims, feeds, hn=session.hn, n=self._n, schema=fingerprint))
        self.at_ms = now_ms + self._wait_ms(session.config.digest_retry_ms)

    def claim(self, count: Count, name: str, now_ms: int) -> Claim:
        tallies = count.tallies
        suspicion = self._suspicions.get(name)
        if suspicion is None:
            return Claim(digest.shown(tallies.sums[name]), tallies.counts[name])
        age_ms = now_ms - suspicion.since_ms
        return Claim(digest.shown(tallies.sums[name]), tallies.counts[name], suspicion.delta, age_ms)

    # ---------------------------------------------------------------- the answer

    def on_compared(self, message: Compared, now_ms: int) -> None:
        session = self.session
        asked = self._asked
        if not asked or message.n != self._n or message.hn != session.hn:
            session.probes["stale_compared"] += 1
            return
        self._asked = _NOTHING
        self._waits = False
        for name in sorted(asked):
            self._judge(name, message, now_ms)
        if message.differs and session.replica.is_of_other_relay:
            session.want_hello(0)  # has the relay changed? The answer tells, and brings what it did not know before
        to_heal = [name for name in message.heal if name in asked and name in message.differs]
        waits_ms, has_begun = self.heal(to_heal, now_ms)
        if self._restating:
            self.at_ms = now_ms + 1
        elif has_begun:
            self._again_at(now_ms + self._wait_ms(session.config.digest_retry_ms))  # whether it has helped
        else:
            self._next(message, waits_ms, now_ms)

    def _next(self, message: Compared, waits_ms: int, now_ms: int) -> None:
        """When what was found will have passed, or will never; when what was skipped may be told; or in a period. Soon,
        when one was found again that others have covered: the relay was told of those, and others may come."""
        after_ms = min(message.after_ms, AFTER_MS_MAX)
        lefts_ms = {name: each.since_ms + after_ms - now_ms for name, each in self._suspicions.items()}
        left_ms = max(waits_ms, *lefts_ms.values(), 0)
        if any(left <= 0 and name in message.differs and name not in message.heal for name, left in lefts_ms.items()):
            self._later(now_ms)
        elif left_ms > 0:
            self._again_at(now_ms + left_ms + int(self.session.random.unit() * self.session.config.digest_retry_ms))
        elif message.skipped or self._suspicions:
            self._later(now_ms)
        else:
            self._next_period(now_ms)

    def _judge(self, name: str, message: Compared, now_ms: int) -> None:
        probes = self.session.probes
        found = message.differs.get(name)
        if found is not None:
            probes["digest_suspected"] += 1
            # What was on its way for a while may have covered one that was found before, and is there again.
            firsts = self._first_ms.setdefault(name, {})
            if len(firsts) >= _DIFFERENCES_MAX and found not in firsts:
                del firsts[next(iter(firsts))]
            self._suspicions[name] = Suspicion(found, firsts.setdefault(found, now_ms))
        elif name in message.skipped:
            probes["digest_left_out"] += 1
        else:
            probes["digest_equal"] += 1
            self._forget(name)

    def _forget(self, name: str) -> None:
        self._suspicions.pop(name, None)
        self._first_ms.pop(name, None)

    def snapshot_loaded(self, feed: FeedName) -> None:
        """What differed before it differs no more. A table that was put back may differ in the same way once more."""
        models = self.session.database.schema.models
        for name in list(self._suspicions):
            model = models.get(name)
            if model is None or (model.receives and model.feed == feed):
                self._forget(name)

    # ---------------------------------------------------------------- healing

    def heal(self, names: list[str], now_ms: int) -> tuple[int, bool]:
        """Returns for how long some must wait, since the same was healed not long ago; and whether any was begun."""
        session = self.session
        spacing_ms = session.config.digest_heal_ms
        waits_ms = 0
        begun: dict[str, None] = {}
        for name in names:
            model = session.database.schema.models[name]
            place: str = (model.feed or name) if model.receives else f"up {name}"
            left_ms = self._healed.get(place, now_ms - spacing_ms) + spacing_ms - now_ms
            if left_ms > 0 and place not in begun:
                session.probes["digest_heal_waits"] += 1
                waits_ms = max(waits_ms, left_ms)
                continue
            session.probes["digest_healing"] += 1
            if place not in begun:
                begun[place] = None
                self._healed[place] = now_ms
                self.heal_model(model)
            self._forget(name)
        return waits_ms, bool(begun)

    def heal_model(self, model: Model) -> None:
        """One feed, or one up model."""
        session = self.session
        if model.receives:
            assert model.feed is not None
            session.store.drop_cursor(model.feed)  # durable: the snapshot is asked for until it comes
            session.want_hello(0)
        else:
            self._epoch = session.store.identity.epoch
            self._restating.append(Restatement(model))

    def _restate(self, now_ms: int) -> None:
        """A turn of a restatement. A new epoch, which began meanwhile, has restated everything."""
        session = self.session
        if session.store.identity.epoch != self._epoch:
            self._restating.clear()
        elif self.is_calm:
            work = self._restating[0]
            session.probes["digest_restated"] += restating.turn(session.database, work, session.config.batch_ops_max)
            if work.is_done:
                del self._restating[0]
            session.flush()
        if self._restating:
            self.at_ms = now_ms + _TURN_MS
        else:
            self._again_at(now_ms + self._wait_ms(session.config.digest_retry_ms))
