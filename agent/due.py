"""What falls due by itself: items whose lives are over, and changes that waited for the `period` of their model.

An item with a ttl field in the past, by the corrected clock, is absent to every read, and is then dropped. A local-only
one leaves the file; so does one that came down, since the cloud sweeps its own; of an up or both model a delete goes
into the outbox. That delete has the next stamp after the item's: whatever was written later, here or in the cloud, is
newer and stays. Called by Database and by Session's timer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from agent.changes import Change
from agent.file_errors import stored_image
from agent.index_table import IndexTable
from agent.protocol.messages import Image, Key
from agent.protocol.schema import Model
from agent.store import ACKED, Visible

if TYPE_CHECKING:
    from agent.database import Database

ITEMS_MAX: Final = 64  # in one transaction
CLOCK_BACK_MS: Final = 60_000  # what is learned of the time sets a clock back a little, all the time


def see(db: Database) -> int | None:
    """Does what is due. Returns in how many milliseconds the next thing is, at least 1; None: nothing is to come.

    Items wait until the relay's time is known: by a wrong clock they would go too early, here and in the cloud."""
    ends = db.clock.corrected
    release(db)
    if ends:
        expire(db)
    due_ms = next_ms(db, ends=ends)
    return None if due_ms is None else max(1, due_ms - db.clock.now_ms())


def release(db: Database) -> int:
    """Changes whose period has passed since the first of them can be sent from now on. So can those that a clock which
    went back would hold for much longer than that. Returns how many rows."""
    store = db.store
    due_ms = store.held_due_ms
    now = db.clock.now_ms()
    longest_ms = db.period_ms_max + CLOCK_BACK_MS
    if due_ms is None or now < due_ms <= now + longest_ms:
        return 0
    return store.release(now, longest_ms)


def next_ms(db: Database, *, ends: bool = True) -> int | None:
    """When there is something to release, or (`ends`) to expire: in milliseconds since 1970 by the corrected clock."""
    end_ms = db.indexing.next_end_ms() if ends else None
    held_ms = db.store.held_due_ms
    if held_ms is None or end_ms is None:
        return end_ms if held_ms is None else held_ms
    return min(held_ms, end_ms)


def living(db: Database, m: Model, key: Key) -> Visible:
    """What a write finds of an item of a model with a ttl: an item whose life is over is dropped first, once the relay
    has told the time."""
    visible = db.store.visible(*key)
    if visible.image is None:
        return visible
    image = stored_image(visible.image)
    if not db.is_over(m, image):
        return visible
    if not db.clock.corrected and (m.sends or m.receives):
        return visible._replace(image=None)  # hidden, as from reads; by such a clock only a new write takes its place
    changes: list[Change] = []
    with db.atomic():
        _drop(db, m, key, image, visible, changes)
    _tell(db, changes, m.sends)
    return db.store.visible(*key)


def expire(db: Database) -> int:
    """See Database.expire. One transaction for every ITEMS_MAX."""
    count = 0
    with db.lock:
        now_s = db.clock.now_ms() // 1000
        for table in db.indexing.tables:
            while table.next_end_s is not None and table.next_end_s <= now_s:
                dropped = _expire_page(db, table, table.due(now_s, ITEMS_MAX))
                count += dropped
                if not dropped:  # what was to end first had gone, or was renewed: the next one is known now
                    break
    return count


def _expire_page(db: Database, table: IndexTable, keys: list[Key]) -> int:
    changes: list[Change] = []
    sends = False
    with db.atomic():
        for key in keys:
            visible = db.store.visible(*key)
            place = db.schema.locate(key)
            image = None if visible.image is None else stored_image(visible.image)
            m = place.model if place is not None else None if image is None else db.by_type(image)
            if m is not None and image is not None and db.is_over(m, image):
                _drop(db, m, key, image, visible, changes)
                sends = sends or m.sends
        table.load()
    _tell(db, changes, sends)
    return len(changes)


def _drop(db: Database, m: Model, key: Key, image: Image, visible: Visible, changes: list[Change]) -> None:
    updated = visible.updated + 1
    if m.sends:
        db.commit(m, key, "delete", None, updated, visible)
        base = db.store.base(*key)
        if base is not None and db.is_over(m, stored_image(base[0])):
            db.store.delete_base(*key)  # or it would show again, and be dropped again, when the delete is lost
        if visible.n and visible.state == ACKED:
            db.store.end_life(visible.n)  # for the same reason
    else:
        db.store.delete_base(*key)
    db.indexing.move(db.indexing.plans[m.name], key, image, None)
    changes.append(Change("expired", "local", m.name, key, None, image, updated))


def _tell(db: Database, changes: list[Change], sends: bool) -> None:
    block = db.block
    if block is not None:
        block.changes.extend(changes)
        block.news = block.news or sends
        return
    try:
        db.emit(changes)
    finally:
        if sends:
            db.on_outbox()
