"""The line that tells how far a run is: on a terminal one that moves, elsewhere a plain line now and then.

Reads the wall clock, which no run ever sees. Called by the commands that run something.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TextIO

from rich.console import Console
from rich.live import Live
from rich.text import Text

if TYPE_CHECKING:
    from fleet.world.world import Progress

PLAIN_FIRST_S: Final = 1.0
PLAIN_EVERY_S: Final = 10.0
MOVES_EVERY_S: Final = 0.1


class ProgressLine:
    """Use as a context; call it often, with a way to look. `describe`: makes a line of what that gives, and of the
    seconds since the start; None: of a run's progress."""

    def __init__(
        self, quiet: bool, file: TextIO | None = None, describe: Callable[[Any, float], str] | None = None
    ) -> None:
        self._file = file or sys.stderr
        self._quiet = quiet
        self._describe = describe or describe_run
        self._started = time.monotonic()
        self._due = self._started + PLAIN_FIRST_S
        self._live: Live | None = None
        if not quiet and self._file.isatty():
            console = Console(file=self._file, highlight=False)
            self._live = Live(console=console, auto_refresh=False, transient=True)
            self._due = self._started

    def __enter__(self) -> ProgressLine:
        if self._live is not None:
            self._live.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        if self._live is not None:
            self._live.__exit__(None, None, None)

    def __call__(self, look: Callable[[], Any]) -> None:
        if self._quiet:
            return
        now = time.monotonic()
        if now < self._due:
            return
        self._due = now + (MOVES_EVERY_S if self._live is not None else PLAIN_EVERY_S)
        line = self._describe(look(), now - self._started)
        if self._live is not None:
            self._live.update(Text(line, no_wrap=True, overflow="ellipsis"), refresh=True)
        else:
            print(line, file=self._file, flush=True)


def describe_run(progress: Progress, elapsed_s: float) -> str:
    """At most 100 columns."""
    from fleet.scenario.units import format_duration

    speed = progress.now_us / 1e6 / elapsed_s if elapsed_s > 0 else 0.0
    at, end = (format_duration(us // 1_000_000 * 1_000_000) for us in (progress.now_us, progress.end_us))
    failures = f", {progress.failures} FAILURES" if progress.failures else ""
    return (
        f"{progress.phase} {at} of {end} ({speed:,.0f}x): {progress.online:,}/{progress.devices:,} online, "
        f"backlog {progress.backlog:,}, {progress.synced:,} synced{failures}"
    )
