"""The device side of the relay over MQTT: one connection to a broker, kept up; messages in, publishes out.

paho-mqtt through its external-loop interface, driven by trio: no thread but for the time of a connect. Every connection
is a new client with a clean session: nothing is to be had from a broker's queue that the protocol would not ask for
again. What comes in is acknowledged when its work has ended, not before: the broker then never has more under way with
this relay than `in_hand`, hands what a dead relay had to another (shared subscription), and what is lost all the same
the device sends again. Acknowledgements go out in the order of the messages, as MQTT wants it.

The device is the one that the topic names, which the broker's access rules bind to the connection; a payload's word for
it counts nothing. Called by cloud.service.
"""

from __future__ import annotations

import math
import socket
import ssl
from collections import Counter, deque
from collections.abc import Callable
from typing import Any, Final

import msgspec
import trio
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from agent.protocol.log import Log
from agent.protocol.topics import audience, from_device, sender, to_account, to_device
from cloud.service_intake import Intake
from cloud.table import Publish

STABLE_S: Final = 20.0  # a connection that held so long starts the back-off anew
_MISC_S: Final = 1.0
_ANSWER_S: Final = 15.0  # for CONNACK and SUBACK
_PACKET_BYTES_MAX: Final = (
    1 << 20
)  # more of one message a broker (MQTT 5) need not send: 128 KB are the protocol's limit
_BACKOFF_BASE_S: Final = 1.0
_BACKOFF_CAP_S: Final = 60.0


class BrokerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """`group`: of the shared subscription, empty for a plain one. `tls`: made from the certificates, None for none."""

    host: str
    port: int
    client_id: str
    prefix: str
    username: str | None = None
    password: str | None = None
    tls: ssl.SSLContext | None = None
    group: str = "fleet"
    version: str = "5"
    keep_alive_s: int = 30
    in_hand: int = 1_000  # messages from devices that are not acknowledged: those that wait, too
    window: int = 100  # publishes without the broker's acknowledgement: AWS IoT Core's limit
    confirm_s: float = 10.0  # for that acknowledgement
    grace_s: float = 30.0  # publishes wait so long for a broker that is away, counted from when it went
    bridge: bool = False  # hear what other relays say to devices, which may be connected to this one otherwise

    @property
    def place(self) -> str:
        return f"{self.host}:{self.port}"


class BrokerRefused(Exception):
    """The broker answers, and says no: the text says why."""


class _Down(Exception):
    """The connection is no more."""


