"""`letters`: records of the table's stream that the relay's processes could not work on, and set aside.

Lists them with their reasons; works on them again, or forgets them. Called by cloud.cli.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Generator, Sequence
from typing import Any, Final

from agent.protocol.commands.failure import BAD_INPUT, OK, CommandError, note
from agent.protocol.commands.output import columns, print_json, print_rows, wants_json
from agent.protocol.onetable.dates import iso_text
from agent.protocol.schema import Schema
from cloud.commands.opening import logic, opened, schema_if_any, schema_of, unheard
from cloud.drive import run
from cloud.dynamodb_errors import Unusable
from cloud.relay import Relay
from cloud.service_settings import relay_of
from cloud.stream_letters import can_be_retried, drop, read_letters, retry
from cloud.table import SK, Item, Request

LETTERS_MAX: Final = 1_000  # of one command
_HEAD: Final = ("id", "changed", "item", "tries", "relay", "reason")

Step = Generator[Request, Any, Any]


def letters(arguments: argparse.Namespace) -> int:
    as_json = wants_json(arguments)
    if arguments.retry is not None and arguments.drop is not None:
        raise CommandError("--retry and --drop at once", "name one")
    if arguments.config and arguments.retry is None:
        raise CommandError("--config is of --retry", "leave it out, or add --retry")
    relay = None if arguments.retry is None else _relay(arguments)
    schema = schema_if_any(arguments) if relay is None else relay.schema
    execute = opened(arguments, None if relay is None else relay.config.ttl_attribute).table.execute
    found = run(read_letters(LETTERS_MAX), execute, unheard)
    if relay is not None:
        chosen = _chosen(found, arguments.retry, can_be_retried)
        return _each(chosen, lambda item: retry(relay, item), execute, "done again", "no feed has it now: removed")
    if arguments.drop is not None:
        return _each(_chosen(found, arguments.drop), drop, execute, "dropped", "dropped")
    if as_json:
        for item in found:
            print_json(_values(schema, item))
    elif found:
        print_rows(_HEAD, [_row(schema, item) for item in found], columns())
    else:
        note("nothing was set aside")
    if len(found) == LETTERS_MAX:
        note(f"fleet-cloud: these are the oldest {LETTERS_MAX}: there may be more")
    return OK


def _relay(arguments: argparse.Namespace) -> Relay:
    """With the numbers of the relay's own processes: a row of a feed must not end before the others."""
    return logic(schema_of(arguments), relay_of(arguments.config) if arguments.config else None)


def _chosen(found: Sequence[Item], wanted: Sequence[str], fit: Callable[[Item], bool] = bool) -> list[Item]:
    """Those that are wanted, all of them or none; or, without a name, all that are fit for it."""
    there = {item[SK]: item for item in found}
    for name in wanted:
        if name not in there:
            raise CommandError(f"there is no letter {name!r}", "`fleet-cloud letters` lists them; nothing was changed")
        if not fit(there[name]):
            raise CommandError(f"{name} names no item: there is nothing to work on", "--drop forgets it")
    return [item for name, item in there.items() if (name in wanted if wanted else fit(item))]


def _each(
    chosen: Sequence[Item], step: Callable[[Item], Step], execute: Callable[[Any], Any], done: str, otherwise: str
) -> int:
    """One after the other; what does not go through stays, and is told."""
    failed = False
    for item in chosen:
        try:
            went = run(step(item), execute, unheard)
        except Unusable:
            raise
        except Exception as error:  # what made it a dead letter may be any mistake, and be there still
            failed = True
            note(f"fleet-cloud: {item[SK]}: {type(error).__name__}: {error}: it stays")
        else:
            print(f"{item[SK]}: {otherwise if went is False else done}")
    if not chosen:
        note("nothing was set aside")
    return BAD_INPUT if failed else OK


def _named(schema: Schema | None, item: Item) -> str:
    pk, sk = item["key"]
    place = None if schema is None else schema.locate((pk, sk))
    return f"{place.model.name if place else '?'} {pk} / {sk}"


def _row(schema: Schema | None, item: Item) -> tuple[str, ...]:
    changed, tries = iso_text(item["at"]), str(item["tries"])
    return item[SK], changed, _named(schema, item), tries, item["relay"], item["reason"]


def _values(schema: Schema | None, item: Item) -> dict[str, Any]:
    key = (item["key"][0], item["key"][1])
    place = None if schema is None else schema.locate(key)
    return {
        "id": item[SK],
        "at": iso_text(item["at"]),
        "set_aside": iso_text(item["set_aside"]),
        "model": place.model.name if place is not None else None,
        "key": list(key),
        "swept": bool(item.get("by_ttl", False)),
        "tries": item["tries"],
        "relay": item["relay"],
        "reason": item["reason"],
    }
