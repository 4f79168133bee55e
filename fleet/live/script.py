"""What the applications of a plan do, and when: taken down while the plan is simulated, done again in a live run.

A workload may depend on what it finds (it toggles what is there, removes what it made), and a device without power
writes nothing; the simulation decides that once, so that the live run does the same operations at the same times, on
the same items. The same simulation is what the live run is compared with. Called by fleet.live.result.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, Literal

import msgspec

from agent.database import Database
from agent.protocol.onetable.dates import from_ms
from agent.protocol.remote import COMMAND, RESULT, has_commands
from agent.protocol.schema import Schema
from cloud.table import Delete, Get, Put, Update, Write
from fleet.oracle.payload import REV
from fleet.oracle.stored import public
from fleet.plants import types_with
from fleet.scenario.facts import facts
from fleet.scenario.plan import Plan
from fleet.world.clock import Tie
from fleet.world.cloud import CloudWorld, Done, Wanted
from fleet.world.device import AgentTypes
from fleet.world.world import Types, World
from reports.histogram import LatencyRecorder

Action = Literal["create", "put", "remove"]
Kind = Literal["put", "update", "delete"]


class DeviceOp(msgspec.Struct, frozen=True, array_like=True):
    """A write of an application on a device. `properties`: the item's own key among them, also where it was made up.
    `ends`: fields that hold a time, in milliseconds after the write."""

    at_us: int
    action: Action
    model: str
    properties: dict[str, Any]
    ends: dict[str, int] = {}


class CloudOp(msgspec.Struct, frozen=True, array_like=True):
    """A write of an application in the cloud. `image`: the raw item without its keys, as it is after the write.
    `changes`: what an update sets."""

    at_us: int
    kind: Kind
    key: tuple[str, str]
    image: dict[str, Any]
    changes: list[str] = []

    @property
    def rev(self) -> int:
        return int(self.image.get(REV, 0))


class Totals(msgspec.Struct, frozen=True, kw_only=True):
    """What must come out the same, however long it takes. `local_writes`: of applications; what devices write of
    commands depends on when these come. `items`: in the table at the end, by model."""

    local_writes: int = 0
    cloud_writes: int = 0
    updates_synced: int = 0
    items: dict[str, int] = {}


class Simulated(msgspec.Struct, kw_only=True):
    """One simulation. `device_ops`: by device; `cloud_ops`: in order; `state`: key -> rev, of the table at the end."""

    device_ops: dict[str, list[DeviceOp]]
    cloud_ops: list[CloudOp]
    totals: Totals
    latency_up: LatencyRecorder
    latency_down: LatencyRecorder
    verdict_ok: bool
    state: dict[tuple[str, str], int | None]
    probes: dict[str, int]
    converged: bool
    virtual_s: float


def simulated(plan: Plan, stopped: Callable[[], bool] | None = None) -> Simulated | None:
    """None when `stopped` said so. The plan's plant is left out: the live run has it, and must show it."""
    recorder = _Recorder(plan)
    types = types_with("")
    agent = types.agent
    types = Types(
        agent=AgentTypes(database=recorder.database_type(agent.database)),
        cloud=recorder.cloud_type(types.cloud),
    )
    world = World(msgspec.structs.replace(plan, plant=""), types, hashed=False)
    recorder.world = world
    if not world.run(None, stopped):
        return None
    world.finish()
    state = {(item["pk"], item["sk"]): item.get(REV) for item in world.table.scan()}
    local_writes = world.oracle.local_writes
    if has_commands(world.schema):
        local_writes = sum(map(len, recorder.device_ops.values()))
    return Simulated(
        device_ops=recorder.device_ops,
        cloud_ops=recorder.cloud_ops,
        totals=Totals(
            local_writes=local_writes,
            cloud_writes=world.oracle.cloud_writes,
            updates_synced=world.oracle.updates_synced,
            items=count_models(world.schema, state),
        ),
        latency_up=world.latency_up,
        latency_down=world.latency_down,
        verdict_ok=not any(check.failed for check in world.checks),
        state=applications(world.schema, state),
        probes=dict(world.probes),
        converged=world.converged_us is not None,
        virtual_s=world.clock.now / 1e6,
    )


