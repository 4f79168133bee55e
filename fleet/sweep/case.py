"""One run of a sweep before it has happened: a scenario as values, a seed, and how the plan is made of the two.

A `Source` holds all of a scenario that another process or machine needs: no file is read there. Pure; made by the
commands, turned into a plan by whoever runs it.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import msgspec

from agent.protocol.schema import Schema
from fleet.scenario.build import build_plan, required_checks
from fleet.scenario.effective import effective_values, effective_yaml
from fleet.scenario.load import from_values, load
from fleet.scenario.model import Scenario
from fleet.scenario.plan import Plan
from fleet.scenario.variants import dispensable
from fleet.sweep.swarm import drawn


class Runnable(Protocol):
    """What can be run, here or in another process: a case, or a plan that was kept."""

    @property
    def scenario(self) -> str:
        """Its name."""
        ...

    @property
    def seed(self) -> int: ...

    def plan(self) -> Plan:
        """Raises InputError when there is none."""
        ...

    def yaml(self) -> str:
        """The scenario as it is run, for people."""
        ...

    def command(self) -> str:
        """What to type to get the same run."""
        ...


@dataclass(frozen=True, slots=True)
class Source:
    """A scenario after its overrides. `values`: as JSON; `name`: its own; `arguments`: what a person typed for it."""

    name: str
    values: bytes
    schema_text: str
    schema_file: str
    shown: str
    arguments: tuple[str, ...] = ()


def source_of(name: str, overrides: Sequence[str] = (), devices: int | None = None) -> Source:
    """Reads and checks the scenario `name`. Raises InputError."""
    scenario = load(name, overrides, devices)
    schema = scenario.parsed_schema
    arguments = [name]
    if devices is not None:
        arguments += ["--devices", str(devices)]
    for override in overrides:
        arguments += ["--set", override]
    values = msgspec.json.encode(effective_values(scenario))
    return Source(scenario.name, values, schema.text, str(schema.file), name, tuple(arguments))


@lru_cache(maxsize=64)
def _schema(text: str, file: str) -> Schema:
    return Schema.parse(text, file)


def scenario_of(source: Source, seed: int, *, swarm: bool = False) -> Scenario:
    """The scenario of one seed: the source itself, or with what the swarm draws for this seed in its place."""
    values = msgspec.json.decode(source.values)
    schema = _schema(source.schema_text, source.schema_file)
    if swarm:
        values = drawn(values, seed, dispensable(schema))
    return from_values(values, schema, source.shown)


@dataclass(frozen=True, slots=True)
class Case:
    """One run. `plant`: the planted bug that is switched on."""

    source: Source
    seed: int
    swarm: bool = False
    plant: str = ""

    @property
    def scenario(self) -> str:
        return self.source.name

    def plan(self) -> Plan:
        return build_plan(scenario_of(self.source, self.seed, swarm=self.swarm), self.seed, plant=self.plant)

    def yaml(self) -> str:
        return effective_yaml(scenario_of(self.source, self.seed, swarm=self.swarm))

    def command(self) -> str:
        first, *rest = self.source.arguments
        parts = ["fleet", "run", first, "--seed", str(self.seed), *rest]
        parts += ["--swarm"] if self.swarm else []
        parts += ["--plant", self.plant] if self.plant else []
        return shlex.join(parts)


def required_of(sources: Sequence[Source]) -> list[str]:
    """Checks that a scenario requires: of a swarm, in one of its runs at least."""
    names = [name for source in sources for name in required_checks(scenario_of(source, 0))]
    return list(dict.fromkeys(names))
