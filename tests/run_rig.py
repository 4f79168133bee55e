"""Small whole worlds for the tests of runs: a scenario of a few devices and minutes with everything in it, and runners.

Used by the tests of fleet.run, of the world and of the commands. Holds no state.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scenario_rig import write

from fleet.run import execute
from fleet.scenario.build import build_plan
from fleet.scenario.load import load
from fleet.scenario.plan import Plan
from fleet.world.world import World
from reports.result import RunResult
from reports.summary import Summary

ROOT = Path(__file__).resolve().parent.parent

BUSY = """\
name: busy
schema: fleet.json5
duration: 12m
devices:
  - {name: home, count: 4, account: acme, region: east, link: home-wifi, boot: {over: 10s}}
  - {name: shop, count: 2, account: beta, region: west, link: lte, encoding: msgpack, boot: {over: 10s}}
workload:
  - {name: status, side: device, model: Status, every: 20s, jitter: 20%, bytes: [200, 400]}
  - {name: fault, side: device, model: Fault, action: create, rate: 30/h, remove: 40%, keep: 4, bytes: 200}
  - {name: config, side: cloud, model: Config, every: 40s, jitter: 20%, bytes: [200, 400]}
  - {name: notice, side: cloud, model: Notice, action: create, every: 1m, keep: 3, bytes: 200}
  - {name: setting-device, side: device, model: Setting, rate: 40/h, items: 2, bytes: 200}
  - {name: setting-cloud, side: cloud, model: Setting, action: toggle, rate: 40/h, items: 2, bytes: 200}
  - {name: diagnostic, side: device, model: Diagnostic, rate: 20/h, items: 2, bytes: 200}
  - {name: audit, side: cloud, model: Audit, action: create, rate: 20/h, keep: 3, bytes: 200}
faults:
  - {kind: broker-outage, at: 4m, duration: 1m, target: {region: east}}
  - {kind: reboots, rate: 6/h, off: [5s, 20s]}
  - {kind: power-cut, rate: 6/h, off: [10s, 30s]}
  - {kind: relay-kill, rate: 30/h}
  - {kind: messages, lose: 2%, duplicate: 2%, reorder: 2%}
phases: {warm_up: 1m, quiesce: 3m, converge_within: 20m}
"""

CALM = BUSY[: BUSY.index("faults:")] + BUSY[BUSY.index("phases:") :]  # without a fault


def busy_plan(directory: Path, seed: int = 1, text: str = BUSY, overrides: Sequence[str] = ()) -> Plan:
    return build_plan(load(write(directory, text), overrides), seed)


def run_plan(plan: Plan) -> RunResult:
    return execute(plan)


def ran(plan: Plan) -> World:
    """A world that has come to its end."""
    world = World(plan)
    world.finish(world.run())
    return world


def failures(summary: Summary) -> list[str]:
    """What did not pass, in words; thresholds too."""
    checks = [f"{check.name}: {check.detail}" for check in summary.checks if check.status == "fail"]
    return checks + [f"{one.expr} is {one.actual}" for one in summary.thresholds if one.status != "pass"]


def fleet(*arguments: str, cwd: Path = ROOT, **options: Any) -> subprocess.CompletedProcess[str]:
    """`fleet ARGUMENTS` as a process of its own."""
    return subprocess.run(command(*arguments), cwd=cwd, capture_output=True, text=True, check=False, **options)


def command(*arguments: str) -> list[str]:
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from fleet.cli import main; main()"
    return [sys.executable, "-c", code, *arguments]


def summary_of(directory: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((directory / "summary.json").read_text())
    return values
