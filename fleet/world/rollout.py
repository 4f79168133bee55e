"""A staged rollout with a change of the schema: devices and the relay go over to other schemas, one after the other.

Knows which schema everybody has, and tells the oracle what it lacks. Old and new live side by side meanwhile; what an
application of an old device cannot write yet it does not write. Called by fleet.world.world, and for faults.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from agent.protocol.errors import ModelError
from agent.protocol.schema import Schema
from cloud.relay import Relay
from fleet.oracle import Oracle
from fleet.scenario.plan import FaultPlan, Plan
from fleet.scenario.variants import missing_models, variant

if TYPE_CHECKING:
    from fleet.world.cloud import CloudWorld
    from fleet.world.device import SimDevice

ROLLOUT = "rollout"
RELAY_ROLLOUT = "relay-rollout"


def refused(device: SimDevice, error: ModelError) -> None:
    """An application's write does not fit the device's schema: it goes by the one that the others have. Raises any
    other error again."""
    world = device.world
    if not world.mixed:
        raise error
    world.probes["write_refused_by_schema"] += 1
    world.trace("refused", device.device_id, error.code)


class Schemas:
    """Who has which schema, in one run. `make_relay`: a new relay that goes by a schema."""

    def __init__(self, plan: Plan, schema: Schema, make_relay: Callable[[Schema], Relay]) -> None:
        self._plan = plan
        self._schema = schema
        self._make_relay = make_relay
        self._made: dict[tuple[str, ...], Schema] = {(): schema}

    def of(self, lacks: Iterable[str]) -> Schema:
        found = self._made.get(key := tuple(lacks))
        if found is None:
            found = self._made[key] = variant(self._schema, key)
        return found

    def at_first(self, kind: str) -> dict[str, tuple[str, ...]]:
        """Device, or "" for the relay -> what its schema lacks in the beginning: what it has before its first stage."""
        first: dict[str, tuple[int, tuple[str, ...]]] = {}
        for fault in self._plan.faults:
            if fault.kind != kind:
                continue
            for at_us, name, _ in fault.events:
                if name not in first or at_us < first[name][0]:
                    first[name] = (at_us, tuple(fault.params["before"]))
        return {name: before for name, (_, before) in first.items()}

    def begin(self, devices: Mapping[str, SimDevice], cloud: CloudWorld, oracle: Oracle) -> None:
        """Before anything happens."""
        for name, before in self.at_first(ROLLOUT).items():
            if name in devices:
                self.give(devices[name], before, oracle, 0)
        before = self.at_first(RELAY_ROLLOUT).get("", ())
        if before:
            self.put_relay(cloud, before, oracle, 0)

    def give(self, device: SimDevice, lacks: Iterable[str], oracle: Oracle, now_us: int) -> None:
        """While its power is off."""
        device.schema = self.of(lacks)
        oracle.device_lacks(now_us, device.device_id, missing_models(self._schema, device.schema))

    def put_relay(self, cloud: CloudWorld, lacks: Iterable[str], oracle: Oracle, now_us: int) -> None:
        """In the place of the present one; what that one was doing has to be ended before."""
        schema = self.of(lacks)
        cloud.relay = self._make_relay(schema)
        cloud.table.stream.wants = cloud.relay.wants
        oracle.relay_lacks(now_us, missing_models(self._schema, schema))


class Rollouts:
    """The stages of one run, as faults carry them out."""

    def __init__(self, schemas: Schemas, cloud: CloudWorld, oracle: Oracle, probes: Counter[str]) -> None:
        self._schemas = schemas
        self._cloud = cloud
        self._oracle = oracle
        self._probes = probes

    def device(self, device: SimDevice, plan: FaultPlan) -> None:
        """Its power is off: from the next boot on."""
        self._probes["schema_changed_on_device"] += 1
        self._schemas.give(device, plan.params["lacks"], self._oracle, self._cloud.clock.now)

    def relay(self, plan: FaultPlan) -> None:
        cloud = self._cloud
        for worker in cloud.workers:
            if worker.alive:
                cloud.kill_now(worker, plan.params["restart_us"])
        self._probes["schema_changed_in_relay"] += 1
        self._schemas.put_relay(cloud, plan.params["lacks"], self._oracle, cloud.clock.now)

    def has_heard(self, device: SimDevice) -> bool:
        """Whether its feeds are those of the present relay: it may say hello a while after that has come."""
        if device.database is None:
            return False
        version = self._cloud.relay.schema.version
        mark = "" if version == device.schema.version else version
        return all(models.partition("/")[2] == mark for models in device.database.store.models.values())
