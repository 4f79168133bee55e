"""`fleet-cloud relay` as a process: mosquitto on one side, an emulator's table and stream on the other, real devices.

What emulators cannot do (split and trim shards) is tests/cloud/test_stream_*.py's part, on a scripted stream.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from live_rig import Mosquitto, RelayProcess, Table, devices, pump, same
from relay_rig import config, fault, setting, stored

from cloud.table import Delete, Put


@pytest.fixture(params=["moto", "ministack"])
def table(request: pytest.FixtureRequest) -> Table:
    address = str(request.getfixturevalue(request.param))
    return Table(address, f"live-{request.node.name.partition('[')[0][-40:]}", {"home-1": "main", "home-2": "main"})


def test_a_device_and_the_table_become_equal_through_the_process(
    tmp_path: Path, broker: Mosquitto, table: Table
) -> None:
    with RelayProcess(tmp_path, table, broker.url) as relay, devices(broker.port, "home-1", "home-2") as live:
        first, second = live
        relay.ready()
        for rev, name in enumerate("abc", 1):
            first.database.upsert("Fault", {"id": name, "rev": rev})
            first.database.upsert("Setting", {"name": name, "rev": rev})
        table.execute(Put(stored(config(1))))
        pump(live, lambda: same(first, table) and len(first.visible()) == 7, "the first device and the table are equal")
        first.database.remove("Fault", {"id": "a"})
        first.database.update("Setting", {"name": "b", "rev": 20})
        table.execute(Delete(config(1)[0]))
        pump(live, lambda: same(first, table) and len(first.visible()) == 5, "removals arrive on both sides")
        assert second.visible() == {}
        table.execute(Put(stored(config(5, "home-2"))))
        pump(live, lambda: second.visible() == {config(5, "home-2")[0]: config(5, "home-2")[1]}, "a change for another")
        assert fault(1, "a")[0] not in table.items() and setting(2, "b")[0] in table.items()
        figures = relay.figures()
        assert figures["fleet_relay_broker_connected"] == 1
        assert figures["fleet_relay_shards_held"] == 1
        assert figures['fleet_relay_records_total{result="done"}'] >= 7
        assert figures['fleet_relay_messages_total{event="done"}'] >= 6
        assert figures["fleet_relay_message_seconds_count"] >= 6
        assert relay.health() == (200, {"status": "ok", "problems": []})
        assert relay.terminate() == 0
        assert relay.said[-1]["event"] == "stopped" and "unfinished" not in relay.said[-1]
        (lease,) = table.leases().values()
        assert "owner" not in lease
