"""Runs a world with a planted bug until a check notices. Used by the tests of the plants."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from fleet.plants import PLANTS
from fleet.run import execute
from fleet.scenario.build import build_plan
from fleet.scenario.load import load
from fleet.world.world import Progress
from reports.summary import Check

DEVICES: Final = 50
SEEDS: Final = range(1, 21)
NAMED: Final = re.compile(r"device \S+, item \S+: expected .+, found .+")


def failed_checks(plant: str, scenario: str, devices: int, seed: int, *, whole: bool = False) -> list[Check]:
    """The checks that failed. Unless it is to be a `whole` run, what fails on the way ends it; others judge its end."""
    failures = 0

    def look(progress: Callable[[], Progress]) -> None:
        nonlocal failures
        failures = progress().failures

    plan = build_plan(load(scenario, devices=devices), seed, plant=plant)
    result = execute(plan, None, look, lambda: failures > 0 and not whole, hashed=False)
    return [check for check in result.summary.checks if check.status == "fail"]


def noticed(plant: str, scenario: str, devices: int, seed: int, *, whole: bool = False) -> list[Check]:
    """Of the checks that should notice, those that did."""
    failed = failed_checks(plant, scenario, devices, seed, whole=whole)
    return [check for check in failed if check.name in PLANTS[plant].caught_by]
