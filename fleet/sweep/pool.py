"""Where the runs of a sweep happen: in processes of this machine, on a cluster, or right here.

Each is an executor: `submit` gives a future. A process that dies fails the future of what it was running and nothing
else. Used by fleet.sweep.stream. Processes are spawned, never forked: no thread of the parent is copied half-way, and
each has its own hash seed, so that what depends on one shows in the double runs.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, Final, Protocol, TypeVar

from agent.protocol.errors import InputError, Problem

T = TypeVar("T")

TASKS_PER_WORKER_MAX: Final = 200  # then a fresh process takes its place: whatever a run leaves behind is gone


class Executor(Protocol):
    """`workers`: how many runs go on at once; `handed_out`: how many it is given at most, to go on without a pause."""

    workers: int
    handed_out: int

    def submit(self, function: Callable[..., T], *arguments: Any) -> Future[T]: ...


def cores() -> int:
    """Of those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def prepare(memory_bytes: int) -> None:
    """First of all in a new process. `memory_bytes`: a run that wants more fails, not the machine; 0: no limit."""
    from fleet.native.start import prepare as prepare_simulation

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all: the parent decides
    prepare_simulation()
    if memory_bytes:
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        soft = memory_bytes if hard == resource.RLIM_INFINITY else min(memory_bytes, hard)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


class Processes:
    """Of this machine, by pebble: it replaces one that dies, and ends one whose run takes longer than `timeout_s`."""

    def __init__(
        self,
        workers: int,
        *,
        memory_bytes: int = 0,
        timeout_s: float | None = None,
        tasks_max: int = TASKS_PER_WORKER_MAX,
    ) -> None:
        from pebble import ProcessPool

        self.workers = workers
        self.handed_out = 2 * workers
        self._timeout_s = timeout_s
        self._pool: Any = ProcessPool(
            max_workers=workers,
            max_tasks=tasks_max,
            initializer=prepare,
            initargs=(memory_bytes,),
            context=multiprocessing.get_context("spawn"),
        )

    def submit(self, function: Callable[..., T], *arguments: Any) -> Future[T]:
        future: Future[T] = self._pool.schedule(function, args=arguments, timeout=self._timeout_s)
        return future

    def close(self) -> None:
        """Whatever still runs is stopped."""
        self._pool.stop()
        self._pool.join()


class Cluster:
    """The workers of a scheduler of dask.distributed. They need Fleet, of the same release."""

    def __init__(self, address: str) -> None:
        try:
            import distributed
        except ModuleNotFoundError:
            hint = "pip install 'fleet-sync[cluster]'"
            raise InputError([Problem("--cluster", 0, 0, address, "dask.distributed is not installed", hint)]) from None
        try:
            client: Any = distributed
            self._client = client.Client(address, timeout=10, set_as_default=False)
        except (OSError, ValueError, TimeoutError) as error:
            hint = "the address of a running scheduler, such as tcp://127.0.0.1:8786"
            raise InputError([Problem("--cluster", 0, 0, address, f"no scheduler answers: {error}", hint)]) from None
        self._executor = self._client.get_executor(pure=False, retries=0)
        self.workers = max(1, sum(self._client.ncores().values()))
        self.handed_out = self.workers  # a worker that dies takes what waits for it along

    def submit(self, function: Callable[..., T], *arguments: Any) -> Future[T]:
        future: Future[T] = self._executor.submit(function, *arguments)
        return future

    def close(self) -> None:
        self._executor.shutdown(wait=False)
        self._client.close()


class Here:
    """In this process, one after the other: for tests of what is made of the outcomes."""

    workers = handed_out = 1

    def submit(self, function: Callable[..., T], *arguments: Any) -> Future[T]:
        future: Future[T] = Future()
        try:
            future.set_result(function(*arguments))
        except Exception as error:
            future.set_exception(error)
        return future


@contextmanager
def opened(
    jobs: int,
    cluster: str = "",
    *,
    memory_bytes: int = 0,
    timeout_s: float | None = None,
    tasks_max: int = TASKS_PER_WORKER_MAX,
) -> Iterator[Executor]:
    """The processes, or the cluster, until the end of the block. `tasks_max`: runs of a process before a fresh one
    takes its place, 0: it stays. Raises InputError when there is no such cluster."""
    if cluster:
        pool: Cluster | Processes = Cluster(cluster)
    else:
        pool = Processes(jobs, memory_bytes=memory_bytes, timeout_s=timeout_s, tasks_max=tasks_max)
    try:
        yield pool
    finally:
        pool.close()
