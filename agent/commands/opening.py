"""Finds and opens the database that a command works on: file, schema, and whose device it is.

Changes no file but to begin a database where a command may. Called by every command that has one.
"""

from __future__ import annotations

import argparse
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from agent.database import Database
from agent.file_errors import FileInUseError, StoreError
from agent.files import MEMORY, open_file
from agent.protocol.commands.failure import CommandError, note
from agent.protocol.commands.typed import checked_id
from agent.protocol.process import Context
from agent.protocol.schema import Schema
from agent.system import SystemRandom, monotonic_ms, pause, wall_ms

DATABASE: Final = "agent.db"
SCHEMA: Final = "schema.json5"
_TRIES: Final = 25  # while another command has the file: each has it for some milliseconds
_TRY_S: Final = 0.02
_LAST: Final = "\U0010ffff"  # after every sort key
_HASH_KEYS_MAX: Final = 64  # that are looked at for whose device it is


def database_path(arguments: argparse.Namespace) -> Path:
    _take_from_config(arguments)
    path = arguments.database or os.environ.get("FLEET_DATABASE") or DATABASE
    if path == MEMORY or "\0" in path:
        raise CommandError(f"{path!r} is no file", "name the database with --database")
    return Path(path)


def _take_from_config(arguments: argparse.Namespace) -> None:
    """What the agent's configuration says, where no option says it."""
    if arguments.config is None:
        return
    from agent.runtime.settings import load  # here: few commands need it

    settings = load(arguments.config, private=False)
    for name in ("database", "schema", "device", "account", "socket"):
        if getattr(arguments, name) is None:
            setattr(arguments, name, getattr(settings, name))


def load_schema(arguments: argparse.Namespace, database: Path) -> Schema:
    """Raises InputError with every mistake, or CommandError when no schema is named and none stands beside the
    database."""
    named = arguments.schema or os.environ.get("FLEET_SCHEMA")
    if named:
        return Schema.load(named)
    beside = database.parent / SCHEMA
    if not beside.exists():
        raise CommandError(f"{beside}: no such schema", "name it with --schema or $FLEET_SCHEMA")
    return Schema.load(beside)


@contextmanager
def opened(arguments: argparse.Namespace, *, begin: bool = False) -> Iterator[Database]:
    """The database, closed at the end. `begin`: a new one where there is none. Raises what load_schema and
    agent.files.open_file raise, and CommandError."""
    path = database_path(arguments)
    with opened_with(path, load_schema(arguments, path), arguments, begin=begin) as database:
        yield database


@contextmanager
def opened_with(
    path: Path, schema: Schema, arguments: argparse.Namespace, *, begin: bool = False
) -> Iterator[Database]:
    """The same, for who has the schema at hand."""
    given = (
        checked_id(arguments.device or os.environ.get("FLEET_DEVICE"), "device"),
        checked_id(arguments.account or os.environ.get("FLEET_ACCOUNT"), "account"),
    )
    if not begin and (not path.exists() or (path.is_file() and not path.stat().st_size)):
        what = "empty" if path.exists() else "no such database"
        raise CommandError(f"{path}: {what}", "name it with --database or $FLEET_DATABASE; `create` begins one")
    connection = _patiently(path)

    try:
        database = Database(
            connection,
            schema,
            Context(*given),
            monotonic_ms=monotonic_ms,
            wall_ms=wall_ms,
            random=SystemRandom(),
        )
        for difference in database.differences:
            note(f"{schema.file}: not the schema that the database had: {difference}")
        if not all(given):
            database.context = _context(database, *given)
        yield database
    except StoreError as error:
        raise error.at(os.path.realpath(path)) from error.__cause__
    finally:
        connection.close()


def _patiently(path: Path) -> sqlite3.Connection:
    """Waits half a second for another command; an agent that runs on the file keeps it for longer."""
    for _ in range(_TRIES):
        try:
            return open_file(path)
        except FileInUseError:
            pause(_TRY_S)
    return open_file(path)


def _context(database: Database, device: str, account: str) -> Context:
    """Whose device it is, where nobody says: the only one that the items' keys name."""
    devices: dict[str, None] = {}
    accounts: dict[str, None] = {}
    after = ""
    for _ in range(_HASH_KEYS_MAX):
        page = database.store.page_of_all(after, _LAST, 1)
        if not page:
            break
        after = page[0][0]
        place = database.schema.locate(page[0][:2])
        if place is not None:
            devices.setdefault(place.device_id or device)
            accounts.setdefault(place.account_id or account)
    return Context(_only(devices, device, "device"), _only(accounts, account, "account"))


def _only(found: dict[str, None], given: str, what: str) -> str:
    names = [name for name in found if name]
    if given or not names:
        return given
    if len(names) > 1:
        raise CommandError(f"the database has items of several {what}s: {', '.join(names[:5])}", f"--{what} says whose")
    return names[0]
