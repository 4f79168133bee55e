"""Remote commands in a live run: real agents are ordered, restart their processes, are killed while they obey. What is
really done is told by the handlers, and judged by the oracle that judges simulated devices.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from live_run_rig import failed, plan_of, processes_of, run

from fleet.live import sightings
from fleet.live.applied import applied
from fleet.live.orders import restarted
from fleet.live.result import perform, prepared
from fleet.live.run import Live
from fleet.live.setup import Asked, checked
from fleet.scenario.build import build_plan
from fleet.scenario.load import load

ORDERS = """\
name: orders
schema: commands.json5
duration: 10m
devices:
  - {name: home, count: 2, account: acme, link: ethernet, boot: {over: 5s}}
workload:
  - name: order
    side: cloud
    model: Command
    action: create
    commands: [blink, work, fail, large, invalid, unknown, status, resync]
    rate: 120/h
    expires: [5m, 20m]
    keep: 12
  - name: restart
    side: cloud
    model: Command
    action: create
    commands: reboot
    rate: 20/h
    expires: [5m, 20m]
    keep: 4
  - {name: status, side: device, model: Status, every: 1m, jitter: 20%, bytes: [200, 400]}
  - {name: setting, side: device, model: Setting, rate: 20/h, items: 2, bytes: 200}
faults:
  - {name: cut, kind: power-cut, rate: 12/h, off: [5s, 30s]}
phases: {warm_up: 1m, quiesce: 3m, converge_within: 20m}
"""
INTERRUPTED = ORDERS.replace("commands: [blink, work, fail, large, invalid, unknown, status, resync]", "commands: work")
CHECKS = ("command-at-most-once", "command-answered", "command-not-expired", "command-after-clock")


@pytest.fixture(autouse=True)
def installed(mosquitto_is_there: None) -> None:
    """Runs start brokers of their own."""


def deeds(folder: Path) -> Counter[str]:
    """What the handlers told of, by the command's name."""
    found: Counter[str] = Counter()
    for file in (folder / "live").glob("home-*.seen"):
        found.update(what[2] for _, name, what in sightings.read(file) if name == "command_ran")
    return found


def test_devices_obey_restart_and_are_judged(tmp_path: Path) -> None:
    processes: dict[str, int] = {}

    async def look(live: Live) -> None:
        processes.update({host.setup.devices[0].id: host.part.starts for host in live.hosts.hosts.values()})

    result = run(tmp_path, ORDERS, tamper=look)
    summary = result.summary
    assert summary.verdict == "pass", {check.name: check.detail for check in summary.checks if check.status == "fail"}
    checked_by = {check.name: check.checked for check in summary.checks}
    assert all(checked_by[name] > 0 for name in (*CHECKS, "command-reboots-spaced")), checked_by
    done = deeds(tmp_path)
    assert done["blink"] and done["work"] and done["resync"] and done["reboot"], done
    assert sum(processes.values()) >= len(processes) + done["reboot"], "each restart is another process"
    assert summary.counts.reboots >= done["reboot"]
    assert summary.probes["command_done"] > 0 and summary.probes["command_refused"] > 0
    live = summary.live
    assert live is not None and live.comparison is not None
    totals = {total.name: total for total in live.comparison.totals}
    assert totals["local_writes"].equal and totals["cloud_writes"].equal, totals
    assert live.comparison.same_items == live.comparison.items
    assert not processes_of(tmp_path)


def test_a_command_that_is_done_again_after_a_kill_is_caught(tmp_path: Path) -> None:
    result = run(tmp_path, INTERRUPTED, plant="command-again-after-boot")
    assert "command-at-most-once" in failed(result), result.summary.checks


def test_devices_that_may_be_ordered_to_restart_have_a_process_of_their_own(tmp_path: Path) -> None:
    assert restarted(plan_of(tmp_path, ORDERS)) == {"home-0001": "restart", "home-0002": "restart"}
    assert restarted(plan_of(tmp_path, INTERRUPTED.replace("commands: reboot", "commands: blink"))) == {}


@pytest.mark.slow
def test_the_scenario_that_ships_passes_with_few_devices(tmp_path: Path) -> None:
    plan = build_plan(load("remote-commands", [], 4), 3)
    ready = prepared(plan, 30.0)
    asked, _ = checked(Asked(speed=30.0), applied(plan)[0])
    folder = tmp_path / "live"
    folder.mkdir()
    summary = perform(ready, asked, folder).summary
    assert summary.verdict == "pass", {check.name: check.detail for check in summary.checks if check.status != "pass"}
    by_name = {check.name: check for check in summary.checks}
    assert all(by_name[name].checked > 0 for name in CHECKS)
    assert summary.probes["command_done"] > 0
