"""The WebSocket adapter against a server that a test scripts, on loopback. Called by pytest only."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
import trio_websocket as web

from agent.protocol.messages import MESSAGE_BYTES_MAX
from agent.protocol.websocket import IDLE, REPLACED, REVOKED, SUBPROTOCOL
from agent.transport.port import Link, LinkError
from agent.transport.websocket import WebSocketSettings, WebSocketTransport

Script = Callable[[web.WebSocketRequest], Awaitable[None]]


def ended(script: Script, act: Callable[[Link], None] = lambda link: None) -> tuple[LinkError, list[bytes]]:
    """What a connection to a server that follows the script ends with, and what was heard; `act` when it is up."""

    async def main() -> tuple[LinkError, list[bytes]]:
        payloads: list[bytes] = []

        async def heard(payload: bytes) -> None:
            payloads.append(payload)

        async with trio.open_nursery() as nursery:
            server = await nursery.start(web.serve_websocket, script, "127.0.0.1", 0, None)
            settings = WebSocketSettings(host="127.0.0.1", port=server.port, device="home-1", token="secret")
            try:
                with trio.fail_after(60):
                    await WebSocketTransport(settings, lambda: 0).serve(act, heard)
            except LinkError as error:
                nursery.cancel_scope.cancel()
                return error, payloads
        raise AssertionError("it ended well")

    return trio.run(main)


async def accepted(request: web.WebSocketRequest) -> web.WebSocketConnection:
    return await request.accept(subprotocol=SUBPROTOCOL)


@pytest.mark.parametrize(
    ("status", "kind"),
    [(401, "refused"), (403, "refused"), (404, "protocol"), (429, "unreachable"), (503, "unreachable")],
)
def test_an_answer_that_is_no_is_understood(status: int, kind: str) -> None:
    async def script(request: web.WebSocketRequest) -> None:
        await request.reject(status, body=b"because")

    error, _ = ended(script)
    assert error.kind == kind and f"HTTP {status}: because" in error.message


@pytest.mark.parametrize(
    ("code", "kind", "text"),
    [
        (REPLACED, "replaced", "another connection was made as home-1"),
        (REVOKED, "refused", "refuses home-1"),
        (IDLE, "lost", "4008"),
        (1001, "lost", "the relay has ended the connection: 1001 stops"),
    ],
)
def test_why_it_was_closed_is_understood(code: int, kind: str, text: str) -> None:
    async def script(request: web.WebSocketRequest) -> None:
        connection = await accepted(request)
        await connection.aclose(code, "stops")

    error, _ = ended(script)
    assert error.kind == kind and text in error.message


def test_who_it_is_stands_in_path_and_header_and_a_message_is_a_message() -> None:
    seen: list[object] = []

    async def script(request: web.WebSocketRequest) -> None:
        seen.append((request.path, dict(request.headers)[b"authorization"], request.proposed_subprotocols))
        connection = await accepted(request)
        seen.append(await connection.get_message())
        seen.append(await connection.get_message())
        for message in ("{}", b"\x81\x00", "x" * (MESSAGE_BYTES_MAX - 1)):
            await connection.send_message(message)
        await connection.aclose(1001)

    def act(link: Link) -> None:
        link.send(b'{"t": "hello"}')
        link.send(b"\x83\x01")

    _, payloads = ended(script, act)
    assert seen == [("/v1/home-1", b"Bearer secret", ("fleet.v1",)), '{"t": "hello"}', b"\x83\x01"]
    assert payloads == [b"{}", b"\x81\x00", b"x" * (MESSAGE_BYTES_MAX - 1)]


def test_a_server_that_does_not_speak_fleet_is_left() -> None:
    async def script(request: web.WebSocketRequest) -> None:
        connection = await request.accept()
        await connection.get_message()

    error, _ = ended(script)
    assert error.kind == "protocol" and "fleet.v1" in error.message


def test_a_message_over_the_limit_ends_it() -> None:
    async def script(request: web.WebSocketRequest) -> None:
        connection = await accepted(request)
        await connection.send_message("x" * (MESSAGE_BYTES_MAX + 1))
        await connection.get_message()

    error, payloads = ended(script)
    assert error.kind == "lost" and payloads == []


@pytest.mark.parametrize("nonsense", [b"\xff\xff\xff\xff", b"", b"HTTP/1.1 200 OK\r\n\r\n"])
def test_nonsense_ends_it_with_a_reason(nonsense: bytes) -> None:
    async def main() -> LinkError:
        async def script(stream: trio.SocketStream) -> None:
            await stream.receive_some(65_536)
            await stream.send_all(nonsense)

        async def heard(payload: bytes) -> None:
            raise AssertionError(payload)

        async with trio.open_nursery() as nursery:
            (listener,) = await nursery.start(lambda task_status: trio.serve_tcp(
                script, 0, host="127.0.0.1", task_status=task_status))  # fmt: skip
            settings = WebSocketSettings(host="127.0.0.1", port=listener.socket.getsockname()[1], device="home-1")
            try:
                with trio.fail_after(60):
                    await WebSocketTransport(settings, lambda: 0).serve(lambda link: None, heard)
            except LinkError as error:
                nursery.cancel_scope.cancel()
                return error
        raise AssertionError("it ended well")

    assert trio.run(main).kind in ("protocol", "lost", "unreachable")
