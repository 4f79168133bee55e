"""Digests in the simulated world: damage is found and healed, nothing else is ever taken for one, in any scenario."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
from golden import PLANNING
from run_rig import ran, run_plan
from scenario_rig import write

from agent.file_errors import stored_image
from agent.protocol.errors import InputError
from fleet.scenario.build import build_plan
from fleet.scenario.load import load
from fleet.scenario.plan import Plan
from fleet.scenario.shipped import scenario_paths
from fleet.world.damage import Damage
from fleet.world.world import World
from reports.summary import Summary

OFTEN = ("agent.digest_every=90s", "agent.digest_retry=20s", "agent.digest_heal=2m")
NAMES = [name for name in scenario_paths() if name != "bit-rot"]
TIERS = [pytest.param(name, marks=pytest.mark.slow if name in PLANNING else ()) for name in NAMES]
SEEDS = range(1, 21)
OFTEN_ENOUGH = 100  # models compared in a run; the shortest scenarios have 160
DEVICES = 8
SECOND_US = 1_000_000


def plan(name: str, *changes: str, seed: int = 1, devices: int = 20) -> Plan:
    return build_plan(load(name, changes, devices=devices), seed)


def status(summary: Summary) -> dict[str, str]:
    return {check.name: check.status for check in summary.checks}


def compared_often(name: str, seed: int) -> str:
    """What is wrong with a run of a scenario in which every device compares all the time; empty: nothing."""
    summary = run_plan(plan(name, *OFTEN, seed=seed, devices=DEVICES)).summary
    found = [f"{check.name}: {check.detail}" for check in summary.checks if check.status == "fail"]
    if summary.probes.get("digest_compared", 0) < OFTEN_ENOUGH:
        found.append(f"only {summary.probes.get('digest_compared', 0)} models were compared")
    if summary.probes.get("digest_mismatch", 0):
        found.append("a comparison took something for a damage")
    return f"{name} seed {seed}: {'; '.join(found)}" if found else ""


@pytest.mark.parametrize("name", TIERS)
def test_in_no_scenario_anything_is_taken_for_a_damage(name: str) -> None:
    assert not compared_often(name, 1)


@pytest.mark.slow
def test_in_no_scenario_anything_is_taken_for_a_damage_on_many_seeds() -> None:
    runs = [(name, seed) for name in NAMES for seed in SEEDS]
    with ProcessPoolExecutor(2) as pool:
        found = [text for text in pool.map(compared_often, *zip(*runs, strict=True), chunksize=5) if text]
    assert not found, "\n".join(found)


def test_without_digests_a_damage_is_never_found() -> None:
    summary = run_plan(plan("bit-rot", "agent.digest_every=0s", devices=10)).summary
    assert summary.verdict == "fail" and status(summary)["no-false-alarm"] == "unknown"
    failed = {name for name, state in status(summary).items() if state == "fail"}
    assert {"digest-heals", "convergence"} <= failed <= {"digest-heals", "convergence", "nothing-invented"}


def test_a_scenario_that_asks_for_no_digests_has_none() -> None:
    summary = run_plan(plan("baseline", devices=4)).summary
    assert not [name for name in summary.probes if name.startswith("digest_")]
    assert status(summary)["digest-heals"] == status(summary)["no-false-alarm"] == "unknown"


@pytest.fixture(scope="module")
def world() -> World:
    return ran(plan("bit-rot", devices=30))


def test_damage_strikes_in_every_way_and_all_of_it_is_healed(world: World) -> None:
    probes = world.probes
    assert min(probes["damaged_in_table"], probes["damaged_on_device"]) > 5
    assert probes["damage_healed"] >= probes["damaged_in_table"] + probes["damaged_on_device"]
    assert world.damage.open == []
    assert probes["digest_healing"] > 10 and probes["digest_restated"] > 0


def test_what_the_cloud_refused_since_is_damaged_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Device and table differ about it, and no comparison can tell."""
    world = ran(plan("bit-rot", "agent.digest_every=0s", devices=10))
    hits = world.damage.open
    refused = hits[0].key
    monkeypatch.setattr(world.oracle, "is_refused", lambda key: key == refused)
    world.damage._look(None)
    assert world.damage.open == [hit for hit in hits if hit.key != refused]


