"""Finds the runs that a comparison is about, one run directory or a directory of several; says what differs in them.

Reads run directories, writes nothing. Called by `fleet compare`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from reports.result import FaultWindow, Row
from reports.rundir import SUMMARY, RunDirError, load_run
from reports.summary import EXIT_INPUT, Summary
from reports.text import clock_text, number_text, printable

TIMELINES_MAX: Final = 20  # of one side: more curves tell no more
RUNS_MAX: Final = 1_000
YAML_BYTES_MAX: Final = 1 << 20
VALUES_MAX: Final = 20_000
NOT_THE_SAME_EVERY_TIME: Final = ("seed", "description", "name")


class PlanHead(msgspec.Struct, frozen=True):
    """What a comparison needs of a plan."""

    duration_us: int = 0
    interval_us: int = 0
    schema_text: str = ""


@dataclass(frozen=True, slots=True)
class Run:
    """One run, without what is not compared."""

    path: Path
    summary: Summary
    faults: list[FaultWindow]
    versions: dict[str, str]
    plan: PlanHead
    scenario_yaml: str
    timeline: list[Row] = field(default_factory=list)

    @property
    def is_whole(self) -> bool:
        """Whether it came to its end: the figures of half a run compare with nothing."""
        return not self.summary.interrupted and not self.summary.aborted


@dataclass(frozen=True, slots=True)
class Group:
    """The runs of one side. `notes`: what was left out, and why."""

    name: str
    runs: list[Run]
    notes: list[str]

    @property
    def whole(self) -> list[Run]:
        return [run for run in self.runs if run.is_whole]


def load_group(path: Path) -> Group:
    """A run directory, or a directory of run directories; none in it: a group without runs. Raises RunDirError (exit
    code 2) for what is there and cannot be read."""
    name = printable(path.name or str(path), 60)
    try:
        if not path.exists():
            return Group(name, [], [f"{path}: no such directory"])
        if not path.is_dir():
            raise RunDirError(f"{path}: not a directory: give a run directory, or a directory of them", EXIT_INPUT)
        if (path / SUMMARY).exists():
            return _noted(Group(name, [_load(path, with_timeline=True)], []))
        inner = sorted(child for child in path.iterdir() if child.is_dir())
    except OSError as error:
        raise RunDirError(f"{path}: {error.strerror or error}", EXIT_INPUT) from error
    finished = [child for child in inner if (child / SUMMARY).exists()]
    half = [child.name for child in inner if child not in finished]
    notes = [f"{printable(one, 80)}: no {SUMMARY}, not a finished run" for one in half[:5]]
    notes += [f"and {len(half) - 5} more without {SUMMARY}"] if len(half) > 5 else []
    if len(finished) > RUNS_MAX:
        raise RunDirError(f"{path}: {len(finished)} runs, at most {RUNS_MAX}", EXIT_INPUT)
    runs = [_load(child, with_timeline=number < TIMELINES_MAX) for number, child in enumerate(finished)]
    return _noted(Group(name, runs, notes if finished or not half else [*notes, f"{path}: no run directory in it"]))


def _noted(group: Group) -> Group:
    for run in group.runs:
        if not run.is_whole:
            why = (
                "was interrupted" if run.summary.interrupted else f"was stopped by {printable(run.summary.aborted, 80)}"
            )
            group.notes.append(f"{printable(run.path.name, 80)} {why}: its figures are not compared")
    return group


def _load(path: Path, *, with_timeline: bool) -> Run:
    result = load_run(path)
    try:
        plan = msgspec.json.decode(result.plan_json, type=PlanHead)
    except (ValueError, RecursionError) as error:
        raise RunDirError(f"{path / 'plan.json'}: {printable(str(error), 200)}", EXIT_INPUT) from error
    rows = result.timeline if with_timeline else []
    return Run(path, result.summary, result.faults, result.versions, plan, result.scenario_yaml, rows)


# What must be the same, and what may differ.


@dataclass(frozen=True, slots=True)
class Difference:
    """A key that is not the same on both sides. `forbids`: figures of the two sides do not compare."""

    key: str
    base: str
    new: str
    forbids: bool = False


def differences(base: Group, new: Group) -> list[Difference]:
    """What forbids a comparison first, then keys of the scenario, then versions. Of several runs, the first counts;
    within one side all must have what must be the same in common."""
    found = []
    for key, values in (("base", base), ("new", new)):
        for name, of in _MUST.items():
            within = sorted({of(run) for run in values.runs})
            if len(within) > 1:
                found.append(Difference(f"{name}, within {key}", within[0], within[1], forbids=True))
    one, other = base.runs[0], new.runs[0]
    for name, of in _MUST.items():
        if of(one) != of(other):
            found.append(Difference(name, of(one), of(other), forbids=True))
    if one.plan.schema_text != other.plan.schema_text:
        found.append(Difference("schema", "another text", "another text"))
    found += _scenario_differences(one.scenario_yaml, other.scenario_yaml)
    if one.summary.plant != other.summary.plant:
        found.append(Difference("plant", one.summary.plant or "none", other.summary.plant or "none"))
    for name in sorted({*one.versions, *other.versions}):
        if one.versions.get(name) != other.versions.get(name):
            was, now = (printable(side.versions.get(name, "unknown"), 40) for side in (one, other))
            found.append(Difference(f"version of {printable(name, 40)}", was, now))
    return found


_MUST: Final[dict[str, Callable[[Run], str]]] = {
    "scenario": lambda run: printable(run.summary.scenario, 60),
    "devices": lambda run: number_text(run.summary.devices),
    "duration": lambda run: clock_text(run.plan.duration_us / 1e6),
    "backend": lambda run: "live" if run.summary.live is not None else printable(run.summary.backend, 20),
}


def _scenario_differences(base: str, new: str) -> list[Difference]:
    if base == new:
        return []
    flat = [_flat(text) for text in (base, new)]
    if flat[0] is None or flat[1] is None:
        return [Difference("scenario.effective.yaml", "cannot be read", "so what differs in it is not known")]
    one, other = flat[0], flat[1]
    keys = [key for key in {**one, **other} if one.get(key) != other.get(key) and key not in NOT_THE_SAME_EVERY_TIME]
    return [Difference(key, one.get(key, "–"), other.get(key, "–")) for key in keys]


def _flat(text: str) -> dict[str, str] | None:
    """`devices.home.count` -> `5`, keys as after `--set`. None: no YAML, or more than a scenario has."""
    if len(text) > YAML_BYTES_MAX:
        return None
    try:
        value = YAML(typ="safe", pure=True).load(text)
    except (YAMLError, ValueError, RecursionError):
        return None
    found: dict[str, str] = {}
    todo: list[tuple[str, Any]] = [("", value)]
    while todo:
        path, one = todo.pop()
        if len(found) + len(todo) > VALUES_MAX:
            return None
        if isinstance(one, dict):
            todo += [(f"{path}.{key}" if path else str(key), inner) for key, inner in reversed(one.items())]
        elif isinstance(one, list) and any(isinstance(inner, dict) for inner in one):
            todo += [(f"{path}.{_name(inner, n)}", inner) for n, inner in reversed(list(enumerate(one)))]
        else:
            found[printable(path, 120)] = printable(_shown(one), 80)
    return found


def _name(element: Any, index: int) -> str:
    named = element.get("name") or element.get("kind") if isinstance(element, dict) else None
    return str(named) if named else str(index)


def _shown(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return "null" if value is None else str(value).lower()
    return ", ".join(map(str, value)) if isinstance(value, Sequence) and not isinstance(value, str) else str(value)
