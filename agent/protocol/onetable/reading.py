"""From a stored value to the one that an application gets: dates, bytes and sets as Python has them.

Never raises for a value of another form than the schema says: tables hold what older schemas and other applications
wrote, and such a value is given as it is. What is given shares nothing with the image. Called by
agent.protocol.onetable.model.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from agent.protocol.onetable import values
from agent.protocol.onetable.dates import date_ms, from_ms
from agent.protocol.onetable.fields import BUFFERS, Field
from agent.protocol.onetable.values import plain

Back = Callable[[Any], Any]
_SCALARS: Final[frozenset[type]] = frozenset({str, int, float, bool, type(None)})
_NULL: Final[frozenset[type]] = frozenset({type(None)})


def as_they_are(field: Field) -> frozenset[type]:
    """The classes whose stored values an application gets as they are, which most are."""
    return _SCALARS if field.type in ("string", "number", "boolean") else _NULL


def reader(field: Field) -> Back:
    """The function that makes an application's value of a stored one that is not None."""
    if field.type == "date":
        return _seconds_back if field.ttl else _date_back
    if field.type == "array":
        return _array_reader(field)
    if field.type == "object":
        return _object_reader(field)
    if field.type == "set":
        return _set_back
    if field.type in BUFFERS:
        return _buffer_back
    return plain


def _date_back(value: Any) -> Any:
    """Either form, whatever the schema says: tables hold both after a change of isoDates. Else as it is."""
    value_ms = date_ms(value)
    try:
        return plain(value) if value_ms is None else from_ms(value_ms)
    except OverflowError:
        return value


def _seconds_back(value: Any) -> Any:
    try:
        return from_ms(value * 1000) if value.__class__ is int else _date_back(value)
    except OverflowError:
        return value


def _buffer_back(value: Any) -> Any:
    """From base64 text, or from binary: the JavaScript library stores either."""
    if not isinstance(value, str):
        return plain(value)
    try:
        return values.base64_bytes(value)
    except ValueError:
        return value


def _set_back(value: Any) -> Any:
    """Also from a list: the JavaScript library makes one of an array given for a set."""
    found = plain(value)
    if not isinstance(found, list):
        return found
    try:
        return set(found)
    except TypeError:
        return found


def _array_reader(field: Field) -> Back:
    back = reader(field.items) if field.items else plain

    def array(value: Any) -> Any:
        if not isinstance(value, list):
            return plain(value)
        return [item if item is None else back(item) for item in value]

    return array


def _object_reader(field: Field) -> Back:
    if field.fields is None:
        return plain
    plan = tuple((sub.name, sub.attribute, reader(sub)) for sub in field.fields if not sub.hidden)

    def nested(value: Any) -> Any:
        members = values.members_of(value)
        if members is None:
            return plain(value)
        out: dict[str, Any] = {}
        for name, attribute, back in plan:
            if attribute in members:
                item = members[attribute]
                out[name] = item if item is None else back(item)
        return out

    return nested
