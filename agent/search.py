"""Finds items: by key, by the beginning of a sort key, by an index of the schema, by any field, page by page.

Reads page after page as it is iterated, each under the database's lock: an item that is written meanwhile is shown as
it is when its page is read. Writes nothing. Called by Database, whose `find` it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from agent.file_errors import stored_image
from agent.index_table import LEAST, MOST
from agent.protocol.errors import ModelError
from agent.protocol.keys import HASH, SORT
from agent.protocol.matching import has
from agent.protocol.messages import Image, Key
from agent.protocol.onetable.indexes import Scalar
from agent.protocol.schema import Model
from agent.store import prefix_end

if TYPE_CHECKING:
    from agent.database import Database

FIND_PAGE_ITEMS: Final = 64  # read at once

After = str | int | float | Mapping[str, Any] | None
Where = Callable[[dict[str, Any]], bool]
_Found = Iterator[tuple[Key, Image]]


def find(
    db: Database,
    m: Model,
    properties: Mapping[str, Any],
    where: Where | None,
    index: str | None,
    reverse: bool,
    after: After,
    limit: int | None,
) -> Iterator[dict[str, Any]]:
    """See Database.find. Raises ModelError at the call, not at the first item."""
    if limit is not None and (limit.__class__ is not int or limit < 0):
        raise ModelError("find", f"limit {limit!r}: expected a whole number from 0 on", model=m.name)
    wanted = dict(properties)
    if index is None:
        pk, prefix = m.search(wanted, db.context)
        start = m.key(after, db.context)[1] if isinstance(after, Mapping) else after
        if start is not None and not isinstance(start, str):
            raise ModelError("find", f"after {start!r}: expected a sort key or an item", model=m.name)
        found = _pages(db, pk, prefix, _text(m, start or ""), reverse)
    else:
        found = _by_index(db, m, wanted, index, after, reverse)
    wanted.pop(HASH, None)
    exactly = wanted.pop(SORT, None)

    def chosen(key: Key, image: Image) -> dict[str, Any] | None:
        if (exactly is not None and key[1] != exactly) or not db.is_shown(m, key, image):
            return None
        item = m.read(key, image)
        if wanted and not has(m, item, image, wanted):
            return None
        return item if where is None or where(item) else None

    read = (chosen(key, image) for key, image in found)
    return islice((item for item in read if item is not None), limit)


def _text(m: Model, text: str) -> str:
    """A text that can be a key. Raises ModelError `key`."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ModelError("key", f"{m.name}: {text!r} is no Unicode text", model=m.name) from None
    return text


def _pages(db: Database, pk: str, prefix: str, after: str, reverse: bool) -> _Found:
    while True:
        with db.lock:
            page = db.store.page(pk, prefix, after, FIND_PAGE_ITEMS, reverse=reverse)
        for sk, image in page:
            yield (pk, sk), stored_image(image)
        if len(page) < FIND_PAGE_ITEMS:
            return
        after = page[-1][0]


def _by_index(db: Database, m: Model, wanted: dict[str, Any], index: str, after: After, reverse: bool) -> _Found:
    """The items in one part of an index. What says where in the index they are is taken out of `wanted`."""
    hash_value, sort = m.index_search(index, wanted, db.context)
    definition = m.indexes[index]
    start: tuple[Any, Any, Any] | None = None
    if isinstance(after, Mapping):
        here = m.index_search(index, after, db.context)[1]
        start = ("" if here is None else here, *m.key(after, db.context))
    elif after is not None:
        start = (after, "", "") if reverse else (after, MOST, MOST)
    for name in (definition.hash, definition.sort):
        if name is not None and name in wanted and (name not in m.fields or m.fields[name].hidden):
            del wanted[name]
    if isinstance(sort, str):
        between: tuple[Scalar, Scalar | bytes] = (sort, prefix_end(sort))
    elif sort is None:
        between = (LEAST, MOST)
    else:
        between = (sort, sort + 1 if isinstance(sort, int) else math.nextafter(sort, math.inf))
    only = sort if isinstance(sort, int | float) else None
    return _index_pages(db, m, f"{index}:{m.name}", hash_value, between, start, reverse, only)


def _index_pages(
    db: Database,
    m: Model,
    name: str,
    hash_value: Scalar,
    between: tuple[Scalar, Scalar | bytes],
    start: tuple[Any, Any, Any] | None,
    reverse: bool,
    only: Scalar | None,
) -> _Found:
    table = db.indexing.of(m)
    while True:
        with db.lock:
            places = table.page(name, hash_value, between, start, FIND_PAGE_ITEMS, reverse=reverse)
            page = [(sort, (pk, sk), db.store.visible(pk, sk).image) for sort, pk, sk in places]
        for sort, key, image in page:
            if image is not None and (only is None or sort == only):
                yield key, stored_image(image)
        if len(page) < FIND_PAGE_ITEMS:
            return
        start = places[-1]


def items(db: Database) -> Iterator[tuple[Model, Key, Image]]:
    """Every item that an application can read, in order of the keys."""
    for model, key, image in stored(db):
        if model.ttl_attribute is None or not db.is_over(model, image):
            yield model, key, image


def stored(db: Database) -> Iterator[tuple[Model, Key, Image]]:
    """The same, and those whose lives are over but which are still there."""
    for pk, sk, data in rows(db):
        place = db.schema.locate((pk, sk))
        image = stored_image(data)
        model = place.model if place is not None else db.by_type(image)
        if model is not None:
            yield model, (pk, sk), image


def rows(db: Database) -> Iterator[tuple[str, str, bytes]]:
    """(pk, sk, image) of everything that shows, items of no model too."""
    after = ("", "")
    while True:
        with db.lock:
            page = db.store.page_of_all(*after, FIND_PAGE_ITEMS)
        yield from page
        if len(page) < FIND_PAGE_ITEMS:
            return
        after = page[-1][:2]
