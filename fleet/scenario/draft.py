"""What the checks of a scenario share: the draft under check, names as written, spans of time.

Adds problems to the document; draws and reads nothing. Used by fleet.scenario.check and fleet.scenario.check_faults.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from agent.protocol.schema import Schema
from fleet.scenario.document import Document, Path_
from fleet.scenario.explain import guess
from fleet.scenario.faults import FaultBase
from fleet.scenario.model import Expect, Group, Phases, Workload
from fleet.scenario.settings import CloudSettings
from fleet.scenario.units import format_duration


@dataclass(slots=True)
class Draft:
    """The parts of a scenario that are right by themselves; a list's elements with their index in the file."""

    document: Document
    duration_us: int | None = None
    schema: Schema | None = None
    devices: list[tuple[int, Group]] = field(default_factory=list)
    workload: list[tuple[int, Workload]] = field(default_factory=list)
    faults: list[tuple[int, FaultBase]] = field(default_factory=list)
    phases: Phases | None = None
    cloud: CloudSettings | None = None
    expect: Expect | None = None
    interval_us: int | None = None


def elements(document: Document, section: str) -> list[Any]:
    """Of a list, as written; none where no list is."""
    found = document.written((section,))
    return found if isinstance(found, list) else []


def raw_names(document: Document, section: str) -> list[tuple[int, str]]:
    """Names as written, also of elements that are wrong otherwise."""
    return [
        (index, element["name"])
        for index, element in enumerate(elements(document, section))
        if isinstance(element, dict) and isinstance(element.get("name"), str)
    ]


def regions(document: Document) -> list[str]:
    """As written, also in groups that are wrong otherwise."""
    groups = elements(document, "devices")
    written = [group.get("region", "main") for group in groups if isinstance(group, dict)]
    return list(dict.fromkeys(region for region in written if isinstance(region, str)))


def unknown(document: Document, path: Path_, names: Iterable[str], known: Sequence[str], what: str) -> bool:
    """Complains about names that do not exist; a list's element at its own place."""
    found = False
    written = document.written(path)
    for index, name in enumerate(names):
        if name not in known:
            found = True
            place: Path_ = (*path, index) if isinstance(written, list) else path
            document.complain(place, f"unknown {what} {name!r}", guess(name, known) or first_of(known))
    return found


def first_of(known: Sequence[str]) -> str:
    more = f", ... ({len(known)} in all)" if len(known) > 8 else ""
    return f"known: {', '.join(known[:8])}{more}" if known else ""


def span(draft: Draft, path: Path_, from_us: int | None, until_us: int | None) -> None:
    end = draft.duration_us
    if from_us is not None and end is not None and from_us >= end:
        outside(draft, (*path, "from"), "begins")
    if until_us is not None and end is not None and until_us > end:
        outside(draft, (*path, "until"), "ends")
    if from_us is not None and until_us is not None and from_us >= until_us:
        draft.document.complain((*path, "until"), "must be later than `from`")


def outside(draft: Draft, path: Path_, verb: str) -> None:
    assert draft.duration_us is not None
    draft.document.complain(path, f"{verb} after the scenario's end, {format_duration(draft.duration_us)}")
