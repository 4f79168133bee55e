"""The daemon's own part: a clock that was never set, a budget over restarts, a reload; in this process. Pytest only."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio
from live_rig import free_port
from relay_rig import FILE, NOW_MS
from runtime_rig import RealClock, looked_for

from agent.database import Database
from agent.files import open_memory
from agent.protocol.log import Log
from agent.protocol.schema import Context, Schema
from agent.runtime.daemon import Daemon
from agent.runtime.settings import Settings, load
from agent.runtime.systemd import Notifier
from fleet.rng import rng

BUDGET = "bytes_per_day = '24kb'\n"


class Bench:
    """A daemon on a database in memory; nobody is where it connects to."""

    def __init__(self, folder: Path, connection: str = "", wall_ms: int = NOW_MS, database: Database | None = None):
        (folder / "schema.json5").write_text(FILE.read_text())
        self.folder = folder
        self.said: list[dict[str, Any]] = []
        self.wall_ms = wall_ms
        clock = RealClock()

        def monotonic_ms() -> int:
            return int(clock.current_time() * 1000)

        log = Log(
            lambda line: self.said.append(json.loads(line)), wall_ms=lambda: self.wall_ms, monotonic_ms=monotonic_ms
        )
        random = rng(1, "home-1", "agent")
        self.database = database or Database(
            open_memory(), Schema.load(FILE), Context("home-1", "main"), monotonic_ms=monotonic_ms,
            wall_ms=lambda: self.wall_ms, random=random,
        )  # fmt: skip
        self.configure(connection)
        self.daemon = Daemon(
            self.settings(), self.database, log, Notifier({}, 1), read=self.settings, monotonic_ms=monotonic_ms,
            wall_ms=lambda: self.wall_ms, chance=random.unit,
        )  # fmt: skip

    def configure(self, connection: str, more: str = "") -> None:
        path = self.folder / "agent.toml"
        path.touch(0o600)
        url = f"mqtt://127.0.0.1:{free_port()}"
        path.write_text(
            f"[device]\nid = 'home-1'\naccount = 'main'\n[connection]\nurl = '{url}'\n{connection}"
            f"[session]\nboot_jitter = '0s'\n[api]\nsocket = 'none'\n{more}"
        )

    def settings(self) -> Settings:
        return load(self.folder / "agent.toml")

    def events(self, name: str) -> list[dict[str, Any]]:
        return [event for event in self.said if event["event"] == name]

    def live(self, body: Callable[[], Awaitable[None]]) -> None:
        async def main() -> None:
            with trio.fail_after(60):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self.daemon.serve)
                    await looked_for(lambda: self.events("started"))
                    await body()
                    self.daemon.stop("the test")

        trio.run(main)
        assert self.events("stopped")


async def nothing() -> None:
    await trio.lowlevel.checkpoint()


@pytest.mark.parametrize(("wall_ms", "told"), [(1_000, True), (NOW_MS, False)])
def test_a_clock_that_was_never_set_is_told(tmp_path: Path, wall_ms: int, told: bool) -> None:
    bench = Bench(tmp_path, wall_ms=wall_ms)
    bench.live(nothing)
    assert bool(bench.events("clock-not-set")) is told
    bench.database.upsert("Setting", {"name": "a", "rev": 1})  # and is used all the same
    bench.database.store.set_correction(NOW_MS)
    again = Bench(tmp_path, wall_ms=wall_ms, database=bench.database)
    again.live(nothing)
    assert not again.events("clock-not-set"), "an earlier boot has learned the time"


def test_what_is_left_of_a_budget_outlives_the_agent(tmp_path: Path) -> None:
    bench = Bench(tmp_path, BUDGET)

    async def attempts() -> None:
        await looked_for(lambda: bench.events("no-connection"))

    assert bench.daemon.status()["budget_bytes"] == 24 * 1024
    bench.live(attempts)
    left = bench.daemon.status()["budget_bytes"]
    assert left < 24 * 1024
    again = Bench(tmp_path, BUDGET, database=bench.database)

    async def look() -> None:
        assert again.daemon.status()["budget_bytes"] <= left
        await trio.lowlevel.checkpoint()

    again.live(look)
    assert again.daemon.status()["budget_messages"] is None


def test_a_reload_keeps_what_is_left_and_says_what_needs_a_restart(tmp_path: Path) -> None:
    bench = Bench(tmp_path, BUDGET)

    async def body() -> None:
        await looked_for(lambda: bench.events("no-connection"))
        before = bench.daemon.status()["budget_bytes"]
        bench.configure(BUDGET, "[database]\nfile = 'other.db'\n[log]\nlevel = 'error'\n")
        bench.daemon._reload()
        assert bench.events("restart-needed")[0]["keys"] == "database"
        assert bench.daemon.status()["database"].endswith("agent.db")
        await looked_for(lambda: bench.daemon.agent._next_part is None)
        assert bench.daemon.status()["budget_bytes"] <= before
        bench.daemon.log.least = "info"

    bench.live(body)
    assert bench.events("restart-needed") and bench.daemon.settings.log_level == "error"
