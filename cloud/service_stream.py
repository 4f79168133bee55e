"""The stream side of the relay under trio: one task keeps the leases, one for each held shard reads and works.

A batch is worked on in lanes, one a feed, so many at once; the next is read when the last lane has ended: what is in
memory is bounded, and a slow table slows the reading. Called by cloud.service.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable

import trio

from agent.protocol.log import Log
from cloud.service_drive import Driver
from cloud.stream import END, Change
from cloud.stream_config import StreamConfig
from cloud.stream_leases import Held, Leases
from cloud.stream_reader import Batch, ShardReader
from cloud.stream_work import RecordWork, Tell
from cloud.table import TableError


class StreamTasks:
    """`observe` is told the seconds of work on each lane. `lag_ms`: by shard, how long the last record that was worked
    on had waited, 0 at the end of what there is."""

    def __init__(
        self,
        leases: Leases,
        work: RecordWork,
        config: StreamConfig,
        driver: Driver,
        *,
        chance: Callable[[], float],
        wall_ms: Callable[[], int],
        counters: Counter[str],
        log: Log,
        tell: Tell,
        observe: Callable[[float], None],
    ) -> None:
        self.leases = leases
        self.work = work
        self.config = config
        self.driver = driver
        self.chance = chance
        self.wall_ms = wall_ms
        self.counters = counters
        self.log = log
        self.tell = tell
        self.observe = observe
        self.lag_ms: dict[str, int] = {}
        self._readers: dict[Held, trio.CancelScope] = {}
        self._wake = trio.Event()
        self._lanes = trio.CapacityLimiter(config.lanes)

    async def run(self) -> None:
        """Until `stop` was called and every lease is given up. Raises Usurped."""
        failures = 0
        async with trio.open_nursery() as nursery:
            while True:
                try:
                    await self.driver.run(self.leases.tick())
                except TableError as error:
                    failures += 1
                    self.log.problem("leases-failed", reason=f"{type(error).__name__}: {error}")
                else:
                    failures = 0
                    self.log.over("leases-failed")
                self._match(nursery)
                if self.leases.stopping and not self.leases.held and not self._readers:
                    break
                await self._until_due(failures)
        with contextlib.suppress(TableError):  # the others remove it in time
            await self.driver.run(self.leases.leave())

    def stop(self) -> None:
        """Batches under way are worked on to their end; then the leases go."""
        self.leases.stop()
        self._wake.set()

    async def _until_due(self, failures: int) -> None:
        if failures:
            await trio.sleep(self.config.pause_ms(failures, self.chance()) / 1000)
            return
        left_ms = self.leases.due_ms - self.leases.monotonic_ms()
        if left_ms > 0:
            self._wake = trio.Event()
            if self.leases.due_ms - self.leases.monotonic_ms() > 0:
                with trio.move_on_after(left_ms / 1000):
                    await self._wake.wait()

    def _match(self, nursery: trio.Nursery) -> None:
        """A reader for each lease that is new, and none for one that is lost."""
        for held in self.leases.held.values():
            if held not in self._readers and not held.ended and held.place != END:
                self._readers[held] = trio.CancelScope()
                nursery.start_soon(self._read, held, self._readers[held])
        for held, scope in self._readers.items():
            if held.lost:
                scope.cancel()

    async def _read(self, held: Held, scope: trio.CancelScope) -> None:
        with scope:
            reader = ShardReader(
                held.shard, held.place, self.config, chance=self.chance, counters=self.counters, tell=self.tell
            )
            while not held.asked_back and held.place != END:
                batch = await self.driver.run(reader.look())
                await self._work_on(held, batch)
            if held.place != END:
                self.leases.ended(held)
        del self._readers[held]
        self.log.over("shard-unreadable", held.shard)
        self.lag_ms.pop(held.shard, None)
        self._wake.set()

    async def _work_on(self, held: Held, batch: Batch) -> None:
        if batch.problem:
            self.log.problem("shard-unreadable", held.shard, reason=batch.problem)
        else:
            self.log.over("shard-unreadable", held.shard)
        lanes = self.work.lanes(batch.changes)
        async with trio.open_nursery() as nursery:
            for lane in lanes:
                await self._lanes.acquire_on_behalf_of(lane_token := object())
                nursery.start_soon(self._lane, lane, lane_token)
        if batch.place != held.place:
            self.leases.done(held, batch.place, bool(lanes))
            self._wake.set()
        if batch.changes:
            self.lag_ms[held.shard] = max(0, self.wall_ms() - batch.changes[-1].at_ms)
        elif not batch.problem:
            self.lag_ms[held.shard] = 0
        await trio.sleep(batch.pause_ms / 1000)

    async def _lane(self, lane: list[Change], token: object) -> None:
        begun = trio.current_time()
        try:
            await self.driver.run(self.work.lane(lane))
            self.observe(trio.current_time() - begun)
        finally:
            self._lanes.release_on_behalf_of(token)
