"""The plan that end-to-end measurements run: scenarios/outage.yaml with fewer devices. Measures nothing itself."""

from __future__ import annotations

from benchmarks.measure import Effort
from fleet.scenario.build import build_plan
from fleet.scenario.load import load
from fleet.scenario.plan import Plan

DEVICES = 200
DEVICES_QUICK = 20
_SHORT = (
    "duration=12m",
    *("faults.broker-outage.at=4m", "faults.broker-outage.duration=3m"),
    *("faults.out-of-reach.at=5m", "faults.out-of-reach.duration=6m"),
)


def outage(effort: Effort) -> Plan:
    """With its faults; shorter as well when there is no time."""
    overrides = _SHORT if effort.small else ()
    return build_plan(load("outage", overrides, DEVICES_QUICK if effort.small else DEVICES))
