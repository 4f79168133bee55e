"""`watch`: prints what changes on the device: each change as the agent tells it, or the sum of them in a file.

One process owns a database, so a watcher cannot sit in it. Where an agent runs on it, the agent tells each change as it
happens. Else it looks at the file's length and time now and then, opens it when they have changed, compares the items
with those that it saw before, and lets go at once. Called by agent.cli.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from agent.api.client import RemoteDatabase
from agent.commands.opening import database_path, load_schema, opened_with
from agent.commands.reaching import agent_of
from agent.database import Database
from agent.file_errors import FileInUseError
from agent.protocol.commands.failure import OK, CommandError, note
from agent.protocol.commands.output import columns, print_json, wants_json
from agent.protocol.commands.tables import cell, cut
from agent.protocol.commands.typed import stamps, to_json
from agent.protocol.keys import HASH, SORT
from agent.protocol.lives import end_of_life_s
from agent.protocol.messages import Key
from agent.protocol.onetable.dates import iso_text
from agent.protocol.onetable.inspector import did_you_mean
from agent.protocol.onetable.model import Model
from agent.protocol.onetable.template import IDS
from agent.protocol.schema import Schema
from agent.records import ROW, DeadLetter
from agent.system import pause, wall_ms

_UNSETTLED_MS: Final = 100  # a file changed this short a time ago may change again without another time
_NEVER: Final = 1 << 62
_AGENT_HINT: Final = "ask an agent at its --socket, or subscribe in the application that has it: Database.on"
Signature = tuple[int, int, int]


@dataclass(frozen=True)
class Seen:
    """What one item was at a look."""

    model: Model
    item: dict[str, Any]
    ends_ms: int  # since 1970; when it expires


@dataclass(frozen=True)
class Event:
    """What happened to one item, between two looks or as an agent tells it. `name`: created, updated, removed, expired
    or rejected; by an agent also synced and lost."""

    name: str
    model: Model
    key: Key
    before: dict[str, Any] | None = None
    now: dict[str, Any] | None = None
    code: str = ""


@dataclass
class Looks:
    """What was seen last."""

    wanted: frozenset[str]
    seen: dict[Key, Seen] = field(default_factory=dict)
    letters: int = 0  # the highest number of a dead letter

    def take(self, database: Database) -> Iterator[Event]:
        """Reads all items of the models and tells what is not as it was."""
        found: dict[Key, Seen] = {}
        for model, key, image in database.items():
            if model.name in self.wanted:
                item = model.read(key, image)
                end_s = end_of_life_s(model, image)
                found[key] = Seen(model, item, _NEVER if end_s is None else end_s * 1000)
        before, self.seen = self.seen, found
        now_ms = database.clock.now_ms()
        for key, seen in found.items():
            old = before.get(key)
            if old is None:
                yield Event("created", seen.model, key, None, seen.item)
            elif old.item != seen.item:
                yield Event("updated", seen.model, key, old.item, seen.item)
        for key, old in before.items():
            if key not in found:
                yield Event("expired" if old.ends_ms <= now_ms else "removed", old.model, key, old.item)
        yield from self._rejected(database.schema, database.dead_letters())

    def _rejected(self, schema: Schema, letters: list[DeadLetter]) -> Iterator[Event]:
        for letter in letters:
            place = schema.locate((letter.pk, letter.sk))
            if letter.n > self.letters and letter.kind != ROW and place is not None and place.model.name in self.wanted:
                yield Event("rejected", place.model, (letter.pk, letter.sk), code=letter.code)
        self.letters = max((letter.n for letter in letters), default=self.letters)

    def next_end_ms(self) -> int:
        return min((seen.ends_ms for seen in self.seen.values()), default=_NEVER)


def watch(arguments: argparse.Namespace) -> int:
    as_json = wants_json(arguments)
    if not arguments.interval > 0:
        raise CommandError(f"--interval {arguments.interval:g}: expected a number above 0")
    if arguments.count is not None and arguments.count < 1:
        raise CommandError(f"--count {arguments.count}: expected a number above 0")
    path = database_path(arguments)
    agent = agent_of(arguments)
    if agent is not None:
        return _watch_agent(agent, arguments, as_json)
    schema = load_schema(arguments, path)
    looks = Looks(_wanted(schema, arguments.models))
    file = _Watched(path, schema, arguments)
    file.first(looks)
    models = ", ".join(arguments.models) or "every model"
    note(f"watching {models} in {path}: {len(looks.seen)} items now")
    left = arguments.count
    while left is None or left > 0:
        pause(arguments.interval)
        for event in file.next(looks):
            _print(event, as_json)
            left = None if left is None else left - 1
            if left == 0:
                break
    return OK


def _watch_agent(agent: RemoteDatabase, arguments: argparse.Namespace, as_json: bool) -> int:
    """Until it is interrupted, the agent ends, or so many changes were told."""
    with agent.client as client:
        _wanted(agent.schema, arguments.models)
        client.ask("watch", models=arguments.models)
        client.wait_for_ever()
        models = ", ".join(arguments.models) or "every model"
        note(f"watching {models}, as the agent of {agent.context.device_id} tells it")
        left = arguments.count
        while left is None or left > 0:
            told = client.line()["event"]
            before, now = (agent.taken(told["model"], told[name]) for name in ("before", "item"))
            key = (told["key"][0], told["key"][1])
            _print(Event(told["event"], agent.model(told["model"]), key, before, now, told.get("code", "")), as_json)
            left = None if left is None else left - 1
    return OK


def _wanted(schema: Schema, names: list[str]) -> frozenset[str]:
    for name in names:
        if name not in schema.models:
            raise CommandError(f"{schema.file}: no model {name!r}", did_you_mean(name, tuple(schema.models)))
    return frozenset(names or schema.models)


class _Watched:
    """A file that is looked into when it may have changed."""

    def __init__(self, path: Path, schema: Schema, arguments: argparse.Namespace) -> None:
        self._path = path
        self._schema = schema
        self._arguments = arguments
        self._signature: Signature | None = None
        self._waiting = False

    def first(self, looks: Looks) -> None:
        """What is there at the beginning is no change. Raises FileInUseError when somebody has the file."""
        try:
            self._look(looks)
        except FileInUseError as error:
            raise FileInUseError(error.message, f"stop it first; {_AGENT_HINT}") from None

    def next(self, looks: Looks) -> list[Event]:
        """What has changed since the last look."""
        if self._signature == _signature(self._path) and wall_ms() < looks.next_end_ms():
            return []
        try:
            events = self._look(looks)
        except FileInUseError as error:
            if not self._waiting:
                note(f"waiting: {error.message} ({_AGENT_HINT})")
            self._waiting = True
            return []
        self._waiting = False
        return events

    def _look(self, looks: Looks) -> list[Event]:
        with opened_with(self._path, self._schema, self._arguments) as database:
            signature = _signature(self._path)  # nobody writes now
            events = list(looks.take(database))
        settled = signature is not None and wall_ms() - signature[0] // 1_000_000 > _UNSETTLED_MS
        self._signature = signature if settled else None
        return events


def _signature(path: Path) -> Signature | None:
    """What differs after a write. A log that is not empty holds writes of a command that did not end well."""
    try:
        state = path.stat()
    except FileNotFoundError:
        return None
    log = Path(f"{path}-wal")
    try:
        log_bytes = log.stat().st_size
    except FileNotFoundError:
        log_bytes = 0
    return state.st_mtime_ns, state.st_size, log_bytes


def _print(event: Event, as_json: bool) -> None:
    at = iso_text(wall_ms())
    if as_json:
        before, item = (None if props is None else to_json(event.model, props) for props in (event.before, event.now))
        print_json(
            {
                "at": at,
                "event": event.name,
                "model": event.model.name,
                "key": list(event.key),
                "item": item,
                "before": before,
            }
            | ({"code": event.code} if event.code else {})
        )
    else:
        text = f"{at[11:23]}  {event.name.ljust(8)}  {_described(event)}"
        room = columns()
        print(cut(text, room) if room else text)
    sys.stdout.flush()  # each change is seen at once, also by a program that reads


def _described(event: Event) -> str:
    """Model, key fields, then the fields that changed, or all; without stamps and the ids that all items share."""
    model = event.model
    if event.code:
        return f"{model.name}  {' / '.join(event.key)}  {event.code}"
    left_out = {*IDS, *stamps(model), HASH, SORT}
    item = {name: cell(value) for name, value in to_json(model, event.now or event.before or {}).items()}
    shown = [name for name in item if name not in left_out]
    keys = [name for name in shown if name in model.key_names]
    parts = [f"{name}={item[name]}" for name in keys]
    if event.now is None or event.before is None:
        parts += [f"{name}={item[name]}" for name in shown if name not in keys]
    else:
        before = {name: cell(value) for name, value in to_json(model, event.before).items()}
        names = [name for name in dict.fromkeys((*before, *item)) if name not in left_out]
        changed = [name for name in names if before.get(name) != item.get(name)]
        parts += [f"{name}={before.get(name, 'none')}→{item.get(name, 'none')}" for name in changed]
    return "  ".join((model.name, *parts))
