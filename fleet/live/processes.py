"""Real processes of a live run or a test: started, waited for, killed, stopped, continued, started again, cleaned up.

Each is the head of a process group, so that a signal reaches what it has started, and a Ctrl-C at the terminal does
not. `Processes` ends them all when its context does; should the harness be killed, a guard does it. Nothing is waited
for by time: a part is ready when its condition says so, within a limit. Plain threads, no event loop: a live run calls
what waits from a thread. Knows no part in particular: those are in fleet.live.parts.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final

LIMIT_S: Final = 60.0  # for a part to be ready, or to end
LAST_WORDS_S: Final = 1.0  # until what an ended part has said is read; what it started may hold its output open
LINES_MAX: Final = 2_000  # of its output, that are kept in memory; all are in the file
_GUARD: Final = Path(__file__).with_name("guard.py")


class NotReady(Exception):
    """A part did not start. The text names it, says why, and ends with what it said last."""


class Processes:
    """All processes of one harness. Used as a context; `start` may be called from any thread."""

    def __init__(self) -> None:
        self.parts: dict[str, Part] = {}  # by name, in order of starting
        self._guard: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> Processes:
        command = [sys.executable, "-I", "-S", str(_GUARD)]
        self._guard = subprocess.Popen(command, stdin=subprocess.PIPE, text=True, bufsize=1, start_new_session=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """The last one started ends first. Should that go wrong, the guard ends those that are left."""
        guard = self._guard
        assert guard is not None and guard.stdin is not None
        try:
            for part in reversed(tuple(self.parts.values())):
                part.kill()
                part.close()
        finally:
            guard.stdin.close()
            guard.wait(LIMIT_S)
            self._guard = None

    @property
    def is_open(self) -> bool:
        return self._guard is not None

    def add(self, part: Part) -> None:
        """Raises ValueError where the name is taken."""
        if part.name in self.parts:
            raise ValueError(f"there is a part of the name {part.name!r}")
        self.parts[part.name] = part

    def watch(self, group: int, *, ended: bool = False) -> None:
        """Tells the guard."""
        with self._lock:
            if self._guard is None or self._guard.stdin is None:
                return  # it has ended what was left
            with suppress(BrokenPipeError):  # somebody has killed the guard; the context still cleans up
                self._guard.stdin.write(f"{'-' if ended else '+'} {group}\n")


class Part:
    """One process. `ready` is asked after each line that it says, and now and then: whether it can be used; it must be
    within the limit.

    `lines`: what it said last, of output and errors, also from before a restart; all of it is in FOLDER/NAME.log."""

    def __init__(
        self,
        processes: Processes,
        name: str,
        command: Sequence[str],
        *,
        folder: Path,
        ready: Callable[[Part], object],
        environment: Mapping[str, str] | None = None,
        limit_s: float = LIMIT_S,
    ) -> None:
        self.name = name
        self.command = list(command)
        self.log = folder / f"{name}.log"
        self.environment = dict(environment or {})
        self.lines: deque[str] = deque(maxlen=LINES_MAX)
        self.starts = 0
        self.ready = ready  # may be exchanged between two starts
        self._limit_s = limit_s
        self._processes = processes
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None
        self._since_start: list[str] = []
        self._news = threading.Condition()
        processes.add(self)

    # What it is.

    @property
    def pid(self) -> int:
        """Raises RuntimeError when it does not run."""
        if self._process is None:
            raise RuntimeError(f"{self.name} does not run")
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None: it runs, or never did; negative: the signal that ended it."""
        return None if self._process is None else self._process.poll()

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def says(self, text: str) -> bool:
        """Whether a line since the last start has it."""
        with self._news:
            return any(text in line for line in self._since_start)

    # Its life.

    def start(self) -> None:
        """Until it is ready. Raises NotReady, also when its program is not there; RuntimeError when it runs, and
        outside the context, where nobody would clean up."""
        if self.alive:
            raise RuntimeError(f"{self.name} runs")
        if not self._processes.is_open:
            raise RuntimeError(f"{self.name}: processes start within the context")
        self.close()
        self._since_start = []
        try:
            self._process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self.environment},
                start_new_session=True,
            )
        except OSError as error:
            raise NotReady(f"{self.name}: {self.command[0]}: {error.strerror}") from None
        self._processes.watch(self._process.pid)
        self.starts += 1
        self._reader = threading.Thread(target=self._listen, args=(self._process,), daemon=True)
        self._reader.start()
        try:
            self.wait(lambda: self.ready(self), "is not ready", self._limit_s)
        except NotReady:
            self.kill()
            raise

    def wait(self, condition: Callable[[], object], what: str, limit_s: float = LIMIT_S) -> None:
        """Until the condition is true, which is asked whenever this part says something, and often. Raises NotReady
        when it ends before, or the limit is over."""
        steps = int(limit_s / 0.05)
        for _ in range(steps):
            if condition():
                return
            if not self.alive:
                if self._reader is not None:
                    self._reader.join(LAST_WORDS_S)
                if condition():  # it was its last word
                    return
                raise NotReady(f"{self.name} {what}: it has ended with {self.exit_code}{self._tail()}")
            with self._news:
                self._news.wait(0.05)
        raise NotReady(f"{self.name} {what} within {limit_s:.0f} s{self._tail()}")

    def _tail(self) -> str:
        return "".join(f"\n  {line}" for line in tuple(self.lines)[-5:])

    def _listen(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        with self.log.open("ab") as log:
            for line in process.stdout:
                log.write(line)
                log.flush()
                text = line.decode(errors="replace").rstrip("\n")
                with self._news:
                    self.lines.append(text)
                    self._since_start.append(text)
                    self._news.notify_all()
        with self._news:
            self._news.notify_all()

    def kill(self) -> None:
        """SIGKILL to its group, and until it has ended: as a crash. Nothing happens when it does not run."""
        self._signal(signal.SIGKILL)
        self._reap()

    def terminate(self, limit_s: float = LIMIT_S) -> int:
        """SIGTERM, and its exit code; one that does not end in time is killed."""
        self._signal(signal.SIGTERM)
        self._signal(signal.SIGCONT)
        return self.join(limit_s)

    def join(self, limit_s: float = LIMIT_S) -> int:
        """Until it has ended by itself, and its exit code; one that does not end in time is killed."""
        process = self._process
        if process is not None:
            try:
                process.wait(limit_s)
            except subprocess.TimeoutExpired:
                self._signal(signal.SIGKILL)
        return self._reap()

    def pause(self) -> None:
        """SIGSTOP: it stands still, its sockets stay open."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        self._signal(signal.SIGCONT)

    def signal(self, number: int) -> None:
        """To its process alone. Nothing happens when it does not run."""
        if self.alive:
            os.kill(self.pid, number)

    def restart(self) -> None:
        """Killed, if it runs, and started with the same command."""
        self.kill()
        self.start()

    def _signal(self, number: int) -> None:
        if self.alive:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, number)

    def _reap(self) -> int:
        process = self._process
        if process is None:
            return 0
        code = process.wait(LIMIT_S)
        self._processes.watch(process.pid, ended=True)
        return code

    def close(self) -> None:
        """What is left of one that has ended: its output is read to its end."""
        if self._process is not None and self._reader is not None:
            self._reader.join(LIMIT_S)
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._reader = None
