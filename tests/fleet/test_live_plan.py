"""What a live run makes of a plan before anything is started: speed, faults, script; and what it refuses."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from live_run_rig import SHORT, plan_of, ready
from run_rig import BUSY
from scenario_rig import write
from typer.testing import CliRunner

from agent.protocol.errors import InputError
from agent.protocol.schema import Schema
from fleet.cli import build_app
from fleet.live import setup
from fleet.live.applied import WHY_NOT, applied, can, countable, killed
from fleet.live.hosts import SHARED_MAX, shares, socket_in
from fleet.live.parts import NotInstalled
from fleet.live.scaling import FLOORS_MS, SETTLE_MIN_US, scaled
from fleet.live.script import shifted, simulated
from fleet.live.setup import Asked, checked
from fleet.scenario.build import build_plan
from fleet.scenario.faults import KINDS
from fleet.scenario.load import load
from fleet.scenario.plan import Plan


@pytest.fixture
def busy(tmp_path: Path) -> Plan:
    return plan_of(tmp_path, BUSY)


def test_at_its_own_speed_a_plan_stays_as_it_is(busy: Plan) -> None:
    assert scaled(busy, 1.0) == busy


def test_a_faster_plan_does_the_same_closer_together(busy: Plan) -> None:
    quick = scaled(busy, 60.0)
    assert quick.duration_us == busy.duration_us // 60
    assert [workload.every_us for workload in quick.workloads] == [
        round(workload.every_us / 60) for workload in busy.workloads
    ]
    for slow, fast in zip(busy.faults, quick.faults, strict=True):
        assert [(device, round(at / 60)) for at, device, _ in slow.events] == [(d, at) for at, d, _ in fast.events]
        assert fast.until_us <= quick.duration_us
    assert quick.groups == busy.groups, "a network does not get faster"
    assert quick.agent.resend_base_ms == FLOORS_MS["resend_base_ms"]
    assert quick.agent.hello_period_ms == busy.agent.hello_period_ms // 60
    assert (quick.checks, quick.thresholds) == (busy.checks, busy.thresholds)


def test_every_kind_of_fault_is_done_or_has_a_reason_why_not() -> None:
    for kind in KINDS:
        outage = load("baseline")
        plan = msgspec.structs.replace(build_plan(outage), faults=[])
        fault = build_plan(load("outage")).faults[0]
        params: dict[str, object] = {"delay_us": 0, "lose": 0.1, "duplicate": 0, "reorder": 0, "qos": None, "hops": []}
        one = msgspec.structs.replace(fault, kind=kind, name=kind, params=params)
        assert can(one) or WHY_NOT[kind]
        if not can(one):
            with pytest.raises(InputError, match="none of its faults has a real counterpart"):
                applied(msgspec.structs.replace(plan, faults=[one]))


def test_what_has_no_counterpart_is_left_out_and_named(busy: Plan) -> None:
    done, left = applied(busy)
    assert [fault.kind for fault in done.faults if fault.kind == "messages"] == []
    assert {one.name for one in left} == {"messages", "loss"}
    assert all(group.link.loss == 0 for group in done.groups)
    assert done.checks == busy.checks, "what the scenario calls for is still called for"


def test_thresholds_that_only_a_simulated_world_meets_are_left_out_and_named(busy: Plan) -> None:
    wanted = [
        "probes.worker_killed > 0",
        "probes.conflict_lost > 0",
        "probes.row_expired > 0",
        "probes.retransmit > 0",
        "probes.rejected < 5",
        "during broker-outage: online < 50%",
        "after heal table-restore: recovered_s < 5m",
    ]
    plan, left = countable(msgspec.structs.replace(busy, thresholds=wanted), {"retransmit": 3, "row_expired": 2})
    assert plan.thresholds == wanted[3:6]
    assert {one.name: one.why for one in left} == {
        wanted[0]: "only the simulated world counts it",
        wanted[1]: "without what is not applied, the simulation does not count it either",
        wanted[2]: "the emulator's table does not sweep items whose lives are over",
        wanted[6]: "table-restore is not applied",
    }


def test_a_scenario_that_gives_commands_is_carried_out_at_its_speed() -> None:
    plan = build_plan(load("remote-commands", [], 5))
    done, left = applied(plan)
    assert "table-restore" in {one.kind for one in left} and done.workloads == plan.workloads
    quick = scaled(done, 20.0).commands
    assert (quick.keep_us, quick.spacing_us, quick.second_us) == (30_000_000, 30_000_000, 50_000)
    assert quick.settle_us == SETTLE_MIN_US
    found = simulated(scaled(done, 60.0))
    assert found is not None
    orders = [op for op in found.cloud_ops if op.image.get("_type") == "Command"]
    assert orders and all(type(op.image["expires"]) is int for op in orders)
    model = Schema.parse(plan.schema_text, plan.schema_file).models["Command"]
    moved = shifted(orders[0].image, model, 0, 1_000)
    assert moved["expires"] == orders[0].image["expires"] + 1_000
    ops = [op for ops in found.device_ops.values() for op in ops]
    assert len(ops) == found.totals.local_writes and not [op for op in ops if op.model == "CommandResult"]
    assert found.totals.items["CommandResult"] and not [key for key in found.state if "command-result#" in key[1]]


def test_devices_that_lose_power_have_a_process_of_their_own(busy: Plan) -> None:
    names = [device.id for device in busy.devices]
    alone = killed(busy)
    assert alone
    found = shares(names, alone, per_device=False)
    assert sorted(name for share in found for name in share) == sorted(names)
    assert all(len(share) == 1 for share in found if share[0] in alone)
    assert len([share for share in found if share[0] not in alone]) <= SHARED_MAX
    assert shares(names, alone, per_device=True) == [[name] for name in names]


def test_the_script_has_every_write_that_the_simulation_counted(tmp_path: Path) -> None:
    plan = applied(scaled(plan_of(tmp_path, BUSY), 60.0))[0]
    first, second = simulated(plan), simulated(plan)
    assert first is not None and second is not None
    assert first.device_ops == second.device_ops and first.cloud_ops == second.cloud_ops
    ops = [op for ops in first.device_ops.values() for op in ops]
    assert len(ops) == first.totals.local_writes > 0
    assert len(first.cloud_ops) == first.totals.cloud_writes > 0
    assert {op.action for op in ops} == {"create", "put", "remove"}
    assert {op.kind for op in first.cloud_ops} >= {"put", "update", "delete"}
    assert all(op.properties["id"] for op in ops if op.model == "Fault")
    assert all(a.at_us <= b.at_us for a, b in zip(first.cloud_ops, first.cloud_ops[1:], strict=False))


def test_a_planted_bug_is_not_in_the_simulation_that_a_run_is_compared_with(tmp_path: Path) -> None:
    sound, planted = ready(tmp_path, SHORT), ready(tmp_path, SHORT, "echo")
    assert planted.plan.plant == "echo"
    assert planted.simulated.totals == sound.simulated.totals


def test_without_mosquitto_devices_connect_to_the_relay_and_a_line_says_so(
    busy: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> str:
        raise NotInstalled(f"{name} is missing")

    monkeypatch.setattr(setup, "program", missing)
    asked, told = checked(Asked(), busy)
    assert asked.websocket
    assert told == "mosquitto is missing: devices connect to the relay itself, by WebSocket"
    assert checked(Asked(websocket=True), busy)[1] == ""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["outage", "--broker", "mqtt://broker.example"], "takes the broker away"),
        (["baseline", "--broker", "http://broker.example"], "expected one of mqtt"),
        (["baseline", "--broker", "mqtt://broker.example:many"], "the port is no number"),
        (["baseline", "--broker", "mqtt://broker.example", "--ca", "ca.pem"], "goes with a broker at mqtts://"),
        (["baseline", "--broker", "mqtts://broker.example", "--cert", "c.pem"], "go together"),
        (["baseline", "--broker", "mqtts://broker.example", "--ca", "none.pem"], "no such file"),
        (["baseline", "--cert", "c.pem"], "goes with --broker"),
        (["baseline", "--broker", "mqtt://broker.example", "--websocket"], "without a broker"),
        (["baseline", "--table", "http://table.example"], "not on this machine"),
        (["baseline", "--speed", "0"], "expected a number"),
        (["baseline", "--attach", "lab-0001"], "which the run starts itself"),
        (["baseline", "--attach", "no/id"], "is no id"),
        (["baseline", "--plant", "feed-overwrites"], "a bug of the relay"),
        (["baseline", "--plant", "ecko"], "echo"),
        (["basline"], "baseline"),
    ],
)
def test_what_cannot_be_had_is_refused_before_anything_is_started(
    arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def started(*_: object, **__: object) -> None:
        raise AssertionError("something was started")

    monkeypatch.setattr("fleet.live.result.perform", started)
    monkeypatch.setattr("fleet.live.result.prepared", started)
    monkeypatch.setattr("fleet.live.setup.program", lambda name: name)
    with pytest.raises(InputError) as refused:
        CliRunner().invoke(build_app(), ["live", *arguments], catch_exceptions=False)
    assert said in str(refused.value.problems[0])


def test_a_scenario_all_of_whose_faults_cannot_be_done_is_refused_with_the_reasons(tmp_path: Path) -> None:
    text = (
        SHORT.replace("home-wifi", "ethernet").replace("lte", "ethernet")
        + "faults: [{kind: clone, at: 1m, duration: 1m}]"
    )
    scenario = write(tmp_path, text)
    with pytest.raises(InputError) as refused:
        CliRunner().invoke(build_app(), ["live", str(scenario)], catch_exceptions=False)
    (problem,) = refused.value.problems
    assert "none of its faults has a real counterpart (clone: a second copy of a device is not started)" in str(problem)
    assert f"fleet run {scenario}" in str(problem)


def test_a_path_that_is_too_long_for_a_socket_is_refused_with_what_to_do(tmp_path: Path) -> None:
    assert socket_in(Path("/tmp/fleet-live")) == "/tmp/fleet-live/run.socket"
    with pytest.raises(InputError, match="TMPDIR"):
        socket_in(tmp_path / ("x" * 100))
