"""The scenario as people write it: pydantic models of every key, with its meaning, its unit and its limits.

Says what each key may hold by itself; what must hold between keys is in fleet.scenario.check. Reads no files. Made by
fleet.scenario.load from YAML; `fleet schema` prints it as JSON Schema.
"""

from __future__ import annotations

import difflib
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    Field,
    PrivateAttr,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from agent.protocol.schema import Schema
from fleet.scenario.faults import Fault, Shape
from fleet.scenario.orders import ORDERS
from fleet.scenario.part import Part
from fleet.scenario.presets import LINKS
from fleet.scenario.settings import AgentSettings, BrokerSettings, CloudSettings
from fleet.scenario.units import (
    Bits,
    Drift,
    Duration,
    DurationRange,
    Names,
    PositiveDuration,
    Rate,
    Share,
    SignedDuration,
    SizeRange,
)

NAME = r"^[a-z][a-z0-9-]{0,62}$"
_M = 60_000_000  # microseconds
DEVICES_MAX = 10_000_000
WINDOWS = ("during ", "after ", "from ")  # what a threshold on a part of the run begins with
_PROFILES = "one of " + ", ".join(LINKS)


def _known_profile(name: str) -> str:
    if name and name not in LINKS:
        close = difflib.get_close_matches(name, LINKS, n=1)
        raise ValueError(f"unknown link profile {name!r}; " + (f"did you mean {close[0]}?" if close else _PROFILES))
    return name


class Offline(Part):
    """Breaks of the link itself, now and then; how long is lognormal."""

    every_us: PositiveDuration = Field(alias="every", description="Mean time between two breaks (Poisson).")
    median_us: PositiveDuration = Field(alias="median", description="Median length of a break.")
    p99_us: PositiveDuration | None = Field(
        alias="p99", default=None, description="99th percentile of the length. Default: all last `median`."
    )


