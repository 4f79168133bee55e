"""What docs/deploy.md says of an own mosquitto: its commands are run, its configuration is used, and it holds."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from agent_rig import AgentProcess
from emulators import KEY_ID, REGION, SECRET
from live_rig import LIMIT_S, ROOT, Mosquitto, RelayProcess, Table, mosquitto, table_name, until

ACCOUNTS = {"home-1": "main", "home-2": "main"}
TEXT = (ROOT / "docs/deploy.md").read_text("utf-8").partition("## Your own mosquitto")[2].partition("\n## ")[0]


@pytest.fixture
def table(request: pytest.FixtureRequest, moto: str, broker: Mosquitto) -> Table:
    """`broker` is asked for so that a missing one is told in the same way as elsewhere."""
    return Table(moto, table_name(request.node.nodeid), ACCOUNTS)


def certificates(folder: Path, name: str, text: str) -> None:
    """As the document has them for home-1; here the broker's name is an address."""
    commands = re.findall(r"^\$ ((?:openssl|echo) .*)$", text, re.M)
    assert commands
    for command in commands:
        local = command.replace("DNS:broker.example", "IP:127.0.0.1").replace("home-1", name)
        subprocess.run(local, shell=True, cwd=folder, check=True, capture_output=True, timeout=LIMIT_S)
    (folder / f"{name}.key").chmod(0o600)
    (folder / f"{name}.pem").chmod(0o600)


def acl(folder: Path, table: Table) -> None:
    (command,) = re.findall(r"^\$ fleet-cloud (acl .*) > acl$", TEXT, re.M)
    environment = {**os.environ, "AWS_ACCESS_KEY_ID": KEY_ID, "AWS_SECRET_ACCESS_KEY": SECRET}
    more = ["--table", table.name, "--endpoint-url", table.address, "--region", REGION]
    done = subprocess.run(
        [sys.executable, "-m", "cloud.cli", *command.split(), *more], cwd=ROOT, env=environment, capture_output=True,
        text=True, check=True, timeout=LIMIT_S,
    )  # fmt: skip
    (folder / "acl").write_text(done.stdout)


def own(folder: Path, name: str, port: int) -> dict[str, str]:
    files = {"ca": "ca.pem", "certificate": f"{name}.pem", "key": f"{name}.key"}
    return {"url": f'"mqtts://127.0.0.1:{port}"', **{key: f'"{folder / file}"' for key, file in files.items()}}


def test_a_mosquitto_as_the_document_sets_it_up_keeps_devices_apart(tmp_path: Path, table: Table) -> None:
    pem = tmp_path / "pem"
    pem.mkdir()
    certificates(pem, "home-1", TEXT)
    of_device = "\n".join(line for line in TEXT.splitlines() if "home-1" in line)
    certificates(pem, "relay", of_device)
    certificates(pem, "home-2", of_device)
    acl(pem, table)
    (block,) = re.findall(r"# mosquitto\.conf\n(.*?)```", TEXT, re.S)
    lines = [line.replace("/etc/mosquitto", str(pem)) for line in block.splitlines() if not line.startswith("listener")]
    (tmp_path / "broker").mkdir()
    own_relay = ["--ca", f"{pem}/ca.pem", "--cert", f"{pem}/relay.pem", "--key", f"{pem}/relay.key"]
    with mosquitto(tmp_path / "broker", *lines, "user root") as strict, RelayProcess(
        tmp_path, table, f"mqtts://127.0.0.1:{strict.port}", *own_relay
    ) as relay:  # fmt: skip
        relay.ready()
        with AgentProcess(tmp_path, own(pem, "home-1", strict.port)).start() as agent:
            agent.wait("connected")
            with agent.client() as client:
                client.ask("upsert", model="Setting", item={"name": "a", "rev": 1})
            until(lambda: agent.status()["pending"] == 0, "it syncs", agent.pause)
            # Another device's certificate: its name is not home-1's, and home-1's topics are not its own.
            with AgentProcess(tmp_path / "broker", own(pem, "home-2", strict.port)).start() as thief:
                refused = "may not publish to ioto/service/home-1/sync"
                until(
                    lambda: any(refused in told["reason"] for told in thief.events("no-connection")),
                    refused,
                    thief.pause,
                )
            with agent.client() as client:
                client.ask("upsert", model="Setting", item={"name": "b", "rev": 1})
            until(lambda: agent.status()["pending"] == 0, "it syncs as before", agent.pause)
        assert sorted(item["name"] for item in table.items().values()) == ["a", "b"]
