"""The check `resend-identical`. Called for every batch that a device sends."""

from __future__ import annotations

from agent.protocol.messages import Key
from fleet.oracle.check import Check


class ResendIdentical(Check):
    __slots__ = ()

    name = "resend-identical"
    statement = (
        "A row that was sent never changes: sent again, operation u has the same id, key, kind, stamp and image, byte "
        "for byte, and a batch sent again holds the same operations until they are acknowledged."
    )

    def same(self) -> None:
        self.checked += 1

    def differs(self, t_us: int, device: str, key: Key, u: int, what: str) -> None:
        self.checked += 1
        self.fail(t_us, device, key, f"operation {u} as it was first sent", f"another {what}")

    def other_batch(self, t_us: int, device: str, key: Key | None, expected: str, found: str) -> None:
        """`key`: of an operation that is missing or too many."""
        self.checked += 1
        self.fail(t_us, device, key, expected, found)
