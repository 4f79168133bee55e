"""MQTT: a device's connection to its broker, by paho-mqtt under trio.

A clean session each time: state is fetched by cursor, not drained from a broker's queue. What goes up has QoS 1; the
broker's word for it counts for nothing but a refusal, which ends the connection: the relay's `ack` alone says that
something has arrived. Nothing in the protocol acts on a device's absence; for monitors it may say that it is there, and
leave the broker a last will that says that it is gone. Called by agent.runtime.
"""

from __future__ import annotations

import ssl
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import msgspec
import trio
from paho.mqtt import client as paho
from paho.mqtt.enums import LogLevel
from paho.mqtt.reasoncodes import ReasonCode

from agent.protocol.messages import MESSAGE_BYTES_MAX
from agent.protocol.topics import PREFIX, from_device, presence, to_account, to_all, to_device
from agent.transport import reasons
from agent.transport.paho_loop import PahoLoop, Unreadable, client_of
from agent.transport.port import Heard, LinkError, Up

ONLINE: Final = b"online"
OFFLINE: Final = b"offline"
_CONNECT_S: Final = 15.0  # for TCP and TLS
_ANSWER_S: Final = 20.0  # for CONNACK and SUBACK
_TICKS: Final = 8  # looks at the keep-alive, in its time
_PACKET_BYTES_MAX: Final = MESSAGE_BYTES_MAX + 4096
_TAKEN_OVER: Final = 0x8E  # MQTT 5, 3.14.2.1
_TCP_CONNECT_BYTES: Final = 800  # TCP, CONNECT, SUBSCRIBE and their answers
_TLS_CONNECT_BYTES: Final = 6_000  # with certificates of both sides
_WEB_CONNECT_BYTES: Final = 700
_MESSAGE_BYTES: Final = 150  # headers of IP and TCP there and back, the topic, PUBACK
_PING_BYTES: Final = 170  # PINGREQ and PINGRESP in segments of their own


class MqttSettings(msgspec.Struct, frozen=True, kw_only=True):
    """`path`: of MQTT over WebSocket, empty for plain TCP. `tls`: None for none. `account`: "" where none is known."""

    host: str
    port: int
    device: str
    account: str = ""
    prefix: str = PREFIX
    client_id: str = ""  # the device's id
    username: str | None = None
    password: str | None = None
    tls: ssl.SSLContext | None = None
    path: str = ""
    version: str = "5"
    keep_alive_s: int = 60
    presence: bool = False  # says ONLINE and OFFLINE in retained messages, the latter as its last will too

    @property
    def place(self) -> str:
        return f"{self.host}:{self.port}"


class MqttTransport:
    """See agent.transport.port.Transport. `limiter` bounds the threads in which connections are made; `wall_ms` is for
    what is said of certificates."""

    def __init__(self, settings: MqttSettings, limiter: trio.CapacityLimiter, wall_ms: Callable[[], int]) -> None:
        self.settings = settings
        self.place = settings.place
        self.connect_bytes = _TLS_CONNECT_BYTES if settings.tls is not None else _TCP_CONNECT_BYTES
        self.connect_bytes += _WEB_CONNECT_BYTES if settings.path else 0
        self.message_bytes = _MESSAGE_BYTES
        self.idle_bytes_per_s = _PING_BYTES / settings.keep_alive_s
        self._limiter = limiter
        self._wall_ms = wall_ms

    async def serve(self, up: Up, heard: Heard) -> None:
        try:
            await _Connection(self.settings, self._limiter).serve(up, heard)
        except BaseException as error:
            if reasons.is_cancelled(error):
                raise
            raise reasons.why(error, self.place, self._wall_ms) from error
        raise LinkError("lost", f"{self.place}: connection lost")


