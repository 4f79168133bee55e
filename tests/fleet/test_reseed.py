"""Drawn anew from a moment on: what comes before is the same to the byte, what comes after is not, nothing is left."""

from __future__ import annotations

import gc
import gzip
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from run_rig import BUSY, busy_plan

from fleet.rng import Stream
from fleet.run import Request, execute
from fleet.scenario.plan import Plan, Reseed
from fleet.shrink.when import reseeded
from fleet.world import reseed as module
from fleet.world.clock import Tie
from fleet.world.world import World

HARD = BUSY.replace(
    "faults:\n",
    "faults:\n"
    "  - {kind: table-restore, at: 9m, back: 2m, restart: 10s}\n"
    "  - {kind: device-restore, at: [5m, 8m], back: 3m, off: 10s, target: {share: 40%}}\n"
    "  - {kind: clone, at: 6m, duration: 2m, target: {devices: home-0002}}\n"
    "  - {kind: table-throttle, share: 5%}\n"
    "  - {kind: stream-replay, share: 10%}\n",
)


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    return busy_plan(tmp_path_factory.mktemp("plan"), 3, HARD)


def traced(plan: Plan, path: Path) -> list[bytes]:
    execute(plan, Request(trace_path=path))
    return gzip.decompress(path.read_bytes()).splitlines()


def before(lines: list[bytes], at_us: int) -> list[bytes]:
    return [line for line in lines if json.loads(line)["t_us"] < at_us]


@pytest.mark.parametrize("at_s", [1, 200, 361, 540])
def test_what_comes_before_is_the_same_to_the_byte_and_what_comes_after_is_not(
    plan: Plan, tmp_path: Path, at_s: int
) -> None:
    at_us = at_s * 1_000_000
    whole = traced(plan, tmp_path / "whole.gz")
    runs = [traced(reseeded(plan, at_us, number), tmp_path / f"{number}.gz") for number in (1, 2)]
    assert len(before(whole, at_us)) > (0 if at_s == 1 else 100)
    for run in runs:
        assert before(run, at_us) == before(whole, at_us)
    assert len({b"\n".join(run) for run in (whole, *runs)}) == 3
    again = traced(reseeded(plan, at_us, 1), tmp_path / "again.gz")
    assert again == runs[0]


def test_no_stream_and_no_tie_of_the_world_is_left_out(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[set[int]] = []
    whole = module.reseed

    def counting(world: Any, seed: int, number: int) -> None:
        parts = {id(part) for part in module._parts(world) if isinstance(part, Stream | Tie)}
        found.append(parts)
        gc.collect()
        there = {id(part) for part in gc.get_objects() if isinstance(part, Stream | Tie)}
        found.append(there - others)
        whole(world, seed, number)

    monkeypatch.setattr("fleet.world.world.reseed", counting)
    gc.collect()
    others = {id(part) for part in gc.get_objects() if isinstance(part, Stream | Tie)}
    world = World(msgspec.structs.replace(plan, reseed=Reseed(at_us=420_000_000, number=1)))
    world.run()
    reached, there = found
    assert len(reached) > 50 and there <= reached
    seeds = {name: getattr(part, name) for part in (world.surroundings, world.cloud, world.clock) for name in ("seed",)}
    assert plan.seed not in seeds.values()
