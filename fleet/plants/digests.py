"""Planted bugs of digests, on the device and in the relay, one subclass each: the docstring says what goes wrong.

Called by nobody but fleet.plants, which puts them into a world's types. The real parts have no switch for any of them.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from agent.digests import Count
from agent.digests import Digests as DeviceDigests
from agent.protocol.messages import Claim, Digest, Key
from agent.protocol.schema import Context, Model
from agent.session import Session
from cloud.digests import Digests
from cloud.table import Item, Request

# ---------------------------------------------------------------- the relay


class CountingDigests(Digests):
    """Takes the number of items for their digest: what has changed is called equal (Firestore's existence filter)."""

    def is_equal(self, claim: Claim, total: int, count: int) -> bool:
        return claim.count == count


class HastyDigests(Digests):
    """Takes the first difference for one that will stay, though a change that is on its way makes one too."""

    def is_to_stay(self, claim: Claim, delta: str) -> bool:
        return True


class AnywhereDigests(Digests):
    """Compares devices wherever they stand, behind the end of their feeds too: what a push that was lost would have
    told them is taken for a damage."""

    def is_at(self, head: Item | None, message: Digest) -> bool:
        return True

    def is_tail(self, name: Any, message: Digest, context: Context) -> Generator[Request, Any, bool]:
        yield from super().is_tail(name, message, context)
        return True


# ---------------------------------------------------------------- the device


class IdleDigests(DeviceDigests):
    """Hears that it differs from the cloud for good, counts that, and does nothing."""

    def heal_model(self, model: Model) -> None:
        return


class RestoringDigests(DeviceDigests):
    """Restates an up model from what it held at the comparison before: what was deleted since lives again."""

    def _ask(self, count: Count, now_ms: int) -> None:
        store = self.session.store
        self.held: dict[str, list[tuple[Key, bytes]]] = getattr(self, "latest", {})
        self.latest = {
            model.name: [((pk, sk), image) for sk, image in store.page(pk, prefix, "", 1000, base=True)]
            for model, pk, prefix in self.session.database.schema.up_ranges(self.session.database.context)
        }
        super()._ask(count, now_ms)

    def heal_model(self, model: Model) -> None:
        store = self.session.store
        for (pk, sk), image in self.held.get(model.name, ()) if not model.receives else ():
            place = self.session.database.schema.locate((pk, sk))
            if place is not None and place.model is model and store.base(pk, sk) is None:
                store.put_base(pk, sk, image, 0)
        super().heal_model(model)


class IdleSession(Session):
    digests_type = IdleDigests


class RestoringSession(Session):
    digests_type = RestoringDigests
