"""The check `poison-passed`. Called when a message with an item that was poisoned in the table was delivered."""

from __future__ import annotations

from agent.protocol.messages import Key
from fleet.oracle.check import Check


class PoisonPassed(Check):
    __slots__ = ()

    name = "poison-passed"
    statement = (
        "An item that a program has put into the table past the model holds nothing up: a device that gets a message "
        "of rows with it, where the rows fit, stands at their end right after, with the other items of the message; "
        "whether it could use that item or has set it aside. Left out: power that goes meanwhile, a disk without room, "
        "and a message that shows that the database was put back."
    )

    def delivered(self, t_us: int, device: str, key: Key, seq: int, at: int, *, moved: bool) -> None:
        """A message of rows up to `seq`; the device is `at` that row now."""
        self.checked += 1
        if not moved:
            self.fail(t_us, device, key, f"the device at row {seq}, past a poisoned item", f"it has stayed at row {at}")