class Link(Part):
    """A device's link. A profile's name, or a mapping: a profile with changes, or all numbers."""

    profile: Annotated[str, AfterValidator(_known_profile)] = Field(
        default="", description="Start from this profile; `fleet list --links` shows them."
    )
    delay_us: Duration = Field(alias="delay", default=0, description="One way.")
    jitter_us: Duration = Field(alias="jitter", default=0, description="The delay varies by this, both ways, evenly.")
    delay_p99_us: Duration = Field(
        alias="delay_p99",
        default=0,
        description="Instead of jitter: the delay is lognormal, with this 99th percentile.",
    )
    rate_up_bps: Bits = Field(alias="rate_up", default=0, description="Bits a second to the cloud; 0: no limit.")
    rate_down_bps: Bits = Field(alias="rate_down", default=0, description="Bits a second to the device; 0: no limit.")
    loss: Share = Field(default=0.0, description="Mean share of packets lost. TCP turns it into delay and resets.")
    burst: float = Field(
        default=1.0, ge=1, le=1000, strict=False, description="Mean number of packets lost together (Gilbert-Elliott)."
    )
    queue: int = Field(default=0, ge=0, le=1_000_000, description="Packets in the bottleneck's queue; 0: no limit.")
    offline: Offline | None = Field(default=None, description="Breaks now and then; null: none.")

    @model_validator(mode="before")
    @classmethod
    def _from_profile(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = {"profile": value}
        if isinstance(value, dict):
            profile = value.get("profile", "")
            if isinstance(profile, str) and profile:
                return {**LINKS.get(profile, {}), **value}
        return value


class DeviceClock(Part):
    """How far the devices' own clocks are from the truth."""

    offset_us: SignedDuration = Field(alias="offset", default=0, description="All are ahead by this; `-5m`: behind.")
    spread_us: Duration = Field(alias="spread", default=0, description="Each is further off by up to this, both ways.")
    drift_ppb: Drift = Field(alias="drift", default=0, description="Each runs fast or slow by up to this: 20ppm.")
    rate_ppb: Drift = Field(alias="rate", default=0, description="All run fast by this, `-20ppm` slow; `drift` adds.")


class Boot(Part):
    """When the devices are first switched on."""

    at_us: Duration = Field(alias="at", default=0, description="Not before this time, from the scenario's start.")
    over_us: Duration = Field(alias="over", default=_M, description="From then on, over this time.")
    shape: Shape = Field(
        default="uniform", description="`beta`: Beta(3, 4), the arrivals of 3GPP TR 37.868; `uniform`: evenly."
    )


class Group(Part):
    """Devices that have all numbers in common."""

    name: str = Field(pattern=NAME, description="Name of the group; its devices are NAME-0001, NAME-0002, ...")
    count: int = Field(ge=1, le=DEVICES_MAX, description="Number of devices.")
    ids: Names = Field(
        default=(), description="Ids of the devices, as many as `count`, instead of NAME-0001, NAME-0002, ..."
    )
    account: str = Field(default="main", description="The account that they belong to.")
    region: str = Field(default="main", pattern=NAME, description="The broker's region that they connect to.")
    link: Link = Field(default=Link(), description="Name of a link profile, or its numbers.")
    clock: DeviceClock = Field(default=DeviceClock(), description="How far their clocks are from the truth.")
    boot: Boot = Field(default=Boot(), description="When they are first switched on.")
    encoding: Literal["json", "msgpack"] = Field(default="json", description="What they speak: JSON or MessagePack.")


class Workload(Part):
    """A stream of writes by applications, on each device or in the cloud."""

    name: str = Field(pattern=NAME, description="Own name; names its random draws.")
    side: Literal["device", "cloud"] = Field(description="Where the application runs that writes.")
    model: str = Field(description="Name of a model of the schema.")
    action: Literal["update", "create", "toggle"] = Field(
        default="update",
        description="`update`: write a named item again and again; `create`: new items; `toggle`: create a named item, "
        "remove it, create it again, ...",
    )
    every_us: PositiveDuration | None = Field(
        alias="every", default=None, description="Time between two writes of one writer. This or `rate`."
    )
    jitter: Share = Field(default=0.0, description="With `every`: the time varies by this share, both ways, evenly.")
    rate_per_s: Rate | None = Field(
        alias="rate", default=None, description="Writes of one writer, at random (Poisson). This or `every`."
    )
    remove: Share = Field(
        default=0.0, description="With `create`: share of the writes that remove a live item instead of making one."
    )
    keep: int = Field(
        default=0,
        ge=0,
        le=1_000_000,
        description="With `create`: most live items of one writer; beyond it the oldest is removed. 0: no limit.",
    )
    items: int = Field(
        default=1, ge=1, le=1_000_000, description="With `update` and `toggle`: number of named items of one writer."
    )
    life_us: DurationRange = Field(
        alias="life",
        default=(0, 0),
        description="Time to live of what is written, or [least, most], from the write on by the writer's own clock. "
        "The model needs a ttl field. 0: without end.",
    )
    commands: Names = Field(
        default=(),
        description="With `create` of the model Command: what is ordered, drawn evenly; a word that comes twice counts "
        f"twice. One of {', '.join(ORDERS)}.",
    )
    expires_us: DurationRange = Field(
        alias="expires",
        default=(0, 0),
        description="With `commands`: time until a command expires, or [least, most], from the write on.",
    )
    bytes: SizeRange = Field(default=(0, 0), description="Size of an item, or [least, most], brought about by `text`.")
    groups: Names = Field(default=(), description="Only devices of these groups, or their accounts. Default: all.")
    from_us: Duration | None = Field(alias="from", default=None, description="First write after this time.")
    until_us: Duration | None = Field(alias="until", default=None, description="Last write before this time.")


class Phases(Part):
    """What comes before and after the faults."""

    warm_up_us: Duration = Field(
        alias="warm_up", default=2 * _M, description="Time without random and background faults at the start."
    )
    quiesce_us: Duration = Field(
        alias="quiesce", default=5 * _M, description="Time without writes and faults at the end, watched for echoes."
    )
    converge_within_us: PositiveDuration = Field(
        alias="converge_within",
        default=30 * _M,
        description="After the last write and fault, device and cloud must be equal within this time.",
    )


def window_key(value: Any) -> str | None:
    """Of a threshold that YAML took for a mapping: `after heal outage: online > 99%` needs no quotes."""
    if not isinstance(value, dict) or "expr" in value:
        return None
    windows = [key for key, one in value.items() if str(key).startswith(WINDOWS) and isinstance(one, str)]
    return windows[0] if len(windows) == 1 else None


class Threshold(Part):
    """A limit that the run must keep: an expression, or a mapping of it and of what its failing means."""

    expr: str = Field(
        description="`latency_s.up.p99 < 5s`, `after heal outage: online > 99% within 3m`; docs/scenarios.md has all."
    )
    abort: bool = Field(
        default=False,
        description="The run stops, and fails, at the end of the first interval after the warm-up at which this does "
        "not hold by what was measured up to there. Live runs go on.",
    )

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"expr": value}
        window = window_key(value)
        if window is None:
            return value
        return {"expr": f"{window}: {value[window]}", **{key: one for key, one in value.items() if key != window}}

    @model_serializer(mode="wrap")
    def _as_written(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any] | str:
        written: dict[str, Any] = handler(self)
        return written if self.abort else self.expr


