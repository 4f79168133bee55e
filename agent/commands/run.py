"""`run`: the agent itself, until it is told to end. Checks what it was given, opens the database, logs to stderr.

Called by agent.cli.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import Final

import trio

from agent.commands.system import SystemRandom, monotonic_ms, wall_ms
from agent.database import Database
from agent.files import open_file
from agent.protocol.commands.failure import INTERRUPTED, OK
from agent.protocol.log import Log
from agent.protocol.schema import Context, Schema
from agent.runtime.daemon import Daemon
from agent.runtime.settings import Settings, load
from agent.runtime.systemd import Notifier

PROBLEM_AGAIN_MS: Final = 3_600_000  # an outage may last for weeks, and the journal is on the device's own flash


def run(arguments: argparse.Namespace) -> int:
    path = os.path.abspath(arguments.config)
    settings = load(path)
    schema = Schema.load(settings.schema)
    log = log_of(settings)
    random = SystemRandom()
    connection = open_file(settings.database)
    try:
        database = Database(
            connection,
            schema,
            Context(settings.device, settings.account),
            monotonic_ms=monotonic_ms,
            wall_ms=wall_ms,
            random=random,
        )
        for difference in database.differences:
            log.event("schema-changed", "warning", difference=str(difference))
        daemon = Daemon(
            settings,
            database,
            log,
            Notifier(os.environ, os.getpid()),
            read=lambda: load(path),
            monotonic_ms=monotonic_ms,
            wall_ms=wall_ms,
            chance=random.unit,
        )
        return _ended(daemon)
    finally:
        connection.close()


def _ended(daemon: Daemon) -> int:
    """Runs it to its end. Raises what it failed by, out of its groups."""
    try:
        trio.run(daemon.run)
    except BaseExceptionGroup as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        if isinstance(error, KeyboardInterrupt):
            return INTERRUPTED
        raise error from None
    except KeyboardInterrupt:
        return INTERRUPTED
    return OK


def log_of(settings: Settings) -> Log:
    plain = settings.log_format == "plain" or (settings.log_format == "auto" and sys.stderr.isatty())
    return Log(
        _write,
        wall_ms=wall_ms,
        monotonic_ms=monotonic_ms,
        plain=plain,
        least=settings.log_level,
        again_ms=PROBLEM_AGAIN_MS,
    )


def _write(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
