"""The kinds of fault that a scenario may name under `faults:`, one pydantic model each.

Says what may be written and what it means; never when it happens: fleet.scenario.events draws the times.
Three families. *Lasting* faults happen `at` given times or at a `rate` and last for a `duration`. *Momentary* ones
happen at a moment. *Background* ones hold from `at` for `duration`; without these, from the end of the warm-up to the
end of the scenario. Every fault has healed when the scenario's duration is over.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Final, Literal, get_args

from pydantic import Field, PlainSerializer, WithJsonSchema
from pydantic.functional_validators import BeforeValidator

from fleet.scenario.part import Part
from fleet.scenario.units import (
    Drift,
    Duration,
    DurationRange,
    Names,
    PositiveDuration,
    Rate,
    Share,
    SignedDuration,
    Times,
    one_or_many,
)

Hop = Literal["device-to-broker", "broker-to-relay", "relay-to-broker", "broker-to-device"]
Shape = Literal["uniform", "beta"]
HOPS: Final[tuple[Hop, ...]] = get_args(Hop)


class Target(Part):
    """Whom a fault hits: devices that meet all that is said here. Nothing said: the whole fleet."""

    group: Names = Field(default=(), description="Name or names of groups.")
    region: Names = Field(default=(), description="Name or names of regions.")
    devices: Names = Field(default=(), description="Ids of devices, such as home-0007.")
    share: Share = Field(
        default=1.0, description="Part of these devices, chosen by the seed; at least one device if there is any."
    )


class Regions(Part):
    """Which of the broker's regions a fault hits. Nothing said: all."""

    region: Names = Field(default=(), description="Name or names of regions.")


class Return(Part):
    """How devices come back after an outage that hit them together."""

    over_us: Duration = Field(alias="over", default=0, description="They come back over this time.")
    shape: Shape = Field(
        default="uniform", description="`beta`: Beta(3, 4), the arrivals of 3GPP TR 37.868; `uniform`: evenly."
    )


class FaultBase(Part):
    """What every fault has."""

    on: ClassVar[Literal["devices", "regions", "cloud"]] = "cloud"
    name: str = Field(
        default="", pattern=r"^([a-z][a-z0-9-]{0,62})?$", description="Own name; by default the kind. No two alike."
    )

    def params(self) -> dict[str, Any]:
        """The kind's own numbers, as the plan has them."""
        return {}


class Occurring(FaultBase):
    """Happens `at` given times, or at random at a `rate` between `from` and `until`. One of the two."""

    at_us: Times | None = Field(alias="at", default=None, description="Time or times, from the scenario's start.")
    rate_per_s: Rate | None = Field(
        alias="rate", default=None, description="How often, at random (Poisson); for each device that it may hit."
    )
    from_us: Duration | None = Field(
        alias="from", default=None, description="With `rate`: not before this time. Default: the end of the warm-up."
    )
    until_us: Duration | None = Field(
        alias="until", default=None, description="With `rate`: not after this time. Default: the scenario's duration."
    )


class Lasting(Occurring):
    """Lasts for a while and heals itself."""

    duration_us: PositiveDuration = Field(alias="duration", description="How long it lasts.")


class Background(FaultBase):
    """Holds for one stretch of time."""

    at_us: Duration | None = Field(
        alias="at", default=None, description="When it begins, from the scenario's start. Default: after the warm-up."
    )
    duration_us: PositiveDuration | None = Field(
        alias="duration", default=None, description="How long it lasts. Default: to the scenario's end."
    )


class BrokerOutage(Lasting):
    """The broker of a region is gone: its connections are cut, and new ones refused."""

    on: ClassVar[Literal["devices", "regions", "cloud"]] = "regions"
    kind: Literal["broker-outage"] = Field(description="The broker of a region is gone.")
    target: Regions = Field(default=Regions(), description="Which regions.")


class OnDevices(Part):
    on: ClassVar[Literal["devices", "regions", "cloud"]] = "devices"
    target: Target = Field(default=Target(), description="Whom it may hit.")


class LinkDown(OnDevices, Lasting):
    """The devices' links carry nothing; neither side is told."""

    on: ClassVar[Literal["devices", "regions", "cloud"]] = "devices"
    kind: Literal["link-down"] = Field(description="The devices' links carry nothing.")
    stagger: Return = Field(default=Return(), description="With `at`: the links go one after another over this time.")


class Disconnects(OnDevices, Occurring):
    """The connection is closed and both sides know, as a broker does to its clients now and then."""

    on: ClassVar[Literal["devices", "regions", "cloud"]] = "devices"
    kind: Literal["disconnects"] = Field(description="Connections are closed, and both sides know.")


