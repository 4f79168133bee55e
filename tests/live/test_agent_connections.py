"""How `fleet-agent run` connects, and what it says when it cannot: adapters, TLS, refusals, servers that are away."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest
from agent_rig import QUICK, AgentProcess
from live_rig import Door, Mosquitto, RelayProcess, Table, free_port, mosquitto, table_name, until
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion
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


_AUTHORITY: Final = """[ca]
default_ca = this
[this]
database = index
certificate = ca.pem
private_key = ca.key
new_certs_dir = .
rand_serial = yes
default_md = sha256
default_crl_days = 2
policy = names
[names]
commonName = supplied
"""


def openssl(pem: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=pem, check=True, capture_output=True)


def by_authority(pem: Path, *arguments: str) -> None:
    """`openssl ca`, which can do more than sign."""
    (pem / "authority").write_text(_AUTHORITY)
    (pem / "index").touch()
    openssl(pem, "ca", "-batch", "-config", "authority", *arguments)


def signed_again(pem: Path, *arguments: str) -> None:
    """The server's certificate is another."""
    signing = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "names", *arguments]
    openssl(pem, "x509", "-req", "-in", "server.csr", *signing, "-out", "server.pem")


def expired(pem: Path) -> None:
    """The server's certificate ended long ago."""
    signed_again(pem, "-days", "-1")


def not_yet(pem: Path) -> None:
    """It is valid from 2090 on: as any certificate is to a device whose clock says 1970."""
    dates = ("-startdate", "20900101000000Z", "-enddate", "20910101000000Z")
    by_authority(pem, "-in", "server.csr", "-out", "server.pem", "-notext", "-extfile", "names", *dates)


def other_name(pem: Path) -> None:
    (pem / "names").write_text("subjectAltName=DNS:elsewhere.example\n")
    signed_again(pem, "-days", "2")


def other_authority(pem: Path) -> None:
    new = ("req", "-newkey", "rsa:2048", "-nodes", "-x509", "-days", "2", "-keyout", "x.key")
    openssl(pem, *new, "-out", "other.pem", "-subj", "/CN=other")


def revoked(pem: Path) -> None:
    """The device's certificate, by a list that the broker has."""
    by_authority(pem, "-revoke", "home-1.pem")
    by_authority(pem, "-gencrl", "-out", "crl.pem")


class Case(NamedTuple):
    """`spoil` changes the certificates; `own`: what the agent names instead of its own; `lines`: of the broker."""

    spoil: Callable[[Path], object]
    text: str
    own: tuple[tuple[str, str], ...] = ()
    lines: tuple[str, ...] = ()


# The device's certificate is judged at the end: a server may be gone before the agent has read what it held against it.
BY_THE_SERVER: Final = "without an answer"
CASES: Final = {
    "expired": Case(expired, "has expired by this device's clock"),
    "not yet valid": Case(not_yet, "is not valid yet by this device's clock"),
    "another name": Case(other_name, "another host's"),
    "another authority": Case(other_authority, "not issued by an authority", (("ca", "other.pem"),)),
    "no certificate": Case(lambda pem: None, "its certificate is missing", (("certificate", ""), ("key", ""))),
    "revoked": Case(revoked, "its certificate was revoked", (), ("crlfile {pem}/crl.pem",)),
}
ATTEMPTS: Final = 7
PACED: Final = {**QUICK, "connect_base": '"100ms"', "connect_cap": '"1m"'}
# With full jitter below 100 ms that double, so many attempts take 3 s on average, and less than this once in 30,000.
ATTEMPTS_S_MIN: Final = 0.3


@pytest.mark.parametrize("name", CASES)
def test_tls_that_does_not_come_about_is_told_once_tried_again_with_back_off_and_the_device_goes_on(
    tmp_path: Path, broker: Mosquitto, pem: Path, name: str
) -> None:
    case = CASES[name]
    case.spoil(pem)
    folder = tmp_path / "strict"
    folder.mkdir()
    connection = own(pem) | {key: f'"{pem / file}"' if file else '""' for key, file in case.own}
    lines = ("require_certificate true", *(line.format(pem=pem) for line in case.lines))
    with mosquitto(folder, *secured(tmp_path, pem, *lines)) as strict:
        door = Door(f"mqtts://127.0.0.1:{strict.port}")
        door.open()
        connection["url"] = f'"mqtts://127.0.0.1:{door.port}"'
        with AgentProcess(tmp_path, connection, session=PACED).start() as agent:
            told = agent.wait("no-connection")
            by_the_server = name in ("no certificate", "revoked")
            unheard = by_the_server and BY_THE_SERVER in told["reason"]
            assert unheard or (told["about"] == "certificate" and case.text in told["reason"]), told
            assert told["hint"]
            until(lambda: len(door.taken) >= ATTEMPTS, "it is tried again", agent.pause)
            assert door.taken[ATTEMPTS - 1] - door.taken[0] > ATTEMPTS_S_MIN, "a storm"
            goes_on(agent, told_max=1 + by_the_server)  # heard the one time, and not the other
            assert agent.terminate() == 0
            assert not agent.odd
        door.shut()


