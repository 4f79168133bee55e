"""What the oracle is told in a whole run, kept as plain values: to be told again, as it was or with one thing changed.

`recorded` runs a world with real agents and a real relay; `judged` tells a history to a new oracle, which sees nothing
else. Used by the tests of mutated histories.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from cloud.table import Record
from fleet.oracle import CheckResult, Oracle
from fleet.oracle.damaged import HealBound
from fleet.scenario.plan import Plan
from fleet.world.device import START_MS
from fleet.world.world import Types, World
from reports.histogram import LatencyRecorder

# Every call by which a world tells the oracle something.
TOLD: Final = (
    "cloud_wrote", "command_ran", "committed", "damage_done", "damage_healed", "damage_lasts", "device_booted",
    "device_cloned", "device_damaged", "device_expired", "device_file", "device_read", "device_reads",
    "device_released", "device_rotten", "device_saw", "device_sets_end", "device_verdict", "device_wrote", "healed",
    "message_account", "poison_delivered", "table_damaged", "table_restored", "wire_down", "wire_up", "writes_stopped",
)  # fmt: skip


@dataclass
class Call:
    """One thing that the oracle is told. `values`: by position; `named`: the others."""

    name: str
    values: list[Any]
    named: dict[str, Any] = field(default_factory=dict)

    @property
    def t_us(self) -> int:
        return int(self.values[0])

    @property
    def message(self) -> dict[str, Any]:
        """Of a call about the wire; {} when it is not JSON."""
        payload: bytes = self.values[2]
        return json.loads(payload) if payload[:1] == b"{" else {}

    def say(self, message: dict[str, Any]) -> None:
        self.values[2] = json.dumps(message, separators=(",", ":")).encode()

    @property
    def record(self) -> Record:
        """Of `committed`."""
        record: Record = self.values[1]
        return record


@dataclass
class Recording:
    """All calls of a run, and what an oracle needs to hear them. `final` is the last call, `finish`."""

    plan: Plan
    heal_bound: HealBound
    members: list[tuple[str, str]]
    schema: Any
    calls: list[Call]

    def copy(self) -> Recording:
        """To be changed."""
        return Recording(self.plan, self.heal_bound, self.members, self.schema, copy.deepcopy(self.calls))

    def where(self, name: str, test: Callable[[Call], bool] = lambda call: True) -> Iterator[int]:
        """Places of such calls."""
        return (index for index, call in enumerate(self.calls) if call.name == name and test(call))

    def first(self, name: str, test: Callable[[Call], bool] = lambda call: True) -> int:
        return next(self.where(name, test))

    def last(self, name: str, test: Callable[[Call], bool] = lambda call: True) -> int:
        return list(self.where(name, test))[-1]

    def insert(self, index: int, name: str, *values: Any, **named: Any) -> None:
        self.calls.insert(index, Call(name, list(values), named))

    @property
    def final(self) -> Call:
        return self.calls[-1]

    @property
    def read(self) -> dict[str, list[tuple[Any, Any, Any]]]:
        """What the applications of each device read in the end: (key, rev, image)."""
        items: dict[str, list[tuple[Any, Any, Any]]] = self.final.values[1]
        return items


def recorded(plan: Plan) -> Recording:
    """One run of a world, with all that its oracle is told."""
    calls: list[Call] = []

    class Recorder(Oracle):
        def finish(self, t_us: int, device_items: Any, table_items: Iterable[Any], *rest: Any) -> list[CheckResult]:
            items = {name: list(device_items(name)) for name, _ in members}
            table = list(table_items)
            calls.append(Call("finish", copy.deepcopy([t_us, items, table, *rest])))
            return super().finish(t_us, items.__getitem__, table, *rest)

    def telling(name: str) -> Callable[..., Any]:
        def tell(self: Oracle, *values: Any, **named: Any) -> Any:
            plain = [list(value) if isinstance(value, Iterator) else value for value in values]
            calls.append(Call(name, copy.deepcopy(plain), copy.deepcopy(named)))
            return getattr(Oracle, name)(self, *plain, **named)

        return tell

    for name in TOLD:
        setattr(Recorder, name, telling(name))
    members = [(device.id, plan.groups[device.group].account) for device in plan.devices]
    world = World(plan, Types(oracle=Recorder))
    world.finish(world.run())
    return Recording(plan, world.oracle.heal_bound, members, world.schema, calls)


def judged(recording: Recording) -> dict[str, CheckResult]:
    """What a new oracle says of it."""
    oracle = Oracle(
        recording.schema,
        recording.members,
        latency_up=LatencyRecorder(),
        latency_down=LatencyRecorder(),
        start_ms=START_MS,
    )
    oracle.heal_bound = recording.heal_bound
    for call in recording.calls[:-1]:
        getattr(oracle, call.name)(*call.values, **call.named)
    t_us, items, table, *rest = recording.final.values
    return {result.name: result for result in oracle.finish(t_us, items.__getitem__, table, *rest)}
