"""The bytes below one WebSocket: measured, and bounded where the layer above has no bound.

Any stream of trio inside. It knows when something was last heard, and when the connection has ended; and it ends one
that sends on and on without ever finishing a message, as a client may that sends empty fragments: those cost memory
above, and count for nothing there. Called by cloud.service_websocket_door and cloud.service_websocket_connection.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

import trio

from agent.protocol.messages import MESSAGE_BYTES_MAX

_HANDSHAKE_BYTES_MAX: Final = 32 * 1024
_OPEN_BYTES_MAX: Final = 4 * MESSAGE_BYTES_MAX  # without a whole message: fragments, control frames, what is read ahead
_CONTROL_BYTES_PER_S: Final = 64  # pings and pongs of a device that has nothing to say for a long time
_DRAIN_BYTES: Final = 64 * 1024
_DRAINED_BYTES_MAX: Final = 4 * 1024 * 1024


class MeasuredStream(trio.abc.Stream):
    """`ended`: nothing more comes. `counters`: websocket_bytes_in and _out."""

    def __init__(self, inner: trio.abc.Stream, counters: Counter[str]) -> None:
        self.inner = inner
        self.counters = counters
        self.heard_at = trio.current_time()
        self.ended = trio.Event()
        self.closed = False  # by this side
        self.flooded = False
        self._allowed = _HANDSHAKE_BYTES_MAX
        self._since = self.heard_at
        self._unfinished = 0

    def opened(self) -> None:
        """The handshake is done."""
        self._allowed = _OPEN_BYTES_MAX
        self.taken()

    def taken(self) -> None:
        """A message has come out above."""
        self._unfinished = 0
        self._since = trio.current_time()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        try:
            data = await self.inner.receive_some(max_bytes)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self.ended.set()
            raise
        if not data:
            self.ended.set()
            return b""
        self.counters["websocket_bytes_in"] += len(data)
        self.heard_at = trio.current_time()
        self._unfinished += len(data)
        if self._unfinished > self._allowed + (self.heard_at - self._since) * _CONTROL_BYTES_PER_S:
            self.flooded = True
            self.ended.set()
            raise trio.BrokenResourceError("too much without a message")
        return bytes(data)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self.inner.send_all(data)
        self.counters["websocket_bytes_out"] += len(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self.inner.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        self.closed = True
        self.ended.set()
        await self.inner.aclose()

    async def drain(self) -> None:
        """Reads what still comes, and forgets it: who closes with bytes unread resets the connection, and the other
        side may never see why. Nobody else may read."""
        left = _DRAINED_BYTES_MAX
        while left > 0 and not self.ended.is_set():
            try:
                data = await self.inner.receive_some(_DRAIN_BYTES)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                break
            if not data:
                break
            left -= len(data)
        self.ended.set()
