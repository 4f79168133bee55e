"""The fields of a model: how a value is turned into its stored form, checked in it, and turned back.

Never looks at more than one field's value and never changes a value in place. Called by agent.protocol.model, which
asks once per model for the functions below and then calls them for every item: they are closures for speed.
Errors are ModelErrors with the codes `type`, `required`, `enum`, `validate`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NoReturn

from agent.protocol.errors import ModelError
from agent.protocol.template import Template

Convert = Callable[[Any], Any]
Merge = Callable[[Any, Any], Any]  # (value, what is stored) -> what to store
Verify = Callable[[Any], None]

DEPTH_MAX: Final = 32  # DynamoDB's limit on nesting
INT_MIN: Final = -(2**63)
INT_MAX: Final = 2**63 - 1
FLOAT_MAX: Final = 9.99e125  # DynamoDB's range of magnitude
FLOAT_MIN: Final = 1e-130
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MS: Final = timedelta(milliseconds=1)
_ISO = re.compile(r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)\.(\d{3})Z", re.ASCII)
_MISSING: Final = object()


@dataclass(frozen=True, slots=True)
class Field:
    """One field as the schema defines it. `attribute`: its name in the stored item. `path`: for messages."""

    model: str
    name: str
    path: str
    attribute: str
    type: str
    required: bool = False
    default: Any = None  # in stored form
    generate: str | None = None
    enum: tuple[Any, ...] = ()
    validate: str | None = None
    pattern: re.Pattern[str] | None = None
    hidden: bool = False
    template: Template | None = None
    iso: bool = False
    ttl: bool = False
    nulls: bool = False
    partial: bool = False
    items: Field | None = None
    fields: tuple[Field, ...] | None = None

    def refuse(self, code: str, text: str) -> NoReturn:
        raise ModelError(code, f"{self.model}.{self.path}: {text}", model=self.model, field=self.path)


def shown(value: Any) -> str:
    """A value for a message, cut to a bearable length."""
    try:
        text = repr(value)
    except Exception:  # a foreign object's own repr may fail; the message about it must not
        text = type(value).__name__
    return text if len(text) <= 60 else text[:57] + "..."


# --- dates -----------------------------------------------------------------------------------------------------------


def to_ms(value: datetime) -> int:
    """Milliseconds since 1970, rounded down."""
    return (value - EPOCH) // _MS


def from_ms(value_ms: int) -> datetime:
    return EPOCH + value_ms * _MS


def iso_text(value_ms: int) -> str:
    """`2026-01-02T03:04:05.678Z`, as JavaScript's toISOString."""
    date = from_ms(value_ms)
    return f"{date.year:04}-{date.month:02}-{date.day:02}T{date:%H:%M:%S}.{date.microsecond // 1000:03}Z"


def iso_ms(text: str) -> int | None:
    """The inverse of `iso_text`, None for any other text."""
    match = _ISO.fullmatch(text)
    if match is None:
        return None
    year, month, day, hour, minute, second, ms = map(int, match.groups())
    try:
        return to_ms(datetime(year, month, day, hour, minute, second, ms * 1000, UTC))
    except ValueError:
        return None


def date_ms(stored: Any) -> int | None:
    """Milliseconds of a stored date in either form, None when it is none."""
    if stored.__class__ is int:
        ms: int = stored
        return ms
    return iso_ms(stored) if isinstance(stored, str) else None


