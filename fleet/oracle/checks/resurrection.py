"""The check `no-resurrection`. Called where items appear: in the table, and before an application."""

from __future__ import annotations

from agent.protocol.messages import Key
from fleet.oracle.check import Check, shown


class NoResurrection(Check):
    __slots__ = ()

    name = "no-resurrection"
    statement = (
        "A deleted item lives again only by a later create: an update of a both model's missing item is lost in the "
        "table, and what an application has seen go does not come back with an old image. A disk that was set back "
        "is from before it went: see monotone-reads."
    )

    def appeared(self) -> None:
        """An item came into being by a create, or for the first time."""
        self.checked += 1

    def by_update(self, t_us: int, device: str, key: Key, u: int, rev: int | None) -> None:
        self.checked += 1
        self.fail(t_us, device, key, "a deleted item to stay away (delete wins)", f"update {u} made {shown(rev)}")

    def came_back(self, t_us: int, device: str, key: Key, rev: int | None) -> None:
        self.checked += 1
        self.fail(t_us, device, key, "no item, since it was deleted", f"the old {shown(rev)}")
