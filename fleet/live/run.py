"""A live run from its beginning to its end: starts the parts, runs the plan in real time, heals, waits, looks, judges.

boot → writes and faults until the plan's duration → wait until all are in step, within a bound → quiet → final read.
Only what the run has started is disturbed, and nothing of it outlives the run (fleet.live.processes). Called by `fleet
live` and by tests.
"""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec
import trio

from agent.config import AgentConfig
from agent.protocol.errors import InputError
from agent.protocol.messages import Key
from agent.protocol.schema import Schema
from agent.runtime.limits import LimitError, allow_open_files
from cloud.table import PRIVATE_PREFIX, Get
from fleet.live import orders, sightings
from fleet.live.applied import killed
from fleet.live.attach import Attachments, Listener
from fleet.live.clock import RunClock, monotonic_us, wall_us
from fleet.live.faults import LiveFaults
from fleet.live.figures import Figures
from fleet.live.following import Following
from fleet.live.hosts import HostFailed, Hosts, shares
from fleet.live.judge import ONLINE
from fleet.live.parts import NotInstalled
from fleet.live.processes import NotReady, Processes
from fleet.live.proxy import Door, Proxy
from fleet.live.script import Simulated
from fleet.live.setup import Asked, Cloud
from fleet.live.table import CloudApplications, Commit, Watch
from fleet.scenario.plan import Plan
from fleet.world.device import START_MS
from fleet.world.world import OnProgress, Progress
from reports.live import Attached

LOOK_S: Final = 0.1
STREAM_S: Final = 0.2
FIGURES_S: Final = 1.0
STILL_US: Final = 1_000_000  # without a change of any item, before everybody counts as in step
STOP_MS: Final = 2_000
ASK_AGAIN_S: Final = 8.0  # those who have not said yet that they have all
CATCH_UP_S: Final = 10.0
BEGIN_US: Final = 200_000  # from the last preparation to the start
FILES_OF_DEVICE: Final = 4  # both ends of the proxy, a process's pipe and socket
FILES_SPARE: Final = 128


class LiveFailed(Exception):
    """The harness itself failed; nothing can be said about the run. The text says what."""


class Finished(msgspec.Struct, kw_only=True):
    """What a live run leaves to be judged. `table`: all items at the end; None: it was interrupted."""

    clock: Any
    commits: list[Commit]
    table: list[Any] | None
    end_us: int
    converged: bool
    status: dict[str, dict[str, Any]]
    behind: dict[str, list[str]]
    processes: int
    relays: int
    broker: str
    table_address: str
    relay_counts: dict[str, int]
    reboots: int
    attached: list[Attached]
    healed_us: dict[str, int]
    touched: dict[str, int]


