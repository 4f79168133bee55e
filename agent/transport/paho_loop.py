"""paho-mqtt through its external-loop interface, driven by trio. No thread but for the time of a connect.

What a device's connection (agent.transport.mqtt) and a relay's (cloud.service_mqtt) have in common: the client, making
the connection, waiting for the socket, the answers to CONNECT and SUBSCRIBE. What a connection is for, what is done
with what comes, and what its end means is theirs. Imports nothing of this project, so that the cloud may share it.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import Any

import trio
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties


class Unreadable(Exception):
    """What came from the broker cannot be read: the text says what of it."""


def client_of(
    *,
    client_id: str,
    version: str,
    username: str | None,
    password: str | None,
    tls: ssl.SSLContext | None,
    path: str = "",
    manual_ack: bool = False,
) -> paho.Client:
    """A client that keeps no session and does not connect again by itself. `version`: "5" or "3.1.1". `path`: of MQTT
    over WebSocket, empty for plain TCP. How much may be under way is the caller's to limit, so paho does not."""
    five = version == "5"
    client = paho.Client(
        CallbackAPIVersion.VERSION2,
        client_id=client_id,
        clean_session=None if five else True,
        protocol=paho.MQTTv5 if five else paho.MQTTv311,
        transport="websockets" if path else "tcp",
        reconnect_on_failure=False,
        manual_ack=manual_ack,
    )
    client.max_inflight_messages = 0
    if path:
        client.ws_set_options(path)
    if username is not None:
        client.username_pw_set(username, password)
    if tls is not None:
        client.tls_set_context(tls)
    return client


class PahoLoop:
    """`checked` gives the client's socket, or raises what the connection ended with."""

    def __init__(self, client: paho.Client, checked: Callable[[], Any]) -> None:
        self.client = client
        self._checked = checked
        self._write = trio.Event()
        self._answered = trio.Event()
        self._answer: Any = None
        self._threaded = True  # while connect() runs in a thread, no event may be set
        client.on_socket_open = lambda _client, _data, sock: _no_delay(sock)
        client.on_socket_close = lambda _client, _data, sock: None if self._threaded else _closing(sock)
        client.on_socket_register_write = lambda _client, _data, _sock: self._want_write()

    def _want_write(self) -> None:
        if not self._threaded:
            self._write.set()

    # Its beginning and its end.

    async def connect(
        self,
        host: str,
        port: int,
        keep_alive_s: int,
        *,
        packet_bytes_max: int,
        receive_max: int | None = None,
        limiter: trio.CapacityLimiter | None = None,
    ) -> None:
        """Until CONNECT is handed over, in a thread: resolving a name and TLS block. By MQTT 5 the broker is told the
        limits: bytes of a packet, and messages with QoS 1 under way. Raises OSError, ValueError."""
        properties = None
        if self.client.protocol == paho.MQTTv5:
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            properties.MaximumPacketSize = packet_bytes_max
            if receive_max is not None:
                properties.ReceiveMaximum = receive_max

        def connect() -> None:
            clean = paho.MQTT_CLEAN_START_FIRST_ONLY if properties is None else True
            self.client.connect(host, port, keep_alive_s, clean_start=clean, properties=properties)

        await trio.to_thread.run_sync(connect, abandon_on_cancel=True, limiter=limiter)
        self._threaded = False

    def close(self) -> None:
        """Of a socket that is still open."""
        sock: Any = self.client.socket()
        if sock is not None:
            _closing(sock)
            sock.close()

    # Answers: one is waited for at a time.

    def ask(self) -> None:
        """Before a packet goes out that will be answered."""
        self._answered = trio.Event()

    def answer(self, answer: Any) -> None:
        """From a callback of paho."""
        self._answer = answer
        self._answered.set()

    async def answered(self, within_s: float) -> Any:
        """What `answer` was given. Raises trio.TooSlowError."""
        with trio.fail_after(within_s):
            await self._answered.wait()
        return self._answer

    # The loops.

    async def read(self) -> None:
        """Waits until something has come, and hands it to paho, whose callbacks tell of it. Raises Unreadable."""
        sock = self._checked()
        if not _has_more(sock):
            await self._wait(trio.lowlevel.wait_readable, sock)
        try:
            self.client.loop_read()
        except Exception as error:  # what a broker may send has no end; another connection gets over it
            raise Unreadable(f"{type(error).__name__}: {error}") from error

    async def writing(self) -> None:
        """Sends what paho has to send, until the connection ends."""
        while True:
            if not self.client.want_write():
                self._write = trio.Event()
                await self._write.wait()
            await self._wait(trio.lowlevel.wait_writable, self._checked())
            self.client.loop_write()
            self._checked()

    async def _wait(self, ready: Callable[[Any], Awaitable[None]], sock: Any) -> None:
        with contextlib.suppress(trio.ClosedResourceError):  # paho has closed it, and has none now: `checked` says why
            await ready(sock)
        self._checked()


def _has_more(sock: Any) -> bool:
    """Bytes that TLS has decrypted already: the kernel tells nothing of them."""
    pending = getattr(sock, "pending", None)
    return pending is not None and pending() > 0


def _no_delay(sock: Any) -> None:
    inner = getattr(sock, "_socket", sock)  # paho wraps it for WebSocket
    inner.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _closing(sock: Any) -> None:
    if sock.fileno() != -1:
        trio.lowlevel.notify_closing(sock)
