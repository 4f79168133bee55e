"""Sections of the report that only some runs have, as values: a title, tables, plots. The page shows them all alike.

A module that has more to tell about a run offers a function from the result to a Section, or to None when the run has
nothing of the kind, and is named in `reports.html.EXTRA`. Texts need no escaping: the page does that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from reports.plots import Drawing
from reports.result import RunResult


@dataclass(frozen=True, slots=True)
class Column:
    """`number`: set to the right, digits under digits."""

    title: str
    number: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """`rows`: as many texts each as there are columns; at most 200 are shown. `marks`: of a row, pass, fail, unknown or
    nothing."""

    columns: Sequence[Column]
    rows: Sequence[Sequence[str]]
    note: str = ""
    marks: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Section:
    """`name`: of its anchor, letters only."""

    name: str
    title: str
    intro: str = ""
    tables: Sequence[Table] = ()
    drawings: Sequence[Drawing] = field(default=())


Maker = Callable[[RunResult], Section | None]
