"""Runs the relay's generators under trio: each request of the table or the stream in a thread, one work beside another.

A work that is cancelled is left where it is, as a kill would leave it: nothing of it runs any more, and what it was at
comes again, from the device or from the stream. The number of threads is bounded, for the table and for the stream
apart, so that neither waits for the other. Called by the tasks of cloud.service.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from functools import partial
from typing import Any

import trio

from cloud.service_inbox import Publishes
from cloud.stream import ListShards, OpenShard, Pause, ReadRecords
from cloud.table import Publish, TableError


class Driver:
    """`table` and `stream` execute a request, blocking; `publish` sends a message."""

    def __init__(
        self,
        table: Callable[[Any], Any],
        stream: Callable[[Any], Any],
        publish: Publishes,
        *,
        table_threads: int,
        stream_threads: int,
    ) -> None:
        self._table = table
        self._stream = stream
        self._publish = publish
        self._table_limit = trio.CapacityLimiter(table_threads)
        self._stream_limit = trio.CapacityLimiter(stream_threads)

    async def run(self, work: Generator[Any, Any, Any], publish: Publishes | None = None) -> Any:
        """What the work returns. `publish`: how what it says goes out, where not as usual. Raises what it raises."""
        resume: Callable[[], Any] = partial(next, work)
        while True:
            try:
                request = resume()
            except StopIteration as end:
                return end.value
            try:
                answer = await self._execute(request, publish or self._publish)
            except TableError as error:
                resume = partial(work.throw, error)
            else:
                resume = partial(work.send, answer)

    async def _execute(self, request: Any, publish: Publishes) -> Any:
        if isinstance(request, Publish):
            await publish(request)
            return None
        if isinstance(request, Pause):
            await trio.sleep(request.ms / 1000)
            return None
        if isinstance(request, ListShards | OpenShard | ReadRecords):
            return await trio.to_thread.run_sync(
                self._stream, request, limiter=self._stream_limit, abandon_on_cancel=True
            )
        return await trio.to_thread.run_sync(self._table, request, limiter=self._table_limit, abandon_on_cancel=True)
