"""The check `read-your-writes`. Called before every local write and wherever sync changes what an application reads."""

from __future__ import annotations

from agent.protocol.messages import Key
from fleet.oracle.check import Check, shown


class ReadYourWrites(Check):
    __slots__ = ()

    name = "read-your-writes"
    statement = (
        "After a write the applications on that device read it, and never anything older, until a verdict or a later "
        "write explains the change: an undecided write stays visible; an accepted one gives way only to a state that "
        "the table took on at its acceptance or later; only one that lost or was rejected may give way to any state."
    )

    def before_write(self, t_us: int, device: str, key: Key, expected: int | None, found: int | None) -> None:
        """What an application could read just before its next write."""
        self.checked += 1
        if expected != found:
            self.fail(t_us, device, key, f"{shown(expected)}, as last written or shown", shown(found))

    def undecided(self, t_us: int, device: str, key: Key, own: int | None, shown_rev: int | None) -> None:
        """Sync shows something while the last own write is undecided."""
        self.checked += 1
        if own != shown_rev:
            self.fail(t_us, device, key, f"own write ({shown(own)}), which no verdict has decided", shown(shown_rev))

    def accepted(self, t_us: int, device: str, key: Key, own_index: int, index: int, shown_rev: int | None) -> bool:
        """Sync shows the state at `index`; the own write is the state at `own_index`. Whether it held."""
        self.checked += 1
        if index >= own_index:
            return True
        self.fail(t_us, device, key, "the own write that was accepted, or a later state", f"older: {shown(shown_rev)}")
        return False