class _Connection:
    """One connection, from its attempt to its end."""

    def __init__(self, settings: MqttSettings, limiter: trio.CapacityLimiter) -> None:
        self.settings = settings
        self._limiter = limiter
        self._received: deque[bytes] = deque()
        self._why: LinkError | None = None
        self._welcome = False  # the broker has answered
        self._said = ""  # by paho, of the last thing that failed
        self._topic = from_device(settings.device, settings.prefix)
        self._presence = presence(settings.device, settings.prefix)
        self.client = self._client()
        self._loop = PahoLoop(self.client, self._checked)

    def _client(self) -> paho.Client:
        settings = self.settings
        client = client_of(
            client_id=self.client_id,
            version=settings.version,
            username=settings.username,
            password=settings.password,
            tls=settings.tls,
            path=settings.path,
        )
        client.connect_timeout = _CONNECT_S
        if settings.presence:
            client.will_set(self._presence, OFFLINE, 1, retain=True)
        client.on_connect = lambda _client, _data, _flags, reason, _properties: self._welcomed(reason)
        client.on_subscribe = lambda _client, _data, _mid, answers, _properties: self._loop.answer(answers)
        client.on_message = lambda _client, _data, message: self._received.append(bytes(message.payload))
        client.on_publish = lambda _client, _data, _mid, reason, _properties: self._published(reason)
        client.on_disconnect = lambda _client, _data, flags, reason, _properties: self._ended(flags, reason)
        client.on_log = self._log
        return client

    # Callbacks of paho.

    def _welcomed(self, reason: ReasonCode) -> None:
        if reason.is_failure:
            self._why = self._not_welcome(reason)
        self._welcome = True
        self._loop.answer(reason)

    def _published(self, reason: ReasonCode) -> None:
        if reason.is_failure:
            self._why = LinkError(
                "refused",
                f"{self.settings.place}: may not publish to {self._topic}: {reason}",
                "check the broker's access rules for this device",
            )

    def _ended(self, flags: Any, reason: ReasonCode) -> None:
        if self._why is not None or not flags.is_disconnect_packet_from_server:
            return
        if reason.value == _TAKEN_OVER:
            self._why = LinkError(
                "replaced",
                f"{self.settings.place}: another connection was made as {self.client_id}",
                "two agents run with one identity: stop one, or register it as a device of its own",
            )
        else:
            self._why = LinkError("lost", f"{self.settings.place}: the broker has ended the connection: {reason}")

    @property
    def client_id(self) -> str:
        return self.settings.client_id or self.settings.device

    def _log(self, _client: Any, _data: Any, level: int, text: str) -> None:
        if level in (LogLevel.MQTT_LOG_ERR, LogLevel.MQTT_LOG_WARNING):
            self._said = text

    # Life.

    async def serve(self, up: Up, heard: Heard) -> None:
        """Until the connection ends: raises what it ended with, alone or in groups."""
        settings = self.settings
        await self._loop.connect(
            settings.host,
            settings.port,
            settings.keep_alive_s,
            packet_bytes_max=_PACKET_BYTES_MAX,
            limiter=self._limiter,
        )
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._reading, heard)
                nursery.start_soon(self._loop.writing)
                nursery.start_soon(self._ticking)
                await self._join()
                up(self)
        finally:
            self._leave()

    async def _join(self) -> None:
        settings = self.settings
        await self._answer_to("CONNECT")
        self._checked()
        self._loop.ask()
        topics = [(to_device(settings.device, settings.prefix), 1), (to_all(settings.prefix), 0)]
        if settings.account:
            topics.insert(1, (to_account(settings.account, settings.prefix), 0))
        self.client.subscribe(topics)
        for (topic, _), answer in zip(topics, await self._answer_to("SUBSCRIBE"), strict=False):
            if answer.is_failure:
                text = f"{settings.place}: may not subscribe to {topic}: {answer}"
                raise LinkError("refused", text, "check the broker's access rules, and the device's account")
        if settings.presence:
            self.client.publish(self._presence, ONLINE, 0, retain=True)

    def _not_welcome(self, reason: ReasonCode) -> LinkError:
        text = f"{self.settings.place} refuses {self.client_id}: {reason}"
        if "protocol version" in str(reason).lower():
            return LinkError("protocol", text, 'try `connection.mqtt = "3.1.1"`')
        return LinkError("refused", text, "check user and password, or the certificate, and the broker's access rules")

    async def _answer_to(self, what: str) -> Any:
        try:
            return await self._loop.answered(_ANSWER_S)
        except trio.TooSlowError:
            text = f"{self.settings.place}: no answer to {what} within {_ANSWER_S:.0f} s"
            raise LinkError("unreachable", text) from None

    def send(self, payload: bytes) -> None:
        self.client.publish(self._topic, payload, 1)

    def _leave(self) -> None:
        """Says goodbye if the socket takes it, and closes."""
        if self.client.socket() is not None and self.client.is_connected():
            if self.settings.presence:  # a broker that is told goodbye forgets the will
                self.client.publish(self._presence, OFFLINE, 0, retain=True)
            self.client.disconnect()
            self.client.loop_write()
        self._loop.close()

    # The loops.

    def _checked(self) -> Any:
        """The socket. Raises why there is none."""
        if self._why is not None:
            raise self._why
        sock = self.client.socket()
        if sock is None:
            settings = self.settings
            raise reasons.closed(self._said, settings.place, welcome=self._welcome, secure=settings.tls is not None)
        return sock

    async def _reading(self, heard: Heard) -> None:
        while True:
            try:
                await self._loop.read()
            except Unreadable as error:
                raise LinkError("protocol", f"{self.settings.place}: {error}", "check what listens there") from error
            while self._received:
                await heard(self._received.popleft())
            self._checked()
            await trio.lowlevel.checkpoint()

    async def _ticking(self) -> None:
        while True:
            await trio.sleep(max(1.0, self.settings.keep_alive_s / _TICKS))
            self._checked()
            self.client.loop_misc()
            if self.client.socket() is None:
                raise LinkError("lost", f"{self.settings.place}: no answer to a ping: the connection is dead")
