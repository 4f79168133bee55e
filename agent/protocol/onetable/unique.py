"""Unique values: the items that stand for them in the table, one for each, beside the item that has the value.

Key and content are those of the JavaScript library, which shares the table. Does no I/O. Called by
agent.protocol.onetable.model and expressions. Errors are ModelErrors: `scope` for a scope that lacks a variable, `key`
for a value too long.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from agent.protocol.keys import HASH_BYTES_MAX
from agent.protocol.messages import Image, Key
from agent.protocol.onetable.fields import Field, shown
from agent.protocol.onetable.template import text_of

UNIQUE: Final = "_unique#"
UNIQUE_TYPE: Final = "_Unique"


def unique_key(field: Field, image: Image) -> Key | None:
    """The key of the item that stands for this field's value, of an open image; None where there is no value."""
    text = text_of(image.get(field.attribute))
    if text is None:
        return None
    scope = ""
    if field.scope is not None:
        rendered = field.scope.render(image)
        if rendered is None:
            field.refuse("scope", f"is unique within {field.scope.text!r}, which lacks a variable")
        scope = f"{rendered}#"
    attribute = ",".join(field.packed) if field.packed else field.attribute
    pk = f"{UNIQUE}{scope}{field.model}#{attribute}#{text}"
    if len(pk.encode()) > HASH_BYTES_MAX:
        field.refuse("key", f"is unique: the key {shown(pk)} has more than {HASH_BYTES_MAX} bytes")
    return pk, UNIQUE


def unique_keys(fields: Iterable[Field], image: Image) -> tuple[Key, ...]:
    """Of all unique fields of a model, in their order."""
    keys = (unique_key(field, image) for field in fields)
    return tuple(key for key in keys if key is not None)
