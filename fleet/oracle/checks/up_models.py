"""The check `up-unchanged-by-sync`. Called at every write, every boot and every state shown of an up model."""

from __future__ import annotations

from agent.protocol.messages import Key
from fleet.oracle.check import Check, shown


class UpUnchanged(Check):
    __slots__ = ()

    name = "up-unchanged-by-sync"
    statement = (
        "Items of a model that syncs up alone are the device's own: sync never changes what its applications read of "
        "them, whatever arrives."
    )

    def read(self, t_us: int, device: str, key: Key, expected: int | None, found: int | None) -> None:
        self.checked += 1
        if expected != found:
            self.fail(t_us, device, key, f"{shown(expected)}, as the device last wrote it", shown(found))

    def changed(self, t_us: int, device: str, key: Key, expected: int | None, found: int | None) -> None:
        """A trigger said that sync has changed it."""
        self.checked += 1
        self.fail(t_us, device, key, f"{shown(expected)}, untouched by sync", f"sync made it {shown(found)}")
