"""What a look at a database tells a watcher, on a clock that the test sets. Called by pytest only."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import pytest
from command_rig import DEVICE, SCHEMA, Shell

from agent.commands.watch import Event, Looks, _described
from agent.database import Database
from agent.files import open_memory
from agent.protocol.process import Context
from agent.protocol.schema import Schema
from fleet.rng import rng

START_MS: Final = 1_767_322_800_000


class Clock:
    def __init__(self) -> None:
        self.now_ms = START_MS

    def __call__(self) -> int:
        return self.now_ms


@pytest.fixture
def clock() -> Clock:
    return Clock()


def database_of(schema: str, clock: Clock) -> Database:
    parsed = Schema.parse(schema, "schema")
    random = rng(1, "watch", "ids")
    return Database(open_memory(), parsed, Context(DEVICE, ""), monotonic_ms=clock, wall_ms=clock, random=random)


@pytest.fixture
def database(clock: Clock) -> Database:
    return database_of(SCHEMA, clock)


@pytest.fixture
def look(database: Database) -> Callable[[], list[str]]:
    """Takes a look: the events as a person would read them."""
    looks = Looks(frozenset(("Setting", "Thing")))
    list(looks.take(database))
    return lambda: [f"{event.name} {_described(event)}" for event in looks.take(database)]


def test_only_what_has_changed_since_the_last_look_is_told(database: Database, look: Callable[[], list[str]]) -> None:
    assert look() == []
    database.create("Setting", {"name": "volume", "level": 1})
    database.create("Report", {"level": 1})  # not watched
    assert look() == ["created Setting  name=volume  level=1"]
    assert look() == []
    database.update("Setting", {"name": "volume", "level": None, "mode": "on"})
    assert look() == ["updated Setting  name=volume  level=1→none  mode=none→on"]
    database.remove("Setting", {"name": "volume"})
    assert look() == ["removed Setting  name=volume  mode=on"]


def test_of_several_changes_the_sum_is_told(database: Database, look: Callable[[], list[str]]) -> None:
    database.create("Setting", {"name": "volume", "level": 1})
    database.update("Setting", {"name": "volume", "level": 2})
    database.create("Setting", {"name": "bass"})
    database.remove("Setting", {"name": "bass"})
    assert look() == ["created Setting  name=volume  level=2"]


@pytest.mark.parametrize("ttl", ["ttl: true", "ttl: true, hidden: true"])
def test_an_item_whose_life_is_over_has_expired(clock: Clock, ttl: str) -> None:
    database = database_of(SCHEMA.replace("ttl: true", ttl), clock)
    until = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=START_MS + 60_000)
    database.create("Thing", {"group": "g", "id": "1", "until": until})
    looks = Looks(frozenset(("Thing",)))
    assert [event.name for event in looks.take(database)] == ["created"]
    assert looks.next_end_ms() == START_MS + 60_000
    clock.now_ms = START_MS + 60_000
    assert [event.name for event in looks.take(database)] == ["expired"]
    assert looks.next_end_ms() > START_MS * 1000


def test_a_rejected_write_is_told_once(database: Database, look: Callable[[], list[str]]) -> None:
    database.store.bury(START_MS, "device#dev-1", "setting#volume", "create", None, 1, "unique")
    database.store.bury(START_MS, "device#dev-1", "report#a", "create", None, 1, "unique")  # not watched
    assert look() == ["rejected Setting  device#dev-1 / setting#volume  unique"]
    assert look() == []


def test_a_file_is_looked_into_when_a_life_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], clock: Clock
) -> None:
    """Nothing writes the file then: the time alone tells. It is looked into at no other time."""
    for name in ("opening", "watch"):
        monkeypatch.setattr(f"agent.commands.{name}.wall_ms", clock)
    shell = Shell(tmp_path, monkeypatch, capsys)
    shell.ok("create", "Thing", "g", "1", "until=2026-01-02T03:01:00Z")

    os.utime(shell.database, (START_MS // 1000 - 600,) * 2)
    times: list[int] = []
    take = Looks.take

    def counted(looks: Looks, database: Database) -> Iterator[Event]:
        times.append(clock.now_ms - START_MS)
        return take(looks, database)

    def pause(seconds: float) -> None:
        clock.now_ms += round(seconds * 1000)

    monkeypatch.setattr("agent.commands.watch.pause", pause)
    monkeypatch.setattr(Looks, "take", counted)
    said = shell("watch", "Thing", "--count", "1", "--interval", "7")
    assert said.row["event"] == "expired" and said.row["before"]["id"] == "1"
    assert said.row["at"] == "2026-01-02T03:01:03.000Z"
    assert times == [0, 63_000]
