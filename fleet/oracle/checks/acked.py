"""The check `no-acked-write-lost`. Called where HEAD moves, where an ack is seen, and at the end."""

from __future__ import annotations

from collections.abc import Mapping

from agent.protocol.messages import Key
from fleet.oracle.check import Check, shown


class NoAckedWriteLost(Check):
    __slots__ = ()

    name = "no-acked-write-lost"
    statement = (
        "An operation that the relay acknowledged was committed before the acknowledgement was on its way: HEAD had "
        "reached it, with the same id and the same verdicts, and the item had its image. From then on it is the item's "
        "present state or was followed by a later decision; at the end the table is what its commits made of it."
    )

    def ack(
        self,
        t_us: int,
        device: str,
        key: Key | None,
        up: int,
        up_id: str | None,
        head_up: int,
        head_id: str | None,
        epoch: str,
    ) -> None:
        """An ack of (up, up_id), which wrote `key`; HEAD of that epoch stands, or ended, at (head_up, head_id)."""
        self.checked += 1
        if up > head_up or (up == head_up and up_id != head_id):
            claimed, held = f"operation {up} ({up_id})", f"operation {head_up} ({head_id})"
            self.fail(t_us, device, key, f"HEAD of epoch {epoch} committed at {claimed}", f"HEAD at {held}")

    def verdicts(
        self, t_us: int, device: str, up: int, told: Mapping[str, str], u: int, committed: str, key: Key | None
    ) -> None:
        """Of one operation that the ack covers."""
        self.checked += 1
        said = told.get(str(u), "")
        if u <= up and said != committed:
            verdict = committed or "accepted"
            self.fail(t_us, device, key, f"verdict {verdict!r} on operation {u}", f"{said or 'accepted'!r} in the ack")

    def applied(self, t_us: int, device: str, key: Key, u: int, rev: int | None, found: int | None) -> None:
        """HEAD has accepted an operation whose commit was not seen: the item must already be as it wants."""
        self.checked += 1
        if rev != found:
            self.fail(t_us, device, key, f"{shown(rev)} in the table, since HEAD accepted operation {u}", shown(found))

    def unknown_epoch(self, t_us: int, device: str, epoch: str) -> None:
        self.checked += 1
        self.fail(t_us, device, None, "an ack of an epoch that HEAD has had", f"an ack of {epoch}")

    def kept(self, t_us: int, device: str, key: Key, expected: int | None, found: int | None, same: bool) -> None:
        """At the end: the table's item against the last commit."""
        self.checked += 1
        if not same:
            self.fail(t_us, device, key, f"{shown(expected)} as last committed", f"{shown(found)} in the table")
