"""The machine's clocks for a live run, and the moment from which its times count.

A live run takes place in real time: its times are microseconds since its start, by the monotonic clock, which all
processes of a machine share. Called by the modules of fleet.live, in the run's process and in those that hold agents.
"""

from __future__ import annotations

import time
from typing import Final

_US: Final = 1_000_000


def monotonic_us() -> int:
    return time.monotonic_ns() // 1000


def wall_us() -> int:
    """Microseconds since 1970."""
    return time.time_ns() // 1000


class RunClock:
    """`start_us`: of the monotonic clock, when the run began."""

    def __init__(self, start_us: int) -> None:
        self.start_us = start_us
        self.start_wall_us = wall_us() - (monotonic_us() - start_us)

    def now_us(self) -> int:
        return monotonic_us() - self.start_us

    def until_s(self, at_us: int) -> float:
        """How long until that time of the run; 0 when it is over."""
        return max(0, at_us - self.now_us()) / _US

    def of_wall(self, wall: int) -> int:
        """The time of the run at which the wall clock showed that (microseconds since 1970)."""
        return wall - self.start_wall_us


class DeviceClock:
    """The clocks of one device: the machine's, but for what a plan has given to its wall clock."""

    def __init__(self, clock: RunClock, offset_us: int, drift_ppb: int) -> None:
        self._clock = clock
        self.offset_us = offset_us
        self._drift_ppb = drift_ppb

    def monotonic_ms(self) -> int:
        return monotonic_us() // 1000

    def wall_ms(self) -> int:
        drifted_us = self._clock.now_us() * self._drift_ppb // 1_000_000_000
        return (wall_us() + self.offset_us + drifted_us) // 1000

    def shift(self, jump_us: int) -> None:
        self.offset_us += jump_us
