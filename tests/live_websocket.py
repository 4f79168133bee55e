"""A device on a real WebSocket to a relay's process: the real Session and Database, and a thread with the connection.

Sockets are handled under trio in that thread; the session and its database stay in the test's own, which is told what
happened by a queue. Used by tests/live.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Iterator
from typing import Any, Final

import trio
from live_rig import LiveDevice, Table, switched_on
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_client_stream

from agent.events import CONNECTED, TIMER, Received
from agent.protocol import websocket
from cloud.credentials import digest_of
from cloud.registry import with_token

_HANDSHAKE_S: Final = 10.0


def token_for(device: str) -> str:
    return f"secret-of-{device}"


def give_tokens(table: Table, *devices: str, account: str = "main") -> None:
    for device in devices:
        table.execute(with_token(device, digest_of(token_for(device)), account))


class Link:
    """One connection, from its attempt to its end. `news`: None when it is open, a message, or its end: the code that
    it was closed with, 0 where it was not."""

    def __init__(self, port: int, device: str, token: str) -> None:
        self.news: queue.SimpleQueue[bytes | int | None] = queue.SimpleQueue()
        self._port, self._device, self._token = port, device, token
        self._trio: trio.lowlevel.TrioToken | None = None
        self._outgoing, self._out = trio.open_memory_channel[bytes](1_000)
        self._scope = trio.CancelScope()
        self._running = threading.Event()
        self._thread = threading.Thread(target=trio.run, args=(self._run,), daemon=True)
        self._thread.start()
        assert self._running.wait(_HANDSHAKE_S)

    def send(self, payload: bytes) -> None:
        self._soon(self._outgoing.send_nowait, payload)

    def close(self) -> None:
        self._soon(self._scope.cancel)
        self._thread.join(_HANDSHAKE_S)

    def _soon(self, function: Any, *arguments: Any) -> None:
        assert self._trio is not None
        with contextlib.suppress(trio.RunFinishedError):
            self._trio.run_sync_soon(function, *arguments)

    async def _run(self) -> None:
        self._trio = trio.lowlevel.current_trio_token()
        self._running.set()
        code = 0
        with self._scope:
            try:
                async with (
                    await trio.open_tcp_stream("127.0.0.1", self._port) as stream,
                    trio.open_nursery() as nursery,
                ):
                    code = await self._talk(stream, nursery)
                    nursery.cancel_scope.cancel()
            except* Exception:  # refused, reset: the session will try again
                code = 0
        self.news.put(code)

    async def _talk(self, stream: Any, nursery: trio.Nursery) -> int:
        header = (websocket.HEADER.encode(), websocket.bearer(self._token).encode())
        with trio.fail_after(_HANDSHAKE_S):
            client = await wrap_client_stream(
                nursery,
                stream,
                "127.0.0.1",
                websocket.path_of(self._device),
                subprotocols=[websocket.SUBPROTOCOL],
                extra_headers=[header],
            )
        self.news.put(None)
        nursery.start_soon(self._sending, client)
        try:
            while True:
                self.news.put(websocket.unframed(await client.get_message()))
        except ConnectionClosed as closed:
            return 0 if closed.reason is None else closed.reason.code

    async def _sending(self, client: WebSocketConnection) -> None:
        async for payload in self._out:
            await client.send_message(websocket.framed(payload))


class WebSocketDevice(LiveDevice):
    """`codes`: how its connections were closed."""

    def __init__(self, port: int, device_id: str, *, token: str | None = None, **more: Any) -> None:
        super().__init__(port, device_id, **more)
        self.token = token_for(device_id) if token is None else token
        self.link: Link | None = None
        self.codes: list[int] = []

    def _send(self, payload: bytes) -> None:
        if self.link is not None:
            self.link.send(payload)

    def _connect(self) -> None:
        self.link = Link(self.port, self.context.device_id, self.token)

    def _disconnect(self) -> None:
        if self.link is not None:
            self.link.close()
            self.link = None

    def _lost(self) -> None:
        self.link = None
        super()._lost()

    def turn(self) -> None:
        link = self.link
        if link is not None:
            with contextlib.suppress(queue.Empty):
                self._told(link.news.get(timeout=0.01))
        if self.session.timer_at_ms <= self.monotonic_ms():
            self.feed(TIMER)

    def _told(self, news: bytes | int | None) -> None:
        if news is None:
            self.feed(CONNECTED)
        elif isinstance(news, bytes):
            self.heard.append(news)
            self.feed(Received(news))
        else:
            self.codes.append(news)
            self._lost()

    def close(self) -> None:
        self._disconnect()
        super().close()


@contextlib.contextmanager
def websocket_devices(port: int, *names: str, **more: Any) -> Iterator[list[WebSocketDevice]]:
    with switched_on([WebSocketDevice(port, name, **more) for name in names]) as made:
        yield made
