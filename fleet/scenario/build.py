"""Scenario + seed = plan: every device, workload and fault made concrete.

Pure and cheap: 10,000 devices in about a second. Each draw is from a stream named after one device and one purpose, so
that leaving out a device or a fault changes nothing else. Called by `fleet run` and by whatever makes plans.
"""

from __future__ import annotations

from fleet.rng import rng
from fleet.scenario.events import Member, arrival_us, fault_plans
from fleet.scenario.expect import ALWAYS_REQUIRED
from fleet.scenario.facts import FILLER, facts
from fleet.scenario.faults import IN_TABLE, Poison
from fleet.scenario.model import Group, Link, Scenario, Workload
from fleet.scenario.plan import DevicePlan, GroupPlan, LinkPlan, Plan, WorkloadPlan
from fleet.scenario.quota_settings import quota_plan
from fleet.scenario.settings import agent_plan, broker_plan, cloud_plan

# What a fault calls for, besides what is always required.
_CHECKS_OF_FAULTS = {
    "power-cut": ("writes-survive-power-cuts",),
    "reboots": ("writes-survive-power-cuts",),
    "poison": ("poison-passed",),
    "silent-damage": ("digest-heals", "no-false-alarm"),
}

CHECKS_OF_COMMANDS = ("command-at-most-once", "command-answered")


def build_plan(scenario: Scenario, seed: int | None = None, *, plant: str = "") -> Plan:
    """The plan of one run. `seed` None: the scenario's own. `plant`: a planted bug to switch on."""
    seed = scenario.seed if seed is None else seed
    members = [Member(id, group) for group in scenario.devices for id in device_ids(group)]
    indexes = {group.name: index for index, group in enumerate(scenario.devices)}
    schema = scenario.parsed_schema
    return Plan(
        scenario=scenario.name,
        description=scenario.description,
        source=scenario.source,
        seed=seed,
        duration_us=scenario.duration_us,
        warm_up_us=min(scenario.phases.warm_up_us, scenario.duration_us),
        quiesce_us=scenario.phases.quiesce_us,
        converge_within_us=scenario.phases.converge_within_us,
        interval_us=scenario.interval_us,
        schema_file=scenario.schema_file,
        schema_text=schema.text,
        groups=[_group(group) for group in scenario.devices],
        devices=[_device(seed, member, indexes[member.group.name]) for member in members],
        workloads=[_workload(scenario, workload, indexes) for workload in scenario.workload],
        faults=fault_plans(scenario, seed, members),
        cloud=cloud_plan(scenario.cloud),
        broker=broker_plan(scenario.broker),
        agent=agent_plan(scenario.agent),
        checks=required_checks(scenario),
        thresholds=[one.expr for one in scenario.expect.thresholds],
        aborts=[one.expr for one in scenario.expect.thresholds if one.abort],
        plant=plant,
        quotas=quota_plan(scenario.cloud),
    )


def device_ids(group: Group) -> list[str]:
    """`home-0001` .. : the same names whatever the group's size; or the ones that it gives."""
    return list(group.ids) or [f"{group.name}-{number:04d}" for number in range(1, group.count + 1)]


def required_checks(scenario: Scenario) -> list[str]:
    """The ones it names, or by default those that what it does calls for."""
    if scenario.expect.checks:
        return list(dict.fromkeys(scenario.expect.checks))
    names = list(ALWAYS_REQUIRED)
    for fault in scenario.faults:
        if not isinstance(fault, Poison) or set(fault.what) & set(IN_TABLE):
            names += _CHECKS_OF_FAULTS.get(fault.kind, ())
    if any(workload.commands for workload in scenario.workload):
        names += CHECKS_OF_COMMANDS
    return list(dict.fromkeys(names))


def link_plan(link: Link) -> LinkPlan:
    return LinkPlan(
        profile=link.profile,
        delay_us=link.delay_us,
        jitter_us=link.jitter_us,
        delay_p99_us=link.delay_p99_us,
        rate_up_bps=link.rate_up_bps,
        rate_down_bps=link.rate_down_bps,
        loss=link.loss,
        burst=link.burst,
        queue_packets=link.queue,
    )


def _group(group: Group) -> GroupPlan:
    return GroupPlan(
        name=group.name,
        account=group.account,
        region=group.region,
        link=link_plan(group.link),
        encoding=group.encoding,
    )


def _device(seed: int, member: Member, index: int) -> DevicePlan:
    group = member.group
    clock = rng(seed, member.id, "plan/clock")
    spread_us, drift_ppb = group.clock.spread_us, abs(group.clock.drift_ppb)
    return DevicePlan(
        member.id,
        index,
        group.boot.at_us + arrival_us(rng(seed, member.id, "plan/boot"), group.boot.over_us, group.boot.shape),
        group.clock.offset_us + clock.between(-spread_us, spread_us),
        group.clock.rate_ppb + clock.between(-drift_ppb, drift_ppb),
    )


def _workload(scenario: Scenario, workload: Workload, indexes: dict[str, int]) -> WorkloadPlan:
    known = facts(scenario.parsed_schema, workload.model)
    rate = workload.rate_per_s
    every_us = workload.every_us if rate is None else max(1, round(1e6 / rate))
    assert every_us is not None  # fleet.scenario.check has seen to it
    until_us = workload.until_us
    return WorkloadPlan(
        name=workload.name,
        side=workload.side,
        model=workload.model,
        action=workload.action,
        scope=known.scope,
        every_us=every_us,
        jitter=workload.jitter,
        poisson=rate is not None,
        remove=workload.remove,
        keep=workload.keep,
        items=workload.items,
        key_field=known.key_field,
        filler_field=FILLER if FILLER in known.texts and workload.bytes[1] else "",
        ttl_field=known.ttl_field if workload.life_us[1] else "",
        life_min_us=workload.life_us[0],
        life_max_us=workload.life_us[1],
        commands=list(workload.commands),
        expires_min_us=workload.expires_us[0],
        expires_max_us=workload.expires_us[1],
        bytes_min=workload.bytes[0],
        bytes_max=workload.bytes[1],
        groups=sorted(indexes[name] for name in workload.groups) if workload.groups else None,
        from_us=workload.from_us or 0,
        until_us=scenario.duration_us if until_us is None else min(until_us, scenario.duration_us),
    )
