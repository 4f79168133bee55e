"""One device's WebSocket, from the end of its handshake to its own: messages in, messages out, pings, why it closed.

What goes out waits in a queue that is bounded in bytes, its own and that of all connections together. A push that has
no place is dropped: the device sees the gap at the next one, or at its next hello. An answer waits for a place. Whoever
reads too slowly is closed, so that it holds nothing of what others need. Called by cloud.service_websocket.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Awaitable, Callable
from typing import Final

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection

from agent.protocol import websocket
from agent.protocol.messages import MESSAGE_BYTES_MAX
from cloud.listener_config import ListenerConfig
from cloud.service_inbox import Publishes
from cloud.service_intake import Intake
from cloud.service_websocket_stream import MeasuredStream

GOODBYE_S: Final = 2.0  # for the closing handshake
_NO_CODE: Final = 1005  # as a close without a code is told
_ABNORMAL: Final = 1006  # and the end of a connection without a close
# What a code is called where closed connections are counted.
WHY: Final = {
    websocket.NORMAL: "device",
    websocket.GOING_AWAY: "stopping",
    websocket.OVERSIZE: "oversize",
    websocket.REPLACED: "replaced",
    websocket.REVOKED: "revoked",
    websocket.IDLE: "idle",
    websocket.SLOW: "slow",
    websocket.UNREADABLE: "malformed",
}
Proof = Callable[[], Awaitable[str | None]]  # the account by a new look at the registry; None: it is revoked


class Store:
    """The bytes that wait for all devices together."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.held = 0


