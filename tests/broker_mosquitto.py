"""A real mosquitto under the contract of brokers, with clients of paho behind the proxy of live runs. See broker_port.

All clients are driven by the test's own thread: nothing happens between two calls. The proxy has a thread of its own.
"""

from __future__ import annotations

import contextlib
import select
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import trio
from broker_port import IN_FLIGHT_MAX, PAYLOAD_MAX, QUEUE_MAX, UP, BrokerPort, LastWill, Message, Peer
from deviations import MOSQUITTO, MOSQUITTO_311
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from fleet.live.parts import Mosquitto
from fleet.live.processes import Processes
from fleet.live.proxy import Door, Proxy

T = TypeVar("T")
LIMIT_S: Final = 30.0
PATIENT_S: Final = 600  # the keep-alive of who is not brief
BRIEF_S: Final = 1  # the shortest there is
RELAYS: Final = 2  # they share what comes to the cloud
BARRIER: Final = "barrier"
LINES: Final = (
    # What AWS IoT Core has and mosquitto can be told.
    "max_qos 1",
    f"max_inflight_messages {IN_FLIGHT_MAX}",
    f"max_queued_messages {QUEUE_MAX}",
    f"message_size_limit {PAYLOAD_MAX}",
)


class ProxyThread:
    """The proxy with a loop of its own; commands are called there, and waited for."""

    def __init__(self) -> None:
        self._token: trio.lowlevel.TrioToken
        self._proxy: Proxy
        self._scope: trio.CancelScope
        self._ready = threading.Event()
        self._thread = threading.Thread(target=trio.run, args=(self._main,), daemon=True)

    async def _main(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        async with trio.open_nursery() as nursery:
            self._proxy, self._scope = Proxy(nursery), nursery.cancel_scope
            nursery.start_soon(trio.Event().wait)
            self._ready.set()

    def __enter__(self) -> ProxyThread:
        self._thread.start()
        assert self._ready.wait(LIMIT_S)
        return self

    def __exit__(self, *_: object) -> None:
        self.call(self._scope.cancel)
        self._thread.join(LIMIT_S)

    def call(self, command: Callable[[], T]) -> T:
        return trio.from_thread.run_sync(command, trio_token=self._token)

    def open(self, name: str, port: int) -> Door:
        return trio.from_thread.run(self._proxy.open, name, ("127.0.0.1", port), trio_token=self._token)


class RealPeer(Peer):
    def __init__(self, port: MosquittoBroker, name: str, filters: Mapping[str, int], door: Door | None) -> None:
        self.port = port
        self.name = name
        self.got, self.said, self.acked = [], [], []
        self.filters = dict(filters)
        self.will: LastWill | None = None
        self.keep = False
        self.keep_alive_s = PATIENT_S
        self.door = door
        self.heard: Callable[[Message], object] = self.got.append
        self.reachable = True  # its path is free: a barrier comes back
        self._client: paho.Client | None = None
        self._texts: dict[int, str] = {}
        self._acks: list[tuple[int, int]] | None = None  # that are held
        self._granted: set[int] = set()
        self._joined = False  # this connection is up

    def begin(self) -> None:
        self._abandon()
        self._joined = False
        client = self._client = self._made()
        address = ("127.0.0.1", self.port.mosquitto.port if self.door is None else self.door.port)
        if self.port.version == paho.MQTTv5:
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            properties.ReceiveMaximum = IN_FLIGHT_MAX
            properties.SessionExpiryInterval = 3_600 if self.keep else 0
            client.connect(*address, self.keep_alive_s, clean_start=not self.keep, properties=properties)
        else:
            client.connect(*address, self.keep_alive_s)
        self.reachable = True

    def _made(self) -> paho.Client:
        five = self.port.version == paho.MQTTv5
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=self.name,
            clean_session=None if five else not self.keep,
            protocol=self.port.version,
            reconnect_on_failure=False,
            manual_ack=True,
        )
        client.max_inflight_messages = IN_FLIGHT_MAX
        if self.will is not None:
            client.will_set(self.will.topic, self.will.text, self.will.qos, self.will.retain)
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_publish = self._on_publish
        client.on_message = self._on_message
        client.on_disconnect = self._on_disconnect
        self._texts.clear()
        return client

    def _on_connect(self, client: paho.Client, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        if client is not self._client:
            return
        if reason.is_failure:
            self.said.append("failed")
        elif self.filters:
            client.subscribe([*self.filters.items()])
        else:
            self._join()

    def _join(self) -> None:
        self._joined = True
        self.said.append("connected")

    def _on_subscribe(self, client: paho.Client, _data: Any, mid: int, _reasons: Any, _properties: Any) -> None:
        self._granted.add(mid)
        if client is self._client and not self._joined:
            self._join()

    def _on_publish(self, client: paho.Client, _data: Any, mid: int, _reason: Any, _properties: Any) -> None:
        if client is self._client and mid in self._texts:
            self.acked.append(self._texts.pop(mid))

    def _on_message(self, client: paho.Client, _data: Any, message: Any) -> None:
        if client is not self._client:
            return
        self.heard(Message(message.topic, message.payload.decode(), message.qos, message.retain))
        if self._acks is None:
            client.ack(message.mid, message.qos)
        else:
            self._acks.append((message.mid, message.qos))

    def _on_disconnect(self, client: paho.Client, *_: Any) -> None:
        if client is self._client:
            self._client = None
            self.said.append("lost" if self._joined else "failed")

    @property
    def socket(self) -> Any:
        return None if self._client is None else self._client.socket()

    @property
    def wants_to_write(self) -> bool:
        return self._client is not None and self._client.want_write()

    def turn(self, readable: bool, writable: bool) -> None:
        for ready, step in ((readable, "loop_read"), (writable, "loop_write"), (True, "loop_misc")):
            if ready and self._client is not None:
                getattr(self._client, step)()

    def barrier(self) -> None:
        """What it sent has come to the broker, and what the broker had for it has come."""
        client = self._client
        if client is None or not self.reachable or not self._joined:
            return
        _, mid = client.subscribe(BARRIER)
        self.port.until(lambda: mid in self._granted or self._client is not client, f"{self.name} hears its barrier")

    def subscribe(self, filters: Mapping[str, int]) -> None:
        self.filters = dict(filters)

    def send(self, topic: str, text: str, qos: int = 1, *, retain: bool = False) -> bool:
        client = self._client
        if client is None or not self._joined:
            return False
        sent = client.publish(topic, text, qos, retain)
        if qos:
            self._texts[sent.mid] = text
        return True

    def leave(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.disconnect()
            client.loop_write()
            _close(client)

    def _abandon(self) -> None:
        """The connection that there was is closed without a word: its FIN goes as far as the path lets it."""
        client, self._client = self._client, None
        if client is not None:
            _close(client)

    def vanish(self) -> None:
        self.half_open()
        self._abandon()

    def cut(self) -> None:
        assert self.door is not None
        self.port.proxy.call(self.door.reset)

    def stall(self) -> None:
        assert self.door is not None
        self.reachable = False
        self.port.proxy.call(self.door.stall)

    def flow(self) -> None:
        assert self.door is not None
        self.reachable = True
        self.port.proxy.call(self.door.flow)

    def half_open(self) -> None:
        assert self.door is not None
        self.reachable = False
        self.port.proxy.call(self.door.half_open)

    def hold_acks(self) -> None:
        self._acks = []

    def give_acks(self) -> None:
        acks, self._acks = self._acks, None
        assert self._client is not None and acks is not None
        for mid, qos in acks:
            self._client.ack(mid, qos)


class MosquittoBroker(BrokerPort):
    def __init__(self, mosquitto: Mosquitto, proxy: ProxyThread, version: Any) -> None:
        self.known = MOSQUITTO if version == paho.MQTTv5 else MOSQUITTO_311
        self.keep_alive_s = BRIEF_S
        self.cloud = []
        self.mosquitto = mosquitto
        self.proxy = proxy
        self.version = version
        self.peers: list[RealPeer] = []
        for number in range(RELAYS):
            relay = RealPeer(self, f"relay-{number}", {f"$share/fleet/{UP}+": 1}, None)
            relay.heard = lambda message: self.cloud.append(message.text)
            self.peers.append(relay)
            self.join(relay)
        self.relay = self.peers[0]

    def make(self, name: str, filters: Mapping[str, int], *, will: LastWill | None, keep: bool, brief: bool) -> Peer:
        door = self.proxy.open(f"{name}-{len(self.peers)}", self.mosquitto.port)
        peer = RealPeer(self, name, filters, door)
        peer.will, peer.keep = will, keep
        peer.keep_alive_s = BRIEF_S if brief else PATIENT_S
        self.peers.append(peer)
        return peer

    def turn(self) -> None:
        peers = {peer.socket: peer for peer in self.peers if peer.socket is not None}
        writing = [sock for sock, peer in peers.items() if peer.wants_to_write]
        readable, writable, _ = select.select([*peers], writing, [], 0.01)
        for sock, peer in peers.items():
            peer.turn(sock in readable, sock in writable)

    def settle(self) -> None:
        while True:
            before = self._count()
            for _ in range(2):  # all have sent; then all have got
                for peer in self.peers:
                    peer.barrier()
            if self._count() == before:
                return

    def _count(self) -> tuple[int, ...]:
        return (len(self.cloud), *(len(peer.got) + len(peer.acked) + len(peer.said) for peer in self.peers))

    def now_s(self) -> float:
        return time.monotonic()

    def expired(self, began_s: float) -> bool:
        return self.now_s() - began_s > LIMIT_S

    def from_cloud(self, topic: str, text: str, qos: int = 1, *, retain: bool = False) -> None:
        self.relay.send(topic, text, qos, retain=retain)

    def close(self) -> None:
        for peer in self.peers:
            peer._abandon()


def _close(client: paho.Client) -> None:
    sock = client.socket()
    if sock is not None:
        sock.close()


@contextlib.contextmanager
def mosquitto_broker(folder: Path, version: Any) -> Iterator[MosquittoBroker]:
    """Raises fleet.live.parts.NotInstalled."""
    with Processes() as processes, ProxyThread() as proxy:
        mosquitto = Mosquitto(processes, folder, LINES)
        mosquitto.start()
        broker = MosquittoBroker(mosquitto, proxy, version)
        try:
            yield broker
        finally:
            broker.close()
