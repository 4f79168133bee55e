"""The device side of the relay over WebSockets: a listener, one connection for each device, and who hears what.

What the relay says to a topic goes to the connection of the device, to those of the account's devices, or to all. A
device that connects again takes the place of its old connection, as a broker does with a client id. Whatever comes in
from outside ends one connection at most, and is counted. Called by cloud.service.
"""

from __future__ import annotations

import errno
import socket
import ssl
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import msgspec
import trio
from trio_websocket import ConnectionClosed
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from agent.protocol import websocket
from agent.protocol.log import Log
from agent.protocol.topics import ALL, audience
from cloud.credentials import Credentials
from cloud.failures import network_of
from cloud.listener_config import ListenerConfig
from cloud.service_drive import Driver
from cloud.service_intake import Intake
from cloud.service_websocket_connection import Connection, Store
from cloud.service_websocket_door import Admitted, Door
from cloud.service_websocket_stream import MeasuredStream
from cloud.table import Publish, TableError

_GONE: Final = (errno.ECONNABORTED, errno.EPROTO, errno.EPERM)  # before it was taken: that was all
_NO_ROOM_S: Final = 0.1  # before the next try, where there are no more files or no memory
_FLUSH_S: Final = 5.0  # for what waits to be sent when the relay stops


class ListenerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """`bound`: the listening socket. `tls`: with the server's certificate, None for none. `prefix`: of the topics."""

    bound: socket.socket
    prefix: str
    tls: ssl.SSLContext | None = None
    config: ListenerConfig = ListenerConfig()

    @property
    def place(self) -> str:
        host, port = self.bound.getsockname()[:2]
        return f"{'ws' if self.tls is None else 'wss'}://{f'[{host}]' if ':' in host else host}:{port}"


