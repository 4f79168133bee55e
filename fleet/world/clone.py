"""A second device with the identity and the database of another: what a copied disk, or a card in two units, does.

It runs the real agent and talks to the same broker under the same name. No application writes on it, but remote
commands may reach it. The oracle does not look at it, but for the commands that it does: it judges what becomes of the
first. Called by fleet.world.world, for a fault.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from agent.protocol.messages import Key
from fleet.oracle import Oracle
from fleet.rng import rng
from fleet.scenario.plan import DevicePlan, GroupPlan
from fleet.world.device import SimDevice, Surroundings
from fleet.world.link import Profile


class Unheard(Oracle):
    """What a device tells it is not judged."""

    def __init__(self) -> None:
        """It holds nothing."""

    def wire_up(self, t_us: int, device: str, payload: bytes) -> None:
        return

    def wire_down(self, t_us: int, device: str, payload: bytes) -> None:
        return

    def device_booted(self, t_us: int, device: str) -> None:
        return

    def device_restored(self, t_us: int, device: str, items: Iterable[tuple[Key, int | None]]) -> None:
        return

    def device_file(self, t_us: int, device: str, keys: Iterable[Key]) -> None:
        return

    def device_sets_end(self, key: Key, rev: int, end_s: Any) -> None:
        return

    def device_expired(self, t_us: int, device: str, key: Key, rev: int | None, updated_ms: int, *, own: bool) -> None:
        return

    def device_reads(self, device: str, items: Iterable[tuple[Key, int | None]]) -> None:
        return

    def device_read(self, t_us: int, device: str, key: Key, rev: int | None) -> None:
        return

    def device_verdict(self, t_us: int, device: str, key: Key, updated_ms: int, verdict: str) -> None:
        return

    def device_wrote(
        self,
        t_us: int,
        device: str,
        key: Key,
        kind: str,
        rev: int,
        updated_ms: int,
        before_rev: int | None,
        durable: bool = True,
    ) -> None:
        return

    def device_saw(self, t_us: int, device: str, key: Key, rev: int | None, image: Any) -> None:
        return


def clone_of(
    original: SimDevice, world: Surroundings, plan: DevicePlan, group: GroupPlan, profile: Profile
) -> SimDevice | None:
    """With a copy of its disk as it is now, without power. None: the original has never been on."""
    disk = original.copy_of_disk()
    if disk is None:
        return None
    made = SimDevice(replace(world, oracle=Unheard()), plan, group, profile)
    made.disk = disk
    name = f"{plan.id}/clone/{world.clock.now}"  # its own chance: two copies of a disk do not draw alike
    made.tie = world.clock.tie(name)
    made.random = rng(world.seed, name, "agent")
    made.stream = rng(world.seed, name, "link")
    made.faults = rng(world.seed, name, "power")
    return made
