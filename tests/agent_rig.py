"""An agent as `fleet-agent run` starts it, for tests: a folder with its configuration, its process, and its socket; and
an application that writes there.

Nothing waits for a time: only for what the process says or does, within a limit. Used by tests/live.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from process_rig import LIMIT_S, LoggingProcess, until
from relay_rig import FILE

from agent.api.client import Client, NoAgent
from agent.protocol.commands.failure import CommandError

QUICK: Final = {
    "boot_jitter": '"0s"',
    "hello_period": '"2s"',
    "resend_base": '"400ms"',
    "connect_base": '"100ms"',
    "connect_cap": '"500ms"',
}


NAMES: Final = 7  # of Settings that an application writes


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

    def start(self, environment: Mapping[str, str] | None = None, *under: str) -> AgentProcess:
        """`under`: a command that runs it."""
        self.launch(["-m", "agent.cli", "run", "--config", str(self.config)], environment, under)
        return self

    def client(self) -> Client:
        return Client(self.socket, LIMIT_S)

    def status(self) -> dict[str, Any]:
        with self.client() as client:
            found: dict[str, Any] = client.ask("status")["status"]
        return found


class Application(threading.Thread):
    """Writes until it is told to stop: Settings by turns with growing revs, and a new Fault each time. What the agent
    has acknowledged is in `settings` and `faults`; `tried` is what was asked for and never answered."""

    def __init__(self, socket: str) -> None:
        super().__init__(daemon=True)
        self.socket = socket
        self.settings: dict[str, int] = {}
        self.faults: dict[str, int] = {}
        self.tried: set[tuple[str, str, int]] = set()
        self.rev = 0
        self.acknowledged = 0
        self.stopping = False
        self.news = threading.Condition()
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            while not self.stopping:
                try:
                    with Client(self.socket, LIMIT_S) as client:
                        while not self.stopping:
                            self.rev += 1
                            self.write(client, self.rev)
                except (NoAgent, CommandError):
                    with self.news:
                        self.news.wait(0.02)  # the agent is dead, or not there yet
        except BaseException as error:
            self.failure = error

    def write(self, client: Client, rev: int) -> None:
        name, fault = f"s{rev % NAMES}", f"f{rev}"
        for model, kept, key, field in (
            ("Setting", self.settings, name, "name"),
            ("Fault", self.faults, fault, "id"),
        ):
            self.tried.add((model, key, rev))
            client.ask("upsert", model=model, item={field: key, "rev": rev})
            self.tried.discard((model, key, rev))
            kept[key] = rev
            with self.news:
                self.acknowledged += 1
                self.news.notify_all()

    def end(self) -> None:
        self.stopping = True
        self.join(LIMIT_S)
        assert self.failure is None, self.failure

    def wait(self, more: int) -> None:
        """Until so many more writes were acknowledged."""
        wanted = self.acknowledged + more
        until(lambda: self.failure or self.acknowledged >= wanted, f"{more} more writes", self.pause)
        assert self.failure is None, self.failure

    def pause(self) -> None:
        with self.news:
            self.news.wait(0.05)
