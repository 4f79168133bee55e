"""How `fleet-agent run` connects, and what it says when it cannot: adapters, TLS, refusals, servers that are away."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from agent_rig import AgentProcess
from live_rig import Mosquitto, RelayProcess, Table, free_port, mosquitto, table_name, until
from relay_rig import config, stored
from websocket_rig import certificates

from cloud.access import mosquitto_acl
from cloud.credentials import digest_of
from cloud.registry import with_token
from cloud.table import Put

ACCOUNTS = {"home-1": "main"}
TOKEN = "secret-of-home-1"


@pytest.fixture
def table(request: pytest.FixtureRequest, moto: str, broker: Mosquitto) -> Table:
    """`broker` is asked for so that a missing one is told in the same way as elsewhere."""
    return Table(moto, table_name(request.node.nodeid), ACCOUNTS)


@pytest.fixture
def pem(tmp_path: Path) -> Iterator[Path]:
    """Certificates of an authority, for a server and for home-1; at the rights that the agent wants."""
    folder = tmp_path / "pem"
    folder.mkdir()
    certificates(folder, "server", "home-1")
    for name in ("home-1.pem", "home-1.key"):
        (folder / name).chmod(0o600)
    yield folder


def own(pem: Path) -> dict[str, str]:
    files = {"ca": "ca.pem", "certificate": "home-1.pem", "key": "home-1.key"}
    return {name: f'"{pem / file}"' for name, file in files.items()}


def works(agent: AgentProcess, table: Table) -> None:
    """A change on each side reaches the other."""
    agent.wait("connected")
    with agent.client() as client:
        client.ask("upsert", model="Setting", item={"name": "a", "rev": 1})
        table.execute(Put(stored(config(7))))
        until(lambda: client.ask("get", model="Config", item={})["item"], "the change is there", agent.pause)
        until(lambda: client.ask("status")["status"]["pending"] == 0, "the write is acknowledged", agent.pause)
    assert any(item["_type"] == "Setting" for item in table.items().values())


def secured(folder: Path, pem: Path, *lines: str) -> list[str]:
    return [f"cafile {pem}/ca.pem", f"certfile {pem}/server.pem", f"keyfile {pem}/server.key", "user root", *lines]


@pytest.mark.parametrize("version", ["5", "3.1.1"])
def test_mqtt_with_certificates_of_both_sides(tmp_path: Path, table: Table, pem: Path, version: str) -> None:
    plain = free_port()
    lines = secured(tmp_path, pem, "require_certificate true", "use_identity_as_username true")
    folder = tmp_path / "strict"
    folder.mkdir()
    with mosquitto(folder, *lines, f"listener {plain} 127.0.0.1") as strict:
        connection = {"url": f'"mqtts://127.0.0.1:{strict.port}"', "mqtt": f'"{version}"', **own(pem)}
        with RelayProcess(tmp_path, table, f"mqtt://127.0.0.1:{plain}") as relay:
            relay.ready()
            with AgentProcess(tmp_path, connection).start() as agent:
                works(agent, table)
                assert agent.terminate() == 0


def test_mqtt_over_a_websocket(tmp_path: Path, table: Table, broker: Mosquitto) -> None:
    web = free_port()
    folder = tmp_path / "web"
    folder.mkdir()
    lines = (f"listener {web} 127.0.0.1", "protocol websockets")
    with mosquitto(folder, *lines) as both, RelayProcess(tmp_path, table, both.url) as relay:
        relay.ready()
        with AgentProcess(tmp_path, {"url": f'"mqtt+ws://127.0.0.1:{web}"'}).start() as agent:
            works(agent, table)
            with agent.client() as client:  # messages of more than one read
                for i in range(60):
                    client.ask("upsert", model="Setting", item={"name": f"s{i}", "rev": 1, "text": "x" * 1_500})
            until(lambda: agent.status()["pending"] == 0, "all is acknowledged", agent.pause)
            assert agent.terminate() == 0


def test_a_websocket_to_the_relay_itself(tmp_path: Path, table: Table) -> None:
    table.execute(with_token("home-1", digest_of(TOKEN), "main"))
    with RelayProcess(tmp_path, table, "", "--websocket", "127.0.0.1:0") as relay:
        port = relay.wait("listening-for-devices")["websocket"].rpartition(":")[2]
        connection = {"url": f'"ws://127.0.0.1:{port}"', "token": f'"{TOKEN}"'}
        with AgentProcess(tmp_path, connection).start() as agent:
            works(agent, table)
            relay.kill()
            agent.wait("no-connection")
            assert agent.status()["state"] in ("waiting", "connecting")
            agent.configure({**connection, "token": '"wrong"'})
            with RelayProcess(tmp_path, table, "", "--websocket", f"127.0.0.1:{port}", name="again"):
                agent.wait("connected", 2)
                agent.signal(signal.SIGHUP)
                agent.wait("reloaded")
                told = until(lambda: refusals(agent), "it is refused", agent.pause)[0]
                assert "401" in told["reason"] and "token" in told["hint"]
                agent.configure(connection)
                agent.signal(signal.SIGHUP)
                agent.wait("connected", 3)
                works(agent, table)
                assert agent.terminate() == 0


def refusals(agent: AgentProcess, kind: str = "refused") -> list[dict[str, Any]]:
    return [event for event in agent.events("no-connection") if event["about"] == kind]


def test_a_websocket_to_the_relay_with_a_certificate(tmp_path: Path, table: Table, pem: Path) -> None:
    options = ["--websocket-cert", f"{pem}/server.pem", "--websocket-key", f"{pem}/server.key"]
    options += ["--websocket-client-ca", f"{pem}/ca.pem"]
    with RelayProcess(tmp_path, table, "", "--websocket", "127.0.0.1:0", *options) as relay:
        port = relay.wait("listening-for-devices")["websocket"].rpartition(":")[2]
        with AgentProcess(tmp_path, {"url": f'"wss://127.0.0.1:{port}"', **own(pem)}).start() as agent:
            works(agent, table)
            assert agent.terminate() == 0


# What goes wrong.


def expired(pem: Path) -> None:
    """The server's certificate ended long ago."""
    signing = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "names", "-days", "-1"]
    command = ["openssl", "x509", "-req", "-in", "server.csr", *signing, "-out", "server.pem"]
    subprocess.run(command, cwd=pem, check=True, capture_output=True)