def goes_on(agent: AgentProcess, told_max: int = 1) -> None:
    """The device works without a connection; after more attempts nothing more was said."""
    with agent.client() as client:
        for i in range(5):
            client.ask("upsert", model="Setting", item={"name": "a", "rev": i})
            assert client.ask("get", model="Setting", item={"name": "a"})["item"]["rev"] == i
        status = client.ask("status")["status"]
        assert status["pending"] and status["problem"]
    assert 1 <= len(agent.events("no-connection")) <= told_max


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


def test_who_asks_for_it_hears_when_a_device_comes_goes_and_dies(
    tmp_path: Path, table: Table, broker: Mosquitto
) -> None:
    """`table` and `broker` are asked for so that a missing part is told in the same way as elsewhere."""
    passwords = tmp_path / "passwords"
    for name, create in (("home-1", ["-c"]), ("monitor", [])):
        command = ["mosquitto_passwd", "-b", *create, str(passwords), name, "right"]
        subprocess.run(command, check=True, capture_output=True, env={**os.environ, "PATH": "/usr/bin:/usr/sbin"})
    acl = mosquitto_acl({"home-1": "main"}, "relay", "ioto") + "\nuser monitor\ntopic read ioto/presence/+\n"
    (tmp_path / "acl").write_text(acl)
    lines = ["allow_anonymous false", f"password_file {passwords}", f"acl_file {tmp_path}/acl", "user root"]
    folder = tmp_path / "strict"
    folder.mkdir()
    with mosquitto(folder, *lines) as strict, presence_at(strict.port) as heard:
        connection = {"url": f'"{strict.url}"', "password": '"right"', "presence": "true"}
        with AgentProcess(tmp_path, connection).start() as agent:
            agent.wait("connected")
            until(lambda: heard == [("ioto/presence/home-1", b"online")], "it is there", agent.pause)
            agent.signal(signal.SIGKILL)
            gone = [("ioto/presence/home-1", b"offline")]
            until(lambda: heard[1:] == gone, "the broker says that it is gone", agent.pause)
        with presence_at(strict.port) as later:
            until(lambda: later == gone, "who asks later is told too", agent.pause)
        with AgentProcess(tmp_path, connection).start() as agent:
            agent.wait("connected")
            assert agent.terminate() == 0
        both = [b"online", b"offline"]
        until(lambda: [state for _, state in heard[2:]] == both, "it says goodbye itself", agent.pause)


@contextmanager
def presence_at(port: int) -> Iterator[list[tuple[str, bytes]]]:
    """What a monitor hears."""
    heard: list[tuple[str, bytes]] = []
    client = paho.Client(CallbackAPIVersion.VERSION2)
    client.username_pw_set("monitor", "right")
    client.on_message = lambda _client, _data, message: heard.append((message.topic, bytes(message.payload)))
    client.connect("127.0.0.1", port)
    client.subscribe("ioto/presence/+", 1)
    client.loop_start()
    try:
        yield heard
    finally:
        client.disconnect()
        client.loop_stop()


def denied(agent: AgentProcess) -> list[dict[str, Any]]:
    return [event for event in agent.events("no-connection") if "may not publish" in event["reason"]]


def test_a_device_that_is_revoked_at_the_relay_is_cut_off_tries_on_with_back_off_and_may_come_back(
    tmp_path: Path, table: Table
) -> None:
    table.execute(with_token("home-1", digest_of(TOKEN), "main"))
    options = ("--websocket", "127.0.0.1:0")
    with RelayProcess(tmp_path, table, "", *options, more="listener: {recheck_ms: 300, refusal_ms: 20}") as relay:
        door = Door(relay.wait("listening-for-devices")["websocket"])
        door.open()
        connection = {"url": f'"ws://127.0.0.1:{door.port}"', "token": f'"{TOKEN}"'}
        with AgentProcess(tmp_path, connection, session=PACED).start() as agent:
            works(agent, table)
            seen = len(door.taken)
            table.execute(with_token("home-1", digest_of("another"), "main"))
            told = until(lambda: refusals(agent), "it is refused", agent.pause)[0]
            assert "home-1" in told["reason"] and told["hint"], told
            until(lambda: len(door.taken) >= seen + ATTEMPTS, "it is tried again", agent.pause)
            assert door.taken[seen + ATTEMPTS - 1] - door.taken[seen] > ATTEMPTS_S_MIN, "a storm"
            goes_on(agent)
            table.execute(with_token("home-1", digest_of(TOKEN), "main"))
            agent.signal(signal.SIGHUP)  # else it comes back with its next attempt
            agent.wait("connected", 2)
            works(agent, table)
            assert agent.terminate() == 0 and not agent.odd
        door.shut()


def test_a_server_that_is_away_or_says_nothing_or_something_else(tmp_path: Path, broker: Mosquitto) -> None:
    with AgentProcess(tmp_path, {"url": f'"mqtt://127.0.0.1:{free_port()}"'}).start() as agent:
        told = agent.wait("no-connection")
        assert told["about"] == "unreachable" and "connection refused" in told["reason"]
        goes_on(agent)
        agent.configure({"url": '"mqtt://nowhere.invalid"'})
        agent.signal(signal.SIGHUP)
        told = until(lambda: refusals(agent, "name"), "the name is not known", agent.pause)[0]
        assert "nowhere.invalid" in told["reason"] and "DNS" in told["hint"]
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
