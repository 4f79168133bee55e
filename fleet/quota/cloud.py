"""The relay under quotas: function instances that are there or must be waited for, looks at a shard so many a second.

And what the adapter for DynamoDB does about a throttled request: it asks again after a pause. The class of a world's
cloud, which may be one with a planted bug, gets this on top (`with_quotas`); a world without quotas never comes here.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final, cast

from cloud.retry import Retry
from cloud.table import Cancelled, Record, TableError, Throttled, Work
from cloud.units import item_bytes
from fleet.quota.bucket import SECOND_US, Bucket, Gauge
from fleet.scenario.plan import QuotaPlan
from fleet.world.clock import DRAW_BITS, Tie
from fleet.world.cloud import CloudWorld
from fleet.world.shards import Shard
from fleet.world.tasks import Task, Worker

RETRY: Final = Retry()
BATCH_TASKS: Final = 1  # a batch of records is one instance, whatever it does at once


class QuotaCloud(CloudWorld):
    """`limit` has to be called before anything runs."""

    def limit(self, plan: QuotaPlan) -> None:
        self.functions, self.stream_reads = Gauge(plan.functions), Gauge(plan.stream_reads_per_s)
        self.function_us = self.function_count = 0
        self.busy_us: dict[int, float] = {}  # second -> time that instances were at work, over all of them
        self._started: dict[Task, int] = {}  # messages at work: since when
        self._batches: dict[int, tuple[Any, int]] = {}  # by shard: what is at work, since when
        self._most = plan.functions
        self._instances = min(plan.functions, plan.functions_per_10s) if plan.functions_per_10s else plan.functions
        self._growth = Bucket(plan.functions_per_10s / 10, 1.0) if plan.functions_per_10s else None
        self._waiting: deque[tuple[Worker, Tie, str, bytes]] = deque()
        self._attempts: dict[Task, int] = {}
        self._look_every_us = round(SECOND_US / plan.stream_reads_per_s) if plan.stream_reads_per_s else 0
        self._looked_us: dict[int, int] = {}
        self.read_bytes = Gauge(plan.stream_read_bytes)

    # Requests of the table.

    def _go_on(self, task: Task, answer: Any, error: TableError | None) -> None:
        if error is not None and task.request is not None and _throttled(error):
            attempt = self._attempts.get(task, 0) + 1
            if attempt < RETRY.attempts_max:
                self._attempts[task] = attempt
                self.probes["table_asked_again"] += 1
                pause_us = round(1e6 * RETRY.pause_s(attempt, task.tie.draw() / (1 << DRAW_BITS)))
                self.clock.post_in(pause_us, task.tie, self._answer_fn, task)
                return
        self._attempts.pop(task, None)
        super()._go_on(task, answer, error)

    # Function instances.

    def _start_message(self, worker: Worker, tie: Tie, device_id: str, payload: bytes) -> None:
        now = self.clock._now
        running = len(self._started) + len(self._batches)
        self.functions.level(now, running + len(self._waiting) + 1)
        if self._most and (self._waiting or running >= self._instances) and not self._grown(now, running):
            self.functions.refuse(now)
            self._waiting.append((worker, tie, device_id, payload))
            self.clock.post_in(100_000, tie, self._look_again, None)
            return
        super()._start_message(worker, tie, device_id, payload)

    def _grown(self, now: int, running: int) -> bool:
        """One more instance, if there may be one more by now."""
        if self._waiting or self._instances >= self._most or self._growth is None or not self._growth.take(now):
            return False
        self._instances += 1
        return running < self._instances

    def _start(self, task: Task, work: Work) -> None:
        if task.record is None:
            self._started[task] = self.clock._now
            self.function_count += 1
        super()._start(task, work)

    def _look_again(self, _: None) -> None:
        """Whoever waits for an instance gets the next that is free; from a worker that died, nothing does."""
        while self._waiting:
            running = len(self._started) + len(self._batches)
            if running >= self._instances:
                if self._instances >= self._most or self._growth is None or not self._growth.take(self.clock._now):
                    return
                self._instances += 1
            worker, tie, device_id, payload = self._waiting.popleft()
            if worker.alive:
                super()._start_message(worker, tie, device_id, payload)
            else:
                self._again(device_id, payload, self._chooser)

    def _finished(self, task: Task) -> None:
        self._account(task)
        super()._finished(task)
        if self._waiting:
            self._look_again(None)

    def _account(self, task: Task) -> None:
        since = self._started.pop(task, -1)
        if since >= 0:
            self._worked(since)
        self._attempts.pop(task, None)

    def kill_now(self, worker: Worker, restart_us: int) -> None:
        for task in list(worker.running):
            self._account(task)
        super().kill_now(worker, restart_us)

    def idle(self) -> bool:
        return not self._waiting and super().idle()

    # The stream.

    def _poll(self, shard: Shard) -> None:
        now = self.clock._now
        last = self._looked_us.get(shard.number, -SECOND_US)
        self.stream_reads.level(now, SECOND_US / max(1, min(SECOND_US, now - last)))
        if now < last + self._look_every_us:
            self.stream_reads.refuse(now)
            self.clock.post_at(last + self._look_every_us, shard.tie, self._poll, shard)
            return
        self._looked_us[shard.number] = now
        super()._poll(shard)
        if shard.batch is not None:
            self._batch_over(shard)
            self._batches[shard.number] = (shard.batch, now)
            self.function_count += BATCH_TASKS
            self.functions.level(now, len(self._started) + len(self._batches) + len(self._waiting))

    def _read(self, shard: Shard, most: int) -> tuple[list[Record], int, bool]:
        """What is over the bytes of one read comes with the next; one record always comes."""
        records, position, full = super()._read(shard, most)
        size = 0
        for index, record in enumerate(records):
            size += record_bytes(record)
            if index and self.read_bytes.limit and size > self.read_bytes.limit:
                now = self.clock._now
                self.read_bytes.level(now, size)
                self.read_bytes.refuse(now)
                return records[:index], record.seq, True
        if records:
            self.read_bytes.level(self.clock._now, size)
        return records, position, full

    def _checkpoint(self, batch: Any) -> None:
        if batch.current:
            self._batch_over(batch.shard)
        super()._checkpoint(batch)

    def _batch_over(self, shard: Shard) -> None:
        found = self._batches.pop(shard.number, None)
        if found is not None:
            self._worked(found[1])

    def _worked(self, since_us: int) -> None:
        """One instance, until now."""
        now = self.clock._now
        self.function_us += now - since_us
        busy = self.busy_us
        for second in range(since_us // SECOND_US, now // SECOND_US + 1):
            begin, end = max(since_us, second * SECOND_US), min(now, (second + 1) * SECOND_US)
            busy[second] = busy.get(second, 0.0) + end - begin


def record_bytes(record: Record) -> int:
    """Of one record of the stream: its key and both images, as the table's stream has them."""
    images = (image for image in (record.old, record.new) if image is not None)
    return sum(len(part.encode()) for part in record.key) + sum(item_bytes(image) for image in images)


def _throttled(error: TableError) -> bool:
    if isinstance(error, Cancelled):
        return all(reason in (None, "throttled") for reason in error.reasons)
    return isinstance(error, Throttled)


def with_quotas(kind: type[CloudWorld]) -> type[QuotaCloud]:
    """That class of cloud, under quotas."""
    return QuotaCloud if kind is CloudWorld else cast("type[QuotaCloud]", type("QuotaCloud", (QuotaCloud, kind), {}))
