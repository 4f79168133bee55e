"""Runs a case of the corpus through our own schema engine, as a device would, and says how it ends.

No database and no server: an item is made, changed and removed in memory, by `Model` alone. Used by test_engine.py.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import Any

from onetable.capture import Record, states
from onetable.case import MODEL, Case, Step
from onetable.values import Raw, canonical

from agent.protocol.errors import InputError, ModelError
from agent.protocol.messages import Image, Key
from agent.protocol.onetable.attributes import AttributeMap, from_item, to_item
from agent.protocol.onetable.model import Model
from agent.protocol.onetable.unique import UNIQUE_TYPE
from agent.protocol.process import Context
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
            key, image = from_item(step.raw)
            self.items[key] = image
            return
        if step.verb in ("get", "find"):
            return
        if step.verb == "create":
            key, image = model.create(step.props, context, step.now_ms, lambda kind: f"<{kind}>")
            if key in self.items:
                raise ModelError("exists", f"{key} is there", model=model.name)
            self._put(key, image)
            return
        key = model.key(step.props, context)
        if step.verb == "remove":
            self.items.pop(key, None)
        elif key in self.items:
            self._put(key, model.update(key, self.items[key], step.props, context, step.now_ms))
        elif step.verb == "upsert":
            self._put(*model.create(step.props, context, step.now_ms, lambda kind: f"<{kind}>"))
        else:
            raise ModelError("missing", f"{key} is not there", model=model.name)

    def _put(self, key: Key, image: Image) -> None:
        wanted = self.model.unique_keys(key, image)
        for other, held in self.items.items():
            if other != key and not set(wanted).isdisjoint(self.model.unique_keys(other, held)):
                raise ModelError("unique", f"{other} has a value of {key}", model=self.model.name)
        self.items[key] = image

    def raw(self) -> list[Raw]:
        """What the table holds: the items, and those that stand for their unique values."""
        made = [raw_item(to_item(key, image)) for key, image in self.items.items()]
        made += [
            raw_item(to_item(unique, {self.model.type_field: UNIQUE_TYPE}))
            for key, image in self.items.items()
            for unique in self.model.unique_keys(key, image)
        ]
        return sorted(made, key=lambda item: (item["pk"]["S"], item["sk"]["S"]))

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


def raw_item(item: AttributeMap) -> Raw:
    """An attribute map with its bytes as base64, as the service's JSON has them."""
    return canonical({name: _raw(value) for name, value in item.items()})


def _raw(value: Any) -> Any:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, list):
        return [_raw(item) for item in value]
    if isinstance(value, dict):
        return {name: _raw(item) for name, item in value.items()}
    return value
