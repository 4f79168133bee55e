"""Named streams of random numbers: the only source of chance in a simulation.

`rng(seed, "device-0007", "link")` always gives the same numbers, whatever else is drawn: leaving out one device or one
fault leaves every other stream as it was. A stream is a counter and what is left of its last block: block n is the
BLAKE2b digest of the stream's 64 bits and n, eight values of 64 bits. A `random.Random` holds 2.5 KB, and a fleet has a
hundred thousand streams; arithmetic of 64 bits in Python costs three times as much for a value as a digest's eighth.
Names are hashed with BLAKE2b too, never with `hash()`, which differs from process to process.
"""

from __future__ import annotations

import math
from collections.abc import MutableSequence, Sequence
from hashlib import blake2b
from struct import Struct
from typing import Final, TypeVar

T = TypeVar("T")

_MASK: Final = (1 << 64) - 1
_UNIT: Final = 2.0**-53
_unpack: Final = Struct("<8Q").unpack


def digest64(*parts: object) -> int:
    """64 bits that depend on every part's text, and on nothing else."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")


class Stream:
    """One stream. Every method draws a fixed number of values, or says that it does not."""

    __slots__ = ("_block", "_values")

    def __init__(self, state: int) -> None:
        self._block = (state & _MASK) << 64  # the stream's own 64 bits, then the number of its next block
        self._values: list[int] = []

    def _refill(self) -> list[int]:
        block = self._block
        self._block = block + 1
        self._values = values = list(_unpack(blake2b(block.to_bytes(16, "big")).digest()))
        return values

    def reseed(self, number: int) -> None:
        """From now on other numbers: those of the stream that this one's own 64 bits and `number` name."""
        self._block = digest64(self._block >> 64, "reseed", number) << 64
        self._values = []

    def bits(self) -> int:
        """64 random bits."""
        return (self._values or self._refill()).pop()

    def unit(self) -> float:
        """Uniform in [0, 1)."""
        # `bits` written out, here and below: a call would cost as much again.
        return ((self._values or self._refill()).pop() >> 11) * _UNIT

    def chance(self, probability: float) -> bool:
        """True with this probability. Draws once, also for 0 and 1."""
        return ((self._values or self._refill()).pop() >> 11) * _UNIT < probability

    def below(self, n: int) -> int:
        """Uniform in 0 .. n-1 (n ≥ 1). The bias is under n / 2**64."""
        return ((self._values or self._refill()).pop() * n) >> 64

    def between(self, low: int, high: int) -> int:
        """Uniform integer, both ends included."""
        return low + self.below(high - low + 1)

    def uniform(self, low: float, high: float) -> float:
        return low + (high - low) * self.unit()

    def exponential(self, mean: float) -> float:
        return -mean * math.log(1.0 - self.unit())

    def normal(self, mean: float, deviation: float) -> float:
        """Box–Muller; draws twice."""
        radius = math.sqrt(-2.0 * math.log(1.0 - self.unit()))
        return mean + deviation * radius * math.cos(2.0 * math.pi * self.unit())

    def lognormal(self, median: float, sigma: float) -> float:
        """Draws twice."""
        return median * math.exp(self.normal(0.0, sigma))

    def choice(self, values: Sequence[T]) -> T:
        return values[self.below(len(values))]

    def shuffle(self, values: MutableSequence[T]) -> None:
        """In place (Fisher–Yates); draws len(values) - 1 times."""
        for i in range(len(values) - 1, 0, -1):
            j = self.below(i + 1)
            values[i], values[j] = values[j], values[i]

    def hex(self, digits: int) -> str:
        """Random hexadecimal digits; draws once for every 16."""
        text = "".join(f"{self.bits():016x}" for _ in range((digits + 15) // 16))
        return text[:digits]

    def bytes(self, n: int) -> bytes:
        """Random bytes; draws once for every 8."""
        return b"".join(self.bits().to_bytes(8, "big") for _ in range((n + 7) // 8))[:n]


def rng(seed: int, entity: str, purpose: str) -> Stream:
    """The stream of one purpose of one entity under one seed."""
    return Stream(digest64(seed, entity, purpose))
