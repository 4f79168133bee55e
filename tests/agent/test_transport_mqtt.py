"""The MQTT adapter against a broker that a test scripts, byte by byte, on loopback. Called by pytest only."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import pytest
import trio

from agent.protocol.messages import MESSAGE_BYTES_MAX
from agent.transport.mqtt import MqttSettings, MqttTransport
from agent.transport.port import Link, LinkError

CONNACK: Final = b"\x20\x03\x00\x00\x00"
SUBACK: Final = b"\x90\x06\x00\x01\x00\x01\x00\x00"
Script = Callable[[trio.SocketStream], Awaitable[None]]


class Heard:
    """What the adapter told."""

    def __init__(self) -> None:
        self.link: Link | None = None
        self.payloads: list[bytes] = []
        self.up = trio.Event()

    def on_up(self, link: Link) -> None:
        self.link = link
        self.up.set()

    async def on_message(self, payload: bytes) -> None:
        self.payloads.append(payload)


def ended(script: Script, act: Callable[[Heard], None] = lambda heard: None, version: str = "5") -> LinkError:
    """What a connection to a broker that follows the script ends with; `act` when it is up."""

    async def main() -> LinkError:
        heard = Heard()
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listener.socket.getsockname()[1]
        settings = MqttSettings(host="127.0.0.1", port=port, device="home-1", account="main", version=version)
        transport = MqttTransport(settings, trio.CapacityLimiter(1), lambda: 0)

        async def broker() -> None:
            async with listener, await listener.accept() as stream:
                await script(stream)

        async def acting() -> None:
            await heard.up.wait()
            act(heard)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(broker)
            nursery.start_soon(acting)
            try:
                with trio.fail_after(60):
                    await transport.serve(heard.on_up, heard.on_message)
            except LinkError as error:
                nursery.cancel_scope.cancel()
                return error
        raise AssertionError("it ended well")

    return trio.run(main)


async def packet(stream: trio.SocketStream, kind: int) -> bytes:
    """What comes until a packet of that kind."""
    held = b""
    while not held or held[0] >> 4 != kind:
        held = await stream.receive_some(65_536)
        assert held
    return held


async def left(stream: trio.SocketStream) -> None:
    """Until the client has gone."""
    while await stream.receive_some(65_536):
        pass


async def welcome(stream: trio.SocketStream) -> None:
    await packet(stream, 1)
    await stream.send_all(CONNACK)
    await packet(stream, 8)
    await stream.send_all(SUBACK)


def disconnect(code: int) -> bytes:
    return bytes((0xE0, 2, code, 0))


@pytest.mark.parametrize(
    ("code", "kind", "text"),
    [
        (0x8E, "replaced", "another connection was made as home-1"),
        (0x8B, "lost", "Server shutting down"),
        (0x8D, "lost", "Keep alive timeout"),
    ],
)
def test_the_brokers_goodbye_is_understood(code: int, kind: str, text: str) -> None:
    async def script(stream: trio.SocketStream) -> None:
        await welcome(stream)
        await stream.send_all(disconnect(code))

    error = ended(script)
    assert error.kind == kind and text in error.message


@pytest.mark.parametrize(("code", "text"), [(0x86, "Bad user name"), (0x87, "Not authorized"), (0x8A, "Banned")])
def test_a_refusal_is_the_reason_whatever_follows(code: int, text: str) -> None:
    async def script(stream: trio.SocketStream) -> None:
        await packet(stream, 1)
        await stream.send_all(bytes((0x20, 3, 0, code, 0)))

    error = ended(script)
    assert error.kind == "refused" and text in error.message and error.hint


def test_a_broker_that_knows_no_mqtt_5_leads_to_the_key_that_says_another() -> None:
    async def script(stream: trio.SocketStream) -> None:
        await packet(stream, 1)
        await stream.send_all(bytes((0x20, 3, 0, 0x84, 0)))

    assert '"3.1.1"' in ended(script).hint


def test_a_subscription_that_is_refused_ends_it() -> None:
    async def script(stream: trio.SocketStream) -> None:
        await packet(stream, 1)
        await stream.send_all(CONNACK)
        await packet(stream, 8)
        await stream.send_all(b"\x90\x06\x00\x01\x00\x01\x87\x00")
        await left(stream)

    error = ended(script)
    assert error.kind == "refused" and "may not subscribe to ioto/account/main/sync" in error.message


def test_a_publish_that_is_refused_ends_it() -> None:
    async def script(stream: trio.SocketStream) -> None:
        await welcome(stream)
        await packet(stream, 3)
        await stream.send_all(b"\x40\x04\x00\x02\x87\x00")
        await left(stream)

    def act(heard: Heard) -> None:
        assert heard.link is not None
        heard.link.send(b"{}")

    error = ended(script, act)
    assert error.kind == "refused" and "may not publish to ioto/service/home-1/sync" in error.message


@pytest.mark.parametrize(
    "nonsense", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\xff" * 100, b"\x20\xff\xff\xff\xff\xff\xff"]
)
@pytest.mark.parametrize("joined", [False, True])
def test_nonsense_ends_it_with_a_reason(nonsense: bytes, joined: bool) -> None:
    async def script(stream: trio.SocketStream) -> None:
        if joined:
            await welcome(stream)
        await stream.send_all(nonsense)

    assert ended(script).kind in ("protocol", "refused", "lost")


def test_a_connection_that_ends_before_an_answer_is_told_so() -> None:
    async def script(stream: trio.SocketStream) -> None:
        await packet(stream, 1)

    error = ended(script)
    assert error.kind == "refused" and "without an answer" in error.message and "TLS" in error.hint


def test_messages_arrive_in_order_and_whole() -> None:
    payloads = [b"x" * size for size in (1, 5, 70_000, MESSAGE_BYTES_MAX, 3)]
    seen: list[Heard] = []

    async def script(stream: trio.SocketStream) -> None:
        await welcome(stream)
        topic = b"ioto/device/home-1/sync"
        for payload in payloads:
            body = len(topic).to_bytes(2, "big") + topic + b"\0" + payload
            size, length = bytearray(), len(body)
            while True:
                length, low = divmod(length, 128)
                size.append(low | (0x80 if length else 0))
                if not length:
                    break
            await stream.send_all(b"\x30" + bytes(size) + body)

    assert ended(script, seen.append).kind == "lost"
    assert seen[0].payloads == payloads


def test_it_takes_leave_when_it_is_cancelled() -> None:
    async def main() -> bytes:
        heard = Heard()
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listener.socket.getsockname()[1]
        transport = MqttTransport(
            MqttSettings(host="127.0.0.1", port=port, device="home-1"), trio.CapacityLimiter(1), lambda: 0
        )
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                scope = trio.CancelScope()

                async def client() -> None:
                    with scope:
                        await transport.serve(heard.on_up, heard.on_message)

                nursery.start_soon(client)
                async with listener, await listener.accept() as stream:
                    await welcome(stream)
                    await heard.up.wait()
                    scope.cancel()
                    held = b""
                    while data := await stream.receive_some(1_000):
                        held += data
                    return held

    assert trio.run(main)[:1] == b"\xe0"
