"""Identifiers made from the randomness that is passed in: epochs, nonces, and what a schema's `generate` asks for."""

from __future__ import annotations

import base64
import uuid
from collections.abc import Callable
from typing import Protocol

_UID_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's base 32


class Random(Protocol):
    """The agent's only source of chance."""

    def unit(self) -> float:
        """Uniform in [0, 1)."""
        ...

    def bytes(self, n: int, /) -> bytes: ...


def epoch(random: Random) -> str:
    """128 random bits: two devices, or one device twice, never mint the same."""
    return base64.urlsafe_b64encode(random.bytes(16)).rstrip(b"=").decode()


def nonce(random: Random) -> str:
    """64 random bits, unique within one device's life."""
    return base64.urlsafe_b64encode(random.bytes(8)).rstrip(b"=").decode()


def generator(random: Random, now_ms: Callable[[], int]) -> Callable[[str], str]:
    """The function that a schema's `generate` calls with its kind: `ulid`, `uuid`, `uid` or `uid(N)`."""
    ulid_of: Callable[[bytes], object] | None = None

    def generate(kind: str) -> str:
        nonlocal ulid_of
        if kind == "ulid":
            if ulid_of is None:
                from ulid import ULID  # here: it takes longer to import than a command that makes none takes to run

                ulid_of = ULID.from_bytes
            at_ms = max(now_ms(), 0)  # a clock may be set before 1970
            return str(ulid_of(at_ms.to_bytes(6, "big") + random.bytes(10)))
        if kind == "uuid":
            return str(uuid.UUID(bytes=random.bytes(16), version=4))
        length = int(kind[4:-1]) if kind.startswith("uid(") else 10
        return "".join(_UID_ALPHABET[byte & 31] for byte in random.bytes(length))

    return generate
