"""What the simulated applications write."""

from __future__ import annotations

from pathlib import Path

from run_rig import busy_plan, run_plan

TWO_WRITERS = """\
name: two-writers
schema: fleet.json5
duration: 3m
devices: [{name: home, count: 4, account: acme, region: east, link: home-wifi, boot: {over: 10s}}]
workload:
  - {name: text, side: cloud, model: Setting, every: 2s, jitter: 50%, bytes: 200}
  - {name: switch, side: cloud, model: Setting, action: toggle, every: 2s, jitter: 50%}
faults: [{kind: table-throttle, share: 50%}]
phases: {warm_up: 10s, quiesce: 1m, converge_within: 20m}
"""


def test_an_application_that_writes_no_text_leaves_none_of_anothers_beside_its_number(tmp_path: Path) -> None:
    """A table that refuses for a while has it write over what it took for gone."""
    checks = {check.name: check.status for check in run_plan(busy_plan(tmp_path, 2, TWO_WRITERS)).summary.checks}
    assert checks["nothing-invented"] == "pass"
