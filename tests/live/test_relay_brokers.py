"""The relay's process with brokers of other kinds: one that wants a password, TLS with certificates, MQTT 3.1.1."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from live_rig import Mosquitto, RelayProcess, Table, devices, free_port, mosquitto, pump, same, table_name
from relay_rig import config, stored
from websocket_rig import certificates

from cloud.table import Put

ACCOUNTS = {"home-1": "main"}


@pytest.fixture
def table(request: pytest.FixtureRequest, ministack: str, broker: Mosquitto) -> Table:
    """`broker` is asked for so that a missing one is told in the same way as elsewhere."""
    return Table(ministack, table_name(request.node.nodeid), ACCOUNTS)


def works(table: Table, relay: RelayProcess, port: int) -> None:
    """A change on each side reaches the other, through a listener that devices may use."""
    with devices(port, "home-1") as live:
        live[0].database.upsert("Setting", {"name": "a", "rev": 1})
        table.execute(Put(stored(config(2))))
        pump(live, lambda: len(live[0].visible()) == 2 and same(live[0], table), "equal")
    assert relay.terminate() == 0


def test_an_older_mqtt_works_too(tmp_path: Path, table: Table, broker: Mosquitto) -> None:
    with RelayProcess(tmp_path, table, broker.url, "--mqtt", "3.1.1") as relay:
        assert relay.ready().events("broker-connected")[0]["shared"] is True
        works(table, relay, broker.port)


def test_without_a_group_the_subscription_is_the_relays_own(tmp_path: Path, table: Table, broker: Mosquitto) -> None:
    with RelayProcess(tmp_path, table, broker.url, "--group", "") as relay:
        assert relay.ready().events("broker-connected")[0]["shared"] is False
        works(table, relay, broker.port)


def test_a_broker_that_refuses_the_relay_ends_it_with_a_hint(
    tmp_path: Path, table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    passwords = tmp_path / "passwords"
    hashing = shutil.which("mosquitto_passwd") or "/usr/bin/mosquitto_passwd"
    subprocess.run([hashing, "-b", "-c", str(passwords), "relay", "right"], check=True, capture_output=True)
    lines = ("allow_anonymous false", f"password_file {passwords}", "per_listener_settings false", "user root")
    with mosquitto(tmp_path, *lines) as strict:
        monkeypatch.setenv("FLEET_BROKER_PASSWORD", "wrong")
        for version, reason in (("5", "Not authorized"), ("3.1.1", "Not authorized")):
            with RelayProcess(tmp_path, table, strict.url, "--mqtt", version) as relay:
                assert relay.ended() == 2
                text = "".join(relay.odd)
                assert reason in text and "$FLEET_BROKER_PASSWORD" in text and "Traceback" not in text
        monkeypatch.setenv("FLEET_BROKER_PASSWORD", "right")
        with RelayProcess(tmp_path, table, strict.url.replace("//", "//relay@")) as relay:
            relay.ready()
            assert relay.terminate() == 0


def test_tls_with_certificates_of_both_sides(tmp_path: Path, table: Table, broker: Mosquitto) -> None:
    certificates(tmp_path, "server", "relay")
    folder = tmp_path / "strict"
    folder.mkdir()
    lines = [f"cafile {tmp_path}/ca.pem", f"certfile {tmp_path}/server.pem", f"keyfile {tmp_path}/server.key"]
    lines += ["require_certificate true", "use_identity_as_username true", "user root"]
    plain = free_port()
    with mosquitto(folder, *lines, f"listener {plain} 127.0.0.1") as strict:
        address = strict.url.replace("mqtt:", "mqtts:")
        own = ["--ca", f"{tmp_path}/ca.pem", "--cert", f"{tmp_path}/relay.pem", "--key", f"{tmp_path}/relay.key"]
        with RelayProcess(tmp_path, table, address, *own) as relay:
            relay.ready()
            works(table, relay, plain)
        with RelayProcess(tmp_path, table, address) as relay:  # the broker's certificate is nobody's that it knows
            assert "certificate verify failed" in relay.wait("broker-unreachable")["reason"].lower()
            assert relay.process.poll() is None
