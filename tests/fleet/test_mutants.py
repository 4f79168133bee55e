"""Hunting planted bugs: the seeds that one takes do not depend on jobs or on what comes back first; who survives."""

from __future__ import annotations

import json
from typing import Final

import pytest
from run_rig import fleet
from sweep_rig import NOWHERE, passes

from fleet.plants import PLANTS
from fleet.scenario.shipped import scenario_paths
from fleet.sweep.attempt import Kind, Outcome
from fleet.sweep.case import Case
from fleet.sweep.mutants import Caught, Mixes, hunt, in_numbers
from fleet.sweep.pool import Here, opened

BUDGET: Final = 8
# The seeds that catch each: the first one counts.
CATCH: Final = {"echo": (3, 4, 7), "no-resend": (1,), "gap-skipped": (), "void-accepted": (8,)}


def case_of(mix: str, plant: str, seed: int) -> Case:
    return Case(NOWHERE, seed, mix == "swarm", plant)


def run(case: Case) -> Outcome:
    if case.seed in CATCH[case.plant]:
        return passes(case, "fail", Kind(PLANTS[case.plant].caught_by[0], "expected N"))
    return passes(case)


def breaks(case: Case) -> Outcome:
    raise ZeroDivisionError("no world")


def hunted(jobs: int) -> dict[str, Caught]:
    if not jobs:
        return {row.plant: row for row in hunt(Here(), list(CATCH), ["own"], case_of, BUDGET, function=run)}
    with opened(jobs) as pool:
        return {row.plant: row for row in hunt(pool, list(CATCH), ["own"], case_of, BUDGET, function=run)}


@pytest.mark.parametrize("jobs", [0, 1, 3])
def test_the_first_seed_that_catches_a_bug_counts_whatever_comes_back_first(jobs: int) -> None:
    found = hunted(jobs)
    assert {name: row.seeds for name, row in found.items()} == {
        "echo": 3,
        "no-resend": 1,
        "gap-skipped": 0,
        "void-accepted": 8,
    }
    assert found["echo"].checks == [PLANTS["echo"].caught_by[0]] and found["echo"].expected
    assert found["echo"].command == "fleet run nowhere --seed 3 --plant echo"
    assert found["gap-skipped"].command == "" and not found["gap-skipped"].errors


def test_a_harness_that_fails_catches_nothing_and_is_told() -> None:
    (row,) = hunt(Here(), ["echo"], ["own"], case_of, 2, function=breaks)
    assert row.seeds == 0 and "ZeroDivisionError: no world" in row.errors[0]


def test_a_hunt_can_be_ended() -> None:
    assert list(hunt(Here(), list(CATCH), ["own"], case_of, BUDGET, lambda finished: True, run)) == []


def test_the_mixes_are_the_scenario_of_the_plant_all_in_turn_and_all_drawn() -> None:
    mixes, names = Mixes(20), list(scenario_paths())
    assert mixes.case("own", "memory-in-file", 9).source.name == PLANTS["memory-in-file"].scenario
    turn = [mixes.case("fixed", "echo", seed) for seed in range(1, len(names) + 2)]
    assert [case.source.name for case in turn] == [*names, names[0]]
    assert not any(case.swarm for case in turn) and mixes.case("swarm", "echo", 1).swarm


def test_the_numbers_of_a_mix() -> None:
    rows = [Caught(plant="a", mix="own", seeds=seeds, cpu_s=1.5) for seeds in (1, 3, 8, 0)]
    assert in_numbers(rows) == {
        "caught": 3,
        "survive": 1,
        "seeds_median": 3,
        "seeds_most": 8,
        "seeds_in_all": 12,
        "cpu_s": 6.0,
    }


def test_the_command_prints_the_seeds_and_the_check_and_exits_with_0_when_all_are_caught() -> None:
    done = fleet("mutants", "--only", "direction-forgotten", "--only", "echo", "--devices", "4", "--jobs", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "direction-forgotten" in done.stdout and "direction" in done.stdout and "own: 2 caught" in done.stdout


def test_the_command_exits_with_1_when_one_survives() -> None:
    """One device of each group, that meet no conflict: nothing is ever voided."""
    done = fleet("mutants", "--only", "void-accepted", "--seeds", "1", "--devices", "4", "--jobs", "1", "--json")
    told = json.loads(done.stdout)
    assert (done.returncode, told["mixes"]["own"]["survive"]) == (1, 1)


def test_what_is_not_there_is_bad_input() -> None:
    for arguments in (("--only", "ekho"), ("--mix", "some")):
        done = fleet("mutants", *arguments)
        assert (done.returncode, "Traceback" in done.stderr) == (2, False)
