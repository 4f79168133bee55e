"""Every planted bug is caught by a check that names the device and the item, and none is on unless it is asked for."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from plant_rig import DEVICES, NAMED, SEEDS, noticed, runs
from run_rig import fleet

from agent.database import Database
from agent.remote.commander import Commander
from agent.replica import Replica
from agent.session import Session
from agent.store import Store
from cloud.relay import Relay
from fleet.oracle import NAMES
from fleet.plants import PLANTS, types_with
from fleet.scenario.shipped import scenario_paths
from fleet.world.cloud import CloudWorld
from fleet.world.world import Types
from reports.summary import Check

ROOT = Path(__file__).resolve().parents[2]


def tiers() -> Iterator[Any]:
    """For each check the first bug that it catches; the others are slow. `.ci/run` has all of them caught, compiled."""
    caught: set[str] = set()
    for name, plant in PLANTS.items():
        yield pytest.param(name, marks=() if set(plant.caught_by) - caught else pytest.mark.slow)
        caught |= set(plant.caught_by)


@pytest.mark.parametrize("name", list(tiers()))
def test_a_planted_bug_is_caught_and_the_detail_names_device_and_item(name: str) -> None:
    for devices, seed, whole in runs(name):
        details = [check.detail for check in noticed(name, PLANTS[name].scenario, devices, seed, whole=whole)]
        if any(NAMED.search(detail) for detail in details):
            return
    pytest.fail(f"{name}: none of {', '.join(PLANTS[name].caught_by)} failed")


def test_no_planted_bug_is_on_unless_it_is_asked_for() -> None:
    for name in PLANTS:
        types_with(name)
    types = types_with("")
    agent = types.agent
    parts_of_agent = (agent.database, agent.session, agent.replica, agent.store, agent.commander)
    assert parts_of_agent == (Database, Session, Replica, Store, Commander)
    assert (types.relay, types.cloud, agent.wants_puback) == (Relay, CloudWorld, False)
    parts = (Relay.sequencer_type, Relay.orphans_type, Relay.ingest_type, Relay.catchup_type)
    assert all(part.__module__.startswith("cloud.") for part in parts)


@pytest.mark.parametrize("name", list(PLANTS))
def test_a_planted_bug_changes_the_one_part_that_it_says(name: str) -> None:
    planted, real = types_with(name), Types()
    agent = [
        one
        for one in ("database", "session", "replica", "store", "commander")
        if getattr(planted.agent, one) is not getattr(real.agent, one)
    ]
    relay = [one for one in ("relay", "cloud") if getattr(planted, one) is not getattr(real, one)]
    assert (len(agent), len(relay)) == ((1, 0) if PLANTS[name].where == "agent" else (0, 1))


def test_the_product_knows_nothing_of_planted_bugs() -> None:
    sources = [path for room in ("agent", "cloud") for path in sorted((ROOT / room).rglob("*.py"))]
    assert len(sources) > 20
    told = [path.name for path in sources if re.search(r"plant|mutant", path.read_text(), re.IGNORECASE)]
    assert told == []


def test_a_planted_bug_says_what_it_does_where_it_is_caught_and_by_what() -> None:
    for plant in PLANTS.values():
        assert plant.statement.endswith((".", ").")) and len(plant.statement) > 30
        assert plant.scenario in scenario_paths()
        assert plant.caught_by and set(plant.caught_by) <= set(NAMES)
    statements = [plant.statement for plant in PLANTS.values()]
    assert len(set(statements)) == len(statements) and list(PLANTS) == sorted(PLANTS)


def test_an_unknown_planted_bug_is_bad_input_with_a_suggestion() -> None:
    done = fleet("run", "baseline", "--plant", "ekho")
    assert done.returncode == 2
    assert "ekho" in done.stderr and "did you mean 'echo'?" in done.stderr


def test_a_planted_bug_fails_the_run_and_is_told_in_the_summary(tmp_path: Path) -> None:
    done = fleet("run", "outage", "--devices", "10", "--plant", "direction-forgotten", "--out", str(tmp_path / "run"))
    assert done.returncode == 1
    assert '"plant":"direction-forgotten"' in (tmp_path / "run" / "summary.json").read_text().replace(": ", ":")


@pytest.mark.slow
def test_every_planted_bug_is_caught_within_twenty_seeds_of_fifty_devices() -> None:
    with ProcessPoolExecutor(2) as pool:
        rows = list(pool.map(seeds_needed, PLANTS))
    width = max(map(len, PLANTS))
    for name, seeds, checks in rows:
        print(f"{name:{width}}  {PLANTS[name].scenario:12}  {seeds or 'survives':>8}  {', '.join(checks)}")
    assert [name for name, seeds, _ in rows if not seeds] == []


def seeds_needed(name: str) -> tuple[str, int, list[str]]:
    """How many seeds until a check noticed, 0 when none did; and the checks."""
    for seed in SEEDS:
        checks: list[Check] = noticed(name, PLANTS[name].scenario, DEVICES, seed, whole=True)
        if checks:
            return name, seed, [check.name for check in checks]
    return name, 0, []
