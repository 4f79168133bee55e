"""What every check has: a name, a statement, how often it looked, and the first failures in words.

A check judges facts that the oracle has put together; it never looks anything up and never raises on a failure.
Subclassed in fleet.oracle.checks; results go to the summary of a run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final, Literal

from agent.protocol.messages import Key

Status = Literal["pass", "fail", "unknown"]

FIRST_MAX: Final = 5  # failures kept in words; all are counted


@dataclass(frozen=True, slots=True)
class Failure:
    """One violation. `device` and `item` may be empty where none is concerned."""

    t_us: int
    device: str
    item: str
    expected: str
    found: str

    def __str__(self) -> str:
        where = [f"t={self.t_us / 1e6:.6f}s"]
        if self.device:
            where.append(f"device {self.device}")
        if self.item:
            where.append(f"item {self.item}")
        return f"{', '.join(where)}: expected {self.expected}, found {self.found}"


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The verdict of one check. `checked`: how often it was evaluated; `failed`: how often it did not hold."""

    name: str
    status: Status
    checked: int
    detail: str
    failed: int = 0
    first: tuple[Failure, ...] = ()


def item_name(key: Key | None) -> str:
    return "" if key is None else f"{key[0]}/{key[1]}"


def shown(rev: int | None) -> str:
    """A state of an item in words."""
    return "no item" if rev is None else f"rev {rev}"


class Check:
    """Base of all checks. Status: fail if any evaluation failed, unknown if there was none, else pass."""

    __slots__ = ("checked", "excused", "failed", "first")

    name: ClassVar[str] = ""
    statement: ClassVar[str] = ""
    excuse: ClassVar[str] = ""  # what `excused` counts, where the statement has an exception

    def __init__(self) -> None:
        self.checked = 0
        self.failed = 0
        self.excused = 0
        self.first: list[Failure] = []

    def fail(self, t_us: int, device: str, key: Key | None, expected: str, found: str) -> None:
        """Counts one violation. The evaluation itself is counted by whoever evaluates."""
        self.failed += 1
        if len(self.first) < FIRST_MAX:
            self.first.append(Failure(t_us, device, item_name(key), expected, found))

    def detail(self) -> str:
        """A line for each failure that is kept."""
        parts: Sequence[str] = [str(failure) for failure in self.first]
        if self.failed > len(self.first):
            parts = [*parts, f"and {self.failed - len(self.first):,} more"]
        if self.excused:
            parts = [*parts, f"{self.excused} {self.excuse}"]
        return "\n".join(parts)

    def result(self) -> CheckResult:
        status: Status = "fail" if self.failed else "pass" if self.checked else "unknown"
        return CheckResult(
            self.name, status, max(self.checked, self.failed), self.detail(), self.failed, tuple(self.first)
        )
