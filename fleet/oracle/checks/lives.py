"""The checks `no-early-expiry`, `expired-absent` and `sweeps-logged`. Called where a life ends, and at the end.

How well a device may know the time: `ahead_us` and LATE_US. The relay stamps an answer before it arrives, so what the
device learns is late by the answer's way, and ahead by no more than its oscillator has gained since.
"""

from __future__ import annotations

from typing import Final

from agent.protocol.messages import Key
from fleet.oracle.check import Check, shown

LATE_US: Final = 60_000_000
_AHEAD_US: Final = 1_000_000
_DRIFT_PARTS: Final = 5_000  # one in so many: 200 ppm


def ahead_us(t_us: int) -> int:
    """How much too early a device may think it is, `t_us` after the start of the run."""
    return _AHEAD_US + t_us // _DRIFT_PARTS


def _when(left_us: int) -> str:
    return f"its life ends in {left_us / 1e6:.3f} s" if left_us > 0 else f"its life ended {-left_us / 1e6:.3f} s ago"


class NoEarlyExpiry(Check):
    __slots__ = ()

    name = "no-early-expiry"
    statement = (
        "An item goes for its age only when its time to live has passed, by true time: the table sweeps none before, "
        "and a device drops and hides none before, but for a second and what a clock gains at 200 ppm. One exception, "
        "counted: from its boot until the relay has told it the time a device may hide items by its own clock, which "
        "may be wrong; it drops none. Whether an end that a device knows undoes a renewal is up to `conflict-policy`."
    )
    excuse = "items hidden by a clock that the relay had not set yet"

    def gone(self, t_us: int, device: str, key: Key, rev: int | None, left_us: int | None, bound_us: int) -> None:
        """`left_us`: of the life that the state `rev` has; None: it has no end."""
        self.checked += 1
        if left_us is None:
            self.fail(t_us, device, key, f"{shown(rev)}, whose life has no end, to stay", "it went for its age")
        elif left_us > bound_us:
            self.fail(t_us, device, key, f"{shown(rev)} to stay", f"it went for its age, {_when(left_us)}")

    def unset(self, t_us: int, device: str, key: Key, rev: int | None) -> None:
        """A device has dropped an item since its boot, and has not been told the time."""
        self.fail(t_us, device, key, f"{shown(rev)} to stay until the relay has told the time", "it was dropped")


class ExpiredAbsent(Check):
    __slots__ = ()

    name = "expired-absent"
    statement = (
        "What has outlived its time is absent on both sides: a device that knows the time, and has room on its disk, "
        "drops it within a minute and tells its applications so, shows it no more, and at the end no application reads "
        "it. One exception, counted: items whose lives end so near the final read that a device cannot know whether "
        "they are over."
    )
    excuse = "items that ended too near the final read to be compared"

    def dropped(self, t_us: int, device: str, key: Key, rev: int | None, since_us: int) -> None:
        """`since_us`: how long the device has known, or could have known, that the life was over."""
        self.checked += 1
        if since_us > LATE_US:
            expected = f"{shown(rev)} to be dropped within {LATE_US // 1_000_000} s of its end"
            self.fail(t_us, device, key, expected, f"it went {since_us / 1e6:.3f} s after it could")

    def read(self, t_us: int, device: str, key: Key, rev: int | None, left_us: int, where: str) -> None:
        """An application reads the state `rev`."""
        self.checked += 1
        if left_us < -LATE_US:
            self.fail(t_us, device, key, "no item", f"{shown(rev)} {where}, though {_when(left_us)}")


class SweepsLogged(Check):
    __slots__ = ()

    name = "sweeps-logged"
    statement = (
        "A sweep of the table that takes an expired item of a down or both model is logged in its feed as a deletion "
        "that is flagged `expired`, unless the item was written again before. Two exceptions, counted: the flagged row "
        "came into an epoch that nobody reads, as `feed-dense` has it, or the table was put back before it came; a "
        "snapshot shows that the item is gone."
    )
    excuse = "sweeps whose rows came into an epoch that nobody reads, or before the table was put back"

    def logged(self) -> None:
        self.checked += 1

    def missing(self, t_us: int, device: str, key: Key) -> None:
        self.checked += 1
        self.fail(t_us, device, key, "a log row flagged as expired, since the table swept the item", "none")
