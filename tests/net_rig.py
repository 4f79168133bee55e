"""A broker and devices that write down what happens to them, for the tests of the simulated broker and its quotas."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fleet.rng import rng
from fleet.scenario.plan import LinkPlan
from fleet.world.broker import Broker
from fleet.world.clock import Clock
from fleet.world.connection import BrokerSettings, Connection, Will
from fleet.world.downlink import Trace
from fleet.world.link import Link

Make = Callable[[Clock, BrokerSettings, Trace], Broker]

SECOND = 1_000_000
PLAIN = LinkPlan(delay_us=20_000)


class Device:
    """Writes down what happens to it."""

    def __init__(self, net: Net, name: str, plan: LinkPlan = PLAIN, region: str = "main") -> None:
        self.conn: Connection | None = None
        self.net = net
        self.device_id = name
        self.link = Link(plan)
        self.region = region
        self.tie = net.clock.tie(name)
        self.stream = rng(net.clock.seed, name, "link")
        self.subscriptions = {f"down/{name}": 1, "all": 1}
        self.wants_puback = False
        self.will: Will | None = None
        self.events: list[tuple[int, str]] = []
        self.messages: list[bytes] = []
        self.acks: list[Any] = []

    def note(self, what: str) -> None:
        self.events.append((self.net.clock.now, what))

    def on_connected(self) -> None:
        self.note("connected")

    def on_connect_failed(self) -> None:
        self.note("failed")

    def on_disconnected(self, reason: str) -> None:
        self.note(reason)

    def on_message(self, topic: str, payload: bytes, qos: int) -> None:
        self.messages.append(payload)

    def on_puback(self, token: Any) -> None:
        self.acks.append(token)

    def send(self, text: str, qos: int = 1, topic: str = "up") -> bool:
        return self.net.broker.publish(self, topic, text.encode(), qos, text)

    @property
    def said(self) -> list[str]:
        return [what for _, what in self.events]


class Net:
    """`make`: the broker, where it is not the plain one."""

    def __init__(self, seed: int = 1, make: Make = Broker, **settings: Any) -> None:
        self.clock = Clock(seed)
        self.trace: list[tuple[str, str]] = []
        self.broker = make(self.clock, BrokerSettings(**settings), lambda k, e, d: self.trace.append((k, e)))
        self.cloud: list[bytes] = []
        self.broker.deliver_to_cloud = lambda topic, payload, device: self.cloud.append(payload)

    def run(self, seconds: float) -> None:
        self.clock.run_until(self.clock.now + int(seconds * SECOND))

    def device(self, name: str = "a", plan: LinkPlan = PLAIN, region: str = "main") -> Device:
        device = Device(self, name, plan, region)
        self.broker.connect(device)
        for _ in range(30):  # a packet of the handshake may be lost: its time-outs double
            self.run(1)
            if device.said:
                break
        assert device.said == ["connected"]
        return device

    def check(self) -> None:
        """sent = delivered + dropped + in flight, each device, each way; in flight is counted where it is."""
        flying = self.broker.in_flight()
        for name, ledger in self.broker.ledgers.items():
            up, down = flying.get(name, (0, 0))
            assert ledger.sent_up == ledger.delivered_up + ledger.dropped_up + up, f"{name} up"
            assert ledger.sent_down == ledger.delivered_down + ledger.dropped_down + down, f"{name} down"
            reasons = ledger.reasons or {}
            assert sum(n for why, n in reasons.items() if why.startswith("up:")) == ledger.dropped_up
            assert sum(n for why, n in reasons.items() if why.startswith("down:")) == ledger.dropped_down
        broker = self.broker
        assert broker.cloud_sent == broker.cloud_routed + broker.cloud_dropped + flying.get("", (0, 0))[1]
