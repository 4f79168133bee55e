"""Whether an item has the values that somebody looks for. Called by whoever finds items: the database, the cloud."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent.protocol.messages import Image
from agent.protocol.onetable.model import Model


def has(model: Model, item: Mapping[str, Any], image: Image, wanted: Mapping[str, Any]) -> bool:
    """`item`: what an application reads of `image`. A hidden field is compared as it is stored; a name that the schema
    does not know is no field of any item."""
    for name, value in wanted.items():
        if name in item:
            if item[name] != value:
                return False
        elif name in model.fields and model.fields[name].hidden:
            if image.get(model.fields[name].attribute) != value:
                return False
        elif value is not None:
            return False
    return True
