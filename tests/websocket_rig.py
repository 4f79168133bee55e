"""A WebSocket listener of the relay on loopback, with a registry that a test sets, and clients good and bad.

The listener, the intake and the sockets are real; the table behind the credentials is a dict, and what would be worked
on waits for the test. A client's socket is the test's own: the library leaves one open that was refused. Time is
trio's, on a clock that jumps when nothing is left to do, so that a minute takes no minute. Used by the tests of
cloud.service_websocket.
"""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import trio
import trio.testing
from trio_websocket import ConnectionClosed, ConnectionRejected, WebSocketConnection, wrap_client_stream

from agent.protocol import websocket
from agent.protocol.log import Log
from agent.protocol.topics import PREFIX
from cloud.credentials import Credentials, digest_of
from cloud.listener_config import ListenerConfig
from cloud.registry import TOKEN, device_key
from cloud.service_drive import Driver
from cloud.service_inbox import Incoming
from cloud.service_intake import Intake
from cloud.service_websocket import Listener, ListenerSettings
from cloud.table import Get, TableError

LIMIT_S: Final = 3_600.0  # of the test's own time, which costs nothing
JUMP_S: Final = 0.05  # of real time without anything to do: then the clock jumps. Loopback takes far less
ACCOUNTS: Final = {"home-1": "main", "home-2": "main", "away-1": "other"}


async def later(seconds: float) -> None:
    """Lets so much of the test's own time pass."""
    await trio.sleep(seconds)


def token_for(device: str) -> str:
    return f"secret-of-{device}"


class Registry:
    """`items` by device; `failing`: raised instead of an answer. `asked` counts reads by device."""

    def __init__(self) -> None:
        self.items: dict[str, dict[str, Any]] = {
            device: {"account": account, TOKEN: digest_of(token_for(device))} for device, account in ACCOUNTS.items()
        }
        self.items["bare"] = {"account": "main"}  # has no token
        self.asked: Counter[str] = Counter()
        self.failing: TableError | None = None

    def execute(self, request: Any) -> Any:
        assert isinstance(request, Get)
        if self.failing is not None:
            raise self.failing
        (device,) = [name for name in (*self.items, "stranger") if device_key(name) == request.key]
        self.asked[device] += 1
        return self.items.get(device)