class Connection:
    """One connection, from its attempt to its end."""

    def __init__(self, settings: BrokerSettings, receive: Callable[[Connection, Any], None]) -> None:
        self.settings = settings
        self.ready = False
        self.shared = False
        self.bridged = settings.bridge
        self.acknowledgements: deque[list[Any]] = deque()  # [message id, its work has ended]
        self.published: dict[int, tuple[trio.Event, list[Any]]] = {}
        self.window = trio.Semaphore(settings.window)
        self.why = ""
        self._receive = receive
        self._write = trio.Event()
        self._answered = trio.Event()
        self._answer: Any = None
        self._threaded = True  # while connect() runs in a thread, no event may be set
        five = settings.version == "5"
        self.client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=settings.client_id,
            clean_session=None if five else True,
            protocol=paho.MQTTv5 if five else paho.MQTTv311,
            reconnect_on_failure=False,
            manual_ack=True,
        )
        client = self.client
        client.max_inflight_messages = 0  # the window is kept here
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_message = lambda _client, _data, message: self._receive(self, message)
        client.on_publish = self._on_publish
        client.on_disconnect = self._on_disconnect
        client.on_socket_open = lambda _client, _data, sock: _no_delay(sock)
        client.on_socket_close = lambda _client, _data, sock: None if self._threaded else _closing(sock)
        client.on_socket_register_write = lambda _client, _data, _sock: self._want_write()
        if settings.username is not None:
            client.username_pw_set(settings.username, settings.password)
        if settings.tls is not None:
            client.tls_set_context(settings.tls)

    # Callbacks of paho.

    def _want_write(self) -> None:
        if not self._threaded:
            self._write.set()

    def _on_connect(self, _client: Any, _data: Any, _flags: Any, reason: Any, properties: Any) -> None:
        self._answer = (reason, properties)
        self._answered.set()

    def _on_subscribe(self, _client: Any, _data: Any, _mid: int, reasons: Any, _properties: Any) -> None:
        self._answer = reasons
        self._answered.set()

    def _on_publish(self, _client: Any, _data: Any, mid: int, reason: Any, _properties: Any) -> None:
        waiting = self.published.pop(mid, None)
        if waiting is not None:
            waiting[1].append(reason)
            waiting[0].set()

    def _on_disconnect(self, _client: Any, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        self.why = str(reason)

    # Life.

    async def serve(self, inbox_open: Callable[[], Any], on_ready: Callable[[Connection], None]) -> None:
        """Connects, subscribes, and goes on until the connection ends. Raises OSError, ValueError, BrokerRefused."""
        await trio.to_thread.run_sync(self._connect, abandon_on_cancel=True)
        self._threaded = False
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._reading, inbox_open)
                nursery.start_soon(self._writing)
                nursery.start_soon(self._ticking)
                await self._join()
                self.ready = True
                on_ready(self)
        except* _Down:
            pass
        finally:
            self.ready = False
            self._drop()

    def _connect(self) -> None:
        settings = self.settings
        if settings.version == "5":
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            properties.ReceiveMaximum = settings.in_hand
            properties.MaximumPacketSize = _PACKET_BYTES_MAX
            self.client.connect(
                settings.host, settings.port, settings.keep_alive_s, clean_start=True, properties=properties
            )
        else:
            self.client.connect(settings.host, settings.port, settings.keep_alive_s)

    async def _join(self) -> None:
        reason, properties = await self._answer_to("CONNECT")
        if reason.is_failure:
            raise BrokerRefused(str(reason))
        own = from_device("+", self.settings.prefix)
        topic = own
        can_share = getattr(properties, "SharedSubscriptionAvailable", 1) == 1
        if self.settings.group and can_share:
            topic = f"$share/{self.settings.group}/{own}"
        most = getattr(properties, "ReceiveMaximum", self.settings.window)
        if most < self.settings.window:
            self.window = trio.Semaphore(most)
        reasons = await self._subscribe(topic)
        if reasons[0].is_failure and topic != own:
            topic = own
            reasons = await self._subscribe(topic)
        if reasons[0].is_failure:
            raise BrokerRefused(f"subscription to {topic}: {reasons[0]}")
        self.shared = topic != own
        if self.settings.bridge:
            prefix = self.settings.prefix
            for heard in (to_device("+", prefix), to_account("+", prefix)):
                reasons = await self._subscribe(heard, qos=0, no_local=True)
                self.bridged = self.bridged and not reasons[0].is_failure

    async def _subscribe(self, topic: str, qos: int = 1, no_local: bool = False) -> Any:
        """`no_local`: not what this connection itself publishes; before MQTT 5 a broker cannot be asked for that."""
        self._answered = trio.Event()
        if self.settings.version == "5":  # what was retained is old: a device would send it again if it still counted
            never = SubscribeOptions.RETAIN_DO_NOT_SEND
            options = SubscribeOptions(qos=qos, noLocal=no_local, retainHandling=never)
            self.client.subscribe(topic, options=options)
        else:
            self.client.subscribe(topic, qos=qos)
        return await self._answer_to("SUBSCRIBE")

    async def _answer_to(self, what: str) -> Any:
        with trio.move_on_after(_ANSWER_S):
            await self._answered.wait()
            return self._answer
        raise TimeoutError(f"no answer to {what} within {_ANSWER_S:.0f} s")

    def unsubscribe(self) -> None:
        own = from_device("+", self.settings.prefix)
        self.client.unsubscribe(f"$share/{self.settings.group}/{own}" if self.shared else own)

    def disconnect(self) -> None:
        self.client.disconnect()

    def _drop(self) -> None:
        """Whatever waits for this connection learns that it is no more."""
        for event, _ in self.published.values():
            event.set()
        self.published.clear()
        sock = self.client.socket()
        if sock is not None:
            _closing(sock)
            sock.close()

    # The loops.

    def _checked(self) -> Any:
        sock = self.client.socket()
        if sock is None:
            raise _Down
        return sock

    async def _reading(self, inbox_open: Callable[[], Any]) -> None:
        while True:
            await inbox_open()
            sock = self._checked()
            if not (isinstance(sock, ssl.SSLSocket) and sock.pending()):
                try:
                    await trio.lowlevel.wait_readable(sock)
                except trio.ClosedResourceError:
                    raise _Down from None
            try:
                self.client.loop_read()
            except Exception as error:  # what a broker may send has no end; another connection gets over it
                self.why = f"{type(error).__name__}: {error}"
                raise _Down from error
            self._checked()
            await trio.lowlevel.checkpoint()

    async def _writing(self) -> None:
        while True:
            if not self.client.want_write():
                self._write = trio.Event()
                await self._write.wait()
            sock = self._checked()
            try:
                await trio.lowlevel.wait_writable(sock)
            except trio.ClosedResourceError:
                raise _Down from None
            self.client.loop_write()
            self._checked()

    async def _ticking(self) -> None:
        while True:
            await trio.sleep(_MISC_S)
            self._checked()
            self.client.loop_misc()
            self._checked()

    # Messages.

    def begun(self, mid: int) -> Callable[[], None]:
        """A message with QoS 1 has come. Gives what to call when its work has ended."""
        entry = [mid, False]
        self.acknowledgements.append(entry)

        def done() -> None:
            entry[1] = True
            while self.acknowledgements and self.acknowledgements[0][1]:
                first = self.acknowledgements.popleft()[0]
                if self.ready:
                    self.client.ack(first, 1)

        return done

    async def publish(self, message: Publish) -> str:
        """What the broker says: "taken", "unheard" (nobody subscribes), "refused", or "lost" where it says nothing."""
        async with self.window:
            if not self.ready:
                return "lost"
            sent = self.client.publish(message.topic, message.payload, message.qos)
            event, reasons = trio.Event(), list[Any]()
            self.published[sent.mid] = (event, reasons)
            with trio.move_on_after(self.settings.confirm_s):
                await event.wait()
            self.published.pop(sent.mid, None)
        if not reasons:
            return "lost"
        if reasons[0].is_failure:
            return "refused"
        return "unheard" if reasons[0].getName() == "No matching subscribers" else "taken"


