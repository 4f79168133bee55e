"""`rejected`: writes of this device that the cloud refused, and changes from the cloud that could not be applied here.

Lists them with their reasons; sends them again, or forgets them. Called by agent.cli.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Final

from agent.api.letters import FROM_CLOUD, values
from agent.commands.reaching import AnyDatabase, reached
from agent.database import Database
from agent.protocol.commands.failure import OK, CommandError, note
from agent.protocol.commands.output import columns, print_json, print_rows, short_date, wants_json

_REASONS: Final = {
    "direction": "the cloud's schema lets no device write this model",
    "enum": "a value that the cloud's schema does not list",
    "foreign": "the key belongs to another device or account",
    "invalid": "the table itself does not take such an item",
    "key": "the key does not agree with the item",
    "malformed": "no item that could be read",
    "model": "the item says that it is of another model than its key",
    "oversize": "too large to be sent to a device",
    "required": "a field that the cloud's schema requires is missing",
    "scope": "a unique value lacks the field that it is unique within",
    "size": "too large for the table",
    "type": "a value of another type than the cloud's schema has",
    "unique": "another item has this unique value",
    "unknown-model": "no model of the cloud's schema has such a key",
    "validate": "a text that the cloud's schema refuses",
}
_HEAD: Final = ("N", "when", "what", "item", "code", "reason")


def rejected(arguments: argparse.Namespace) -> int:
    as_json = wants_json(arguments)
    if arguments.retry is not None and arguments.drop is not None:
        raise CommandError("--retry and --drop at once", "name one")
    with reached(arguments) as database:
        letters = _letters(database)
        if arguments.retry is not None:
            _each(letters, arguments.retry, _settling(database, "retry"), "queued to be sent again", rows=False)
        elif arguments.drop is not None:
            _each(letters, arguments.drop, _settling(database, "drop"), "dropped", rows=True)
        elif as_json:
            for letter in letters:
                print_json({**letter, "reason": _REASONS.get(letter["code"], "")})
        elif letters:
            print_rows(_HEAD, [_row(letter) for letter in letters], columns())
        else:
            note("nothing was rejected")
    return OK


def _letters(database: AnyDatabase) -> list[dict[str, Any]]:
    if isinstance(database, Database):
        return [values(database.schema, letter) for letter in database.dead_letters()]
    found: list[dict[str, Any]] = database.client.ask("rejected")["letters"]
    return found


def _settling(database: AnyDatabase, how: str) -> Callable[[int], Any]:
    if isinstance(database, Database):
        return database.retry if how == "retry" else database.discard
    client = database.client
    return lambda n: client.ask("settle", n=n, how=how)


def _each(
    letters: Sequence[dict[str, Any]], wanted: Sequence[int], act: Callable[[int], Any], done: str, *, rows: bool
) -> None:
    """All that are wanted, or none: a number that is not there is said before anything is done. `rows`: also what is
    no write of this device; without numbers those are left alone."""
    is_row = {letter["n"]: letter["what"] == FROM_CLOUD for letter in letters}
    for n in wanted:
        if n not in is_row:
            known = ", ".join(map(str, is_row)) or "none"
            raise CommandError(f"there is no rejected write {n}", f"there: {known}")
        if is_row[n] and not rows:
            raise CommandError(f"{n} is a change from the cloud: there is nothing to send", "--drop forgets it")
    chosen = [n for n in is_row if n in wanted] if wanted else [n for n in is_row if rows or not is_row[n]]
    for n in chosen:
        act(n)
        print(f"{n}: {done}")
    if not chosen:
        note("nothing was rejected")


def _row(letter: dict[str, Any]) -> tuple[str, ...]:
    return (
        str(letter["n"]),
        short_date(datetime.fromisoformat(letter["at"])),
        letter["what"],
        f"{letter['model'] or '?'} {' / '.join(letter['key'])}",
        letter["code"],
        _REASONS.get(letter["code"], ""),
    )
