"""Drives one device's session: events in, effects out, under trio. The daemon runs one; a process may run thousands.

One task feeds the session, one event at a time; another holds the connection while there is one. The session and its
database work in a thread (`threads`), so that a slow disk holds up this device alone; an application may write from any
thread at any time. What fails (a full disk, a mistake in a callback) is told once and tried again with back-off, while
the database goes on serving. Decides nothing about the protocol. Called by agent.runtime.daemon, and by whoever runs
agents in a process of their own.
"""

from __future__ import annotations

import contextlib
from collections import Counter, deque
from collections.abc import Callable
from typing import Any, Final

import msgspec
import trio

from agent.changes import Change
from agent.config import AgentConfig
from agent.database import Database
from agent.events import (
    BOOT,
    CONNECTED,
    DISCONNECTED,
    LOCAL_CHANGE,
    ONLINE,
    STOP,
    TIMER,
    Connect,
    Disconnect,
    Effect,
    Event,
    Received,
    Send,
    State,
)
from agent.file_errors import StoreError
from agent.protocol.log import Log
from agent.remote import events as remote
from agent.runtime.executor import Executor
from agent.runtime.gate import Gate
from agent.session import NEVER, Session
from agent.transport.port import Kind, Link, LinkError, Transport

_AHEAD_MAX: Final = 8  # messages that were read and wait for the session
_AGAIN_BASE_S: Final = 1.0  # after a failure of the database or of the session
_AGAIN_CAP_S: Final = 60.0
_HELD_S: Final = 60.0  # a session that worked so long starts that back-off anew
STOP_MS: Final = 5_000


class _Attempt:
    """One connection, from the session's wish for it to its end."""

    __slots__ = ("link", "scope", "why")

    def __init__(self) -> None:
        self.scope = trio.CancelScope()
        self.link: Link | None = None
        self.why = ""  # it was closed from here


class _Failed(Exception):
    """The session could not go on."""


class Part(msgspec.Struct, frozen=True):
    """What may be exchanged while the agent runs."""

    config: AgentConfig
    transport: Transport
    gate: Gate