class Broker:
    """Keeps a connection up, hands in what comes, and publishes. `pushed`: gets what other relays published, where the
    settings bridge that. `counters`: message_refused_topic, publish_taken, _unheard, _refused, _lost, _dropped,
    broker_connected, broker_lost, and what the intake counts."""

    def __init__(
        self,
        settings: BrokerSettings,
        intake: Intake,
        *,
        chance: Callable[[], float],
        counters: Counter[str],
        log: Log,
        pushed: Callable[[Publish], None] | None = None,
    ) -> None:
        self.settings = settings
        self.intake = intake
        self.chance = chance
        self.counters = counters
        self.log = log
        self.pushed = pushed
        self.connection: Connection | None = None
        self._up = trio.Event()
        self._down_since = math.inf  # until it runs
        self._known = False  # has been connected once
        self.stopping = False

    @property
    def connected(self) -> bool:
        return self.connection is not None and self.connection.ready

    async def run(self) -> None:
        """For ever, or until a connection ends after `stopping` was set. Raises BrokerRefused when the first connection
        is refused: only a person can help then."""
        attempts = 0
        self._down_since = trio.current_time()
        while True:
            connection = Connection(self.settings, self._receive)
            began = trio.current_time()
            why, refused = "", False
            try:
                await connection.serve(self.intake.open, self._ready)
                why = connection.why or "connection lost"
            except* (OSError, ValueError) as group:
                why = _first(group)
            except* BrokerRefused as group:
                why, refused = _first(group), True
            if refused and not self._known:
                raise BrokerRefused(why)
            if self.connection is connection:
                self.connection = None
                self._up = trio.Event()
                self._down_since = trio.current_time()
                self.counters["broker_lost"] += 1
            if self.stopping:
                return
            if trio.current_time() - began >= STABLE_S:
                attempts = 0
            self.log.problem("broker-unreachable", broker=self.settings.place, reason=why)
            ceiling = min(_BACKOFF_CAP_S, _BACKOFF_BASE_S * 2 ** min(attempts, 16))
            attempts += 1
            await trio.sleep(self.chance() * ceiling)

    def stop(self) -> None:
        """No new messages."""
        self.stopping = True
        if self.connection is not None and self.connection.ready:
            self.connection.unsubscribe()

    async def finish(self) -> None:
        """After `stop`: the connection ends in good order."""
        connection = self.connection
        if connection is not None and connection.ready:
            connection.disconnect()
            with trio.move_on_after(1.0):
                while connection.ready:
                    await trio.sleep(0.01)

    def _ready(self, connection: Connection) -> None:
        self.connection = connection
        self._known = True
        self._up.set()
        self.counters["broker_connected"] += 1
        self.log.over("broker-unreachable", broker=self.settings.place)
        self.log.event("broker-connected", broker=self.settings.place, shared=connection.shared)
        if self.settings.group and not connection.shared:
            self.log.event(
                "not-shared",
                "warning",
                hint="this broker has no shared subscriptions: every relay gets every message; run one, or --group ''",
            )
        if self.settings.bridge and not connection.bridged:
            hint = "the broker must let this relay hear what others publish to devices: `fleet-cloud acl` says how"
            self.log.event("not-bridged", "warning", hint=hint)

    # In.

    def _receive(self, connection: Connection, message: Any) -> None:
        done = connection.begun(message.mid) if message.qos else _nothing
        try:
            topic = message.topic
        except UnicodeDecodeError:
            topic = ""
        device = sender(topic, self.settings.prefix)
        if device is not None:
            self.intake.put(device, message.payload, done, self.publish)
            return
        if self.pushed is not None and audience(topic, self.settings.prefix) is not None:
            self.pushed(Publish(topic, message.payload, message.qos))
        else:
            self.counters["message_received"] += 1
            self.counters["message_refused_topic"] += 1
        done()

    # Out.

    async def publish(self, message: Publish) -> None:
        """Until the broker has taken it. A connection that is lost is waited for, for a while: then it is dropped and
        counted, and the device's next hello makes up for it."""
        while True:
            connection = self.connection
            if connection is None:
                left = self._down_since + self.settings.grace_s - trio.current_time()
                with trio.move_on_after(max(0.0, left)):
                    await self._up.wait()
                connection = self.connection
            if connection is None:
                self.counters["publish_dropped"] += 1
                self.log.problem("publish-dropped", topic=message.topic)
                return
            result = await connection.publish(message)
            if result == "lost" and not connection.ready:
                self.counters["publish_lost"] += 1
                continue
            self.counters[f"publish_{result}"] += 1
            if result == "refused":
                self.log.problem("publish-refused", topic=message.topic)
            elif result != "lost":
                self.log.over("publish-dropped")
            return


def _first(group: BaseExceptionGroup[Any]) -> str:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}" if not isinstance(error, BrokerRefused) else str(error)


def _no_delay(sock: Any) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _closing(sock: Any) -> None:
    if sock.fileno() != -1:
        trio.lowlevel.notify_closing(sock)


def _nothing() -> None:
    return
