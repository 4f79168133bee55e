"""Carries out a plan's faults on real parts: processes are killed, frozen and started again, connections disturbed.

Each event at its time, and healed; after the run's own end nothing is left that it has broken. A fault ends only what
it began: a device that is off already stays off until whoever turned it off brings it back. Acts on nothing but what
the run has started, and on its own proxy. Which kinds there are: fleet.live.applied. Called by fleet.live.run, under
trio.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

import trio

from fleet.live.clock import RunClock
from fleet.live.hosts import Hosts
from fleet.live.processes import Part
from fleet.live.proxy import Door
from fleet.scenario.plan import FaultPlan, LinkPlan, Plan

Event = tuple[int, str, int]  # at_us, device or "", duration_us
_BITS_PER_BYTE: Final = 8


class LiveFaults:
    """`broker`: None where it was given, or there is none. `tell`: the oracle's call `healed`."""

    def __init__(
        self,
        plan: Plan,
        *,
        clock: RunClock,
        hosts: Hosts,
        doors: Mapping[str, Door],
        broker: Part | None,
        relays: Sequence[Part],
        tell: Callable[[str], object],
    ) -> None:
        self.touched: dict[str, dict[str, None]] = {fault.name: {} for fault in plan.faults}
        self.healed_us: dict[str, int] = {}
        self.reboots = 0
        self._plan = plan
        self._clock = clock
        self._hosts = hosts
        self._doors = doors
        self._broker = broker
        self._relays = relays
        self._tell = tell
        self._off: set[str] = set()
        self._stalls: Counter[str] = Counter()
        self._shut: Counter[str] = Counter()
        self._broker_down = 0
        self._broker_lock = trio.Lock()
        self._relay_busy = [trio.Lock() for _ in relays]
        self._next_relay = 0
        self._regions = {device.id: plan.groups[device.group].region for device in plan.devices}
        links = {device.id: plan.groups[device.group].link for device in plan.devices}
        for name, door in doors.items():
            if name in links:
                _as_link(door, links[name])

    async def run(self) -> None:
        """All of them, until the last one has healed."""
        async with trio.open_nursery() as nursery:
            for fault in self._plan.faults:
                if fault.events:
                    nursery.start_soon(self._fault, fault)

    async def _fault(self, fault: FaultPlan) -> None:
        kinds: dict[str, Callable[[FaultPlan, Event], Awaitable[None]]] = {
            "broker-outage": self._broker_outage,
            "link-down": self._link_down,
            "disconnects": self._disconnects,
            "half-open": self._half_open,
            "reboots": self._reboots,
            "power-cut": self._power_cut,
            "relay-kill": self._relay_kill,
            "relay-stall": self._relay_stall,
            "clock": self._clock_jump,
            "messages": self._late,
        }
        act = kinds[fault.kind]
        async with trio.open_nursery() as nursery:
            for event in fault.events:
                await self._until(event[0])
                nursery.start_soon(act, fault, event)
        await self._until(fault.until_us)
        self.healed_us[fault.name] = self._clock.now_us()
        self._tell("healed")

    async def _until(self, at_us: int) -> None:
        await trio.sleep(self._clock.until_s(at_us))

    def _targets(self, fault: FaultPlan, event: Event) -> list[str]:
        if event[1]:
            names = [event[1]]
        else:
            names = [device.id for device in self._plan.devices] if fault.devices is None else fault.devices
        self.touched[fault.name].update(dict.fromkeys(names))
        return names

    # ---------------------------------------------------------------- broker and links

    async def _broker_outage(self, fault: FaultPlan, event: Event) -> None:
        regions = fault.regions
        hit = [name for name, region in self._regions.items() if regions is None or region in regions]
        self.touched[fault.name].update(dict.fromkeys(hit))
        whole = len(hit) == len(self._regions) and self._broker is not None
        if whole:
            await self._broker_goes()
        else:
            for name in hit:
                self._shut[name] += 1
                self._doors[name].refusing = True
                self._doors[name].reset()
        await self._until(event[0] + event[2])
        if whole:
            await self._broker_comes()
            return
        for name in hit:
            self._shut[name] -= 1
            self._doors[name].refusing = self._shut[name] > 0

    async def _broker_goes(self) -> None:
        async with self._broker_lock:
            self._broker_down += 1
            if self._broker_down == 1 and self._broker is not None:
                await trio.to_thread.run_sync(self._broker.kill)

    async def _broker_comes(self) -> None:
        async with self._broker_lock:
            self._broker_down -= 1
            if self._broker_down == 0 and self._broker is not None:
                await trio.to_thread.run_sync(self._broker.start)

    async def _link_down(self, fault: FaultPlan, event: Event) -> None:
        names = self._targets(fault, event)
        for name in names:
            self._stalls[name] += 1
            self._doors[name].stall()
        await self._until(event[0] + event[2])
        for name in names:
            self._stalls[name] -= 1
            if not self._stalls[name]:
                self._doors[name].flow()

    async def _disconnects(self, fault: FaultPlan, event: Event) -> None:
        for name in self._targets(fault, event):
            self._doors[name].finish()

    async def _half_open(self, fault: FaultPlan, event: Event) -> None:
        for name in self._targets(fault, event):
            self._doors[name].half_open()

    async def _late(self, fault: FaultPlan, event: Event) -> None:
        """Half of the longest delay for everything: the proxy keeps the order, as TCP does."""
        more_s = fault.params["delay_us"] / 2e6
        names = self._targets(fault, event)
        for name in names:
            self._doors[name].delay(self._doors[name].conditions.delay_s + more_s)
        await self._until(event[0] + event[2])
        for name in names:
            self._doors[name].delay(max(0.0, self._doors[name].conditions.delay_s - more_s))

    # ---------------------------------------------------------------- devices

    async def _reboots(self, fault: FaultPlan, event: Event) -> None:
        orderly = bool(fault.params.get("orderly", True))
        async with trio.open_nursery() as nursery:
            for name in self._targets(fault, event):
                nursery.start_soon(self._reboot, name, event, orderly)

    async def _power_cut(self, fault: FaultPlan, event: Event) -> None:
        async with trio.open_nursery() as nursery:
            for name in self._targets(fault, event):
                nursery.start_soon(self._reboot, name, event, False)

    async def _reboot(self, name: str, event: Event, orderly: bool) -> None:
        if name in self._off:
            return
        self._off.add(name)
        if orderly:
            await self._hosts.tell("stop", name)
        else:
            await self._hosts.kill(name)
        await self._until(event[0] + event[2])
        await self._hosts.boot(name)
        self.reboots += 1
        self._off.discard(name)

    async def restart(self, name: str) -> None:
        """By a command: the agent ends in good order and its process with it, and another process goes on. Nothing for
        a device that is going off anyway."""
        if name in self._off:
            return
        self._off.add(name)
        await self._hosts.end(name)
        await self._hosts.boot(name)
        self.reboots += 1
        self._off.discard(name)

    async def boot(self, name: str, at_us: int) -> None:
        """The first time that the device is switched on."""
        self._off.add(name)
        await self._until(at_us)
        await self._hosts.boot(name)
        self._off.discard(name)

    async def _clock_jump(self, fault: FaultPlan, event: Event) -> None:
        jump_us = fault.params["jump_us"]
        names = self._targets(fault, event)
        for name in names:
            await self._hosts.jump(name, jump_us)
        if event[2]:
            await self._until(event[0] + event[2])
            for name in names:
                await self._hosts.jump(name, -jump_us)

    # ---------------------------------------------------------------- cloud

    def _relay(self) -> int:
        """One after the other."""
        self._next_relay = (self._next_relay + 1) % len(self._relays)
        return self._next_relay

    async def _relay_kill(self, fault: FaultPlan, event: Event) -> None:
        number = self._relay()
        relay = self._relays[number]
        async with self._relay_busy[number]:
            await trio.to_thread.run_sync(relay.kill)
            await self._until(event[0] + fault.params["restart_us"])
            await trio.to_thread.run_sync(relay.start)

    async def _relay_stall(self, _fault: FaultPlan, event: Event) -> None:
        number = self._relay()
        relay = self._relays[number]
        async with self._relay_busy[number]:
            relay.pause()
            try:
                await self._until(event[0] + event[2])
            finally:
                relay.resume()


def _as_link(door: Door, link: LinkPlan) -> None:
    """The way of one device as its plan has it: mean delay and rate, the slower of the two directions for both."""
    door.delay(link.delay_us / 1e6)
    rates = [rate for rate in (link.rate_up_bps, link.rate_down_bps) if rate]
    door.throttle(min(rates) / _BITS_PER_BYTE if rates else math.inf)
