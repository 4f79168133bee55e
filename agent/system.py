"""The machine's clocks and randomness: they are given to the database and the agent from here.

Nothing else of the agent reads them; what must repeat is given others. Called by agent.commands and by
agent.runtime.embedded.
"""

from __future__ import annotations

import os
import time


def monotonic_ms() -> int:
    return time.monotonic_ns() // 1_000_000


def wall_ms() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def pause(seconds: float) -> None:
    time.sleep(seconds)


class SystemRandom:
    """agent.ids.Random from the kernel."""

    def unit(self) -> float:
        """Uniform in [0, 1): 53 bits."""
        return (int.from_bytes(os.urandom(7), "big") >> 3) / (1 << 53)

    def bytes(self, n: int, /) -> bytes:
        return os.urandom(n)