def other_name(pem: Path) -> None:
    (pem / "names").write_text("subjectAltName=DNS:elsewhere.example\n")
    signing = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "names", "-days", "2"]
    command = ["openssl", "x509", "-req", "-in", "server.csr", *signing, "-out", "server.pem"]
    subprocess.run(command, cwd=pem, check=True, capture_output=True)


def other_authority(pem: Path) -> None:
    command = ["openssl", "req", "-newkey", "rsa:2048", "-nodes", "-x509", "-days", "2", "-keyout", "x.key"]
    subprocess.run([*command, "-out", "other.pem", "-subj", "/CN=other"], cwd=pem, check=True, capture_output=True)
    (pem / "ours.pem").write_text((pem / "other.pem").read_text())


CASES = {
    "expired": (expired, {}, "certificate", "has expired by this device's clock"),
    "another name": (other_name, {}, "certificate", "another host's"),
    "another authority": (other_authority, {"ca": "other.pem"}, "certificate", "not issued by an authority"),
    "no certificate": (None, {"certificate": "", "key": ""}, "certificate", "its certificate is missing"),
}


@pytest.mark.parametrize("case", CASES)
def test_tls_that_does_not_come_about_is_told_once_and_the_device_goes_on(
    tmp_path: Path, broker: Mosquitto, pem: Path, case: str
) -> None:
    spoil, replaced, kind, text = CASES[case]
    if spoil is not None:
        spoil(pem)
    folder = tmp_path / "strict"
    folder.mkdir()
    connection = own(pem)
    for name, file in replaced.items():
        connection[name] = f'"{pem / file}"' if file else '""'
    with mosquitto(folder, *secured(tmp_path, pem, "require_certificate true")) as strict:
        connection["url"] = f'"mqtts://127.0.0.1:{strict.port}"'
        with AgentProcess(tmp_path, connection).start() as agent:
            told = agent.wait("no-connection")
            # A server that ends the connection at once may be gone before its alert is read.
            unheard = case == "no certificate" and "without an answer" in told["reason"]
            assert unheard or (told["about"] == kind and text in told["reason"]), told
            assert told["hint"]
            goes_on(agent)
            assert agent.terminate() == 0
            assert not agent.odd


