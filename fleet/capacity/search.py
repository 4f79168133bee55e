"""Looks for back-off settings that bring a fleet back near the floor, by runs of a small part of it.

The agent's own settings and none at all (no jitter) are run for comparison; then full jitter with caps around the
floor, and caps beside the best of these. Called by the command.
"""

from __future__ import annotations

from typing import Final

from fleet.capacity.runs import Kept
from fleet.capacity.study import Study
from fleet.capacity.told import main_recovery, quotas_in
from fleet.scenario.units import format_duration, format_share
from reports.capacity import BackOff

CAPS: Final = (0.5, 1.0, 1.5, 3.0)  # times the floor
BESIDE: Final = (0.75, 1.25)  # times the best of these
DEVICES: Final = 300  # that stand for the fleet, or more, where these would be coarse
DEVICES_MAX: Final = 600
CURVE_POINTS_MAX: Final = 200


def searched(study: Study, size: int, floor_s: float, least: int) -> list[BackOff]:
    """The settings tried, the best first; none where no fault cost the fleet its connections."""
    plan = study.plan(least)
    agent = plan.agent
    base_s, cap_s = agent.connect_base_ms / 1000, agent.connect_cap_ms / 1000
    tried = [tried_with(study, size, "as configured", agent.connect_jitter, base_s, cap_s)]
    if tried[0] is None or floor_s <= 0:
        return []
    if agent.connect_jitter:
        tried.append(tried_with(study, size, "no jitter", 0.0, base_s, cap_s))
    else:
        tried.append(tried_with(study, size, "full jitter, same cap", 1.0, base_s, cap_s))
    ladder = []
    for share in CAPS:
        label = f"full jitter, cap {share:g} × floor"
        ladder.append(tried_with(study, size, label, 1.0, base_s, max(base_s, share * floor_s)))
    found = [one for one in ladder if one is not None]
    best = min(found, key=_rank)
    for share in BESIDE:
        cap = max(base_s, share * best.cap_s)
        label = f"full jitter, cap {cap / floor_s:.2g} × floor"
        ladder.append(tried_with(study, size, label, 1.0, base_s, cap))
    return sorted((one for one in [*tried, *ladder] if one is not None), key=_rank)


def _rank(one: BackOff) -> tuple[bool, float, bool, float, float]:
    """Back the soonest; of those alike, with the fewest refused."""
    last, most = one.back_99_s, one.back_95_s
    return most is None, most or 0.0, last is None, last or 0.0, one.refused


def tried_with(study: Study, size: int, label: str, jitter: float, base_s: float, cap_s: float) -> BackOff | None:
    """None: no fault of the scenario cost connections."""
    devices = min(size, study.part(size, DEVICES, DEVICES_MAX))
    settings = {
        "agent.connect_jitter": format_share(jitter),
        "agent.connect_base": format_duration(round(base_s * 1000) * 1000),
        "agent.connect_cap": format_duration(max(1, round(cap_s)) * 1_000_000),
    }
    changes = [f"{key}={value}" for key, value in settings.items()]
    result = study.run(study.planned(devices, size, changes), f"back-off: {label}")
    recovery = main_recovery(result)
    if recovery is None:
        return None
    return BackOff(
        label=label,
        jitter=jitter,
        base_s=base_s,
        cap_s=max(1.0, float(round(cap_s))),
        devices=size,
        back_95_s=recovery.back_95_s,
        back_99_s=recovery.back_99_s,
        refused=quotas_in(result).usage.connects_refused / devices,
        settings=" ".join(f"--set {change}" for change in changes),
        curve=curve_of(result),
    )


def curve_of(result: Kept) -> list[tuple[float, float]]:
    """Seconds since the end of the fault that cost the most connections, share of these that are back."""
    recovery = main_recovery(result)
    if recovery is None:
        return []
    after = [row for row in result.load if row.t_s + 1 > recovery.end_s]
    low = min((row.online for row in after), default=0)
    curve = [(row.t_s + 1 - recovery.end_s, min(1.0, (row.online - low) / recovery.lost)) for row in after]
    step = max(1, len(curve) // CURVE_POINTS_MAX)
    return [(0.0, 0.0), *curve[::step]]
