"""The parts of a live run that are not agents: mosquitto, moto's DynamoDB, the relay.

Each says where it is reached, on loopback and a free port, once it has started. A part that is not installed is told by
NotInstalled, with what would help. Used by live runs and by tests.
"""

from __future__ import annotations

import getpass
import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from fleet.live.processes import LIMIT_S, NotReady, Part, Processes

PORT_ATTEMPTS: Final = 10
LOGGED: Final = ("error", "warning", "notice", "information")  # of mosquitto; that it runs is information
KEYS: Final = {"AWS_ACCESS_KEY_ID": "fleet", "AWS_SECRET_ACCESS_KEY": "fleet"}  # emulators look at no signature
_PATH: Final = "/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin"  # Debian keeps brokers where users do not look
_PROGRAM: Final = Path(__file__).with_name("moto_server.py")


class NotInstalled(Exception):
    """A real part is missing on this machine; the text says which, and how to get it."""


def program(name: str) -> str:
    """The path of one that belongs to mosquitto. Raises NotInstalled."""
    found = shutil.which(name) or shutil.which(name, path=_PATH)
    if found is None:
        raise NotInstalled(f"{name} is missing (Debian: apt install mosquitto)")
    return found


def free_port() -> int:
    """For programs that cannot be given port 0: free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


class Mosquitto(Part):
    """`lines`: of its configuration, besides its listener and its log. `users`: name -> password; with any, nobody else
    may connect. `acl`: the text of its access rules. It keeps its port when it is started again."""

    def __init__(
        self,
        processes: Processes,
        folder: Path,
        lines: Iterable[str] = (),
        *,
        users: Mapping[str, str] | None = None,
        acl: str = "",
        name: str = "mosquitto",
    ) -> None:
        self.config = folder / f"{name}.conf"
        self.port = 0
        super().__init__(
            processes,
            name,
            [program("mosquitto"), "-c", str(self.config)],
            folder=folder,
            ready=lambda part: part.says(" running"),
        )
        self._lines = [*lines]
        if users is not None:
            passwords = folder / f"{name}.passwords"
            passwords.write_text("".join(f"{user}:{password}\n" for user, password in users.items()))
            passwords.chmod(0o600)
            subprocess.run([program("mosquitto_passwd"), "-U", str(passwords)], check=True, timeout=LIMIT_S)
            self._lines.append(f"password_file {passwords}")
        if acl:
            rules = folder / f"{name}.acl"
            rules.write_text(acl)
            rules.chmod(0o600)
            self._lines.append(f"acl_file {rules}")
        if not any(line.startswith("allow_anonymous") for line in self._lines):
            self._lines.append(f"allow_anonymous {'true' if users is None else 'false'}")
        if not any(line.startswith("user ") for line in self._lines):
            self._lines.append(f"user {getpass.getuser()}")  # else root becomes somebody who cannot read these files

    @property
    def url(self) -> str:
        return f"mqtt://127.0.0.1:{self.port}"

    def start(self) -> None:
        first = self.port == 0
        for attempt in range(PORT_ATTEMPTS):
            if first:
                self.port = free_port()
                said = ("log_dest stderr", *(f"log_type {kind}" for kind in LOGGED))
                self.config.write_text("\n".join([f"listener {self.port} 127.0.0.1", *said, *self._lines]) + "\n")
            try:
                super().start()
                return
            except NotReady:
                if not first or attempt + 1 == PORT_ATTEMPTS or not self.says("Address already in use"):
                    raise


class MotoServer(Part):
    """An empty DynamoDB, and as empty again after a restart, on another port."""

    def __init__(self, processes: Processes, folder: Path, *, name: str = "moto") -> None:
        if find_spec("moto") is None or find_spec("flask") is None:
            raise NotInstalled("moto's server is missing: pip install 'fleet-sync[moto]'")
        command = [sys.executable, str(_PROGRAM)]
        quiet = {"PYTHONWARNINGS": "ignore"}
        super().__init__(processes, name, command, folder=folder, ready=_says_address, environment=quiet)

    @property
    def url(self) -> str:
        return address_of(self)


def address_of(part: Part) -> str:
    """`http://127.0.0.1:PORT` of a server that says it on a line of its own; empty until it has."""
    return next((line for line in reversed(part.lines) if line.startswith("http://")), "")


def _says_address(part: Part) -> bool:
    return part.says("http://")


def relay_command(*, table: str, schema: Path, broker: str, endpoint_url: str, region: str, name: str) -> list[str]:
    """The arguments of `fleet-cloud` for a relay that serves its figures on a free port and says events as JSON.
    `broker`: its URL; empty for a relay without one, which other options give a WebSocket."""
    command = ["relay", "--table", table, "--schema", str(schema), *(["--broker", broker] if broker else [])]
    command += ["--endpoint-url", endpoint_url, "--region", region]
    return [*command, "--listen", "127.0.0.1:0", "--log", "json", "--name", name]


class RelayPart(Part):
    """`fleet-cloud relay`, ready when it is connected to its broker, or listens without one. `more`: other options."""

    def __init__(
        self,
        processes: Processes,
        folder: Path,
        *,
        table: str,
        schema: Path,
        broker: str,
        endpoint_url: str,
        region: str,
        more: Sequence[str] = (),
        name: str = "relay",
    ) -> None:
        command = [sys.executable, "-m", "cloud.cli"]
        command += relay_command(
            table=table, schema=schema, broker=broker, endpoint_url=endpoint_url, region=region, name=name
        )
        super().__init__(
            processes,
            name,
            [*command, *more],
            folder=folder,
            ready=lambda part: part.says('"broker-connected"' if broker else '"listening-for-devices"'),
            environment=KEYS,
        )

    def events(self, event: str) -> list[dict[str, Any]]:
        """Of that name, the oldest first, also from before a restart, as far as they are kept."""
        said = [json.loads(line) for line in tuple(self.lines) if line.startswith("{")]
        return [each for each in said if each["event"] == event]
