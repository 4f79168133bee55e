"""The whole core compiled: the same hashes, and the same bugs found. `make native` first; what is stale fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Final

import pytest
from golden import golden_hashes
from run_rig import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

PREPARED: Final = """
import json, sys
from fleet.native.start import prepare
assert prepare(), "the core is not compiled, or from another source: make native"
"""
HASHES: Final = """
from golden import golden_plan
from fleet.run import execute
from fleet.scenario.shipped import scenario_paths
summaries = {name: execute(golden_plan(name)).summary for name in scenario_paths()}
print(json.dumps({name: [one.verdict, one.trace_hash] for name, one in summaries.items()}))
"""
PLANTS: Final = """
from fleet.plants import PLANTS
from plant_rig import noticed, runs
missed = [name for name, plant in PLANTS.items() if not any(
    noticed(name, plant.scenario, devices, seed, whole=whole) for devices, seed, whole in runs(name))]
print(json.dumps(missed))
"""


def in_a_process(code: str) -> object:
    path = os.pathsep.join(map(str, (ROOT, ROOT / "tests")))
    environment = {**os.environ, "PYTHONPATH": path}
    command = [sys.executable, "-c", PREPARED + code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_every_shipped_scenario_passes_and_has_its_golden_hash() -> None:
    assert in_a_process(HASHES) == {name: ["pass", golden] for name, golden in golden_hashes().items()}


def test_every_planted_bug_is_caught() -> None:
    assert in_a_process(PLANTS) == []
