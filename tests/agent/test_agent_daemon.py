"""`fleet-agent run`, `provision` and `install-service` as a person or systemd calls them; no broker. Pytest only."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest
from agent_rig import AgentProcess
from live_rig import LIMIT_S, ROOT, free_port, until
from relay_rig import FILE

from agent.commands.provision import toml_value
from agent.commands.service_unit import unit_of
from agent.runtime.settings import load

NOWHERE: Final = {"url": '"mqtt://127.0.0.1:9"'}
RSS_KB_MAX: Final = 40 * 1024


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FLEET_")}
    return subprocess.run(
        [sys.executable, "-m", "agent.cli", *words], cwd=folder, capture_output=True, text=True, timeout=LIMIT_S,
        env={**environment, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copy(FILE, tmp_path / "schema.json5")
    return tmp_path


def test_systemd_is_told_and_the_memory_is_little(tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path)
        manager.settimeout(LIMIT_S)
        environment = {"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "200000"}
        with AgentProcess(tmp_path, {"url": f'"mqtt://127.0.0.1:{free_port()}"'}).start(environment) as agent:
            told = [manager.recv(1_000).decode() for _ in range(5)]
            assert told.count("WATCHDOG=1") >= 3
            assert any(text.startswith("READY=1\nSTATUS=serving ") for text in told)
            agent.wait("no-connection")
            assert agent.process is not None
            status = Path(f"/proc/{agent.process.pid}/status").read_text()
            (most,) = [int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")]
            assert most < RSS_KB_MAX
            agent.signal(signal.SIGHUP)
            while not (text := manager.recv(1_000).decode()).startswith("RELOADING=1"):
                pass
            assert "MONOTONIC_USEC=" in text
            assert agent.terminate() == 0
            while manager.recv(1_000) != b"STOPPING=1":
                pass


def test_one_agent_a_database(tmp_path: Path) -> None:
    with AgentProcess(tmp_path, NOWHERE).start() as agent:
        agent.wait("started")
        done = run(tmp_path, "run", "--config", str(agent.config))
        assert done.returncode == 2 and done.stderr.startswith("fleet-agent: ") and "in use by process" in done.stderr
        assert agent.status()["device"] == "home-1"
        assert agent.terminate() == 0
        assert not os.path.exists(agent.socket)


def test_a_kill_leaves_no_hindrance(tmp_path: Path) -> None:
    with AgentProcess(tmp_path, NOWHERE).start() as agent:
        agent.wait("started")
        agent.kill()
        assert os.path.exists(agent.socket)
        agent.start().wait("started", 2)
        assert agent.status()["pending"] == 1
        agent.signal(signal.SIGINT)
        assert agent.ended() == 0


def test_without_a_socket_nobody_is_served(tmp_path: Path) -> None:
    with AgentProcess(tmp_path, NOWHERE, more='[api]\nsocket = "none"').start() as agent:
        agent.wait("no-connection")
        assert not os.path.exists(agent.socket)
        assert agent.terminate() == 0


@pytest.mark.parametrize(
    ("spoil", "wanted"),
    [
        (lambda agent: agent.config.chmod(0o640), "chmod 600"),
        (lambda agent: agent.config.unlink(), "no such file or directory (`fleet-agent provision` writes one)"),
        (lambda agent: agent.config.write_text("[device]\nid = 5\n"), "agent.toml:2:1: device.id: expected a text"),
        (lambda agent: (agent.folder / "schema.json5").write_text("{"), "schema.json5:1"),
        (lambda agent: (agent.folder / "schema.json5").unlink(), "schema.json5: no such file"),
        (lambda agent: agent.config.write_text("[conection]\n"), "unknown section (did you mean 'connection'?)"),
        (lambda agent: (agent.folder / "agent.db").write_bytes(b"not a database" * 500), "not a database"),
        (lambda agent: (agent.folder / "agent.db-api").mkdir(mode=0o755), "others may enter it"),
        (lambda agent: (agent.folder / "agent.db").mkdir(), "a folder"),
    ],
)
def test_what_it_cannot_run_with_is_told_and_ends_it_with_2(tmp_path: Path, spoil: object, wanted: str) -> None:
    agent = AgentProcess(tmp_path, NOWHERE)
    assert callable(spoil)
    spoil(agent)
    with agent.start():
        assert agent.ended() == 2
        text = "".join(agent.odd)
        assert wanted in text and "Traceback" not in text, text


def test_certificates_that_are_none_are_told(tmp_path: Path) -> None:
    (tmp_path / "none.pem").touch(0o600)
    (tmp_path / "none.pem").write_text("nothing")
    connection = {"url": '"mqtts://127.0.0.1:9"', "ca": f'"{tmp_path}/none.pem"'}
    with AgentProcess(tmp_path, connection).start() as agent:
        assert agent.ended() == 2
        assert "certificates: " in "".join(agent.odd) and "PEM files" in "".join(agent.odd)


# provision


def registration(folder: Path, **more: str) -> Path:
    path = folder / "home-1.json"
    values = {"device": "home-1", "account": "main", "token": "t0", "url": "ws://127.0.0.1:9", "fleet": 1}
    path.write_text(json.dumps({**values, **more}))
    return path


def test_a_registration_becomes_a_configuration_that_runs(folder: Path) -> None:
    done = run(folder, "provision", str(registration(folder)))
    assert (done.returncode, done.stderr) == (0, ""), done
    path = folder / "agent.toml"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    settings = load(path)
    assert (settings.device, settings.account, settings.token, settings.url) == (
        "home-1", "main", "t0", "ws://127.0.0.1:9",
    )  # fmt: skip
    assert os.listdir(folder).count("agent.toml.part") == 0
    done = run(folder, "provision", str(registration(folder)))
    assert done.returncode == 2 and "exists already" in done.stderr


def test_options_count_and_a_broker_needs_no_token(folder: Path) -> None:
    for name in ("own.pem", "own.key", "ca.pem"):
        (folder / name).touch(0o600)
    words = ["--config", "x.toml", "--url", "mqtts://127.0.0.1:9", "--certificate", "own.pem", "--key", "own.key"]
    done = run(folder, "provision", str(registration(folder, prefix="p", url="")), *words, "--ca", "ca.pem")
    assert done.returncode == 2 and "token" in done.stderr  # it was given, and there is no place for it
    done = run(folder, "provision", str(registration(folder, prefix="p", url="", token="")), *words, "--ca", "ca.pem")
    assert done.returncode == 0, done
    settings = load(folder / "x.toml")
    assert settings.topic_prefix == "p" and settings.key == str(folder / "own.key")


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ([], "--device is missing"),
        (["--device", "home-1"], "--url is missing"),
        (["--device", "a/b", "--url", "mqtt://127.0.0.1:9"], "--device: 'a/b' is no id"),
        (["--device", "a", "--url", "ftp://127.0.0.1"], "--url: 'ftp://127.0.0.1': expected one of"),
        (["--device", "a", "--url", "mqtt://127.0.0.1:9", "--schema", "no.json5"], "no.json5"),
        (["nowhere.json"], "nowhere.json"),
    ],
)
def test_what_cannot_be_provisioned_leaves_nothing_behind(folder: Path, words: list[str], wanted: str) -> None:
    done = run(folder, "provision", *words)
    assert done.returncode == 2 and wanted in done.stderr and "Traceback" not in done.stderr, done
    assert sorted(os.listdir(folder)) == ["schema.json5"]


def test_texts_of_every_kind_come_back_from_toml() -> None:
    import tomllib

    for value in ('a"b\\c', "ü\n\t\x00", "", 5, True, "x" * 300):
        assert tomllib.loads(f"a = {toml_value(value)}")["a"] == value


# install-service


@pytest.fixture
def config(folder: Path) -> Path:
    run(folder, "provision", str(registration(folder)))
    return folder / "agent.toml"


@pytest.mark.parametrize("of_user", [False, True])
def test_systemd_finds_nothing_wrong_with_the_unit(config: Path, tmp_path: Path, of_user: bool, ci: bool) -> None:
    program = Path(sys.executable).with_name("fleet-agent")
    text = unit_of(load(config), program=str(program), user="root", of_user=of_user)
    unit = tmp_path / "fleet-agent.service"
    unit.write_text(text)
    analyze = shutil.which("systemd-analyze")
    assert analyze or not ci, "systemd-analyze is missing"
    if analyze:
        command = [analyze, "verify", *(["--user"] if of_user else []), str(unit)]
        done = subprocess.run(
            command, capture_output=True, text=True, env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
        )
        assert (done.returncode, done.stderr, done.stdout) == (0, "", ""), done
    for line in ("Type=notify", "Restart=always", "WatchdogSec=60", "NoNewPrivileges=yes"):
        assert line in text.splitlines()
    assert ("ProtectSystem=strict" in text) is not of_user
    assert f"ReadWritePaths={config.parent}" in text or of_user


def test_a_path_with_blanks_and_percents_is_one_word(config: Path) -> None:
    odd = config.parent / 'a b%c"d'
    odd.mkdir()
    for name in ("agent.toml", "schema.json5"):
        shutil.copy(config.parent / name, odd / name)
    text = unit_of(load(odd / "agent.toml"), program="/x/fleet-agent", user="root", of_user=False)
    assert f'--config "{config.parent}/a b%%c\\"d/agent.toml"' in text
    assert "ProtectHome=yes" in text


def test_it_is_printed_or_written_and_never_over_another(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(config.parent))
    printed = run(config.parent, "install-service", "--config", "agent.toml", "--print", "--user")
    assert printed.returncode == 0 and printed.stdout.startswith("# Made by")
    words = ("install-service", "--config", "agent.toml", "--user", "--name", "x")
    done = run(config.parent, *words)
    assert done.returncode == 0 and "systemctl --user daemon-reload" in done.stdout, done
    written = config.parent / ".config/systemd/user/x.service"
    assert written.read_text() == printed.stdout
    assert run(config.parent, *words).returncode == 0
    written.write_text("mine")
    done = run(config.parent, *words)
    assert done.returncode == 2 and "exists already" in done.stderr and written.read_text() == "mine"
    assert run(config.parent, *words, "--yes").returncode == 0
    assert run(config.parent, *words[:3], "--name", "a/b").returncode == 2


def test_the_agent_loads_no_library_that_it_does_not_use() -> None:
    heavy = "{'trio', 'paho', 'trio_websocket'}"
    code = f"import sys, agent.cli, agent.commands.items; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    code = code.replace("agent.commands.items", "agent.commands.run")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['trio']"


def test_the_database_goes_on_when_the_disk_is_full(tmp_path: Path) -> None:
    """The kernel's limit on the size of a file stands for a full disk."""
    with AgentProcess(tmp_path, NOWHERE).start() as agent:
        agent.wait("started")
        assert agent.process is not None
        import resource

        with agent.client() as client:
            client.ask("upsert", model="Setting", item={"name": "a", "rev": 1})
            resource.prlimit(agent.process.pid, resource.RLIMIT_FSIZE, (65_536, resource.RLIM_INFINITY))
            refused = until(lambda: _refused(agent), "a write is refused", agent.pause)
            assert "disk" in refused
            assert client.ask("get", model="Setting", item={"name": "a"})["item"]["rev"] == 1
            resource.prlimit(agent.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
            client.ask("upsert", model="Setting", item={"name": "a", "rev": 2})
        assert agent.terminate() == 0


def test_it_starts_on_a_full_disk_and_serves_what_can_be_read(tmp_path: Path) -> None:
    with AgentProcess(tmp_path, NOWHERE).start() as agent:
        agent.wait("started")
        with agent.client() as client:
            client.ask("upsert", model="Setting", item={"name": "a", "rev": 1})
        assert agent.terminate() == 0
        agent.start(None, "prlimit", "--fsize=4096")
        assert "the disk " in agent.wait("session-failed")["reason"]
        assert "disk" in _refused(agent)
        with agent.client() as client:
            assert client.ask("get", model="Setting", item={"name": "a"})["item"]["rev"] == 1
        assert agent.status()["state"] == "failed" and "disk" in agent.status()["problem"]
        assert agent.terminate() == 0 and len(agent.events("session-failed")) == 1


def _refused(agent: AgentProcess) -> str:
    from agent.protocol.commands.failure import CommandError

    with agent.client() as client:
        try:
            client.ask("create", model="Fault", item={"rev": 1, "text": "x" * 3_000})
        except CommandError as error:
            return str(error)
    return ""
