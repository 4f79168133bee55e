"""`get find create update upsert remove`: one item, or a list of them, printed as they are then.

What a person gives is checked against the schema before anything is changed. An agent that runs on the database does
it in its place. Called by agent.cli.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from agent.commands.reaching import AnyDatabase, reached
from agent.protocol.commands.failure import OK, CommandError
from agent.protocol.commands.output import print_item, print_items, wants_json
from agent.protocol.commands.typed import properties
from agent.protocol.onetable.inspector import did_you_mean
from agent.protocol.onetable.model import Model


def get(arguments: argparse.Namespace) -> int:
    wants_json(arguments)
    with reached(arguments) as database:
        model = model_of(database, arguments.model)
        given = _given(database, model, arguments)
        item = database.get(model.name, given)
        if item is None:
            raise CommandError(f"there is no {_named(database, model, given)}", f"`fleet-agent find {model.name}`")
        print_item(model, item, arguments)
    return OK


def find(arguments: argparse.Namespace) -> int:
    wants_json(arguments)
    if arguments.limit is not None and arguments.limit < 0:
        raise CommandError(f"--limit {arguments.limit}: expected a number that is not negative")
    options: dict[str, Any] = {"limit": arguments.limit}
    if arguments.index is not None:
        options["index"] = arguments.index
    if arguments.reverse:
        options["reverse"] = True
    with reached(arguments) as database:
        model = model_of(database, arguments.model)
        if arguments.index is not None and arguments.index not in model.indexes:
            hint = did_you_mean(arguments.index, tuple(model.indexes)) or "the schema has no secondary index"
            raise CommandError(f"there is no index {arguments.index!r}", hint)
        given = _given(database, model, arguments)
        print_items(model, iter(database.find(model.name, given, **options)), database.context, arguments)
    return OK


def create(arguments: argparse.Namespace) -> int:
    return _write(arguments, "create", begin=True)


def update(arguments: argparse.Namespace) -> int:
    return _write(arguments, "update", begin=False)


def upsert(arguments: argparse.Namespace) -> int:
    return _write(arguments, "upsert", begin=True)


def _write(arguments: argparse.Namespace, verb: str, *, begin: bool) -> int:
    wants_json(arguments)
    with reached(arguments, begin=begin) as database:
        model = model_of(database, arguments.model)
        given = _given(database, model, arguments, writing=True)
        write = {"create": database.create, "update": database.update, "upsert": database.upsert}[verb]
        print_item(model, write(model.name, given), arguments)
    return OK


def remove(arguments: argparse.Namespace) -> int:
    wants_json(arguments)
    with reached(arguments) as database:
        model = model_of(database, arguments.model)
        given = _given(database, model, arguments)
        item = database.get(model.name, given)
        if item is None or not database.remove(model.name, given):
            raise CommandError(f"there is no {_named(database, model, given)}", f"`fleet-agent find {model.name}`")
        print_item(model, item, arguments)
    return OK


def model_of(database: AnyDatabase, name: str) -> Model:
    """Raises CommandError when the device has no such model."""
    model = database.schema.models.get(name)
    if model is None:
        hint = did_you_mean(name, tuple(database.schema.models))
        raise CommandError(f"{database.schema.file}: no model {name!r}", hint)
    if not model.on_device:
        raise CommandError(f"{database.schema.file}: {name} lives in the cloud alone", "`fleet-cloud` has its items")
    return model


def _given(database: AnyDatabase, model: Model, arguments: argparse.Namespace, writing: bool = False) -> dict[str, Any]:
    return properties(model, arguments.words, database.context, sys.stdin.buffer.read, writing=writing)


def _named(database: AnyDatabase, model: Model, given: dict[str, Any]) -> str:
    return f"{model.name} {' / '.join(model.key(given, database.context))}"
