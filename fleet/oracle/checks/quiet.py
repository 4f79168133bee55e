"""The check `quiet-after-convergence`. Called for messages once writes have stopped and faults are healed."""

from __future__ import annotations

from typing import Final

from fleet.oracle.check import Check

# A catch-up in parts, an unanswered batch with its resends, and rows delivered again stay well below this.
MESSAGES_MAX: Final = 64


class Quiet(Check):
    __slots__ = ("messages_max",)

    name = "quiet-after-convergence"
    statement = (
        "Sync ends: once applications have stopped writing and faults are healed, a device for which nothing "
        f"progresses any more sends and receives at most {MESSAGES_MAX} further messages with content. Hellos, acks "
        "and empty rows are the idle traffic and do not count; rows that tell late of what was written before are "
        "progress. An echo, in which what came down goes up again, does not end."
    )

    def __init__(self) -> None:
        super().__init__()
        self.messages_max = MESSAGES_MAX

    def message(self, t_us: int, device: str, idle: int) -> None:
        """`idle`: messages with content since this device's last progress."""
        self.checked += 1
        if idle == self.messages_max + 1:
            self.fail(t_us, device, None, f"at most {self.messages_max} messages after the last progress", "more")
