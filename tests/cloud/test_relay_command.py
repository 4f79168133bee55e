"""`fleet-cloud relay` with bad input: what a person reads, and exit code 2, never a traceback. In this process."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
from emulators import KEY_ID, REGION, SECRET, client
from relay_rig import FILE

from cloud.cli import main
from cloud.commands.relay import PASSWORD, _hidden, broker_settings
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


def test_a_password_is_taken_from_the_environment_and_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    scheme = "mqtt://"
    given = {"table": "ioto", "schema": "s", "broker": f"{scheme}anna@localhost:1884"}
    monkeypatch.setenv(PASSWORD, "secret")
    found = broker_settings(settings_of(given, None), "one", "boot")
    assert (found.username, found.password, found.port, found.tls) == ("anna", "secret", 1884, None)
    found = broker_settings(settings_of({**given, "broker": f"{scheme}a%40b:p%3Aw@localhost"}, None), "one", "boot")
    assert (found.username, found.password, found.port) == ("a@b", "p:w", 1883)
    assert _hidden(f"{scheme}anna:secret@localhost") == f"{scheme}anna@localhost"