def test_a_delete_that_may_be_refused_yet_heals_no_loss_in_the_table() -> None:
    world = ran(plan("bit-rot", "agent.digest_every=0s", devices=10))
    both = [hit for hit in world.damage.open if hit.model.sends and hit.model.receives]
    hit = next(hit for hit in both if world.damage._item(hit.key) is None)
    database = hit.device.database
    assert database is not None
    item = database.store.visible(*hit.key).image
    assert item is not None
    database.remove(hit.model.name, hit.model.read(hit.key, stored_image(item)))
    assert database.store.visible(*hit.key).image is None
    world.damage._look(None)
    assert hit in world.damage.open


def test_a_copy_of_a_disk_that_is_put_back_brings_back_what_was_damaged_when_it_was_made_and_nothing_else(
    world: World,
) -> None:
    damage = world.damage
    hits = [hit for hits in damage._of.values() for hit in hits]
    for is_on_disk in (True, False):  # one in the table no older copy knows
        hit = next(hit for hit in hits if (hit.since_us > 0) is is_on_disk)
        device, begin_us, end_us = hit.device, hit.since_us, hit.healed_us
        assert end_us is not None
        copies = [(begin_us, True), (end_us, True), (end_us + SECOND_US, False), (60 * SECOND_US, not is_on_disk)]
        for copied_us, comes_back in copies:
            damage._of[device.device_id] = [hit]
            damage.put_back(device, copied_us)
            assert [one.key for one in damage.open] == ([hit.key] if comes_back else []), copied_us
            damage._look(None)  # the disk is what it was: they agree
            assert damage.open == []


def test_a_damage_that_a_copy_brings_back_is_found_anew_and_is_no_false_alarm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = scenario_paths()["bit-rot"].read_text()
    faults = "faults:\n  - {name: old-disks, kind: device-restore, rate: 1/h, back: 10m, from: 20m, until: 35m}\n"
    made = build_plan(load(write(tmp_path, text.replace("faults:\n", faults, 1)), (), devices=20), 1)
    summary = run_plan(made).summary
    assert summary.probes["damage_put_back"] > 2
    assert status(summary)["no-false-alarm"] == status(summary)["digest-heals"] == "pass"
    monkeypatch.setattr(Damage, "put_back", lambda self, device, copied_us: None)
    assert status(run_plan(made).summary)["no-false-alarm"] == "fail"


def test_a_comparison_that_has_no_room_is_tried_again(world: World) -> None:
    assert world.probes["digest_suspected"] > world.probes["digest_mismatch"]


def test_a_damage_of_a_model_that_does_not_sync_is_bad_input() -> None:
    with pytest.raises(InputError) as raised:
        load("bit-rot", ["faults.on-disk.model=Diagnostic"], devices=20)
    assert "Diagnostic" in str(raised.value) and "model that syncs" in str(raised.value)


@pytest.mark.parametrize("where", ["device", "table"])
def test_a_damage_keeps_to_the_place_and_the_model_that_it_is_told(where: str) -> None:
    changes = ["agent.digest_every=0s"] + [
        f"faults.{name}.where={where}" for name in ("on-disk", "in-table", "reports")
    ]
    world = ran(plan("bit-rot", *changes, "faults.for-all.model=Setting"))
    struck = "damaged_in_table" if where == "table" else "damaged_on_device"
    other = "damaged_on_device" if where == "table" else "damaged_in_table"
    assert world.probes[struck] > 5 and world.probes[other] <= 1  # `for-all` stays in the table
    assert not any(hit.model.name == "Notice" for hit in world.damage.open) or where == "device"
