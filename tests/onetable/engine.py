"""Runs a case of the corpus through our own schema engine, as a device would, and says how it ends.

No database and no server: an item is made, changed and removed in memory, by `Model` alone. Used by test_engine.py.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from onetable.capture import Record, states
from onetable.case import MODEL, Case, Step
from onetable.values import Raw, canonical

from agent.protocol.errors import InputError, ModelError
from agent.protocol.messages import Image, Key
from agent.protocol.model import Context, Model
from agent.protocol.schema import Schema


@dataclass
class Engine:
    """The items of one case."""

    model: Model
    context: Context
    items: dict[Key, Image]

    def carry_out(self, step: Step) -> bool:
        """Whether the engine took the step; what it refuses changes nothing."""
        try:
            self._carry_out(step)
        except ModelError:
            return False
        return True

    def _carry_out(self, step: Step) -> None:
        model, context = self.model, self.context
        if step.raw is not None:
            image = {name: from_raw(value) for name, value in step.raw.items()}
            self.items[image.pop("pk"), image.pop("sk")] = image
            return
        if step.verb in ("get", "find"):
            return
        if step.verb == "create":
            key, image = model.create(step.props, context, step.now_ms, lambda kind: f"<{kind}>")
            if key in self.items:
                raise ModelError("exists", f"{key} is there", model=model.name)
            self.items[key] = image
            return
        key = model.key(step.props, context)
        if step.verb == "remove":
            self.items.pop(key, None)
        elif key in self.items:
            self.items[key] = model.update(key, self.items[key], step.props, context, step.now_ms)
        elif step.verb == "upsert":
            key, self.items[key] = model.create(step.props, context, step.now_ms, lambda kind: f"<{kind}>")
        else:
            raise ModelError("missing", f"{key} is not there", model=model.name)

    def raw(self) -> list[Raw]:
        made = ({"pk": {"S": pk}, "sk": {"S": sk}, **to_raw(image)["M"]} for (pk, sk), image in self.items.items())
        return sorted(map(canonical, made), key=lambda item: (item["pk"]["S"], item["sk"]["S"]))

    def read(self) -> list[dict[str, Any]]:
        """What an application on the device gets, in the same order."""
        return [self.model.read(key, self.items[key]) for key in sorted(self.items)]


def start(case: Case) -> Engine:
    """Raises InputError when the engine refuses the schema."""
    schema = Schema.parse(json.dumps(case.schema), case.name)
    context = Context(case.context.get("deviceId", ""), case.context.get("accountId", ""))
    return Engine(schema.models[MODEL], context, {})


def compare(case: Case, record: Record) -> str:
    """ "" where the engine stores what the library stored after every step; else where it parts, in a few words."""
    try:
        engine = start(case)
    except InputError as error:
        return f"refuses the schema: {error.problems[0].message}"
    for number, (step, wanted, after) in enumerate(zip(case.steps, record["steps"], states(record), strict=True), 1):
        taken = engine.carry_out(step)
        stored = "error" not in wanted or "items" in wanted
        if taken != stored:
            return f"{'takes' if taken else 'refuses'} step {number}, {step.verb}"
        if engine.raw() != after:
            return f"stores otherwise in step {number}, {step.verb}"
    return ""


def to_raw(value: Any) -> dict[str, Any]:
    """The attribute value of a stored image's value."""
    if value is None:
        return {"NULL": True}
    if isinstance(value, bool):
        return {"BOOL": value}
    if isinstance(value, str):
        return {"S": value}
    if isinstance(value, int | float):
        return {"N": repr(value)}
    if isinstance(value, list):
        return {"L": [to_raw(item) for item in value]}
    return {"M": {name: to_raw(item) for name, item in value.items()}}


def from_raw(value: dict[str, Any]) -> Any:
    """The inverse of `to_raw`."""
    ((kind, inner),) = value.items()
    if kind == "NULL":
        return None
    if kind == "N":
        return float(inner) if set(inner) & set(".eE") else int(inner)
    if kind == "L":
        return [from_raw(item) for item in inner]
    if kind == "M":
        return {name: from_raw(item) for name, item in inner.items()}
    return inner
