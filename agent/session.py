"""The session: the protocol's device half as a state machine without I/O, driven by the table in agent.transitions.

`receive(event, now_ms)` returns effects. It reads and writes the database in the same call. Time comes with the event,
chance from the database's Random; it opens no socket and starts no thread. Called by the daemon's runtime and by the
simulated device, which carry out the effects.
"""

from __future__ import annotations

from collections import Counter
from typing import ClassVar, Final

from msgspec import UNSET

from agent import due, ids, outgoing
from agent.config import AgentConfig
from agent.database import Database
from agent.digests import Digests
from agent.early import Early
from agent.events import CONNECT, DISCONNECT, Effect, Event, Received, Send, SetTimer, State
from agent.events import NEVER as NEVER  # callers find it here
from agent.incoming import check_form
from agent.parts import Parts
from agent.protocol.errors import MessageError
from agent.protocol.messages import (
    MESSAGE_BYTES_MAX,
    Ack,
    Compared,
    FeedName,
    FromDevice,
    Reset,
    Rows,
    Snapshot,
    Wait,
    decode_to_device,
    encode,
)
from agent.receiving import Receiving
from agent.replica import Outcome, Replica
from agent.store import OutboxRow
from agent.transitions import TRANSITIONS, IllegalTransitionError

# Of enums, looked up once: at each message an attribute of a class costs as much as a small call.
_OFF: Final = State.OFF
_WAITING: Final = State.WAITING
_CONNECTING: Final = State.CONNECTING
_JOINING: Final = State.JOINING
_IDLE: Final = State.IDLE
_SENDING: Final = State.SENDING
_APPLIED: Final = Outcome.APPLIED
_ROLLED_BACK: Final = Outcome.ROLLED_BACK


