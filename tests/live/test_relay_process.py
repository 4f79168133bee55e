"""`fleet-cloud relay` as a process: mosquitto on one side, an emulator's table and stream on the other, real devices.

What emulators cannot do (split and trim shards) is tests/cloud/test_stream_*.py's part, on a scripted stream.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from live_rig import (
    LIMIT_S,
    STREAM,
    Door,
    LiveDevice,
    Mosquitto,
    RelayProcess,
    Table,
    alike,
    devices,
    pump,
    table_name,
)
from paho.mqtt import client as paho
from paho.mqtt import publish
from paho.mqtt.enums import CallbackAPIVersion
from relay_rig import EPOCH, config, fault, hello, notice, op, setting, stored, up

from agent.protocol.messages import MESSAGE_BYTES_MAX, encode
from cloud.registry import device_key
from cloud.stream_letters import LETTERS_PK
from cloud.table import Delete, Put, Query

ACCOUNTS = {"home-1": "main", "home-2": "main", "away-1": "other"}


def made(request: pytest.FixtureRequest, emulator: str) -> Table:
    return Table(str(request.getfixturevalue(emulator)), table_name(request.node.nodeid), ACCOUNTS)


@pytest.fixture(params=["moto", "ministack"])
def either(request: pytest.FixtureRequest) -> Table:
    return made(request, request.param)


@pytest.fixture
def table(request: pytest.FixtureRequest) -> Table:
    return made(request, "ministack")


@pytest.fixture
def live(broker: Mosquitto) -> Iterator[list[LiveDevice]]:
    with devices(broker.port, "home-1", "home-2") as both:
        yield both


def test_a_device_and_the_table_become_equal_through_the_process(
    tmp_path: Path, broker: Mosquitto, either: Table, live: list[LiveDevice]
) -> None:
    table, (first, second) = either, live
    with RelayProcess(tmp_path, table, broker.url) as relay:
        relay.ready()
        for rev, name in enumerate("abc", 1):
            first.database.upsert("Fault", {"id": name, "rev": rev})
            first.database.upsert("Setting", {"name": name, "rev": rev})
        table.execute(Put(stored(config(1))))
        alike(live, table, 7)
        first.database.remove("Fault", {"id": "a"})
        first.database.update("Setting", {"name": "b", "rev": 20})
        table.execute(Delete(config(1)[0]))
        alike(live, table, 5)
        assert second.visible() == {}
        table.execute(Put(stored(config(5, "home-2"))))
        table.execute(Put(stored(notice(6, "n"))))
        key, image = notice(6, "n")
        pump(live, lambda: all(each.visible().get(key) == image for each in live), "a notice reaches both")
        assert fault(1, "a")[0] not in table.items() and setting(2, "b")[0] in table.items()
        figures = relay.figures()
        assert figures["fleet_relay_broker_connected"] == 1
        assert figures["fleet_relay_shards_held"] == 1
        assert figures['fleet_relay_records_total{result="done"}'] >= 7
        assert figures['fleet_relay_messages_total{event="done"}'] >= 6
        assert figures["fleet_relay_message_seconds_count"] >= 6
        assert figures['fleet_relay_table_calls_total{operation="TransactWriteItems"}'] > 0
        assert table.items(private=True)[device_key("home-1")]["seen"] > 0  # for `fleet-cloud devices`
        assert relay.health() == (200, {"status": "ok", "problems": []})
        assert relay.terminate() == 0
        assert relay.said[-1]["event"] == "stopped" and "unfinished" not in relay.said[-1]
        assert not [each for each in relay.said if each["level"] != "info"], relay.said
        (lease,) = table.leases().values()
        assert "owner" not in lease


@pytest.mark.parametrize(
    ("emulator", "kills"),
    [
        ("ministack", 4),
        pytest.param("moto", 6, marks=pytest.mark.slow),
        pytest.param("ministack", 250, marks=pytest.mark.slow),  # for some five minutes
    ],
)
def test_killed_again_and_again_under_load_nothing_is_lost(
    tmp_path: Path,
    broker: Mosquitto,
    live: list[LiveDevice],
    request: pytest.FixtureRequest,
    emulator: str,
    kills: int,
) -> None:
    """Killed at whatever it is at, after some of the work each time: what both sides have written is there then."""
    table, (first, second) = made(request, emulator), live
    for kill in range(kills):
        with RelayProcess(tmp_path, table, broker.url) as relay:
            relay.ready()
            for i in range(8):
                first.database.upsert("Fault", {"id": f"f{kill}-{i}", "rev": kill * 8 + i})
                second.database.upsert("Setting", {"name": f"s{i}", "rev": 1_000 + kill * 8 + i})
                table.execute(Put(stored(setting(kill * 8 + i, f"c{i}", 1_800_000_000_000 + kill, "home-1"))))
            enough = len(first.heard) + len(second.heard) + 2 + kill % 7 * 2
            pump(live, lambda: len(first.heard) + len(second.heard) >= enough, "some answers")  # noqa: B023
            relay.kill()
    with RelayProcess(tmp_path, table, broker.url) as relay:
        alike(live, table, 8 * kills + 8)
        assert len(second.visible()) == 8
        assert first.visible()[setting(0, "c7")[0]]["rev"] == 8 * kills - 1
        assert first.session.mints == second.session.mints == 0
        assert relay.terminate() == 0


def test_of_two_relays_the_other_takes_over_from_a_killed_one(
    tmp_path: Path, broker: Mosquitto, table: Table, live: list[LiveDevice]
) -> None:
    """The messages are shared by the broker, the shard (an emulator has one) by leases."""
    relays = [RelayProcess(tmp_path, table, broker.url, name=name).ready() for name in ("one", "two")]
    with relays[0], relays[1]:
        first = live[0]
        for i in range(12):
            first.database.upsert("Setting", {"name": f"s{i}", "rev": i})
            alike(live, table, i + 1)
        done = 'fleet_relay_messages_total{event="done"}'
        assert all(relay.figures().get(done, 0) > 0 for relay in relays)
        (lease,) = table.leases().values()
        holder, other = sorted(relays, key=lambda relay: not str(lease["owner"]).startswith(relay.name))
        assert [relay.figures()["fleet_relay_shards_held"] for relay in (holder, other)] == [1, 0]
        holder.kill()
        table.execute(Put(stored(config(100))))
        alike(live, table, 13)
        assert other.wait("shard-taken-over")["place"] == lease["checkpoint"] or other.events("shard-taken-over")
        assert other.figures()['fleet_relay_lease_events_total{event="taken_over"}'] == 1
        (lease,) = table.leases().values()
        assert str(lease["owner"]).startswith(other.name)


def test_a_second_relay_of_the_same_name_ends_the_first_with_a_hint(
    tmp_path: Path, broker: Mosquitto, table: Table
) -> None:
    with RelayProcess(tmp_path, table, broker.url) as first:
        first.wait("shard-taken")
        with RelayProcess(tmp_path, table, broker.url) as second:
            second.wait("shard-taken-over")
            assert first.ended() == 2
            assert "another relay was started under the name relay" in "".join(first.odd)
            assert second.process.poll() is None


def test_a_poison_record_is_set_aside_and_the_others_go_on(
    tmp_path: Path, broker: Mosquitto, table: Table, live: list[LiveDevice]
) -> None:
    program = (str(Path(__file__).parent / "planted_relay.py"),)
    stream = {**STREAM, "record_tries": 3}
    with RelayProcess(tmp_path, table, broker.url, program=program, stream=stream) as relay:
        relay.ready()
        table.execute(Put(stored(config(1))))
        table.execute(Put(stored(setting(2, "after"))))
        first = live[0]
        pump(live, lambda: setting(2, "after")[0] in first.visible(), "the change after the poison arrives")
        told = relay.wait("record-set-aside")
        assert told["key"] == list(config(1)[0]) and told["tries"] == 3
        (letter,) = table.execute(Query(LETTERS_PK)).items
        assert letter["key"] == list(config(1)[0]) and letter["reason"] == "InvalidRequest: planted"
        assert relay.figures()['fleet_relay_records_total{result="set_aside"}'] == 1
        assert len(relay.events("record-retried")) == 1  # told once, though it was tried again twice


def test_hostile_messages_are_refused_and_counted_and_harm_nobody(
    tmp_path: Path, broker: Mosquitto, table: Table, live: list[LiveDevice]
) -> None:
    with RelayProcess(tmp_path, table, broker.url) as relay:
        relay.ready()
        mine, yours = fault(1, "mine", device="home-2"), setting(9, "yours", device="home-1")
        epoch = "f" * 32
        hostile = [
            ("ioto/service/home-2/sync", b"\xff\xfe no message"),
            ("ioto/service/home-2/sync", b"{" * 50_000),
            ("ioto/service/home-2/sync", b'{"t":"hello"}'),
            ("ioto/service/home-2/sync", json.dumps({"t": "hello", "v": 99}).encode()),
            ("ioto/service/home-2/sync", json.dumps({"t": "rumour", "v": 1}).encode()),
            ("ioto/service/home-2/sync", b"{" + b" " * MESSAGE_BYTES_MAX + b"}"),
            ("ioto/service/stranger/sync", encode(hello())),
            ("ioto/service/all/sync", encode(hello())),
            ("ioto/service/away-1/sync", encode(hello(epoch))),
            # Of another device: under away-1's own name, items of home-1 and home-2.
            ("ioto/service/away-1/sync", encode(up(op(1, "create", mine), op(2, "create", yours), epoch=epoch))),
            ("ioto/service/away-1/sync", encode(up(op(1, "sweep"), epoch=EPOCH))),
        ]
        for topic, payload in hostile:
            publish.single(topic, payload, 1, hostname="127.0.0.1", port=broker.port)
        live[0].database.upsert("Setting", {"name": "a", "rev": 1})
        alike(live, table, 1)

        def refused() -> bool:
            figures = relay.figures()
            prefix, names = (
                "fleet_relay_messages_refused_total",
                ("malformed", "version", "unknown", "oversize", "device"),
            )
            return all(figures.get(f'{prefix}{{reason="{name}"}}', 0) > 0 for name in (*names, "topic"))

        pump(live, refused, "every kind of refusal is counted")
        pump(live, lambda: relay.figures()["fleet_relay_messages_in_hand"] == 0, "all is worked on")
        assert set(table.items()) == {setting(1, "a")[0]}
        assert relay.process.poll() is None and not relay.events("message-error")


def flood(broker: Mosquitto, topic: str, payloads: list[bytes]) -> None:
    """All at once, with either QoS in turn; until the broker has them."""
    client = paho.Client(CallbackAPIVersion.VERSION2)
    client.max_inflight_messages = 0
    client.connect("127.0.0.1", broker.port)
    sent = [client.publish(topic, payload, n % 2) for n, payload in enumerate(payloads)]
    client.loop_start()
    for each in sent:
        each.wait_for_publish(LIMIT_S)
    client.disconnect()
    client.loop_stop()


def test_a_flood_of_one_device_does_not_starve_another(
    tmp_path: Path, broker: Mosquitto, table: Table, live: list[LiveDevice]
) -> None:
    with RelayProcess(tmp_path, table, broker.url, more="messages: 4, queue: 64") as relay:
        relay.ready()
        flood(broker, "ioto/service/away-1/sync", [encode(hello("f" * 32, n=n)) for n in range(1_500)])
        for i in range(5):
            live[0].database.upsert("Setting", {"name": f"s{i}", "rev": i})
        alike(live, table, 5)
        figures = relay.figures()
        assert figures['fleet_relay_messages_refused_total{reason="flood"}'] > 0
        assert figures['fleet_relay_messages_refused_total{reason="overload"}'] > 0, "it was asked to wait"
        assert len(relay.events("device-floods")) == 1
        assert relay.terminate() == 0


def test_a_stop_in_the_middle_finishes_what_is_in_hand_and_the_next_relay_goes_on(
    tmp_path: Path, broker: Mosquitto, either: Table, live: list[LiveDevice]
) -> None:
    table, first = either, live[0]
    with RelayProcess(tmp_path, table, broker.url) as relay:
        relay.ready()
        for i in range(40):
            first.database.upsert("Setting", {"name": f"s{i}", "rev": i})
            table.execute(Put(stored(setting(i, f"c{i}"))))
            first.turn()
        assert relay.terminate() == 0
        stopped = relay.events("stopped")[0]
        assert "unfinished" not in stopped
        (lease,) = table.leases().values()
        assert "owner" not in lease
        said = relay.health if relay.process.poll() is None else None
        assert said is None
    with RelayProcess(tmp_path, table, broker.url, name="next") as relay:
        alike(live, table, 80)
        assert relay.events("shard-taken") and not relay.events("shard-taken-over")


@pytest.mark.parametrize("again", [False, True])
def test_a_stop_without_a_table_ends_within_its_limit_and_a_second_signal_at_once(
    tmp_path: Path, broker: Mosquitto, table: Table, live: list[LiveDevice], again: bool
) -> None:
    door = Door(table.address)
    table.address = door.open()
    with RelayProcess(tmp_path, table, broker.url, more=f"stop_s: {600 if again else 1}") as relay:
        relay.wait("shard-taken")
        door.shut()
        relay.wait("leases-failed")
        relay.process.send_signal(signal.SIGINT)
        relay.wait("stopping")
        if again:
            relay.process.send_signal(signal.SIGINT)
            assert relay.ended() == 130
        else:
            assert relay.ended() == 0
            (lease,) = table.leases().values()
            assert str(lease["owner"]).startswith(relay.name)  # that ends by itself


def test_a_broker_that_goes_and_comes_back_is_told_once_and_found_again(
    tmp_path: Path, broker: Mosquitto, table: Table, live: list[LiveDevice]
) -> None:
    with RelayProcess(tmp_path, table, broker.url) as relay:
        relay.ready()
        live[0].database.upsert("Setting", {"name": "a", "rev": 1})
        alike(live, table, 1)
        broker.kill()
        relay.wait("broker-unreachable")
        assert relay.health()[0] == 503
        table.execute(Put(stored(config(7))))
        live[0].database.upsert("Setting", {"name": "b", "rev": 2})
        broker.start()
        relay.wait("broker-connected", 2)
        assert relay.wait("broker-unreachable-over")["times"] >= 1
        alike(live, table, 3)
        assert len(relay.events("broker-unreachable")) == 1
        assert relay.health()[0] == 200


def test_a_table_that_does_not_answer_is_told_once_and_waited_for(
    tmp_path: Path, broker: Mosquitto, table: Table, live: list[LiveDevice]
) -> None:
    door = Door(table.address)
    table.address = door.open()
    door.shut()
    with RelayProcess(tmp_path, table, broker.url) as relay:
        assert "Check the endpoint" in relay.wait("table-unreachable")["hint"]
        door.open()
        relay.ready()
        live[0].database.upsert("Setting", {"name": "a", "rev": 1})
        alike(live, table, 1)
        door.shut()
        live[0].database.upsert("Setting", {"name": "b", "rev": 2})
        table.execute(Put(stored(config(7))))
        relay.wait("leases-failed")
        pump(live, lambda: relay.health()[0] == 503, "health says so")
        door.open()
        alike(live, table, 3)
        relay.wait("leases-failed-over")
        for problem in ("table-unreachable", "leases-failed"):
            assert len(relay.events(problem)) == 1
        assert relay.terminate() == 0
    door.shut()
