"""Carries out a plan's faults: begins each event at its time, and heals it.

Knows how each kind is done to the devices, the broker and the cloud, and nothing of when or to whom: the plan says
that. A fault ends only what it began: a device that was off already stays off until whoever turned it off brings it
back.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from typing import Final, cast

from cloud.table import Item
from fleet.scenario.plan import FaultPlan
from fleet.trace import Trace
from fleet.world import disk as disks
from fleet.world.broker import Broker
from fleet.world.clock import Clock, Tie
from fleet.world.cloud import CloudWorld
from fleet.world.device import SimDevice
from fleet.world.hops import Hop, HopFault
from fleet.world.rollout import Rollouts

LOOK_US: Final = 300_000_000
LOOKS: Final = 24  # for as long as a device remembers that it was told to wait, and longer

Event = tuple[int, str, int]  # at_us, device or "", duration_us


class Faults:
    """All faults of one run. `on_heal(name)` is called when a fault's last event is over."""

    def __init__(
        self,
        plans: list[FaultPlan],
        *,
        clock: Clock,
        seed: int,
        devices: Mapping[str, SimDevice],
        broker: Broker,
        cloud: CloudWorld,
        trace: Trace,
        on_heal: Callable[[str], None],
        clone: Callable[[SimDevice], SimDevice | None],
        damage: Callable[[SimDevice, FaultPlan], None],
        damage_again: Callable[[SimDevice, int], None],
        poison: Callable[[SimDevice, FaultPlan, int], None] | None = None,
        rollouts: Rollouts | None = None,
    ) -> None:
        self._clock = clock
        self._seed = seed
        self._devices = devices
        self._broker = broker
        self._cloud = cloud
        self._trace = trace
        self._on_heal = on_heal
        self._clone = clone
        self._damage = damage
        self._damage_again = damage_again
        self._poison = poison
        self._rollouts = rollouts
        self._regions_down: dict[str, int] = {}  # how many outages hold a region down
        self._links_down: dict[str, int] = {}
        self._copies: dict[tuple[str, int], list[Item]] = {}  # (fault, when it restores) -> the table as it was
        self._disks: dict[
            tuple[str, str, int], sqlite3.Connection | None
        ] = {}  # (fault, device, when) -> its disk then
        self._open: dict[str, list[FaultPlan]] = {}  # kind -> whose windows are open; they add up where they overlap
        self.touched: dict[str, set[str]] = {plan.name: set() for plan in plans}  # for counting only
        for plan in plans:
            tie = clock.tie(f"fault/{plan.name}")
            begin = _BEGIN[plan.kind]
            for event in plan.events:
                if plan.kind == "table-restore":
                    clock.post_at(max(1, event[0] - plan.params["back_us"]), tie, self._back_up, (plan.name, event[0]))
                elif plan.kind == "device-restore":
                    clock.post_at(_copied_us(plan, event), tie, self._copy_disk, (plan.name, event))
                clock.post_at(event[0], tie, self._begin, (begin, plan, event, tie))
            if plan.events:
                clock.post_at(max(plan.until_us, plan.events[-1][0] + 1), tie, self._healed, plan.name)

    def _begin(self, what: tuple[Callable[..., None], FaultPlan, Event, Tie]) -> None:
        begin, plan, event, tie = what
        self._trace("fault", plan.name, event[1])
        begin(self, plan, event, tie)

    def _healed(self, name: str) -> None:
        self._trace("healed", name, "")
        self._on_heal(name)

    def _targets(self, plan: FaultPlan, event: Event) -> list[SimDevice]:
        devices = self._devices
        if event[1]:
            found = [devices[event[1]]] if event[1] in devices else []
        elif plan.devices is None:
            found = list(devices.values())
        else:
            found = [devices[name] for name in plan.devices if name in devices]
        self.touched[plan.name].update(device.device_id for device in found)
        return found

    def _later(self, event: Event, tie: Tie, fn: Callable[..., object], arg: object) -> None:
        self._clock.post_in(max(event[2], 1), tie, fn, arg)

    # ---------------------------------------------------------------- broker and links

    def broker_outage(self, plan: FaultPlan, event: Event, tie: Tie) -> None:
        regions = plan.regions if plan.regions is not None else sorted({d.region for d in self._devices.values()})
        self.touched[plan.name].update(d.device_id for d in self._devices.values() if d.region in regions)
        for region in regions:
            self._regions_down[region] = self._regions_down.get(region, 0) + 1
            if self._regions_down[region] == 1:
                self._broker.region_down(region)
        self._later(event, tie, self._regions_up, regions)

    def _regions_up(self, regions: list[str]) -> None:
        for region in regions:
            self._regions_down[region] -= 1
            if self._regions_down[region] == 0:
                self._broker.region_up(region)

    def link_down(self, plan: FaultPlan, event: Event, tie: Tie) -> None:
        for device in self._targets(plan, event):
            count = self._links_down.get(device.device_id, 0) + 1
            self._links_down[device.device_id] = count
            if count == 1:
                self._broker.link_down(device)
            self._later(event, tie, self._link_up, device)

    def _link_up(self, device: SimDevice) -> None:
        self._links_down[device.device_id] -= 1
        if self._links_down[device.device_id] == 0:
            self._broker.link_up(device)

    def disconnects(self, plan: FaultPlan, event: Event, _tie: Tie) -> None:
        for device in self._targets(plan, event):
            self._broker.kick(device)

    def half_open(self, plan: FaultPlan, event: Event, _tie: Tie) -> None:
        """The path is gone for this connection; keep-alive ends it, also after the fault's own end."""
        for device in self._targets(plan, event):
            self._broker.half_open(device)

    def messages(self, plan: FaultPlan, event: Event, tie: Tie) -> None:
        params = plan.params
        self.touched[plan.name].update(plan.devices if plan.devices is not None else self._devices)
        fault = HopFault(
            self._seed,
            plan.name,
            cast("list[Hop]", params["hops"]),
            lose=params["lose"],
            duplicate=params["duplicate"],
            reorder=params["reorder"],
            delay_us=params["delay_us"],
            spread_us=params["reorder_by_us"],
            devices=plan.devices,
            qos=params["qos"],
        )
        self._broker.faults.append(fault)
        self._later(event, tie, self._broker.faults.remove, fault)

    # ---------------------------------------------------------------- devices

    def reboots(self, plan: FaultPlan, event: Event, tie: Tie) -> None:
        for device in self._targets(plan, event):
            if device.powered:
                if plan.params.get("orderly", True):
                    device.stop()
                else:
                    device.power_off()
                self._later(event, tie, device.boot, None)

    def rollout(self, plan: FaultPlan, event: Event, tie: Tie) -> None:
        """A device that is off has the other schema when whoever turned it off brings it back."""
        assert self._rollouts is not None
        for device in self._targets(plan, event):
            if device.powered:
                if plan.params["orderly"]:
                    device.stop()
                else:
                    device.power_off()
                self._later(event, tie, device.boot, None)
            self._rollouts.device(device, plan)

    def power_cut(self, plan: FaultPlan, event: Event, tie: Tie) -> None:
        """The device comes back when the event is over: the cut itself happens within its first half."""
        for device in self._targets(plan, event):
            if device.powered:
                device.cut_power(event[2] // 2)
                self._later(event, tie, device.boot, None)

    def _copy_disk(self, what: tuple[str, Event]) -> None:
        """A backup for the restore of this fault, of one device, at that time."""
        name, (at_us, device_id, _) = what
        device = self._devices.get(device_id)
        if device is not None:
            self._disks[name, device_id, at_us] = disks.copy_of(device.disk)

    def device_restore(self, plan: FaultPlan, event: Event, tie: Tie) -> None:
        for device in self._targets(plan, event):
            disk = self._disks.pop((plan.name, device.device_id, event[0]), None)
            if self._put_disk(device, disk, event, tie) and disk is not None:
                self._damage_again(device, _copied_us(plan, event))

    def factory_reset(self, plan: FaultPlan, event: Event, tie: Tie) -> None:
        for device in self._targets(plan, event):
            self._put_disk(device, None, event, tie)

    def _put_disk(self, device: SimDevice, disk: sqlite3.Connection | None, event: Event, tie: Tie) -> bool:
        """Nobody does that to a device that is off: who turned it off would be surprised. Returns whether it was on."""
        if not device.powered:
            return False
        device.power_off()
        device.put_disk(disk)
        self._later(event, tie, device.boot, None)
        # Who does that more often in an hour than the relay believes lets the device go on.
        self._later(event, tie, self._look_after, (device, LOOKS))
        return True

    def disk_full(self, plan: FaultPlan, event: Event, tie: Tie) -> None:
        for device in self._targets(plan, event):
            disks.fill(device, self._clock.now + event[2])
            self._later(event, tie, disks.make_room, device)

    def clock(self, plan: FaultPlan, event: Event, tie: Tie) -> None:
        jump, drift = plan.params["jump_us"], plan.params["drift_ppb"]
        for device in self._targets(plan, event):
            device.shift_clock(jump, drift)
            if event[2]:
                self._later(event, tie, self._set_right, (device, jump, drift))

    def _set_right(self, what: tuple[SimDevice, int, int]) -> None:
        device, jump, drift = what
        device.shift_clock(-jump, -drift)

    def clone(self, plan: FaultPlan, event: Event, tie: Tie) -> None:
        for device in self._targets(plan, event):
            made = self._clone(device)
            if made is not None:
                made.boot()
                self._later(event, tie, self._clone_gone, made)

    def _clone_gone(self, made: SimDevice) -> None:
        """Somebody has found the copy, and lets the device go on."""
        made.power_off()
        self._look_after((made, LOOKS))

    def _look_after(self, what: tuple[SimDevice, int]) -> None:
        """The device may yet be stopped for the epochs that it or its copy took: somebody goes on looking."""
        made, looks = what
        self._cloud.release(made.device_id)
        if looks:
            self._clock.post_in(LOOK_US, made.tie, self._look_after, (made, looks - 1))

    def silent_damage(self, plan: FaultPlan, event: Event, _tie: Tie) -> None:
        for device in self._targets(plan, event):
            self._damage(device, plan)

    def poison(self, plan: FaultPlan, event: Event, _tie: Tie) -> None:
        assert self._poison is not None
        for device in self._targets(plan, event):
            self._poison(device, plan, event[2])

    # ---------------------------------------------------------------- cloud

    def relay_kill(self, plan: FaultPlan, _event: Event, _tie: Tie) -> None:
        self._cloud.kill_worker(plan.params["restart_us"])

    def relay_rollout(self, plan: FaultPlan, _event: Event, _tie: Tie) -> None:
        assert self._rollouts is not None
        self._rollouts.relay(plan)

    def relay_stall(self, _plan: FaultPlan, event: Event, _tie: Tie) -> None:
        self._cloud.stall_worker(event[2])

    def _back_up(self, copy: tuple[str, int]) -> None:
        """A copy for the restore of this fault at that time."""
        self._copies[copy] = self._cloud.table.backup()

    def table_restore(self, plan: FaultPlan, event: Event, _tie: Tie) -> None:
        self._cloud.restore(self._copies.pop((plan.name, event[0])), plan.params["restart_us"])

    def cloud_window(self, plan: FaultPlan, event: Event, tie: Tie) -> None:
        """Trouble of the table or its stream for a while. Where windows of one kind overlap, their effects add up, and
        what is left when one closes is what the others do."""
        opened = self._open.setdefault(plan.kind, [])
        opened.append(plan)
        _SET[plan.kind](self._cloud, opened)
        self._later(event, tie, self._close, plan)

    def _close(self, plan: FaultPlan) -> None:
        opened = self._open[plan.kind]
        opened.remove(plan)
        _SET[plan.kind](self._cloud, opened)


def _copied_us(plan: FaultPlan, event: Event) -> int:
    """When the copy was made that a restore of a device's disk puts back."""
    return max(1, event[0] - int(plan.params["back_us"]))


def _share(opened: list[FaultPlan]) -> float:
    """Of what is hit by any of them, each on its own."""
    share = 0.0
    for plan in opened:
        share += plan.params["share"] * (1.0 - share)
    return share


def _set_replay(cloud: CloudWorld, opened: list[FaultPlan]) -> None:
    low = min((plan.params["late_min_us"] for plan in opened), default=0)
    high = max((plan.params["late_max_us"] for plan in opened), default=0)
    cloud.replay(_share(opened), low, high)


def _set_delay(cloud: CloudWorld, opened: list[FaultPlan]) -> None:
    low = sum(int(plan.params["delay_min_us"]) for plan in opened)
    high = sum(int(plan.params["delay_max_us"]) for plan in opened)
    cloud.delay_stream(low, high)


def _set_throttle(cloud: CloudWorld, opened: list[FaultPlan]) -> None:
    cloud.throttle(_share(opened))


def _set_silence(cloud: CloudWorld, opened: list[FaultPlan]) -> None:
    cloud.silence(_share(opened))


_SET: Final[dict[str, Callable[[CloudWorld, list[FaultPlan]], None]]] = {
    "stream-replay": _set_replay,
    "stream-delay": _set_delay,
    "table-throttle": _set_throttle,
    "table-silence": _set_silence,
}

_BEGIN: Final[dict[str, Callable[[Faults, FaultPlan, Event, Tie], None]]] = {
    "broker-outage": Faults.broker_outage,
    "link-down": Faults.link_down,
    "disconnects": Faults.disconnects,
    "half-open": Faults.half_open,
    "reboots": Faults.reboots,
    "power-cut": Faults.power_cut,
    "device-restore": Faults.device_restore,
    "factory-reset": Faults.factory_reset,
    "disk-full": Faults.disk_full,
    "messages": Faults.messages,
    "relay-kill": Faults.relay_kill,
    "relay-stall": Faults.relay_stall,
    "table-restore": Faults.table_restore,
    "clone": Faults.clone,
    "silent-damage": Faults.silent_damage,
    "poison": Faults.poison,
    "rollout": Faults.rollout,
    "relay-rollout": Faults.relay_rollout,
    "stream-replay": Faults.cloud_window,
    "stream-delay": Faults.cloud_window,
    "clock": Faults.clock,
    "table-throttle": Faults.cloud_window,
    "table-silence": Faults.cloud_window,
}
