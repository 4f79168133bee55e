"""A second device with the identity and the database of another: what a copied disk, or a card in two units, does.

It runs the real agent and talks to the same broker under the same name. No application writes on it, but remote
commands may reach it. The oracle does not look at it, but for the commands that it does: it judges what becomes of the
first. Called by fleet.world.world, for a fault.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fleet.oracle import Oracle
from fleet.rng import rng
from fleet.scenario.plan import DevicePlan, GroupPlan
from fleet.world import disk as disks
from fleet.world.device import SimDevice, Surroundings
from fleet.world.link import Profile


class Unheard(Oracle):
    """What a device tells it is not judged."""

    def __init__(self) -> None:
        """It holds nothing."""

    def wire_up(self, *_: Any, **__: Any) -> None:
        return

    def wire_down(self, *_: Any, **__: Any) -> None:
        return

    def disk_full(self, *_: Any, **__: Any) -> None:
        return

    def device_booted(self, *_: Any, **__: Any) -> None:
        return

    def device_restored(self, *_: Any, **__: Any) -> None:
        return

    def device_file(self, *_: Any, **__: Any) -> None:
        return

    def device_sets_end(self, *_: Any, **__: Any) -> None:
        return

    def device_expired(self, *_: Any, **__: Any) -> None:
        return

    def device_reads(self, *_: Any, **__: Any) -> None:
        return

    def device_read(self, *_: Any, **__: Any) -> None:
        return

    def device_verdict(self, *_: Any, **__: Any) -> None:
        return

    def device_wrote(self, *_: Any, **__: Any) -> None:
        return

    def device_saw(self, *_: Any, **__: Any) -> None:
        return


def clone_of(
    original: SimDevice, world: Surroundings, plan: DevicePlan, group: GroupPlan, profile: Profile
) -> SimDevice | None:
    """With a copy of its disk as it is now, without power. None: the original has never been on."""
    disk = disks.copy_of(original.disk)
    if disk is None:
        return None
    made = SimDevice(replace(world, oracle=Unheard()), plan, group, profile)
    made.disk = disk
    made.schema = original.schema
    name = f"{plan.id}/clone/{world.clock.now}"  # its own chance: two copies of a disk do not draw alike
    made.tie = world.clock.tie(name)
    made.random = rng(world.seed, name, "agent")
    made.stream = rng(world.seed, name, "link")
    made.faults = rng(world.seed, name, "power")
    return made
