"""Which of a plan's faults are done to real parts in a live run, and which have no real counterpart there.

What is left of a plan is what the live run does, and what is simulated to be compared with; the rest is named in the
summary, with the reason. Pure; called by `fleet live` before anything is started, and by fleet.live.faults.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import msgspec

from agent.protocol.errors import InputError, Problem
from fleet.probes import WORLD
from fleet.scenario.expect_grammar import fault_of, parse_threshold
from fleet.scenario.plan import FaultPlan, Plan
from reports.live import NotApplied

# Kind -> what is really done.
APPLIED: Final[dict[str, str]] = {
    "broker-outage": "the broker is killed and started again; of some regions only: their connections are cut and "
    "new ones refused, by the proxy",
    "link-down": "the proxy lets nothing through, either way",
    "disconnects": "the proxy closes the connections",
    "half-open": "the proxy keeps the connections open and lets nothing through any more",
    "reboots": "the agent is stopped and started again; not orderly: its process is killed (SIGKILL)",
    "power-cut": "the agent's process is killed (SIGKILL) and started again",
    "relay-kill": "a relay's process is killed (SIGKILL) and started again",
    "relay-stall": "a relay's process is stopped where it stands (SIGSTOP) and goes on later (SIGCONT)",
    "clock": "the agent is given a wall clock that jumps",
    "messages": "the proxy delays what passes between device and broker, where nothing but `delay` is asked for",
}
WHY_NOT: Final[dict[str, str]] = {
    "messages": "a real broker loses, repeats and reorders nothing on its own",
    "stream-replay": "the emulator's stream tells each record once; a relay that is killed reads some of them again",
    "stream-delay": "the emulator's stream is not delayed",
    "table-throttle": "the emulator refuses nothing",
    "table-silence": "the emulator answers always",
    "table-restore": "the emulator's table is not put back",
    "silent-damage": "nothing is changed behind the backs of the agent and of the table",
    "rollout": "the agents keep the schema that they began with",
    "relay-rollout": "the relays keep the schema that they began with",
    "poison": "no program writes past the model",
    "clone": "a second copy of a device is not started",
    "device-restore": "the agent's files are not set back to an older copy",
    "factory-reset": "the agent's files are not wiped",
    "disk-full": "the agents' files may grow as long as this machine has room",
}
_LOSS: Final = "packets between processes of one machine are not lost; delays and rates of the links are kept"
_DEVICE_HOPS: Final = frozenset(("device-to-broker", "broker-to-device"))
_OF_SWEEPS: Final = ("row_expired",)
_PROBE: Final = re.compile(r"probes\.(\w+)\s*>\s*0")
KILLS: Final = ("power-cut", "reboots")


def applied(plan: Plan) -> tuple[Plan, list[NotApplied]]:
    """The plan with what a live run can do, and what it cannot. Raises InputError where a scenario has faults and none
    of them can be done."""
    done = [fault for fault in plan.faults if can(fault)]
    left = [
        NotApplied(name=fault.name, kind=fault.kind, why=WHY_NOT[fault.kind]) for fault in plan.faults if not can(fault)
    ]
    if left and not done:
        names = ", ".join(f"{one.name}: {one.why}" for one in left)
        raise _refused(plan, "faults", f"none of its faults has a real counterpart ({names})")
    groups = [
        msgspec.structs.replace(group, link=msgspec.structs.replace(group.link, loss=0.0, burst=1.0))
        for group in plan.groups
    ]
    if any(group.link.loss for group in plan.groups):
        left.append(NotApplied(name="loss", kind="link", why=_LOSS))
    return msgspec.structs.replace(plan, faults=done, groups=groups), left


def countable(plan: Plan, probes: Mapping[str, int]) -> tuple[Plan, list[NotApplied]]:
    """The plan without the thresholds that want a path taken which nothing in a live run takes or counts, or that are
    about a fault which was left out. `probes`: of its simulation, in which what a live run cannot do was left out."""
    kept, left = [], []
    faults = [fault.name for fault in plan.faults]
    for expr in plan.thresholds:
        wanted = _PROBE.fullmatch(expr.strip())
        why = "" if wanted is None else _why_not_counted(wanted[1], probes)
        fault = fault_of(parse_threshold(expr))
        if fault and fault not in faults:
            why = f"{fault} is not applied"
        if why:
            left.append(NotApplied(name=expr, kind="threshold", why=why))
        else:
            kept.append(expr)
    return msgspec.structs.replace(plan, thresholds=kept), left


def _why_not_counted(probe: str, probes: Mapping[str, int]) -> str:
    if probe in WORLD.split():
        return "only the simulated world counts it"
    if probe in _OF_SWEEPS:
        return "the emulator's table does not sweep items whose lives are over"
    return "" if probes.get(probe) else "without what is not applied, the simulation does not count it either"


def _refused(plan: Plan, key: str, message: str) -> InputError:
    hint = f"simulate it: fleet run {plan.source or plan.scenario}"
    return InputError([Problem(plan.source or plan.scenario, 0, 0, key, message, hint)])


def can(fault: FaultPlan) -> bool:
    """Whether the fault is done to real parts."""
    if fault.kind != "messages":
        return fault.kind in APPLIED
    params = fault.params
    only_late = params["delay_us"] and not (params["lose"] or params["duplicate"] or params["reorder"])
    return bool(only_late) and params["qos"] is None and frozenset(params["hops"]) <= _DEVICE_HOPS


def killed(plan: Plan) -> dict[str, str]:
    """Devices whose process a fault will kill -> the fault's name."""
    found: dict[str, str] = {}
    for fault in plan.faults:
        if fault.kind not in KILLS or (fault.kind == "reboots" and fault.params.get("orderly", True)):
            continue
        for _, device, _ in fault.events:
            names = [device] if device else fault.devices or [device.id for device in plan.devices]
            found.update(dict.fromkeys(names, fault.name))
    return found
