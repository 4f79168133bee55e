"""A finished run by group of devices and by model: `groups` and `models` of summary.json. Called by fleet.run.

Everything here was counted anyway; it is only put together.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from reports.summary import Part

if TYPE_CHECKING:
    from fleet.world.world import World

_OF_A_LEDGER: Final = (
    ("messages_up", ("sent_up",)),
    ("messages_down", ("sent_down",)),
    ("messages_lost", ("dropped_up", "dropped_down")),
    ("bytes_up", ("bytes_up",)),
    ("bytes_down", ("bytes_down",)),
)


def groups(world: World) -> dict[str, Part]:
    """By group. Beside what latencies tell: devices, those not in step at the end, their messages, their reboots."""
    found = world.latencies.by_group()
    counts: dict[str, Counter[str]] = {name: Counter() for name in found}
    for name, device in world.devices.items():
        count = counts[device.group]
        count["devices"] += 1
        count["reboots"] += device.reboots
        ledger = world.broker.ledger(name)
        for key, attributes in _OF_A_LEDGER:
            count[key] += sum(getattr(ledger, attribute) for attribute in attributes)  # ints
    for row in world.not_done:
        counts[row.group]["not_in_step"] += 1
    for name, part in found.items():
        count = counts[name]
        names = ("devices", "not_in_step", "reboots", *(key for key, _ in _OF_A_LEDGER))
        part.counts = {**part.counts, **{key: count[key] for key in names}}
    return found


def models(world: World) -> dict[str, Part]:
    """By model that anything was written to."""
    found = world.latencies.by_model()
    for name, writes in world.oracle.cloud_writes_of.items():
        found.setdefault(name, Part(counts={"local_writes": 0, "updates_synced": 0}))
        found[name].counts["cloud_writes"] = writes
    for part in found.values():
        part.counts.setdefault("cloud_writes", 0)
    return {name: found[name] for name in world.schema.models if name in found}
