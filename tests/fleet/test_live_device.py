"""A device of a live run after a kill: what its application and its commander had written, and nobody had seen."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import trio

from agent.config import AgentConfig
from agent.files import open_file
from agent.protocol.log import Log
from agent.protocol.schema import Schema
from fleet.live import sightings
from fleet.live.clock import RunClock, monotonic_us
from fleet.live.device import DeviceSetup, LiveDevice, sighted
from fleet.live.orders import first_rev
from fleet.live.script import DeviceOp
from fleet.plants import types_with
from fleet.scenario.plan import CommandPlan
from fleet.scenario.shipped import schema_path

NAME = "home-1"
RESULT = {"id": "c1", "name": "blink", "state": "started"}


async def _restart() -> str:
    return ""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    schema = schema_path("commands.json5")
    config = tmp_path / f"{NAME}.toml"
    config.touch(0o600)
    config.write_text(
        f'[device]\nid = "{NAME}"\naccount = "acme"\n[database]\nfile = "{NAME}.db"\nschema = "{schema}"\n'
        '[connection]\nurl = "mqtt://127.0.0.1:9"\n'
    )
    return config


def device(config: Path, ops: list[DeviceOp]) -> LiveDevice:
    schema = schema_path("commands.json5")
    assert schema is not None
    return LiveDevice(
        DeviceSetup(id=NAME, config=str(config), ops=ops), Schema.load(schema), AgentConfig(), types_with("").agent,
        RunClock(monotonic_us()), Log(lambda _: None, wall_ms=lambda: 0, monotonic_ms=lambda: 0), stop_ms=0,
        limiter=trio.CapacityLimiter(1), commands=CommandPlan(), restart=_restart,
    )  # fmt: skip


class Life:
    """From a boot to a kill, without a session. `seen`: the file of sightings before it is opened."""

    def __init__(self, config: Path, ops: list[DeviceOp]) -> None:
        self.made = device(config, ops)
        self.path = sighted(config.with_suffix(".db"))
        records = sightings.read(self.path)
        self.made.write = sightings.Writer(self.path, lambda: 1)
        self.connection = open_file(config.with_suffix(".db"))
        self.database = self.made._open(self.connection, records)

    def end(self) -> None:
        self.made.write.close()
        self.connection.close()


def of(path: Path, name: str) -> list[list[Any]]:
    return [arguments for _, what, arguments in sightings.read(path) if what == name]


def without(path: Path, names: tuple[str, ...]) -> None:
    """As if the kill had come before these were written: the last of each is gone."""
    records = sightings.read(path)
    path.unlink()
    writer = sightings.Writer(path, lambda: 0)
    last = {name: max((n for n, one in enumerate(records) if one[1] == name), default=-1) for name in names}
    for n, (t_us, name, arguments) in enumerate(records):
        if last.get(name) != n:
            writer.at(t_us, name, *arguments)
    writer.close()


def test_a_result_that_was_written_and_not_seen_is_told_after_the_kill(place: Path) -> None:
    life = Life(place, [])
    life.database.create("CommandResult", {**RESULT, "rev": life.made._next_result_rev()})
    life.end()
    (wrote,) = of(life.path, "device_wrote")
    without(life.path, ("device_wrote", "device_sets_end"))
    assert not of(life.path, "device_wrote")
    life = Life(place, [])
    assert of(life.path, "device_wrote") == [wrote], "once, as it was"
    assert life.made._next_result_rev() > wrote[3] > first_rev(NAME), "no number comes twice"
    life.database.update("CommandResult", {"id": "c1", "state": "done", "rev": life.made._next_result_rev()})
    life.end()
    before = of(life.path, "device_wrote")
    Life(place, []).end()
    assert of(life.path, "device_wrote") == before and len(before) == 2


def test_a_result_that_a_kill_kept_from_being_written_is_not_told(place: Path) -> None:
    life = Life(place, [])
    key = life.made.schema.models["CommandResult"].key(RESULT, life.database.context)
    life.made._intends(key, "create", life.made._next_result_rev(), None)
    life.end()
    Life(place, []).end()
    assert not of(life.path, "device_wrote")


def test_an_applications_write_is_done_once_whatever_a_command_has_written_since(place: Path) -> None:
    ops = [
        DeviceOp(0, "put", "Setting", {"name": "a", "rev": 7}),
        DeviceOp(0, "put", "Setting", {"name": "b", "rev": 8}),
    ]
    life = Life(place, ops)
    life.made._do(life.database, 0)
    life.end()
    without(life.path, ("device_wrote", sightings.DONE))
    life = Life(place, ops)
    assert life.made._next_op == 1 and len(of(life.path, "device_wrote")) == 1, "it was there"
    life.made._intends(("device#home-1", "setting#b"), "create", 8, None)  # and the kill came before the write
    life.end()
    life = Life(place, ops)
    life.database.create("CommandResult", {**RESULT, "rev": life.made._next_result_rev()})
    life.end()
    life = Life(place, ops)
    assert life.made._next_op == 1, "a command's write is not the application's"
    with closing(life.connection):
        life.made._do(life.database, 1)
        assert life.database.get("Setting", {"name": "b"})
