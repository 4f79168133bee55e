"""A WebSocket straight to the relay, by trio-websocket: no broker between.

One WebSocket message is one message of the protocol (agent.protocol.websocket). The device says who it is by a token or
by its client certificate. Pings of our own find out a connection that is dead at one end. Called by agent.runtime.
"""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Callable
from typing import Final

import msgspec
import trio
import trio_websocket as web

from agent.protocol import websocket as wire
from agent.protocol.messages import MESSAGE_BYTES_MAX
from agent.transport import reasons
from agent.transport.port import Heard, LinkError, Up

_CONNECT_S: Final = 20.0  # for TCP, TLS and the handshake
_CLOSE_S: Final = 1.0
_WAITING_MAX: Final = 64  # messages of ours that the socket has not taken: the session has two open at most
_QUEUE: Final = 4  # messages that are read ahead
_TCP_CONNECT_BYTES: Final = 1_100
_TLS_CONNECT_BYTES: Final = 6_300
_MESSAGE_BYTES: Final = 90
_PING_BYTES: Final = 180
_REFUSED_HINT: Final = "check `connection.token` or the certificate: `fleet-cloud register` says whose it is"


class WebSocketSettings(msgspec.Struct, frozen=True, kw_only=True):
    """`token`: None where the certificate in `tls` says who it is. `path`: what the server puts before the relay's own;
    empty, unless a proxy stands between."""

    host: str
    port: int
    device: str
    token: str | None = None
    tls: ssl.SSLContext | None = None
    path: str = ""
    keep_alive_s: int = 60

    @property
    def place(self) -> str:
        return f"{self.host}:{self.port}"


