"""From a YAML file to a Scenario, or to every problem that it has, each with its place.

Reads the scenario's file and its schema, nothing else; draws nothing. Called by the commands.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from agent.protocol.errors import InputError, Problem
from agent.protocol.schema import Schema
from fleet.scenario.check import check
from fleet.scenario.document import DEPTH_MAX, Document, Mark, Path_, dotted, read_document, read_value
from fleet.scenario.draft import Draft
from fleet.scenario.explain import explain, guess
from fleet.scenario.faults import Fault
from fleet.scenario.model import Expect, Group, Phases, Scenario, Workload
from fleet.scenario.settings import CloudSettings
from fleet.scenario.shipped import scenario_paths, schema_path
from fleet.scenario.units import parse_positive_duration

_LISTS: Final[dict[str, TypeAdapter[Any]]] = {
    "devices": TypeAdapter(Group),
    "workload": TypeAdapter(Workload),
    "faults": TypeAdapter(Fault),
}
_PARTS: Final[dict[str, TypeAdapter[Any]]] = {
    "phases": TypeAdapter(Phases),
    "cloud": TypeAdapter(CloudSettings),
    "expect": TypeAdapter(Expect),
}


def find(name: str | Path) -> Path:
    """A file, or else the shipped scenario of that name or path (`outage`, `scenarios/outage.yaml`)."""
    path = Path(name)
    if path.exists():
        return path
    shipped = scenario_paths()
    plain = str(name).removeprefix("scenarios/").removesuffix(".yaml")
    return shipped.get(plain, path)


def load(path: str | Path, overrides: Sequence[str] = (), devices: int | None = None) -> Scenario:
    """Raises InputError with all problems. `overrides`: KEY=VALUE, as after `--set`; `devices`: as `--devices`."""
    shown = str(path)
    file = find(path)
    hint = guess(shown, scenario_paths()) or "`fleet list` shows the scenarios that ship"
    document = read_document(file, shown, hint)
    if document.value is not None and not isinstance(document.value, dict):
        document.complain((), "expected a mapping of keys to values", "such as name: my-scenario")
    if document.value is None or not isinstance(document.value, dict):
        raise _failure(document, shown)
    for override in overrides:
        _override(document, override)
    if devices is not None:
        _scale(document, devices)
    schema = _schema(document, file)
    scenario = _validate(document, schema)
    if document.problems or scenario is None or schema is None:
        raise _failure(document, shown)
    return scenario.bind(schema, shown)


def from_values(values: dict[str, Any], schema: Schema, source: str) -> Scenario:
    """A scenario of plain values that stand in no file, checked as one that does. Raises InputError."""
    document = Document(source, values)
    scenario = _validate(document, schema)
    if document.problems or scenario is None:
        raise _failure(document, source)
    return scenario.bind(schema, source)


def _failure(document: Document, shown: str) -> InputError:
    """Problems in order of place: those of the file, of its schema, of the command line."""
    unique = list(dict.fromkeys(document.problems)) or [Problem(shown, 0, 0, "", "cannot be read")]
    return InputError(sorted(unique, key=lambda problem: (problem.file != shown, problem.line, problem.column)))


def _validate(document: Document, schema: Schema | None) -> Scenario | None:
    try:
        scenario: Scenario | None = Scenario.model_validate(document.value)
    except ValidationError as error:
        scenario = None
        for one in error.errors(include_url=False):
            explain(document, one)
    if scenario is not None:
        draft = Draft(
            document,
            scenario.duration_us,
            schema,
            list(enumerate(scenario.devices)),
            list(enumerate(scenario.workload)),
            list(enumerate(scenario.faults)),
            scenario.phases,
            scenario.cloud,
            scenario.expect,
            scenario.interval_us,
        )
    else:
        draft = _draft(document, schema)
    check(draft)
    return scenario


def _draft(document: Document, schema: Schema | None) -> Draft:
    """Of a scenario with mistakes: the parts without."""
    draft = Draft(
        document,
        schema=schema,
        duration_us=_duration_of(document, "duration"),
        interval_us=_duration_of(document, "interval", Scenario.model_fields["interval_us"].default),
    )
    for section, adapter in _LISTS.items():
        elements = document.value.get(section)
        for index, element in enumerate(elements if isinstance(elements, list) else ()):
            try:
                getattr(draft, section).append((index, adapter.validate_python(element)))
            except ValidationError:
                continue  # explained already
    for section, adapter in _PARTS.items():
        try:
            setattr(draft, section, adapter.validate_python(document.value.get(section, {})))
        except ValidationError:
            continue
    return draft


def _duration_of(document: Document, key: str, default: int | None = None) -> int | None:
    """None where it is wrong, which the model explains."""
    value = document.value.get(key)
    if value is None:
        return default
    try:
        return parse_positive_duration(value)
    except ValueError:
        return None


def _schema(document: Document, file: Path) -> Schema | None:
    """The schema that the scenario names; its problems become the scenario's."""
    name = document.value.get("schema")
    if not isinstance(name, str) or not name:
        return None  # explained by the model
    path = file.parent / name
    try:
        exists = path.is_file()
    except (OSError, ValueError):
        exists = False
    if not exists:
        shipped = schema_path(name)
        if shipped is None:
            document.complain(("schema",), f"no such file: {name}", "a path from the scenario's file, or fleet.json5")
            return None
        path = shipped
    try:
        return Schema.load(path)
    except InputError as error:
        document.problems.extend(error.problems)
        return None


