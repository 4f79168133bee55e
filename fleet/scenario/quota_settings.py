"""The quotas of the cloud that a scenario may set under `cloud:`, all of them or as changes to a preset.

Pydantic models and their conversion to the plan's plain struct. The presets' numbers are in fleet.quota.presets. Used
by fleet.scenario.settings and fleet.scenario.build.
"""

from __future__ import annotations

import difflib
from typing import Annotated, Any, Final, Literal

import msgspec
from pydantic import AfterValidator, Field

from fleet.quota.presets import PER_UNIT, PRESETS
from fleet.scenario.part import Part
from fleet.scenario.plan import QuotaPlan
from fleet.scenario.units import Duration, Size


def _known_preset(name: str) -> str:
    if name not in PRESETS:
        close = difflib.get_close_matches(name, PRESETS, n=1)
        names = f"one of {', '.join(PRESETS)}"
        raise ValueError(f"unknown preset {name!r}; " + (f"did you mean {close[0]}?" if close else names))
    return name


def _quota(description: str, alias: str | None = None, **limits: Any) -> Any:
    return Field(alias=alias, default=None, description=description, **limits)


OWN: Final = "scenario"  # the mark of a value that a scenario sets itself
UNITS_MAX: Final = 1000

Count = Annotated[float | None, Field(ge=0, le=1e9)]


class QuotaSettings(Part):
    """Quotas of the cloud: they refuse, drop, delay and queue inside the simulation. None set: there are none. With
    `preset`, the others default to the preset's; 0 is no limit. Rates are a second, each bucket holds one second."""

    preset: Annotated[str, AfterValidator(_known_preset)] | None = _quota(
        "Quotas of a vendor, with their sources: the table of presets below."
    )
    units: int | None = _quota("Units of an Azure IoT Hub; its quotas are multiples.", ge=1, le=UNITS_MAX)
    connects_per_s: Count = _quota("CONNECTs of the account.")
    client_connects_per_s: Count = _quota("CONNECTs of one client id.")
    connections: int | None = _quota("Connections of the account at once.", ge=0)
    refusal: Literal["code", "silent"] | None = _quota(
        "How a CONNECT over a quota is refused: with a code, or by saying nothing, so that the device waits in vain."
    )
    publishes_in_per_s: Count = _quota("Messages to the broker, from devices and from the relay.")
    publishes_out_per_s: Count = _quota("Messages from the broker to devices.")
    client_publishes_per_s: Count = _quota("Messages of one connection, each way; more are dropped.")
    over_publishes: Literal["drop", "delay"] | None = _quota("What happens to messages over the account's quotas.")
    client_bytes_per_s: Size | None = _quota("Bytes of messages of one connection, both ways; more are delayed.")
    client_in_flight: int | None = _quota(
        "Unacknowledged QoS 1 messages of one client, each way; more wait. The lower of this and `broker: in_flight`.",
        ge=0,
        le=65_535,
    )
    payload_bytes: Size | None = _quota("Longest payload; who sends more loses the connection.")
    message_bytes: Size | None = _quota("A message is metered in steps of this size.", ge=1)
    messages_per_day: int | None = _quota("Metered messages of the account in a day; more are dropped.", ge=0)
    partition_writes_per_s: Count = _quota("Write units of one partition key of the table; more are throttled.")
    partition_reads_per_s: Count = _quota("Read units of one partition key of the table; more are throttled.")
    table_writes_per_s: Count = _quota("Write units that a new on-demand table takes.")
    table_reads_per_s: Count = _quota("Read units that a new on-demand table gives.")
    table_doubling_us: Duration | None = _quota(
        "An on-demand table takes twice the peak of the last such time; 0s: it does not grow.", "table_doubling"
    )
    table_most_per_s: Count = _quota("Most write and most read units that an on-demand table grows to.")
    stream_reads_per_s: Count = _quota("Looks at one shard of the change stream.")
    stream_read_bytes: Size | None = _quota("Records of one look at a shard; the rest comes with the next.")
    functions: int | None = _quota("Function instances at once; more work waits.", ge=0)
    functions_per_10s: int | None = _quota("Function instances that may be added within ten seconds.", ge=0)


_KEYS: Final = tuple(name for name in QuotaSettings.model_fields if name not in ("preset", "units"))


def quota_plan(settings: QuotaSettings) -> QuotaPlan | None:
    """None when the scenario says nothing of quotas."""
    own = {name: getattr(settings, name) for name in _KEYS if getattr(settings, name) is not None}
    if settings.preset is None and not own:
        return None
    preset = PRESETS.get(settings.preset or "", {})
    values = {name: value for name, (value, _) in preset.items()}
    sources = {name: mark for name, (_, mark) in preset.items()}
    for name in PER_UNIT:
        if "connects_least_per_s" in values and name in values:
            values[name] *= settings.units or 1
    least = values.pop("connects_least_per_s", 0)
    sources.pop("connects_least_per_s", None)
    for name in ("connects_per_s", "publishes_in_per_s"):
        values[name] = max(least, values.get(name, 0))
    values.update(own)
    sources.update((name, OWN) for name in own)
    made: QuotaPlan = msgspec.convert({**values, "preset": settings.preset or "", "sources": sources}, QuotaPlan)
    return made
