"""Agents on a transport that tests script, with a real relay on a memory table behind it, in trio's virtual time.

The clocks of device, relay and trio are one: it jumps to the next thing that is due. Nothing here decides anything.
Used by the tests of agent.runtime.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol

import trio
from relay_rig import NOW_MS, SCHEMA, Rig
from trio.testing import MockClock

from agent.config import AgentConfig
from agent.database import Database
from agent.files import open_memory
from agent.protocol.log import Log
from agent.protocol.schema import Context, Schema
from agent.runtime.driver import Agent, Part
from agent.runtime.gate import Gate, GateSettings
from agent.transport.port import Heard, LinkError, Up
from fleet.rng import rng

DELAY_S: Final = 0.05  # of a message, each way
LOOK_S: Final = 0.01
CONFIG: Final = AgentConfig(boot_jitter_ms=0)
AWAY: Final = LinkError("unreachable", "broker:1883: connection refused", "is it there?")


async def pass_time(seconds: float) -> None:
    """On trio's clock: in virtual time it costs none."""
    await trio.sleep(seconds)


async def looked_for(condition: Callable[[], Any], every_s: float = LOOK_S) -> None:
    """Until it is so. Whoever calls sets the limit."""
    while not condition():
        await pass_time(every_s)


class FakeTransport:
    """`script`: what the next attempts come to, None for a connection; when it is empty, connections. `rig`: the relay
    behind it, None for one that never answers."""

    place = "broker:1883"
    connect_bytes = 1_000
    message_bytes = 100
    idle_bytes_per_s = 1.0

    def __init__(self, rig: Rig | None, device: str = "home-1") -> None:
        self.rig = rig
        self.device = device
        self.script: deque[LinkError | Exception | None] = deque()
        self.away: LinkError | None = None  # what all attempts come to
        self.attempts: list[float] = []  # when
        self.ended: list[float] = []
        self.sent: list[bytes] = []
        self._cut = trio.Event()
        self._out: trio.MemorySendChannel[bytes] | None = None

    async def serve(self, up: Up, heard: Heard) -> None:
        self.attempts.append(trio.current_time())
        outcome = self.away or (self.script.popleft() if self.script else None)
        if outcome is not None:
            raise outcome
        self._cut = trio.Event()
        self._out, taken = trio.open_memory_channel[bytes](1_000)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._answering, taken, heard)
                up(self)
                await self._cut.wait()
                nursery.cancel_scope.cancel()
        finally:
            self.ended.append(trio.current_time())
        raise LinkError("lost", "broker:1883: connection lost")

    def cut(self) -> None:
        self._cut.set()

    def send(self, payload: bytes) -> None:
        self.sent.append(payload)
        assert self._out is not None
        self._out.send_nowait(payload)

    async def _answering(self, taken: trio.MemoryReceiveChannel[bytes], heard: Heard) -> None:
        async for payload in taken:
            await pass_time(DELAY_S)
            answers = self._answers(payload)
            await pass_time(DELAY_S)
            for answer in answers:
                await heard(answer)

    def _answers(self, payload: bytes) -> list[bytes]:
        rig = self.rig
        if rig is None:
            return []
        rig.now_ms = NOW_MS + int(trio.current_time() * 1000)
        before = len(rig.published)
        rig.run(rig.relay.on_message(self.device, payload))
        rig.sequence()
        topics = (f"ioto/device/{self.device}/sync", "ioto/account/main/sync", "ioto/account/all/sync")
        return [sent.payload for sent in rig.published[before:] if sent.topic in topics]


class Clock(Protocol):
    def current_time(self) -> float:
        """Seconds."""


class RealClock:
    """The machine's, from 0."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    def current_time(self) -> float:
        return time.monotonic() - self._start


class Bench:
    """One agent. `said`: the events of its log."""

    def __init__(
        self,
        clock: Clock,
        *,
        rig: Rig | None = None,
        config: AgentConfig = CONFIG,
        gate: GateSettings | None = None,
        schema: Schema = SCHEMA,
        answers: bool = True,
        **more: Any,
    ) -> None:
        self.clock = clock
        self.rig = rig or Rig()
        self.transport = FakeTransport(self.rig if answers else None)
        self.said: list[dict[str, Any]] = []
        random = rng(1, "home-1", "agent")
        monotonic_ms = self.monotonic_ms
        self.log = Log(
            lambda line: self.said.append(json.loads(line)),
            wall_ms=self.wall_ms,
            monotonic_ms=monotonic_ms,
            least="debug",
            again_ms=3_600_000,
        )
        self.database = Database(
            open_memory(), schema, Context("home-1", "main"), monotonic_ms=monotonic_ms, wall_ms=self.wall_ms,
            random=random,
        )  # fmt: skip
        self.gate = Gate(gate or GateSettings(), monotonic_ms(), random.unit)
        part = Part(config, self.transport, self.gate)
        self.agent = Agent(
            self.database, part, monotonic_ms=monotonic_ms, chance=random.unit, log=self.log, **more
        )  # fmt: skip

    def monotonic_ms(self) -> int:
        return int(self.clock.current_time() * 1000)

    def wall_ms(self) -> int:
        return NOW_MS + self.monotonic_ms()

    def events(self, name: str) -> list[dict[str, Any]]:
        return [event for event in self.said if event["event"] == name]

    def write(self, rev: int, name: str = "mode") -> None:
        self.database.upsert("Setting", {"name": name, "rev": rev})

    def in_table(self) -> dict[str, int]:
        """Name -> rev of the Settings in the table."""
        return {item["name"]: item["rev"] for item in self.rig.table.scan() if item["_type"] == "Setting"}

    async def until(self, condition: Callable[[], Any], limit_s: float = 60.0) -> None:
        """Until it is so, in virtual time."""
        with trio.fail_after(limit_s):
            await looked_for(condition, max(LOOK_S, limit_s / 10_000))

    async def settled(self) -> None:
        """All that was written is decided."""
        await self.until(lambda: not self.database.pending())


def live(bench: Callable[[MockClock], Bench], body: Callable[[Bench], Awaitable[None]]) -> Bench:
    """Runs an agent while `body` does, then stops it. Virtual time."""
    clock = MockClock(autojump_threshold=0)

    async def main() -> Bench:
        made = bench(clock)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(made.agent.run)
            await body(made)
            made.agent.stop()
        return made

    return trio.run(main, clock=clock)
