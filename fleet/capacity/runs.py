"""The runs of a study: here or in processes of their own, and kept in a directory, where the next study finds them.

A run is named by what it is: the hash of its plan and of the versions that made it. Called by fleet.capacity.study.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import wait
from pathlib import Path
from typing import Final, Protocol, TypeVar

import msgspec

from agent.protocol.errors import InputError, Problem
from fleet.run import execute, versions
from fleet.scenario.plan import Plan
from fleet.sweep.pool import opened
from reports.quotas import Asked, LoadRow
from reports.result import RunResult
from reports.summary import Summary

LOOK_EVERY_S: Final = 0.2
_LEVEL: Final = 6  # of gzip


class Stopped(Exception):
    """Somebody has interrupted the study."""


class Kept(msgspec.Struct, kw_only=True):
    """What a study wants to know of a run; as reports.result.RunResult has it."""

    summary: Summary
    load: list[LoadRow] = []
    asked: Asked = {}


class Recipe(Protocol):
    """What a plan is made of: small, where the plan of a large fleet is not. `devices`: that are simulated."""

    @property
    def devices(self) -> int: ...

    def plan(self) -> Plan: ...


R = TypeVar("R", bound=Recipe)


def kept_of(result: RunResult) -> Kept:
    return Kept(summary=result.summary, load=result.load, asked=result.asked)


def run_of(recipe: Recipe, directory: Path | None = None, stopped: Callable[[], bool] | None = None) -> Kept:
    """As it is kept in the directory, else simulated and then kept. Raises Stopped, and InputError for a directory that
    cannot be written."""
    plan = recipe.plan()
    path = None if directory is None else directory / f"{name_of(plan)}.json.gz"
    if path is not None and path.is_file():
        try:
            return msgspec.json.decode(gzip.decompress(path.read_bytes()), type=Kept)
        except (OSError, EOFError, ValueError):  # cut off, or not ours: made anew
            pass
    result = execute(plan, None, None, stopped, hashed=False)
    if result.summary.interrupted:
        raise Stopped
    kept = kept_of(result)
    if path is not None:
        _write(path, kept)
    return kept


def name_of(plan: Plan) -> str:
    """A core that is compiled makes the same run."""
    told = {name: value for name, value in versions().items() if name != "core"}
    return hashlib.sha256(plan.encode() + msgspec.json.encode(told)).hexdigest()[:32]


def _write(path: Path, kept: Kept) -> None:
    """Whole or not at all."""
    part = path.with_suffix(".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(gzip.compress(msgspec.json.encode(kept), _LEVEL, mtime=0))
        part.replace(path)
    except OSError as error:
        message = f"cannot be written: {error.strerror}"
        raise InputError([Problem("--runs", 0, 0, str(path.parent), message, "name a directory")]) from None


def run_all(recipes: Sequence[R], directory: Path | None, jobs: int, stopped: Callable[[], bool]) -> dict[R, Kept]:
    """In `jobs` processes, the largest first; one after the other in this one where there is only one job. Raises
    Stopped and InputError."""
    if jobs == 1 or len(recipes) < 2:
        return {recipe: run_of(recipe, directory, stopped) for recipe in recipes}
    with opened(jobs, tasks_max=1) as pool:
        ordered = sorted(recipes, key=lambda recipe: -recipe.devices)
        futures = {recipe: pool.submit(run_of, recipe, directory) for recipe in ordered}
        while True:
            done = wait(futures.values(), timeout=LOOK_EVERY_S)
            if not done.not_done or stopped() or any(one.exception() is not None for one in done.done):
                break
        for future in done.done:
            future.result()
        if done.not_done:
            raise Stopped
        return {recipe: future.result() for recipe, future in futures.items()}