class WebSocketTransport:
    """See agent.transport.port.Transport."""

    def __init__(self, settings: WebSocketSettings, wall_ms: Callable[[], int]) -> None:
        self.settings = settings
        self.place = settings.place
        self.connect_bytes = _TLS_CONNECT_BYTES if settings.tls is not None else _TCP_CONNECT_BYTES
        self.message_bytes = _MESSAGE_BYTES
        self.idle_bytes_per_s = _PING_BYTES / settings.keep_alive_s
        self._wall_ms = wall_ms

    async def serve(self, up: Up, heard: Heard) -> None:
        try:
            await self._serve(up, heard)
        except BaseException as error:
            if reasons.is_cancelled(error):
                raise
            raise self._why(reasons.root(error)) from error

    def _why(self, cause: BaseException) -> LinkError:
        if isinstance(cause, web.ConnectionRejected):
            return self._rejected(cause)
        if isinstance(cause, web.ConnectionClosed):
            return self._closed(cause.reason)
        if isinstance(cause, trio.TooSlowError):
            return LinkError("unreachable", f"{self.place}: no answer within {_CONNECT_S:.0f} s")
        if isinstance(cause, trio.BrokenResourceError | trio.ClosedResourceError):
            return LinkError("lost", f"{self.place}: connection lost")
        return reasons.why(cause, self.place, self._wall_ms)

    async def _serve(self, up: Up, heard: Heard) -> None:
        stream = _Watched(await self._stream())
        try:
            async with trio.open_nursery() as nursery:
                with trio.fail_after(_CONNECT_S):
                    connection = await self._handshake(stream, nursery)
                link = _Link(connection)
                nursery.start_soon(link.writing)
                nursery.start_soon(self._pinging, connection)
                up(link)
                while True:
                    await heard(wire.unframed(await connection.get_message()))
        finally:
            await trio.aclose_forcefully(stream)  # the library leaves one open that was refused

    async def _stream(self) -> trio.abc.Stream:
        settings = self.settings
        with trio.fail_after(_CONNECT_S):
            if settings.tls is None:
                return await trio.open_tcp_stream(settings.host, settings.port)
            stream = await trio.open_ssl_over_tcp_stream(
                settings.host, settings.port, ssl_context=settings.tls, https_compatible=True
            )
            try:
                await stream.do_handshake()
            except BaseException:
                await trio.aclose_forcefully(stream)
                raise
            return stream

    async def _handshake(self, stream: _Watched, nursery: trio.Nursery) -> web.WebSocketConnection:
        """Until the relay has said yes. The library itself would wait for ever where a stream ends before that."""
        settings = self.settings
        headers = [] if settings.token is None else [(wire.HEADER.encode(), wire.bearer(settings.token).encode())]

        async def watch() -> None:
            await stream.ended.wait()
            await trio.sleep(_CLOSE_S)  # what came before the end may say more
            raise LinkError(
                "lost", f"{self.place} has ended the connection without an answer", "check what listens there"
            )

        async with trio.open_nursery() as race:
            race.start_soon(watch)
            connection = await web.wrap_client_stream(
                nursery,
                stream,  # type: ignore[arg-type]  # any stream will do
                self.place,
                settings.path.rstrip("/") + wire.path_of(settings.device),
                subprotocols=[wire.SUBPROTOCOL],
                extra_headers=headers,
                message_queue_size=_QUEUE,
                max_message_size=MESSAGE_BYTES_MAX,
            )
            race.cancel_scope.cancel()
        if connection.subprotocol != wire.SUBPROTOCOL:
            raise LinkError("protocol", f"{self.place}: no relay: it does not speak {wire.SUBPROTOCOL}")
        return connection

    async def _pinging(self, connection: web.WebSocketConnection) -> None:
        while True:
            await trio.sleep(self.settings.keep_alive_s)
            with trio.move_on_after(self.settings.keep_alive_s) as limit:
                await connection.ping()
            if limit.cancelled_caught:
                raise LinkError("lost", f"{self.place}: no answer to a ping: the connection is dead")

    def _rejected(self, error: web.ConnectionRejected) -> LinkError:
        code = error.status_code
        body = (error.body or b"").decode("utf-8", "replace").strip()
        said = f"HTTP {code}{f': {body[:200]}' if body else ''}"
        if code in (401, 403):
            return LinkError("refused", f"{self.place} refuses {self.settings.device}: {said}", _REFUSED_HINT)
        if code == 404:
            return LinkError("protocol", f"{self.place}: no relay there: {said}", "check `connection.url`")
        return LinkError("unreachable", f"{self.place}: {said}")

    def _closed(self, reason: web.CloseReason | None) -> LinkError:
        if reason is None:
            return LinkError("lost", f"{self.place}: connection lost")
        said = f"{reason.code}{f' {reason.reason}' if reason.reason else ''}"
        if reason.code == wire.REPLACED:
            text = f"{self.place}: another connection was made as {self.settings.device}"
            return LinkError("replaced", text, "two agents run with one identity: stop one, or register it anew")
        if reason.code == wire.REVOKED:
            return LinkError("refused", f"{self.place} refuses {self.settings.device}: {said}", _REFUSED_HINT)
        return LinkError("lost", f"{self.place}: the relay has ended the connection: {said}")


class _Watched(trio.abc.Stream):
    """A stream that tells when its other end has ended it."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self.ended = trio.Event()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        try:
            data = bytes(await self._stream.receive_some(max_bytes))
        except BaseException:
            self.ended.set()
            raise
        if not data:
            self.ended.set()
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self._stream.aclose()


class _Link:
    """What is to be sent waits here for the socket."""

    def __init__(self, connection: web.WebSocketConnection) -> None:
        self._connection = connection
        self._in, self._out = trio.open_memory_channel[bytes](_WAITING_MAX)

    def send(self, payload: bytes) -> None:
        # A socket that takes nothing: the session sends again, and the ping finds out.
        with contextlib.suppress(trio.WouldBlock, trio.BrokenResourceError):
            self._in.send_nowait(payload)

    async def writing(self) -> None:
        async for payload in self._out:
            await self._connection.send_message(wire.framed(payload))
