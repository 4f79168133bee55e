"""An up model is restated: each item that the device holds goes up again as it is, a few at a time, and then a sweep.

The sweep carries the number with which the restatement began: what the relay still holds of this model, written by an
operation before that one, is on the device no more and becomes an orphan (rule 17). What is deleted here meanwhile
stays so: only what is in the file at its turn is queued, behind all that was written before. Called by agent.digests.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from agent.file_errors import StoreError, stored_image
from agent.protocol.messages import Key
from agent.protocol.schema import Model
from agent.records import HELD
from agent.store import Store

if TYPE_CHECKING:
    from agent.database import Database

_ITEM: Final = "SELECT updated, rejected FROM item WHERE pk=? AND sk=?"
_REJECTED: Final = "SELECT pk, sk FROM item WHERE rejected IS NOT NULL ORDER BY pk, sk"
_HELD: Final = f"SELECT pk, sk, n FROM outbox WHERE state={HELD} ORDER BY n"
_OTHERS: Final = f"SELECT 1 FROM outbox WHERE state<>{HELD} LIMIT 1"  # one row


class Restatement:
    """How far it has come."""

    __slots__ = ("after", "first_u", "held", "is_done", "is_queued", "model")

    def __init__(self, model: Model) -> None:
        self.model = model
        self.first_u = 0  # of the first operation; 0: it has not begun
        self.after = ""  # a sort key
        self.is_queued = self.is_done = False
        self.held: set[int] = set()  # rows of the outbox that will restate their items, when their period has passed


def only_held(store: Store) -> bool:
    """Whether all rows of the outbox wait for their period."""
    return store.execute(_OTHERS).fetchone() is None


def turn(db: Database, work: Restatement, ops_max: int) -> int:
    """Queues as many operations, the sweep not counted; returns how many items. Nothing else may wait to be sent. One
    transaction."""
    store, model = db.store, work.model
    work.first_u = work.first_u or store.epoch_next_u
    held = {(pk, sk): n for pk, sk, n in store.execute(_HELD).fetchall()}
    count = 0
    with store.transaction():
        if not work.is_queued:
            count = _queue(db, work, ops_max, held)
        if work.is_queued and work.held.isdisjoint(held.values()):
            if not _has_rejected(db, model):
                store.add_operation("", model.name, "sweep", None, work.first_u)
                store.sweep_n = store.execute("SELECT max(n) FROM outbox").fetchone()[0]
            work.is_done = True
    return count


def _queue(db: Database, work: Restatement, ops_max: int, held: Mapping[Key, int]) -> int:
    """The next items. One with a change that waits for its period is left to that change: a row behind it would hide
    it from reads."""
    store, model = db.store, work.model
    _, pk, prefix = next(entry for entry in db.schema.up_ranges(db.context) if entry[0] is model)
    rows = store.page(pk, prefix, work.after, ops_max, base=True)
    count = 0
    for sk, image in rows:
        key = (pk, sk)
        place = db.schema.locate(key)
        if place is None or place.model is not model or _is_over(db, model, image):
            continue
        if key in held:
            work.held.add(held[key])
            continue
        updated, rejected = store.execute(_ITEM, key).fetchone()
        if rejected is None:  # of others the cloud has said that it would not have them
            store.add_operation(pk, sk, "update", image, updated)
            count += 1
    work.is_queued = len(rows) < ops_max
    work.after = rows[-1][0] if rows else work.after
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
