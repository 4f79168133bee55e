"""What the contract of MQTT brokers asks of an adapter: clients with a path of their own each, and a cloud behind.

Two adapters: broker_simulated (virtual time) and broker_mosquitto (a real one, behind the proxy of live runs). Used by
tests/contract/test_broker_port.py alone. Texts stand for payloads: they are how a test tells messages apart.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

IN_FLIGHT_MAX = 10  # of a client, each way
QUEUE_MAX = 30  # messages that wait behind these for a client
PAYLOAD_MAX = 128 * 1024
UP = "up/"  # topics that begin so go to the cloud, one level below


class Message(NamedTuple):
    topic: str
    text: str
    qos: int
    retained: bool = False


class LastWill(NamedTuple):
    topic: str
    text: str
    qos: int = 1
    retain: bool = False


class Peer(ABC):
    """A client of the broker, on its own path. What it does is under way when the call returns, not done.

    `said`: connected, failed, lost (it was told, or found out), in turn. `acked`: texts whose PUBACK has come."""

    name: str
    got: list[Message]
    said: list[str]
    acked: list[str]
    will: LastWill | None

    @property
    def texts(self) -> list[str]:
        return [message.text for message in self.got]

    @property
    def connected(self) -> bool:
        return self.said[-1:] == ["connected"]

    @abstractmethod
    def begin(self) -> None:
        """A new connection. What it had before is given up."""

    @abstractmethod
    def subscribe(self, filters: Mapping[str, int]) -> None:
        """Filters and the QoS that is asked for: of the next connection."""

    @abstractmethod
    def send(self, topic: str, text: str, qos: int = 1, *, retain: bool = False) -> bool:
        """False: it is not connected. Refused or lost later is told by nobody."""

    @abstractmethod
    def leave(self) -> None:
        """DISCONNECT."""

    @abstractmethod
    def vanish(self) -> None:
        """Its power goes: the broker is told nothing."""

    @abstractmethod
    def cut(self) -> None:
        """The connection breaks, and both ends are told."""

    @abstractmethod
    def stall(self) -> None:
        """Its link goes down: nothing passes, neither end is told."""

    @abstractmethod
    def flow(self) -> None:
        """The link is back."""

    @abstractmethod
    def half_open(self) -> None:
        """The path of this connection is gone for good; a new one would work."""

    @abstractmethod
    def hold_acks(self) -> None:
        """From now on its acknowledgements do not reach the broker, though messages reach it."""

    @abstractmethod
    def give_acks(self) -> None: ...


class BrokerPort(ABC):
    """One broker, empty. `known`: what it deviates in, name -> how (tests/deviations.py)."""

    known: Mapping[str, str]
    keep_alive_s: float  # of a brief peer
    cloud: list[str]  # texts that have come to the cloud, from any device

    @abstractmethod
    def make(
        self, name: str, filters: Mapping[str, int], *, will: LastWill | None, keep: bool, brief: bool
    ) -> Peer: ...

    @abstractmethod
    def turn(self) -> None:
        """What happens next, for a moment."""

    @abstractmethod
    def settle(self) -> None:
        """All that is under way has arrived, where the path is free."""

    @abstractmethod
    def now_s(self) -> float: ...

    @abstractmethod
    def expired(self, began_s: float) -> bool:
        """Whether a wait that began then has gone on for too long."""

    @abstractmethod
    def from_cloud(self, topic: str, text: str, qos: int = 1, *, retain: bool = False) -> None: ...

    def peer(
        self,
        name: str,
        filters: Mapping[str, int] | None = None,
        *,
        will: LastWill | None = None,
        keep: bool = False,
        brief: bool = False,
    ) -> Peer:
        """A client that is connected. `keep`: it asks for its session to be kept. `brief`: a short keep-alive."""
        made = self.make(name, filters or {}, will=will, keep=keep, brief=brief)
        self.join(made)
        return made

    def join(self, peer: Peer) -> None:
        """It connects (again), and has done so when this returns."""
        before = len(peer.said)
        peer.begin()
        self.until(lambda: peer.said[before:] == ["connected"], f"{peer.name} connects: {peer.said}")

    def until(self, condition: Callable[[], Any], what: str) -> None:
        began = self.now_s()
        while not condition():
            assert not self.expired(began), f"it never came that {what}"
            self.turn()