class Live:
    """One run, in a folder of its own. `say` takes lines for a person. `before_final` is called just before the last
    look: for tests, which tamper with what they find."""

    def __init__(
        self,
        plan: Plan,
        simulated: Simulated,
        asked: Asked,
        folder: Path,
        *,
        on_progress: OnProgress | None = None,
        stopped: Callable[[], bool] = lambda: False,
        say: Callable[[str], object] = lambda _: None,
        before_final: Callable[[Live], Awaitable[object]] | None = None,
    ) -> None:
        self.plan = plan
        self.folder = folder
        self._simulated = simulated
        self._asked = asked
        self._say = say
        self._on_progress = on_progress
        self._stopped = stopped
        self._before_final = before_final
        self.schema = Schema.parse(plan.schema_text, plan.schema_file)
        self._phase, self._end_us = "starting", plan.duration_us
        self._interrupted = False
        self._commits: list[Commit] = []
        self._last_status: dict[str, dict[str, Any]] = {}
        self._lock = threading.Lock()
        self.cloud: Cloud
        self.hosts: Hosts
        self._clock: RunClock
        self._doors: dict[str, Door]
        self._attachments: Attachments
        self._listener: Listener | None = None
        self._faults: LiveFaults
        self._watch: Watch
        self._figures: Figures
        self._following: Following
        self._writer: sightings.Writer

    def run(self) -> Finished:
        """Raises LiveFailed, and InputError for what was given and cannot be used."""
        try:
            allow_open_files(FILES_SPARE + FILES_OF_DEVICE * len(self.plan.devices))
        except LimitError as error:
            raise LiveFailed(str(error)) from None
        with Processes() as processes:
            try:
                return trio.run(self._main, processes)
            except BaseException as error:
                first = _first(error)
                if isinstance(first, HostFailed | NotReady | NotInstalled):
                    raise LiveFailed(str(first)) from None
                raise first from (None if isinstance(first, InputError | KeyboardInterrupt) else error)

    # ---------------------------------------------------------------- the beginning

    async def _main(self, processes: Processes) -> Finished:
        schema_file = self.folder / "schema.json5"
        schema_file.write_text(self.plan.schema_text)
        self.cloud = Cloud(processes, self.folder, self.plan, schema_file, self._asked)
        try:
            return await self._with_cloud(processes, schema_file)
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(self.cloud.close)

    async def _with_cloud(self, processes: Processes, schema_file: Path) -> Finished:
        await trio.to_thread.run_sync(self.cloud.start, wall_us() // 1000)
        async with trio.open_nursery() as nursery:
            proxy = Proxy(nursery)
            self._doors = proxy.doors
            for device in self.plan.devices:
                await proxy.open(device.id, self.cloud.target)
            for name in self.cloud.attached:
                door = await proxy.open(name, self.cloud.target)
                config = self.cloud.invitation(name, door.port)
                self._say(f"expecting {name} (fleet-agent run --config {config})")
            self.hosts = Hosts(nursery, processes, self.folder)
            await self.hosts.listen()
            self._add_hosts(proxy, schema_file)
            await self.hosts.start()
            self._begin(proxy)
            await self.hosts.begin(self._clock.start_us)
            finished = await self._run()
            await self.hosts.quit()
            nursery.cancel_scope.cancel()
        return finished

    def _add_hosts(self, proxy: Proxy, schema_file: Path) -> None:
        numbers = self._numbers()
        alone = {**killed(self.plan), **orders.restarted(self.plan)}
        names = [device.id for device in self.plan.devices]
        for number, share in enumerate(shares(names, alone, per_device=self._asked.per_device), 1):
            setups = [
                self.cloud.setup(name, proxy.doors[name].port, self._simulated.device_ops[name]) for name in share
            ]
            more = {"stop_ms": STOP_MS, "plant": self.plan.plant, "commands": self.plan.commands}
            self.hosts.add(f"agents-{number}", setups, schema_file, numbers, **more)

    def _numbers(self) -> AgentConfig:
        plan = self.plan.agent
        return AgentConfig(**{name: getattr(plan, name) for name in plan.__struct_fields__})

    def _begin(self, proxy: Proxy) -> None:
        self._clock = clock = RunClock(monotonic_us() + BEGIN_US)
        self._writer = sightings.Writer(self.folder / "run.seen", clock.now_us)
        self._watch = self.cloud.table.watch(clock.now_us)
        self._figures = Figures(self.cloud.relays)
        accounts = {device.id: self.plan.groups[device.group].account for device in self.plan.devices}
        attached = self.cloud.attached
        self._following = Following(self.schema, {**accounts, **attached})
        self._attachments = Attachments(self.schema, attached, at_broker=not self._asked.websocket)
        self._listener = self.cloud.listener()
        self._faults = LiveFaults(
            self.plan,
            clock=clock,
            hosts=self.hosts,
            doors=proxy.doors,
            broker=self.cloud.broker,
            relays=self.cloud.relays,
            tell=self._tell,
        )
        ahead_ms = clock.start_wall_us // 1000 - START_MS
        self._applications = CloudApplications(
            self.cloud.table,
            self.schema,
            self._simulated.cloud_ops,
            self._tell,
            wall_ms=lambda: wall_us() // 1000,
            ahead_ms=ahead_ms,
        )

    def _tell(self, name: str, *arguments: Any) -> None:
        """A sighting of the run itself, from any thread."""
        with self._lock:
            self._writer(name, *arguments)

    # ---------------------------------------------------------------- the phases

    async def _run(self) -> Finished:
        converged = False
        async with trio.open_nursery() as nursery:
            self.hosts.on_restart = lambda name: nursery.start_soon(self._faults.restart, name)
            for task in (self._follow, self._count, self._observe):
                nursery.start_soon(task)
            nursery.start_soon(self._mind, nursery.cancel_scope)
            await self._act()
            self._tell("writes_stopped")
            await self._ask_attached()
            self._phase, self._end_us = "converging", self._clock.now_us() + self.plan.converge_within_us
            converged = await self._converge()
            self._phase = "quiet"
            await trio.sleep(self.plan.quiesce_us / 1e6)
            if converged:
                await self._catch_up()
            nursery.cancel_scope.cancel()
        return await self._look(converged)

    async def _act(self) -> None:
        """Writes and faults, until all is done and healed, and not before the plan's duration is over."""
        async with trio.open_nursery() as nursery:
            for device in self.plan.devices:
                nursery.start_soon(self._faults.boot, device.id, device.boot_at_us)
            nursery.start_soon(self._faults.run)
            nursery.start_soon(self._write_in_cloud)
            self._phase = "running"
            await trio.sleep(self._clock.until_s(self.plan.duration_us))
            self._phase = "healing"
        limit_us = self._clock.now_us() + self.plan.converge_within_us
        while self._clock.now_us() < limit_us:
            if all(status["done"] for status in self.hosts.status().values()):
                return
            await trio.sleep(LOOK_S)

    async def _ask_attached(self) -> None:
        """Who connects says hello, and so where it is: the ways of attached devices are closed once, or the relay is
        started again where it alone hears them."""
        if not len(self._attachments):
            return
        if self._attachments.asked_us < 0:
            self._attachments.asked_us = self._clock.now_us()
        for name in self.cloud.attached:
            self._doors[name].finish()
        if self._asked.websocket:
            await trio.to_thread.run_sync(self.cloud.relays[0].restart)

    async def _write_in_cloud(self) -> None:
        applications = self._applications
        while not applications.is_done:
            await trio.sleep(self._clock.until_s(applications.ops[applications.next].at_us))
            await trio.to_thread.run_sync(applications.do)

    async def _converge(self) -> bool:
        asked = trio.current_time()
        while self._clock.now_us() < self._end_us:
            if self._all_in_step():
                if self._attachments.in_step(self._following):
                    return True
                if trio.current_time() - asked >= ASK_AGAIN_S:
                    asked = trio.current_time()
                    await self._ask_attached()
            await trio.sleep(LOOK_S)
        return False

    async def _catch_up(self) -> None:
        """Quiet feeds get an empty row now and then, which may be on its way: a moment for that."""
        with trio.move_on_after(CATCH_UP_S):
            while not self._all_in_step():
                await trio.sleep(LOOK_S)

    def _all_in_step(self) -> bool:
        following = self._following
        if following.unlogged or self._clock.now_us() - following.changed_us < STILL_US:
            return False
        return all(following.in_step(name, status) for name, status in self.hosts.status().items())

    async def _look(self, converged: bool) -> Finished:
        """The final read; of a run that was interrupted only what there is."""
        clock, cloud, hosts = self._clock, self.cloud, self.hosts
        table: list[Any] | None = None
        with trio.CancelScope(shield=True):
            status = hosts.status()
            if not self._interrupted:
                if self._before_final is not None:
                    await self._before_final(self)
                table = await self._read_all([name for name, one in status.items() if one["on"]])
            else:
                await self._look_at_stream()
            await trio.to_thread.run_sync(self._figures.look)
        if self._listener is not None:
            await trio.to_thread.run_sync(self._listener.close)
        broker = "websocket" if self._asked.websocket else self._asked.broker or "mosquitto"
        return Finished(
            clock=clock,
            commits=self._watch.commits,
            table=table,
            end_us=clock.now_us(),
            converged=converged,
            status=status,
            behind={name: self._following.behind(name, one) for name, one in status.items()},
            processes=len(hosts.hosts),
            relays=len(cloud.relays),
            broker=broker,
            table_address=self._asked.table or "moto",
            relay_counts=dict(self._figures.total()),
            reboots=self._faults.reboots,
            attached=self._attachments.report(self._following, table or ()),
            healed_us=dict(self._faults.healed_us),
            touched={name: len(devices) for name, devices in self._faults.touched.items()},
        )

    async def _read_all(self, devices: list[str]) -> list[Any]:
        """Every item of the table, after each of these devices has written down what it has. Lives of items go on to
        end when nobody writes any more: what has moved meanwhile is read again, until nothing is on its way."""
        lives = any(model.ttl_attribute is not None for model in self.schema.models.values())
        limit_us = self._clock.now_us() + self.plan.converge_within_us
        await self._look_at_stream()
        seen = len(self._commits)
        table = await trio.to_thread.run_sync(lambda: {(one["pk"], one["sk"]): one for one in self.cloud.table.scan()})
        while True:
            waiting = 0
            for device in devices:
                waiting += int((await self.hosts.tell("final", device)).get("rows", 0))
            await self._look_at_stream()
            moved = dict.fromkeys(one.key for one in self._commits[seen:] if not one.key[0].startswith(PRIVATE_PREFIX))
            seen = len(self._commits)
            if not lives or self._clock.now_us() >= limit_us or not (moved or waiting):
                return list(table.values())
            for key in moved:
                item = await trio.to_thread.run_sync(self.cloud.table.execute, Get(key))
                if item is None:
                    table.pop(key, None)
                else:
                    table[key] = item
            await trio.sleep(LOOK_S)

    async def _look_at_stream(self) -> None:
        fresh = await trio.to_thread.run_sync(self._watch.look)
        self._following.take(fresh)
        self._attachments.take(fresh)
        self._commits += fresh

    def is_foreign(self, key: Key) -> bool:
        """Whether an item of the table is an attached device's, which the oracle knows nothing of."""
        return self._attachments.owner(key) is not None

    # ---------------------------------------------------------------- beside them

    async def _follow(self) -> None:
        while True:
            await self._look_at_stream()
            if self._listener is not None:
                self._attachments.listen(self._listener.heard, self._clock.now_us())
            await trio.sleep(STREAM_S)

    async def _count(self) -> None:
        while True:
            await trio.to_thread.run_sync(self._figures.look)
            await trio.sleep(FIGURES_S)

    async def _observe(self) -> None:
        """How the fleet is, for the timeline."""
        every_s = max(0.1, self.plan.interval_us / 2e6)
        while True:
            status = self.hosts.status()
            self._tell(
                ONLINE,
                {
                    ONLINE: sum(bool(one["online"]) for one in status.values()),
                    "outbox": sum(int(one["rows"]) for one in status.values()),
                    "converged": sum(self._following.in_step(name, one) for name, one in status.items()),
                },
            )
            await trio.sleep(every_s)

    async def _mind(self, scope: trio.CancelScope) -> None:
        """Whether somebody wants an end, and whether all processes are there; shows how far it is."""
        while True:
            if self._stopped():
                self._interrupted = True
                scope.cancel()
                return
            failure = self.hosts.failed()
            if failure:
                raise HostFailed(failure)
            if self._on_progress is not None:
                self._on_progress(partial(self._progress))
            await trio.sleep(LOOK_S)

    def _progress(self) -> Progress:
        status = self.hosts.status()
        return Progress(
            self._phase,
            max(0, self._clock.now_us()),
            self._end_us,
            sum(bool(one["online"]) for one in status.values()),
            len(status),
            sum(int(one["rows"]) for one in status.values()) + len(self._following.unlogged),
            self._following.changes,
            0,
        )


def _first(error: BaseException) -> BaseException:
    """Of a group, what went wrong first."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
