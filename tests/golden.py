"""The trace hash of a small run of each shipped scenario: what every supported Python must give, on every machine.

`python tests/golden.py` runs them and writes tests/fleet/golden_hashes.json again. That is right after a change that is
meant to change what happens in a run; a hash that changes without such a reason is a defect. Read by the tests of runs.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Final

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fleet.run import execute
from fleet.scenario.build import build_plan
from fleet.scenario.load import load
from fleet.scenario.plan import Plan
from fleet.scenario.shipped import scenario_paths

DEVICES: Final = 50
SEED: Final = 1
# Scenarios for capacity planners: their runs are slow tests. `.ci/run` has all of them pass, compiled.
PLANNING: Final = frozenset((
    "certificate-expiry", "city-power-cut", "firmware-wave", "hot-item", "mass-config", "month-end", "nb-iot-fleet",
    "noisy-neighbour", "storm-full-jitter", "storm-no-jitter",
))  # fmt: skip
FILE: Final = Path(__file__).resolve().parent / "fleet" / "golden_hashes.json"


def golden_plan(name: str, seed: int = SEED) -> Plan:
    return build_plan(load(name, devices=DEVICES), seed)


def golden_hashes() -> dict[str, str]:
    hashes: dict[str, str] = json.loads(FILE.read_text())
    return hashes


def main() -> None:
    old = golden_hashes() if FILE.exists() else {}
    new = {name: execute(golden_plan(name)).summary.trace_hash for name in scenario_paths()}
    FILE.write_text(json.dumps(new, indent=4) + "\n")
    for name, trace_hash in new.items():
        print(f"{name}: {trace_hash}{'' if old.get(name) == trace_hash else ' (changed)'}")


if __name__ == "__main__":
    main()
