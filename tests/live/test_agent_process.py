"""`fleet-agent run` as a process: a real broker, a real relay, an emulator's table, applications at its socket."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from agent_rig import AgentProcess, Application
from live_rig import LIMIT_S, ROOT, Mosquitto, RelayProcess, Table, table_name, until
from relay_rig import config, stored

from agent.api.client import remote
from cloud.table import Put

ACCOUNTS = {"home-1": "main", "home-2": "main"}


@pytest.fixture
def table(request: pytest.FixtureRequest, moto: str, broker: Mosquitto) -> Table:
    """`broker` is asked for so that a missing one is told in the same way as elsewhere."""
    return Table(moto, table_name(request.node.nodeid), ACCOUNTS)


def over(broker: Mosquitto, **more: str) -> dict[str, str]:
    return {"url": f'"{broker.url}"', **more}


def settings_in(table: Table) -> dict[str, Any]:
    """Name -> the item, of the Settings in the table."""
    return {item["name"]: item for item in table.items().values() if item["_type"] == "Setting"}


def test_a_write_at_the_socket_reaches_the_table_and_a_change_of_the_table_the_device(
    tmp_path: Path, broker: Mosquitto, table: Table
) -> None:
    with RelayProcess(tmp_path, table, broker.url) as relay, AgentProcess(tmp_path, over(broker)) as agent:
        relay.ready()
        agent.start().wait("connected")
        with agent.client() as client:
            item = client.ask("upsert", model="Setting", item={"name": "volume", "rev": 1})["item"]
            assert item["name"] == "volume" and item["deviceId"] == "home-1"
            until(lambda: "volume" in settings_in(table), "the write is in the table", agent.pause)
            table.execute(Put(stored(config(7))))
            until(lambda: client.ask("get", model="Config", item={})["item"], "the change is there", agent.pause)
        until(lambda: agent.status()["pending"] == 0, "all is acknowledged", agent.pause)
        status = agent.status()
        assert status["state"] == "idle" and status["clock_corrected"] and status["problem"] is None
        assert agent.terminate() == 0
        assert agent.events("stopped") and not agent.odd


def fleet_agent(agent: AgentProcess, *words: str) -> subprocess.CompletedProcess[str]:
    """A command of a person beside the agent."""
    command = [sys.executable, "-m", "agent.cli", *words, "--config", str(agent.config)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_S)


def test_the_commands_ask_the_agent_that_runs_and_the_file_when_it_is_stopped(
    tmp_path: Path, broker: Mosquitto
) -> None:
    with AgentProcess(tmp_path, over(broker)).start() as agent:
        agent.wait("connected")
        watching = subprocess.Popen(
            [sys.executable, "-m", "agent.cli", "watch", "Setting", "--count", "3", "--config", str(agent.config)],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert watching.stderr is not None
        assert "as the agent of home-1 tells it" in watching.stderr.readline()
        for words in (("create", "Setting", "volume", "rev=1"), ("update", "Setting", "volume", "rev=2")):
            done = fleet_agent(agent, *words)
            assert (done.returncode, done.stderr) == (0, ""), done
            assert json.loads(done.stdout)["rev"] == int(words[-1][-1])
        assert fleet_agent(agent, "create", "Setting", "volume", "rev=1").returncode == 2  # exists
        assert json.loads(fleet_agent(agent, "get", "Setting", "volume").stdout)["rev"] == 2
        assert len(fleet_agent(agent, "find", "Setting").stdout.splitlines()) == 1
        assert json.loads(fleet_agent(agent, "status", "--json").stdout)["state"] in ("joining", "idle", "sending")
        assert fleet_agent(agent, "rejected").returncode == 0
        assert json.loads(fleet_agent(agent, "remove", "Setting", "volume").stdout)["rev"] == 2
        assert fleet_agent(agent, "get", "Setting", "volume").returncode == 2
        out, err = watching.communicate(timeout=LIMIT_S)
        assert [json.loads(line)["event"] for line in out.splitlines()] == ["created", "updated", "removed"], err
        assert agent.terminate() == 0
        assert json.loads(fleet_agent(agent, "status", "--json").stdout)["state"] == "stopped"
        assert fleet_agent(agent, "create", "Setting", "bass", "rev=1").returncode == 0


def test_what_is_imported_while_the_agent_runs_is_in_the_cloud(tmp_path: Path, broker: Mosquitto, table: Table) -> None:
    count = 300
    with RelayProcess(tmp_path, table, broker.url) as relay, AgentProcess(tmp_path, over(broker)) as agent:
        relay.ready()
        agent.start().wait("connected")
        assert fleet_agent(agent, "create", "Setting", "volume", "rev=1").returncode == 0
        (line,) = fleet_agent(agent, "export", "--model", "Setting").stdout.splitlines()
        lines = tmp_path / "lines.jsonl"
        names = [f"s{n:03}" for n in range(count)]
        lines.write_text("".join(line.replace("volume", name) + "\n" for name in names) + "no JSON\n")
        refused = fleet_agent(agent, "import", str(lines))
        assert refused.returncode == 2 and f"{lines}:{count + 1}: no JSON" in refused.stderr
        assert "nothing was imported" in refused.stderr
        assert len(fleet_agent(agent, "find", "Setting").stdout.splitlines()) == 1
        done = fleet_agent(agent, "import", str(lines), "--partial", "--json")
        assert json.loads(done.stdout)["created"] == count, done
        again = fleet_agent(agent, "import", str(lines), "--partial")
        assert again.stdout == f"0 created, 0 updated, {count} unchanged, 1 refused\n"
        until(lambda: agent.status()["pending"] == 0, "all is acknowledged", agent.pause)
        assert settings_in(table).keys() == {"volume", *names}
        assert not [path.name for path in agent.folder.iterdir() if "import" in path.name], "no copy stays"
        assert agent.terminate() == 0 and not agent.odd


def test_the_whole_database_is_copied_while_the_agent_runs_and_an_application_writes(tmp_path: Path) -> None:
    with AgentProcess(tmp_path, {"url": '"mqtt://127.0.0.1:9"'}) as agent:
        agent.start().wait("started")
        application = Application(agent.socket)
        application.start()
        application.wait(50)
        copy = tmp_path / "copy.db"
        said = fleet_agent(agent, "backup", str(copy), "--json")
        assert (said.returncode, said.stderr) == (0, ""), said
        assert json.loads(said.stdout) == {"file": str(copy), "bytes": copy.stat().st_size}
        done = fleet_agent(agent, "backup", str(copy))
        assert done.returncode == 2 and "exists already (name another file" in done.stderr
        faults = fleet_agent(agent, "export", "--model", "Fault")
        assert faults.returncode == 0, faults
        assert fleet_agent(agent, "compact").returncode == 0
        application.wait(20)
        application.end()
        whole = remote(agent.socket)
        now = {item["id"] for item in whole.find("Fault", {})}
        whole.client.close()
        left = sorted(path.name for path in agent.folder.iterdir() if "copy" in path.name)
        assert not left, "nothing of it stays beside the database"
        assert agent.terminate() == 0
    exported = {json.loads(line)["item"]["id"] for line in faults.stdout.splitlines()}
    assert exported and exported < now
    words = ["find", "Fault", "--database", str(copy), "--schema", str(agent.folder / "schema.json5")]
    found = subprocess.run(
        [sys.executable, "-m", "agent.cli", *words], cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_S
    )
    copied = {json.loads(line)["id"] for line in found.stdout.splitlines()}
    assert copied and copied < exported
