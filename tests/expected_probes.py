"""The probes that a small sweep hits, for each mix: a path that is tested no more must not go unnoticed.

`python tests/expected_probes.py` runs the sweeps and writes tests/fleet/expected_probes.json again. That is right after
a change by which a path is gone or no longer taken for a good reason; a probe that is lost without one is a hole in the
tests. A probe is written down when several runs hit it, so that a change of chance alone loses none. Read by
tests/fleet/test_probes.py.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fleet.scenario.shipped import scenario_paths
from fleet.sweep.case import Case, source_of
from fleet.sweep.pool import Here
from fleet.sweep.sweep import Sweep, Wanted, sweep

FILE: Final = Path(__file__).resolve().parent / "fleet" / "expected_probes.json"
DEVICES: Final = 10
SEEDS: Final = range(1, 4)
RUNS_MIN: Final = 3  # that hit a probe, for it to be written down


def mixes() -> list[str]:
    """`swarm`: all scenarios, drawn; `fixed`: all, as they are written."""
    return ["fixed", "swarm"]


def swept(mix: str) -> Sweep:
    sources = [source_of(name, (), DEVICES) for name in scenario_paths()]
    cases = [Case(source, seed, mix == "swarm") for seed in SEEDS for source in sources]
    return sweep(Here(), cases, Wanted(0))


def lost(expected: Iterable[str], result: Sweep) -> list[str]:
    """Probes that used to be hit and were not."""
    hit = result.probes_hit()
    return [name for name in expected if not hit[name]]


def expected_probes() -> dict[str, list[str]]:
    probes: dict[str, list[str]] = json.loads(FILE.read_text())
    return probes


def main() -> None:
    found = {}
    for mix in mixes():
        hit = swept(mix).probes_hit()
        found[mix] = sorted(name for name, runs in hit.items() if runs >= RUNS_MIN)
        print(f"{mix}: {len(found[mix])} of {len(hit)} probes that were hit")
    FILE.write_text(json.dumps(found, indent=4) + "\n")


if __name__ == "__main__":
    main()
