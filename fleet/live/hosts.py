"""The processes that hold a live run's agents, as the run sees them: started, told what to do, killed, asked.

A device that a fault will kill or freeze has a process of its own; the others share a few. Every process is a Part
(fleet.live.processes), so that none outlives the run; it connects to the run's socket and is told what to do there.
Called by fleet.live.run and fleet.live.faults, under trio; what waits for a process does so in a thread.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import msgspec
import trio

from agent.config import AgentConfig
from agent.protocol.errors import InputError, Problem
from fleet.live.device import DeviceSetup
from fleet.live.host import HostSetup
from fleet.live.processes import Part, Processes

LIMIT_S: Final = 60.0  # for a process to come, or to do what it is told
TOGETHER_MAX: Final = 25  # devices of one process, where nothing speaks against it
SHARED_MAX: Final = 4  # processes that devices share, as long as these are not too full
STARTING_MAX: Final = 2  # at once: imports cost a third of a second of CPU
_DEVICES_MAX: Final = 500  # of one process
_PATH_BYTES_MAX: Final = 107  # of a socket, in Linux
_OFF: Final[dict[str, Any]] = {"on": False, "online": False, "done": False, "state": "off", "rows": 0, "cursors": {}}


class HostFailed(Exception):
    """A process that holds agents has ended by itself, or does not do what it is told. The text says what it said."""


class Host:
    """One process."""

    def __init__(self, setup: HostSetup, part: Part) -> None:
        self.setup = setup
        self.part = part
        self.status: dict[str, dict[str, Any]] = {}
        self.expected = False  # it is to run
        self.began = False  # and knows from when times count
        self.stream: trio.SocketStream | None = None
        self.came = trio.Event()
        self.answers: dict[int, trio.Event] = {}
        self.told: dict[int, dict[str, Any]] = {}  # with them
        self.saying = trio.Lock()

    @property
    def is_lost(self) -> bool:
        """It should be there, and is not."""
        return self.expected and self.stream is None

    @property
    def devices(self) -> list[str]:
        return [device.id for device in self.setup.devices]


def socket_in(folder: Path) -> str:
    """Where the processes of agents find the run. Raises InputError where the folder's path is too long for that."""
    place = str(folder / "run.socket")
    if len(os.fsencode(place)) > _PATH_BYTES_MAX:
        hint = "set TMPDIR to a shorter one"
        raise InputError([Problem(str(folder), 0, 0, "", "too long a path for the sockets of a live run", hint)])
    return place


