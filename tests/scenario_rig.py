"""Small scenarios for the tests of fleet.scenario: one that is right, and ways to break it."""

from __future__ import annotations

from pathlib import Path

from agent.protocol.errors import InputError, Problem
from fleet.scenario.load import load
from fleet.scenario.model import Scenario

GOOD = """\
name: small
schema: fleet.json5
duration: 30m
devices:
  - {name: home, count: 6, region: east, link: lte}
  - {name: shop, count: 3, account: beta, region: west, clock: {spread: 1s, drift: 20ppm}}
workload:
  - {name: status, side: device, model: Status, every: 60s, jitter: 20%, bytes: [200, 400]}
  - {name: command, side: cloud, model: Command, action: create, rate: 4/h, keep: 5}
  - {name: notice, side: cloud, model: Notice, action: create, every: 10m, keep: 5}
faults:
  - {kind: broker-outage, at: 10m, duration: 2m, target: {region: east}}
  - {kind: power-cut, rate: 4/h, off: [10s, 30s]}
  - {name: cut, kind: link-down, at: 12m, duration: 3m, target: {share: 40%}, stagger: {over: 10s}}
  - {kind: relay-kill, rate: 20/h}
"""


def write(directory: Path, text: str | bytes, name: str = "s.yaml") -> Path:
    path = directory / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def loaded(directory: Path, text: str = GOOD, overrides: tuple[str, ...] = (), devices: int | None = None) -> Scenario:
    return load(write(directory, text), overrides, devices)


def problems(directory: Path, text: str | bytes, overrides: tuple[str, ...] = ()) -> list[Problem]:
    """Of a scenario that must be refused."""
    path = write(directory, text)
    try:
        load(path, overrides)
    except InputError as error:
        return list(error.problems)
    raise AssertionError("the scenario was accepted")


def changed(old: str, new: str) -> str:
    """GOOD with one piece replaced."""
    assert GOOD.count(old) >= 1, old
    return GOOD.replace(old, new, 1)
