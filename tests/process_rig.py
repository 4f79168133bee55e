"""A process of the project for tests, which tells what it does on standard error: one event a line, as JSON.

Nothing waits for a time: only for what the process says or does, within a limit. Used by agent_rig and live_rig.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Final, Self

ROOT: Final = Path(__file__).resolve().parent.parent
LIMIT_S: Final = 60.0


def until(condition: Callable[[], Any], what: str, act: Callable[[], object]) -> Any:
    """What the condition gives once it is true; `act` waits for something to happen, for a moment at most."""
    end = time.monotonic() + LIMIT_S
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > end:
            raise AssertionError(f"not within {LIMIT_S:.0f} s: {what}")
        act()


class LoggingProcess:
    """`said`: the events of its log, of all its starts. `odd`: lines that are no event. `name`: in messages. `process`
    is there once it was launched."""

    process: subprocess.Popen[str]

    def __init__(self, name: str) -> None:
        self.name = name
        self.said: list[dict[str, Any]] = []
        self.odd: list[str] = []
        self._news = threading.Condition()
        self._reader: threading.Thread | None = None

    def launch(
        self, arguments: Sequence[str], environment: Mapping[str, str] | None = None, under: Sequence[str] = ()
    ) -> None:
        """`arguments`: of Python. `environment`: what is added to the test's own. `under`: a command that runs it."""
        self.process = subprocess.Popen(
            [*under, sys.executable, *arguments],
            cwd=ROOT,
            env={**os.environ, **(environment or {})},
            stderr=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._listen, args=(self.process.stderr,), daemon=True)
        self._reader.start()

    def _listen(self, stream: IO[str]) -> None:
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
            alive = self._reader is not None and (self.process.poll() is None or self._reader.is_alive())
            found = self.events(event)
            if len(found) >= times:
                return found[times - 1]
            assert alive, f"{self.name} has ended: {self.said[-3:]} {self.odd}"
            return None

        found: dict[str, Any] = until(heard, f"{event} of {self.name}: {self.said[-5:]} {self.odd}", self.pause)
        return found

    def pause(self) -> None:
        """Until it says something, for a moment at most."""
        with self._news:
            self._news.wait(0.05)

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        """As a crash: nothing of it runs any more."""
        self.process.kill()
        self.ended()

    def terminate(self) -> int:
        """In good order; the exit code."""
        self.signal(signal.SIGTERM)
        return self.ended()

    def ended(self) -> int:
        assert self._reader is not None
        code = self.process.wait(LIMIT_S)
        self._reader.join(LIMIT_S)
        return code

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._reader is not None:
            if self.process.poll() is None:
                self.process.kill()
            self.ended()