class HalfOpen(OnDevices, Lasting):
    """The connection is dead and neither side knows, until a keep-alive tells."""

    on: ClassVar[Literal["devices", "regions", "cloud"]] = "devices"
    kind: Literal["half-open"] = Field(description="Connections are dead, and neither side knows.")


class Reboots(OnDevices, Occurring):
    """The device restarts; what the agent holds in memory is gone, what the disk has promised stays."""

    on: ClassVar[Literal["devices", "regions", "cloud"]] = "devices"
    kind: Literal["reboots"] = Field(description="Devices restart.")
    orderly: bool = Field(default=True, description="The agent is stopped first; else it is killed where it stands.")
    off: DurationRange = Field(default=(10_000_000, 40_000_000), description="Time off, or [least, most].")

    def params(self) -> dict[str, Any]:
        return {"orderly": self.orderly}


class PowerCut(OnDevices, Occurring):
    """Power is cut at a random statement of the database: what was not synced to the disk may be gone or torn."""

    on: ClassVar[Literal["devices", "regions", "cloud"]] = "devices"
    kind: Literal["power-cut"] = Field(description="Power is cut at a random statement of the database.")
    off: DurationRange = Field(default=(5_000_000, 60_000_000), description="Time without power, or [least, most].")
    back: Return = Field(
        default=Return(), description="After that time the devices come back one after another, over this time."
    )


class DeviceRestore(OnDevices, Occurring):
    """The device's disk is set back to an older copy of itself, and the device is switched on again: a backup that was
    played back, a snapshot of a virtual machine, a flash that lost its last blocks."""

    on: ClassVar[Literal["devices", "regions", "cloud"]] = "devices"
    kind: Literal["device-restore"] = Field(description="The device's disk is set back to an older copy.")
    back_us: PositiveDuration = Field(
        alias="back", description="How much older the copy is; older than the device's first boot: an empty disk."
    )
    off: DurationRange = Field(default=(10_000_000, 60_000_000), description="Time off, or [least, most].")

    def params(self) -> dict[str, Any]:
        return {"back_us": self.back_us}


class FactoryReset(OnDevices, Occurring):
    """The device's disk is wiped: the same device, with an empty database."""

    on: ClassVar[Literal["devices", "regions", "cloud"]] = "devices"
    kind: Literal["factory-reset"] = Field(description="The device's disk is wiped; its name stays.")
    off: DurationRange = Field(default=(10_000_000, 60_000_000), description="Time off, or [least, most].")


class DiskFull(OnDevices, Lasting):
    """The device's disk has no room: its file cannot grow. Applications' writes are refused, and what comes from the
    cloud waits there; nothing that was accepted is lost, and all goes on when there is room again."""

    on: ClassVar[Literal["devices", "regions", "cloud"]] = "devices"
    kind: Literal["disk-full"] = Field(description="The devices' disks have no room: their files cannot grow.")


class Messages(OnDevices, Background):
    """Messages are lost, repeated, out of order or late, where the transport allows it.

    MQTT runs over TCP: between device and broker only QoS 0 is lost, on a live connection; QoS 1 comes again instead.
    """

    on: ClassVar[Literal["devices", "regions", "cloud"]] = "devices"
    kind: Literal["messages"] = Field(description="Messages are lost, repeated, out of order or late.")
    hop: Annotated[
        tuple[Hop, ...],
        BeforeValidator(one_or_many),
        PlainSerializer(list),
        Field(strict=False, min_length=1),
        WithJsonSchema(
            {
                "anyOf": [
                    {"type": "string", "enum": list(HOPS)},
                    {"type": "array", "minItems": 1, "items": {"type": "string", "enum": list(HOPS)}},
                ]
            }
        ),
    ] = Field(default=HOPS, description="Where: one hop or several; default: all.")
    qos: Literal[0, 1] | None = Field(default=None, description="Only messages of this quality of service.")
    lose: Share = Field(default=0.0, description="Share of messages that are lost.")
    duplicate: Share = Field(default=0.0, description="Share of messages that arrive twice.")
    reorder: Share = Field(default=0.0, description="Share of messages that arrive late by up to `reorder_by`.")
    reorder_by_us: PositiveDuration = Field(
        alias="reorder_by", default=2_000_000, description="Longest time by which a reordered message is late."
    )
    delay_us: Duration = Field(alias="delay", default=0, description="Every message is late by up to this time.")

    def params(self) -> dict[str, Any]:
        return {
            "hops": list(self.hop),
            "qos": self.qos,
            "lose": self.lose,
            "duplicate": self.duplicate,
            "reorder": self.reorder,
            "reorder_by_us": self.reorder_by_us,
            "delay_us": self.delay_us,
        }


