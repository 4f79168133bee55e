"""An agent that was offline for days catches up: in batches of bounded size, in the order of the writes, with flat
memory, while applications on the device write on, with quick answers, and changes from the cloud arrive at once. The
real agent, a real broker, the relay on a table in memory.
"""

from __future__ import annotations

import random
import statistics
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
PASSED_MAX: Final = 1_000  # operations of the device that a change of the cloud may let pass: some ten batches
ANSWER_S_MAX: Final = 5.0  # for a durable write, on a machine that does other things too; all of it takes minutes


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
                model, name, _ = model_of(n)
                database.create(model, {name: f"old-{n:06}", "rev": 1, "text": "x" * size})
    assert database.pending() == count + 1  # and the sweep of a new database
    connection.close()


def model_of(n: int) -> tuple[str, str, str]:
    """Of the n-th old change: its model, the field that names it, what its sort key begins with."""
    return ("Fault", "id", "fault#") if n % 3 else ("Setting", "name", "setting#")


class CatchUp:
    """The agent while it catches up: each `turn` writes something new, but at the end, and looks."""

    def __init__(self, agent: AgentProcess, relay: BrokerRelay, count: int) -> None:
        self.agent = agent
        self.relay = relay
        self.marks = [count * 3 // 4, count // 2]  # a change in the cloud when so many are left
        self.client = agent.client()
        self.count = count
        self.left = count
        self.new = 0
        self.rev = 0  # of the last change in the cloud
        self.is_there = True
        self.put_at = (0, 0.0, 0)  # what was left, when, and how many new ones there were
        self.passed: list[int] = []  # operations that were settled between a change in the cloud and its being there
        self.took_s: list[float] = []
        self.answers_s: list[float] = []

    def turn(self) -> None:
        if self.left > BLOCK:  # else there would always be something left
            began = time.monotonic()
            self.client.ask("create", model="Fault", item={"id": f"new-{self.new:06}", "rev": 1})
            self.new += 1
            self.answers_s.append(time.monotonic() - began)
        self.left = self.client.ask("status")["status"]["pending"]
        self._look_at_cloud()
        self.agent.pause()

    def _look_at_cloud(self) -> None:
        if not self.is_there:
            item = self.client.ask("get", model="Config", item={})["item"]
            self.is_there = item is not None and item["rev"] == self.rev
            if self.is_there:
                self.passed.append(self.put_at[0] + self.new - self.put_at[2] - self.left)
                self.took_s.append(time.monotonic() - self.put_at[1])
        elif self.marks and self.left <= self.marks[0]:
            del self.marks[0]
            self.rev += 1
            self.relay.put(stored(config(self.rev)))
            self.put_at = (self.left, time.monotonic(), self.new)
            self.is_there = False

    def rewrite(self) -> list[tuple[str, int]]:
        """The last two old changes once more, several times, while nothing is settled: nothing more waits than before.
        Sort keys, and the revs that the cloud is to see."""
        with self.relay.still():
            pending = self.client.ask("status")["status"]["pending"]
            for rev in range(2, 7):
                for n in (self.count - 2, self.count - 1):
                    model, field, _ = model_of(n)
                    self.client.ask("update", model=model, item={field: f"old-{n:06}", "rev": rev})
            assert self.client.ask("status")["status"]["pending"] == pending
        return [(f"{model_of(n)[2]}old-{n:06}", 6) for n in (self.count - 2, self.count - 1)]

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
        rewritten = run.rewrite()
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
    old = [(f"{model_of(n)[2]}old-{n:06}", 1) for n in range(count - 2)]
    new = [(f"fault#new-{n:06}", 1) for n in range(run.new)]
    sent = [one for one in relay.order if not one[0].startswith("config#")]
    assert sent == [*old, *rewritten, *new], "the cloud has all in the order of the writes, each item once"
    assert len(run.passed) == 2 and max(run.passed) < PASSED_MAX, "changes from the cloud do not wait for the end"
    assert max(run.answers_s) < ANSWER_S_MAX, "the database answers meanwhile"
    grown_kb = most_kb - first_kb
    assert grown_kb < GROWTH_KB_MAX, "memory is not flat"
    middle, slowest = statistics.median(run.answers_s) * 1000, max(run.answers_s) * 1000
    return (
        f"{count} changes in {took_s:.0f} s and {len(relay.sizes)} messages of at most {largest} bytes; {run.new} new "
        f"ones meanwhile, answered in {middle:.0f} ms (median), {slowest:.0f} ms (slowest); RSS {first_kb} KB at the "
        f"start, {most_kb} KB at most; changes of the cloud were there after {max(run.took_s):.2f} s, when "
        f"{max(run.passed)} of those that waited had been settled"
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
