"""Dead letters that end: a rejected write becomes a new operation; a row set aside is over when a later one is applied.

Called by Database and Replica.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from agent.file_errors import stored_image
from agent.protocol.errors import ModelError
from agent.protocol.messages import Key
from agent.records import ROW, DeadLetter

if TYPE_CHECKING:
    from agent.database import Database
    from agent.store import Store

_ASIDE: Final = "SELECT pk, sk FROM dead_letter WHERE kind=? ORDER BY pk, sk"
_DROP: Final = "DELETE FROM dead_letter WHERE pk=? AND sk=? AND kind=?"


def set_aside(store: Store) -> list[Key]:
    """The items that came down in a state that could not be applied."""
    return store.execute(_ASIDE, (ROW,)).fetchall()


def put_aside(store: Store, at_ms: int, key: Key, image: bytes | None, code: str) -> None:
    """A row that could not be applied, into the dead letters: the last one of each item."""
    pk, sk = key
    store.execute(_DROP, (pk, sk, ROW))
    store.bury(at_ms, pk, sk, ROW, image, 0, code)
    store.has_aside = True


def overtaken(store: Store, keys: Iterable[Key]) -> None:
    """The base of these items is what the cloud has again. Left where they are, such letters would keep them out of
    every comparison for good (agent.digests). Part of the transaction that applies them."""
    for pk, sk in keys:
        store.execute(_DROP, (pk, sk, ROW))
    store.has_aside = bool(set_aside(store))


def retry(db: Database, n: int) -> bool:
    """See Database.retry: the letter goes in the transaction of the write."""
    with db.lock:
        letter = next((letter for letter in db.store.dead_letters() if letter.n == n), None)
        if letter is None:
            return False
        if db.block is not None:
            _send_again(db, letter)
        else:
            with db.transaction():
                _send_again(db, letter)
    return True


def _send_again(db: Database, letter: DeadLetter) -> None:
    key = (letter.pk, letter.sk)
    place = db.schema.locate(key)
    if letter.kind == ROW:
        raise ModelError("retry", f"{key} came from the cloud and could not be applied: discard it")
    if place is None or not place.model.sends:
        raise ModelError("retry", f"no model of the schema would send {key} now: discard it")
    m = place.model
    visible = db.store.visible(*key)
    if visible.updated > letter.updated:
        raise ModelError("retry", f"{m.name} {key} was written since: discard it", model=m.name)
    visible = visible._replace(updated=letter.updated)  # it is a write of its own, and newer than the one rejected
    db.store.drop_dead_letter(letter.n)
    if letter.image is not None:
        db.replace(m, key, stored_image(letter.image), visible)
    elif visible.image is not None:
        db.delete(m, key, visible)
    else:  # gone here already: only the cloud is to hear of it
        assert db.block is not None
        db.commit(m, key, "delete", None, max(db.clock.now_ms(), visible.updated + 1), visible)
        db.block.news = True
