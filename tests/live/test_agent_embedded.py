"""The agent inside an application, which writes from its own threads: a real broker and a real relay."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
from agent_rig import AgentProcess
from live_rig import LIMIT_S, Mosquitto, RelayProcess, Table, table_name, until
from relay_rig import config, stored

from agent.api.client import Client
from agent.file_errors import FileInUseError
from agent.runtime.embedded import embedded
from cloud.table import Put


def test_an_application_syncs_by_itself(
    request: pytest.FixtureRequest, tmp_path: Path, moto: str, broker: Mosquitto
) -> None:
    table = Table(moto, table_name(request.node.nodeid), {"home-1": "main"})
    place = AgentProcess(tmp_path, {"url": f'"{broker.url}"'})  # its folder and configuration
    lines: list[str] = []
    news = threading.Condition()
    seen: list[int] = []
    with RelayProcess(tmp_path, table, broker.url) as relay:
        relay.ready()
        with embedded(place.config, lines.append) as agent:
            database = agent.database

            def changed(change: object) -> None:
                with news:
                    seen.append(1)
                    news.notify_all()

            def pause() -> None:
                with news:
                    news.wait(0.05)

            database.on("Config", "*", changed)
            writers = [
                threading.Thread(
                    target=lambda name=name: [database.upsert("Setting", {"name": name, "rev": i}) for i in range(20)]
                )
                for name in "abc"
            ]
            for writer in writers:
                writer.start()
            table.execute(Put(stored(config(7))))
            for writer in writers:
                writer.join(LIMIT_S)
            until(lambda: not database.pending() and seen, "both directions", pause)
            with Client(place.socket) as client:
                assert client.ask("status")["status"]["state"] == agent.status()["state"] == "idle"
            with pytest.raises(FileInUseError, match="this process"):
                embedded(place.config).__enter__()
            database.upsert("Setting", {"name": "last", "rev": 1})
        assert {item["name"]: item["rev"] for item in table.items().values() if item["_type"] == "Setting"} == {
            "a": 19, "b": 19, "c": 19, "last": 1,
        }  # fmt: skip
    assert [json.loads(line)["event"] for line in lines if "connected" in line or "stop" in line][-2:] == [
        "stopping",
        "stopped",
    ]


def test_what_cannot_be_served_is_raised_and_lets_the_database_go(tmp_path: Path) -> None:
    place = AgentProcess(tmp_path, {"url": '"mqtt://127.0.0.1:9"'})
    blocked = Path(place.socket).parent
    blocked.mkdir(mode=0o755)
    with pytest.raises(Exception, match="others may enter it"), embedded(place.config, lambda line: None):
        raise AssertionError
    blocked.chmod(0o700)
    with embedded(place.config, lambda line: None) as agent:
        agent.database.upsert("Setting", {"name": "a", "rev": 1})
