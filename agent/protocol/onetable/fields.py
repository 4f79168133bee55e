"""One field of a model, as the schema defines it: plain data.

Never holds a value of an item: writing, checking and reading (in agent.protocol) make functions from it that do.
Made by agent.protocol.onetable.model_reader.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from agent.protocol.errors import ModelError
from agent.protocol.onetable.template import Template

BUFFERS: Final = ("buffer", "binary", "arraybuffer")


@dataclass(frozen=True, slots=True)
class Encode:
    """A value that is part `index` (from 0) of another attribute's text, cut at `separator`."""

    attribute: str
    separator: str
    index: int


@dataclass(frozen=True, slots=True)
class Field:
    """`attribute`: its place in an item as agent.protocol.onetable.layout opens it: for most fields the attribute's
    name.

    `path`: for messages. `packed`: (attribute, member), where several fields share one attribute."""

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
    unique: bool = False
    scope: Template | None = None
    packed: tuple[str, str] | None = None
    encode: Encode | None = None
    key_bytes_max: int = 0  # of the attribute of an index; 0: it is none

    def refuse(self, code: str, text: str) -> NoReturn:
        raise ModelError(code, f"{self.model}.{self.path}: {text}", model=self.model, field=self.path)

    def refuse_unlisted(self, value: Any) -> NoReturn:
        self.refuse("enum", f"expected one of {', '.join(map(str, self.enum))}; found {shown(value)}")

    def refuse_unmatched(self, text: str) -> NoReturn:
        self.refuse("validate", f"{shown(text)} does not match {self.validate}")

    @property
    def generates(self) -> bool:
        """Whether something within an object or an array asks for a generated id."""
        inner = self.fields or ((self.items,) if self.items else ())
        return any(field.generate is not None or field.generates for field in inner)


def shown(value: Any) -> str:
    """A value for a message, cut to a bearable length."""
    try:
        text = repr(value)
    except Exception:  # a foreign object's own repr may fail; the message about it must not
        text = type(value).__name__
    return text if len(text) <= 60 else text[:57] + "..."
