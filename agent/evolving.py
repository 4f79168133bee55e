"""What happens to a file when the schema changes: what differs is told, the index table is made anew.

The file remembers the schema that it was last opened with. A file in memory does not: nothing outlives its process but
in simulations, where it would cost each device some kilobytes. Nothing is taken away from items: what a schema does not
know stays in them. Called by Database when it opens.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Final

from agent import indexing, search
from agent.file_errors import stored_image
from agent.protocol.errors import InputError
from agent.protocol.evolution import Difference, differences
from agent.protocol.messages import ITEM_BYTES_MAX, Key
from agent.protocol.schema import Model, Schema

if TYPE_CHECKING:
    from agent.database import Database

NOTE: Final = "schema"


def settle(db: Database) -> list[Difference]:
    """Makes the file one of this schema. Returns what has changed since the last one; [] for a new file.

    In one transaction. Reads all items only when there are indexes to be made anew, or a model has begun to sync up:
    the cloud has never seen its items, so that they are sent."""
    store = db.store
    found: list[Difference] = []
    remembered = text = None
    if _outlives(db):
        remembered, text = store.note(NOTE), zlib.compress(db.schema.text.encode())
    fingerprint = db.indexing.fingerprint() if db.indexing.plans else b""
    indexes_changed = fingerprint != (store.note(indexing.NOTE) or b"")
    if not indexes_changed and remembered == text:
        return found
    if remembered is not None and remembered != text:
        found = _differences(remembered, db.schema)
    with store.transaction():
        _send_what_was_local(db, found)
        if indexes_changed:
            db.indexing.rebuild(search.stored(db))
            store.set_note(indexing.NOTE, fingerprint)
        if text is not None:
            store.set_note(NOTE, text)
    store.load()
    return found


def _outlives(db: Database) -> bool:
    return any(row[1] == "main" and row[2] for row in db.store.connection.execute("PRAGMA database_list").fetchall())


def _differences(remembered: bytes, schema: Schema) -> list[Difference]:
    try:
        return differences(Schema.parse(zlib.decompress(remembered).decode(), "the schema before"), schema)
    except (InputError, zlib.error, UnicodeDecodeError):
        return []  # by a newer agent, which knows more of schemas: the items are what counts


def _send_what_was_local(db: Database, found: list[Difference]) -> None:
    """Items of models that did not sync and now do: each becomes an operation on top of nothing."""
    names = {change.model for change in found if change.kind == "sync changed" and change.old.endswith(" none")}
    models = [model for name, model in db.schema.models.items() if name in names and model.sends]
    if not models:
        return
    for model, (pk, sk), image, updated in _base_of(db, models):
        if len(image) > ITEM_BYTES_MAX:
            db.store.bury(db.clock.now_ms(), pk, sk, "create", image, updated, "size")  # it stays here
            continue
        db.store.delete_base(pk, sk)
        db.store.add_operation(pk, sk, "create", image, model.updated_ms(stored_image(image)) or updated)


def _base_of(db: Database, models: list[Model]) -> list[tuple[Model, Key, bytes, int]]:
    rows = db.store.execute("SELECT pk, sk, image, updated FROM item ORDER BY pk, sk").fetchall()
    found = []
    for pk, sk, image, updated in rows:
        place = db.schema.locate((pk, sk))
        if place is not None and place.model in models:
            found.append((place.model, (pk, sk), image, updated))
    return found