class Connection:
    """`account` may change while it lives: `moved` is called then, before. `counters`: websocket_messages_in and _out,
    publish_taken, publish_lost, publish_dropped."""

    def __init__(
        self,
        device: str,
        account: str,
        socket: WebSocketConnection,
        stream: MeasuredStream,
        *,
        config: ListenerConfig,
        store: Store,
        intake: Intake,
        counters: Counter[str],
        publish: Publishes,
        proof: Proof,
        moved: Callable[[Connection, str], None],
        chance: Callable[[], float],
    ) -> None:
        self.device = device
        self.account = account
        self.socket = socket
        self.stream = stream
        self.config = config
        self.store = store
        self.intake = intake
        self.counters = counters
        self.publish = publish
        self.proof = proof
        self.moved = moved
        self.chance = chance
        self.code = 0  # why it ends, once it does
        self.held_bytes = 0
        self._reason = ""
        self._queue: deque[bytes] = deque()
        self._queued = trio.Event()
        self._written = trio.lowlevel.ParkingLot()
        self._writing = False
        self._pinging = False
        self._stalled = False  # by the full inbox: then it is not the device that is silent
        self._heard_at = trio.current_time()
        self._scope = trio.CancelScope()
        self._reading = trio.CancelScope()

    # Life.

    async def serve(self) -> str:
        """Until it ends; why, in a word."""
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._write)
                    nursery.start_soon(self._keep_alive, nursery)
                    nursery.start_soon(self._recheck)
                    await self._read()
                    await trio.sleep_forever()  # whatever ends it cancels the scope
        finally:
            self._let_go()
        with trio.move_on_after(GOODBYE_S):
            await self._say_goodbye()
        return WHY.get(self.code, "other") if self.code else "lost"

    def close(self, code: int, reason: str = "") -> None:
        """0: it is closed already."""
        if not self._scope.cancel_called:
            self.code, self._reason = code, reason
            self._scope.cancel()
            self._written.unpark_all()

    def stop_reading(self) -> None:
        self._reading.cancel()

    async def finish(self, limit_s: float) -> None:
        """Closes it after what waits was sent."""
        with trio.move_on_after(limit_s):
            while self._queue and not self._scope.cancel_called:
                await self._written.park()
        self.close(websocket.GOING_AWAY, "the relay stops")

    def _let_go(self) -> None:
        """What waits for it has no use any more. Does nothing that could wait."""
        self._scope.cancel()
        self.store.held -= self.held_bytes
        self.held_bytes = 0
        self._queue.clear()
        self._written.unpark_all()

    async def _say_goodbye(self) -> None:
        if self.socket.closed is None and not self._writing:  # after half a frame nothing could be understood
            await self.socket.aclose(self.code or websocket.NORMAL, self._reason or None)
        elif self.code == websocket.OVERSIZE:
            await self.stream.drain()

    # In.

    async def _read(self) -> None:
        with self._reading:
            while True:
                try:
                    message = await self.socket.get_message()
                except ConnectionClosed as closed:
                    self._ended(0 if closed.reason is None else closed.reason.code)
                    return
                self.stream.taken()
                payload = websocket.unframed(message)
                self.counters["websocket_messages_in"] += 1
                if len(payload) > MESSAGE_BYTES_MAX:  # of text the layer below counts characters
                    self.close(websocket.OVERSIZE, f"over {MESSAGE_BYTES_MAX} bytes")
                    return
                self._stalled = True
                await self.intake.open()
                self._stalled = False
                self._heard_at = trio.current_time()
                self.intake.put(self.device, payload, _nothing, self.publish)

    def _ended(self, code: int) -> None:
        if self.stream.flooded:
            code = websocket.UNREADABLE
        elif code in (websocket.NORMAL, websocket.GOING_AWAY, _NO_CODE):
            code = websocket.NORMAL  # the device went in good order
        elif code == _ABNORMAL:
            code = 0
        self.close(code)

    # Out.

    def offer(self, payload: bytes) -> bool:
        """False: there is no place for it now."""
        size = len(payload)
        if self._scope.cancel_called or self.held_bytes + size > self.config.queue_bytes:
            return False
        if self.store.held + size > self.store.most:
            return False
        self._queue.append(payload)
        self.held_bytes += size
        self.store.held += size
        self._queued.set()
        return True

    async def send(self, payload: bytes) -> None:
        """An answer: waits for a place. A device that makes none for too long is closed."""
        await trio.lowlevel.checkpoint()  # an answer of many parts lets others have their turn
        with trio.move_on_after(self.config.slow_ms / 1000):
            while not self._scope.cancel_called:
                if self.offer(payload):
                    self.counters["publish_taken"] += 1
                    return
                if not self._queue:
                    break  # others hold all there is
                await self._written.park()
        self.counters["publish_lost" if self._scope.cancel_called else "publish_dropped"] += 1
        if self._queue:
            self.close(websocket.SLOW, "what waits is not read")

    async def _write(self) -> None:
        while True:
            if not self._queue:
                self._queued = trio.Event()
                await self._queued.wait()
            payload = self._queue[0]
            self._writing = True
            with trio.move_on_after(self.config.slow_ms / 1000) as limit:
                try:
                    await self.socket.send_message(websocket.framed(payload))
                except ConnectionClosed:
                    self._writing = False
                    return  # its reader learns of it as well
                self._writing = False
            if limit.cancelled_caught:
                self.close(websocket.SLOW)
                return
            self.counters["websocket_messages_out"] += 1
            self._queue.popleft()
            self.held_bytes -= len(payload)
            self.store.held -= len(payload)
            self._written.unpark_all()

    # Time.

    async def _keep_alive(self, nursery: trio.Nursery) -> None:
        await trio.sleep(self.config.ping_ms / 1000 * self.chance())  # those that came together do not ping together
        while True:
            await trio.sleep(self.config.ping_ms / 1000)
            if not self._pinging:
                self._pinging = True
                nursery.start_soon(self._ping)
            silent_s = trio.current_time() - max(self.stream.heard_at, self._heard_at)
            if silent_s >= self.config.idle_ms / 1000 and not self._stalled:
                self.close(websocket.IDLE, "nothing was heard")

    async def _ping(self) -> None:
        """Is not cut short while the connection lives: half a frame would be the end of it."""
        try:
            await self.socket.ping()
        except ConnectionClosed:
            return
        self._pinging = False

    async def _recheck(self) -> None:
        while True:
            await trio.sleep(self.config.recheck_ms / 1000 * (0.5 + self.chance() / 2))
            account = await self.proof()
            if account is None:
                self.close(websocket.REVOKED, "this identity counts no more")
            elif account != self.account:
                self.moved(self, account)


def _nothing() -> None:
    return
