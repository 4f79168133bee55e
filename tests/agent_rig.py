"""An agent as `fleet-agent run` starts it, for tests: a folder with its configuration, its process, and its socket; and
an application that writes there.

Nothing waits for a time: only for what the process says or does, within a limit. Used by tests/live.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from live_rig import LIMIT_S, ROOT, until
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


class AgentProcess:
    """`connection`, `session`: what stands in these sections, as TOML values. `said`: the events of its log. It may be
    killed and started again."""

    def __init__(
        self,
        folder: Path,
        connection: Mapping[str, str],
        device: str = "home-1",
        session: Mapping[str, str] = QUICK,
        more: str = "",
        schema: Path = FILE,
    ) -> None:
        self.folder = folder / device
        self.folder.mkdir(mode=0o700, exist_ok=True)
        self.config = self.folder / "agent.toml"
        shutil.copy(schema, self.folder / "schema.json5")
        self.socket = str(self.folder / "agent.db-api/socket")
        self.device = device
        self._more = more
        self.configure(connection, session)
        self.said: list[dict[str, Any]] = []
        self.odd: list[str] = []  # what is no event
        self._news = threading.Condition()
        self.process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None

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
        command = [*under, sys.executable, "-m", "agent.cli", "run", "--config", str(self.config)]
        self.process = subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, **(environment or {})}, stderr=subprocess.PIPE, text=True
        )
        self._reader = threading.Thread(target=self._listen, args=(self.process.stderr,), daemon=True)
        self._reader.start()
        return self

    def _listen(self, stream: Any) -> None:
        for line in stream:
            with self._news:
                try:
                    self.said.append(json.loads(line))
                except ValueError:
                    self.odd.append(line)
                self._news.notify_all()
        stream.close()

    def events(self, event: str) -> list[dict[str, Any]]:
        with self._news:
            return [each for each in self.said if each["event"] == event]

    def wait(self, event: str, times: int = 1) -> dict[str, Any]:
        """The event of that name, when it has come so often since the first start."""

        def heard() -> Any:
            alive = self.process is not None and self.process.poll() is None
            found = self.events(event)
            if len(found) >= times:
                return found[times - 1]
            assert alive or (self._reader and self._reader.is_alive()), f"ended: {self.said[-3:]} {self.odd}"
            return None

        found: dict[str, Any] = until(heard, f"{event}: {self.said[-5:]} {self.odd}", self.pause)
        return found

    def pause(self) -> None:
        with self._news:
            self._news.wait(0.05)

    def client(self) -> Client:
        return Client(self.socket, LIMIT_S)

    def status(self) -> dict[str, Any]:
        with self.client() as client:
            found: dict[str, Any] = client.ask("status")["status"]
        return found

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """As a crash: nothing of it runs any more."""
        assert self.process is not None
        self.process.kill()
        self.ended()

    def terminate(self) -> int:
        """In good order; the exit code."""
        self.signal(signal.SIGTERM)
        return self.ended()

    def ended(self) -> int:
        assert self.process is not None and self._reader is not None
        code = self.process.wait(LIMIT_S)
        self._reader.join(LIMIT_S)
        return code

    def __enter__(self) -> AgentProcess:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
        if self.process is not None:
            self.ended()


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