def count_models(schema: Schema, keys: Mapping[tuple[str, str], object]) -> dict[str, int]:
    """Items by model, in the order of the schema."""
    found = {name: 0 for name in schema.models}
    for key in keys:
        place = schema.locate(key)
        if place is not None:
            found[place.model.name] += 1
    return {name: count for name, count in found.items() if count}


def applications(schema: Schema, state: Mapping[tuple[str, str], int | None]) -> dict[tuple[str, str], int | None]:
    """The items that applications write: without devices' answers to commands, which say when what was done."""
    if not has_commands(schema):
        return dict(state)
    return {key: rev for key, rev in state.items() if not is_answer(schema, key)}


def is_answer(schema: Schema, key: tuple[str, str]) -> bool:
    """Whether it is the result of a command."""
    place = schema.locate(key)
    return place is not None and place.model.name == RESULT


class _Recorder:
    """Takes down what a world's applications have done. `world` is set once it is made: nobody writes before."""

    def __init__(self, plan: Plan) -> None:
        self.world: World
        self.device_ops: dict[str, list[DeviceOp]] = {device.id: [] for device in plan.devices}
        self.cloud_ops: list[CloudOp] = []
        self._models = frozenset(workload.model for workload in plan.workloads if workload.side == "device")

    def device(self, database: Database, action: Action, model: str, properties: Mapping[str, Any]) -> None:
        if model not in self._models:
            return
        plain = {name: value for name, value in properties.items() if not isinstance(value, datetime)}
        now = from_ms(database.clock.now_ms())
        ends = {
            name: (value - now) // timedelta(milliseconds=1)
            for name, value in properties.items()
            if isinstance(value, datetime)
        }
        op = DeviceOp(self.world.clock.now, action, model, plain, ends)
        self.device_ops[database.context.device_id].append(op)

    def cloud(self, write: Write) -> None:
        now = self.world.clock.now
        if isinstance(write, Delete):
            self.cloud_ops.append(CloudOp(now, "delete", write.key, {}))
        elif isinstance(write, Put):
            self.cloud_ops.append(CloudOp(now, "put", write.key, public(write.item)))
        elif isinstance(write, Update):
            whole = self.world.table.execute(Get(write.key), self.world.now_ms())
            self.cloud_ops.append(CloudOp(now, "update", write.key, public(whole), list(write.set)))

    def database_type(self, base: type[Any]) -> type[Any]:
        recorder = self

        class Recorded(base):  # type: ignore[misc]  # whichever class the world is built with
            """Tells of each write of an application that was done."""

            def create(self, model: str, properties: Mapping[str, Any]) -> dict[str, Any]:
                made: dict[str, Any] = super().create(model, properties)
                name = facts(self.schema, model).key_field
                recorder.device(self, "create", model, {**properties, name: made[name]} if name else properties)
                return made

            def put(self, model: str, properties: Mapping[str, Any]) -> None:
                super().put(model, properties)
                recorder.device(self, "put", model, properties)

            def remove(self, model: str, properties: Mapping[str, Any]) -> bool:
                was_there: bool = super().remove(model, properties)
                if was_there:
                    recorder.device(self, "remove", model, properties)
                return was_there

        return Recorded

    def cloud_type(self, base: type[CloudWorld]) -> type[CloudWorld]:
        recorder = self

        class Recorded(base):  # type: ignore[valid-type, misc]  # as above
            """Tells of each write of an application that the table has taken."""

            def write(
                self, request: Wanted, tie: Tie, done: Done | None = None, before: Callable[[], object] | None = None
            ) -> None:
                last: list[Write] = []

                def make() -> Write:
                    last[:] = [request() if callable(request) else request]
                    return last[0]

                def finished(error: Any) -> None:
                    if error is None:
                        recorder.cloud(last[0])
                    if done is not None:
                        done(error)

                super().write(make, tie, finished, before)

        return Recorded


def shifted(image: Mapping[str, Any], model: Any, now_ms: int, by_ms: int) -> dict[str, Any]:
    """An image that the simulation has made, as an application would write it now: its stamp, the end of its life, and
    when a command expires. `by_ms`: what the time of the live run is ahead of that of the simulation."""
    found = dict(image)
    ends = model.ttl_attribute
    if ends is not None and type(found.get(ends)) is int:
        found[ends] += by_ms // 1000
    if model.name == COMMAND and type(found.get("expires")) is int:
        found["expires"] += by_ms
    stamped: dict[str, Any] = dict(model.stamp(found, now_ms))
    return stamped