class RelayKill(Occurring):
    """A relay worker dies between two requests to the table and is started again."""

    kind: Literal["relay-kill"] = Field(description="A relay worker dies between two requests to the table.")
    restart_us: PositiveDuration = Field(
        alias="restart", default=5_000_000, description="Time until it runs again; its shards go to others meanwhile."
    )

    def params(self) -> dict[str, Any]:
        return {"restart_us": self.restart_us}


class RelayStall(Lasting):
    """A relay worker stops between two requests, others take over, and it goes on later as if nothing had been."""

    kind: Literal["relay-stall"] = Field(description="A relay worker stops for a while and then goes on.")


class StreamReplay(Background):
    """Records of the table's change stream are delivered again, later."""

    kind: Literal["stream-replay"] = Field(description="Records of the change stream are delivered again, later.")
    share: Share = Field(description="Share of the records.")
    late: DurationRange = Field(default=(1_000_000, 30_000_000), description="How much later, or [least, most].")

    def params(self) -> dict[str, Any]:
        return {"share": self.share, "late_min_us": self.late[0], "late_max_us": self.late[1]}


class StreamDelay(Background):
    """Records of the table's change stream come late."""

    kind: Literal["stream-delay"] = Field(description="Records of the change stream come late.")
    delay: DurationRange = Field(description="How late, or [least, most].")

    def params(self) -> dict[str, Any]:
        return {"delay_min_us": self.delay[0], "delay_max_us": self.delay[1]}


class ClockFault(OnDevices, Occurring):
    """The devices' clocks jump, or run at another rate from then on."""

    on: ClassVar[Literal["devices", "regions", "cloud"]] = "devices"
    kind: Literal["clock"] = Field(description="The devices' clocks jump or drift.")
    jump_us: SignedDuration = Field(alias="jump", default=0, description="The clock jumps by this; `-5m` is back.")
    drift_ppb: Drift = Field(alias="drift", default=0, description="The clock's rate changes by this, such as 50ppm.")
    duration_us: PositiveDuration | None = Field(
        alias="duration", default=None, description="After this time the clock is set right again. Default: never."
    )

    def params(self) -> dict[str, Any]:
        return {"jump_us": self.jump_us, "drift_ppb": self.drift_ppb}


class TableThrottle(Background):
    """The table refuses requests: over the provisioned throughput."""

    kind: Literal["table-throttle"] = Field(description="The table refuses requests.")
    share: Share = Field(description="Share of the requests.")

    def params(self) -> dict[str, Any]:
        return {"share": self.share}


class TableSilence(Background):
    """Writes take effect and give no answer: the relay cannot know."""

    kind: Literal["table-silence"] = Field(description="Writes take effect and give no answer.")
    share: Share = Field(description="Share of the writes.")

    def params(self) -> dict[str, Any]:
        return {"share": self.share}


class Clone(OnDevices, Lasting):
    """A second device with the same identity and a copy of the database is switched on. At the end it is gone, and the
    device is released from quarantine."""

    on: ClassVar[Literal["devices", "regions", "cloud"]] = "devices"
    kind: Literal["clone"] = Field(description="A copy of the device, with its identity and database, is alive too.")


class SilentDamage(OnDevices, Occurring):
    """An item of the device is changed or lost, in the table or on the device's disk, and nobody is told: bit rot, an
    operator past the stream, a stream record that never came. Only a comparison of digests finds it."""

    on: ClassVar[Literal["devices", "regions", "cloud"]] = "devices"
    kind: Literal["silent-damage"] = Field(description="An item is changed or lost, and nobody is told.")
    where: Literal["any", "device", "table"] = Field(
        default="any", description="On the device's disk, or in the table."
    )
    model: Names = Field(
        default=(),
        description="Name or names of models. Default: all that sync, in the table those of a device alone.",
    )

    def params(self) -> dict[str, Any]:
        return {"where": self.where, "models": list(self.model)}


Poisonous = Literal["type", "missing", "stamp", "mark", "oversize", "operation", "message"]
OPERATION: Final = "operation"
MESSAGE: Final = "message"
IN_TABLE: Final[tuple[Poisonous, ...]] = ("type", "missing", "stamp", "mark", "oversize")
POISONS: Final[tuple[Poisonous, ...]] = get_args(Poisonous)