class Agent:
    """`part`: the numbers, the transport and the gate to begin with. `threads`: None to work in trio's own thread, for
    databases in memory. `chance`: uniform in [0, 1). `executor`: of remote commands, where the schema has them."""

    def __init__(
        self,
        database: Database,
        part: Part,
        *,
        monotonic_ms: Callable[[], int],
        chance: Callable[[], float],
        log: Log,
        threads: trio.CapacityLimiter | None = None,
        stop_ms: int = STOP_MS,
        executor: Executor | None = None,
        session_type: type[Session] = Session,
    ) -> None:
        self.database = database
        self.part = part
        self.log = log
        self.probes: Counter[str] = Counter() if executor is None else executor.commander.probes
        self.session: Session | None = None
        self.trouble: LinkError | None = None  # why there is no connection
        self.failure = ""  # why there is no session
        self.connected_ms: int | None = None
        self._monotonic_ms = monotonic_ms
        self._chance = chance
        self._threads = threads
        self._stop_ms = stop_ms
        self._executor = executor
        self._session_type = session_type
        self._next_part: Part | None = None
        self._stop_at: int | None = None
        self._ended = False
        self._news = False
        self._wake = trio.Event()
        self._room = trio.Event()
        self._wrote_something = trio.Event()
        self._inbox: deque[tuple[_Attempt, Event]] = deque()
        self._attempt: _Attempt | None = None
        self._told: Kind | None = None
        self._token: trio.lowlevel.TrioToken | None = None
        self._nursery: trio.Nursery | None = None
        self._handlers: trio.Nursery | None = None  # of commands that run: it outlives a session
        database.on_callback_error = self._callback_failed

    # ---------------------------------------------------------------- life

    async def run(self) -> None:
        """Until `stop`. Takes the database's `on_outbox`."""
        self._token = trio.lowlevel.current_trio_token()
        self.database.on_outbox = self._wrote
        async with trio.open_nursery() as self._handlers:
            await self._sessions()
            self._handlers.cancel_scope.cancel()
        self.database.on_outbox = _nothing

    async def _sessions(self) -> None:
        """One after another, until `stop`."""
        attempts = 0
        config = self.part.config
        while True:
            began = trio.current_time()
            self.failure = await self._live(config)
            if self.failure:
                attempts = 0 if trio.current_time() - began >= _HELD_S else attempts
                if not attempts:
                    self.log.over("session-failed")
                self.log.problem("session-failed", reason=self.failure)
                await self._pause(self._chance() * min(_AGAIN_CAP_S, _AGAIN_BASE_S * 2 ** min(attempts, 16)))
                attempts += 1
            if self._next_part is not None:
                self.part, self._next_part = self._next_part, None
                self._stop_at = None
            elif self._stop_at is not None:
                break
            # The wait after a boot is for power that comes back for many at once: not for another session.
            config = msgspec.structs.replace(self.part.config, boot_jitter_ms=0)

    def stop(self) -> None:
        """In good order: what waits is sent, within `stop_ms`; then the connection is closed and `run` returns."""
        self._next_part = None
        self._ended = True
        self._halt()

    def replace(self, part: Part) -> None:
        """As after a stop and another start, with another part; the database stays as it is."""
        if not self._ended:
            self._next_part = part
            self._halt()

    def _halt(self) -> None:
        if self._stop_at is None:
            self._stop_at = self._monotonic_ms() + self._stop_ms
        self._wake.set()

    async def _pause(self, seconds: float) -> None:
        with trio.move_on_after(seconds):
            while self._stop_at is None:
                self._wake = trio.Event()
                await self._wake.wait()

    async def _live(self, config: AgentConfig) -> str:
        """One session, until it is to stop (""), or until it failed: then why."""
        self.session = self._session_type(self.database, config, self.probes)
        self._inbox.clear()
        self._attempt = None
        self._news = False
        failure = ""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                event: Event | remote.Event = BOOT
                while True:
                    await self._feed(self.session, event)
                    if event is STOP:
                        break
                    event = await self._next(self.session)
            except _Failed as error:
                failure = str(error)
            nursery.cancel_scope.cancel()
        self._nursery = None
        self.connected_ms = None
        return failure

    def _work(
        self, session: Session, event: Event | remote.Event, now_ms: int
    ) -> tuple[list[Effect], list[remote.Effect]]:
        """In the session's thread: the event, then a look at commands, for which the event may have been news."""
        effects = session.receive(event, now_ms) if isinstance(event, Event) else []
        executor = self._executor
        if executor is None or event is STOP:
            return effects, []
        ended = event if isinstance(event, remote.Event) else remote.LOOK
        return effects, executor.commander.receive(ended, now_ms)

    async def _feed(self, session: Session, event: Event | remote.Event) -> None:
        now_ms = self._monotonic_ms()
        try:
            if self._threads is None:
                effects, orders = self._work(session, event, now_ms)
            else:
                effects, orders = await trio.to_thread.run_sync(
                    self._work, session, event, now_ms, limiter=self._threads
                )
        except StoreError as error:
            raise _Failed(str(error)) from error
        except Exception as error:
            self.log.event("session-error", "error", during=type(event).__name__, **_where(error))
            raise _Failed(f"internal error: {type(error).__name__}: {error}") from error
        if self._executor is not None:
            assert self._handlers is not None
            self._executor.carry_out(orders, self._handlers, self._notice)
        for effect in effects:
            if isinstance(effect, Send):
                self._send(effect.payload)
            elif isinstance(effect, Connect):
                assert self._nursery is not None
                self._attempt = _Attempt()
                self._nursery.start_soon(self._connect, self._attempt)
            elif isinstance(effect, Disconnect) and self._attempt is not None:
                self._attempt.scope.cancel()
                self._attempt = None

    async def _next(self, session: Session) -> Event | remote.Event:
        """The next event, when there is one."""
        while True:
            now_ms = self._monotonic_ms()
            if self._stop_at is not None and (now_ms >= self._stop_at or not self._finishing(session)):
                return STOP
            if self._news:
                self._news = False
                return LOCAL_CHANGE
            if session.timer_at_ms <= now_ms:
                return TIMER
            while self._inbox:
                attempt, event = self._inbox.popleft()
                self._room.set()
                if attempt is self._attempt:
                    return self._arrived(event)
            if self._executor is not None and (ended := self._executor.due(now_ms)) is not None:
                return ended
            self._look_at_gate(now_ms)
            at_ms = min(session.timer_at_ms, NEVER if self._stop_at is None else self._stop_at)
            if self._executor is not None:
                at_ms = min(at_ms, self._executor.wake_at_ms)
            if self._attempt is not None and self._attempt.link is not None:
                at_ms = min(at_ms, now_ms + self.part.gate.look_again_ms(now_ms))
            self._wake = trio.Event()
            if at_ms >= NEVER:
                await self._wake.wait()
            else:
                with trio.move_on_after((at_ms - now_ms) / 1000):
                    await self._wake.wait()

    def _finishing(self, session: Session) -> bool:
        """Whether something of the device's own is on its way, and may get there."""
        return session.state in (State.SENDING, State.IDLE) and self._need() and not session.wait_reason

    def _need(self) -> bool:
        """Whether something waits to be sent."""
        store = self.database.store
        return bool(store.unsent_rows or store.in_flight) or not store.identity.adopted

    # ---------------------------------------------------------------- connection

    def _arrived(self, event: Event) -> Event:
        if event is DISCONNECTED:
            self._attempt = None
            self.connected_ms = None
        return event

    async def _connect(self, attempt: _Attempt) -> None:
        part = self.part
        with attempt.scope:
            await self._wait_for_gate(part.gate)
            part.gate.connecting(part.transport.connect_bytes, self._monotonic_ms())
            try:
                await part.transport.serve(
                    lambda link: self._up(attempt, link), lambda data: self._heard(attempt, data)
                )
            except LinkError as error:
                self._no_connection(error)
            except Exception as error:
                self.log.event("transport-error", "error", **_where(error))
                self._no_connection(LinkError("internal", f"{type(error).__name__}: {error}", "please report it"))
        if attempt.link is not None:
            part.gate.disconnected(self._monotonic_ms())
            attempt.link = None
        self._inbox.append((attempt, DISCONNECTED))
        self._wake.set()

    async def _wait_for_gate(self, gate: Gate) -> None:
        told = ""
        while True:
            now_ms = self._monotonic_ms()
            wait_ms = gate.opens_in_ms(now_ms, need=self._need())
            if not wait_ms:
                return
            why = gate.why_shut(now_ms, need=self._need())
            if why != told:
                told = why
                self.log.event("connection-waits", "debug" if why == "on-demand" else "info", reason=why, ms=wait_ms)
            with trio.move_on_after(wait_ms / 1000):
                await self._wrote_something.wait()

    def _up(self, attempt: _Attempt, link: Link) -> None:
        part = self.part
        now_ms = self._monotonic_ms()
        attempt.link = link
        self.connected_ms = now_ms
        self.trouble = None
        part.gate.connected(part.transport.idle_bytes_per_s, now_ms)
        if self._told is not None:
            self.log.over("no-connection", self._told)
            self._told = None
        self.log.event("connected", to=part.transport.place)
        self._inbox.append((attempt, CONNECTED))
        self._wake.set()

    async def _heard(self, attempt: _Attempt, payload: bytes) -> None:
        self.part.gate.carried(len(payload) + self.part.transport.message_bytes, self._monotonic_ms())
        self._inbox.append((attempt, Received(payload)))
        self._wake.set()
        while len(self._inbox) > _AHEAD_MAX:
            self._room = trio.Event()
            await self._room.wait()

    def _send(self, payload: bytes) -> None:
        attempt = self._attempt
        if attempt is not None and attempt.link is not None:
            self.part.gate.carried(len(payload) + self.part.transport.message_bytes, self._monotonic_ms())
            attempt.link.send(payload)

    def _no_connection(self, error: LinkError) -> None:
        """Told when the reason is another one than before."""
        self.trouble = error
        if self._told is not None and self._told != error.kind:
            self.log.forget("no-connection", self._told)
        self._told = error.kind
        self.log.problem("no-connection", error.kind, reason=error.message, hint=error.hint)

    def _look_at_gate(self, now_ms: int) -> None:
        attempt, executor = self._attempt, self._executor
        again = executor is not None and executor.reconnects
        if executor is not None:
            executor.reconnects = False  # where there is no connection, the next one does it
        if attempt is None or attempt.link is None or attempt.why:
            return
        why = "resync" if again else self.part.gate.closes(now_ms, need=self._need())
        if why:
            self.log.event("connection-closed", "debug" if why == "idle" else "info", reason=why)
            attempt.why = why
            attempt.scope.cancel()

    # ---------------------------------------------------------------- applications

    def _notice(self) -> None:
        self._wake.set()

    def _wrote(self) -> None:
        """In any thread."""
        assert self._token is not None
        with contextlib.suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._see_news, idempotent=True)

    def _see_news(self) -> None:
        self._news = True
        self._wake.set()
        self._wrote_something.set()
        self._wrote_something = trio.Event()

    def _callback_failed(self, change: Change, error: Exception) -> None:
        self.log.event("callback-failed", "error", change=repr(change), **_where(error))

    # ---------------------------------------------------------------- what is told

    @property
    def state(self) -> str:
        """Of the session, as agent.events.State has it; `failed` while there is none."""
        return "failed" if self.failure or self.session is None else self.session.state.value

    @property
    def is_online(self) -> bool:
        return self.session is not None and self.session.state in ONLINE


def _nothing() -> None:
    return None


def _where(error: BaseException) -> dict[str, Any]:
    """For the log: what went wrong, and the last frame of it."""
    import traceback  # seldom needed

    frame = traceback.extract_tb(error.__traceback__)[-1:]
    place = f"{frame[0].filename}:{frame[0].lineno}" if frame else ""
    return {"reason": f"{type(error).__name__}: {error}", "where": place}
