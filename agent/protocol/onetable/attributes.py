"""Images as DynamoDB's attribute maps, `{"S": ...}`, `{"N": ...}`, and back, exactly.

Nothing is lost either way: a number keeps all of its 38 digits, a set stays a set, and what no schema knows is carried.
A number of the map that is whole and of 64 bits becomes an int; one that a float says exactly becomes a float; every
other keeps its digits (agent.protocol.onetable.values). Never looks at a schema, does no I/O. Called by whoever talks
to the table. Errors are ModelErrors with the code `type` that name the attribute.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from agent.protocol.errors import ModelError
from agent.protocol.keys import HASH, SORT
from agent.protocol.messages import Image, Key
from agent.protocol.onetable import values
from agent.protocol.onetable.template import text_of
from agent.protocol.onetable.values import BINARIES, BINARY, DEPTH_MAX, NUMBER, TEXTS

Attribute = dict[str, Any]  # one member: type -> value
AttributeMap = dict[str, Attribute]


def to_attributes(image: Mapping[str, Any]) -> AttributeMap:
    """An image's attributes. Bytes are bytes, as the service's client wants them."""
    made: AttributeMap = {}
    for name, value in image.items():
        try:
            made[name] = to_attribute(value)
        except ValueError as error:
            raise _refused(name, error) from None
    return made


def from_attributes(attributes: Mapping[str, Any]) -> Image:
    """The image of an attribute map: of an item read, or of a stream record (whose bytes may be base64 text)."""
    image: Image = {}
    for name, attribute in attributes.items():
        try:
            image[name] = from_attribute(attribute)
        except ValueError as error:
            raise _refused(name, error) from None
    return image


def to_item(key: Key, image: Mapping[str, Any]) -> AttributeMap:
    """The whole item as the table stores it: its two key attributes first."""
    return {**key_attributes(key), **to_attributes(image)}


def from_item(attributes: Mapping[str, Any]) -> tuple[Key, Image]:
    """The key and the image of a whole item."""
    image = from_attributes(attributes)
    parts = [image.pop(name, None) for name in (HASH, SORT)]
    for name, part in zip((HASH, SORT), parts, strict=True):
        if not isinstance(part, str) or not part:
            raise ModelError("type", f"{name}: expected the text of a key", field=name)
    return (parts[0], parts[1]), image


def key_attributes(key: Key) -> AttributeMap:
    return {HASH: {"S": key[0]}, SORT: {"S": key[1]}}


def _refused(name: str, error: ValueError) -> ModelError:
    return ModelError("type", f"attribute {name!r}: {error}", field=name)


# --- one value


def to_attribute(value: Any, depth: int = 1) -> Attribute:
    """Raises ValueError for what a table cannot hold: NaN, endless nesting, a value that is none of an image."""
    kind = value.__class__
    if kind is str:
        return {"S": value}
    if value is True or value is False:
        return {"BOOL": value}
    if value is None:
        return {"NULL": True}
    if kind is int or kind is float:
        return {"N": _digits(value)}
    if depth > DEPTH_MAX:
        raise ValueError(f"nested more than {DEPTH_MAX} deep")
    if kind is list:
        return {"L": [to_attribute(item, depth + 1) for item in value]}
    if kind is not dict:
        raise ValueError(f"{kind.__name__} is no value of an image")
    tag = values.tag_of(value)
    if tag is None:
        members = values.members_of(value)
        assert members is not None
        return {"M": {name: to_attribute(item, depth + 1) for name, item in members.items()}}
    return _to_tagged(tag, value[tag])


def _to_tagged(tag: str, content: Any) -> Attribute:
    values.check_tagged(tag, content)
    if tag == BINARY:
        return {"B": values.base64_bytes(content)}
    if tag == NUMBER:
        return {"N": content}
    if tag == BINARIES:
        return {"BS": [values.base64_bytes(item) for item in content]}
    if tag == TEXTS:
        return {"SS": list(content)}
    return {"NS": [item[NUMBER] if item.__class__ is dict else _digits(item) for item in content]}


def _digits(value: int | float) -> str:
    """As JavaScript writes the number."""
    exact = values.number(value)
    if isinstance(exact, dict):
        return str(exact[NUMBER])
    return text_of(exact) or "0"


def from_attribute(attribute: Any, depth: int = 1) -> Any:
    """Raises ValueError for what is no attribute."""
    if not isinstance(attribute, Mapping) or len(attribute) != 1:
        raise ValueError("expected one type with its value")
    if depth > DEPTH_MAX + 1:
        raise ValueError(f"nested more than {DEPTH_MAX} deep")
    for kind, value in attribute.items():
        if kind == "S" and isinstance(value, str):
            return value
        if kind == "N":
            return values.parsed(value)
        if kind == "BOOL" and isinstance(value, bool):
            return value
        if kind == "NULL":
            return None
        if kind == "M" and isinstance(value, Mapping):
            return values.escaped({name: from_attribute(item, depth + 1) for name, item in value.items()})
        if kind == "L" and isinstance(value, list | tuple):
            return [from_attribute(item, depth + 1) for item in value]
        if kind == "B":
            return values.binary(_bytes(value))
        if kind in ("SS", "NS", "BS"):
            return _from_set(kind, value)
        raise ValueError(f"{kind!r} is no type of the table, or has no such value")
    raise AssertionError("a mapping of one member has a member")


def _from_set(kind: str, content: Any) -> values.Tagged:
    if not isinstance(content, list | tuple | set | frozenset) or not content:
        raise ValueError("expected the elements of a set")
    if kind == "BS":
        return values.binary_set(_bytes(item) for item in content)
    if not all(isinstance(item, str) for item in content):
        raise ValueError("expected the elements of a set as texts")
    if kind == "SS":
        return values.text_set(content)
    return values.number_set(values.decimal_of(values.parsed(item)) for item in content)


def _bytes(value: Any) -> bytes:
    """From a client: bytes, or an object that holds them. From a stream's JSON: base64."""
    value = getattr(value, "value", value)
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, TypeError, ValueError):
        raise ValueError("expected bytes, or base64 text") from None
