"""The machine's clock, pauses and randomness: given to the cloud's logic from here, by commands and functions.

Nothing else of the cloud reads them; what must repeat is given others.
"""

from __future__ import annotations

import os
import time


def wall_ms() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def pause(seconds: float) -> None:
    time.sleep(seconds)


def chance() -> float:
    """Uniform in [0, 1): 53 bits."""
    return (int.from_bytes(os.urandom(7), "big") >> 3) / (1 << 53)


def random_bytes(count: int) -> bytes:
    return os.urandom(count)


def random_hex(digits: int) -> str:
    """So many hexadecimal digits."""
    return os.urandom((digits + 1) // 2).hex()[:digits]


def token() -> str:
    """32 characters, never the same twice: of a transaction."""
    return random_hex(32)
