"""Fields that are no attribute of their own: packed ones share an attribute, encoded ones are part of another's text.

`open` takes an image apart, so that every field has a place of its own (`Field.attribute`); `close` puts it together as
the table stores it. A model without such fields has no layout and pays nothing. Never changes an image in place. Called
by agent.protocol.onetable.model. A place that is no attribute begins or ends with a zero character, which no message
shows.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from agent.protocol.keys import HASH, SORT
from agent.protocol.messages import Image, Key
from agent.protocol.onetable import values
from agent.protocol.onetable.fields import Field, shown

_ZERO: Final = "\0"


def place_of(name: str, packed: tuple[str, str] | None, encoded: bool) -> str:
    """Where an open image holds a field that is no attribute."""
    if packed is not None:
        return f"{packed[0]}{_ZERO}{packed[1]}"
    return f"{_ZERO}{name}" if encoded else name


def place_shown(place: str) -> str:
    """A place as a schema writes it."""
    return place.removeprefix(_ZERO).replace(_ZERO, ".")


def rest_of(attribute: str) -> str:
    """Where an open image holds the members of a packed attribute that no field is for."""
    return f"{attribute}{_ZERO}"


class Layout:
    """The packed and encoded fields of one model."""

    __slots__ = ("_encoded", "_packed", "places")

    def __init__(self, fields: Iterable[Field]) -> None:
        packed: dict[str, list[tuple[str, str]]] = {}
        encoded: list[Field] = []
        for field in fields:
            if field.packed is not None:
                packed.setdefault(field.packed[0], []).append((field.packed[1], field.attribute))
            elif field.encode is not None:
                encoded.append(field)
        self._packed = tuple((attribute, rest_of(attribute), tuple(subs)) for attribute, subs in packed.items())
        self._encoded = tuple(encoded)
        # What an open image holds beside the fields' own places.
        self.places = tuple(rest for _, rest, _ in self._packed)

    def __bool__(self) -> bool:
        return bool(self._packed or self._encoded)

    def packs(self, attribute: str) -> bool:
        """Whether fields are packed into this attribute."""
        return any(attribute == packed for packed, _, _ in self._packed)

    def open(self, key: Key, image: Image) -> Image:
        """A copy with every field in its place. A packed attribute that is no object is left as it is."""
        out = dict(image)
        for attribute, rest, subs in self._packed:
            members = values.members_of(out.get(attribute))
            if members is None:
                continue
            del out[attribute]
            left = dict(members)
            for name, place in subs:
                if name in left:
                    out[place] = left.pop(name)
            if left:
                out[rest] = left
        for field in self._encoded:
            value = self._decoded(field, key, out)
            if value is not None:
                out[field.attribute] = value
        return out

    def close(self, image: Image) -> Image:
        """The same as the table stores it."""
        out = dict(image)
        for attribute, rest, subs in self._packed:
            members = out.pop(rest, {})
            for name, place in subs:
                if place in out:
                    members = {**members, name: out.pop(place)}
            if members:
                out[attribute] = values.escaped(members)
        for field in self._encoded:
            out.pop(field.attribute, None)
        return out

    def check_encoded(self, key: Key, image: Image) -> None:
        """Of an open image: an encoded value must come back. Raises ModelError `encode` when its text would not."""
        for field in self._encoded:
            given = image.get(field.attribute)
            if given is not None and self._decoded(field, key, image) != given:
                encode = field.encode
                assert encode is not None
                where = f"{place_shown(encode.attribute)!r}, part {encode.index} between {encode.separator!r}"
                field.refuse("encode", f"{shown(given)} cannot be read back from {where}")

    @staticmethod
    def _decoded(field: Field, key: Key, image: Image) -> Any:
        encode = field.encode
        assert encode is not None
        if encode.attribute in (HASH, SORT):
            text: Any = key[encode.attribute == SORT]
        else:
            text = image.get(encode.attribute)
        if not isinstance(text, str):
            return None
        parts = text.split(encode.separator)
        if encode.index >= len(parts):
            return None
        part = parts[encode.index]
        return _number(part) if field.type == "number" else part


def _number(text: str) -> Any:
    """Also with the padding that a template put before it. The text as it is where it is no number."""
    try:
        return values.parsed(text)
    except ValueError:
        return text
