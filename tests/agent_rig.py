"""An agent as `fleet-agent run` starts it, for tests: a folder with its configuration, its process, and its socket.

Nothing waits for a time: only for what the process says or does, within a limit. Used by tests/live.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from process_rig import LIMIT_S, LoggingProcess
from relay_rig import FILE

from agent.api.client import Client

QUICK: Final = {
    "boot_jitter": '"0s"',
    "hello_period": '"2s"',
    "resend_base": '"400ms"',
    "connect_base": '"100ms"',
    "connect_cap": '"500ms"',
}


class AgentProcess(LoggingProcess):
    """`connection`, `session`: what stands in these sections, as TOML values. It may be killed and started again."""

    def __init__(
        self,
        folder: Path,
        connection: Mapping[str, str],
        device: str = "home-1",
        session: Mapping[str, str] = QUICK,
        more: str = "",
        schema: Path = FILE,
    ) -> None:
        super().__init__(device)
        self.folder = folder / device
        self.folder.mkdir(mode=0o700, exist_ok=True)
        self.config = self.folder / "agent.toml"
        shutil.copy(schema, self.folder / "schema.json5")
        self.socket = str(self.folder / "agent.db-api/socket")
        self.device = device
        self._more = more
        self.configure(connection, session)

    def configure(self, connection: Mapping[str, str], session: Mapping[str, str] = QUICK) -> None:
        sections = {
            "device": {"id": f'"{self.device}"', "account": '"main"'},
            "connection": connection,
            "session": session,
            "log": {"level": '"debug"', "format": '"json"'},
        }
        text = "\n".join(
            "\n".join((f"[{name}]", *(f"{key} = {value}" for key, value in values.items())))
            for name, values in sections.items()
        )
        self.config.touch(0o600)
        self.config.write_text(f"{text}\n{self._more}\n")

    def start(self, environment: Mapping[str, str] | None = None) -> AgentProcess:
        self.launch(["-m", "agent.cli", "run", "--config", str(self.config)], environment)
        return self

    def client(self) -> Client:
        return Client(self.socket, LIMIT_S)

    def status(self) -> dict[str, Any]:
        with self.client() as client:
            found: dict[str, Any] = client.ask("status")["status"]
        return found
