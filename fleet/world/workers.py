"""Relay workers under virtual time: they run the relay's generators, one table request at a time, and can fail.

Every request takes sampled time and is carried out at the end of it; every such moment is one where another worker may
get in between, where a worker may be killed (its tasks are dropped: nothing of them runs any more) or stalled (they go
on later as if nothing had been). Device messages are spread over the workers, wait in bounded queues, and are lost or
come again when their worker dies. Never looks into a request or a message.
The lower layer of `fleet.world.cloud.CloudWorld`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from heapq import heappush
from typing import Any, Final

from cloud.relay import Relay
from cloud.table import (
    BatchGet,
    Cancelled,
    Delete,
    Get,
    Publish,
    Put,
    Query,
    Request,
    TableError,
    TableRequest,
    Throttled,
    Transact,
    Unavailable,
    Update,
    Work,
)
from fleet.rng import Stream, rng
from fleet.scenario.plan import CloudPlan
from fleet.world.broker import Broker
from fleet.world.clock import DRAW_BITS, FACTOR, MODULUS, Clock, Tie
from fleet.world.downlink import Trace
from fleet.world.table import WorldTable
from fleet.world.tasks import Task, Worker

TAIL_TIMES: Final = 10  # one request in 256 takes that much longer (an assumption: tables have tails)
REDELIVER_US: Final = (1_000_000, 10_000_000)  # a message of a worker that died comes again after that, if at all
FUSE_REQUESTS_MAX: Final = 8  # a worker that is to die or stall does so at one of its next requests,
FUSE_WAIT_US: Final = 20_000_000  # or when this time has passed without so many
THAW_US: Final = 1_000  # tasks of a stalled worker go on within that time


class Workers:
    """The workers and the device messages. Counted in `probes`: worker_killed, worker_stalled, zombie_resumed,
    throttled, answer_lost, task_timed_out, queue_full, message_failed, message_lost_with_worker, message_redelivered.
    """

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
        self.clock = clock
        self.table = table
        self.relay = relay
        self.broker = broker
        self.settings = settings
        self.trace = trace
        self.probes = probes
        self.seed = seed
        self.start_ms = start_ms  # what the clock on the wall shows at virtual time 0
        self.workers = [Worker(clock, seed, number) for number in range(settings.workers)]
        self.throttle_share = self.silence_share = 0.0
        self._troubled = False
        self._chooser = rng(seed, "cloud", "workers")  # whom a fault hits, what becomes of its messages
        self._ties: dict[str, Tie] = {}
        self._coming_again = 0
        self._costs = self._latencies(settings)
        self._heap = clock.heap
        self._execute = table.execute
        self._answer_fn: Final = self._answer

    @staticmethod
    def _latencies(settings: CloudPlan) -> dict[type, tuple[int, int]]:
        """Request -> (least time, span)."""
        medians = {
            Get: settings.read_latency_us,
            BatchGet: settings.read_latency_us,
            Query: settings.query_latency_us,
            Put: settings.write_latency_us,
            Update: settings.write_latency_us,
            Delete: settings.write_latency_us,
            Transact: settings.transact_latency_us,
        }
        jitter = settings.latency_jitter
        return {kind: (int(us * (1.0 - jitter)), int(us * 2 * jitter) + 1) for kind, us in medians.items()}

    def tie(self, entity: str) -> Tie:
        """The order, and the table's times, of all work for one device or one hash key."""
        tie = self._ties.get(entity)
        if tie is None:
            tie = self._ties[entity] = self.clock.tie(f"relay/{entity}")
        return tie

    # What the layer above does with records.

    def _record_done(self, task: Task) -> None:
        raise NotImplementedError

    def _record_failed(self, task: Task) -> None:
        raise NotImplementedError

    def _leases_end(self, worker: Worker, dead: bool) -> None:
        raise NotImplementedError

    def _worker_back(self, worker: Worker) -> None:
        raise NotImplementedError

    # Device messages.

    def take(self, _topic: str, payload: bytes, device_id: str) -> None:
        """A device's message, from the broker's rule."""
        tie = self._ties.get(device_id)
        if tie is None:
            tie = self.tie(device_id)
        worker = self._usable(tie)
        if worker is None:  # at least once: the rule tries again
            self._again(device_id, payload, self._chooser)
        elif worker.stalled_until_us <= self.clock._now and len(worker.running) < self.settings.concurrency:
            self._start_message(worker, tie, device_id, payload)
        elif len(worker.queue) < self.settings.queue_max:
            worker.queue.append((device_id, payload))
        else:
            self.probes["queue_full"] += 1
            for message in self.relay.on_overload(device_id, payload):
                assert isinstance(message, Publish)
                self.broker.publish_from_cloud(message.topic, message.payload, message.qos)

    def _usable(self, tie: Tie) -> Worker | None:
        """A worker that nobody knows to be dead or stalled, drawn; None if there is none."""
        workers = self.workers
        count = len(workers)
        first = tie.draw() * count >> DRAW_BITS
        for i in range(first, first + count):
            worker = workers[i % count]
            if worker.alive and not worker.suspect:
                return worker
        return None

    def _again(self, device_id: str, payload: bytes, stream: Stream) -> None:
        self.probes["message_redelivered"] += 1
        self._coming_again += 1
        self.clock.post_in(stream.between(*REDELIVER_US), self.tie(device_id), self._comes_again, (device_id, payload))

    def _comes_again(self, message: tuple[str, bytes]) -> None:
        self._coming_again -= 1
        self.take("", message[1], message[0])

    def _start_message(self, worker: Worker, tie: Tie, device_id: str, payload: bytes) -> None:
        task = Task(worker, tie)
        task.device_id = device_id
        task.payload = payload
        self._start(task, self.relay.on_message(device_id, payload))

    def _next_messages(self, worker: Worker) -> None:
        queue, most = worker.queue, self.settings.concurrency
        while queue and len(worker.running) < most:
            device_id, payload = queue.popleft()
            self._start_message(worker, self.tie(device_id), device_id, payload)

    # Running a task.

    def _start(self, task: Task, work: Work) -> None:
        task.work = work
        task.deadline_us = self.clock._now + self.settings.worker_life_us
        task.worker.running[task] = None
        try:
            request = next(work)
        except StopIteration:  # nothing to do; later, so that a long queue of such is no deep recursion
            self.clock.post_in(0, task.tie, self._did_nothing, task)
        except TableError as error:
            self._failed(task, error)
        else:
            self._issue(task, request)

    def _did_nothing(self, task: Task) -> None:
        if task.work is not None:
            if task.worker.stalled_until_us > self.clock._now:
                task.worker.frozen.append((self._did_nothing, task))
            else:
                self._finished(task)

    def _issue(self, task: Task, request: Request) -> None:
        """A message goes out at once, nobody waits for it; a request of the table takes its time. (A worker that dies
        between a commit and its message is one that dies at the commit: half of those take effect.)"""
        while request.__class__ is Publish:
            self.broker.publish_from_cloud(request.topic, request.payload, request.qos)
            assert task.work is not None
            try:
                request = task.work.send(None)
            except StopIteration:
                self._finished(task)
                return
            except TableError as error:
                self._failed(task, error)
                return
        task.request = request
        low, span = self._costs[request.__class__]
        tie = task.tie
        tie.state = state = tie.state * FACTOR % MODULUS
        delay = low + (state * span >> DRAW_BITS)
        if not state & 0xFF:
            delay *= TAIL_TIMES
        heappush(self._heap, (self.clock._now + delay, state, tie.serial, self._answer_fn, task))

    def _answer(self, task: Task) -> None:
        """A request's time is over: it is carried out, and the generator goes on with the answer."""
        work = task.work
        if work is None:
            return
        now = self.clock._now
        worker = task.worker
        if worker.fuse:
            self._burn(worker, task)
            if task.work is None:
                return
        if worker.stalled_until_us > now:
            self._freeze(worker, task)
            return
        if now > task.deadline_us:
            self._time_out(task)
            return
        request = task.request
        answer: Any = None
        try:
            if self._troubled:
                answer = self._try(worker.stream, request)  # type: ignore[arg-type]
            else:
                answer = self._execute(request, self.start_ms + now // 1000)  # type: ignore[arg-type]
        except TableError as error:
            self._go_on(task, None, error)
            return
        try:
            request = work.send(answer)
        except StopIteration:
            self._finished(task)
        except TableError as error:
            self._failed(task, error)
        else:
            self._issue(task, request)

    def _go_on(self, task: Task, answer: Any, error: TableError | None) -> None:
        work = task.work
        if work is None:
            return
        try:
            request = work.send(answer) if error is None else work.throw(error)
        except StopIteration:
            self._finished(task)
        except TableError as reason:
            self._failed(task, reason)
        else:
            self._issue(task, request)
        finally:
            error = None  # its traceback leads to this frame: a cycle

    def _finished(self, task: Task) -> None:
        worker = task.worker
        task.work = None
        worker.running.pop(task, None)
        if task.record is not None:
            self._record_done(task)
        if worker.queue:
            self._next_messages(worker)

    def _failed(self, task: Task, error: TableError) -> None:
        """The generator gave up. A message is dropped: the device will ask again."""
        task.request = None
        if task.record is not None:
            self.probes["record_failed"] += 1
            self._record_failed(task)
            return
        self.probes["message_failed"] += 1
        if self.trace is not None:
            self.trace("message-failed", task.device_id, type(error).__name__)
        self._finished(task)

    def _time_out(self, task: Task) -> None:
        self.probes["task_timed_out"] += 1
        task.request = None
        if task.record is not None:
            self._record_failed(task)
        else:
            self._finished(task)

    # Trouble with the table.

    def throttle(self, share: float) -> None:
        """From now on this share of requests is refused. 0 ends it."""
        self.throttle_share = share
        self._troubled = self.throttle_share > 0.0 or self.silence_share > 0.0

    def silence(self, share: float) -> None:
        """From now on this share of writes takes effect and gives no answer. 0 ends it."""
        self.silence_share = share
        self._troubled = self.throttle_share > 0.0 or self.silence_share > 0.0

    def _try(self, stream: Stream, request: TableRequest) -> Any:
        """A request that the open faults may refuse, or else, of those that are left, lose the answer of."""
        chance = stream.unit()
        refused = self.throttle_share
        if chance < refused:
            self.probes["throttled"] += 1
            if isinstance(request, Transact) and stream.chance(0.5):
                # DynamoDB says it in either way.
                raise Cancelled(("throttled", *[None] * (len(request.actions) - 1)))
            raise Throttled("over the provisioned throughput")
        answer = self._execute(request, self.start_ms + self.clock._now // 1000)
        silent = chance < refused + (1.0 - refused) * self.silence_share
        if silent and not isinstance(request, Get | BatchGet | Query):
            self.probes["answer_lost"] += 1
            raise Unavailable("no answer")
        return answer

    # Killing and stalling.

    def kill_worker(self, restart_us: int) -> None:
        """One living worker, drawn, dies between two requests; by restart_us from now it is started again."""
        living = [worker for worker in self.workers if worker.alive]
        if living:
            self._light(self._chooser.choice(living), self.kill_now, restart_us)

    def stall_worker(self, duration_us: int) -> None:
        """One living worker, drawn, stops between two requests, and goes on by duration_us from now."""
        now = self.clock._now
        working = [worker for worker in self.workers if worker.alive and worker.stalled_until_us <= now]
        if working:
            self._light(self._chooser.choice(working), self.stall_now, duration_us)

    def _light(self, worker: Worker, what: Callable[[Worker, int], object], duration_us: int) -> None:
        """A worker that does nothing at the moment loses nothing by dying: it happens at one of its next requests."""
        requests, records = self._chooser.between(1, FUSE_REQUESTS_MAX), self._chooser.chance(0.5)
        if worker.fuse:
            what(worker, duration_us)
            return
        worker.fuse, worker.fuse_records = requests, records
        worker.blow = (what, self.clock._now + duration_us)
        self.clock.post_in(min(FUSE_WAIT_US, duration_us // 2), worker.tie, self._burnt_out, (worker, worker.spell))

    def _burn(self, worker: Worker, task: Task) -> None:
        if task.record is not None or not worker.fuse_records:
            worker.fuse -= 1
            if not worker.fuse:
                self._strike(worker)

    def _burnt_out(self, lit: tuple[Worker, int]) -> None:
        worker, spell = lit
        if worker.fuse and worker.spell == spell:
            self._strike(worker)

    def _strike(self, worker: Worker) -> None:
        worker.fuse = 0
        if worker.blow is not None:
            what, end_us = worker.blow
            worker.blow = None
            what(worker, max(1, end_us - self.clock._now))

    def kill_now(self, worker: Worker, restart_us: int) -> None:
        """Nothing of its tasks runs any more. Of the requests under way half still reach the table."""
        self.probes["worker_killed"] += 1
        if self.trace is not None:
            self.trace("worker-killed", worker.name, "")
        self._leases_end(worker, dead=True)
        waiting = list(worker.queue)
        tasks = list(worker.running)
        worker.alive = worker.suspect = False
        worker.spell += 1
        worker.fuse = worker.stalled_until_us = 0
        worker.blow = None
        worker.running.clear()
        worker.queue.clear()
        worker.frozen.clear()
        for task in tasks:
            task.work = None
            if task.record is None:
                waiting.append((task.device_id, task.payload))
            request = task.request
            if request is not None and task.tie.draw() & 1:
                with suppress(TableError):
                    self._execute(request, self.start_ms + self.clock._now // 1000)  # type: ignore[arg-type]
        for device_id, payload in waiting:
            if self._chooser.chance(0.5):
                self._again(device_id, payload, self._chooser)
            else:
                self.probes["message_lost_with_worker"] += 1
        self.clock.post_in(restart_us, worker.tie, self._restart, worker)

    def _restart(self, worker: Worker) -> None:
        worker.alive = True
        worker.spell += 1
        if self.trace is not None:
            self.trace("worker-started", worker.name, "")
        self._worker_back(worker)

    def stall_now(self, worker: Worker, duration_us: int) -> None:
        now = self.clock._now
        if not worker.alive or worker.stalled_until_us > now or duration_us <= 0:
            return
        self.probes["worker_stalled"] += 1
        if self.trace is not None:
            self.trace("worker-stalled", worker.name, str(duration_us))
        worker.stalled_until_us = now + duration_us
        worker.spell += 1
        self._leases_end(worker, dead=False)
        if duration_us > self.settings.lease_us:
            self.clock.post_in(self.settings.lease_us, worker.tie, self._suspect, (worker, worker.spell))
        self.clock.post_in(duration_us, worker.tie, self._wake, (worker, worker.spell))

    def _suspect(self, stalled: tuple[Worker, int]) -> None:
        worker, spell = stalled
        if worker.spell == spell:
            worker.suspect = True

    def _freeze(self, worker: Worker, task: Task) -> None:
        """A request of a stalled worker comes to its end. It was on its way before: half of them are carried out now,
        and the answer waits for the worker; the others were never sent, and are when it goes on."""
        request = task.request
        if not task.tie.draw() & 1:
            worker.frozen.append((self._answer_fn, task))
            return
        answer: Any = None
        failed: TableError | None = None
        try:
            if self._troubled:
                answer = self._try(worker.stream, request)  # type: ignore[arg-type]
            else:
                answer = self._execute(request, self.start_ms + self.clock._now // 1000)  # type: ignore[arg-type]
        except TableError as error:
            failed = error
        task.request = None
        worker.frozen.append((self._thawed, (task, answer, failed)))

    def _thawed(self, held: tuple[Task, Any, TableError | None]) -> None:
        task, answer, error = held
        if task.work is None:
            return
        if task.worker.stalled_until_us > self.clock._now:
            task.worker.frozen.append((self._thawed, held))
        elif self.clock._now > task.deadline_us:
            self._time_out(task)
        else:
            self._go_on(task, answer, error)

    def _wake(self, stalled: tuple[Worker, int]) -> None:
        worker, spell = stalled
        if worker.spell != spell:
            return
        worker.spell += 1
        worker.stalled_until_us = 0
        frozen, worker.frozen = worker.frozen, []
        if worker.suspect and frozen:
            self.probes["zombie_resumed"] += 1
        worker.suspect = False
        if self.trace is not None:
            self.trace("worker-woken", worker.name, str(len(frozen)))
        for fn, arg in frozen:
            self.clock.post_in(worker.tie.draw() * THAW_US >> DRAW_BITS, worker.tie, fn, arg)
        self._next_messages(worker)
        self._worker_back(worker)
