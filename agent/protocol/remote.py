"""Remote commands as the cloud and a device agree on them: two models of the schema, and the words of a result.

Checks that a schema's models Command and CommandResult are those that are needed, and says every mistake with its line.
Reads no file. Called by the daemon before it makes a commander, by `fleet-cloud command`, and for scenarios.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from typing import Final, Literal, get_args

from agent.protocol.errors import InputError, Problem
from agent.protocol.onetable.json5 import Node, read
from agent.protocol.onetable.template import DEVICE
from agent.protocol.schema import Model, Schema

COMMAND: Final = "Command"  # the two models, by their names in the schema
RESULT: Final = "CommandResult"

State = Literal["started", "done", "failed", "expired", "refused", "interrupted"]
Code = Literal["unknown", "not_allowed", "too_soon", "invalid", "unknown_past", "withdrawn", "too_large"]
STATES: Final[tuple[str, ...]] = get_args(State)
FINAL: Final = tuple(state for state in STATES if state != "started")

# Field -> its type. A command may have more; what a result has beside these, the application must fill (`extra`).
COMMAND_FIELDS: Final = {"id": "string", "name": "string", "expires": "date"}
COMMAND_OPTIONAL: Final = {"args": "object"}
RESULT_FIELDS: Final = {
    "id": "string",
    "name": "string",
    "state": "string",
    "code": "string",
    "message": "string",
    "data": "object",
    "started": "date",
    "finished": "date",
    "ttl": "date",
}
_REQUIRED: Final = ("id", "name", "state", "ttl", "deviceId")  # of a result: it always has them
_WHERE: Final = "docs/commands.md has the two models to copy"
_Found = tuple[str, str, str]  # path, message, hint


def has_commands(schema: Schema) -> bool:
    """Whether devices of this schema take remote commands: those that have a model for the results."""
    return RESULT in schema.models


def check_models(schema: Schema, extra: Collection[str] = ()) -> None:
    """`extra`: the fields of a result that the application fills. Raises InputError with every mistake."""
    found = [*_model(schema, COMMAND, "down"), *_model(schema, RESULT, "up")]
    if not found:
        command, result = schema.models[COMMAND], schema.models[RESULT]
        found += _fields(command, {**COMMAND_FIELDS, **_present(command, COMMAND_OPTIONAL)})
        found += _fields(result, RESULT_FIELDS)
        found += _of_result(result, extra)
    if found:
        places = _places(schema)
        raise InputError([_problem(schema, places, *one) for one in found])


def _present(model: Model, fields: Mapping[str, str]) -> dict[str, str]:
    return {name: kind for name, kind in fields.items() if name in model.fields}


def _model(schema: Schema, name: str, sync: str) -> Iterator[_Found]:
    model = schema.models.get(name)
    if model is None:
        yield "models", f"no model {name}, which remote commands need", _WHERE
        return
    if model.sync != sync:
        yield f"process.{name}", f"{name} has sync: {model.sync}, expected {sync}", f"{name}: {{sync: '{sync}'}}"
    hash_template, sort_template = model.definition.hash_template, model.definition.sort_template
    if hash_template is None or sort_template is None:
        yield f"models.{name}", "its keys have no templates", _WHERE
        return
    if DEVICE not in model.hash_template + model.sort_template:
        yield f"models.{name}", f"its keys are not one device's: {name} must be made of ${{{DEVICE}}}", _WHERE
    names = [variable.name for variable in sort_template.variables if not variable.is_id]
    hashed = [variable.name for variable in hash_template.variables if not variable.is_id]
    if hashed or names != ["id"] or not model.sort_template.endswith("${id}"):
        text = f"the sort key is {model.sort_template!r}: it must end with ${{id}}, and have no other field"
        yield f"models.{name}.sk", text, _WHERE


def _fields(model: Model, fields: Mapping[str, str]) -> Iterator[_Found]:
    for name, kind in fields.items():
        field, path = model.fields.get(name), f"models.{model.name}.{name}"
        if field is None:
            yield f"models.{model.name}", f"{model.name} has no field {name!r}", f"{name}: {{type: '{kind}'}}"
        elif field.type != kind:
            yield path, f"has the type {field.type}, expected {kind}", f"{name}: {{type: '{kind}'}}"
        elif kind == "object" and field.fields is not None:
            yield path, "has a schema of its own; it must take any object", "arguments are checked on the device"
        elif field.ttl and name != "ttl":
            yield path, "must not be the item's time to live", "use a field ttl: {type: 'date', ttl: true} beside it"


def _of_result(model: Model, extra: Collection[str]) -> Iterator[_Found]:
    ttl, state = model.fields.get("ttl"), model.fields.get("state")
    if ttl is not None and ttl.type == "date" and not ttl.ttl:
        hint = "ttl: {type: 'date', ttl: true}; without it results would never go"
        yield f"models.{model.name}.ttl", "does not end the item's life", hint
    if state is not None and state.enum and (lacking := [one for one in STATES if one not in state.enum]):
        yield f"models.{model.name}.state", f"its enum lacks {', '.join(lacking)}", _WHERE
    for field in model.fields.values():
        filled = field.name in _REQUIRED or field.name in extra or field.default is not None
        if field.required and not (filled or field.generate or field.template):
            yield (
                f"models.{model.name}.{field.name}",
                "is required, and no result is sure to have it",
                "drop `required`",
            )


def _places(schema: Schema) -> Node | None:
    """Where things stand in the schema's file; None: its text was put together from several files."""
    node, _ = read(schema.text, schema.file)
    joined = json.dumps(node.plain(), ensure_ascii=False, indent=4) + "\n"
    return None if schema.text == joined else node


def _problem(schema: Schema, node: Node | None, path: str, message: str, hint: str) -> Problem:
    if node is None:
        return Problem(schema.file, 0, 0, path, message, hint)
    offset = node.offset
    for name in path.split("."):
        member = node.value.get(name) if isinstance(node.value, dict) else None
        if member is None:
            break
        node, offset = member, member.key_offset
    return node.source.problem(offset, path, message, hint)
