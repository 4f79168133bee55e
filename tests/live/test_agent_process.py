"""`fleet-agent run` as a process: a real broker, a real relay, an emulator's table, applications at its socket."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from agent_rig import AgentProcess
from live_rig import Mosquitto, RelayProcess, Table, table_name, until
from relay_rig import config, stored

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
