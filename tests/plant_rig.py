"""Runs a world with a planted bug until a check notices. Used by the tests of the plants."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from fleet.plants import PLANTS
from fleet.run import execute
from fleet.scenario.build import build_plan
from fleet.scenario.load import load
from fleet.world.world import Progress
from reports.summary import Check

DEVICES: Final = 50
SEEDS: Final = range(1, 21)
NAMED: Final = re.compile(r"device \S+, item \S+: expected .+, found .+")


class Known(NamedTuple):
    """A run in which a plant is caught soon. `whole`: what fails first does not name an item, what fails later does."""

    devices: int = 20
    seed: int = 1
    whole: bool = False


KNOWN: dict[str, Known] = {
    "backlog-in-one-message": Known(10, 1),
    "edit-in-flight": Known(10, 1),
    "expiry-not-sent": Known(whole=True),
    "feed-logs-stream-image": Known(50, 1),
    "gap-skipped": Known(whole=True),
    "items-unfenced": Known(10, 1),
    "late-rows-roll-back": Known(20, 4),
    "row-taken-for-ack": Known(10, 2),
    "snapshot-clears-outbox": Known(10, 2),
    "unfenced-commit": Known(20, 2),
    "void-accepted": Known(10, 13),
    "wall-clock-stamps": Known(20, 2),
}


def runs(name: str) -> Iterator[Known]:
    """The run that is known to do, and, since another seed may be needed after any change of what happens, more."""
    yield KNOWN.get(name, Known())
    for seed in SEEDS:
        yield Known(DEVICES, seed, True)


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