class Hosts:
    """All of them. `begin` first, then what is to be done to devices, by their names."""

    def __init__(self, nursery: trio.Nursery, processes: Processes, folder: Path) -> None:
        self.hosts: dict[str, Host] = {}
        self.changed = trio.Event()  # set, and made anew, whenever one tells how it is
        self.on_restart: Callable[[str], object] = lambda _: None  # a device was ordered to restart
        self._of_device: dict[str, Host] = {}
        self._nursery = nursery
        self._processes = processes
        self._folder = folder
        self._socket = socket_in(folder)
        self._jumps_us: Counter[str] = Counter()
        self._number = 0
        self._start_us = 0
        self._starting = trio.CapacityLimiter(STARTING_MAX)

    async def listen(self) -> None:
        listener = trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM)
        await listener.bind(self._socket)
        listener.listen(128)
        self._nursery.start_soon(trio.serve_listeners, self._hear, [trio.SocketListener(listener)])

    def add(self, name: str, devices: Sequence[DeviceSetup], schema: Path, numbers: AgentConfig, **more: Any) -> None:
        """`more`: other fields of HostSetup."""
        setup = HostSetup(
            name=name, socket=self._socket, schema=str(schema), devices=list(devices), numbers=numbers, **more
        )
        file = self._folder / f"{name}.json"
        file.touch(0o600)
        file.write_bytes(msgspec.json.encode(setup))
        command = [sys.executable, "-m", "fleet.live.host", str(file)]
        part = Part(self._processes, name, command, folder=self._folder, ready=lambda _: True)
        host = self.hosts[name] = Host(setup, part)
        self._of_device.update(dict.fromkeys(host.devices, host))

    async def start(self) -> None:
        """All processes, until each has come. Raises NotReady and HostFailed."""
        async with trio.open_nursery() as nursery:
            for host in self.hosts.values():
                nursery.start_soon(self._start, host)

    async def begin(self, start_us: int) -> None:
        """The moment from which times count."""
        self._start_us = start_us
        for host in self.hosts.values():
            await self._send(host, {"do": "begin", "start_us": start_us})
            host.began = True

    async def _start(self, host: Host) -> None:
        async with self._starting:
            host.came = trio.Event()
            host.expected = True
            await trio.to_thread.run_sync(host.part.start)
            with trio.move_on_after(LIMIT_S):
                await host.came.wait()
                return
            raise HostFailed(f"{host.setup.name} did not come within {LIMIT_S:.0f} s{said(host)}")

    async def _hear(self, stream: trio.SocketStream) -> None:
        host: Host | None = None
        buffer = b""
        while True:
            try:
                data = await stream.receive_some(65_536)
            except trio.BrokenResourceError:
                data = b""
            if not data:
                break
            *lines, buffer = (buffer + data).split(b"\n")
            for line in lines:
                told: dict[str, Any] = json.loads(line)
                if "host" in told:
                    host = self.hosts[told["host"]]
                    host.stream = stream
                    host.came.set()
                elif host is not None:
                    self._told(host, told)
        if host is not None and host.stream is stream:
            host.stream = None
            self._forget(host)
            self._change()

    def _told(self, host: Host, told: dict[str, Any]) -> None:
        if "done" in told:
            event = host.answers.pop(told["done"], None)
            if event is not None:
                host.told[told["done"]] = told
                event.set()
        elif "restart" in told:
            self.on_restart(told["restart"])
        else:
            host.status = told["status"]
        self._change()

    def _change(self) -> None:
        self.changed.set()
        self.changed = trio.Event()

    async def _send(self, host: Host, order: dict[str, Any]) -> None:
        async with host.saying:
            if host.stream is None:
                raise HostFailed(f"{host.setup.name} is not there{said(host)}")
            try:
                await host.stream.send_all(json.dumps(order).encode() + b"\n")
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                raise HostFailed(f"{host.setup.name} has gone{said(host)}") from None

    # ---------------------------------------------------------------- devices

    def status(self) -> dict[str, dict[str, Any]]:
        """Of every device, as it was told last."""
        return {name: host.status.get(name, _OFF) for name, host in self._of_device.items()}

    def has_own(self, device: str) -> bool:
        """Whether its process holds no other."""
        return len(self._of_device[device].devices) == 1

    async def tell(self, what: str, device: str, **more: Any) -> dict[str, Any]:
        """An order to the process that holds the device, until it is done: what it says then. Nothing where that one
        does not run. Raises HostFailed."""
        host = self._of_device[device]
        if not host.expected:
            return {}
        self._number += 1
        number, done = self._number, trio.Event()
        host.answers[number] = done
        await self._send(host, {"do": what, "device": device, "number": number, **more})
        with trio.move_on_after(LIMIT_S):
            await done.wait()
            if host.is_lost:
                raise HostFailed(f"{host.setup.name} has gone{said(host)}")
            return host.told.pop(number, {})
        raise HostFailed(f"{host.setup.name} does not {what} {device} within {LIMIT_S:.0f} s{said(host)}")

    async def jump(self, device: str, jump_us: int) -> None:
        """Its wall clock jumps, and stays so in the processes to come."""
        self._jumps_us[device] += jump_us
        if self._of_device[device].began:
            await self.tell("clock", device, jump_us=jump_us)

    async def boot(self, device: str) -> None:
        """Starts the device; its process too, where that was killed."""
        host = self._of_device[device]
        if not host.expected:
            await self._start(host)
            await self._send(host, {"do": "begin", "start_us": self._start_us})
            host.began = True
            if self._jumps_us[device]:
                await self.tell("clock", device, jump_us=self._jumps_us[device])
        await self.tell("start", device)

    async def kill(self, device: str) -> None:
        """SIGKILL to its process, which holds no other device."""
        host = self._of_device[device]
        host.expected = host.began = False
        self._forget(host)
        await trio.to_thread.run_sync(host.part.kill)

    async def end(self, device: str) -> None:
        """Its agent is stopped in good order, and its process, which holds no other device, ends."""
        host = self._of_device[device]
        await self.tell("stop", device)
        host.expected = host.began = False
        with suppress(HostFailed):
            await self._send(host, {"do": "quit"})
        await trio.to_thread.run_sync(host.part.join)
        self._forget(host)

    def _forget(self, host: Host) -> None:
        """It has ended: nobody is to wait for its answers."""
        host.status = {}
        for event in host.answers.values():
            event.set()
        host.answers.clear()

    def failed(self) -> str:
        """What a process said that has ended and should not have; empty when all is well."""
        for host in self.hosts.values():
            if host.expected and host.stream is None and host.came.is_set() and not host.part.alive:
                return f"{host.setup.name} has ended with {host.part.exit_code}{said(host)}"
        return ""

    async def quit(self) -> None:
        """All processes are asked to end; who does not is killed with the context of processes."""
        for host in self.hosts.values():
            host.expected = False
            with suppress(HostFailed):
                await self._send(host, {"do": "quit"})


def said(host: Host) -> str:
    """The end of what it said."""
    return "".join(f"\n  {line}" for line in tuple(host.part.lines)[-5:])


def shares(devices: Sequence[str], alone: Mapping[str, object], *, per_device: bool) -> list[list[str]]:
    """Which devices share a process: those that nothing will kill, in a few; each of the others has its own."""
    if per_device:
        return [[device] for device in devices]
    together = [device for device in devices if device not in alone]
    count = min(SHARED_MAX, math.ceil(len(together) / TOGETHER_MAX))
    count = max(count, math.ceil(len(together) / _DEVICES_MAX))
    shared = [together[n::count] for n in range(count)]
    return [*shared, *([device] for device in devices if device in alone)]
