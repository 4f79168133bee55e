"""Planted bugs of a change of the schema, on the device, one subclass each: the docstring says what goes wrong.

Called by nobody but fleet.plants, which puts them into a world's types. The real agent has no switch for any of them.
"""

from __future__ import annotations

from agent.events import Event
from agent.replica import Replica
from agent.session import Session
from agent.store import UNSENT, Store


class AmnesiacSession(Session):
    """Begins with another schema by throwing away what was written under the old one and not sent yet."""

    def on_boot(self, event: Event) -> None:
        changed = self.probes["feed_models_changed"]
        super().on_boot(event)
        store = self.store
        if self.probes["feed_models_changed"] != changed:
            for row in store.outbox(f"state={UNSENT} AND kind<>'sweep'"):
                store.drop_operation(row.n)
                store.unsent_rows -= 1


class SteadyStore(Store):
    """Goes on where it stood in its feeds when its schema has got a new model: what came before is never fetched."""

    def drop_cursors_of_other_models(self, fingerprints: dict[str, str]) -> list[str]:
        for feed in self.models:
            self.set_models(feed, fingerprints.get(feed, ""))
        return []


class DeafReplica(Replica):
    """Does not hear that the relay has got another schema: what it did not know before is never fetched."""

    def relay_goes_by(self, version: str) -> None:
        return
