"""Items out of a database and into one, as values for JSON lines: {"model": name, "key": [pk, sk], "item": {...}}.

`item` is the stored item, by attribute, exact: what JSON has not is tagged (`{"$B": base64}`, `{"$N": digits}`, sets:
agent.protocol.onetable.values), dates are as the schema stores them, attributes that the schema does not know are there
too. What comes in is checked as an item from the cloud would be, and is then an own write with a new stamp. Called by
Database, whose methods they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec

from agent.protocol.errors import MessageError, ModelError
from agent.protocol.messages import Image, Key, decode_image, encode_image
from agent.protocol.schema import Model

if TYPE_CHECKING:
    from agent.database import Database

ROWS_MAX: Final = 256  # in one transaction
Result = Literal["created", "updated", "unchanged"]


@dataclass(slots=True)
class ImportResult:
    """`refused`: (number of the row, from 1; why)."""

    created: int = 0
    updated: int = 0
    unchanged: int = 0
    refused: list[tuple[int, str]] = field(default_factory=list)


def export_items(db: Database) -> Iterator[dict[str, Any]]:
    """In order of the keys. Reads page by page."""
    for model, key, image in db.items():
        yield {"model": model.name, "key": list(key), "item": image}


def import_items(db: Database, rows: Iterable[Mapping[str, Any]]) -> ImportResult:
    """Part of the transaction that is open, else one for every ROWS_MAX rows: an error of the disk undoes those, and
    comes out."""
    result = ImportResult()
    numbered = enumerate(rows, 1)
    while batch := list(islice(numbered, ROWS_MAX)):
        with db.transaction() if db.block is None else nullcontext():
            for number, row in batch:
                try:
                    done = _import_row(db, row)
                except ModelError as error:
                    result.refused.append((number, str(error)))
                else:
                    setattr(result, done, getattr(result, done) + 1)
    return result


def _import_row(db: Database, row: Mapping[str, Any]) -> Result:
    m, key, image = _read(db, row)
    visible = db.store.visible(*key)
    if visible.image is None:
        db.replace(m, key, image, visible)
        return "created"
    if _bare(m, decode_image(visible.image)) == _bare(m, image):
        return "unchanged"
    db.replace(m, key, image, visible)
    return "updated"


def _read(db: Database, row: Mapping[str, Any]) -> tuple[Model, Key, Image]:
    """Raises ModelError."""
    if not isinstance(row, Mapping):
        raise ModelError("import", f"expected an object, found {row!r:.60}")
    name, key, item = row.get("model"), row.get("key"), row.get("item")
    if not isinstance(name, str):
        raise ModelError("import", "'model' is not a name")
    m = db.model(name)
    if not (isinstance(key, list | tuple) and len(key) == 2 and all(isinstance(part, str) and part for part in key)):
        raise ModelError("import", f"'key' is not [pk, sk]: {key!r:.60}", model=name)
    if not isinstance(item, Mapping):
        raise ModelError("import", "'item' is not an object", model=name)
    place = db.schema.locate((key[0], key[1]))
    if place is not None and place.model is not m:
        raise ModelError("key", f"{key} is a key of {place.model.name}, not of {name}", model=name)
    own = (db.context.device_id, db.context.account_id)
    if place is not None and (place.device_id not in (None, own[0]) or place.account_id not in (None, own[1])):
        raise ModelError("key", f"{key} is another device's or account's", model=name)
    try:
        image = decode_image(encode_image(dict(item)))  # a copy, and nothing in it but what JSON has
    except (MessageError, TypeError, ValueError, msgspec.MsgspecError) as error:
        raise ModelError("type", f"{name} {key}: {error}", model=name) from None
    m.check((key[0], key[1]), image)
    return m, (key[0], key[1]), image


def _bare(m: Model, image: Image) -> Image:
    """Without its stamp."""
    return m.stamp(image, 0)
