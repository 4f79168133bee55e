"""The check `writes-survive-power-cuts`. Called after every boot."""

from __future__ import annotations

from agent.protocol.messages import Key
from fleet.oracle.check import Check, shown


class WritesSurvive(Check):
    __slots__ = ()

    name = "writes-survive-power-cuts"
    statement = (
        "After a boot the applications read what they could read before the power went: every own write whose call had "
        "returned, every item that sync had shown, and nothing else. A write during which the power went is there "
        "whole or not at all. Sync may have been one commit ahead of what it had told."
    )

    def same(self) -> None:
        self.checked += 1

    def differs(self, t_us: int, device: str, key: Key, expected: int | None, found: int | None) -> None:
        self.checked += 1
        self.fail(t_us, device, key, f"{shown(expected)} after the boot, as before it", shown(found))
