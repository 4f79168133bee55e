"""The Unix socket: takes connections of this machine's applications, reads their lines, writes answers and events.

The socket is its user's alone (0600, in a folder of 0700). A client that sends nonsense gets an error; one that sends
endless lines, or never reads, is cut off; nobody else notices. Called by agent.runtime.daemon.
"""

from __future__ import annotations

import os
import socket
import stat
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final

import trio

from agent.api import requests as api
from agent.api.serving import Serving, refused
from agent.changes import Change
from agent.file_errors import StoreError
from agent.protocol.log import Log

CLIENTS_MAX: Final = 64
SEND_S: Final = 10.0  # for a client to read what it asked for
THREADS: Final = 8  # requests that are worked on at a time
_READ_BYTES: Final = 16_384
_PATH_BYTES_MAX: Final = 107  # Linux: sun_path less its end


class SocketError(StoreError):
    """The socket cannot be made."""


def listen(path: str) -> socket.socket:
    """A socket of this user alone. Takes the place of one that nobody serves. Raises SocketError."""
    if len(os.fsencode(path)) > _PATH_BYTES_MAX:
        raise SocketError(f"{path}: too long for a socket", f"`api.socket`: at most {_PATH_BYTES_MAX} bytes")
    folder = Path(path).parent
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        state = folder.stat()
        if state.st_uid != os.geteuid() or stat.S_IMODE(state.st_mode) & (stat.S_IRWXG | stat.S_IRWXO):
            hint = f"chmod 700 {folder}, and give it to the agent's user; or name another as `api.socket`"
            raise SocketError(f"{folder}: others may enter it", hint)
        _remove_dead(path)
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        before = os.umask(0o177)
        try:
            made.bind(path)
        finally:
            os.umask(before)
        made.listen(CLIENTS_MAX)
    except OSError as error:
        raise SocketError(f"{path}: {(error.strerror or str(error)).lower()}", "name another as `api.socket`") from None
    return made


def _remove_dead(path: str) -> None:
    if not os.path.lexists(path):
        return
    if not stat.S_ISSOCK(os.lstat(path).st_mode):
        raise SocketError(f"{path}: is no socket", "it is left alone: name another as `api.socket`")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except OSError:
            os.unlink(path)
            return
    raise SocketError(f"{path}: another agent serves it", "name another as `api.socket`")


class Server:
    """`wall_ms`: for the time of an event."""

    def __init__(self, serving: Serving, log: Log, wall_ms: Callable[[], int]) -> None:
        self.serving = serving
        self.clients = 0
        self._log = log
        self._wall_ms = wall_ms
        self._threads = trio.CapacityLimiter(THREADS)

    async def run(self, listening: socket.socket, path: str) -> None:
        """For ever. Takes the socket away when it is cancelled."""
        listener = trio.SocketListener(trio.socket.from_stdlib_socket(listening))
        try:
            await trio.serve_listeners(self._serve, [listener])
        finally:
            Path(path).unlink(missing_ok=True)

    async def _serve(self, stream: trio.SocketStream) -> None:
        self.clients += 1
        try:
            client = _Client(self, stream)
            if self.clients > CLIENTS_MAX:
                await client.say(refused(None, "request", "busy", f"more than {CLIENTS_MAX} connections"))
            else:
                await client.serve()
        except* (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError):
            pass
        except* Exception as group:
            self._log.event("api-error", "error", reason=repr(group.exceptions[0]))
        finally:
            self.clients -= 1
            await trio.aclose_forcefully(stream)

    async def answer(self, request: api.AnyRequest) -> api.Answer:
        return await trio.to_thread.run_sync(self.serving.answer, request, limiter=self._threads)


class _Client:
    """One connection."""

    def __init__(self, server: Server, stream: trio.SocketStream) -> None:
        self._server = server
        self._stream = stream
        self._sending = trio.Lock()
        self._events: deque[Change] = deque()
        self._news = trio.Event()
        self._behind = False
        self._watched: tuple[str, ...] | None = None

    async def say(self, *answers: api.Answer) -> None:
        async with self._sending:
            with trio.fail_after(SEND_S):
                await self._stream.send_all(b"".join(api.line_of(answer) for answer in answers))

    async def serve(self) -> None:
        off: list[Callable[[], None]] = []
        try:
            async with trio.open_nursery() as nursery:
                lines = _Lines(self._stream)
                while (line := await lines.next()) is not None:
                    answer, request = await self._done(line)
                    watching = isinstance(request, api.Watch) and answer.ok
                    if isinstance(request, api.Watch) and watching:
                        off.append(self._watch(request))
                    await self.say(answer)
                    if watching:
                        nursery.start_soon(self._telling)
                nursery.cancel_scope.cancel()
        except* _TooLong:
            await self.say(refused(None, "request", "line", f"a line of more than {api.LINE_BYTES_MAX} bytes"))
        finally:
            for each in off:
                each()

    async def _done(self, line: bytes) -> tuple[api.Answer, api.AnyRequest | None]:
        try:
            request = api.request_of(line)
        except ValueError as error:
            return refused(None, "request", "malformed", str(error)), None
        if isinstance(request, api.Watch) and self._watched is not None:
            return refused(request.id, "request", "watch", "watches already: open another connection"), None
        return await self._server.answer(request), request

    # Watching.

    def _watch(self, request: api.Watch) -> Callable[[], None]:
        self._watched = tuple(request.models)
        token = trio.lowlevel.current_trio_token()

        def happened(change: Change) -> None:
            try:
                token.run_sync_soon(self._happened, change)
            except trio.RunFinishedError:
                return

        return self._server.serving.database.on("*", "*", happened)

    def _happened(self, change: Change) -> None:
        if self._watched and change.model not in self._watched:
            return
        if len(self._events) >= api.WATCH_WAITING_MAX:
            self._behind = True
        else:
            self._events.append(change)
        self._news.set()

    async def _telling(self) -> None:
        server = self._server
        while True:
            await self._news.wait()
            self._news = trio.Event()
            while self._events:
                change = self._events.popleft()
                await self.say(api.Answer(ok=True, event=server.serving.event(change, server._wall_ms())))
            if self._behind:
                await self.say(refused(None, "request", "behind", "too slow: events were lost; watch anew"))
                raise trio.TooSlowError


class _TooLong(Exception):
    """A line without end."""


class _Lines:
    """Lines that come, without their ends. An empty one says nothing."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._held = bytearray()
        self._whole: deque[bytes] = deque()

    async def next(self) -> bytes | None:
        """None: there are no more. Raises _TooLong."""
        while not self._whole:
            data = await self._stream.receive_some(_READ_BYTES)
            if not data:
                return None
            self._held += data
            *whole, rest = self._held.split(b"\n")
            self._held = bytearray(rest)
            if len(rest) > api.LINE_BYTES_MAX or any(len(line) > api.LINE_BYTES_MAX for line in whole):
                raise _TooLong
            self._whole.extend(bytes(line) for line in whole if line.strip())
        return self._whole.popleft()
