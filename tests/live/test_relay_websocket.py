"""`fleet-cloud relay --websocket` as a process: devices connect to it themselves, with a broker beside it and without.

The listener's own rules are tests/cloud/test_service_websocket*.py's part. Called by pytest only.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
from pathlib import Path

import pytest
from live_rig import (
    QUICK,
    LiveDevice,
    Mosquitto,
    RelayProcess,
    Table,
    alike,
    devices,
    free_port,
    pump,
    same,
    table_name,
)
from live_websocket import give_tokens, websocket_devices
from relay_rig import config, notice, setting, stored

from agent.config import AgentConfig
from agent.protocol import websocket
from agent.protocol.messages import Key, Rows, decode_to_device
from cloud.credentials import digest_of
from cloud.registry import with_token
from cloud.table import Delete, Put

ACCOUNTS = {"home-1": "main", "home-2": "main", "home-3": "main"}
# A device that asks only when it connects: what it gets later was pushed to it.
SILENT = AgentConfig(
    boot_jitter_ms=0, hello_period_ms=3_600_000, hello_spacing_ms=100, resend_base_ms=400, connect_base_ms=100
)


def made(request: pytest.FixtureRequest, emulator: str) -> Table:
    table = Table(str(request.getfixturevalue(emulator)), table_name(request.node.nodeid), ACCOUNTS)
    give_tokens(table, *ACCOUNTS)
    return table


@pytest.fixture(params=["moto", "ministack"])
def either(request: pytest.FixtureRequest) -> Table:
    return made(request, request.param)


@pytest.fixture
def table(request: pytest.FixtureRequest) -> Table:
    return made(request, "ministack")


def relay_at(
    folder: Path, table: Table, port: int, *, broker: str = "", name: str = "relay", more: str = ""
) -> RelayProcess:
    return RelayProcess(folder, table, broker, "--websocket", f"127.0.0.1:{port}", name=name, more=more)


def test_a_device_and_the_table_become_equal_without_a_broker(tmp_path: Path, either: Table) -> None:
    table, port = either, free_port()
    with relay_at(tmp_path, table, port) as relay, websocket_devices(port, "home-1", "home-2") as live:
        assert relay.wait("listening-for-devices")["websocket"] == f"ws://127.0.0.1:{port}"
        assert "several relays" in relay.wait("no-bridge")["hint"]
        first, second = live
        for rev, name in enumerate("abc", 1):
            first.database.upsert("Fault", {"id": name, "rev": rev})
            first.database.upsert("Setting", {"name": name, "rev": rev})
        table.execute(Put(stored(config(1))))
        alike(live, table, 7)
        first.database.remove("Fault", {"id": "a"})
        table.execute(Delete(config(1)[0]))
        alike(live, table, 5)
        key, image = notice(6, "n")
        table.execute(Put(stored((key, image))))
        pump(live, lambda: all(each.visible().get(key) == image for each in live), "a notice reaches both")
        assert len(second.visible()) == 1
        figures = relay.figures()
        assert figures["fleet_relay_websocket_connections"] == 2
        assert figures['fleet_relay_websocket_messages_total{direction="in"}'] >= 4
        assert figures['fleet_relay_websocket_bytes_total{direction="out"}'] > 1_000
        assert figures['fleet_relay_messages_total{event="done"}'] >= 4
        assert "fleet_relay_broker_connected" not in figures
        assert relay.health() == (200, {"status": "ok", "problems": []})
        assert relay.terminate() == 0
        assert relay.said[-1]["event"] == "stopped" and "unfinished" not in relay.said[-1]
        pump(live, lambda: all(each.codes for each in live), "both are sent away")
        assert [each.codes[0] for each in live] == [websocket.GOING_AWAY] * 2
        assert not [each for each in relay.said if each["level"] != "info"] and not relay.odd, relay.said


def test_killed_again_and_again_under_load_devices_come_back_and_nothing_is_lost(tmp_path: Path, table: Table) -> None:
    port, kills = free_port(), 4
    with websocket_devices(port, "home-1", "home-2") as live:
        first, second = live
        for kill in range(kills):
            with relay_at(tmp_path, table, port) as relay:
                relay.ready()
                for i in range(8):
                    first.database.upsert("Fault", {"id": f"f{kill}-{i}", "rev": kill * 8 + i})
                    second.database.upsert("Setting", {"name": f"s{i}", "rev": 1_000 + kill * 8 + i})
                    table.execute(Put(stored(setting(kill * 8 + i, f"c{i}", 1_800_000_000_000 + kill, "home-1"))))
                enough = len(first.heard) + len(second.heard) + 2 + kill % 7 * 2
                pump(live, lambda: len(first.heard) + len(second.heard) >= enough, "some answers")  # noqa: B023
                relay.kill()
        with relay_at(tmp_path, table, port) as relay:
            alike(live, table, 8 * kills + 8)
            assert len(second.visible()) == 8
            assert first.session.mints == second.session.mints == 0
            assert relay.terminate() == 0


def told_of(device: LiveDevice, key: Key) -> int:
    """How many messages had this item."""
    messages = map(decode_to_device, device.heard)
    return sum(1 for each in messages if isinstance(each, Rows) and any(row.key == key for row in each.rows))


def test_with_a_broker_a_push_reaches_devices_of_every_relay_and_of_the_broker(
    tmp_path: Path, table: Table, broker: Mosquitto
) -> None:
    """Three devices, none of which asks again: one at each relay, one at the broker. One relay holds the stream."""
    ports = {"one": free_port(), "two": free_port()}
    relays = [relay_at(tmp_path, table, port, broker=broker.url, name=name) for name, port in ports.items()]
    with (
        relays[0].ready(),
        relays[1].ready(),
        websocket_devices(ports["one"], "home-1", config=SILENT) as [first],
        websocket_devices(ports["two"], "home-2", config=SILENT) as [second],
        devices(broker.port, "home-3", config=SILENT) as [third],
    ):
        live = [first, second, third]
        for each in live:
            each.database.upsert("Setting", {"name": "own", "rev": 1})
        pump(live, lambda: all(same(each, table) for each in live), "all have said something")
        rows = [config(7, device) for device in ACCOUNTS]
        for row in rows:
            table.execute(Put(stored(row)))
        for name in "nop":  # one after the other: what the first brought twice has come when the last is there
            key, image = notice(6, name)
            table.execute(Put(stored((key, image))))
            pump(
                live,
                lambda: all(each.visible().get(row[0]) and each.visible().get(key) == image  # noqa: B023
                            for each, row in zip(live, rows, strict=True)),
                "what changed reaches all three, by pushes alone",
            )  # fmt: skip
        first_key = notice(6, "n")[0]
        pump(
            live,
            # A record may be told of twice, to all; a relay's own push that came back to it would stay uneven.
            lambda: len({told_of(each, first_key) for each in live}) == 1,
            "each push reaches each device as often",
        )
        assert not [each for relay in relays for each in relay.said if each["level"] != "info"]


def test_without_a_broker_a_device_of_another_relay_hears_of_a_change_at_its_next_hello(
    tmp_path: Path, table: Table
) -> None:
    ports = {"one": free_port(), "two": free_port()}
    relays = [relay_at(tmp_path, table, port, name=name) for name, port in ports.items()]
    with (
        relays[0].ready(),
        relays[1].ready(),
        websocket_devices(ports["one"], "home-1", config=QUICK) as [first],
        websocket_devices(ports["two"], "home-2", config=QUICK) as [second],
    ):
        for device in ("home-1", "home-2"):
            table.execute(Put(stored(config(7, device))))
        live = [first, second]
        pump(live, lambda: all(each.visible() and same(each, table) for each in live), "both have it")


def status_of(port: int, path: str, headers: dict[str, str]) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    with contextlib.closing(connection):
        connection.request("GET", path, headers=headers)
        return connection.getresponse().status


def test_strangers_are_refused_counted_and_told_once_while_a_device_is_served(tmp_path: Path, table: Table) -> None:
    port = free_port()
    upgrade = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Protocol": websocket.SUBPROTOCOL,
        websocket.HEADER: websocket.bearer("guess"),
    }
    few = "listener: {failures: 3, refusal_ms: 50}"
    with relay_at(tmp_path, table, port, more=few) as relay, websocket_devices(port, "home-1") as live:
        relay.ready()
        pump(live, lambda: live[0].heard, "the device is known")
        assert [status_of(port, "/v1/home-2", upgrade) for _ in range(4)] == [401, 401, 401, 429]
        assert status_of(port, "/v1/stranger", upgrade) == 429
        assert status_of(port, "/v9/home-1", upgrade) == 404
        assert status_of(port, "/v1/home-1", {**upgrade, "Sec-WebSocket-Protocol": "x"}) == 400
        assert status_of(port, "/", {}) == 400
        with socket.create_connection(("127.0.0.1", port)) as rubbish:
            rubbish.sendall(bytes(range(256)) * 16 + b"\r\n\r\n")
        live[0].database.upsert("Setting", {"name": "a", "rev": 1})
        table.execute(Put(stored(config(7))))
        alike(live, table, 2)
        figures = relay.figures()
        for reason in ("credentials", "rate", "path", "subprotocol", "http"):
            assert figures[f'fleet_relay_websocket_refused_total{{reason="{reason}"}}'] > 0
            assert len([e for e in relay.events("websocket-refused") if e["about"] == reason]) == 1
        assert "guess" not in str(relay.said) and not relay.odd
        assert relay.health()[0] == 200
        assert relay.terminate() == 0


def test_a_new_token_is_taken_at_once_and_the_old_one_no_more(tmp_path: Path, table: Table) -> None:
    port = free_port()
    with relay_at(tmp_path, table, port) as relay:
        relay.ready()
        table.execute(with_token("home-2", digest_of("fresh"), "main"))
        with websocket_devices(port, "home-2", token="fresh") as live, websocket_devices(port, "home-1") as others:
            live[0].database.upsert("Setting", {"name": "a", "rev": 1})
            alike(live, table, 1)
            with websocket_devices(port, "home-2") as old:
                pump([*old, *others, *live], lambda: old[0].codes, "the old token is refused")
                assert old[0].codes[0] == 0 and old[0].heard == []
        assert relay.figures()['fleet_relay_websocket_refused_total{reason="credentials"}'] > 0