class Expect(Part):
    """What must hold for the run to pass."""

    checks: Names = Field(
        default=(), description="Checks that must have been evaluated. Default: by what the scenario does."
    )
    thresholds: tuple[Threshold, ...] = Field(
        default=(),
        strict=False,
        description="Limits that the run must keep: `latency_s.up.p99 < 5s`, `counts.messages_lost == 0`.",
    )


class Scenario(Part):
    """A scenario of Fleet: devices, what applications write, what goes wrong, and what must hold in the end."""

    name: str = Field(pattern=NAME, description="Name of the scenario; names its run directories.")
    description: str = Field(default="", description="What it proves, in a sentence.")
    schema_file: str = Field(
        alias="schema",
        description="The OneTable schema: a path from the scenario's file, or the name of a shipped one.",
    )
    duration_us: PositiveDuration = Field(
        alias="duration", description="Time with writes and faults. The phases at the end come on top."
    )
    seed: int = Field(default=1, ge=0, le=2**63 - 1, description="Default seed; `--seed` overrides it.")
    interval_us: PositiveDuration = Field(
        alias="interval", default=10_000_000, description="Width of a row of the timeline."
    )
    devices: tuple[Group, ...] = Field(strict=False, min_length=1, description="Groups of devices.")
    workload: tuple[Workload, ...] = Field(strict=False, min_length=1, description="What applications write.")
    faults: tuple[Fault, ...] = Field(default=(), strict=False, description="What goes wrong.")
    phases: Phases = Field(default=Phases(), description="What comes before and after the faults.")
    cloud: CloudSettings = Field(default=CloudSettings(), description="The table, its stream, the relay's workers.")
    broker: BrokerSettings = Field(default=BrokerSettings(), description="The MQTT broker.")
    agent: AgentSettings = Field(default=AgentSettings(), description="The agent's own numbers.")
    expect: Expect = Field(default=Expect(), description="What must hold for the run to pass.")

    _schema: Schema | None = PrivateAttr(default=None)
    _source: str = PrivateAttr(default="")

    @property
    def source(self) -> str:
        """How the person named the scenario."""
        return self._source

    @property
    def parsed_schema(self) -> Schema:
        """The schema that `schema` names, loaded."""
        if self._schema is None:
            raise ValueError("a scenario that was not loaded from a file has no schema")
        return self._schema

    @property
    def device_count(self) -> int:
        return sum(group.count for group in self.devices)

    def bind(self, schema: Schema, source: str) -> Scenario:
        """Called once, by the loader."""
        self._schema, self._source = schema, source
        return self
