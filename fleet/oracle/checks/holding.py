"""The checks `period-kept` and `memory-only`. Called where an operation is first sent, and after every boot."""

from __future__ import annotations

from typing import Final

from agent.protocol.messages import Key
from fleet.oracle.check import Check

SLACK_US: Final = 10_000_000  # what a device learns of the time may move its clock by the way of one answer


class PeriodKept(Check):
    __slots__ = ()

    name = "period-kept"
    statement = (
        "A change of a model with a `period` is sent no earlier than that period after the first write that it "
        "carries, less ten seconds by which what the relay tells may move a clock; so one item is sent at most once in "
        "a period, and what is sent is its last state, a removal among them. Two exceptions, counted: a clock that was "
        "set anew since, at a boot or by the first answer after it, may end a period early; and a device that begins a "
        "new epoch, or whose disk was put back, sends what it held, and what is written until it does, each item once."
    )
    excuse = "changes sent under a clock that was set anew, or in a new epoch"

    def sent(self, t_us: int, device: str, key: Key, waited_us: int, period_us: int, excused: bool) -> None:
        """`waited_us`: since the first write that the operation carries."""
        self.checked += 1
        if waited_us >= period_us - SLACK_US:
            return
        if excused:
            self.excused += 1
        else:
            expected = f"to be held for {period_us / 1e6:g} s"
            self.fail(t_us, device, key, expected, f"it was sent {waited_us / 1e6:.3f} s after its first write")


class MemoryOnly(Check):
    __slots__ = ()

    name = "memory-only"
    statement = (
        "Items of a model that is kept in memory (`mem`) leave nothing in the device's file, neither themselves nor in "
        "its index, and are gone after a boot until sync brings them again; in the end they are equal like all others."
    )

    def file(self) -> None:
        """The file was looked at."""
        self.checked += 1

    def in_file(self, t_us: int, device: str, key: Key) -> None:
        self.fail(t_us, device, key, "nothing of a model in memory in the file", "the item")

    def after_boot(self, t_us: int, device: str, key: Key, rev: int | None) -> None:
        self.checked += 1
        if rev is not None:
            self.fail(t_us, device, key, "no item after a boot, before sync brings it again", f"rev {rev}")
