"""`rejected`: writes of this device that the cloud refused, and changes from the cloud that could not be applied here.

Lists them with their reasons; sends them again, or forgets them. Called by agent.cli.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any, Final

from agent.commands.opening import opened
from agent.database import Database
from agent.file_errors import stored_image
from agent.protocol.commands.failure import OK, CommandError, note
from agent.protocol.commands.output import columns, print_json, print_rows, short_date, wants_json
from agent.protocol.commands.typed import to_json
from agent.protocol.onetable.dates import from_ms, iso_text
from agent.records import ROW, DeadLetter

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
    with opened(arguments) as database:
        letters = database.dead_letters()
        if arguments.retry is not None:
            _each(letters, arguments.retry, database.retry, "queued to be sent again", rows=False)
        elif arguments.drop is not None:
            _each(letters, arguments.drop, database.discard, "dropped", rows=True)
        elif as_json:
            for letter in letters:
                print_json(_values(database, letter))
        elif letters:
            print_rows(_HEAD, [_row(database, letter) for letter in letters], columns())
        else:
            note("nothing was rejected")
    return OK


def _each(
    letters: Sequence[DeadLetter], wanted: Sequence[int], act: Callable[[int], Any], done: str, *, rows: bool
) -> None:
    """All that are wanted, or none: a number that is not there is said before anything is done. `rows`: also what is
    no write of this device; without numbers those are left alone."""
    there = {letter.n: letter for letter in letters}
    for n in wanted:
        if n not in there:
            known = ", ".join(map(str, there)) or "none"
            raise CommandError(f"there is no rejected write {n}", f"there: {known}")
        if there[n].kind == ROW and not rows:
            raise CommandError(f"{n} is a change from the cloud: there is nothing to send", "--drop forgets it")
    chosen = [n for n in there if n in wanted] if wanted else [n for n in there if rows or there[n].kind != ROW]
    for n in chosen:
        act(n)
        print(f"{n}: {done}")
    if not chosen:
        note("nothing was rejected")


def _named(database: Database, letter: DeadLetter) -> str:
    place = database.schema.locate((letter.pk, letter.sk))
    return f"{place.model.name if place else '?'} {letter.pk} / {letter.sk}"


def _what(letter: DeadLetter) -> str:
    return "from the cloud" if letter.kind == ROW else letter.kind


def _row(database: Database, letter: DeadLetter) -> tuple[str, ...]:
    return (
        str(letter.n),
        short_date(from_ms(letter.at_ms)),
        _what(letter),
        _named(database, letter),
        letter.code,
        _REASONS.get(letter.code, ""),
    )


def _values(database: Database, letter: DeadLetter) -> dict[str, Any]:
    key = (letter.pk, letter.sk)
    place = database.schema.locate(key)
    item = None
    if place is not None and letter.image is not None and letter.code != "malformed":
        item = to_json(place.model, place.model.read(key, stored_image(letter.image)))
    return {
        "n": letter.n,
        "at": iso_text(letter.at_ms),
        "what": _what(letter),
        "model": place.model.name if place is not None else None,
        "key": list(key),
        "item": item,
        "code": letter.code,
        "reason": _REASONS.get(letter.code, ""),
    }