def _override(document: Document, text: str) -> None:
    """`--set a.b=c`. Elements of a list by their index or by their name: `devices.home.count=5`."""
    shown = f"--set {text}"
    mark = Mark(shown)
    key, equals, value_text = text.partition("=")
    key = key.strip()
    if not equals or not key:
        document.problems.append(Problem(shown, 0, 0, "", "expected KEY=VALUE", "such as --set duration=10m"))
        return
    given = read_value(value_text, shown)
    if given.problems:
        document.problems.extend(given.problems)
        return
    parts = key.split(".")
    if len(parts) > DEPTH_MAX:
        document.problems.append(Problem(shown, 0, 0, "", f"nested more than {DEPTH_MAX} deep"))
        return
    parent: Any = document.value
    path: Path_ = ()
    for part in parts[:-1]:
        step = _step(document, shown, parent, path, part)
        if step is None:
            return
        if isinstance(parent, dict):
            if not isinstance(parent.get(part), dict | list):
                inner = parent.get(part)
                parent[part] = {"profile": inner} if part == "link" and isinstance(inner, str) else {}
                document.forget((*path, part))
                document.marks[(*path, part)] = (mark, mark)
            parent = parent[part]
        else:
            parent = parent[step]
        path = (*path, step)
    step = _step(document, shown, parent, path, parts[-1])
    if step is None:
        return
    parent[step] = given.value
    path = (*path, step)
    document.forget(path)
    document.marks[path] = (mark, mark)


def _step(document: Document, shown: str, parent: Any, path: Path_, part: str) -> str | int | None:
    """The key or index that `part` means in `parent`; None after a complaint."""
    if isinstance(parent, dict):
        return part
    if part.isdecimal() and len(part) < 7 and int(part) < len(parent):
        return int(part)
    names = [
        (element.get("name") or element.get("kind") or index) if isinstance(element, dict) else index
        for index, element in enumerate(parent)
    ]
    if part in names:
        return names.index(part)
    known = [str(name) for name in names]
    hint = guess(part, known) or f"known: {', '.join(known)}"
    document.problems.append(Problem(shown, 0, 0, dotted(path), f"has no element {part}", hint))
    return None


def _scale(document: Document, devices: int) -> None:
    """Every group in proportion, at least one device each; the largest remainders round up."""
    shown = f"--devices {devices}"
    groups = document.value.get("devices")
    counts: list[Any] = []
    if isinstance(groups, list):
        counts = [group.get("count") if isinstance(group, dict) else None for group in groups]
    if devices < 1:
        document.problems.append(Problem(shown, 0, 0, "", "must be at least 1"))
        return
    if not counts or any(not isinstance(count, int) or isinstance(count, bool) or count < 1 for count in counts):
        return  # explained by the model
    if devices < len(counts):
        hint = "each group keeps at least one device"
        document.problems.append(Problem(shown, 0, 0, "", f"fewer devices than groups ({len(counts)})", hint))
        return
    mark = Mark(shown)
    for index, count in enumerate(scaled(counts, devices)):
        groups[index]["count"] = count
        document.marks[("devices", index, "count")] = (mark, mark)


def scaled(counts: Sequence[int], total: int) -> list[int]:
    """Whole numbers in proportion to `counts` that add up to `total`, none less than 1."""
    whole = sum(counts)
    shares = [max(1, count * total // whole) for count in counts]
    by_remainder = sorted(range(len(counts)), key=lambda i: (-(counts[i] * total % whole), i))
    missing = total - sum(shares)
    for i in by_remainder[: max(missing, 0)]:
        shares[i] += 1
    while sum(shares) > total:  # groups that were raised to 1 take from the largest
        shares[max(range(len(shares)), key=lambda i: shares[i])] -= 1
    return shares
