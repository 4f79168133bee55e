"""The parts of a live run together: a relay between mosquitto and moto's table, killed and started again."""

from __future__ import annotations

from pathlib import Path

import pytest
from emulators import REGION
from live_rig import Mosquitto, Table, devices, pump, same, table_name
from relay_rig import FILE

from fleet.live.parts import MotoServer, RelayPart
from fleet.live.processes import Processes


def test_a_relay_starts_between_broker_and_table_and_comes_back_after_a_kill(
    request: pytest.FixtureRequest, tmp_path: Path, broker: Mosquitto
) -> None:
    with Processes() as processes:
        moto = MotoServer(processes, tmp_path)
        moto.start()
        table = Table(moto.url, table_name(request.node.nodeid), {"home-1": "main"})
        relay = RelayPart(
            processes,
            tmp_path,
            table=table.name,
            schema=FILE,
            broker=broker.url,
            endpoint_url=moto.url,
            region=REGION,
        )
        relay.start()
        with devices(broker.port, "home-1") as live:
            live[0].database.upsert("Setting", {"name": "a", "rev": 1})
            pump(live, lambda: same(live[0], table), "the first write is in the table")
            relay.kill()
            live[0].database.upsert("Setting", {"name": "b", "rev": 2})
            relay.start()
            pump(live, lambda: same(live[0], table), "the second write is in the table")
        assert [event["relay"] for event in relay.events("started")] == ["relay", "relay"]
        assert relay.terminate() == 0
        assert not relay.says("Traceback")
