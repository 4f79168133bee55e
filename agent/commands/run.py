"""`run`: the agent itself, until it is told to end. Checks what it was given, opens the database, logs to stderr.

Called by agent.cli.
"""

from __future__ import annotations

import argparse
import os
import sys

import trio

from agent.protocol.commands.failure import INTERRUPTED, OK
from agent.runtime.daemon import Daemon
from agent.runtime.opening import log_of, open_database
from agent.runtime.settings import load
from agent.runtime.systemd import Notifier
from agent.system import SystemRandom, monotonic_ms, wall_ms


def run(arguments: argparse.Namespace) -> int:
    path = os.path.abspath(arguments.config)
    settings = load(path)
    log = log_of(settings, _write)
    random = SystemRandom()
    connection, database = open_database(settings, random, log)
    try:
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


def _write(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
