"""The checks, one class each. `Checks` holds those of one run, in the order of the report.

A check judges facts and never looks anything up; fleet.oracle puts the facts together and calls them.
"""

from __future__ import annotations

from typing import Final

from fleet.oracle.check import Check, CheckResult
from fleet.oracle.checks.acked import NoAckedWriteLost
from fleet.oracle.checks.boundaries import Direction, Isolation
from fleet.oracle.checks.commands import (
    CommandAfterClock,
    CommandAnswered,
    CommandAtMostOnce,
    CommandNotExpired,
    RebootsSpaced,
)
from fleet.oracle.checks.conservation import Conservation
from fleet.oracle.checks.convergence import Convergence
from fleet.oracle.checks.decided import EveryWriteDecided
from fleet.oracle.checks.digests import DigestHeals, NoFalseAlarm
from fleet.oracle.checks.double_apply import NoDoubleApply
from fleet.oracle.checks.feed import EveryChangeLogged, FeedDense
from fleet.oracle.checks.gaps import NoGap
from fleet.oracle.checks.holding import MemoryOnly, PeriodKept
from fleet.oracle.checks.identity import NoEpochChange
from fleet.oracle.checks.invented import NothingInvented
from fleet.oracle.checks.lives import ExpiredAbsent, NoEarlyExpiry, SweepsLogged
from fleet.oracle.checks.monotone import MonotoneReads
from fleet.oracle.checks.own_writes import ReadYourWrites
from fleet.oracle.checks.poison import PoisonPassed
from fleet.oracle.checks.policy import ConflictPolicy
from fleet.oracle.checks.quiet import Quiet
from fleet.oracle.checks.resend import ResendIdentical
from fleet.oracle.checks.resurrection import NoResurrection
from fleet.oracle.checks.survival import WritesSurvive
from fleet.oracle.checks.up_models import UpUnchanged

CLASSES: Final[tuple[type[Check], ...]] = (
    Convergence,
    NoAckedWriteLost,
    EveryWriteDecided,
    NothingInvented,
    ReadYourWrites,
    WritesSurvive,
    UpUnchanged,
    MonotoneReads,
    NoResurrection,
    NoDoubleApply,
    ConflictPolicy,
    FeedDense,
    EveryChangeLogged,
    NoGap,
    Direction,
    Isolation,
    NoEpochChange,
    ResendIdentical,
    Conservation,
    Quiet,
    NoEarlyExpiry,
    ExpiredAbsent,
    SweepsLogged,
    PeriodKept,
    MemoryOnly,
    CommandAtMostOnce,
    CommandAnswered,
    CommandNotExpired,
    CommandAfterClock,
    RebootsSpaced,
    DigestHeals,
    NoFalseAlarm,
    PoisonPassed,
)
NAMES: Final[tuple[str, ...]] = tuple(check.name for check in CLASSES)


class Checks:
    """All checks of one run."""

    __slots__ = (
        "acked",
        "after_clock",
        "alarms",
        "answered",
        "conservation",
        "convergence",
        "decided",
        "dense",
        "direction",
        "double",
        "early",
        "epoch",
        "expired",
        "gaps",
        "heals",
        "in_time",
        "invented",
        "isolation",
        "logged",
        "memory",
        "monotone",
        "once",
        "own_writes",
        "period",
        "poison",
        "policy",
        "quiet",
        "resend",
        "resurrection",
        "spaced",
        "survive",
        "sweeps",
        "up_models",
    )

    def __init__(self) -> None:
        self.convergence = Convergence()
        self.acked = NoAckedWriteLost()
        self.decided = EveryWriteDecided()
        self.invented = NothingInvented()
        self.own_writes = ReadYourWrites()
        self.survive = WritesSurvive()
        self.up_models = UpUnchanged()
        self.monotone = MonotoneReads()
        self.resurrection = NoResurrection()
        self.double = NoDoubleApply()
        self.policy = ConflictPolicy()
        self.dense = FeedDense()
        self.logged = EveryChangeLogged()
        self.gaps = NoGap()
        self.direction = Direction()
        self.isolation = Isolation()
        self.epoch = NoEpochChange()
        self.resend = ResendIdentical()
        self.conservation = Conservation()
        self.quiet = Quiet()
        self.early = NoEarlyExpiry()
        self.expired = ExpiredAbsent()
        self.sweeps = SweepsLogged()
        self.period = PeriodKept()
        self.memory = MemoryOnly()
        self.once = CommandAtMostOnce()
        self.answered = CommandAnswered()
        self.in_time = CommandNotExpired()
        self.after_clock = CommandAfterClock()
        self.spaced = RebootsSpaced()
        self.heals = DigestHeals()
        self.alarms = NoFalseAlarm()
        self.poison = PoisonPassed()

    def all(self) -> tuple[Check, ...]:
        """In the order of the report."""
        held = {type(check): check for name in self.__slots__ if isinstance(check := getattr(self, name), Check)}
        return tuple(held[kind] for kind in CLASSES)

    def results(self) -> list[CheckResult]:
        return [check.result() for check in self.all()]


def statements() -> dict[str, str]:
    """name -> what it states, for the documents."""
    return {check.name: check.statement for check in CLASSES}
