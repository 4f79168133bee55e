"""A plan at another speed: the same operations and faults, closer together.

Everything that a scenario or the protocol waits for is divided by the speed; what a machine or a network takes is not:
links keep their delays and rates, the table its times, sizes stay sizes. Some of the agent's numbers have a floor,
below which it would send again what is merely on its way. The result is a plan like any other: it is run in real time,
and simulated to be compared with. Pure; called by fleet.live.result.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from fleet.scenario.plan import AgentPlan, BrokerPlan, CloudPlan, CommandPlan, DevicePlan, FaultPlan, Plan, WorkloadPlan

# Least values, of what must not be shorter than a message's way through a broker, a relay and an emulator.
FLOORS_MS: Final = {
    "resend_base_ms": 2_000,
    "resend_cap_ms": 8_000,
    "hello_spacing_ms": 200,
    "hello_period_ms": 5_000,
    "connect_base_ms": 200,
    "connect_cap_ms": 1_000,
    "gap_wait_ms": 1_000,
    "digest_retry_ms": 2_000,
    "stable_ms": 500,
}
KEEP_ALIVE_MIN_US: Final = 5_000_000  # as agent.runtime.settings has it
LEASE_MIN_US: Final = 5_000_000
CONVERGE_MIN_US: Final = 90_000_000  # machines do not get faster by being hurried
QUIESCE_MIN_US: Final = 3_000_000
INTERVAL_MIN_US: Final = 500_000
SETTLE_MIN_US: Final = 500_000  # of commands after a boot: news from the cloud has a way to go
_CLOUD_WAITS: Final = ("record_life_us", "worker_life_us", "sweep_every_us", "sweep_delay_us")
_FEED_WAITS: Final = ("feed_retention_ms", "ttl_margin_ms", "future_bound_ms")
_WORKLOAD_TIMES: Final = (
    "every_us", "life_min_us", "life_max_us", "expires_min_us", "expires_max_us", "from_us", "until_us",
)  # fmt: skip


def scaled(plan: Plan, speed: float) -> Plan:
    """`speed` 1: the plan itself, in real time; 20: in a twentieth of the time."""
    return msgspec.structs.replace(
        plan,
        duration_us=_us(plan.duration_us, speed),
        warm_up_us=_us(plan.warm_up_us, speed),
        quiesce_us=max(min(plan.quiesce_us, QUIESCE_MIN_US), _us(plan.quiesce_us, speed)),
        converge_within_us=max(min(plan.converge_within_us, CONVERGE_MIN_US), _us(plan.converge_within_us, speed)),
        interval_us=max(min(plan.interval_us, INTERVAL_MIN_US), _us(plan.interval_us, speed)),
        devices=[_device(device, speed) for device in plan.devices],
        workloads=[_workload(workload, speed) for workload in plan.workloads],
        faults=[_fault(fault, speed) for fault in plan.faults],
        cloud=_cloud(plan.cloud, speed),
        broker=_broker(plan.broker, speed),
        agent=_agent(plan.agent, speed),
        commands=_commands(plan.commands, speed),
    )


def _us(value: int, speed: float) -> int:
    return round(value / speed)


def _device(device: DevicePlan, speed: float) -> DevicePlan:
    return msgspec.structs.replace(
        device,
        boot_at_us=_us(device.boot_at_us, speed),
        clock_offset_us=_us(device.clock_offset_us, speed),
    )


def _workload(workload: WorkloadPlan, speed: float) -> WorkloadPlan:
    times: dict[str, Any] = {name: _us(getattr(workload, name), speed) for name in _WORKLOAD_TIMES}
    times["every_us"] = max(1, times["every_us"])
    return msgspec.structs.replace(workload, **times)


def _fault(fault: FaultPlan, speed: float) -> FaultPlan:
    return msgspec.structs.replace(
        fault,
        at_us=_us(fault.at_us, speed),
        until_us=_us(fault.until_us, speed),
        params={name: _us(value, speed) if name.endswith("_us") else value for name, value in fault.params.items()},
        events=[(_us(at, speed), device, _us(duration, speed)) for at, device, duration in fault.events],
    )


def _cloud(cloud: CloudPlan, speed: float) -> CloudPlan:
    waits: dict[str, Any] = {name: max(1, _us(getattr(cloud, name), speed)) for name in (*_CLOUD_WAITS, *_FEED_WAITS)}
    waits["lease_us"] = max(min(cloud.lease_us, LEASE_MIN_US), _us(cloud.lease_us, speed))
    return msgspec.structs.replace(cloud, **waits)


def _broker(broker: BrokerPlan, speed: float) -> BrokerPlan:
    keep_alive_us = max(min(broker.keep_alive_us, KEEP_ALIVE_MIN_US), _us(broker.keep_alive_us, speed))
    return msgspec.structs.replace(broker, keep_alive_us=keep_alive_us)


def _commands(commands: CommandPlan, speed: float) -> CommandPlan:
    return CommandPlan(
        keep_us=_us(commands.keep_us, speed),
        spacing_us=_us(commands.spacing_us, speed),
        settle_us=max(min(commands.settle_us, SETTLE_MIN_US), _us(commands.settle_us, speed)),
        second_us=max(1, _us(commands.second_us, speed)),
    )


def _agent(agent: AgentPlan, speed: float) -> AgentPlan:
    values: dict[str, Any] = {}
    for name in agent.__struct_fields__:
        value = getattr(agent, name)
        if name.endswith("_ms") and value:
            values[name] = max(min(value, FLOORS_MS.get(name, 1)), round(value / speed))
    return msgspec.structs.replace(agent, **values)
