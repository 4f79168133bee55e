"""Remote commands on a real agent: `fleet-cloud command` orders, the agent and an application's handlers obey."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from agent_rig import AgentProcess
from emulators import KEY_ID, REGION, SECRET
from live_rig import LIMIT_S, ROOT, Mosquitto, RelayProcess, Table, table_name

from agent.remote.handlers import Handlers
from agent.runtime.embedded import embedded


@pytest.fixture
def schema(tmp_path: Path) -> Path:
    """With the two models as docs/commands.md has them."""
    (models,) = re.findall(
        r"```json5\n(process: \{\n    Command:.*?)```", (ROOT / "docs/commands.md").read_text(), re.S
    )
    head = "format: 'onetable:1.1.0', version: '1.0.0', indexes: {primary: {hash: 'pk', sort: 'sk'}},"
    path = tmp_path / "commands.json5"
    path.write_text(f"{{{head} params: {{typeField: '_type', timestamps: true}},\n{models}}}")
    return path


@pytest.fixture
def table(request: pytest.FixtureRequest, moto: str, broker: Mosquitto) -> Table:
    """`broker` is asked for so that a missing one is told in the same way as elsewhere."""
    return Table(moto, table_name(request.node.nodeid), {"home-1": "main"})


def order(table: Table, schema: Path, *words: str) -> tuple[int, dict[str, Any]]:
    """The exit code and the result of a command that is waited for."""
    environment = {**os.environ, "AWS_ACCESS_KEY_ID": KEY_ID, "AWS_SECRET_ACCESS_KEY": SECRET}
    place = ["--table", table.name, "--endpoint-url", table.address, "--region", REGION, "--schema", str(schema)]
    done = subprocess.run(
        [sys.executable, "-m", "cloud.cli", "command", "home-1", *words, "--wait", "--json", *place],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=LIMIT_S,
    )  # fmt: skip
    assert done.stdout, done
    return done.returncode, json.loads(done.stdout)


def test_the_built_in_commands(tmp_path: Path, broker: Mosquitto, table: Table, schema: Path) -> None:
    with RelayProcess(tmp_path, table, broker.url, schema=schema) as relay:
        relay.ready()
        with AgentProcess(tmp_path, {"url": f'"{broker.url}"'}, schema=schema).start() as agent:
            agent.wait("connected")
            code, result = order(table, schema, "status")
            assert code == 0 and result["data"]["device"] == "home-1" and result["state"] == "done"
            code, result = order(table, schema, "reboot")
            assert code == 1 and (result["state"], result["code"]) == ("refused", "not_allowed")
            code, result = order(table, schema, "resync")
            assert code == 0 and result["state"] == "done"
            agent.wait("connected", 2)
            agent.kill()
            agent.start().wait("connected", 3)
            assert order(table, schema, "status")[0] == 0
            assert len(agent.events("command")) == 2  # each once; a resync is the commander's own
            assert agent.terminate() == 0 and not agent.odd


class Blink(msgspec.Struct):
    times: int


def test_an_applications_own_commands(tmp_path: Path, broker: Mosquitto, table: Table, schema: Path) -> None:
    place = AgentProcess(tmp_path, {"url": f'"{broker.url}"'}, schema=schema)
    handlers = Handlers()
    seen: list[int] = []

    @handlers("blink", Blink)
    def blink(wanted: Any) -> dict[str, Any]:
        seen.append(wanted.times)
        return {"blinked": wanted.times}

    @handlers("fail")
    def fail(_: Any) -> None:
        raise RuntimeError("the lamp is broken")

    with RelayProcess(tmp_path, table, broker.url, schema=schema) as relay:
        relay.ready()
        with embedded(place.config, lambda line: None, handlers):
            code, result = order(table, schema, "blink", "times=3")
            assert code == 0 and result["data"] == {"blinked": 3} and seen == [3]
            code, result = order(table, schema, "blink", "times=often")
            assert code == 1 and result["code"] == "invalid" and seen == [3]
            code, result = order(table, schema, "fail")
            assert code == 1 and "the lamp is broken" in result["message"]


def test_models_that_do_not_fit_are_told_at_the_start(tmp_path: Path, schema: Path) -> None:
    schema.write_text(
        schema.read_text().replace("CommandResult: {enable: 'both', sync: 'up'}", "CommandResult: {sync: 'both'}")
    )
    with AgentProcess(tmp_path, {"url": '"mqtt://127.0.0.1:9"'}, schema=schema).start() as agent:
        assert agent.ended() == 2
        assert "CommandResult has sync: both, expected up" in "".join(agent.odd)