class Session(Receiving):
    """One device's session. `probes` counts the paths that matter; `replica_type` is for tests of the checks.

    May be called from any thread: it holds the database's lock while it works, as applications' writes do."""

    __slots__ = (
        "_batch_sent_at", "_busy", "_connect_at", "_connect_attempts", "_due_at", "_early", "_effects",
        "_hello_acked_u", "_hello_attempts", "_hello_n", "_now", "_parts",
        "_pause_until", "_queue", "_resend_at", "_resend_attempts", "_resuming", "_stable_at", "boot_id", "config",
        "database", "digests", "hn", "last_ack_ms", "mints", "nonces", "probes", "random", "replica", "state", "store",
        "timer_at_ms", "wait_reason",
    )  # fmt: skip

    digests_type: ClassVar[type[Digests]] = Digests

    def __init__(
        self,
        database: Database,
        config: AgentConfig,
        probes: Counter[str],
        replica_type: type[Replica] = Replica,
    ) -> None:
        self.database = database
        self.store = database.store
        self.config = config
        self.probes = probes
        self.random = database.random
        self.replica = replica_type(database, probes)
        self.state = _OFF
        self.timer_at_ms = NEVER
        self.boot_id = self.hn = ""
        self.nonces: dict[FeedName, str] = {}
        self.last_ack_ms: int | None = None
        self.mints = 0  # of new epochs since boot, by an adopted device
        self._now = 0
        self._busy = False  # receiving: events of callbacks wait in the queue
        self._queue: list[Event] = []
        self._effects: list[Effect] = []
        self._connect_at = self._hello_at = self._resend_at = self._gap_at = self._stable_at = self._due_at = NEVER
        self._connect_attempts = self._hello_attempts = self._resend_attempts = 0
        self._hello_n = self._hello_acked_u = 0  # the last hello's number, and what was acknowledged when it was sent
        self._hello_sent_at = self._asked_at = self._part_at = -NEVER
        self._hello_open = self._hello_wanted = False  # the last hello has no answer yet; another is due before long
        self._batch_sent_at = NEVER  # when the batch in flight was first sent since boot
        self._pause_until, self.wait_reason = -NEVER, ""  # the relay wants no message before; why, until it answers
        self._resuming = False  # a batch was in flight when the connection came up
        self._early = Early(config.gap_rows_max)
        self._parts = Parts()
        self._tails = {}
        self.digests = self.digests_type(self)

    def receive(self, event: Event, now_ms: int) -> list[Effect]:
        """One event in, what is to be done out. `now_ms`: monotonic, never less than before.

        An event that comes out of this call (an application's callback has written) waits for its end; its effects are
        among this call's. Raises IllegalTransitionError when the driver errs; after any error start another session:
        the effects are lost."""
        with self.database.lock:
            if self._busy:
                self._queue.append(event)
                return []
            self._now = now_ms
            effects: list[Effect] = []
            self._effects = effects
            self._busy = True
            self.store.send_id = ""
            try:
                self._step(event)
                while self._queue:
                    self._step(self._queue.pop(0))
                if self.database.timed and self.state is not _OFF:
                    self.see_what_is_due()
            finally:
                self._busy = False
            if self.state is _IDLE:
                self.store.send_id = self.boot_id  # the next write is marked as sent when it is made
            at = min(
                self._connect_at, self._hello_at, self._resend_at, self._gap_at, self._stable_at, self._due_at,
                self.digests.at_ms,
            )  # fmt: skip
            if at != self.timer_at_ms:
                self.timer_at_ms = at
                if at != NEVER:
                    effects.append(SetTimer(at))
            return effects

    def _step(self, event: Event) -> None:
        entry = TRANSITIONS[self.state].get(type(event))
        if entry is None:
            raise IllegalTransitionError(f"{type(event).__name__} in state {self.state.value}")
        getattr(self, entry[0])(event)
        if self.state not in entry[1]:
            raise IllegalTransitionError(f"{type(event).__name__} led to {self.state.value}")

    # ---------------------------------------------------------------- life of a connection

    def on_boot(self, _: Event) -> None:
        store, random = self.store, self.random
        with store.transaction():
            if not store.identity.adopted:
                store.rename_epoch(ids.epoch(random))
            for _feed in store.drop_cursors_of_other_models(self.replica.fingerprints):
                self.probes["feed_models_changed"] += 1
            for feed in self.replica.feeds_in_memory:
                store.drop_cursor(feed)
        self.boot_id = ids.nonce(random)
        self.hn = ids.nonce(random)
        self.nonces = {feed: ids.nonce(random) for feed in self.replica.feeds}
        self._hello_n = int.from_bytes(random.bytes(4), "big")  # an ack from before the boot answers no hello of now
        self._batch_sent_at = NEVER
        self.state = _WAITING
        self._connect_at = self._now + int(random.unit() * self.config.boot_jitter_ms)
        self.digests.on_boot(self._now)

    def on_timer_waiting(self, _: Event) -> None:
        if self._now >= self._connect_at:
            self._connect_at = NEVER
            self.state = _CONNECTING
            self._effects.append(CONNECT)

    def on_connected(self, _: Event) -> None:
        self._stable_at = self._now + self.config.stable_ms
        self.settle_state()
        self._resuming = bool(self.store.in_flight)
        if self._resuming:
            self._resend_attempts = 0
            self._resend_at = self._now + self.wait_ms(0)  # unless the answer to the hello comes first
        self._hello_attempts = 0
        self.say_hello()
        self.digests.on_connected(self._now)

    def on_disconnected(self, _: Event) -> None:
        config = self.config
        self.state = _WAITING
        # Full jitter, unless configured; the back-off starts anew only after a connection that held (no flapping).
        ceiling = min(config.connect_cap_ms, config.connect_base_ms << min(self._connect_attempts, 20))
        self._connect_attempts += 1
        spread = self.random.unit() * ceiling * config.connect_jitter
        self._connect_at = self._now + int(ceiling * (1.0 - config.connect_jitter) + spread)
        self.forget_connection()

    def on_stop(self, _: Event) -> None:
        if self.state is not _WAITING:
            self._effects.append(DISCONNECT)
        self.state = _OFF
        self._connect_at = self._due_at = NEVER
        self.forget_connection()

    def forget_connection(self) -> None:
        self._hello_at = self._resend_at = self._gap_at = self._stable_at = NEVER
        self._hello_open = False
        self._early.clear()
        self._parts.clear()
        self._tails = {}
        self.digests.forget_connection()

    def on_nothing(self, _: Event) -> None:
        """Seen, and no reason to act: what waits is found when the state allows it."""

    def on_compare(self, _: Event) -> None:
        self.digests.compare_soon(self._now)

    @property
    def is_calm(self) -> bool:
        """Whether, as far as the device knows, no message is on its way in either direction, and it may speak."""
        return (
            self.state is _IDLE
            and not self._hello_open
            and not self._early
            and self._now >= self._pause_until
            and self.database.clock.corrected
            and not self.is_behind
        )

    def settle_state(self) -> None:
        if not self.store.identity.adopted:
            self.state = _JOINING
        else:
            self.state = _SENDING if self.store.in_flight else _IDLE

    # ---------------------------------------------------------------- timers

    def on_timer_online(self, _: Event) -> None:
        now = self._now
        if now >= self._stable_at:
            self._stable_at = NEVER
            self._connect_attempts = 0
        if now >= self._gap_at:
            self._gap_at = NEVER
            if self._early and self._hello_open:
                self._gap_at = now + self.config.gap_wait_ms  # what the open hello brings may fill it
            elif self._early:
                self.want_hello(0)
        if now >= self._hello_at:
            if self._tails:
                self.probes["catchup_asked_again"] += 1
            self.say_hello()
        if now >= self._resend_at:
            self.resend()
        if now >= self.digests.at_ms:
            self.digests.on_timer(now)

    def see_what_is_due(self) -> None:
        """For a schema with periods or lives."""
        wait_ms = due.see(self.database)
        self._due_at = NEVER if wait_ms is None else self._now + wait_ms
        self.flush()
        while self._queue:  # callbacks have written
            self._step(self._queue.pop(0))

    def wait_ms(self, attempts: int) -> int:
        """How long to wait for an answer: the base, then full jitter on top, doubling. A wait that could be zero (full
        jitter alone) would send again before any answer can have come."""
        base = self.config.resend_base_ms
        return base + int(self.random.unit() * min(self.config.resend_cap_ms, base << min(attempts, 20)))

    # ---------------------------------------------------------------- up

    def on_local_change(self, _: Event) -> None:
        if self.state is _IDLE:
            self.flush()
        elif self._batch_sent_at == NEVER and not self._resuming:
            # The write was marked as sent when it was made, and a message came before this news of it.
            self.send_batch(self.store.in_flight)

    def flush(self) -> None:
        """Sends the next batch if none is in flight. Marking it sent is durable and comes first (rule 2)."""
        store, config = self.store, self.config
        if self.state is not _IDLE:
            return
        rows = store.in_flight  # a write that was marked as sent when it was made
        if not rows and store.unsent_rows:
            rows = store.take_batch(config.batch_ops_max, config.batch_bytes_max, self.boot_id)
        if rows:
            self.state = _SENDING
            self._resend_attempts = 0
            self.send_batch(rows)

    def resend(self) -> None:
        """The batch in flight again, unchanged, until the relay acknowledges it."""
        self._resend_at = NEVER
        if self.store.in_flight and self.store.identity.adopted:
            self.probes["retransmit"] += 1
            self._resend_attempts += 1
            self.send_batch(self.store.in_flight)

    def send_batch(self, rows: list[OutboxRow]) -> None:
        if self._now < self._pause_until:
            self._resend_at = self._pause_until
            return
        self.send(outgoing.batch(self.store, rows, hn=self.hn))
        if self._batch_sent_at == NEVER:
            self._batch_sent_at = self._now
        self._resend_at = self._now + self.wait_ms(self._resend_attempts)

    def send(self, message: FromDevice) -> None:
        payload = encode(message, compact=self.config.compact)
        if self.config.compact and len(payload) > MESSAGE_BYTES_MAX:
            payload = encode(message)  # a list of short fractions is longer in MessagePack; the relay reads both
        self._effects.append(Send(payload))

    # ---------------------------------------------------------------- hello

    def say_hello(self) -> None:
        if self._now < self._pause_until:
            self._hello_at = self._pause_until
            return
        self._hello_n += 1
        self._hello_open, self._hello_wanted = True, False
        self._hello_sent_at = self._now
        if not self._hello_attempts:
            self._asked_at = self._now
        self._hello_acked_u = self.store.identity.acked_u
        self._tails = {}
        schema = self.database.schema.version
        self.send(outgoing.hello(self.store, self.nonces, hn=self.hn, n=self._hello_n, schema=schema))
        self._hello_at = self._now + self.wait_ms(self._hello_attempts)
        self._hello_attempts += 1

    def hello_answered(self) -> None:
        self._hello_open = False
        self.set_next_hello()

    def set_next_hello(self) -> None:
        """Due after the period; soon while something that the last one asked for has not come, and may be lost."""
        config = self.config
        if self.is_behind:
            self._hello_at = self._now + self.wait_ms(self._hello_attempts)
            return
        self._hello_attempts = 0
        spread = 1.0 + config.hello_jitter * (2.0 * self.random.unit() - 1.0)
        self._hello_at = self._now + int(config.hello_period_ms * spread)

    # ---------------------------------------------------------------- messages

    def on_received(self, event: Event) -> None:
        assert isinstance(event, Received)
        try:
            message = decode_to_device(event.payload)
            check_form(message)
        except MessageError as error:
            self.probes[f"message_refused_{error.code}"] += 1
            return
        if isinstance(message, Ack):
            self.on_ack(message)
        elif isinstance(message, Rows):
            self.on_rows(message)
        elif isinstance(message, Snapshot):
            self.on_snapshot(message)
        elif isinstance(message, Compared):
            self.digests.on_compared(message, self._now)
        elif isinstance(message, Wait):
            self.on_wait(message)
        else:
            self.on_reset(message)

    def on_ack(self, ack: Ack) -> None:
        store = self.store
        if ack.epoch != store.identity.epoch:
            self.probes["stale_ack"] += 1
            return
        if ack.n == self._hello_n and ack.up < self._hello_acked_u:
            # HEAD was read after it was asked for, and does not have what it once had: it was lost, or put back.
            self.probes["head_behind"] += 1
            if self._hello_open:
                self.learn_time(ack.now, self._hello_sent_at)
            self.mint(ack.epoch)
            return
        answered = ack.n == self._hello_n and self._hello_open
        joined = not store.identity.adopted
        outcome = self.replica.ack(ack)
        if outcome is _ROLLED_BACK:
            if answered:  # the next answer that tells the time may be far: a relay makes a new epoch wait
                self.learn_time(ack.now, self._hello_sent_at)
            self.rolled_back()
            return
        self.last_ack_ms = self._now
        self.wait_reason = ""
        if joined:
            self.hn = ids.nonce(self.random)
        if answered:
            self.learn_time(ack.now, self._hello_sent_at)
            self.replica.relay_goes_by(ack.schema or "")
            self.keep_tails(ack.tails or {})
            self.hello_answered()
        elif outcome is _APPLIED and not ack.n and self._batch_sent_at != NEVER:
            self.learn_time(ack.now, self._batch_sent_at)
        self.settle_state()
        if not store.in_flight:
            self._resend_at = self._batch_sent_at = NEVER
            self.flush()
        elif outcome is _APPLIED or (answered and self._resuming):
            # The relay took a part of the batch, or said after a break what it has: the rest goes at once.
            self._resuming = False
            self._resend_attempts = 0
            self.probes["retransmit"] += 1
            self.send_batch(store.in_flight)

    def learn_time(self, relay_now_ms: int, asked_ms: int) -> None:
        """Only from what answers a question of this boot: an old message, come again, must change nothing."""
        store = self.store
        correction = self.database.clock.learn(relay_now_ms, asked_ms, store.identity.correction_ms)
        if correction is not None:
            store.set_correction(correction)

    def on_reset(self, reset: Reset) -> None:
        identity = self.store.identity
        if reset.hn == self.hn and reset.inc is not UNSET and reset.inc != self.store.incarnation:
            self.enter_incarnation(reset.inc, reset.head_epoch)
            return
        if reset.hn != self.hn or reset.head_epoch == identity.epoch:
            self.probes["stale_reset"] += 1
            return
        if identity.adopted:
            self.mint(reset.head_epoch)
        elif reset.head_epoch is not None:
            self.begin_again(reset.head_epoch)

    def begin_again(self, replaces: str) -> None:
        """With an epoch of which no ack has come. HEAD may have had it all the same, and since then that of a copy: a
        snapshot from before is not what there is when the epoch begins for good."""
        with self.store.transaction():
            self.store.set_replaces(replaces)
            self.store.drop_cursor("device")
        if "device" in self.nonces:
            self.nonces["device"] = ids.nonce(self.random)
        self._early.clear()
        self._parts.clear()
        self._gap_at = NEVER
        self._hello_open = False
        self.say_hello()

    def enter_incarnation(self, incarnation: str, head_epoch: str | None) -> None:
        """The table is another one than this device knew: nothing that was asked of the old one counts any more."""
        self.probes["incarnation_entered"] += 1
        self.nonces = {feed: ids.nonce(self.random) for feed in self.replica.feeds}
        if self.store.identity.adopted:
            self.mint(head_epoch, incarnation)
            return
        self.replica.enter(incarnation)  # of an epoch that was never adopted nothing was ever sent
        self.hn = ids.nonce(self.random)
        self._early.clear()
        self._parts.clear()
        self._gap_at = NEVER
        self.say_hello()

    def on_wait(self, wait: Wait) -> None:
        """The relay asks for quiet. Writes go on and wait in the outbox; what came down meanwhile counts as ever."""
        if wait.hn != self.hn:
            self.probes["stale_wait"] += 1
            return
        self.probes["wait_heard"] += 1
        self.wait_reason = wait.reason
        pause_ms = min(wait.retry_after, self.config.pause_max_ms)
        self._pause_until = max(self._pause_until, self._now + pause_ms + int(self.random.unit() * pause_ms))
        self._hello_open = False
        self._hello_at = self._pause_until
        self._resend_at = self._pause_until if self.store.in_flight else NEVER

    def rolled_back(self) -> None:
        self.probes["rollback_seen"] += 1
        self.mint(self.store.identity.epoch)

    def mint(self, replaces: str | None, incarnation: str | None = None) -> None:
        self.mints += 1
        self.replica.mint(replaces, incarnation)
        self.hn = ids.nonce(self.random)
        if "device" in self.nonces:
            self.nonces["device"] = ids.nonce(self.random)
        self._early.clear()
        self._parts.clear()
        self._resend_at = self._gap_at = self._batch_sent_at = NEVER
        self._resuming = False
        self.settle_state()
        self._hello_attempts = 0
        self.say_hello()
