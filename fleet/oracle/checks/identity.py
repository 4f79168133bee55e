"""The check `no-epoch-change`. Called where HEAD changes its epoch, and at the end."""

from __future__ import annotations

from typing import Final

from agent.protocol.messages import Key
from fleet.oracle.check import Check

EPOCHS_MAX: Final = 8  # what quarantine allows, and some for restores of the table, which do not count there


class NoEpochChange(Check):
    __slots__ = ()

    name = "no-epoch-change"
    statement = (
        "A device keeps its epoch unless it was restored or reset, or the table was: a needless change heals other "
        "faults and hides them. An epoch in which the device has never sent an operation may be replaced. Whatever "
        f"happens, two copies of one device among it, HEAD does not change its epoch more than {EPOCHS_MAX} times an "
        "hour; one exception, counted: when a person releases the device from quarantine, the count begins again."
    )
    excuse = "releases from quarantine, after each of which epochs were counted anew"

    def kept(self) -> None:
        self.checked += 1

    def replaced(self, t_us: int, device: str, head: Key, before: str, after: str | None) -> None:
        """`head`: the item that holds the device's HEAD."""
        self.checked += 1
        self.fail(t_us, device, head, f"HEAD of this device in epoch {before}", f"epoch {after}")

    def pace(self, t_us: int, device: str, head: Key, changes: int) -> None:
        """`changes` of HEAD's epoch within the last hour."""
        if changes == EPOCHS_MAX + 1:
            self.fail(t_us, device, head, f"at most {EPOCHS_MAX} changes of the epoch in an hour", "more")

    def minted(self, t_us: int, device: str, changes: int, expected: bool) -> None:
        self.checked += 1
        if changes and not expected:
            self.fail(t_us, device, None, "no new epoch without a restore or reset", f"{changes} minted")
