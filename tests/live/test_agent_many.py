"""Many agents in one process, on a real broker: connected at once, without a thread for each. Called by pytest only."""

from __future__ import annotations

import json
import threading
import time
from typing import Final

import pytest
import trio
from live_rig import Mosquitto
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion
from relay_rig import FILE
from runtime_rig import looked_for

from agent.config import AgentConfig
from agent.database import Database
from agent.files import open_memory
from agent.protocol.log import Log
from agent.protocol.schema import Context, Schema
from agent.protocol.topics import sender
from agent.runtime.driver import Agent, Part
from agent.runtime.gate import Gate, GateSettings
from agent.runtime.limits import allow_agents
from agent.transport.mqtt import MqttSettings, MqttTransport
from fleet.rng import rng

CONNECT_THREADS: Final = 16
LIMIT_S: Final = 240.0
LOOK_S: Final = 0.05


class Many:
    """So many agents, each with a database in memory."""

    def __init__(self, count: int, port: int) -> None:
        allow_agents(count, files=False)
        self.said: list[str] = []
        log = Log(self.said.append, wall_ms=_wall_ms, monotonic_ms=_monotonic_ms)
        schema = Schema.load(FILE)
        limiter = trio.CapacityLimiter(CONNECT_THREADS)
        config = AgentConfig(boot_jitter_ms=count * 5, hello_period_ms=60_000)
        self.agents: list[Agent] = []
        for i in range(count):
            name = f"d{i}"
            random = rng(1, name, "agent")
            database = Database(
                open_memory(), schema, Context(name, "main"), monotonic_ms=_monotonic_ms, wall_ms=_wall_ms,
                random=random,
            )  # fmt: skip
            settings = MqttSettings(host="127.0.0.1", port=port, device=name, account="main")
            gate = Gate(GateSettings(), _monotonic_ms(), random.unit)
            part = Part(config, MqttTransport(settings, limiter, _wall_ms), gate)
            self.agents.append(Agent(database, part, monotonic_ms=_monotonic_ms, chance=random.unit, log=log))

    @property
    def online(self) -> int:
        return sum(agent.is_online for agent in self.agents)

    @property
    def held_s(self) -> float:
        """How long the latest connection has been there; 0 when one is not."""
        now_ms = _monotonic_ms()
        return min(0.0 if agent.connected_ms is None else (now_ms - agent.connected_ms) / 1000 for agent in self.agents)


def _monotonic_ms() -> int:
    return time.monotonic_ns() // 1_000_000


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


class Listener:
    """What devices publish, by device."""

    def __init__(self, port: int) -> None:
        self.heard: dict[str, list[bytes]] = {}
        self.client = paho.Client(CallbackAPIVersion.VERSION2)
        self.client.on_connect = lambda client, *_: client.subscribe("ioto/service/+/sync", 0)
        self.client.on_message = self._hear
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()

    def _hear(self, _client: object, _data: object, message: paho.MQTTMessage) -> None:
        device = sender(message.topic)
        assert device is not None
        self.heard.setdefault(device, []).append(bytes(message.payload))

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


def held(count: int, broker: Mosquitto, for_s: float) -> None:
    many, listener = Many(count, broker.port), Listener(broker.port)

    async def main() -> None:
        with trio.fail_after(LIMIT_S):
            async with trio.open_nursery() as nursery:
                for agent in many.agents:
                    nursery.start_soon(agent.run)
                await looked_for(lambda: many.online == len(listener.heard) == count, LOOK_S)
                assert threading.active_count() < CONNECT_THREADS + 32
                await looked_for(lambda: many.held_s > for_s, LOOK_S)
                assert many.online == count, "they stay connected"
                for agent in many.agents:
                    agent.stop()

    try:
        trio.run(main)
    finally:
        listener.close()
    assert len(listener.heard) == count
    assert all(json.loads(payloads[0])["t"] == "hello" for payloads in listener.heard.values())
    assert not [line for line in many.said if "no-connection" in line]


def test_a_process_holds_two_hundred_agents(broker: Mosquitto) -> None:
    held(200, broker, 0.5)


@pytest.mark.slow
def test_a_process_holds_two_thousand_agents(broker: Mosquitto) -> None:
    held(2_000, broker, 90.0)  # past a keep-alive
