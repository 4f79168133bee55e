"""The change stream as the relay's workers read it: leases of shards, polls, batches, checkpoints. At least once.

A shard belongs to one worker for as long as that renews its lease. An idle shard costs nothing: the moment of the poll
that will see a new record is computed when the record is written. Records of different items of a batch are handled at
once, those of one item in order. A failing record is tried again, and its shard waits for it, as Lambda's do. When a
worker dies or stalls, others take its shards over after the lease and get its batch again, whole, while the old worker
may still be at it. Draws no record's content. The middle layer of `fleet.world.cloud.CloudWorld`.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

from cloud.relay import Relay
from cloud.table import Key, Record
from fleet.rng import rng
from fleet.scenario.plan import CloudPlan
from fleet.world.broker import Broker
from fleet.world.clock import DRAW_BITS, Clock
from fleet.world.downlink import Trace
from fleet.world.table import WorldTable
from fleet.world.tasks import Task, Worker
from fleet.world.workers import Workers

RETRY_BASE_US: Final = 100_000
RETRY_CAP_US: Final = 10_000_000
# A record that is past its life has failed so often before it is given up: a stream keeps one for a day, in which no
# share of refused requests that a scenario draws makes all tries fail; a life of minutes has few tries.
ATTEMPTS_MIN: Final = 100
AT_ONCE_US: Final = 5_000  # after a full batch the next is asked for without waiting for a poll


class Batch:
    """Records that one worker took. `lanes`: per item, in order. A batch that its shard has forgotten is a zombie's."""

    __slots__ = ("full", "lanes", "left", "next_lane", "position", "records", "shard", "worker")

    def __init__(self, shard: Shard, worker: Worker, records: list[Record], position: int, full: bool) -> None:
        self.shard = shard
        self.worker = worker
        self.records = len(records)
        self.position = position  # of the shard, once all is done
        self.full = full
        lanes: dict[Key, list[Record]] = {}
        for record in records:
            lanes.setdefault(record.key, []).append(record)
        self.lanes = list(lanes.values())
        self.left = len(self.lanes)
        self.next_lane = 0

    @property
    def current(self) -> bool:
        return self.shard.batch is self


class Shard:
    """`lease` grows with every change of owner. `armed`: a poll is on its way."""

    __slots__ = (
        "armed", "batch", "lease", "leased_until_us", "number", "owner", "phase_us", "position", "replays", "tie",
    )  # fmt: skip

    def __init__(self, clock: Clock, seed: int, number: int, owner: Worker, position: int, poll_every_us: int) -> None:
        self.number = number
        self.tie = clock.tie(f"shard-{number}")
        self.phase_us = rng(seed, f"shard-{number}", "phase").below(poll_every_us)
        self.replays = rng(seed, f"shard-{number}", "replay")
        self.owner: Worker | None = owner
        self.lease = 0
        self.leased_until_us = 0  # where the owner has stopped to renew
        self.position = position  # the checkpoint: the first record not known to be done
        self.armed = False
        self.batch: Batch | None = None


