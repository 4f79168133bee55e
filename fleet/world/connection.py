"""One MQTT connection as both of its ends see it, what is counted per device, and what the broker asks of a device.

State and small values only: `fleet.world.broker` moves them. Never schedules, never draws.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol

from fleet.rng import Stream
from fleet.world.clock import Handle, Tie
from fleet.world.link import Link

# Flags of a message under way.
RETAIN: Final = 1
COPY: Final = 2  # a second copy: counted apart

# (connection, topic, payload, qos, flags, token); what the broker passes from event to event.
Packet = tuple["Connection", str, bytes, int, int, Any]


@dataclass(frozen=True, slots=True)
class BrokerSettings:
    """Defaults: AWS IoT Core's limits where it has them, paho's behaviour on the device."""

    keep_alive_us: int = 60_000_000
    ping_timeout_us: int = 30_000_000  # a device waits that long for a PINGRESP
    connect_timeout_us: int = 15_000_000
    in_flight_max: int = 100  # unacknowledged QoS 1 messages of a connection, each way
    queue_max: int = 1_000  # messages waiting behind that limit, or for a link that is down; each way
    hop_delay_us: int = 15_000  # broker to relay, relay to broker: the median of each
    hop_jitter: float = 0.5  # uniform within ± this share
    payload_bytes_max: int = 128 * 1024  # who publishes more loses the connection, and the message
    cloud_prefix: str = ""  # topics that begin so go to the cloud


class Will(NamedTuple):
    """Published by the broker when the connection ends without a DISCONNECT."""

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False


class Client(Protocol):
    """A device, as the broker sees it. `conn` is the broker's to set; it begins as None.

    `subscriptions`: filters, with the highest QoS that messages are to come with."""

    conn: Connection | None
    device_id: str
    link: Link
    region: str
    tie: Tie
    stream: Stream
    wants_puback: bool
    will: Will | None

    @property
    def subscriptions(self) -> Mapping[str, int]: ...
    def on_connected(self) -> None: ...
    def on_connect_failed(self) -> None: ...
    def on_disconnected(self, reason: str, /) -> None: ...
    def on_message(self, topic: str, payload: bytes, qos: int, /) -> None: ...
    def on_puback(self, token: Any) -> None: ...


class Ledger:
    """What became of one device's messages. Each way: sent = delivered + dropped + in flight; copies apart.

    Up: from the device's publish to the relay. Down: from the broker's routing to the device."""

    __slots__ = (
        "bytes_down", "bytes_up", "copies_down", "copies_up", "delivered_down", "delivered_up", "dropped_down",
        "dropped_up", "reasons", "sent_down", "sent_up",
    )  # fmt: skip

    def __init__(self) -> None:
        self.sent_up = self.delivered_up = self.dropped_up = self.copies_up = self.bytes_up = 0
        self.sent_down = self.delivered_down = self.dropped_down = self.copies_down = self.bytes_down = 0
        self.reasons: dict[str, int] | None = None  # "up:REASON" or "down:REASON"; made when first needed

    def drop_up(self, reason: str) -> None:
        self.dropped_up += 1
        self._because("up:" + reason)

    def drop_down(self, reason: str) -> None:
        self.dropped_down += 1
        self._because("down:" + reason)

    def _because(self, reason: str) -> None:
        if self.reasons is None:
            self.reasons = {}
        self.reasons[reason] = self.reasons.get(reason, 0) + 1


class Waiting:
    """Messages that wait for a link to come back, one way of one connection, in the order of sending."""

    __slots__ = ("arrivals", "packets", "since_us")

    def __init__(self, since_us: int) -> None:
        self.since_us = since_us  # TCP sends in vain since then
        self.packets: list[Packet] = []
        self.arrivals = 0  # of these: were under way when the link went down, hence sent before the others

    def sent(self, packet: Packet) -> None:
        self.packets.append(packet)

    def caught(self, packet: Packet) -> None:
        self.packets.insert(self.arrivals, packet)
        self.arrivals += 1


class Connection:
    """`held`: the device's end is open (or opening); `ready`: CONNACK has come; `served`: the broker's end is open.

    `clear`: bytes pass. `flows_*`: clear, and nothing waits to be sent before. `hole`: never clear again (half-open).
    """

    __slots__ = (
        "acks_down",
        "acks_up",
        "arrival_down_us",
        "arrival_up_us",
        "clear",
        "client",
        "cut_at_us",
        "device_id",
        "draining_down",
        "draining_up",
        "drop",
        "flows_down",
        "flows_up",
        "held",
        "hole",
        "ledger",
        "link",
        "notice",
        "queue_down",
        "queue_up",
        "ready",
        "region",
        "served",
        "since_us",
        "stream",
        "subscriptions",
        "tie",
        "wait_down",
        "wait_up",
        "will",
    )  # fmt: skip

    def __init__(self, client: Client, ledger: Ledger, now_us: int) -> None:
        self.client = client
        self.device_id = client.device_id
        self.region = client.region
        self.ledger = ledger
        self.link = client.link
        self.stream = client.stream
        self.tie = client.tie
        self.subscriptions = client.subscriptions
        self.will = client.will
        self.since_us = now_us
        self.held = True
        self.ready = self.served = self.hole = False
        self.clear = self.flows_up = self.flows_down = client.link.is_up
        self.arrival_up_us = self.arrival_down_us = now_us  # of the last message, past or to come
        self.acks_up: list[int] = []  # when PUBACKs arrive at the sender, rising
        self.acks_down: list[int] = []
        self.queue_up: list[Packet] | None = None  # behind in_flight_max
        self.queue_down: list[Packet] | None = None
        self.draining_up = self.draining_down = False
        self.wait_up: Waiting | None = None
        self.wait_down: Waiting | None = None
        self.notice: Handle | None = None  # when the device finds out that the path is dead
        self.drop: Handle | None = None  # when the broker does
        self.cut_at_us = -1  # the device's power went

    def heard(self) -> None:
        """The path works: neither end is about to give up."""
        if self.notice is not None:
            self.notice.cancel()
        if self.drop is not None:
            self.drop.cancel()
        self.notice = self.drop = None


def matches(topic_filter: str, topic: str) -> bool:
    """MQTT 3.1.1, 4.7: '+' is one level, a last '#' all that follow (and the level above)."""
    wanted, levels = topic_filter.split("/"), topic.split("/")
    if topic.startswith("$") and wanted[0] in ("+", "#"):
        return False
    for i, level in enumerate(wanted):
        if level == "#":
            return True
        if i >= len(levels) or level not in ("+", levels[i]):
            return False
    return len(wanted) == len(levels)
