"""The way to a WebSocket: TLS, the request, whose it is. Says no in a few words, counts why, and is never hurried.

An unknown device, a device without a token and a wrong token get the same answer after the same time. One address has
so many handshakes at once and so many failures a minute; a token that was right before is let through all the same, so
that a neighbour behind the same address costs nobody the connection. Called by cloud.service_websocket.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass
from typing import Any, Final

import trio
from trio_websocket import WebSocketConnection, WebSocketRequest, wrap_server_stream

from agent.protocol import websocket
from agent.protocol.log import Log
from agent.protocol.messages import MESSAGE_BYTES_MAX
from cloud.credentials import Credentials, digest_of
from cloud.failures import Failures
from cloud.listener_config import ListenerConfig
from cloud.service_websocket_stream import MeasuredStream
from cloud.table import TableError

_RECEIVE_BYTES: Final = 16 * 1024
_LINGER_S: Final = 1.0
_LATER: Final = [(b"Retry-After", b"10")]
_COMMON_NAME: Final = "commonName"


class Refused(Exception):
    """`reason`: as it is counted. `status`: of HTTP, 0 where nothing is to be said."""

    def __init__(self, reason: str, status: int = 0, text: str = "", headers: list[tuple[bytes, bytes]] | None = None):
        self.reason = reason
        self.status = status
        self.text = text
        self.headers = headers or []
        super().__init__(reason)


@dataclass(frozen=True, slots=True)
class Admitted:
    """A device that has proved its name. `digest`: of its token, None with a certificate."""

    device: str
    account: str
    digest: str | None
    socket: WebSocketConnection


class Door:
    """`run` runs a work on the table. `room`: whether one more device may come in, by its id."""

    def __init__(
        self,
        config: ListenerConfig,
        credentials: Credentials,
        run: Callable[[Generator[Any, Any, str | None]], Awaitable[str | None]],
        room: Callable[[str], bool],
        *,
        monotonic_ms: Callable[[], int],
        counters: Counter[str],
        log: Log,
    ) -> None:
        self.config = config
        self.credentials = credentials
        self.run = run
        self.room = room
        self.counters = counters
        self.log = log
        self.failures = Failures(config.failures, config.failures_per_minute, monotonic_ms)

    async def admit(
        self, stream: MeasuredStream, secure: trio.SSLStream[Any] | None, network: str, nursery: trio.Nursery
    ) -> Admitted | None:
        """The handshake, whole. `nursery`: for what reads the connection from now on. None: it was refused."""
        device, told = "", False
        try:
            with trio.move_on_after(self.config.handshake_ms / 1000):
                name = await _common_name(secure)
                request = await _request(stream, nursery)
                try:
                    device = _device(request)
                    account, digest = await self._identity(device, name, request, network)
                except Refused as refused:
                    self.refuse(refused.reason, network, device)
                    told = True
                    await _say_no(request, refused, stream)
                    return None
                socket = await request.accept(subprotocol=websocket.SUBPROTOCOL)
                stream.opened()
                return Admitted(device, account, digest, socket)
            if not told:
                raise Refused("timeout")
        except Refused as refused:
            self.refuse(refused.reason, network, device)
        return None

    def refuse(self, why: str, network: str, device: str = "", **more: str) -> None:
        self.counters[f"websocket_refused_{why}"] += 1
        fields = {"device": device} if device else {}
        self.log.problem("websocket-refused", why, address=network, **fields, **more)

    async def _identity(
        self, device: str, name: str | None, request: WebSocketRequest, network: str
    ) -> tuple[str, str | None]:
        """Whose device it is, and the digest of its token where it has shown one. Raises Refused."""
        if not self.room(device):
            raise Refused("full", 503, "no place for another device: come later", _LATER)
        began = trio.current_time()
        digest = None
        if name != device:
            token = _token(request)
            digest = "" if token is None else digest_of(token)
        account, reason = None, "credentials"
        if digest and self.failures.too_many(network) and not self.credentials.was_proved(device, digest):
            reason = "rate"
        elif digest != "":
            try:
                account = await self.run(self.credentials.check(device, digest))
            except TableError as error:
                raise Refused(f"table_{type(error).__name__.lower()}", 503, "come later", _LATER) from None
        if account is None:
            if reason == "credentials":
                self.failures.add(network)
            await trio.sleep_until(began + self.config.refusal_ms / 1000)
            status = 401 if reason == "credentials" else 429
            raise Refused(
                reason, status, "who are you?", [(b"WWW-Authenticate", b"Bearer")] if status == 401 else _LATER
            )
        return account, digest


def _device(request: WebSocketRequest) -> str:
    """Raises Refused."""
    device = websocket.device_of(request.path)
    if device is None:
        raise Refused("path", 404, f"expected {websocket.PATH}<device>")
    if websocket.SUBPROTOCOL not in request.proposed_subprotocols:
        raise Refused("subprotocol", 400, f"expected the subprotocol {websocket.SUBPROTOCOL}")
    return device


def _token(request: WebSocketRequest) -> str | None:
    wanted = websocket.HEADER.lower().encode()
    values = [value for name, value in request.headers if name.lower() == wanted]
    return websocket.token_of(values[0].decode("latin-1")) if len(values) == 1 else None


async def _common_name(secure: trio.SSLStream[Any] | None) -> str | None:
    """Of the client's certificate, which the authorities of this listener have signed. Raises Refused."""
    if secure is None:
        return None
    try:
        await secure.do_handshake()
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        raise Refused("tls") from None
    subject = (secure.getpeercert() or {}).get("subject", ())
    names = [value for part in subject for key, value in part if key == _COMMON_NAME]
    return names[0] if len(names) == 1 else None


async def _request(stream: MeasuredStream, nursery: trio.Nursery) -> WebSocketRequest:
    """Raises Refused for what is no request for a WebSocket: the layer below has answered that then."""
    found: list[WebSocketRequest] = []
    async with trio.open_nursery() as race:

        async def ended() -> None:
            await stream.ended.wait()
            race.cancel_scope.cancel()

        race.start_soon(ended)
        found.append(
            await wrap_server_stream(
                nursery, stream, max_message_size=MESSAGE_BYTES_MAX, receive_buffer_size=_RECEIVE_BYTES
            )
        )
        race.cancel_scope.cancel()
    if not found:
        raise Refused("http" if stream.closed else "flood" if stream.flooded else "gone")
    return found[0]


async def _say_no(request: WebSocketRequest, refused: Refused, stream: MeasuredStream) -> None:
    """Then waits for the other side to go: whoever closes first may take the answer from it."""
    headers = [(b"Connection", b"close"), (b"Content-Type", b"text/plain"), *refused.headers]
    await request.reject(refused.status, extra_headers=headers, body=f"{refused.text}\n".encode())
    with trio.move_on_after(_LINGER_S):
        await stream.ended.wait()
