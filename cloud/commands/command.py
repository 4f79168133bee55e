"""`command`: gives a device a command through the schema, and waits for its answer where that is asked for.

Makes one item of Command; reads CommandResult, which the device writes. Called by cloud.cli.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from typing import Any, Final

from agent.protocol.commands.failure import OK, CommandError, note
from agent.protocol.commands.output import print_item, wants_json
from agent.protocol.commands.typed import checked_id
from agent.protocol.onetable.dates import from_ms
from agent.protocol.process import Context
from agent.protocol.remote import COMMAND, FINAL, RESULT, check_models
from agent.protocol.schema import Model, Schema
from cloud import system
from cloud.commands.opening import Opened, opened, schema_of
from cloud.registry import device_key
from cloud.table import Get

NOT_DONE: Final = 1
LOOK_S: Final = 1.0
GRACE_MS: Final = 60_000  # after a command has expired, for the answer to travel
FORGET_MS: Final = 24 * 60 * 60 * 1000  # after a command has expired, until the table drops it
_UNITS_MS: Final = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_DURATION: Final = re.compile(r"(?:\d{1,6}[smhd])+")
_PART: Final = re.compile(r"(\d+)([smhd])")
_ARGUMENT: Final = re.compile(r"([^=:\s]+)(:?)=(.*)", re.S)
_PLAIN: Final = re.compile(r"true|false|-?\d{1,15}(\.\d{1,9})?")


def command(arguments: argparse.Namespace) -> int:
    wants_json(arguments)
    schema = schema_of(arguments)
    _check(schema)
    device = checked_id(arguments.device_id, "device")
    given: dict[str, Any] = {"name": arguments.name}
    if arguments.words:
        given["args"] = _args(arguments.words)
    life_ms = _duration_ms(arguments.expires)
    table = opened(arguments)
    if table.table.execute(Get(device_key(device))) is None:
        raise CommandError(f"no device {device!r} is registered", "`fleet-cloud devices` lists those that are")
    model, context = schema.models[COMMAND], Context(device, "")
    expires_ms = system.wall_ms() + life_ms
    given["expires"] = from_ms(expires_ms)
    if model.ttl_attribute is not None:
        ends = next(field.name for field in model.fields.values() if field.ttl)
        given[ends] = from_ms(expires_ms + FORGET_MS)
    made = table.items().create(model, given, context)
    if not arguments.wait:
        print_item(model, made, arguments)
        return OK
    note(f"fleet-cloud: {made['id']} waits for {device}, until {made['expires']:%Y-%m-%d %H:%M:%S}Z")
    return _wait(table, schema.models[RESULT], context, made["id"], expires_ms, arguments)


def _check(schema: Schema) -> None:
    """What the application fills of a result is its own affair: a device's agent knows."""
    result = schema.models.get(RESULT)
    check_models(schema, tuple(result.fields) if result is not None else ())


def _wait(
    table: Opened, model: Model, context: Context, command_id: str, expires_ms: int, arguments: argparse.Namespace
) -> int:
    """Until there is a final result; for one that has begun, however long it takes."""
    while True:
        result = table.items().get(model, {"id": command_id}, context)
        if result is not None and result["state"] in FINAL:
            print_item(model, result, arguments)
            return OK if result["state"] == "done" else NOT_DONE
        if result is None and system.wall_ms() > expires_ms + GRACE_MS:
            note(f"fleet-cloud: {command_id} has expired, and {context.device_id} has not answered")
            return NOT_DONE
        system.pause(LOOK_S)


def _args(words: Sequence[str]) -> dict[str, Any]:
    """A number, true or false where the value looks like one, else text; any JSON value after `:=`."""
    args: dict[str, Any] = {}
    for word in words:
        match = _ARGUMENT.fullmatch(word)
        if match is None:
            raise CommandError(f"{word!r}: expected KEY=VALUE", "an argument of the command")
        name, is_json, text = match.groups()
        if name in args:
            raise CommandError(f"{word!r}: {name} is given twice")
        if is_json or _PLAIN.fullmatch(text):
            try:
                args[name] = json.loads(text)
            except ValueError:
                raise CommandError(f"{word!r}: no JSON", f"{name}={text} gives the text as it is") from None
        else:
            args[name] = text
    return args


def _duration_ms(text: str) -> int:
    parts = _PART.findall(text)
    total = sum(int(number) * _UNITS_MS[unit] for number, unit in parts)
    if not _DURATION.fullmatch(text) or total <= 0:
        raise CommandError(f"--expires {text!r}: expected a duration", "such as 90s, 10m or 1h30m")
    return total
