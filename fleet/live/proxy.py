"""A TCP proxy that disturbs what passes: stalls, throttles, delays, cuts by RST or FIN, and half-open connections.

A door is a port on loopback that leads to one target; a device has a door of its own, so that a fault finds the device.
Commands are calls in this process, under the trio loop that runs the proxy. On a door they hold for all connections
that are open and, but for cuts and holes, for those that come; on a connection for that one alone. Knows nothing of
what the bytes mean. Used by live runs and by tests that take a path away from a real client.
"""

from __future__ import annotations

import math
import socket
import struct
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import trio

CHUNK_BYTES: Final = 65_536
HELD_BYTES_MAX: Final = 262_144  # of one way: beyond that the sender's own kernel keeps what it sends
PIECES_PER_S: Final = 20  # a throttled way sends this often, so that a change of the rate soon counts
_RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER: on, for no time: close() sends RST


@dataclass(frozen=True, slots=True)
class Conditions:
    """`bytes_per_s` and `delay_s` hold for each way by itself."""

    stalled: bool = False
    bytes_per_s: float = math.inf
    delay_s: float = 0.0


class _Way:
    """One direction: what came and when, until it may go on. b"" is FIN, None is RST."""

    __slots__ = ("came", "ended", "free_at", "held_bytes", "sink", "source")

    def __init__(self, source: trio.SocketStream, sink: trio.SocketStream) -> None:
        self.source = source
        self.sink = sink
        self.came: deque[tuple[float, bytes | None]] = deque()
        self.held_bytes = 0
        self.free_at = 0.0  # the line is busy until then
        self.ended = False  # nothing comes from its source any more


class Passage:
    """One connection through a door. `over`: set when both of its sockets are closed."""

    def __init__(self, client: trio.SocketStream, target: trio.SocketStream, conditions: Conditions) -> None:
        self.conditions = conditions
        self.is_hole = False
        self.over = trio.Event()
        self._up, self._down = _Way(client, target), _Way(target, client)
        self._news = trio.Event()
        self._scope = trio.CancelScope()

    @property
    def held_bytes(self) -> tuple[int, int]:
        """Bytes that have come and not gone on, (to the target, to the client)."""
        return self._up.held_bytes, self._down.held_bytes

    def change(self, conditions: Conditions) -> None:
        self.conditions = conditions
        self._tell()

    def half_open(self) -> None:
        """Both sockets stay open and take what is sent, and nothing arrives any more: neither data nor an end."""
        self.is_hole = True
        for way in (self._up, self._down):
            way.came.clear()
            way.held_bytes = 0
        self._tell()

    def reset(self) -> None:
        """RST to both ends; what is held is lost."""
        for way in (self._up, self._down):
            if way.source.socket.fileno() != -1:
                way.source.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._scope.cancel()

    def finish(self) -> None:
        """FIN to both ends; what is held is lost."""
        self.half_open()
        for way in (self._up, self._down):
            try:
                way.source.socket.shutdown(socket.SHUT_WR)
            except OSError:
                self._scope.cancel()  # that end is gone already

    async def run(self) -> None:
        """Until both ends have closed, or the passage is cut."""
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    for way in (self._up, self._down):
                        nursery.start_soon(self._read, way)
                        nursery.start_soon(self._write, way)
                    await self._until(lambda: self._up.ended and self._down.ended and not self._is_held())
                    nursery.cancel_scope.cancel()
        finally:
            for way in (self._up, self._down):
                way.source.socket.close()
            self.over.set()

    def _is_held(self) -> bool:
        return bool(self._up.came or self._down.came)

    def _tell(self) -> None:
        self._news.set()
        self._news = trio.Event()

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await self._news.wait()

    async def _read(self, way: _Way) -> None:
        while True:
            await self._until(lambda: way.held_bytes < HELD_BYTES_MAX)
            data: bytes | None
            try:
                data = bytes(await way.source.receive_some(CHUNK_BYTES))
            except trio.BrokenResourceError:
                data = None
            way.ended = not data
            if not self.is_hole:
                way.came.append((trio.current_time(), data))
                way.held_bytes += len(data or b"")
            self._tell()
            if way.ended:
                return

    async def _write(self, way: _Way) -> None:
        while True:
            await self._until(lambda: bool(way.came))
            if not await self._may_go(way):
                continue
            _, data = way.came[0]
            if data is None:
                self.reset()
                return
            try:
                if data:
                    await self._send(way, data)
                else:
                    way.came.popleft()
                    way.sink.socket.shutdown(socket.SHUT_WR)
                    self._tell()
                    return
            except (trio.BrokenResourceError, OSError):
                if not self.is_hole:  # else the other end is not to know that this one has gone
                    self.reset()
                return

    async def _may_go(self, way: _Way) -> bool:
        """Whether the first of what is held may go on; False after a change: ask again."""
        if self.conditions.stalled:
            await self._news.wait()
            return False
        due = max(way.came[0][0] + self.conditions.delay_s, way.free_at)
        if trio.current_time() < due:
            with trio.move_on_at(due):
                await self._news.wait()
            return False
        return True

    async def _send(self, way: _Way, data: bytes) -> None:
        """A piece of it, as large as the rate allows; the rest stays the first."""
        rate = self.conditions.bytes_per_s
        piece = data if rate == math.inf else data[: max(1, int(rate / PIECES_PER_S))]
        came_at, _ = way.came.popleft()
        if len(piece) < len(data):
            way.came.appendleft((came_at, data[len(piece) :]))
        way.held_bytes -= len(piece)
        if rate != math.inf:
            way.free_at = trio.current_time() + len(piece) / rate
        await way.sink.send_all(piece)
        self._tell()


