"""An agent that was offline for days catches up: in batches of bounded size, with flat memory, while applications on
the device write on and changes from the cloud arrive. The real agent, a real broker, the relay on a table in memory.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest
from agent_rig import AgentProcess
from broker_relay import BrokerRelay
from live_rig import Mosquitto, until, wall_ms
from relay_rig import FILE, config, stored

from agent.database import Database
from agent.files import open_file
from agent.protocol.schema import Context, Schema
from fleet.rng import rng

BATCH_BYTES_MAX: Final = 128 * 1024  # of one message, by AWS IoT Core
DAYS_MS: Final = 3 * 24 * 3_600_000
GROWTH_KB_MAX: Final = 8 * 1024
BLOCK: Final = 500


def write_offline(agent: AgentProcess, count: int) -> None:
    """So many changes of different items, days ago: of models of both kinds, small ones and a stretch of large ones."""
    chance = random.Random(1)
    connection = open_file(agent.folder / "agent.db")
    database = Database(
        connection, Schema.load(FILE), Context("home-1", "main"), monotonic_ms=lambda: 0,
        wall_ms=lambda: wall_ms() - DAYS_MS, random=rng(1, "home-1", "agent"),
    )  # fmt: skip
    for start in range(0, count, BLOCK):
        with database.transaction():
            for n in range(start, min(start + BLOCK, count)):
                size = chance.randrange(500, 6_000) if n % 20_000 in range(500, 1_000) else chance.randrange(10, 60)
                model, name = ("Fault", "id") if n % 3 else ("Setting", "name")
                database.create(model, {name: f"old-{n:06}", "rev": 1, "text": "x" * size})
    assert database.pending() == count + 1  # and the sweep of a new database
    connection.close()


class CatchUp:
    """The agent while it catches up: each `turn` writes something new, but at the end, and looks."""

    def __init__(self, agent: AgentProcess, relay: BrokerRelay, count: int) -> None:
        self.agent = agent
        self.relay = relay
        self.half = count // 2
        self.client = agent.client()
        self.left = count
        self.new = 0
        self.changed = False  # by the cloud, half way
        self.config_at = 0  # what was left when that change had come
        self.slowest_s = 0.0

    def turn(self) -> None:
        if self.left > BLOCK:  # else there would always be something left
            began = time.monotonic()
            self.client.ask("create", model="Fault", item={"id": f"new-{self.new:06}", "rev": 1})
            self.new += 1
            self.slowest_s = max(self.slowest_s, time.monotonic() - began)
        self.left = self.client.ask("status")["status"]["pending"]
        if not self.changed and self.left <= self.half:
            self.relay.put(stored(config(7)))
            self.changed = True
        elif self.changed and not self.config_at and self.client.ask("get", model="Config", item={})["item"]:
            self.config_at = self.left
        self.agent.pause()

    def go(self) -> None:
        """Until nothing is left, for as long as it goes on."""
        while self.left:
            until(partial(self.reached, max(0, self.left - BLOCK)), f"fewer than {self.left} are left", self.turn)

    def reached(self, goal: int) -> bool:
        return self.left <= goal


def memory_kb(process: int, name: str) -> int:
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    (found,) = [int(line.split()[1]) for line in lines if line.startswith(f"{name}:")]
    return found


def catches_up(folder: Path, broker: Mosquitto, count: int) -> str:
    """What was measured."""
    with BrokerRelay(broker.port) as relay, AgentProcess(folder, {"url": f'"{broker.url}"'}) as agent:
        write_offline(agent, count)
        agent.start().wait("started")
        assert agent.process is not None
        first_kb = memory_kb(agent.process.pid, "VmRSS")
        began = time.monotonic()
        run = CatchUp(agent, relay, count)
        run.go()
        took_s = time.monotonic() - began
        most_kb = memory_kb(agent.process.pid, "VmHWM")
        run.client.close()
        assert agent.terminate() == 0 and not agent.odd
        assert not agent.events("session-failed")
        items = Counter(item["_type"] for item in relay.items())
    settings = (count + 2) // 3
    assert items == {"Fault": count - settings + run.new, "Setting": settings, "Config": 1}
    largest = max(relay.sizes)
    assert BATCH_BYTES_MAX * 2 // 3 < largest < BATCH_BYTES_MAX
    assert run.config_at > BLOCK, "changes from the cloud do not wait for the end"
    grown_kb = most_kb - first_kb
    assert grown_kb < GROWTH_KB_MAX, "memory is not flat"
    return (
        f"{count} changes in {took_s:.0f} s and {len(relay.sizes)} messages of at most {largest} bytes; {run.new} new "
        f"ones meanwhile, answered within {run.slowest_s * 1000:.0f} ms; RSS {first_kb} KB at the start, "
        f"{most_kb} KB at most; the cloud's change came with {run.config_at} left"
    )


def told(capsys: pytest.CaptureFixture[Any], text: str) -> None:
    with capsys.disabled():
        print(f" [{text}]", end="")


def test_a_backlog_is_sent_in_bounded_batches_while_both_sides_go_on(
    tmp_path: Path, broker: Mosquitto, capsys: pytest.CaptureFixture[str]
) -> None:
    told(capsys, catches_up(tmp_path, broker, 2_000))


@pytest.mark.slow
def test_a_backlog_of_a_hundred_thousand_changes(
    tmp_path: Path, broker: Mosquitto, capsys: pytest.CaptureFixture[str]
) -> None:
    told(capsys, catches_up(tmp_path, broker, 100_000))
