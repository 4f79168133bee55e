"""Schemas that are not yet, or no more, what a scenario's schema is: derived from it by what they lack.

A scenario's schema is all that there ever is; devices and relays of a rollout go by one that lacks some of it. So the
oracle and the applications in the cloud need one schema alone. Pure. Used by fleet.scenario.check_rollouts and by the
simulated world.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from agent.protocol.onetable.fields import Field
from agent.protocol.onetable.json5 import read
from agent.protocol.remote import COMMAND, RESULT, has_commands
from agent.protocol.schema import Model, Schema
from fleet.oracle.payload import REV, TEXT
from fleet.rng import digest64
from fleet.scenario.facts import facts

_ITEM: Final = re.compile(r"(?P<model>\w+)(?:\.(?P<field>\w+)(?:(?P<optional>\?)|=(?P<value>.+)|:(?P<type>\w+))?)?")
TYPES: Final = ("string", "number", "boolean")  # that a field may have had before


class Unfit(Exception):
    """What stands there is nothing that a schema can lack. `known`: what is, where a name is none of them."""

    def __init__(self, text: str, name: str = "", known: Iterable[str] = ()) -> None:
        super().__init__(text)
        self.name = name
        self.known = tuple(known)


@dataclass(frozen=True, slots=True)
class Lack:
    """`field` "": the whole model. Else `optional`: it is not required there; `value`: its enum has no such value;
    `type`: it has that type there; none of these: the field is not there."""

    model: str
    field: str = ""
    optional: bool = False
    value: str = ""
    type: str = ""


def lack(schema: Schema, text: str) -> Lack:
    """What one entry says of a schema. Raises Unfit."""
    match = _ITEM.fullmatch(text)
    if match is None:
        raise Unfit(
            f"{text!r} is no part of a schema: Model, Model.field, Model.field?, Model.field=value, Model.field:type"
        )
    found = match.groupdict()
    synced = [model.name for model in schema.models.values() if model.sends or model.receives]
    name = found["model"]
    if name not in synced:
        raise Unfit(f"unknown model that syncs {name!r}", name, synced)
    one = Lack(name, found["field"] or "", bool(found["optional"]), found["value"] or "", found["type"] or "")
    if one.field:
        _check_field(schema, schema.models[name], one)
    return one


def _check_field(schema: Schema, model: Model, one: Lack) -> None:
    fields = {name: field for name, field in model.fields.items() if _may_differ(schema, model, field)}
    if one.field not in fields:
        fixed = one.field in model.fields
        what = "belongs to the keys, the lives or the oracle" if fixed else f"is no field of {model.name}"
        raise Unfit(f"{one.field!r} {what}", one.field, fields)
    field = fields[one.field]
    if one.optional and not field.required:
        raise Unfit(f"{model.name}.{one.field} is not required")
    values = [str(value) for value in field.enum]
    if one.value and one.value not in values:
        raise Unfit(f"{one.value!r} is no value of {model.name}.{one.field}", one.value, values)
    if one.value and len(values) < 2:
        raise Unfit(f"{model.name}.{one.field} has no other value than {one.value!r}")
    if one.type and (one.type not in TYPES or one.type == field.type or field.enum):
        raise Unfit(f"{model.name}.{one.field} is a {field.type}: it cannot have been {one.type!r}", one.type, TYPES)


def _may_differ(schema: Schema, model: Model, field: Field) -> bool:
    keys = {REV, TEXT, "deviceId", "accountId", facts(schema, model.name).key_field, "pk", "sk"}
    made = field.template is not None or field.encode is not None or field.packed is not None
    return not (field.name in keys or field.ttl or field.unique or made)


def variant(schema: Schema, lacks: Sequence[str]) -> Schema:
    """The schema without what it lacks; the very same where it lacks nothing. Its version is another one. Raises Unfit,
    or InputError where what is left is no schema."""
    if not lacks:
        return schema
    node, _ = read(schema.text, str(schema.file))
    plain: dict[str, Any] = node.plain()
    for text in lacks:
        _take(plain, lack(schema, text))
    plain["version"] = f"{schema.version}-{digest64(*sorted(lacks)) >> 40:06x}"
    return Schema.parse(json.dumps(plain), str(schema.file))


def _take(plain: dict[str, Any], one: Lack) -> None:
    models = plain["models"]
    if not one.field:
        models.pop(one.model, None)
        (plain.get("process") or {}).pop(one.model, None)
        return
    field = models.get(one.model, {}).get(one.field)
    if field is None:
        return  # with its model, or as a whole
    if one.optional:
        field["required"] = False
    elif one.value:
        field["enum"] = [value for value in field["enum"] if str(value) != one.value]
        if str(field.get("default")) == one.value:
            field["default"] = field["enum"][0]
    elif one.type:
        field["type"] = one.type
        field.pop("default", None)
    else:
        del models[one.model][one.field]


def missing_models(schema: Schema, other: Schema) -> frozenset[str]:
    return frozenset(schema.models) - frozenset(other.models)


def dispensable(schema: Schema) -> tuple[str, ...]:
    """Models that a schema may lack without a word on what else there is: they sync, they are no orders or results,
    nothing of theirs ends or waits by itself, and they are not all that a feed brings."""
    receiving = [model.feed for model in schema.models.values() if model.receives]
    return tuple(
        model.name
        for model in schema.models.values()
        if (model.sends or model.receives)
        and not (model.ttl_attribute or model.period_ms or model.mem)
        and not (has_commands(schema) and model.name in (COMMAND, RESULT))
        and not (model.receives and receiving.count(model.feed) == 1)
    )
