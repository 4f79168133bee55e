"""The relay's logic of a run: the real classes, with the numbers of its plan. Used by fleet.world.world."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final

from agent.protocol.schema import Schema
from cloud.config import RelayConfig
from cloud.relay import Relay
from fleet.rng import rng
from fleet.scenario.plan import Plan

NEVER_MS: Final = 1 << 62
INCARNATION_MS: Final = 60_000  # a relay's own default


def relay_maker(
    kind: type[Relay], plan: Plan, now_ms: Callable[[], int], probes: Counter[str]
) -> Callable[[Schema], Relay]:
    """Makes a relay that goes by a schema. All of one run draw from the same stream: none repeats what another drew."""
    accounts = {device.id: plan.groups[device.group].account for device in plan.devices}
    chance = rng(plan.seed, "cloud", "relay").hex
    is_restored = any(fault.kind == "table-restore" for fault in plan.faults)

    def make(schema: Schema) -> Relay:
        relay = kind(schema, _config(plan, is_restored=is_restored), now_ms, chance, probes, accounts.get)
        if not is_restored:
            relay.incarnation.learn("")  # nobody will ever change the marker: no relay has to look
        return relay

    return make


def _config(plan: Plan, *, is_restored: bool) -> RelayConfig:
    cloud = plan.cloud
    return RelayConfig(
        retention_ms=cloud.feed_retention_ms,
        expiry_margin_ms=cloud.ttl_margin_ms,
        record_life_ms=cloud.record_life_us // 1000,
        worker_life_ms=cloud.worker_life_us // 1000,
        future_ms=cloud.future_bound_ms,
        incarnation_ms=INCARNATION_MS if is_restored else NEVER_MS,
    )
