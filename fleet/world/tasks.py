"""What a relay worker and one of its tasks are, in the simulated cloud. State only: `fleet.world.workers` moves it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from cloud.table import Record, Request, Work
from fleet.rng import rng
from fleet.world.clock import Clock, Tie


class Task:
    """One generator at work: for a device's message, or for one record after the other of a lane of a batch."""

    __slots__ = ("attempt", "batch", "deadline_us", "device_id", "lane", "payload", "place", "record", "request", "tie",
                 "work", "worker")  # fmt: skip

    def __init__(self, worker: Worker, tie: Tie) -> None:
        self.worker = worker
        self.tie = tie
        self.work: Work | None = None  # None: dropped, whatever is still in the heap for it
        self.request: Request | None = None
        self.deadline_us = 0
        self.device_id = ""
        self.payload = b""
        self.record: Record | None = None
        self.batch: Any = None  # fleet.world.shards.Batch; None for a message and for a record that comes again
        self.lane: list[Record] = []
        self.place = 0  # in the lane
        self.attempt = 0


class Worker:
    """One relay process. `spell` grows whenever it dies, stalls or comes back, so that old timers know."""

    __slots__ = ("alive", "blow", "frozen", "fuse", "fuse_records", "name", "queue", "running", "spell",
                 "stalled_until_us", "stream", "suspect", "tie")  # fmt: skip

    def __init__(self, clock: Clock, seed: int, number: int) -> None:
        self.name = f"worker-{number}"
        self.tie = clock.tie(self.name)
        self.stream = rng(seed, self.name, "trouble")
        self.alive = True
        self.suspect = False  # stalled for longer than a lease: the others have noticed
        self.stalled_until_us = 0
        self.spell = 0
        self.fuse = 0  # so many requests (of records only: fuse_records) until `blow`
        self.fuse_records = False
        self.blow: tuple[Callable[[Worker, int], object], int] | None = None  # what, and when it is over
        self.running: dict[Task, None] = {}
        self.queue: deque[tuple[str, bytes]] = deque()
        self.frozen: list[tuple[Callable[[Any], object], Any]] = []
