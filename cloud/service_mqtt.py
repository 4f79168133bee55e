"""The device side of the relay over MQTT: one connection to a broker, kept up; messages in, publishes out.

paho-mqtt under trio, as a device's connection has it (agent.transport.paho_loop). Every connection is a new client with
a clean session: nothing is to be had from a broker's queue that the protocol would not ask for again. What comes in is
acknowledged when its work has ended, not before: the broker then never has more under way with this relay than
`in_hand`, hands what a dead relay had to another (shared subscription), and what is lost all the same the device sends
again. Acknowledgements go out in the order of the messages, as MQTT wants it.

The device is the one that the topic names, which the broker's access rules bind to the connection; a payload's word for
it counts nothing. Called by cloud.service.
"""

from __future__ import annotations

import math
import ssl
from collections import Counter, deque
from collections.abc import Callable
from typing import Any, Final

import msgspec
import trio
from paho.mqtt.subscribeoptions import SubscribeOptions

from agent.protocol.log import Log
from agent.protocol.topics import audience, from_device, sender, to_account, to_device
from agent.transport.paho_loop import PahoLoop, Unreadable, client_of
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
    path: str = ""  # of MQTT over WebSocket
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
        self.client = client_of(
            client_id=settings.client_id,
            version=settings.version,
            username=settings.username,
            password=settings.password,
            tls=settings.tls,
            path=settings.path,
            manual_ack=True,
        )
        self._loop = PahoLoop(self.client, self._checked)
        client = self.client
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_message = lambda _client, _data, message: self._receive(self, message)
        client.on_publish = self._on_publish
        client.on_disconnect = self._on_disconnect

    # Callbacks of paho.

    def _on_connect(self, _client: Any, _data: Any, _flags: Any, reason: Any, properties: Any) -> None:
        self._loop.answer((reason, properties))

    def _on_subscribe(self, _client: Any, _data: Any, _mid: int, reasons: Any, _properties: Any) -> None:
        self._loop.answer(reasons)

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
        settings = self.settings
        await self._loop.connect(
            settings.host,
            settings.port,
            settings.keep_alive_s,
            packet_bytes_max=_PACKET_BYTES_MAX,
            receive_max=settings.in_hand,
        )
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._reading, inbox_open)
                nursery.start_soon(self._loop.writing)
                nursery.start_soon(self._ticking)
                await self._join()
                self.ready = True
                on_ready(self)
        except* _Down:
            pass
        finally:
            self.ready = False
            self._drop()

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
        self._loop.ask()
        if self.settings.version == "5":  # what was retained is old: a device would send it again if it still counted
            never = SubscribeOptions.RETAIN_DO_NOT_SEND
            options = SubscribeOptions(qos=qos, noLocal=no_local, retainHandling=never)
            self.client.subscribe(topic, options=options)
        else:
            self.client.subscribe(topic, qos=qos)
        return await self._answer_to("SUBSCRIBE")

    async def _answer_to(self, what: str) -> Any:
        try:
            return await self._loop.answered(_ANSWER_S)
        except trio.TooSlowError:
            raise TimeoutError(f"no answer to {what} within {_ANSWER_S:.0f} s") from None

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
        self._loop.close()

    # The loops.

    def _checked(self) -> Any:
        sock = self.client.socket()
        if sock is None:
            raise _Down
        return sock

    async def _reading(self, inbox_open: Callable[[], Any]) -> None:
        while True:
            await inbox_open()
            try:
                await self._loop.read()
            except Unreadable as error:
                self.why = str(error)
                raise _Down from error
            self._checked()
            await trio.lowlevel.checkpoint()

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


def _nothing() -> None:
    return
