"""Items as DynamoDB's attribute maps and back, and how many bytes the service counts for them.

The values themselves are agent.protocol.onetable.attributes' part; here are whole items of the Table port, whose two
key attributes are among the others. Pure. Raises InvalidRequest for what no table can hold. Called by cloud.dynamodb
and cloud.dynamodb_requests.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent.protocol.errors import ModelError
from agent.protocol.onetable.attributes import AttributeMap, from_attributes, to_attributes
from cloud.table import InvalidRequest, Item


def attributes_of(item: Mapping[str, Any]) -> AttributeMap:
    """The attributes of an item, or of a part of one."""
    try:
        return to_attributes(item)
    except (ModelError, TypeError, RecursionError) as error:
        raise InvalidRequest(f"item cannot be stored: {error}") from None


def item_of(attributes: Mapping[str, Any]) -> Item:
    """An item as the service tells it."""
    return from_attributes(attributes)


def attributes_bytes(attributes: Mapping[str, Any]) -> int:
    """The size of an item, by the developer guide's "Item sizes and formats" (as cloud.units, but of attributes)."""
    try:
        return _members_bytes(attributes)
    except UnicodeEncodeError:
        raise InvalidRequest("item cannot be stored: a text that is no UTF-8 (half of a surrogate pair)") from None


def _members_bytes(attributes: Mapping[str, Any]) -> int:
    size_bytes = 0
    for name, attribute in attributes.items():
        size_bytes += len(name.encode())
        for kind, value in attribute.items():
            size_bytes += _value_bytes(kind, value)
    return size_bytes


def _value_bytes(kind: str, value: Any) -> int:
    if kind == "S":
        return len(value.encode())
    if kind == "N":
        return _number_bytes(value)
    if kind == "B":
        return len(value)
    if kind == "M":
        return 3 + len(value) + _members_bytes(value)
    if kind == "L":
        return 3 + len(value) + sum(_member_bytes(each) for each in value)
    if kind in ("SS", "NS", "BS"):
        return sum(_value_bytes(kind[0], each) for each in value)
    return 1  # true, false, null


def _member_bytes(attribute: Mapping[str, Any]) -> int:
    ((kind, value),) = attribute.items()
    return _value_bytes(kind, value)


def _number_bytes(text: str) -> int:
    """About a byte for two digits that count, and one more; another for a minus."""
    digits = text.lower().partition("e")[0].lstrip("+-").replace(".", "").strip("0")
    return (len(digits) + 1) // 2 + 1 + text.startswith("-")