def store_ms(value_ms: int, *, iso: bool, ttl: bool) -> int | str:
    """The stored form of a date: epoch seconds rounded up for a ttl, else ISO text or milliseconds."""
    if ttl:
        return -(-value_ms // 1000)
    return iso_text(value_ms) if iso else value_ms


# --- to the stored form ----------------------------------------------------------------------------------------------


def encodable(field: Field, text: str) -> str:
    """An exact str that UTF-8 can hold."""
    exact = str.__str__(text)
    if not exact.isascii():
        try:
            exact.encode()
        except UnicodeEncodeError:
            field.refuse("type", "half a surrogate pair in a text")
    return exact


def stored_number(field: Field, value: Any) -> int | float:
    """An integral float becomes an int: the table has one type of number."""
    if isinstance(value, bool):
        field.refuse("type", f"expected a number, found {value!r}")
    if isinstance(value, int):
        if INT_MIN <= value <= INT_MAX:
            return int(value)
        field.refuse("type", "a whole number of more than 64 bits")
    if isinstance(value, float):
        if value.is_integer() and INT_MIN <= value <= INT_MAX:
            return int(value)
        if math.isfinite(value) and FLOAT_MIN <= abs(value) <= FLOAT_MAX:
            return float(value)
        field.refuse("type", f"{value!r} is out of the range of numbers")
    field.refuse("type", f"expected a number, found {shown(value)}")


def stored_date(field: Field, value: Any) -> int | str:
    if not isinstance(value, datetime):
        field.refuse("type", f"expected a datetime, found {shown(value)}")
    if value.utcoffset() is None:
        field.refuse("type", "a datetime without a time zone")
    return store_ms(to_ms(value), iso=field.iso, ttl=field.ttl)


def stored_any(field: Field, value: Any, depth: int = 1) -> Any:
    """A copy of JSON-like data: what an object or array without a schema of its own may hold."""
    if value is None or value is True or value is False:
        return value
    if isinstance(value, str):
        return encodable(field, value)
    if isinstance(value, (int, float)):
        return stored_number(field, value)
    if depth > DEPTH_MAX:
        field.refuse("type", f"nested more than {DEPTH_MAX} deep")
    if isinstance(value, Mapping):
        copy: dict[str, Any] = {}
        for name, item in value.items():
            if not isinstance(name, str):
                field.refuse("type", f"the name {shown(name)} is no text")
            copy[encodable(field, name)] = stored_any(field, item, depth + 1)
        return copy
    if isinstance(value, (list, tuple)):
        return [stored_any(field, item, depth + 1) for item in value]
    if isinstance(value, datetime):
        return stored_date(field, value)
    field.refuse("type", f"{shown(value)} cannot be stored")


def writer(field: Field, creating: bool) -> Convert:
    """The function that makes the stored form of a value that is not None. Nested defaults apply when creating."""
    if field.type == "string":
        return _string_writer(field)
    if field.type == "number":
        return _number_writer(field)
    if field.type == "date":
        return lambda value: stored_date(field, value)
    if field.type == "boolean":
        return _boolean_writer(field)
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
            field.refuse("enum", f"expected one of {', '.join(map(str, enum))}; found {shown(value)}")
        if search is not None and search(value) is None:
            field.refuse("validate", f"{shown(value)} does not match {field.validate}")
        text: str = value
        return text

    return string


def _number_writer(field: Field) -> Convert:
    enum = field.enum

    def number(value: Any) -> int | float:
        if value.__class__ is not int or not INT_MIN <= value <= INT_MAX:
            value = stored_number(field, value)
        if enum and value not in enum:
            field.refuse("enum", f"expected one of {', '.join(map(str, enum))}; found {shown(value)}")
        result: int | float = value
        return result

    return number


def _array_writer(field: Field, creating: bool) -> Convert:
    element = writer(field.items, creating) if field.items else None

    def array(value: Any) -> list[Any]:
        if not isinstance(value, (list, tuple)):
            field.refuse("type", f"expected an array, found {shown(value)}")
        if element is None:
            return [stored_any(field, item, 2) for item in value]
        if None in value:
            field.refuse("type", "null in an array whose items have a type")
        return [element(item) for item in value]

    return array


def _object_writer(field: Field, creating: bool) -> Convert:
    if field.fields is None:

        def plain(value: Any) -> Any:
            if not isinstance(value, Mapping):
                field.refuse("type", f"expected an object, found {shown(value)}")
            return stored_any(field, value)

        return plain
    plan = tuple((sub, writer(sub, creating)) for sub in field.fields)

    def nested(value: Any) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            field.refuse("type", f"expected an object, found {shown(value)}")
        stored: dict[str, Any] = {}
        for sub, write in plan:
            given = value.get(sub.name, _MISSING)
            if given is not None and given is not _MISSING:
                stored[sub.attribute] = write(given)
            elif creating and sub.default is not None:
                stored[sub.attribute] = sub.default
            elif sub.required:
                sub.refuse("required", "is required")
            elif given is None and sub.nulls:
                stored[sub.attribute] = None
        return stored

    return nested


def merger(field: Field) -> Merge | None:
    """For a nested field marked `partial`: (value, what is stored) -> what to store. None for all others."""
    if field.fields is None or not field.partial:
        return None
    plan = tuple((sub, writer(sub, False), merger(sub)) for sub in field.fields)
    whole = writer(field, False)

    def merge(value: Any, present: Any) -> Any:
        if not isinstance(value, Mapping) or not isinstance(present, dict):
            return whole(value)
        stored = dict(present)
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
        return stored

    return merge


# --- in the stored form ----------------------------------------------------------------------------------------------


def verifier(field: Field) -> tuple[type, Verify | None, Verify]:
    """For stored values from outside, never None: the class that most have, what is left to check of such a value
    (None: nothing), and the check of any value."""
    if field.type == "boolean":
        return bool, None, _boolean_writer(field)
    if field.type == "number":
        number = _number_verifier(field)
        return int, number, number
    if field.type == "date":
        return _date_verifier(field)
    if field.type == "string":
        string = _string_writer(field)
        return str, string if field.enum or field.pattern else None, string
    deep = _array_verifier(field) if field.type == "array" else _object_verifier(field)
    kind = list if field.type == "array" else dict
    return kind, deep if field.items or field.fields is not None else None, deep


def _number_verifier(field: Field) -> Verify:
    enum = field.enum

    def number(value: Any) -> None:
        if value.__class__ is not int or not INT_MIN <= value <= INT_MAX:
            value = stored_number(field, value)
        if enum and value not in enum:
            field.refuse("enum", f"expected one of {', '.join(map(str, enum))}; found {shown(value)}")

    return number


def _date_verifier(field: Field) -> tuple[type, Verify | None, Verify]:
    if field.iso and not field.ttl:

        def text(value: Any) -> None:
            if not isinstance(value, str) or iso_ms(value) is None:
                field.refuse("type", f"expected a date as 2026-01-02T03:04:05.678Z, found {shown(value)}")

        return str, text, text

    limit = 2**53

    def whole(value: Any) -> None:
        if value.__class__ is not int or not -limit <= value <= limit:
            field.refuse("type", f"expected a date as whole milliseconds or seconds, found {shown(value)}")

    return int, whole, whole


def _array_verifier(field: Field) -> Verify:
    verify = verifier(field.items)[2] if field.items else None

    def array(value: Any) -> None:
        if not isinstance(value, list):
            field.refuse("type", f"expected an array, found {shown(value)}")
        if verify is not None:
            for item in value:
                verify(item)

    return array


def _object_verifier(field: Field) -> Verify:
    plan = tuple((sub, *verifier(sub)) for sub in field.fields) if field.fields is not None else ()

    def nested(value: Any) -> None:
        if not isinstance(value, dict):
            field.refuse("type", f"expected an object, found {shown(value)}")
        for sub, kind, rest, verify in plan:
            item = value.get(sub.attribute)
            if item is None:
                if sub.required:
                    sub.refuse("required", "is required")
            elif item.__class__ is kind:
                if rest is not None:
                    rest(item)
            else:
                verify(item)

    return nested


# --- back for the application ----------------------------------------------------------------------------------------


def reader(field: Field) -> Convert | None:
    """The function that makes an application's value of a stored one; None: as it is."""
    if field.type == "date":
        return (lambda value: _seconds_back(value)) if field.ttl else _date_back
    if field.type == "array":
        return _array_reader(field)
    if field.type == "object":
        return _object_reader(field)
    return None


def _date_back(value: Any) -> Any:
    """Either form, whatever the schema says: tables hold both after a change of isoDates. Else as it is."""
    value_ms = date_ms(value)
    try:
        return value if value_ms is None else from_ms(value_ms)
    except OverflowError:
        return value


def _seconds_back(value: Any) -> Any:
    try:
        return from_ms(value * 1000) if value.__class__ is int else _date_back(value)
    except OverflowError:
        return value


def copied(value: Any) -> Any:
    """A copy of JSON data: what an application gets must not be what the database or another reader holds."""
    if value.__class__ is dict:
        return {name: copied(item) for name, item in value.items()}
    if value.__class__ is list:
        return [copied(item) for item in value]
    return value


def _array_reader(field: Field) -> Convert:
    back = reader(field.items) if field.items else copied

    def array(value: Any) -> Any:
        if not isinstance(value, list):
            return value
        return list(value) if back is None else [back(item) for item in value]

    return array


def _object_reader(field: Field) -> Convert:
    if field.fields is None:
        return copied
    plan = tuple((sub.name, sub.attribute, reader(sub)) for sub in field.fields if not sub.hidden)

    def nested(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        out: dict[str, Any] = {}
        for name, attribute, back in plan:
            if attribute in value:
                item = value[attribute]
                out[name] = item if back is None or item is None else back(item)
        return out

    return nested
