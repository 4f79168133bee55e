"""The machine's clocks and randomness, for processes that run for real: given to the logic from here and nowhere else.

Called by cloud.service and by commands.
"""

from __future__ import annotations

import os
import random
import secrets
import time


def wall_ms() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def monotonic_ms() -> int:
    return time.monotonic_ns() // 1_000_000


def pause(seconds: float) -> None:
    time.sleep(seconds)


def chance() -> float:
    """Uniform in [0, 1)."""
    return random.random()


def random_hex(digits: int) -> str:
    return os.urandom((digits + 1) // 2).hex()[:digits]


def random_bytes(count: int) -> bytes:
    return os.urandom(count)


def device_token() -> str:
    """A secret of 256 bits, for a header of HTTP."""
    return secrets.token_urlsafe(32)


def token() -> str:
    """32 characters, never the same twice: of a transaction."""
    return random_hex(32)
