"""`fleet-cloud relay` with bad input: what a person reads, and exit code 2, never a traceback. In this process."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest
from emulators import KEY_ID, REGION, SECRET, client
from relay_rig import FILE
from websocket_rig import certificates

from agent.protocol.log import Log
from cloud.cli import main
from cloud.commands.relay import PASSWORD, _hidden, broker_settings
from cloud.commands.relay_listener import address_of, listener_of
from cloud.dynamodb_table import create_table, definition
from cloud.service_settings import settings_of

OPTIONS = ["--schema", str(FILE), "--broker", "mqtt://127.0.0.1:1", "--listen", ""]


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY_ID)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_REGION", REGION)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_PROFILE", "AWS_DEFAULT_REGION", "AWS_CONFIG_FILE"):
        monkeypatch.delenv(name, raising=False)


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What is printed; it must exit with 2."""
    assert main(["relay", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and "Traceback" not in captured.err
    return captured.err


def test_nothing_given(capsys: pytest.CaptureFixture[str]) -> None:
    text = told(capsys)
    assert all(f"{name}: is missing (give --{name}" in text for name in ("table", "schema", "broker"))
    assert "or --websocket to listen for devices itself" in text


def test_a_schema_that_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "bad.json5"
    path.write_text("{format: 'onetable:1.1.0', modles: {}}")
    text = told(capsys, "--table", "ioto", "--schema", str(path), "--broker", "mqtt://127.0.0.1")
    assert text.startswith(f"{path}:1:")


def test_no_credentials_and_no_region(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_REGION")
    assert "Set AWS_REGION, or give --region" in told(capsys, "--table", "ioto", *OPTIONS)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    monkeypatch.setenv("HOME", "/nowhere")
    address = ["--endpoint-url", "http://127.0.0.1:1", "--region", REGION]
    assert "Set AWS_ACCESS_KEY_ID" in told(capsys, "--table", "ioto", *address, *OPTIONS)


def test_tables_that_are_not_fit_are_refused_with_what_to_do(moto: str, capsys: pytest.CaptureFixture[str]) -> None:
    service = client(moto)
    at = ["--endpoint-url", moto]
    assert "`fleet-cloud provision` makes a table" in told(capsys, "--table", "command-missing", *at, *OPTIONS)

    def make(name: str, **other: Any) -> None:
        service.create_table(**{**definition(name), **other})

    make("command-plain")
    assert "it has no marker item" in told(capsys, "--table", "command-plain", *at, *OPTIONS)
    make("command-still", StreamSpecification={"StreamEnabled": False})
    assert "Switch its stream on" in told(capsys, "--table", "command-still", *at, *OPTIONS)
    keys = [{"AttributeName": "id", "KeyType": "HASH"}]
    make("command-keys", KeySchema=keys, AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}])
    assert "The keys of" in told(capsys, "--table", "command-keys", *at, *OPTIONS)


def test_a_time_to_live_elsewhere_is_told(moto: str, capsys: pytest.CaptureFixture[str]) -> None:
    create_table(client(moto), "command-expires", "expires")
    at = ["--table", "command-expires", "--endpoint-url", moto, *OPTIONS]
    assert "has its time to live in 'expires'" in told(capsys, *at)
    create_table(client(moto), "command-no-ttl", None)
    assert "is DISABLED" in told(capsys, "--table", "command-no-ttl", *at[2:])


def test_a_port_that_is_taken_and_one_that_is_none(moto: str, capsys: pytest.CaptureFixture[str]) -> None:
    create_table(client(moto), "command-port")
    at = ["--table", "command-port", "--endpoint-url", moto, *OPTIONS[:-2]]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        text = told(capsys, *at, "--listen", f"127.0.0.1:{taken.getsockname()[1]}")
    assert "address already in use. Give another port" in text
    assert "expected HOST:PORT" in told(capsys, *at, "--listen", "everywhere")


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (["--broker", "localhost"], "expected mqtt://<host>"),
        (["--broker", "http://localhost"], "expected mqtt://<host>"),
        (["--broker", "mqtt://localhost:seven"], "the port is no number"),
        (["--broker", "mqtt://localhost", "--ca", "x.pem"], "need a broker at mqtts"),
        (["--broker", "mqtts://localhost", "--cert", "x.pem"], "go together"),
        (["--broker", "mqtts://localhost", "--ca", "/nowhere.pem"], "no such file"),
        (["--broker", "mqtts://localhost", "--ca", str(FILE)], "must be PEM files"),
        (["--broker", "mqtt://localhost", "--mqtt", "4"], "one of 5, 3.1.1"),
        (["--broker", "mqtt://localhost", "--group", "a/b"], "'a/b' is no name"),
    ],
)
def test_a_broker_that_cannot_be_one(options: list[str], part: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert part in told(capsys, "--table", "ioto", "--schema", str(FILE), *options)


@pytest.fixture(scope="module")
def pems(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pems")
    certificates(folder, "server", "other")
    locked = ("-aes256", "-in", "server.key", "-out", "locked.key", "-passout", "pass:secret")
    subprocess.run(["openssl", "rsa", *locked], cwd=folder, check=True, capture_output=True)
    (folder / "none.pem").write_text("nothing\n")
    return folder


@pytest.mark.parametrize(
    ("address", "options", "part"),
    [
        ("everywhere", "", "expected [HOST:]PORT"),
        (":8765", "", "expected [HOST:]PORT"),
        ("127.0.0.1:70000", "", "expected [HOST:]PORT"),
        ("::1:8765", "", "expected [HOST:]PORT"),
        ("127.0.0.1:-1", "", "expected [HOST:]PORT"),
        ("", "--broker mqtt://localhost --websocket-cert {0}/server.pem", "--websocket-cert needs --websocket"),
        ("0", "--websocket-cert {0}/server.pem", "go together"),
        ("0", "--websocket-client-ca {0}/ca.pem", "needs --websocket-cert"),
        ("0", "--websocket-cert {0}/absent.pem --websocket-key {0}/server.key", "absent.pem: no such file"),
        ("0", "--websocket-cert {0} --websocket-key {0}/server.key", "is a directory"),
        ("0", "--websocket-cert {0}/server.pem --websocket-key {0}/other.key", "the certificate's own"),
        ("0", "--websocket-cert {0}/server.pem --websocket-key {0}/locked.key", "without a password"),
        ("0", "--websocket-cert {0}/none.pem --websocket-key {0}/server.key", "must be PEM files"),
        ("0", "--websocket-cert {0}/server.pem --websocket-key {0}/server.key --websocket-client-ca {0}/none.pem",
         "must be a PEM file"),
    ],
)  # fmt: skip
def test_a_listener_that_cannot_be_one(
    address: str, options: str, part: str, pems: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["--websocket", address] if address else []
    words = [word.format(pems) for word in options.split()]
    assert part in told(capsys, "--table", "ioto", "--schema", str(FILE), *more, *words)


def test_an_address_for_devices_that_is_taken_or_nobodys(moto: str, capsys: pytest.CaptureFixture[str]) -> None:
    create_table(client(moto), "command-devices")
    at = ["--table", "command-devices", "--endpoint-url", moto, "--schema", str(FILE), "--listen", ""]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        text = told(capsys, *at, "--websocket", f"127.0.0.1:{taken.getsockname()[1]}")
    assert "address already in use. Give another port" in text
    assert "Give an address of this machine" in told(capsys, *at, "--websocket", "nowhere.invalid:8765")
    assert "cannot assign requested address" in told(capsys, *at, "--websocket", "192.0.2.1:8765")


def test_what_a_listener_binds_and_warns_of(monkeypatch: pytest.MonkeyPatch) -> None:
    assert address_of("8765") == ("127.0.0.1", 8765) and address_of("[::1]:0") == ("::1", 0)
    lines: list[str] = []
    log = Log(lines.append, wall_ms=lambda: 0, monotonic_ms=lambda: 0)
    given = {"table": "ioto", "schema": "s"}
    with listener_of(settings_of({**given, "websocket": "0"}, None), None, log).bound as bound:
        assert bound.getsockname()[0] == "127.0.0.1" and not lines
    with listener_of(settings_of({**given, "websocket": "0.0.0.0:0"}, None), None, log).bound:
        assert "tokens travel in clear" in lines[0]
    monkeypatch.setattr("resource.getrlimit", lambda kind: (1_024, 1_024))
    made = listener_of(settings_of({**given, "websocket": "0"}, None), None, log)
    with made.bound:
        assert made.config.connections == 1_024 - 256 - made.config.handshakes and "ulimit -n" in lines[1]


def test_a_password_is_taken_from_the_environment_and_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    scheme = "mqtt://"
    given = {"table": "ioto", "schema": "s", "broker": f"{scheme}anna@localhost:1884"}
    monkeypatch.setenv(PASSWORD, "secret")
    found = broker_settings(settings_of(given, None), "one", "boot")
    assert (found.username, found.password, found.port, found.tls) == ("anna", "secret", 1884, None)
    for broker, path, port in (("mqtt+ws://broker.example", "/mqtt", 80), ("mqtt+ws://broker.example:9/a", "/a", 9)):
        found = broker_settings(settings_of({**given, "broker": broker}, None), "one", "boot")
        assert (found.host, found.port, found.path, found.tls) == ("broker.example", port, path, None)
    found = broker_settings(settings_of({**given, "broker": f"{scheme}a%40b:p%3Aw@localhost"}, None), "one", "boot")
    assert (found.username, found.password, found.port) == ("a@b", "p:w", 1883)
    assert _hidden(f"{scheme}anna:secret@localhost") == f"{scheme}anna@localhost"
