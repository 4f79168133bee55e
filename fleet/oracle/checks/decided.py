"""The check `every-write-decided`. Called where HEAD moves, where a trigger tells a verdict, and at the end."""

from __future__ import annotations

from agent.protocol.messages import Key
from fleet.oracle.check import Check


class EveryWriteDecided(Check):
    __slots__ = ()

    name = "every-write-decided"
    statement = (
        "Every write of a device's application to an up or both model ends in exactly one of accepted, lost, rejected "
        "or superseded (taken over by a later write of the same item before it was sent); a trigger that tells the "
        "application of a verdict tells the one that the table holds. What a table that was put back does not have may "
        "be decided once more."
    )
    excuse = "operations decided once more after the table was put back"

    def decided(self, writes: int) -> None:
        self.checked += writes

    def twice(self, t_us: int, device: str, key: Key | None, u: int, first: str, second: str) -> None:
        self.fail(t_us, device, key, f"one verdict on operation {u}: {first}", f"another: {second}")

    def never_sent(self, t_us: int, device: str, u: int) -> None:
        self.checked += 1
        self.fail(t_us, device, None, "HEAD to pass operations that were sent", f"HEAD passed operation {u}")

    def skipped(self, t_us: int, device: str, key: Key, rev: int, sent: int | None) -> None:
        """An operation was sent again under a number that does not carry the write."""
        self.fail(t_us, device, key, f"write rev {rev} on its way", f"an operation of rev {sent} in its place")

    def told(self, t_us: int, device: str, key: Key, updated_ms: int, verdict: str, committed: str | None) -> None:
        """`committed`: "" accepted, "lost" or a code; None: HEAD has not passed it."""
        self.checked += 1
        is_so = committed is not None and verdict == {"": "synced", "lost": "lost"}.get(committed, "rejected")
        if not is_so:
            held = "undecided" if committed is None else committed or "accepted"
            self.fail(t_us, device, key, f"verdict {held} on the write stamped {updated_ms}", f"trigger {verdict!r}")

    def told_of_nothing(self, t_us: int, device: str, key: Key, updated_ms: int, verdict: str) -> None:
        self.checked += 1
        self.fail(t_us, device, key, "a verdict on an operation that was sent", f"{verdict!r} on stamp {updated_ms}")

    def undecided(self, t_us: int, device: str, key: Key | None, rev: int, where: str) -> None:
        self.checked += 1
        self.fail(t_us, device, key, f"write rev {rev} accepted, lost, rejected or superseded", f"undecided ({where})")