def goes_on(agent: AgentProcess) -> None:
    """The device works without a connection; after more attempts nothing more was said."""
    with agent.client() as client:
        for i in range(5):
            client.ask("upsert", model="Setting", item={"name": "a", "rev": i})
            assert client.ask("get", model="Setting", item={"name": "a"})["item"]["rev"] == i
        status = client.ask("status")["status"]
        assert status["pending"] and status["problem"]
    assert len(agent.events("no-connection")) == 1


def test_a_broker_that_refuses_the_device_and_one_that_refuses_its_topics(
    tmp_path: Path, table: Table, broker: Mosquitto
) -> None:
    passwords = tmp_path / "passwords"
    command = ["mosquitto_passwd", "-b", "-c", str(passwords), "home-1", "right"]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "PATH": "/usr/bin:/usr/sbin"})
    (tmp_path / "acl").write_text(mosquitto_acl({"home-2": "main"}, "relay", "ioto"))
    lines = ["allow_anonymous false", f"password_file {passwords}", f"acl_file {tmp_path}/acl", "user root"]
    folder = tmp_path / "strict"
    folder.mkdir()
    with mosquitto(folder, *lines) as strict:
        connection = {"url": f'"{strict.url}"', "password": '"wrong"'}
        with AgentProcess(tmp_path, connection).start() as agent:
            told = agent.wait("no-connection")
            assert told["about"] == "refused" and "Not authorized" in told["reason"], told
            goes_on(agent)
            agent.configure({**connection, "password": '"right"'})
            agent.signal(signal.SIGHUP)
            agent.wait("connected")
            told = until(lambda: denied(agent), "its topic is refused", agent.pause)[0]
            assert "may not publish to ioto/service/home-1/sync" in told["reason"]
            assert agent.status()["pending"]
            assert agent.terminate() == 0


def denied(agent: AgentProcess) -> list[dict[str, Any]]:
    return [event for event in agent.events("no-connection") if "may not publish" in event["reason"]]


def test_a_server_that_is_away_or_says_nothing_or_something_else(tmp_path: Path, broker: Mosquitto) -> None:
    with AgentProcess(tmp_path, {"url": f'"mqtt://127.0.0.1:{free_port()}"'}).start() as agent:
        told = agent.wait("no-connection")
        assert told["about"] == "unreachable" and "connection refused" in told["reason"]
        goes_on(agent)
        agent.configure({"url": '"mqtt://nowhere.invalid"'})
        agent.signal(signal.SIGHUP)
        until(lambda: refusals(agent, "name"), "the name is not known", agent.pause)
        with socket.create_server(("127.0.0.1", 0)) as other:
            agent.configure({"url": f'"mqtts://127.0.0.1:{broker.port}"'})
            agent.signal(signal.SIGHUP)
            seen = len(agent.events("no-connection"))
            until(lambda: len(agent.events("no-connection")) > seen, "no TLS", agent.pause)
            agent.configure({"url": f'"mqtt://127.0.0.1:{other.getsockname()[1]}"'})
            agent.signal(signal.SIGHUP)
            taken, _ = other.accept()
            taken.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            taken.close()
            agent.configure({"url": f'"{broker.url}"'})
            agent.signal(signal.SIGHUP)
            agent.wait("connected")
            assert agent.terminate() == 0
            assert not agent.events("transport-error")


def test_a_configuration_that_is_wrong_at_a_reload_changes_nothing(tmp_path: Path, broker: Mosquitto) -> None:
    with AgentProcess(tmp_path, {"url": f'"{broker.url}"'}).start() as agent:
        agent.wait("connected")
        agent.configure({"url": '"http://x.example"', "keep_alive": '"often"'})
        agent.signal(signal.SIGHUP)
        agent.wait("config-refused", 2)
        until(lambda: agent.status()["state"] in ("joining", "idle", "sending"), "it is connected", agent.pause)
        assert len(agent.events("connected")) == 1 and not agent.events("reloaded")
        agent.configure({"url": f'"{broker.url}"'})
        agent.signal(signal.SIGHUP)
        agent.wait("connected", 2)
        assert agent.terminate() == 0


def test_another_agent_of_the_same_name_takes_turns_with_back_off(tmp_path: Path, broker: Mosquitto) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
    connection = {"url": f'"{broker.url}"'}
    with AgentProcess(first, connection).start() as one:
        one.wait("connected")
        with AgentProcess(second, connection).start() as two:
            two.wait("connected")
            told = one.wait("no-connection")
            assert told["about"] in ("lost", "replaced")  # mosquitto says nothing, MQTT 5 or not