class Inline(Driver):
    """Runs a work where it is called: no threads, which a clock that jumps would not wait for."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry

    async def run(self, work: Generator[Any, Any, Any], publish: Any = None) -> Any:
        await trio.lowlevel.checkpoint()
        try:
            request = next(work)
            while True:
                try:
                    answer = self.registry.execute(request)
                except TableError as error:
                    request = work.throw(error)
                else:
                    request = work.send(answer)
        except StopIteration as end:
            return end.value


class Site:
    """A listener that runs, and everything around it."""

    def __init__(self, config: ListenerConfig, tls: ssl.SSLContext | None, inbox: int, every: str) -> None:
        self.registry = Registry()
        self.counters: Counter[str] = Counter()
        self.lines: list[dict[str, Any]] = []
        self.log = Log(
            lambda line: self.lines.append(json.loads(line)), wall_ms=lambda: 0, monotonic_ms=self.monotonic_ms
        )
        bound = socket.create_server(("127.0.0.1", 0))
        bound.setblocking(False)
        self.port: int = bound.getsockname()[1]
        self.intake = Intake(inbox, self.counters, self.log)
        self.listener = Listener(
            ListenerSettings(bound=bound, prefix=PREFIX, tls=tls, config=config),
            self.intake,
            Credentials(self.monotonic_ms, every),
            Inline(self.registry),
            monotonic_ms=self.monotonic_ms,
            chance=lambda: 0.5,
            counters=self.counters,
            log=self.log,
        )

    @staticmethod
    def monotonic_ms() -> int:
        return int(trio.current_time() * 1000)

    def told(self, event: str, about: str = "") -> list[dict[str, Any]]:
        return [line for line in self.lines if line["event"] == event and line.get("about", "") == about]

    async def next(self) -> Incoming:
        """The next message that came, taken and done."""
        with trio.fail_after(LIMIT_S):
            message = await self.intake.take()
        self.intake.finished(message)
        return message

    async def until(self, condition: Callable[[], Any]) -> None:
        with trio.fail_after(LIMIT_S):
            while not condition():
                await later(0.5)

    # Clients.

    @asynccontextmanager
    async def client(
        self,
        device: str = "home-1",
        *,
        token: str | None = None,
        path: str | None = None,
        subprotocol: str = websocket.SUBPROTOCOL,
        headers: list[tuple[bytes, bytes]] | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> AsyncIterator[WebSocketConnection]:
        """A device that keeps to the protocol. Raises ConnectionRejected, or what else ends it, in a group."""
        if headers is None:
            value = websocket.bearer(token_for(device) if token is None else token)
            headers = [(websocket.HEADER.encode(), value.encode())] if token != "" else []
        plain = await trio.open_tcp_stream("127.0.0.1", self.port)
        stream: Any = plain
        if tls is not None:
            stream = trio.SSLStream(plain, tls, server_hostname="127.0.0.1", https_compatible=True)
        async with plain, trio.open_nursery() as nursery:
            with trio.fail_after(LIMIT_S):  # where a stream breaks early the library would wait for ever
                client = await wrap_client_stream(
                    nursery,
                    stream,
                    "127.0.0.1",
                    websocket.path_of(device) if path is None else path,
                    subprotocols=[subprotocol] if subprotocol else None,
                    extra_headers=headers,
                )
            yield client
            with trio.move_on_after(LIMIT_S):
                await client.aclose()
            nursery.cancel_scope.cancel()

    async def refused(self, *arguments: Any, **more: Any) -> tuple[int, float]:
        """The status that a client is refused with, and the seconds that it took."""
        began = trio.current_time()
        statuses: list[int] = []
        try:
            async with self.client(*arguments, **more):
                raise AssertionError("it was let in")
        except* ConnectionRejected as group:
            for error in group.exceptions:
                assert isinstance(error, ConnectionRejected)
                statuses.append(error.status_code)
        return statuses[0], trio.current_time() - began

    @asynccontextmanager
    async def raw(self, device: str = "home-1", request: bytes | None = None) -> AsyncIterator[trio.SocketStream]:
        """A client that does what the test does, and nothing else. By default it is let in."""
        stream = await trio.open_tcp_stream("127.0.0.1", self.port)
        async with stream:
            if request is None:
                await stream.send_all(handshake(device))
                assert (await received(stream, b"\r\n\r\n")).startswith(b"HTTP/1.1 101")
            elif request:
                await stream.send_all(request)
            yield stream


def handshake(device: str, token: str | None = None) -> bytes:
    lines = [
        f"GET /v1/{device} HTTP/1.1",
        "Host: relay",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        f"Sec-WebSocket-Protocol: {websocket.SUBPROTOCOL}",
        f"Authorization: Bearer {token or token_for(device)}",
    ]
    return "\r\n".join([*lines, "", ""]).encode()


def frame(opcode: int, data: bytes, final: bool = True) -> bytes:
    """As a client sends it: masked, with a mask of zeros."""
    length = len(data)
    if length < 126:
        size = bytes([0x80 | length])
    elif length < 65_536:
        size = bytes([0x80 | 126]) + length.to_bytes(2, "big")
    else:
        size = bytes([0x80 | 127]) + length.to_bytes(8, "big")
    return bytes([(0x80 if final else 0) | opcode]) + size + bytes(4) + data


async def received(stream: trio.abc.ReceiveStream, until: bytes = b"") -> bytes:
    """All that comes up to `until`, or to the end; a reset is an end, too."""
    data = b""
    with trio.fail_after(LIMIT_S):
        while not until or until not in data:
            try:
                more = await stream.receive_some()
            except trio.BrokenResourceError:
                break
            if not more:
                break
            data += more
    return data


async def closing(client: WebSocketConnection) -> int:
    """The code that it is closed with, whatever comes before."""
    with trio.fail_after(LIMIT_S):
        while True:
            try:
                await client.get_message()
            except ConnectionClosed as closed:
                assert closed.reason is not None
                return closed.reason.code


def run(
    test: Callable[[Site], Awaitable[None]],
    config: ListenerConfig | None = None,
    *,
    tls: ssl.SSLContext | None = None,
    inbox: int = 1_000,
    every: str = "",
) -> Site:
    """Runs a test against a listener, which must have done no wrong by its end."""

    async def main() -> Site:
        site = Site(config or ListenerConfig(), tls, inbox, every)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(site.listener.run)
            await test(site)
            assert site.counters["websocket_error"] == 0, site.lines
            nursery.cancel_scope.cancel()
        assert site.listener.waiting_bytes == 0 and not site.listener.connections and not site.listener.handshaking
        return site

    return trio.run(main, clock=trio.testing.MockClock(autojump_threshold=JUMP_S))


def certificates(folder: Path, *names: str, host: str = "IP:127.0.0.1") -> None:
    """ca.pem, and for each name a certificate with that common name, and a key, that it has signed for that host."""

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True, timeout=60)

    new = ("req", "-newkey", "rsa:2048", "-nodes")
    openssl(*new, "-x509", "-days", "2", "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=test-ca")
    (folder / "names").write_text(f"subjectAltName={host}\n")
    for name in names:
        openssl(*new, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        signing = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "names")
        openssl("x509", "-req", "-in", f"{name}.csr", *signing, "-out", f"{name}.pem")
