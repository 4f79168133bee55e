"""The check `no-double-apply`. Called where an operation takes effect and where HEAD moves."""

from __future__ import annotations

from agent.protocol.messages import Key
from fleet.oracle.check import Check, shown


class NoDoubleApply(Check):
    __slots__ = ()

    name = "no-double-apply"
    statement = (
        "No operation takes effect twice, or out of order, or apart from HEAD: an item changes by operation u in the "
        "transaction that moves HEAD from below u to u or beyond, HEAD never moves back within an epoch, and an "
        "operation of a former epoch changes nothing. What a table that was put back does not have may "
        "take effect once more."
    )

    def applied(self) -> None:
        self.checked += 1

    def again(self, t_us: int, device: str, key: Key, u: int, rev: int | None) -> None:
        self.checked += 1
        self.fail(t_us, device, key, f"operation {u} to take effect once", f"it made {shown(rev)} again")

    def late(self, t_us: int, device: str, key: Key, u: int, head_up: int, rev: int | None) -> None:
        self.checked += 1
        found = f"operation {u} changed the item to {shown(rev)}"
        self.fail(t_us, device, key, f"no effect of operations up to {head_up}, which HEAD has passed", found)

    def apart(self, t_us: int, device: str, key: Key | None, u: int, head_up: int) -> None:
        self.fail(t_us, device, key, f"HEAD to move with operation {u}", f"the item changed, HEAD is at {head_up}")

    def old_epoch(self, t_us: int, device: str, key: Key, u: int, epoch: str) -> None:
        self.checked += 1
        self.fail(t_us, device, key, "no effect of former epochs", f"operation {u} of epoch {epoch}")

    def despite_verdict(self, t_us: int, device: str, key: Key | None, u: int, verdict: str) -> None:
        self.fail(
            t_us, device, key, f"no effect of operation {u}, whose verdict is {verdict}", "the item has its image"
        )

    def head_back(self, t_us: int, device: str, head: Key, before: int, after: int) -> None:
        self.checked += 1
        self.fail(t_us, device, head, f"HEAD at operation {before} or beyond", f"HEAD at {after}")
