"""An up model is restated: each item that the device holds goes up again as it is, a few at a time, and then a sweep.

The sweep carries the number with which the restatement began: what the relay still holds of this model, written by an
operation before that one, is on the device no more and becomes an orphan (rule 17). What is deleted here meanwhile
stays so: only what is in the file at its turn is queued, behind all that was written before. Called by agent.digests.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from agent.file_errors import StoreError, stored_image
from agent.protocol.schema import Model

if TYPE_CHECKING:
    from agent.database import Database

_ITEM: Final = "SELECT updated, rejected FROM item WHERE pk=? AND sk=?"
_REJECTED: Final = "SELECT pk, sk FROM item WHERE rejected IS NOT NULL ORDER BY pk, sk"


class Restatement:
    """How far it has come."""

    __slots__ = ("after", "first_u", "is_done", "model")

    def __init__(self, model: Model) -> None:
        self.model = model
        self.first_u = 0  # of the first operation; 0: it has not begun
        self.after = ""  # a sort key
        self.is_done = False


def turn(db: Database, work: Restatement, ops_max: int) -> int:
    """Queues as many operations, the sweep not counted; returns how many items. The outbox must be empty. One
    transaction."""
    store, model = db.store, work.model
    count = 0
    work.first_u = work.first_u or store.epoch_next_u
    _, pk, prefix = next(entry for entry in db.schema.up_ranges(db.context) if entry[0] is model)
    rows = store.page(pk, prefix, work.after, ops_max)
    with store.transaction():
        for sk, image in rows:
            place = db.schema.locate((pk, sk))
            if place is None or place.model is not model or _is_over(db, model, image):
                continue
            updated, rejected = store.execute(_ITEM, (pk, sk)).fetchone()
            if rejected is None:  # of others the cloud has said that it would not have them
                store.add_operation(pk, sk, "update", image, updated)
                count += 1
        if len(rows) < ops_max and not _has_rejected(db, model):
            store.add_operation("", model.name, "sweep", None, work.first_u)
            store.sweep_n = store.execute("SELECT max(n) FROM outbox").fetchone()[0]
    if len(rows) < ops_max:
        work.is_done = True
    else:
        work.after = rows[-1][0]
    return count


def _is_over(db: Database, model: Model, image: bytes) -> bool:
    if model.ttl_attribute is None:
        return False
    try:
        return db.is_over(model, stored_image(image))
    except StoreError:  # damaged: the relay rejects it, and an application is told
        return False


def _has_rejected(db: Database, model: Model) -> bool:
    """Whether the cloud may hold an older state of an item whose last write it rejected: that is no orphan."""
    places = (db.schema.locate(key) for key in db.store.execute(_REJECTED).fetchall())
    return any(place is not None and place.model is model for place in places)