class Door:
    """A port that leads to the target. `refusing`: whoever comes is reset at once."""

    def __init__(self, name: str, listener: trio.SocketListener, target: tuple[str, int]) -> None:
        self.name = name
        self.target = target
        self.refusing = False
        self.conditions = Conditions()
        self.passages: list[Passage] = []  # that are open, the oldest first
        self._listener = listener

    @property
    def port(self) -> int:
        return int(self._listener.socket.getsockname()[1])

    def stall(self) -> None:
        """Nothing passes, and nothing is lost, until `flow`."""
        self._change(replace(self.conditions, stalled=True))

    def flow(self) -> None:
        self._change(replace(self.conditions, stalled=False))

    def throttle(self, bytes_per_s: float = math.inf) -> None:
        """Each way of each connection by itself. Raises ValueError for 0 and less: that is `stall`."""
        if bytes_per_s <= 0:
            raise ValueError(f"{bytes_per_s} bytes per second: more than 0, or stall")
        self._change(replace(self.conditions, bytes_per_s=bytes_per_s))

    def delay(self, seconds: float = 0.0) -> None:
        """What comes goes on so much later, each way; the order stays."""
        if seconds < 0:
            raise ValueError(f"a delay of {seconds} s")
        self._change(replace(self.conditions, delay_s=seconds))

    def half_open(self) -> None:
        for passage in tuple(self.passages):
            passage.half_open()

    def reset(self) -> None:
        for passage in tuple(self.passages):
            passage.reset()

    def finish(self) -> None:
        for passage in tuple(self.passages):
            passage.finish()

    def heal(self) -> None:
        """Everything passes again, on the connections that are not cut or half-open, and new ones are taken."""
        self.refusing = False
        self._change(Conditions())

    def _change(self, conditions: Conditions) -> None:
        self.conditions = conditions
        for passage in self.passages:
            passage.change(conditions)

    async def serve(self) -> None:
        await trio.serve_listeners(self._carry, [self._listener])

    async def _carry(self, client: trio.SocketStream) -> None:
        target: trio.SocketStream | None = None
        if not self.refusing:
            try:
                target = await trio.open_tcp_stream(*self.target)
            except OSError:
                target = None
        if target is None:
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            client.socket.close()
            return
        passage = Passage(client, target, self.conditions)
        self.passages.append(passage)
        try:
            await passage.run()
        finally:
            self.passages.remove(passage)


class Proxy:
    """All doors of a run, by name. They close when the nursery is cancelled."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.doors: dict[str, Door] = {}
        self._nursery = nursery

    async def open(self, name: str, target: tuple[str, int]) -> Door:
        """A new door on a free port of loopback. Raises ValueError where the name is taken."""
        if name in self.doors:
            raise ValueError(f"there is a door of the name {name!r}")
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        door = self.doors[name] = Door(name, listeners[0], target)
        self._nursery.start_soon(door.serve)
        return door
