"""The checks `direction` and `isolation`. Called wherever an item's key passes: writes, wire, log, table, triggers."""

from __future__ import annotations

from agent.protocol.messages import Key
from fleet.oracle.check import Check


class Direction(Check):
    __slots__ = ()

    name = "direction"
    statement = (
        "Data travels only where its model says: items of down models are never written by a device, items of up "
        "models never come down, and items of models that live on one side alone never reach the other, on the wire, "
        "in the log or at rest."
    )

    def crossed(self, t_us: int, device: str, key: Key, model: str, where: str) -> None:
        self.fail(t_us, device, key, f"an item of model {model} to stay where it belongs", where)


class Isolation(Check):
    __slots__ = ()

    name = "isolation"
    statement = (
        "What belongs to one device or account changes nothing for another: no device sends, receives, logs or shows "
        "an item of another device, or of an account that is not its own."
    )

    def foreign(self, t_us: int, device: str, key: Key, where: str) -> None:
        self.fail(t_us, device, key, "items of this device and its account only", where)
