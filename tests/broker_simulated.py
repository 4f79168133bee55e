"""The simulated broker (fleet.world.broker) under the contract of brokers, in virtual time. See broker_port."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from broker_port import IN_FLIGHT_MAX, PAYLOAD_MAX, QUEUE_MAX, UP, BrokerPort, LastWill, Message, Peer
from deviations import SIMULATED

from fleet.rng import rng
from fleet.scenario.plan import LinkPlan
from fleet.world.broker import Broker
from fleet.world.clock import Clock
from fleet.world.connection import BrokerSettings, Connection, Will
from fleet.world.link import Link, Profile

SECOND: Final = 1_000_000
NEAR: Final = Profile(LinkPlan(delay_us=20_000))
FAR: Final = Profile(LinkPlan(delay_us=10 * SECOND))  # acknowledgements come ten seconds after their messages
LIMIT_S: Final = 3_600.0


class SimulatedPeer(Peer):
    """As fleet.world.connection.Client wants it, too. `clean_start` is what a broker with kept sessions would read."""

    def __init__(self, port: SimulatedBroker, name: str, filters: Mapping[str, int]) -> None:
        self.port = port
        self.name = self.device_id = name
        self.got, self.said, self.acked = [], [], []
        self.subscriptions = filters
        self.will: Any = None
        self.clean_start = True
        self.conn: Connection | None = None
        self.link = Link(NEAR)
        self.region = "main"
        self.tie = port.clock.tie(name)
        self.stream = rng(port.clock.seed, name, "link")
        self.wants_puback = True

    # What the broker calls.

    def on_connected(self) -> None:
        self.said.append("connected")

    def on_connect_failed(self) -> None:
        self.said.append("failed")

    def on_disconnected(self, reason: str, /) -> None:
        self.said.append("lost")

    def on_message(self, topic: str, payload: bytes, qos: int, /) -> None:
        self.got.append(Message(topic, payload.decode(), qos))

    def on_puback(self, token: Any) -> None:
        self.acked.append(token)

    # What the contract calls.

    def begin(self) -> None:
        self.port.broker.connect(self)

    def subscribe(self, filters: Mapping[str, int]) -> None:
        self.subscriptions = filters

    def send(self, topic: str, text: str, qos: int = 1, *, retain: bool = False) -> bool:
        return self.port.broker.publish(self, topic, text.encode(), qos, text, retain)

    def leave(self) -> None:
        self.port.broker.disconnect(self)

    def vanish(self) -> None:
        self.port.broker.vanish(self)

    def cut(self) -> None:
        self.port.broker.reset(self)

    def stall(self) -> None:
        self.port.broker.link_down(self)

    def flow(self) -> None:
        self.port.broker.link_up(self)

    def half_open(self) -> None:
        self.port.broker.half_open(self)

    def hold_acks(self) -> None:
        self.link.profile = FAR

    def give_acks(self) -> None:
        self.link.profile = NEAR


class SimulatedBroker(BrokerPort):
    def __init__(self) -> None:
        self.known = SIMULATED
        self.keep_alive_s = 60.0
        self.cloud = []
        self.clock = Clock(1)
        self.broker = Broker(
            self.clock,
            BrokerSettings(
                in_flight_max=IN_FLIGHT_MAX,
                queue_max=QUEUE_MAX,
                hop_jitter=0.0,
                cloud_prefix=UP,
                payload_bytes_max=PAYLOAD_MAX,
                keep_alive_us=int(self.keep_alive_s * SECOND),
            ),
        )
        self.broker.deliver_to_cloud = lambda topic, payload, device: self.cloud.append(payload.decode())

    def make(self, name: str, filters: Mapping[str, int], *, will: LastWill | None, keep: bool, brief: bool) -> Peer:
        peer = SimulatedPeer(self, name, filters)
        if will is not None:
            peer.will = Will(will.topic, will.text.encode(), will.qos, will.retain)
        peer.clean_start = not keep
        return peer

    def turn(self) -> None:
        self.clock.run_until(self.clock.now + SECOND // 100)

    def settle(self) -> None:
        self.clock.run_until(self.clock.now + SECOND)

    def now_s(self) -> float:
        return self.clock.now / SECOND

    def expired(self, began_s: float) -> bool:
        return self.now_s() - began_s > LIMIT_S

    def from_cloud(self, topic: str, text: str, qos: int = 1, *, retain: bool = False) -> None:
        self.broker.publish_from_cloud(topic, text.encode(), qos, retain)
