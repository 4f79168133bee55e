"""The agent's daemon in a thread of the test's process, on a simulated disk and with a clock of the test's. Its
configuration, socket and status are those of an AgentProcess that is not started.

Used by tests/live.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import trio
from agent_rig import AgentProcess
from live_rig import LIMIT_S, wall_ms
from relay_rig import FILE
from runtime_rig import RealClock
from simulated_disk import abandon

from agent.database import Database
from agent.protocol.log import Log
from agent.protocol.schema import Context, Schema
from agent.runtime.daemon import Daemon
from agent.runtime.opening import PROBLEM_AGAIN_MS
from agent.runtime.settings import load
from agent.runtime.systemd import Notifier
from fleet.rng import rng


@contextmanager
def daemon_on(
    connection: sqlite3.Connection, place: AgentProcess, wall: Callable[[], int] = wall_ms
) -> Iterator[list[dict[str, Any]]]:
    """`connection`: of simulated_disk. Gives the events of its log. At the end it is stopped, and the connection left
    without the tidying up of a close."""
    clock = RealClock()
    random = rng(1, "home-1", "agent")
    said: list[dict[str, Any]] = []

    def monotonic_ms() -> int:
        return int(clock.current_time() * 1000)

    database = Database(
        connection, Schema.load(FILE), Context("home-1", "main"), monotonic_ms=monotonic_ms, wall_ms=wall, random=random
    )
    log = Log(
        lambda line: said.append(json.loads(line)), wall_ms=wall, monotonic_ms=monotonic_ms, again_ms=PROBLEM_AGAIN_MS
    )
    daemon = Daemon(
        load(place.config), database, log, Notifier({}, 1), read=lambda: load(place.config),
        monotonic_ms=monotonic_ms, wall_ms=wall, chance=random.unit,
    )  # fmt: skip
    started = threading.Event()
    thread = threading.Thread(target=trio.run, args=(daemon.serve, started.set))
    thread.start()
    assert started.wait(LIMIT_S)
    try:
        yield said
    finally:
        daemon.stop_from_any_thread("the test")
        thread.join(LIMIT_S)
        abandon(connection)
