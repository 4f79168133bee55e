"""Whether a stored value from outside is one that its field could hold: what another device or application sent.

Never changes a value. Called by agent.protocol.onetable.model, which asks once per model for the functions below.
Errors are ModelErrors with the codes `type`, `required`, `enum`, `validate`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from agent.protocol.onetable import values
from agent.protocol.onetable.dates import MS_MAX, iso_ms
from agent.protocol.onetable.fields import BUFFERS, Field, shown
from agent.protocol.onetable.values import INT_MAX, INT_MIN
from agent.protocol.onetable.writing import stored_number, writer

Verify = Callable[[Any], Any]


def verifier(field: Field) -> tuple[type, Verify | None, Verify]:
    """For stored values from outside, never None: the class that most have, what is left to check of such a value
    (None: nothing), and the check of any value."""
    if field.type == "boolean":
        return bool, None, writer(field, False)
    if field.type == "number":
        number = _number_verifier(field)
        return int, number, number
    if field.type == "date":
        return _date_verifier(field)
    if field.type == "string":
        string = writer(field, False)
        return str, string if field.enum or field.pattern or field.key_bytes_max else None, string
    if field.type == "set":
        deep = _set_verifier(field)
        return dict, deep, deep
    if field.type in BUFFERS:
        buffer = _buffer_verifier(field)
        return str, buffer, buffer
    if field.type == "array":
        deep = _array_verifier(field)
        return list, deep, deep
    deep = _object_verifier(field)
    return dict, deep, deep


def _number_verifier(field: Field) -> Verify:
    enum = field.enum

    def number(value: Any) -> None:
        if value.__class__ is not int or not INT_MIN <= value <= INT_MAX:
            if value.__class__ is dict:
                _proper(field, value, (values.NUMBER,), "a number")
            elif stored_number(field, value).__class__ is dict:
                field.refuse("type", "a whole number of more than 64 bits without its tag")
        if enum and value not in enum:
            field.refuse_unlisted(value)

    return number


def _proper(field: Field, value: Any, tags: tuple[str, ...], wanted: str) -> None:
    """A tagged value of one of these tags, in its one form."""
    tag = values.tag_of(value)
    if tag not in tags:
        field.refuse("type", f"expected {wanted}, found {shown(value)}")
    try:
        values.check_tagged(tag, value[tag])
    except ValueError as error:
        field.refuse("type", f"expected {wanted}: {error}")


def checked_any(field: Field, value: Any, depth: int = 1) -> None:
    """What no schema describes must still be something that the table can hold."""
    try:
        values.check_value(value, depth)
    except ValueError as error:
        field.refuse("type", str(error))


def _date_verifier(field: Field) -> tuple[type, Verify | None, Verify]:
    if field.iso and not field.ttl:

        def text(value: Any) -> None:
            if not isinstance(value, str) or iso_ms(value) is None:
                field.refuse("type", f"expected a date as 2026-01-02T03:04:05.678Z, found {shown(value)}")

        return str, text, text

    def whole(value: Any) -> None:
        if value.__class__ is not int or not -MS_MAX <= value <= MS_MAX:
            field.refuse("type", f"expected a date as whole milliseconds or seconds, found {shown(value)}")

    return int, whole, whole


def _set_verifier(field: Field) -> Verify:
    def proper(value: Any) -> None:
        if value.__class__ is list:  # the JavaScript library makes a list of an array given for a set
            checked_any(field, value)
            if all(item.__class__ in (str, int, float) for item in value):
                return
        _proper(field, value, values.SETS, "a set")

    return proper


def _buffer_verifier(field: Field) -> Verify:
    def buffer(value: Any) -> None:
        if not isinstance(value, str):
            _proper(field, value, (values.BINARY,), "bytes as base64 text")
            return
        try:
            values.base64_bytes(value)
        except ValueError:
            field.refuse("type", f"expected bytes as base64 text, found {shown(value)}")

    return buffer


def _array_verifier(field: Field) -> Verify:
    verify = verifier(field.items)[2] if field.items else None

    def array(value: Any) -> None:
        if not isinstance(value, list):
            field.refuse("type", f"expected an array, found {shown(value)}")
        if verify is None:
            checked_any(field, value)
            return
        for item in value:
            verify(item)

    return array


def _object_verifier(field: Field) -> Verify:
    plan = tuple((sub, *verifier(sub)) for sub in field.fields) if field.fields is not None else ()
    known = frozenset(sub.attribute for sub in field.fields or ())

    def nested(value: Any) -> None:
        members = values.members_of(value)
        if members is None:
            field.refuse("type", f"expected an object, found {shown(value)}")
        for sub, kind, rest, verify in plan:
            item = members.get(sub.attribute)
            if item is None:
                if sub.required:
                    sub.refuse("required", "is required")
            elif item.__class__ is kind:
                if rest is not None:
                    rest(item)
            else:
                verify(item)
        if not known.issuperset(members):
            for name, item in members.items():
                if name not in known:
                    checked_any(field, item, 2)

    return nested