class Poison(OnDevices, Lasting):
    """What nobody can use, from a program that goes past the model: an item of the device in the table with values of
    other types, without required ones, with stamps that are none, with something else in the relay's mark, or too large
    for any message; an operation of the device that no relay may take; a message to and from it that nobody can read.
    At the end it is mended by whoever made it."""

    on: ClassVar[Literal["devices", "regions", "cloud"]] = "devices"
    kind: Literal["poison"] = Field(description="Items and operations that nobody can use, past the model.")
    what: Annotated[
        tuple[Poisonous, ...],
        BeforeValidator(one_or_many),
        PlainSerializer(list),
        Field(strict=False, min_length=1),
        WithJsonSchema(
            {
                "anyOf": [
                    {"type": "string", "enum": list(POISONS)},
                    {"type": "array", "minItems": 1, "items": {"type": "string", "enum": list(POISONS)}},
                ]
            }
        ),
    ] = Field(default=POISONS, description="Which kinds of it, drawn evenly; default: all.")
    model: Names = Field(
        default=(),
        description="Name or names of models. Default: all that sync, in the table those of a device alone.",
    )

    def params(self) -> dict[str, Any]:
        return {"what": list(self.what), "models": list(self.model)}


class Stage(FaultBase):
    """Somebody goes over to another schema: at `at`, from one that lacks `before` to one that lacks `lacks`."""

    at_us: Times = Field(alias="at", description="Time or times, from the scenario's start.")
    lacks: Names = Field(
        default=(),
        description="What of the scenario's schema the one lacks that they go over to: `Model`, `Model.field`, "
        "`Model.field?` (not required there), `Model.field=value` (not in its enum), `Model.field:type` (of that type "
        "there). Default: nothing, they go over to the scenario's schema.",
    )
    before: Names = Field(
        default=(),
        description="The same of the schema that they had since the start; of the first stage that hits them.",
    )

    def params(self) -> dict[str, Any]:
        return {"lacks": list(self.lacks), "before": list(self.before)}


class Rollout(OnDevices, Stage):
    """Devices restart with another schema: a stage of a rollout, or, with `lacks`, of its rollback."""

    on: ClassVar[Literal["devices", "regions", "cloud"]] = "devices"
    kind: Literal["rollout"] = Field(description="Devices restart with another schema.")
    orderly: bool = Field(default=True, description="The agent is stopped first; else it is killed where it stands.")
    off: DurationRange = Field(default=(10_000_000, 40_000_000), description="Time off, or [least, most].")

    def params(self) -> dict[str, Any]:
        return {**super().params(), "orderly": self.orderly}


class RelayRollout(Stage):
    """All workers of the relay are stopped where they stand, and started again with another schema."""

    kind: Literal["relay-rollout"] = Field(description="The relay is started again with another schema.")
    restart_us: PositiveDuration = Field(
        alias="restart", default=5_000_000, description="Time from the relay's stop until it runs again."
    )

    def params(self) -> dict[str, Any]:
        return {**super().params(), "restart_us": self.restart_us}


class TableRestore(Occurring):
    """The table is put back to an older copy and marked (`fleet-cloud restore-mark`), while the relay is stopped."""

    kind: Literal["table-restore"] = Field(description="The table is put back to an older copy, and marked.")
    back_us: PositiveDuration = Field(
        alias="back", description="How much older the copy is; older than the scenario: an empty table."
    )
    restart_us: PositiveDuration = Field(
        alias="restart", default=30_000_000, description="Time from the relay's stop until it runs again."
    )

    def params(self) -> dict[str, Any]:
        return {"back_us": self.back_us, "restart_us": self.restart_us}


Fault = Annotated[
    BrokerOutage
    | LinkDown
    | Disconnects
    | HalfOpen
    | Reboots
    | PowerCut
    | DeviceRestore
    | FactoryReset
    | DiskFull
    | Messages
    | RelayKill
    | RelayStall
    | StreamReplay
    | StreamDelay
    | ClockFault
    | TableThrottle
    | TableSilence
    | TableRestore
    | SilentDamage
    | Poison
    | Rollout
    | RelayRollout
    | Clone,
    Field(discriminator="kind"),
]
KINDS: dict[str, type[FaultBase]] = {
    kind.model_fields["kind"].annotation.__args__[0]: kind  # type: ignore[union-attr]
    for kind in (
        BrokerOutage,
        LinkDown,
        Disconnects,
        HalfOpen,
        Reboots,
        PowerCut,
        DeviceRestore,
        FactoryReset,
        DiskFull,
        Messages,
        RelayKill,
        RelayStall,
        StreamReplay,
        StreamDelay,
        ClockFault,
        TableThrottle,
        TableSilence,
        TableRestore,
        SilentDamage,
        Poison,
        Rollout,
        RelayRollout,
        Clone,
    )
}
