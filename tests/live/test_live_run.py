"""`fleet live` with real parts: it passes, what is broken is caught, whoever stops it leaves nothing behind."""

from __future__ import annotations

import json
import os
import select
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from live_rig import Mosquitto, until
from live_run_rig import FLEETING, SHORT, STORMY, failed, processes_of, run
from run_rig import ROOT, command
from scenario_rig import write

from cloud.table import Get, Put
from fleet.live.run import Live, LiveFailed

LONG = SHORT.replace("duration: 5m", "duration: 2h")


@pytest.fixture(autouse=True)
def installed(mosquitto_is_there: None) -> None:
    """Runs start brokers of their own."""


def start(folder: Path, *arguments: str, text: str = LONG) -> subprocess.Popen[str]:
    """`fleet live` as a person starts it; all of its files are in a folder of that name."""
    scenario = write(folder, text)
    scratch = folder / "scratch"
    scratch.mkdir()
    whole = command("live", str(scenario), "--out", str(folder / "out"), *arguments)
    environment = {**os.environ, "TMPDIR": str(scratch)}
    return subprocess.Popen(whole, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def said(process: subprocess.Popen[str], text: str) -> str:
    """The first line on standard error that has it."""
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if text in line:
            return line
    raise AssertionError(f"{text!r} was not said: {lines}")


def test_a_scenario_with_faults_passes_and_does_what_its_simulation_did(tmp_path: Path) -> None:
    result = run(tmp_path, STORMY)
    summary = result.summary
    assert not failed(result), [check.detail for check in summary.checks if check.status == "fail"]
    assert summary.verdict == "pass"
    live = summary.live
    assert live is not None and live.comparison is not None
    totals = {total.name: total for total in live.comparison.totals}
    assert totals["local_writes"].equal and totals["cloud_writes"].equal, totals
    assert live.broker == "mosquitto" and live.relays == 2
    assert {one.name for one in live.not_applied} == {"messages", "loss"}
    assert summary.counts.reboots > 0 and summary.counts.connects > summary.devices
    assert {fault.kind for fault in result.faults} >= {"broker-outage", "reboots", "power-cut", "relay-kill"}
    assert all(fault.healed_s is not None for fault in result.faults)
    assert [latency.distance for latency in live.comparison.latencies if latency.distance is not None]
    assert not processes_of(tmp_path)


@pytest.mark.slow  # `.ci/run` has it
def test_without_a_broker_devices_connect_to_the_relay_itself(tmp_path: Path) -> None:
    result = run(tmp_path, SHORT, websocket=True, per_device=True)
    assert result.summary.verdict == "pass", result.summary.checks
    live = result.summary.live
    assert live is not None and (live.broker, live.relays, live.processes) == ("websocket", 1, 3)
    assert live.comparison is not None and live.comparison.same_items == live.comparison.items
    assert [total for total in live.comparison.totals if total.name.endswith("_writes") and total.equal]


@pytest.mark.slow  # `.ci/run` has it
def test_a_broker_that_is_given_is_used_and_left_alone(tmp_path: Path, broker: Mosquitto) -> None:
    result = run(tmp_path, SHORT, broker=broker.url)
    assert result.summary.verdict == "pass", result.summary.checks
    assert broker.alive and broker.starts == 1


@pytest.mark.slow  # `.ci/run` has it
def test_a_bug_of_the_agent_is_caught(tmp_path: Path) -> None:
    result = run(tmp_path, FLEETING, plant="delete-not-sent", within="10s")
    assert result.summary.verdict == "fail"
    assert {"every-write-decided", "convergence"} <= failed(result), result.summary.checks


def test_a_device_file_that_is_tampered_with_is_caught(tmp_path: Path) -> None:
    async def tamper(live: Live) -> None:
        device = live.plan.devices[0].id
        await live.hosts.tell("stop", device)
        with sqlite3.connect(live.folder / f"{device}.db") as file:
            changed = file.execute("DELETE FROM item WHERE sk='status#'").rowcount
        assert changed == 1
        file.close()
        await live.hosts.boot(device)

    result = run(tmp_path, SHORT, tamper=tamper)
    assert {"convergence", "writes-survive-power-cuts"} <= failed(result), result.summary.checks


@pytest.mark.slow  # `.ci/run` has it
def test_an_item_that_somebody_changes_in_the_table_is_caught(tmp_path: Path) -> None:
    async def tamper(live: Live) -> None:
        device = live.plan.devices[0].id
        found: dict[str, Any] = live.cloud.table.execute(Get((f"device#{device}", "status#")))
        live.cloud.table.execute(Put({**found, "rev": found["rev"] + 7}))

    result = run(tmp_path, SHORT, tamper=tamper)
    assert {"convergence", "nothing-invented"} <= failed(result), result.summary.checks


def test_agents_that_end_by_themselves_are_a_failure_of_the_harness_and_no_verdict(tmp_path: Path) -> None:
    async def kill(live: Live) -> None:
        os.kill(live.hosts.hosts["agents-1"].part.pid, signal.SIGKILL)

    with pytest.raises(LiveFailed, match="agents-1"):
        run(tmp_path, SHORT, tamper=kill)
    assert not processes_of(tmp_path)


def has_done(folder: Path) -> bool:
    return any(file.stat().st_size > 2_000 for file in folder.rglob("shop-*.seen"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_whoever_ends_it_leaves_no_process_behind(tmp_path: Path, number: signal.Signals) -> None:
    with start(tmp_path, "--speed", "60") as process:
        until(lambda: has_done(tmp_path), "a device has done something", lambda: select.select([], [], [], 0.05))
        assert any("fleet.live.host" in line for line in processes_of(tmp_path))
        process.send_signal(number)
        out, err = process.communicate()
    until(lambda: not processes_of(tmp_path), "no process of the run is left", lambda: None)
    if number is signal.SIGKILL:
        assert process.returncode == -signal.SIGKILL
        return
    assert process.returncode == 130, err
    assert out.splitlines()[-1] == str(tmp_path / "out")
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["interrupted"] and summary["counts"]["local_writes"] > 0
    assert (tmp_path / "out" / "report.html").exists()
    assert not list((tmp_path / "scratch").glob("fleet-live-*"))


def attached(folder: Path, *, comes: bool, websocket: bool) -> dict[str, Any]:
    """The summary of a short run that expects a device, which comes or does not."""
    more = ["--set", "phases.quiesce=2s", "--set", f"phases.converge_within={'40s' if comes else '5s'}"]
    more += ["--websocket"] if websocket else []
    with start(folder, "--speed", "40", "--attach", "visitor", "--json", *more, text=SHORT) as process:
        config = said(process, "expecting visitor").rpartition("--config ")[2].rstrip().removesuffix(")")
        if comes:
            agent = subprocess.Popen([sys.executable, "-m", "agent.cli", "run", "--config", config], cwd=ROOT)
        out, err = process.communicate()
        if comes:
            agent.kill()
            agent.wait()
    assert out, err
    summary: dict[str, Any] = json.loads(out[: out.rindex("}") + 1])
    assert {"pass": 0, "fail": 1, "unknown": 3}[summary["verdict"]] == process.returncode
    return summary


@pytest.mark.parametrize("websocket", [pytest.param(False, marks=pytest.mark.slow), True])
def test_a_device_that_comes_by_itself_is_checked(tmp_path: Path, websocket: bool) -> None:
    summary = attached(tmp_path, comes=True, websocket=websocket)
    (visitor,) = summary["live"]["attached"]
    assert (visitor["status"], visitor["detail"]) == ("pass", ""), visitor
    assert visitor["hellos"] > 1 and visitor["items"] > 0
    assert next(check for check in summary["checks"] if check["name"] == "attached")["status"] == "pass"
    assert summary["verdict"] == "pass"


def test_a_device_that_does_not_come_fails_the_run(tmp_path: Path) -> None:
    summary = attached(tmp_path, comes=False, websocket=False)
    assert summary["live"]["attached"][0]["detail"] == "it never came"
    assert summary["verdict"] == "fail"
    assert [check["name"] for check in summary["checks"] if check["status"] == "fail"] == ["attached"]
