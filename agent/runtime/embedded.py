"""The agent inside an application: in a thread of its own, while the application uses the database from any thread.

    with embedded("agent.toml") as agent:
        agent.database.on("Config", "*", print)
        agent.database.upsert("Status", {"rev": 1})

The same configuration, and the same parts as `fleet-agent run`, its socket included; but signals and systemd are the
application's own. Called by applications.
"""

from __future__ import annotations

import os
import sqlite3
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import trio

from agent.database import Database
from agent.protocol.log import Log
from agent.remote.handlers import Handlers
from agent.runtime.daemon import Daemon
from agent.runtime.opening import log_of, open_database
from agent.runtime.settings import Settings, load
from agent.runtime.systemd import Notifier
from agent.system import SystemRandom, monotonic_ms, wall_ms


class Embedded:
    """`write` takes each line of the log; `handlers`: remote commands that the application carries out
    (docs/commands.md). Raises InputError and StoreError, as `fleet-agent run` tells them."""

    def __init__(
        self, config: str | Path, write: Callable[[str], object] | None = None, handlers: Handlers | None = None
    ) -> None:
        self._path = os.path.abspath(config)
        self.settings: Settings = load(self._path)
        self._write = write or _to_stderr
        self._handlers = handlers
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None
        self._connection: sqlite3.Connection | None = None
        self.database: Database
        self.daemon: Daemon

    def __enter__(self) -> Self:
        log = log_of(self.settings, self._write)
        random = SystemRandom()
        self._connection, self.database = open_database(self.settings, random, log)
        try:
            self.daemon = self._daemon(log, random)
        except BaseException:
            self._connection.close()
            raise
        started = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(started,), name="fleet-agent", daemon=True)
        self._thread.start()
        started.wait()
        self._raise()
        return self

    def _daemon(self, log: Log, random: SystemRandom) -> Daemon:
        return Daemon(
            self.settings,
            self.database,
            log,
            Notifier({}, os.getpid()),
            read=lambda: load(self._path),
            monotonic_ms=monotonic_ms,
            wall_ms=wall_ms,
            chance=random.unit,
            handlers=self._handlers,
        )

    def __exit__(self, *_: object) -> None:
        """Sends what waits, within a limit, and closes the database."""
        self.daemon.stop_from_any_thread("the application")
        assert self._thread is not None and self._connection is not None
        self._thread.join()
        self._connection.close()
        self._raise()

    def _run(self, started: threading.Event) -> None:
        try:
            trio.run(self.daemon.serve, started.set)
        except BaseException as error:
            self._failure = error
        finally:
            started.set()

    def _raise(self) -> None:
        failure, self._failure = self._failure, None
        while isinstance(failure, BaseExceptionGroup):
            failure = failure.exceptions[0]
        if failure is not None:
            if self._connection is not None:
                self._connection.close()
            raise failure

    def status(self) -> dict[str, Any]:
        """As `fleet-agent status --json` has it."""
        return self.daemon.status()


embedded = Embedded


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
