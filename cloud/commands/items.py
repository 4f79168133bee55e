"""`get find create update upsert remove`: items of the table through the schema, printed as they are then.

What a person gives is checked against the schema before anything is changed. Called by cloud.cli.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from agent.protocol.commands.failure import OK, CommandError
from agent.protocol.commands.output import print_item, print_items, wants_json
from agent.protocol.commands.typed import properties
from agent.protocol.onetable.inspector import did_you_mean
from agent.protocol.process import Context
from agent.protocol.schema import Model, Schema
from cloud.commands.opening import context_of, opened, schema_of


def get(arguments: argparse.Namespace) -> int:
    wants_json(arguments)
    model, given, context = _asked_for(arguments, writing=False)
    item = opened(arguments, model.ttl_attribute).items().get(model, given, context)
    if item is None:
        raise _absent(model, given, context)
    print_item(model, item, arguments)
    return OK


def find(arguments: argparse.Namespace) -> int:
    wants_json(arguments)
    if arguments.limit is not None and arguments.limit < 0:
        raise CommandError(f"--limit {arguments.limit}: expected a number that is not negative")
    model, given, context = _asked_for(arguments, writing=False)
    if arguments.index is not None and arguments.index not in model.indexes:
        hint = did_you_mean(arguments.index, tuple(model.indexes)) or "the schema has no secondary index"
        raise CommandError(f"there is no index {arguments.index!r}", hint)
    found = (
        opened(arguments, model.ttl_attribute)
        .items()
        .find(model, given, context, index=arguments.index, reverse=arguments.reverse, limit=arguments.limit)
    )
    print_items(model, found, context, arguments)
    return OK


def create(arguments: argparse.Namespace) -> int:
    return _write(arguments, "create")


def update(arguments: argparse.Namespace) -> int:
    return _write(arguments, "update")


def upsert(arguments: argparse.Namespace) -> int:
    return _write(arguments, "upsert")


def _write(arguments: argparse.Namespace, verb: str) -> int:
    wants_json(arguments)
    model, given, context = _asked_for(arguments, writing=True)
    items = opened(arguments, model.ttl_attribute).items()
    write = {"create": items.create, "update": items.update, "upsert": items.upsert}[verb]
    print_item(model, write(model, given, context), arguments)
    return OK


def remove(arguments: argparse.Namespace) -> int:
    wants_json(arguments)
    model, given, context = _asked_for(arguments, writing=False)
    _may_write(model, arguments)
    item = opened(arguments, model.ttl_attribute).items().remove(model, given, context)
    if item is None:
        raise _absent(model, given, context)
    print_item(model, item, arguments)
    return OK


def _asked_for(arguments: argparse.Namespace, *, writing: bool) -> tuple[Model, dict[str, Any], Context]:
    """Everything that can be wrong without a table is told before there is a connection."""
    schema = schema_of(arguments)
    model = model_of(schema, arguments.model)
    if writing:
        _may_write(model, arguments)
    context = context_of(arguments)
    given = properties(model, arguments.words, context, sys.stdin.buffer.read, writing=writing)
    return model, given, context


def model_of(schema: Schema, name: str) -> Model:
    """Raises CommandError when the cloud has no such model."""
    model = schema.models.get(name)
    if model is None:
        raise CommandError(f"{schema.file}: no model {name!r}", did_you_mean(name, tuple(schema.models)))
    if not model.in_cloud:
        raise CommandError(f"{schema.file}: {name} lives on devices alone", "`fleet-agent` has its items")
    return model


def _may_write(model: Model, arguments: argparse.Namespace) -> None:
    """An item that only travels up is its device's: what the cloud makes of it, the device never learns."""
    if model.sends and not model.receives and not arguments.yes:
        raise CommandError(
            f"{model.name} syncs up: its items are their devices' own, which would not learn of the change",
            "--yes does it all the same",
        )


def _absent(model: Model, given: dict[str, Any], context: Context) -> CommandError:
    name = f"{model.name} {' / '.join(model.key(given, context))}"
    return CommandError(f"there is no {name}", f"`fleet-cloud find {model.name}`")
