"""A process that holds agents of a live run: one, or many. Run as a program, with the file that says what it holds.

It connects to the run's socket, says who it is, and does what it is told, one JSON object a line: `begin` (the moment
from which times count), `start` and `stop` a device, `clock` (a device's wall clock jumps), `final` (write down what
applications can read), `quit`. Now and then it says how its devices are, and with `restart` that one was ordered to. It
ends when the run's end of the socket does: no agent outlives its run. Started by fleet.live.hosts.
"""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec
import trio

from agent.config import AgentConfig
from agent.protocol.log import Log
from agent.protocol.schema import Schema
from agent.runtime.limits import LimitError, allow_agents
from agent.system import monotonic_ms, wall_ms
from fleet.live.clock import RunClock
from fleet.live.device import DeviceSetup, LiveDevice
from fleet.plants import types_with
from fleet.scenario.plan import CommandPlan

STATUS_EVERY_S: Final = 0.25
CONNECT_THREADS: Final = 8
LINE_BYTES_MAX: Final = 1 << 20


class HostSetup(msgspec.Struct, frozen=True, kw_only=True):
    """`socket`: of the run. `stop_ms`: how long an agent that is stopped may take to send what waits."""

    name: str
    socket: str
    schema: str
    devices: list[DeviceSetup]
    numbers: AgentConfig
    stop_ms: int
    commands: CommandPlan = CommandPlan()
    plant: str = ""


class Host:
    """All devices of one process."""

    def __init__(self, setup: HostSetup, stream: trio.SocketStream) -> None:
        self._setup = setup
        self._stream = stream
        self._devices: dict[str, LiveDevice] = {}
        self._saying = trio.Lock()
        self._busy: dict[str, trio.Lock] = {}
        self._scope = trio.CancelScope()
        self._log = Log(_say, wall_ms=wall_ms, monotonic_ms=monotonic_ms)

    async def run(self) -> None:
        """Until it is told to quit, or the run is gone."""
        with self._scope:
            async with trio.open_nursery() as nursery:
                await self._tell({"host": self._setup.name})
                nursery.start_soon(self._report)
                await self._listen(nursery)
                nursery.cancel_scope.cancel()

    async def _listen(self, nursery: trio.Nursery) -> None:
        buffer = b""
        while True:
            try:
                data = await self._stream.receive_some(65_536)
            except trio.BrokenResourceError:
                data = b""
            if not data:
                return
            *lines, buffer = (buffer + data).split(b"\n")
            for line in lines:
                order = json.loads(line)
                if order["do"] == "quit":
                    return
                if order["do"] == "begin":
                    self._begin(order["start_us"])
                else:
                    nursery.start_soon(self._obey, nursery, order)

    def _begin(self, start_us: int) -> None:
        setup, clock = self._setup, RunClock(start_us)
        schema, types = Schema.load(setup.schema), types_with(setup.plant).agent
        limiter = trio.CapacityLimiter(CONNECT_THREADS)
        for device in setup.devices:
            self._busy[device.id] = trio.Lock()
            self._devices[device.id] = LiveDevice(
                device, schema, setup.numbers, types, clock, self._log, stop_ms=setup.stop_ms, limiter=limiter,
                commands=setup.commands, restart=partial(self._restart, device.id),
            )  # fmt: skip

    async def _restart(self, device: str) -> str:
        """The run ends this process and starts another one."""
        await self._tell({"restart": device})
        return ""

    async def _obey(self, nursery: trio.Nursery, order: dict[str, Any]) -> None:
        device = self._devices[order["device"]]
        more: dict[str, Any] = {}
        async with self._busy[order["device"]]:
            if order["do"] == "start" and not device.is_on:
                await nursery.start(self._hold, device)
            elif order["do"] == "stop":
                await device.stop()
            elif order["do"] == "clock":
                device.clock.shift(order["jump_us"])
            elif order["do"] == "final":
                more["rows"] = device.note_final()
        await self._tell({"done": order["number"], **more})

    async def _hold(self, device: LiveDevice, *, task_status: trio.TaskStatus[None]) -> None:
        await device.run(task_status.started)

    async def _report(self) -> None:
        while True:
            await trio.sleep(STATUS_EVERY_S)
            await self._tell({"status": {name: device.status() for name, device in self._devices.items()}})

    async def _tell(self, what: dict[str, Any]) -> None:
        async with self._saying:
            try:
                await self._stream.send_all(json.dumps(what).encode() + b"\n")
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                self._scope.cancel()


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


async def _main(setup: HostSetup) -> None:
    stream = await trio.open_unix_socket(setup.socket)
    async with stream:
        await Host(setup, stream).run()


def main(path: str) -> int:
    """`path`: of a HostSetup as JSON."""
    setup = msgspec.json.decode(Path(path).read_bytes(), type=HostSetup)
    try:
        allow_agents(len(setup.devices), files=True)
    except LimitError as error:
        print(error, file=sys.stderr)
        return 2
    trio.run(_main, setup)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
