"""`fleet-agent run`: one device's agent as a process of its own, with its socket, its signals and systemd's watchdog.

Puts the parts together and ends them in order. It may be killed at any moment: what the database has said is durable.
Called by agent.commands.run.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable
from typing import Any, Final

import msgspec
import trio

from agent import due
from agent.api.server import Server, listen
from agent.api.serving import Serving
from agent.database import Database
from agent.file_errors import StoreError
from agent.protocol.errors import InputError
from agent.protocol.log import Log
from agent.protocol.version import __version__
from agent.remote.handlers import Handlers
from agent.runtime.driver import Agent
from agent.runtime.orders import executor_of
from agent.runtime.parts import part_of
from agent.runtime.settings import Settings
from agent.runtime.systemd import Notifier

CONNECT_THREADS: Final = 2
_KEEP_S: Final = 600.0  # between two notes of what is left of the budget
_BUDGET: Final = "budget"  # the note
# Until a restart.
_FIXED: Final = ("device", "account", "database", "schema", "socket", "allow_reboot", "reboot_spacing_ms")
_CLOCK_FLOOR_MS: Final = 1_700_000_000_000  # November 2023: a clock that says less was never set


class Daemon:
    """`read` reads the configuration anew. `handlers`: the application's remote commands."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        log: Log,
        notifier: Notifier,
        *,
        read: Callable[[], Settings],
        monotonic_ms: Callable[[], int],
        wall_ms: Callable[[], int],
        chance: Callable[[], float],
        handlers: Handlers | None = None,
    ) -> None:
        """Raises InputError when the certificates are none, or the schema's models for commands are wrong."""
        self.settings = settings
        self.database = database
        self.log = log
        self._notifier = notifier
        self._read = read
        self._monotonic_ms = monotonic_ms
        self._wall_ms = wall_ms
        self._chance = chance
        self._began_ms = monotonic_ms()
        self._token: trio.lowlevel.TrioToken | None = None
        self._limiter = trio.CapacityLimiter(CONNECT_THREADS)
        self.agent = Agent(
            database,
            self._part(settings),
            monotonic_ms=monotonic_ms,
            chance=chance,
            log=log,
            threads=trio.CapacityLimiter(1),
            executor=executor_of(settings, database, handlers or Handlers(), self._short_status, log),
        )

    def _part(self, settings: Settings) -> Any:
        return part_of(
            settings,
            limiter=self._limiter,
            monotonic_ms=self._monotonic_ms,
            wall_ms=self._wall_ms,
            chance=self._chance,
        )

    async def run(self) -> None:
        """Until SIGTERM or SIGINT; a second one ends it at once, by KeyboardInterrupt. Raises as `serve` does."""
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._signals, signals)
                await self.serve()
                nursery.cancel_scope.cancel()

    async def serve(self, started: Callable[[], object] | None = None) -> None:
        """Until `stop`. Raises StoreError when the socket cannot be made. `started` is called when all is up."""
        self._token = trio.lowlevel.current_trio_token()
        settings = self.settings
        listening = listen(settings.socket) if settings.socket else None
        async with trio.open_nursery() as nursery:
            self._restore_budget()
            nursery.start_soon(self._run_agent, nursery.cancel_scope)
            nursery.start_soon(self._keep_budget)
            nursery.start_soon(self._watchdog)
            if listening is not None:
                place = {"database": settings.database, "schema": settings.schema}
                server = Server(Serving(self.database, self.status, place), self.log, self._wall_ms)
                nursery.start_soon(server.run, listening, settings.socket)
            self._say_started()
            if started is not None:
                started()

    def stop(self, why: str) -> None:
        """Sends what waits, within a limit, and ends."""
        self.log.event("stopping", why=why, pending=self.database.pending())
        self._notifier.tell("STOPPING=1")
        self.agent.stop()

    def stop_from_any_thread(self, why: str) -> None:
        assert self._token is not None
        with contextlib.suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self.stop, why)

    async def _run_agent(self, scope: trio.CancelScope) -> None:
        await self.agent.run()
        self._note_budget()
        self.log.event("stopped")
        scope.cancel()

    def _say_started(self) -> None:
        settings = self.settings
        self.log.event(
            "started",
            version=__version__,
            device=settings.device,
            database=settings.database,
            to=settings.address.place,
            **({"socket": settings.socket} if settings.socket else {}),
        )
        if self._wall_ms() < _CLOCK_FLOOR_MS and self.database.store.identity.correction_ms is None:
            hint = "writes get the right time once the relay has told it; TLS needs the clock to be set before"
            self.log.event("clock-not-set", "warning", wall_ms=self._wall_ms(), hint=hint)
        self._notifier.tell("READY=1", f"STATUS=serving {settings.database}")

    async def _signals(self, signals: Any) -> None:
        stopping = False
        async for number in signals:
            if number == signal.SIGHUP:
                self._reload()
            elif stopping:
                raise KeyboardInterrupt
            else:
                stopping = True
                self.stop(signal.Signals(number).name)

    def _reload(self) -> None:
        """The file again: connection, numbers and log. What is wrong in it is told, and all stays as it was."""
        self._notifier.tell("RELOADING=1", f"MONOTONIC_USEC={self._monotonic_ms() * 1000}")
        old = self.settings
        try:
            read = self._read()
            settings = msgspec.structs.replace(read, **{name: getattr(old, name) for name in _FIXED})
            part = self._part(settings)
        except InputError as error:
            for problem in error.problems:
                self.log.event("config-refused", "error", problem=str(problem))
        else:
            fixed = [name for name in _FIXED if getattr(old, name) != getattr(read, name)]
            if fixed:
                self.log.event("restart-needed", "warning", keys=", ".join(fixed), hint="these stay as they were")
            self._note_budget()
            part.gate.budget.restore(self._kept_budget(), self._monotonic_ms(), self._wall_ms())
            self.settings = settings
            self.log.least = settings.log_level
            self.log.event("reloaded", to=settings.address.place)
            self.agent.replace(part)
        self._notifier.tell("READY=1")

    async def _watchdog(self) -> None:
        """As long as this loop turns, the agent lives."""
        interval = self._notifier.watchdog_s / 2
        while interval:
            self._notifier.tell("WATCHDOG=1")
            await trio.sleep(interval)

    # What is left of a budget, over restarts.

    def _kept_budget(self) -> bytes:
        with self.database.lock:
            return self.database.store.note(_BUDGET) or b""

    def _restore_budget(self) -> None:
        budget = self.agent.part.gate.budget
        if budget.is_limited:
            budget.restore(self._kept_budget(), self._monotonic_ms(), self._wall_ms())

    def _note_budget(self) -> None:
        budget = self.agent.part.gate.budget
        if not budget.is_limited:
            return
        try:
            with self.database.lock:
                kept = budget.kept(self._monotonic_ms(), self._wall_ms())
                self.database.store.set_note(_BUDGET, kept)
        except StoreError as error:
            self.log.event("budget-not-noted", "warning", reason=str(error))

    async def _keep_budget(self) -> None:
        while True:
            await trio.sleep(_KEEP_S)
            await trio.to_thread.run_sync(self._note_budget)

    # What is told.

    def _short_status(self) -> dict[str, Any]:
        """For the cloud, which asks by a command."""
        return {name: value for name, value in self.status().items() if name != "probes" and value is not None}

    def status(self) -> dict[str, Any]:
        """For `fleet-agent status`. In any thread."""
        agent, now_ms = self.agent, self._monotonic_ms()
        session, store = agent.session, self.database.store
        data, messages = agent.part.gate.budget.left(now_ms)
        trouble = agent.trouble
        with self.database.lock:
            pending, in_flight = store.outbox_rows, len(store.in_flight)
            letters = len(self.database.dead_letters())
            due_ms = due.next_ms(self.database)
        since = agent.connected_ms
        acked = session.last_ack_ms if session is not None else None
        found: dict[str, Any] = {
            "version": __version__,
            "device": self.settings.device,
            "account": self.settings.account,
            "state": agent.state,
            "to": agent.part.transport.place,
            "connected_s": None if since is None else (now_ms - since) / 1000,
            "problem": agent.failure or (None if trouble is None else str(trouble)),
            "asked_to_wait": session.wait_reason if session is not None else "",
            "acknowledged_s": None if acked is None else (now_ms - acked) / 1000,
            "pending": pending,
            "in_flight": in_flight,
            "rejected": letters,
            "due_s": None if due_ms is None else (due_ms - self.database.clock.now_ms()) / 1000,
            "clock_corrected": self.database.clock.corrected,
            "budget_bytes": data,
            "budget_messages": messages,
            "uptime_s": (now_ms - self._began_ms) / 1000,
            "database": self.settings.database,
            "probes": dict(sorted(agent.probes.items())),
        }
        return found