class Shards(Workers):
    """Counted in `probes`: worker_killed_mid_batch, lease_taken_over, record_redelivered, record_failed,
    record_given_up."""

    def __init__(
        self,
        clock: Clock,
        table: WorldTable,
        relay: Relay,
        broker: Broker,
        settings: CloudPlan,
        seed: int,
        trace: Trace | None,
        probes: Counter[str],
        start_ms: int,
    ) -> None:
        super().__init__(clock, table, relay, broker, settings, seed, trace, probes, start_ms)
        workers = self.workers
        self.shards = [
            Shard(
                clock, seed, number, workers[number % len(workers)], table.stream.latest(number), settings.poll_every_us
            )
            for number in range(table.stream.shards)
        ]
        delay, jitter = settings.stream_delay_us, settings.stream_jitter
        self._delay_low_us = int(delay * (1.0 - jitter))
        self._delay_span_us = int(delay * 2 * jitter) + 1
        self._late_us = (0, 0)
        self._replay_share = 0.0
        self._replay_late_us = (0, 0)
        self._uneven = False
        table.stream.wants = relay.wants
        table.stream.on_record = self._on_record

    # Faults of the stream.

    def delay_stream(self, min_us: int, max_us: int) -> None:
        """From now on records come later by that much, counted once, from when they were written: no later than their
        lives last, however many wait and whoever takes the shard over. (0, 0) ends it."""
        self._late_us = (min_us, max_us)

    def replay(self, share: float, late_min_us: int, late_max_us: int) -> None:
        """From now on this share of the records comes once more, that much later. 0 ends it."""
        self._replay_share = share
        self._replay_late_us = (late_min_us, max(late_min_us, late_max_us))

    def stream_ends(self) -> None:
        """The table has another stream from now on: what the old one held is gone, and whatever was read of it."""
        for shard in self.shards:
            shard.batch = None
            shard.position = self.table.stream.latest(shard.number)

    # Polling.

    def _on_record(self, record: Record) -> None:
        shard = self.shards[record.shard]
        if not shard.armed and shard.batch is None:
            draw = shard.tie.draw()
            self._arm(shard, self._delay_low_us + (draw * self._delay_span_us >> DRAW_BITS))

    def _arm(self, shard: Shard, delay_us: int) -> None:
        """The next poll at or after that time from now: nothing that begins before can see the record."""
        if shard.armed or shard.batch is not None:
            return
        shard.armed = True
        low, high = self._late_us
        if high:
            late_us = low + (shard.tie.draw() * (high - low) >> DRAW_BITS)
            delay_us += max(0, late_us - self._waited_us(shard))
        every = self.settings.poll_every_us
        at = self.clock._now + delay_us - shard.phase_us
        self.clock.post_at(-(-at // every) * every + shard.phase_us, shard.tie, self._poll, shard)

    def _waited_us(self, shard: Shard) -> int:
        """For how long the oldest record that is not done has been in the stream."""
        records, _ = self.table.stream.read(shard.number, shard.position, 1)
        return self.clock._now - (records[0].at_ms - self.start_ms) * 1000 if records else 0

    def _poll(self, shard: Shard) -> None:
        shard.armed = False
        worker = shard.owner
        if worker is None or shard.batch is not None or not worker.alive:
            return
        if worker.stalled_until_us > self.clock._now:
            return  # when it wakes, or another takes over, the shard is looked at again
        most = self.settings.batch_records_max
        records, position, full = self._read(shard, most)
        if not records:
            shard.position = position
            return
        batch = shard.batch = Batch(shard, worker, records, position, full)
        for _ in range(min(self.settings.record_concurrency, len(batch.lanes))):
            self._next_lane(batch)

    def _read(self, shard: Shard, most: int) -> tuple[list[Record], int, bool]:
        """Records, the position behind them, whether there may be more at once."""
        records, position = self.table.stream.read(shard.number, shard.position, most)
        return records, position, len(records) >= most

    # Records.

    def _next_lane(self, batch: Batch) -> None:
        lane = batch.lanes[batch.next_lane]
        batch.next_lane += 1
        task = Task(batch.worker, self.tie(lane[0].key[0]))
        task.batch = batch
        task.lane = lane
        self._begin(task)

    def _begin(self, task: Task) -> None:
        record = task.record = task.lane[task.place]
        self._start(task, self.relay.on_record(record))

    def _record_done(self, task: Task) -> None:
        batch: Batch | None = task.batch
        if batch is None:
            return
        if self._replay_share and task.record is not None:
            self._may_replay(batch.shard, task.record)
        task.place += 1
        task.attempt = 0
        if task.place < len(task.lane):
            self._begin(task)
            return
        batch.left -= 1
        if batch.next_lane < len(batch.lanes):
            self._next_lane(batch)
        elif batch.left == 0:
            self._checkpoint(batch)

    def _record_failed(self, task: Task) -> None:
        """Tried again with back-off; until then the shard waits."""
        task.attempt += 1
        wait = min(RETRY_CAP_US, RETRY_BASE_US << min(task.attempt, 10))
        wait = wait // 2 + (task.tie.draw() * (wait // 2) >> DRAW_BITS)
        self.clock.post_in(wait, task.tie, self._retry, task)

    def _retry(self, task: Task) -> None:
        if task.work is None:
            return
        worker, record, batch = task.worker, task.record, task.batch
        if worker.stalled_until_us > self.clock._now:
            worker.frozen.append((self._retry, task))
            return
        assert record is not None
        age_ms = self.start_ms + self.clock._now // 1000 - record.at_ms
        if batch is None or not batch.current:
            # A replay, or a lost lease: whoever has the shard now does it.
            task.work = None
            worker.running.pop(task, None)
        elif age_ms > self.settings.record_life_us // 1000 and task.attempt > ATTEMPTS_MIN:
            self.probes["record_given_up"] += 1
            self._finished(task)
        else:
            self._begin(task)

    def _checkpoint(self, batch: Batch) -> None:
        shard = batch.shard
        if not batch.current:
            return  # the lease is gone, and with it the right to say what is done
        shard.batch = None
        shard.position = batch.position
        self.table.stream.trim(shard.number, batch.position)
        if self._uneven:
            self._even_out(shard)
        if self.table.stream.latest(shard.number) > shard.position:
            if batch.full and self._late_us == (0, 0):
                shard.armed = True
                self.clock.post_in(AT_ONCE_US, shard.tie, self._poll, shard)
            else:
                self._arm(shard, 0)

    def _may_replay(self, shard: Shard, record: Record) -> None:
        stream = shard.replays
        chosen, late = stream.chance(self._replay_share), stream.between(*self._replay_late_us)
        again_ms = self.start_ms + (self.clock._now + late) // 1000
        if chosen and again_ms - record.at_ms <= self.settings.record_life_us // 1000:
            self._coming_again += 1
            self.clock.post_in(late, shard.tie, self._replayed, record)

    def _replayed(self, record: Record) -> None:
        self._coming_again -= 1
        tie = self.tie(record.key[0])
        worker = self._usable(tie)
        if worker is None or worker.stalled_until_us > self.clock._now:
            return
        self.probes["record_redelivered"] += 1
        task = Task(worker, tie)
        task.lane = [record]
        self._begin(task)

    # Leases.

    def _leases_end(self, worker: Worker, dead: bool) -> None:
        """The worker renews nothing any more: each of its shards is free after the lease."""
        for shard in self.shards:
            if shard.owner is worker:
                if dead:
                    shard.owner = None
                    if shard.batch is not None:
                        self.probes["worker_killed_mid_batch"] += 1
                shard.leased_until_us = self.clock._now + self.settings.lease_us
                end = (shard, shard.lease, worker.spell, dead)
                self.clock.post_at(shard.leased_until_us, shard.tie, self._lease_over, end)

    def _lease_over(self, end: tuple[Shard, int, int, bool]) -> None:
        shard, lease, spell, dead = end
        if shard.lease != lease:
            return
        if not dead and (shard.owner is None or shard.owner.spell != spell):
            return  # it woke in time and renewed, or it died: then another call is on its way
        self._give(shard, self._least_loaded())

    def _give(self, shard: Shard, worker: Worker | None) -> None:
        """To another worker, with the batch that the old one had. None: to nobody, until there is one."""
        shard.lease += 1
        shard.owner = worker
        batch, shard.batch = shard.batch, None
        self._uneven = True
        if batch is not None:
            self.probes["record_redelivered"] += batch.records
        if worker is None:
            return
        self.probes["lease_taken_over"] += 1
        if self.trace is not None:
            self.trace("lease-taken", worker.name, str(shard.number))
        self._arm(shard, 0)

    def _worker_back(self, worker: Worker) -> None:
        self._uneven = True
        for shard in self.shards:
            if shard.owner is None and shard.leased_until_us <= self.clock._now:
                self._give(shard, worker)
            elif shard.owner is worker:
                self._arm(shard, 0)

    def _owned(self, worker: Worker) -> int:
        return sum(shard.owner is worker for shard in self.shards)

    def _least_loaded(self) -> Worker | None:
        """Of those that work, the one with the fewest shards."""
        now = self.clock._now
        working = [worker for worker in self.workers if worker.alive and worker.stalled_until_us <= now]
        return min(working, key=self._owned) if working else None

    def _even_out(self, shard: Shard) -> None:
        """At a checkpoint a worker may hand a shard over to one that has fewer."""
        owner, least = shard.owner, self._least_loaded()
        if owner is None or least is None:
            return
        if self._owned(owner) - self._owned(least) > 1:
            shard.owner = least
            shard.lease += 1
        else:
            counts = [self._owned(worker) for worker in self.workers]
            self._uneven = max(counts) - min(counts) > 1
