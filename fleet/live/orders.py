"""Remote commands on a device of a live run: the agent's own executor, with handlers that tell what they really do.

Whatever the agent's records say, the sighting `command_ran` is made where the deed is: in the handler's thread just
before it is called, and when connection or process are made anew. The commander's own writes are announced as an
application's are, so that a kill between a write and its sighting loses none. Called by fleet.live.device.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import trio

from agent.database import Database
from agent.protocol.log import Log
from agent.protocol.messages import Key, decode_image
from agent.protocol.remote import RESULT
from agent.remote.commander import Commander
from agent.remote.events import Effect, Event, Reboot, Reconnect, Run
from agent.runtime.executor import Executor
from fleet.scenario.plan import CommandPlan, Plan
from fleet.world.executor import Work, config_of, handlers_of
from fleet.world.workload import Revs

Ran = Callable[[str, str], object]  # id and name of a command
Intends = Callable[[Key, str, int, int | None], object]  # key, kind, rev, what could be read before


def restarted(plan: Plan) -> dict[str, str]:
    """Devices that may be ordered to restart -> the workload's name: each needs a process of its own."""
    found: dict[str, str] = {}
    for workload in plan.workloads:
        if "reboot" in workload.commands:
            chosen = range(len(plan.groups)) if workload.groups is None else workload.groups
            found.update((device.id, workload.name) for device in plan.devices if device.group in chosen)
    return found


def first_rev(device: str) -> int:
    """Of the results that the device writes: no write of a plan has one of these numbers."""
    return Revs().first(device, "results")


class LiveExecutor(Executor):
    """`ran` is told of each deed, from any thread."""

    def __init__(self, commander: Commander, restart: Callable[[], Awaitable[str]], log: Log, ran: Ran) -> None:
        super().__init__(commander, restart, log)
        self._ran = ran

    def carry_out(self, effects: list[Effect], nursery: trio.Nursery, wake: Callable[[], None]) -> None:
        for effect in effects:
            if isinstance(effect, Reconnect):
                self._ran(effect.id, "resync")
        super().carry_out(effects, nursery, wake)

    def perform(self, run: Run) -> Event:
        self._ran(run.id, run.name)
        return super().perform(run)

    async def _restart(self, reboot: Reboot, wake: Callable[[], None]) -> None:
        self._ran(reboot.id, "reboot")
        await super()._restart(reboot, wake)


def commander_of(
    kind: type[Commander],
    database: Database,
    plan: CommandPlan,
    *,
    boot: int,
    status: Callable[[], dict[str, Any]],
    next_rev: Callable[[], int],
) -> Commander:
    """As a simulated device has it. `boot`: the number of this boot."""

    def work(wanted: Work) -> None:
        time.sleep(wanted.seconds * plan.second_us / 1e6)

    return kind(
        database,
        handlers_of(status, work),
        config_of(plan),
        boot_id=str(boot),
        probes=Counter(),
        extra=lambda: {"rev": next_rev()},
    )


def announcing(base: type[Database], intends: Intends) -> type[Database]:
    """A database that says which result it is about to write."""

    class Announcing(base):  # type: ignore[misc, valid-type]  # whichever class the run is made with
        """Tells under the database's lock, which the commander holds."""

        def create(self, model: str, properties: Mapping[str, Any]) -> dict[str, Any]:
            self._announce(model, properties)
            made: dict[str, Any] = super().create(model, properties)
            return made

        def update(self, model: str, properties: Mapping[str, Any]) -> dict[str, Any]:
            self._announce(model, properties)
            made: dict[str, Any] = super().update(model, properties)
            return made

        def _announce(self, model: str, properties: Mapping[str, Any]) -> None:
            if model != RESULT:
                return
            key = self.schema.models[RESULT].key(properties, self.context)
            image = self.store.visible(*key).image
            before = None if image is None else decode_image(image).get("rev")
            intends(key, "create" if before is None else "update", properties["rev"], before)

    return Announcing
