"""The check `monotone-reads`. Called for every state that sync shows to an application."""

from __future__ import annotations

from agent.protocol.messages import Key
from fleet.oracle.check import Check, shown


class MonotoneReads(Check):
    __slots__ = ()

    name = "monotone-reads"
    statement = (
        "What the applications of a device see of one item follows the order of the table's commits: it may skip "
        "states, never step back. Two exceptions, counted: a snapshot is read while the table changes, so the rows "
        "that follow it may show states again that ended while it was on its way; and a device whose disk was set back "
        "sees what it is told once more, in the order of the feed."
    )
    excuse = "old states that a snapshot or a disk that was set back explains"

    def step(self) -> None:
        self.checked += 1

    def back(self, t_us: int, device: str, key: Key, before: int | None, after: int | None, explained: bool) -> None:
        self.checked += 1
        if explained:
            self.excused += 1
        else:
            self.fail(t_us, device, key, f"{shown(before)} or a later state", f"the older {shown(after)}")

    def replayed(self) -> None:
        """A state of long ago, in its turn."""
        self.checked += 1
        self.excused += 1

    def unknown(self, t_us: int, device: str, key: Key, after: int | None, explained: bool) -> None:
        """A state that the table has not held within the window."""
        self.checked += 1
        if explained:
            self.excused += 1
        else:
            self.fail(t_us, device, key, "a state that the table held lately", shown(after))
