"""A large fleet by a small one: devices in proportion, and as much less of every quota that the fleet shares.

Times then come out as they would at full size, since devices / rate is the same; counts are multiplied back. What one
connection or one device may do stays as it is. The relay and the stream's shards are taken to grow with the fleet.
Pure; called by fleet.capacity.study.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from fleet.scenario.plan import Plan, QuotaPlan

SHARED_RATES: Final = (
    "connects_per_s", "publishes_in_per_s", "publishes_out_per_s", "table_writes_per_s", "table_reads_per_s",
    "table_most_per_s",
)  # fmt: skip
SHARED_COUNTS: Final = ("connections", "messages_per_day")
INSTANCES_MIN: Final = 20  # so few instances say nothing of many: then they are only counted


def part_of(plan: QuotaPlan, share: float) -> QuotaPlan:
    """The quotas of that share of a fleet."""
    changes: dict[str, Any] = {name: getattr(plan, name) * share for name in SHARED_RATES}
    for name in SHARED_COUNTS:
        whole = getattr(plan, name)
        changes[name] = max(1, round(whole * share)) if whole else 0
    instances = round(plan.functions * share)
    changes["functions"] = instances if instances >= INSTANCES_MIN else 0
    changes["functions_per_10s"] = max(1, round(plan.functions_per_10s * share)) if changes["functions"] else 0
    return msgspec.structs.replace(plan, shared=plan.shared * share, **changes)


def part_of_plan(plan: Plan, devices: int) -> Plan:
    """`plan`: of a few devices, with the quotas of a whole fleet; `devices`: of that fleet."""
    assert plan.quotas is not None
    share = len(plan.devices) / devices
    return msgspec.structs.replace(plan, quotas=part_of(plan.quotas, share)) if share < 1 else plan
