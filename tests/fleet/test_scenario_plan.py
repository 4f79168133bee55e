"""Plans: the same for the same seed, independent in every draw, whole when read back, within what the scenario says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scenario_rig import GOOD, changed, loaded, problems

from agent.protocol.errors import InputError
from fleet.rng import Stream
from fleet.scenario.build import build_plan, required_checks
from fleet.scenario.events import arrival_us
from fleet.scenario.plan import FaultPlan, Plan

STORMY = """\
faults:
  - {kind: reboots, rate: 6/h, off: [5s, 30s], target: {share: 50%}}
  - {kind: disconnects, rate: 6/h}
  - {kind: half-open, rate: 3/h, duration: 5m}
  - {kind: clock, rate: 3/h, jump: 5s}
  - {kind: messages, lose: 5%, duplicate: 5%}
  - {kind: stream-replay, share: 5%}
  - {kind: relay-stall, rate: 30/h, duration: 20s}
  - {kind: table-throttle, share: 5%, at: 10m, duration: 5m}
"""


def stormy() -> str:
    return GOOD.replace("faults:\n", STORMY)


def events_of(fault: FaultPlan, device: str) -> list[tuple[int, str, int]]:
    return [event for event in fault.events if event[1] == device]


def test_the_same_seed_gives_the_same_plan_and_another_seed_another(tmp_path: Path) -> None:
    scenario = loaded(tmp_path, stormy())
    assert build_plan(scenario, 5).encode() == build_plan(scenario, 5).encode()
    assert build_plan(scenario, 5).encode() != build_plan(scenario, 6).encode()
    assert build_plan(scenario).seed == scenario.seed


def test_a_plan_does_not_depend_on_the_process(tmp_path: Path) -> None:
    loaded(tmp_path, stormy())
    code = (
        "import sys, hashlib; from fleet.scenario.load import load; from fleet.scenario.build import build_plan;"
        "print(hashlib.sha256(build_plan(load(sys.argv[1]), 3).encode()).hexdigest())"
    )
    root = str(Path(__file__).parents[2])
    digests = set()
    for hash_seed in ("0", "1", "random"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": root}
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "s.yaml")], env=environment, capture_output=True, check=True
        )
        digests.add(done.stdout)
    assert len(digests) == 1


def test_leaving_out_a_device_leaves_every_other_draw_as_it_was(tmp_path: Path) -> None:
    whole = build_plan(loaded(tmp_path, stormy()), 9)
    less = build_plan(loaded(tmp_path, stormy().replace("count: 6", "count: 5")), 9)
    gone = {device.id for device in whole.devices} - {device.id for device in less.devices}
    assert gone == {"home-0006"}
    assert [device for device in whole.devices if device.id not in gone] == less.devices
    for before, after in zip(whole.faults, less.faults, strict=True):
        assert before.name == after.name
        assert [event for event in before.events if event[1] not in gone] == after.events
        if before.devices is not None and after.devices is not None:
            assert [device for device in before.devices if device not in gone] == after.devices


def test_leaving_out_a_group_leaves_every_other_draw_as_it_was(tmp_path: Path) -> None:
    text = stormy().replace("link: lte}", "link: ethernet}").replace("target: {region: east}", "target: {}")
    whole = build_plan(loaded(tmp_path, text), 9)
    less = build_plan(
        loaded(tmp_path, text.replace("  - {name: home, count: 6, region: east, link: ethernet}\n", "")), 9
    )
    kept = {device.id for device in less.devices}
    for before, after in zip(whole.faults, less.faults, strict=True):
        assert [event for event in before.events if event[1] in kept | {""}] == after.events


@pytest.mark.parametrize("index", range(12))
def test_leaving_out_a_fault_leaves_every_other_draw_as_it_was(tmp_path: Path, index: int) -> None:
    lines = stormy().splitlines(keepends=True)
    faults = [number for number, line in enumerate(lines) if number > lines.index("faults:\n")]
    without = lines[: faults[index]] + lines[faults[index] + 1 :]
    whole, less = build_plan(loaded(tmp_path, stormy()), 9), build_plan(loaded(tmp_path, "".join(without)), 9)
    assert whole.devices == less.devices
    assert [fault for number, fault in enumerate(whole.faults) if number != index] == less.faults


def test_two_faults_of_one_kind_draw_apart(tmp_path: Path) -> None:
    text = changed("faults:\n", "faults:\n  - {name: more, kind: power-cut, rate: 4/h, off: [10s, 30s]}\n")
    faults = {fault.name: fault for fault in build_plan(loaded(tmp_path, text), 1).faults}
    assert faults["more"].events != faults["power-cut"].events


def test_a_plan_is_read_back_as_it_was(tmp_path: Path) -> None:
    plan = build_plan(loaded(tmp_path, stormy()), 2**63 - 1, plant="none")
    assert Plan.decode(plan.encode()) == plan
    assert "models" in plan.schema_text
    path = tmp_path / "plan.json"
    path.write_bytes(plan.encode())
    assert Plan.load(path) == plan


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"\xff", b'{"version": 1}', b"[" * 100_000])
def test_what_is_no_plan_is_refused_with_its_name(data: bytes) -> None:
    with pytest.raises(InputError, match=r"x\.json: not a plan"):
        Plan.decode(data, "x.json")


def test_a_plan_of_another_version_or_with_a_group_too_many_is_refused(tmp_path: Path) -> None:
    plan = build_plan(loaded(tmp_path), 1)
    with pytest.raises(InputError, match="a plan of version 99"):
        Plan.decode(msgspec.structs.replace(plan, version=99).encode())
    with pytest.raises(InputError, match=r"devices\.shop-0001: group 1 of 1"):
        Plan.decode(msgspec.structs.replace(plan, groups=plan.groups[:1]).encode())
    with pytest.raises(InputError, match="cannot be read"):
        Plan.load(tmp_path / "nothing.json")


@given(seed=st.integers(0, 2**63 - 1))
def test_every_fault_happens_within_the_scenario_and_to_those_it_is_aimed_at(
    tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    scenario = loaded(tmp_path_factory.mktemp("plan"), stormy())
    plan = build_plan(scenario, seed)
    everyone = [device.id for device in plan.devices]
    for fault in plan.faults:
        aimed = everyone if fault.devices is None else fault.devices
        assert aimed and set(aimed) <= set(everyone)
        assert fault.events == sorted(fault.events)
        ends: dict[str, int] = {}
        for at, device, duration in fault.events:
            assert 0 <= at < plan.duration_us and duration >= 0 and at + duration <= plan.duration_us, fault
            assert device == "" or device in aimed
            assert at >= ends.get(device, 0), "two at once"
            ends[device] = at + duration
        if fault.events:
            assert (fault.at_us, fault.until_us) == (fault.events[0][0], max(ends.values()))
    assert all(0 <= device.boot_at_us < 60_000_000 for device in plan.devices)
    shop = [device for device in plan.devices if device.id.startswith("shop")]
    assert all(abs(device.clock_offset_us) <= 1_000_000 and abs(device.clock_drift_ppb) <= 20_000 for device in shop)


@pytest.mark.parametrize("share", ["1%", "0.0001%"])
def test_a_share_of_a_small_fleet_hits_at_least_one_device(tmp_path: Path, share: str) -> None:
    for seed in range(20):
        plan = build_plan(loaded(tmp_path, changed("share: 40%", f"share: {share}")), seed)
        (cut,) = [fault for fault in plan.faults if fault.name == "cut"]
        assert cut.devices is not None and len(cut.devices) >= 1


def test_a_share_of_a_large_fleet_is_about_that_share(tmp_path: Path) -> None:
    plan = build_plan(loaded(tmp_path, GOOD, (), 2000), 1)
    (cut,) = [fault for fault in plan.faults if fault.name == "cut"]
    assert cut.devices is not None and 700 < len(cut.devices) < 900
    assert [event[1] for event in sorted(cut.events, key=lambda event: event[1])] == sorted(cut.devices)


def test_a_rate_is_kept_on_average(tmp_path: Path) -> None:
    plan = build_plan(loaded(tmp_path, changed("duration: 30m", "duration: 10h"), (), 300), 1)
    (cuts,) = [fault for fault in plan.faults if fault.kind == "power-cut"]
    assert len(cuts.events) == pytest.approx(300 * 4 * 10, rel=0.05)


def test_a_fault_for_all_is_one_event_and_one_with_draws_is_one_each(tmp_path: Path) -> None:
    text = changed("faults:\n", "faults:\n  - {kind: clock, at: [5m, 6m], jump: -5m}\n")
    faults = {fault.name: fault for fault in build_plan(loaded(tmp_path, text), 1).faults}
    assert faults["clock"].events == [(300_000_000, "", 0), (360_000_000, "", 0)]
    assert faults["clock"].params == {"jump_us": -300_000_000, "drift_ppb": 0}
    assert faults["broker-outage"].events == [(600_000_000, "", 120_000_000)]
    assert faults["broker-outage"].regions == ["east"]


def test_breaks_of_a_link_profile_are_a_fault_of_the_plan(tmp_path: Path) -> None:
    faults = {fault.name: fault for fault in build_plan(loaded(tmp_path, GOOD, (), 900), 1).faults}
    offline = faults["link-offline"]
    assert offline.kind == "link-down" and offline.events
    assert offline.devices is not None and all(device.startswith("home-") for device in offline.devices)
    lengths = sorted(duration for _, _, duration in offline.events)
    assert lengths[len(lengths) // 2] == pytest.approx(10_000_000, rel=0.5)  # lte: median 10 s


def test_beta_arrivals_have_the_mean_and_the_spread_of_beta_3_4() -> None:
    stream = Stream(1)
    draws = [arrival_us(stream, 1_000_000, "beta") / 1e6 for _ in range(20_000)]
    mean = sum(draws) / len(draws)
    variance = sum((draw - mean) ** 2 for draw in draws) / len(draws)
    assert mean == pytest.approx(3 / 7, abs=0.005)
    assert variance == pytest.approx(12 / (49 * 8), rel=0.05)


def test_workloads_are_concrete(tmp_path: Path) -> None:
    plan = build_plan(loaded(tmp_path), 1)
    status, command, notice = plan.workloads
    assert (status.scope, status.every_us, status.jitter, status.poisson) == ("device", 60_000_000, 0.2, False)
    assert (status.key_field, status.filler_field, status.bytes_min, status.bytes_max) == ("", "text", 200, 400)
    assert (command.scope, command.every_us, command.poisson, command.key_field) == ("device", 900_000_000, True, "id")
    assert (notice.scope, notice.key_field, notice.until_us) == ("account", "id", 1_800_000_000)


def test_checks_are_required_by_what_the_scenario_does(tmp_path: Path) -> None:
    assert required_checks(loaded(tmp_path)) == ["convergence", "no-acked-write-lost", "writes-survive-power-cuts"]
    text = changed("faults:", "expect: {checks: [direction, convergence]}\nfaults:")
    assert required_checks(loaded(tmp_path, text)) == ["direction", "convergence"]


def test_devices_may_have_ids_times_and_rates_of_their_own(tmp_path: Path) -> None:
    given = "count: 2, ids: [home-0007, x:1], boot: {at: 90s, over: 0s}, clock: {rate: -20ppm}"
    plan = build_plan(loaded(tmp_path, changed("count: 6", given)), 1)
    home = [device for device in plan.devices if device.group == 0]
    assert [device.id for device in home] == ["home-0007", "x:1"]
    assert {(device.boot_at_us, device.clock_drift_ppb) for device in home} == {(90_000_000, -20_000)}


def test_a_fault_may_not_take_the_name_of_the_links_own_breaks(tmp_path: Path) -> None:
    found = problems(tmp_path, changed("name: cut,", "name: link-offline,"))
    assert any("choose another" in str(problem) for problem in found)
