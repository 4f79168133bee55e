"""Unique values of what devices write: the items that stand for them, kept in the same transaction (rule 6).

Frees the values that an item no longer has and takes those that it has now. Whether a value is taken shows by the
condition of its put; cloud.ingest then rejects the operation. Pure; called by cloud.ingest and cloud.orphans.
"""

from __future__ import annotations

from agent.protocol.errors import ModelError
from agent.protocol.onetable.unique import UNIQUE_TYPE
from agent.protocol.schema import Model
from cloud.table import ITEM_ABSENT, PK, SK, Delete, Item, Key, Put


def changes(model: Model, key: Key, old: Item | None, new: Item | None) -> tuple[Delete | Put, ...]:
    """What happens to the items of unique values when an item changes; a put fails where the value is taken."""
    if not model.unique_fields:
        return ()
    had, has = held(model, key, old), held(model, key, new)
    taken = ({PK: pk, SK: sk, model.type_field: UNIQUE_TYPE} for pk, sk in has if (pk, sk) not in had)
    return (
        *(Delete(unique) for unique in had if unique not in has),
        *(Put(item, ITEM_ABSENT) for item in taken),
    )


def held(model: Model, key: Key, item: Item | None) -> tuple[Key, ...]:
    """The keys of the items that stand for an item's values; none for one that another program wrote and that lacks
    what its keys are made of."""
    if item is None:
        return ()
    try:
        return model.unique_keys(key, dict(item))
    except ModelError:
        return ()
