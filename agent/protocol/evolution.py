"""Schemas that change: what differs between two of them, and what an item is to a schema that did not write it.

Does no I/O and changes nothing. Called by the database when it opens a file that another schema wrote, and by command
lines. An item is never lost to a schema: what a schema does not know it carries (agent.protocol.onetable.model), what
it cannot read it gives as it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from agent.protocol.errors import ModelError
from agent.protocol.messages import Image, Key
from agent.protocol.onetable.fields import Field
from agent.protocol.onetable.layout import place_shown
from agent.protocol.onetable.model import Model
from agent.protocol.schema import Schema

Kind = Literal[
    "model added", "model removed", "field added", "field removed", "type changed", "attribute changed", "keys changed",
    "sync changed",
]  # fmt: skip
State = Literal["fits", "no model", "another model", "misfits"]
_MEANING: dict[Kind, str] = {
    "model added": "its items come with the next catch-up",
    "model removed": "its items stay where they are; nothing reads or changes them",
    "field added": "items that lack it read without it",
    "field removed": "its stored values stay, and are carried through updates",
    "type changed": "values of the old type are read as they are, until they are written",
    "attribute changed": "values under the old attribute stay there, and are not read",
    "keys changed": "items under the old keys are not found any more",
    "sync changed": "items go another way from now on",
}


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that differs. `field`: a path such as `limits.low`, "" for the model as a whole."""

    kind: Kind
    model: str
    field: str = ""
    old: str = ""
    new: str = ""

    def __str__(self) -> str:
        where = f"{self.model}.{self.field}" if self.field else self.model
        change = f" ({self.old} -> {self.new})" if self.old or self.new else ""
        return f"{where}: {self.kind}{change}: {_MEANING[self.kind]}"


def differences(old: Schema, new: Schema) -> list[Difference]:
    """What an item written under `old` meets under `new`, in the order of the models of both."""
    found: list[Difference] = []
    for name, model in old.models.items():
        other = new.models.get(name)
        if other is None:
            found.append(Difference("model removed", name))
        else:
            found.extend(_of_models(model, other))
    found.extend(Difference("model added", name) for name in new.models if name not in old.models)
    return found


def _of_models(old: Model, new: Model) -> Iterator[Difference]:
    keys = [f"{model.hash_template or '-'} / {model.sort_template or '-'}" for model in (old, new)]
    if keys[0] != keys[1]:
        yield Difference("keys changed", old.name, "", *keys)
    if (old.sync, old.enable) != (new.sync, new.enable):
        yield Difference("sync changed", old.name, "", f"{old.enable}, {old.sync}", f"{new.enable}, {new.sync}")
    yield from _of_fields(tuple(old.fields.values()), tuple(new.fields.values()))


def _of_fields(old: tuple[Field, ...], new: tuple[Field, ...]) -> Iterator[Difference]:
    after = {field.name: field for field in new}
    before = {field.name: field for field in old}
    for name, field in before.items():
        other = after.get(name)
        if other is None:
            yield Difference("field removed", field.model, field.path)
            continue
        forms = _form(field), _form(other)
        if forms[0] != forms[1]:
            yield Difference("type changed", field.model, field.path, *forms)
        places = place_shown(field.attribute), place_shown(other.attribute)
        if places[0] != places[1]:
            yield Difference("attribute changed", field.model, field.path, *places)
        if field.type == other.type == "object" and field.fields is not None and other.fields is not None:
            yield from _of_fields(field.fields, other.fields)
        elif field.items is not None and other.items is not None:
            yield from _of_fields((field.items,), (other.items,))
    for name, field in after.items():
        if name not in before:
            yield Difference("field added", field.model, field.path)


def _form(field: Field) -> str:
    """The type, and for a date how it is stored."""
    if field.type != "date":
        return field.type
    return f"date, {'seconds' if field.ttl else 'text' if field.iso else 'milliseconds'}"


@dataclass(frozen=True, slots=True)
class Finding:
    """What an item is to a schema. `model`: the name that the item bears. `misfits`: field -> what is wrong with it."""

    state: State
    model: str
    misfits: dict[str, ModelError]

    def __str__(self) -> str:
        if self.state == "no model":
            return f"no model {self.model!r} in the schema: the item is kept as it is"
        if self.state == "another model":
            return f"the key is another model's than {self.model!r}: the item is kept as it is"
        return "; ".join(map(str, self.misfits.values())) or "fits"


def inspect(schema: Schema, key: Key, image: Image) -> Finding:
    """Never raises. The key tells the model, as everywhere; for a model whose keys are given by hand, the type."""
    place = schema.locate(key)
    if place is not None:
        model: Model | None = place.model
        name = image.get(place.model.type_field)
    else:
        type_fields = dict.fromkeys(model.type_field for model in schema.models.values())
        name = next((image[field] for field in type_fields if field in image), "")
        model = schema.models.get(name) if isinstance(name, str) else None
    bears = name if isinstance(name, str) else ""
    if model is None:
        return Finding("no model", bears, {})
    if bears != model.name:
        return Finding("another model" if bears in schema.models else "no model", bears, {})
    misfits = model.misfits(key, image)
    return Finding("misfits" if misfits else "fits", bears, misfits)
