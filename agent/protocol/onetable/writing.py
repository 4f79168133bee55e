"""From an application's value of a field to its stored form in an image, with every check that the schema asks for.

Never looks at more than one field's value and never changes a value in place. Called by agent.protocol.onetable.model
and field_reader, which ask once per model for the functions below and then call them for every item: they are closures
for speed. Errors are ModelErrors with the codes `type`, `required`, `enum`, `validate`, `key`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from agent.protocol.onetable import values
from agent.protocol.onetable.dates import store_ms, to_ms
from agent.protocol.onetable.fields import BUFFERS, Field, shown
from agent.protocol.onetable.values import DEPTH_MAX, INT_MAX, INT_MIN

Convert = Callable[..., Any]  # of a value; where the field `generates`, also of the source of ids
Merge = Callable[[Any, Any], Any]  # (value, what is stored) -> what to store
NewId = Callable[[str], str]

_MISSING: Final = object()


def encodable(field: Field, text: str) -> str:
    """An exact str that UTF-8 can hold."""
    exact = str.__str__(text)
    if not exact.isascii():
        try:
            exact.encode()
        except UnicodeEncodeError:
            field.refuse("type", "half a surrogate pair in a text")
    return exact


def stored_number(field: Field, value: Any) -> values.Number:
    """In its one form (see values): an integral float becomes an int, the table has one type of number."""
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        field.refuse("type", f"expected a number, found {shown(value)}")
    try:
        return values.number(value)
    except ValueError as error:
        field.refuse("type", str(error))


def stored_date(field: Field, value: Any) -> int | str:
    if not isinstance(value, datetime):
        field.refuse("type", f"expected a datetime, found {shown(value)}")
    if value.utcoffset() is None:
        field.refuse("type", "a datetime without a time zone")
    try:
        return store_ms(to_ms(value), iso=field.iso, ttl=field.ttl)
    except OverflowError:  # the last hours of the year 9999 in a zone west of Greenwich
        field.refuse("type", f"{value} is out of the range of dates")


def stored_set(field: Field, value: Any) -> values.Tagged:
    if not isinstance(value, set | frozenset | list | tuple):
        field.refuse("type", f"expected a set, found {shown(value)}")
    try:
        made = values.set_of(value)
    except ValueError as error:
        field.refuse("type", str(error))
    for text in made.get(values.TEXTS, ()):
        encodable(field, text)
    return made


def stored_any(field: Field, value: Any, depth: int = 1) -> Any:
    """A copy of plain data: what an object or array without a schema of its own may hold."""
    if value is None or value is True or value is False:
        return value
    if isinstance(value, str):
        return encodable(field, value)
    if isinstance(value, (int, float, Decimal)):
        return stored_number(field, value)
    if depth > DEPTH_MAX:
        field.refuse("type", f"nested more than {DEPTH_MAX} deep")
    if isinstance(value, Mapping):
        copy: dict[str, Any] = {}
        for name, item in value.items():
            if not isinstance(name, str):
                field.refuse("type", f"the name {shown(name)} is no text")
            copy[encodable(field, name)] = stored_any(field, item, depth + 1)
        return values.escaped(copy)
    if isinstance(value, (list, tuple)):
        return [stored_any(field, item, depth + 1) for item in value]
    if isinstance(value, datetime):
        return stored_date(field, value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return values.binary(bytes(value))
    if isinstance(value, (set, frozenset)):
        return stored_set(field, value)
    field.refuse("type", f"{shown(value)} cannot be stored")


def writer(field: Field, creating: bool) -> Convert:
    """The function that makes the stored form of a value that is not None. Nested defaults apply when creating."""
    if field.type == "string":
        return _key_writer(field, _string_writer(field))
    if field.type == "number":
        return _number_writer(field)
    if field.type == "date":
        return lambda value: stored_date(field, value)
    if field.type == "boolean":
        return _boolean_writer(field)
    if field.type == "set":
        return lambda value: stored_set(field, value)
    if field.type in BUFFERS:
        return _key_writer(field, _buffer_writer(field))
    if field.type == "array":
        return _array_writer(field, creating)
    return _object_writer(field, creating)


def _boolean_writer(field: Field) -> Convert:
    def boolean(value: Any) -> bool:
        if value is True or value is False:
            return value is True
        field.refuse("type", f"expected true or false, found {shown(value)}")

    return boolean


def _string_writer(field: Field) -> Convert:
    search = field.pattern.search if field.pattern else None
    enum = field.enum

    def string(value: Any) -> str:
        if value.__class__ is not str or not value.isascii():
            if not isinstance(value, str):
                field.refuse("type", f"expected a text, found {shown(value)}")
            value = encodable(field, value)
        if enum and value not in enum:
            field.refuse_unlisted(value)
        if search is not None and search(value) is None:
            field.refuse_unmatched(value)
        text: str = value
        return text

    return string


def _key_writer(field: Field, write: Convert) -> Convert:
    """The table takes no empty and no long text in the key of an index."""
    if not field.key_bytes_max:
        return write

    def key(value: Any) -> str:
        return key_text(field, write(value))

    return key


def key_text(field: Field, text: str) -> str:
    if not text:
        field.refuse("key", "is the key of an index: it cannot be an empty text")
    if len(text.encode()) > field.key_bytes_max:
        field.refuse("key", f"is the key of an index: {shown(text)} has more than {field.key_bytes_max} bytes")
    return text


def _number_writer(field: Field) -> Convert:
    enum = field.enum

    def number(value: Any) -> values.Number:
        if value.__class__ is not int or not INT_MIN <= value <= INT_MAX:
            value = stored_number(field, value)
        if enum and value not in enum:
            field.refuse_unlisted(value)
        result: values.Number = value
        return result

    return number


def _buffer_writer(field: Field) -> Convert:
    """As base64 text: what the JavaScript library makes of a Buffer."""

    def buffer(value: Any) -> str:
        if not isinstance(value, bytes | bytearray | memoryview):
            field.refuse("type", f"expected bytes, found {shown(value)}")
        return values.base64_text(bytes(value))

    return buffer


def _array_writer(field: Field, creating: bool) -> Convert:
    element = writer(field.items, creating) if field.items else None
    generates = field.generates

    def array(value: Any, new_id: NewId | None = None) -> list[Any]:
        if not isinstance(value, (list, tuple)):
            field.refuse("type", f"expected an array, found {shown(value)}")
        if element is None:
            return [stored_any(field, item, 2) for item in value]
        if None in value:
            field.refuse("type", "null in an array whose items have a type")
        if generates:
            return [element(item, new_id) for item in value]
        return [element(item) for item in value]

    return array


def _object_writer(field: Field, creating: bool) -> Convert:
    if field.fields is None:

        def plain(value: Any) -> Any:
            if not isinstance(value, Mapping):
                field.refuse("type", f"expected an object, found {shown(value)}")
            return stored_any(field, value)

        return plain
    plan = tuple((sub, writer(sub, creating), sub.generates) for sub in field.fields)
    templates = tuple((sub, sub.template.render) for sub in field.fields if sub.template)

    def nested(value: Any, new_id: NewId | None = None) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            field.refuse("type", f"expected an object, found {shown(value)}")
        stored: dict[str, Any] = {}
        for sub, write, generates in plan:
            given = value.get(sub.name, _MISSING)
            if given is None:
                if sub.required:
                    sub.refuse("required", "is required")
                if sub.nulls:
                    stored[sub.attribute] = None
            elif given is not _MISSING:
                stored[sub.attribute] = write(given, new_id) if generates else write(given)
            elif creating and sub.default is not None:
                stored[sub.attribute] = sub.default
            elif creating and sub.generate is not None and new_id is not None:
                stored[sub.attribute] = new_id(sub.generate)
            elif sub.required:
                if creating and generates and sub.fields is not None:
                    stored[sub.attribute] = write({}, new_id)
                elif sub.template is None:
                    sub.refuse("required", "is required")
        for sub, render in templates:
            if sub.attribute not in stored and sub.name not in value:
                put_template(sub, render(stored), stored)
        return stored

    return nested


def put_template(field: Field, text: str | None, image: dict[str, Any]) -> None:
    """What a template gave, or nothing where a variable was missing."""
    checked = template_text(field, text)
    if checked is not None:
        image[field.attribute] = checked
    else:
        image.pop(field.attribute, None)


def template_text(field: Field, text: str | None) -> str | None:
    """What a template gave (None: a variable was missing), checked as the field wants it."""
    if text is None:
        if field.required:
            field.refuse("required", f"is required, and {field.template} lacks a variable")
        return None
    if field.pattern is not None and field.pattern.search(text) is None:
        field.refuse_unmatched(text)
    if field.enum and text not in field.enum:
        field.refuse_unlisted(text)
    return text


def merger(field: Field) -> Merge | None:
    """For a nested field marked `partial`: (value, what is stored) -> what to store. None for all others."""
    if field.fields is None or not field.partial:
        return None
    plan = tuple((sub, writer(sub, False), merger(sub)) for sub in field.fields)
    templates = tuple(
        (sub, sub.template.render, frozenset(variable.name for variable in sub.template.variables))
        for sub in field.fields
        if sub.template
    )
    whole = writer(field, False)

    def merge(value: Any, present: Any) -> Any:
        members = values.members_of(present)
        if not isinstance(value, Mapping) or members is None:
            return whole(value)
        stored = dict(members)
        for sub, write, deeper in plan:
            given = value.get(sub.name, _MISSING)
            if given is _MISSING:
                continue
            if given is not None:
                old = stored.get(sub.attribute)
                stored[sub.attribute] = deeper(given, old) if deeper else write(given)
            elif sub.required:
                sub.refuse("required", "is required")
            elif sub.nulls:
                stored[sub.attribute] = None
            else:
                stored.pop(sub.attribute, None)
        for sub, render, names in templates:
            if sub.name not in value and not names.isdisjoint(value):
                put_template(sub, render(stored), stored)
        return values.escaped(stored)

    return merge
