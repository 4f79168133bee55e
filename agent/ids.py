"""Identifiers made from the randomness that is passed in: epochs, nonces, and what a schema's `generate` asks for."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Protocol

from agent.protocol import new_ids


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
    return new_ids.generator(random.bytes, now_ms, _ulid)


def _ulid(data: bytes) -> str:
    from ulid import ULID  # here: it takes longer to import than a command that makes none takes to run

    return str(ULID.from_bytes(data))