class Listener:
    """`counters`: websocket_connected, websocket_closed_WHY, websocket_refused_REASON, websocket_bytes_in and _out,
    websocket_error, and what a connection counts."""

    def __init__(
        self,
        settings: ListenerSettings,
        intake: Intake,
        credentials: Credentials,
        driver: Driver,
        *,
        monotonic_ms: Callable[[], int],
        chance: Callable[[], float],
        counters: Counter[str],
        log: Log,
    ) -> None:
        self.settings = settings
        self.chance = chance
        self.config = settings.config
        self.intake = intake
        self.credentials = credentials
        self.driver = driver
        self.counters = counters
        self.log = log
        self.connections: dict[str, Connection] = {}
        self.accounts: dict[str, dict[str, Connection]] = {}
        self.handshaking = 0
        self.stopping = False
        self._store = Store(self.config.queues_bytes)
        self._networks: Counter[str] = Counter()  # handshakes under way
        self._handshakes = trio.Semaphore(self.config.handshakes)
        self._accepting = trio.CancelScope()
        self._gone = trio.lowlevel.ParkingLot()
        self._door = Door(
            self.config, credentials, driver.run, self._room, monotonic_ms=monotonic_ms, counters=counters, log=log
        )

    @property
    def waiting_bytes(self) -> int:
        return self._store.held

    # Life.

    async def run(self) -> None:
        """Until it is cancelled, or `finish` was called and all connections have ended."""
        listening = trio.socket.from_stdlib_socket(self.settings.bound)
        async with trio.open_nursery() as nursery:
            with listening, self._accepting:
                await self._accept(listening, nursery)

    def stop(self) -> None:
        """Nobody comes in any more, and nothing more is read."""
        self.stopping = True
        self._accepting.cancel()
        for connection in self.connections.values():
            connection.stop_reading()

    async def finish(self) -> None:
        """After `stop`: what waits is sent, and every device told to go elsewhere."""
        async with trio.open_nursery() as nursery:
            for connection in list(self.connections.values()):
                nursery.start_soon(connection.finish, _FLUSH_S)
        with trio.move_on_after(_FLUSH_S):
            while self.connections:
                await self._gone.park()

    async def _accept(self, listening: Any, nursery: trio.Nursery) -> None:
        while True:
            await self._handshakes.acquire()
            try:
                accepted, address = await listening.accept()
            except OSError as error:
                self._handshakes.release()
                if error.errno not in _GONE:
                    self.log.problem("websocket-accept", reason=str(error.strerror))
                    await trio.sleep(_NO_ROOM_S)
                continue
            self.log.over("websocket-accept")
            network = network_of(str(address[0]))
            if self._networks[network] >= self.config.handshakes_per_address:
                self._handshakes.release()
                self._door.refuse("flood", network)
                accepted.close()
                continue
            self._networks[network] += 1
            self.handshaking += 1
            nursery.start_soon(self._serve, trio.SocketStream(accepted), network)

    async def _serve(self, plain: trio.SocketStream, network: str) -> None:
        """One socket, to its end. Whatever comes of it stays here."""
        in_handshake = [True]
        try:
            secure = None
            if self.settings.tls is not None:
                secure = trio.SSLStream(plain, self.settings.tls, server_side=True, https_compatible=True)
            stream = MeasuredStream(secure or plain, self.counters)
            async with trio.open_nursery() as nursery:
                admitted = await self._door.admit(stream, secure, network, nursery)
                self._handshake_over(network, in_handshake)
                if admitted is not None:
                    await self._connected(admitted, stream)
                nursery.cancel_scope.cancel()
        except* (ConnectionClosed, trio.BrokenResourceError, trio.ClosedResourceError):
            if in_handshake:
                self._door.refuse("gone", network)
        except* (LocalProtocolError, RemoteProtocolError) as group:  # what came while it was closed, for one
            if in_handshake:
                self._door.refuse("malformed", network, reason=_first(group))
            else:
                self.counters["websocket_closed_malformed"] += 1
        except* Exception as group:  # what may be sent has no end
            if in_handshake:
                self._door.refuse("malformed", network, reason=_first(group))
            else:
                self.counters["websocket_error"] += 1
                self.log.problem("websocket-error", address=network, reason=_first(group))
        finally:
            self._handshake_over(network, in_handshake)
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(plain)

    def _handshake_over(self, network: str, in_handshake: list[bool]) -> None:
        if in_handshake:
            in_handshake.clear()
            self.handshaking -= 1
            self._networks[network] -= 1
            if not self._networks[network]:
                del self._networks[network]
            self._handshakes.release()

    # Connections.

    def _room(self, device: str) -> bool:
        if self.stopping:
            return False
        return len(self.connections) < self.config.connections or device in self.connections

    async def _connected(self, admitted: Admitted, stream: MeasuredStream) -> None:
        device = admitted.device
        connection = Connection(
            device,
            admitted.account,
            admitted.socket,
            stream,
            config=self.config,
            store=self._store,
            intake=self.intake,
            counters=self.counters,
            publish=self.answer,
            proof=partial(self._prove, device, admitted.digest, admitted.account),
            moved=self._move,
            chance=self.chance,
        )
        old = self.connections.get(device)
        if old is not None:
            self._forget(old)
            old.close(websocket.REPLACED, "another connection of this device was opened")
        self._remember(connection)
        self.counters["websocket_connected"] += 1
        if self.stopping:
            connection.close(websocket.GOING_AWAY, "the relay stops")
        try:
            why = await connection.serve()
        finally:
            if self.connections.get(device) is connection:
                self._forget(connection)
            self._gone.unpark_all()
        self.counters[f"websocket_closed_{why}"] += 1
        if why in ("oversize", "malformed", "slow", "revoked", "replaced"):
            self.log.problem("websocket-closed", why, device=device)

    def _remember(self, connection: Connection) -> None:
        self.connections[connection.device] = connection
        self.accounts.setdefault(connection.account, {})[connection.device] = connection

    def _forget(self, connection: Connection) -> None:
        del self.connections[connection.device]
        others = self.accounts[connection.account]
        del others[connection.device]
        if not others:
            del self.accounts[connection.account]

    def _move(self, connection: Connection, account: str) -> None:
        if self.connections.get(connection.device) is connection:
            self._forget(connection)
            connection.account = account
            self._remember(connection)

    async def _prove(self, device: str, digest: str | None, account: str) -> str | None:
        """The account by the registry as it is now; where the table does not answer, all stays as it was."""
        try:
            found: str | None = await self.driver.run(self.credentials.check(device, digest, again=True))
            return found
        except TableError:
            known = self.connections.get(device)
            return account if known is None else known.account

    # Out.

    async def answer(self, message: Publish) -> None:
        """To the device of the topic: until it has a place in the queue. Where the device has gone, its next hello
        makes up for it."""
        heard = audience(message.topic, self.settings.prefix)
        connection = None if heard is None or heard[0] != "device" else self.connections.get(heard[1])
        if connection is None:
            self.counters["publish_lost"] += 1
        else:
            await connection.send(message.payload)

    def push(self, message: Publish) -> None:
        """To whom it concerns of those that are connected here, at once or not at all."""
        heard = audience(message.topic, self.settings.prefix)
        if heard is None:
            return
        kind, name = heard
        if kind == "device":
            one = self.connections.get(name)
            concerned = [] if one is None else [one]
        else:
            concerned = list((self.connections if name == ALL else self.accounts.get(name, {})).values())
        for connection in concerned:
            taken = connection.offer(message.payload)
            self.counters["websocket_pushed" if taken else "publish_dropped"] += 1


def _first(group: BaseExceptionGroup[Any]) -> str:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"
