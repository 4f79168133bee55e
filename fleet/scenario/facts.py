"""What a workload has to know of a schema's model: who can write its items, how they are named, what fills them.

Derived from the loaded schema; decides nothing about sync. Used by fleet.scenario.check and fleet.scenario.build.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal

from agent.protocol.onetable.fields import Field
from agent.protocol.onetable.model import Model
from agent.protocol.onetable.template import ACCOUNT, DEVICE
from agent.protocol.schema import Schema

REV: Final = "rev"  # a number field: the number of the write, by which the oracle tells writes apart
FILLER: Final = "text"  # a text field that brings an item to its size
_VARIABLE: Final = re.compile(r"\$\{([A-Za-z_]\w*)")


@dataclass(frozen=True, slots=True)
class Facts:
    """Of one model."""

    scope: Literal["device", "account", "all"]  # whose items they are: one writer in the cloud for each
    key_field: str  # the key's variable besides deviceId and accountId; "": one item
    key_count: int  # how many such variables there are
    numbers: frozenset[str]  # fields that hold a number
    texts: frozenset[str]  # fields that hold any text
    unfilled: tuple[str, ...]  # required fields that no workload fills
    ttl_field: str  # the field that ends an item's life; "": none


def facts(schema: Schema, name: str) -> Facts:
    """Of the model `name`, which must exist."""
    model = schema.models[name]
    variables: list[str] = []
    for variable in _VARIABLE.findall(model.hash_template + model.sort_template):
        if variable not in variables:
            variables.append(variable)
    keys = [variable for variable in variables if variable not in (DEVICE, ACCOUNT)]
    filled = {REV, FILLER, DEVICE, ACCOUNT, *keys}
    unfilled = [
        field.name
        for field in model.fields.values()
        if field.required and field.name not in filled and not (_given(field) or field.generate)
    ]
    return Facts(
        scope="device" if DEVICE in variables else "account" if ACCOUNT in variables else "all",
        key_field=keys[0] if keys else "",
        key_count=len(keys),
        numbers=_of_type(model, "number"),
        texts=_of_type(model, "string"),
        unfilled=tuple(unfilled),
        ttl_field=next((field.name for field in model.fields.values() if field.ttl), ""),
    )


def _given(field: Field) -> bool:
    return field.default is not None or field.template is not None


def _of_type(model: Model, kind: str) -> frozenset[str]:
    return frozenset(
        field.name
        for field in model.fields.values()
        if field.type == kind and not (field.template or field.enum or field.validate)
    )
