"""The agent's configuration: what may stand in it, every mistake with its line and a hint. Called by pytest only."""

from __future__ import annotations

from pathlib import Path

import pytest
from relay_rig import FILE

from agent.protocol.errors import InputError
from agent.runtime.settings import KEYS, duration_ms, load, size_bytes
from agent.transport.address import Address, address_of

LEAST = '[device]\nid = "home-1"\n[connection]\nurl = "mqtt://broker.example"\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "schema.json5").write_text(FILE.read_text())
    return tmp_path


def written(folder: Path, text: str, mode: int = 0o600) -> Path:
    path = folder / "agent.toml"
    path.write_text(text)
    path.chmod(mode)
    return path


def problems(folder: Path, text: str, mode: int = 0o600) -> list[str]:
    path = written(folder, text, mode)
    with pytest.raises(InputError) as caught:
        load(path)
    return [str(problem).replace(f"{folder}/", "") for problem in caught.value.problems]


def test_defaults_and_places(folder: Path) -> None:
    settings = load(written(folder, LEAST))
    assert settings.device == "home-1" and settings.account == ""
    assert settings.database == str(folder / "agent.db")
    assert settings.socket == str(folder / "agent.db-api/socket")
    assert settings.address == Address("mqtt", "broker.example", 1883, "", False, False)
    assert settings.keep_alive_ms == 60_000 and settings.mqtt == "5"
    assert settings.numbers.hello_period_ms == 900_000
    assert not settings.gate.on_demand


def test_everything_may_be_said(folder: Path) -> None:
    for name in ("ca.pem", "own.pem", "own.key"):
        (folder / name).touch(0o600)
    text = """
[device]
id = "home-1"
account = "main"
[database]
file = "data/home.db"
schema = "schema.json5"
[connection]
url = "mqtts://broker.example:443"
ca = "ca.pem"
certificate = "own.pem"
key = "own.key"
username = "name"
password = "secret"
mqtt = "3.1.1"
alpn = "none"
topic_prefix = "fleet"
keep_alive = "5m"
presence = true
mode = "on-demand"
poll = "1h30m"
linger = "4s"
bytes_per_day = "20mb"
messages_per_day = 500
[session]
compact = true
hello_period = "1h"
boot_jitter = "1s"
connect_base = "500ms"
connect_cap = "1m"
resend_base = "3s"
[commands]
allow_reboot = true
reboot_spacing = "1h"
[api]
socket = "none"
[log]
level = "warning"
format = "json"
"""
    settings = load(written(folder, text))
    assert settings.gate.poll_ms == 5_400_000 and settings.gate.bytes_per_day == 20 * 1024**2
    assert settings.numbers.compact and settings.numbers.stable_ms == 2_000
    assert settings.socket == "" and settings.log_level == "warning"
    assert settings.database == str(folder / "data/home.db")
    named = {line.split(" = ")[0] for line in text.splitlines() if " = " in line}
    assert named == {key.name for key in KEYS} - {"token"}


def test_every_mistake_at_once_with_its_line(folder: Path) -> None:
    text = """[device]
id = "home/1"
acount = "main"
[conection]
[connection]
url = "http://broker.example"
keep_alive = "60"
mqtt = "4"
bytes_per_day = 5
messages_per_day = -1
mode = true
[session]
compact = "yes"
hello_period = "1ms"
"""
    found = problems(folder, text)
    assert [line.split(": ")[0] for line in found] == [
        f"agent.toml:{line}"
        for line in ("2:1", "3:1", "4:2", "6:1", "7:1", "8:1", "9:1", "10:1", "11:1", "13:1", "14:1")
    ]
    text = "\n".join(found)
    assert "device.acount: unknown key (did you mean 'account'?)" in text
    assert "conection: unknown section (did you mean 'connection'?)" in text
    assert "connection.keep_alive: expected a duration such as 10s, 5m, 1h30m or 250ms, found '60'" in text
    assert "connection.mqtt: expected one of 5, 3.1.1, found '4'" in text
    assert "session.hello_period: impossible duration '1ms': at least 1000 ms" in text


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", "device.id: is missing"),
        ('[device]\nid = "a"\n', "connection.url: is missing"),
        ("[device\n", "agent.toml:1:8: no TOML"),
        ('device = "home-1"\n' + LEAST.partition("[connection]")[2], "no TOML|device: expected a section"),
        (
            LEAST.replace("mqtt:", "mqtts:") + 'certificate = "a.pem"\n',
            "connection.key: is missing: certificate and key",
        ),
        (LEAST + 'ca = "a.pem"\n', "a.pem: no such file"),
        (LEAST + 'token = "x"\n', "connection.token: is for the relay itself"),
        (LEAST.replace("mqtt:", "wss:"), "connection.token: is missing: the relay must know who this is"),
        (LEAST.replace("mqtt:", "wss:") + 'token = "x"\nusername = "a"\n', "connection.username: is for a broker"),
        (LEAST.replace("//", "//me:secret@"), "user and password have keys of their own"),
        (LEAST.replace(".example", ".example:99999"), "the port is no number"),
        (LEAST.replace(".example", ".example/x"), "nothing may stand behind host and port"),
        ('[database]\nschema = "nowhere.json5"\n' + LEAST, "database.schema: .*nowhere.json5: no such file"),
    ],
)
def test_a_mistake_is_told(folder: Path, text: str, wanted: str) -> None:
    import re

    found = "\n".join(problems(folder, text))
    assert re.search(wanted, found), found


def test_files_with_secrets_that_others_may_read_are_refused_with_what_to_do(folder: Path) -> None:
    for name, mode in (("own.pem", 0o644), ("own.key", 0o640)):
        (folder / name).touch(mode)
        (folder / name).chmod(mode)
    text = LEAST.replace("mqtt:", "mqtts:") + 'certificate = "own.pem"\nkey = "own.key"\n'
    found = problems(folder, text, 0o604)
    assert len(found) == 3
    assert "mode 0604" in found[0] and "(chmod 600 agent.toml)" in found[0]
    assert "(chmod 600 own.pem)" in "".join(found) and "(chmod 600 own.key)" in "".join(found)
    (folder / "own.key").unlink()
    assert "own.key: no such file or directory" in "".join(problems(folder, text, 0o600))
    assert load(written(folder, text, 0o644), private=False).device == "home-1"


def test_no_file_says_what_makes_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="fleet-agent provision"):
        load(tmp_path / "agent.toml")


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("mqtts://a.example", Address("mqtts", "a.example", 8883, "", True, False)),
        ("mqtt+ws://a.example:8080", Address("mqtt+ws", "a.example", 8080, "/mqtt", False, False)),
        ("mqtt+wss://a.example/x", Address("mqtt+wss", "a.example", 443, "/x", True, False)),
        ("wss://a.example", Address("wss", "a.example", 443, "", True, True)),
        ("ws://[::1]:99/relay", Address("ws", "::1", 99, "/relay", False, True)),
    ],
)
def test_addresses(url: str, wanted: Address) -> None:
    assert address_of(url) == wanted


def test_durations_and_sizes() -> None:
    assert [duration_ms(text) for text in ("0s", "250ms", "1h30m", "2d")] == [0, 250, 5_400_000, 172_800_000]
    assert [size_bytes(text) for text in ("0b", "5kb", "1 MB")] == [0, 5_120, 1_048_576]
    for text in ("", "5", "-1s", "1.5s", "1y", "9999999d"):
        with pytest.raises(ValueError, match="duration"):
            duration_ms(text)
    with pytest.raises(ValueError, match="size"):
        size_bytes("5")
