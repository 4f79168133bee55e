"""The simulated cloud: the real relay's generators on one table, run by workers under virtual time.

Layers: `workers` (tasks, requests, failures of workers and of the table), `shards` (the change stream), and here what
is around them: applications that write to the table, the service's sweep of expired items, what a run asks at its end.
Made by fleet.world.world; its faults are called by fleet.world.faults.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from cloud.head import head_key
from cloud.incarnation import mark
from cloud.quarantine import released
from cloud.relay import Relay
from cloud.table import Cancelled, ConditionFailed, Item, TableError, Throttled, Write
from fleet.rng import rng
from fleet.scenario.plan import CloudPlan
from fleet.world.broker import Broker
from fleet.world.clock import DRAW_BITS, Clock, Tie
from fleet.world.downlink import Trace
from fleet.world.shards import Shards
from fleet.world.table import WorldTable

SWEEP_STEP: Final = 1_000  # items at once
SWEEP_STEP_US: Final = 1_000_000
WRITE_RETRY_BASE_US: Final = 50_000
WRITE_RETRY_CAP_US: Final = 20_000_000
BY_HAND_RETRY_US: Final = 1_000_000

Done = Callable[[TableError | None], object]
Wanted = Write | Callable[[], Write]
AppWrite = tuple[Wanted, Tie, Done | None, Callable[[], object] | None, int]  # ..., attempts before


class CloudWorld(Shards):
    """Connects itself to the broker and to the table's stream when made."""

    def __init__(
        self,
        clock: Clock,
        table: WorldTable,
        relay: Relay,
        broker: Broker,
        settings: CloudPlan,
        seed: int,
        trace: Trace | None = None,
        probes: Counter[str] | None = None,
        start_ms: int = 0,
    ) -> None:
        counter: Counter[str] = Counter() if probes is None else probes
        super().__init__(clock, table, relay, broker, settings, seed, trace, counter, start_ms)
        broker.deliver_to_cloud = self.take
        self._app_waiting = 0  # applications' writes that were refused, and will come again
        self._app_stream = rng(seed, "applications", "trouble")
        self._restore_stream = rng(seed, "table", "restore")
        self.on_restored: Callable[[], object] | None = None
        self.on_released: Callable[[str], object] | None = None  # called with the device's id
        self._sweep_tie = clock.tie("sweep")
        self._sweep_stream = rng(seed, "table", "sweep")
        self._next_sweep()

    # Applications.

    def write(
        self, request: Wanted, tie: Tie, done: Done | None = None, before: Callable[[], object] | None = None
    ) -> None:
        """An application's write, carried out now, or later when the table is over its throughput: it tries again until
        it is taken. `before()` is called just before the table gets it, `done(error)` with what became of it.
        `request` may be a function that reads and decides at that moment."""
        self._app_write((request, tie, done, before, 0))

    def _app_write(self, write: AppWrite) -> None:
        request, _, done, before, attempt = write
        if attempt:
            self._app_waiting -= 1
        if self.throttle_share and self._app_stream.chance(self.throttle_share):
            self.probes["throttled"] += 1
            self._app_later(write)
            return
        if before is not None:
            before()
        try:
            wanted = request() if callable(request) else request
            self._execute(wanted, self.start_ms + self.clock._now // 1000)
        except TableError as error:
            throttled = isinstance(error, Throttled) or (isinstance(error, Cancelled) and "throttled" in error.reasons)
            if throttled:
                self._app_later(write)
            elif done is not None:
                done(error)
            else:
                raise
        else:
            if done is not None:
                done(None)

    def _app_later(self, write: AppWrite) -> None:
        request, tie, done, before, attempt = write
        self._app_waiting += 1
        wait = min(WRITE_RETRY_CAP_US, WRITE_RETRY_BASE_US << min(attempt, 10))
        self.clock.post_in(
            1 + (tie.draw() * wait >> DRAW_BITS), tie, self._app_write, (request, tie, done, before, attempt + 1)
        )

    # The service's sweep.

    def _next_sweep(self) -> None:
        every, delay = self.settings.sweep_every_us, self.settings.sweep_delay_us
        wait = every + self._sweep_stream.below(max(1, delay - every + 1))
        self.clock.post_in(wait, self._sweep_tie, self._sweep, None)

    def _sweep(self, _: None) -> None:
        """Expired items go late, in any order, a bounded number at once."""
        table = self.table
        now_ms = self.start_ms + self.clock._now // 1000
        table.sweep(now_ms, SWEEP_STEP, self._sweep_stream.below)
        if table.expired_waiting(now_ms):
            self.clock.post_in(SWEEP_STEP_US, self._sweep_tie, self._sweep, None)
        else:
            self._next_sweep()

    # What a person does.

    def release(self, device_id: str) -> None:
        """`fleet-cloud release`."""
        self._by_hand((released(head_key(device_id)), "quarantine_over", device_id))

    def _by_hand(self, what: tuple[Write, str, str]) -> None:
        """A command of a person, who tries again while the table is over its throughput: what is to be written, the
        probe that counts it, and the device that it releases, if any."""
        request, probe, released_id = what
        try:
            self.table.execute(request, self.start_ms + self.clock._now // 1000)
        except Throttled:
            self.clock.post_in(BY_HAND_RETRY_US, self._sweep_tie, self._by_hand, what)
        except ConditionFailed:
            pass  # nothing was to be done: it was not in quarantine
        else:
            self.probes[probe] += 1
            if released_id and self.on_released is not None:
                self.on_released(released_id)

    # Backup and restore.

    def restore(self, items: list[Item], restart_us: int) -> None:
        """The relay is stopped where it stands, the table is put back to an older copy and marked, and the relay is
        started again. What a relay knows of the table outlives that here, as if it had never been stopped: for a while
        it does not know of the mark."""
        for worker in self.workers:
            if worker.alive:
                self.kill_now(worker, restart_us)
        self.table.restore(items)
        self.stream_ends()
        self._by_hand((mark(self._restore_stream.hex), "table_restored", ""))
        if self.on_restored is not None:
            self.on_restored()

    # What a run asks.

    def backlog(self) -> int:
        """Records of the stream that are not known to be done."""
        return self.table.stream.count()

    def idle(self) -> bool:
        """Nothing runs, waits, or will come again."""
        if self._coming_again or self._app_waiting or self.backlog():
            return False
        return not any(worker.running or worker.queue for worker in self.workers)

    def state(self) -> dict[str, Any]:
        """For a report of what did not come to its end: tasks, queues, batches."""
        return {
            "running": sum(len(worker.running) for worker in self.workers),
            "queued": sum(len(worker.queue) for worker in self.workers),
            "backlog": self.backlog(),
            "batches": sum(shard.batch is not None for shard in self.shards),
            "stalled": sum(worker.stalled_until_us > self.clock._now for worker in self.workers),  # ints
            "dead": sum(not worker.alive for worker in self.workers),
        }
