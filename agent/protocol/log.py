"""What a service tells its operator: one event a line, JSON for programs, plain text on a terminal.

A problem that repeats is told once, then now and then with a count, and once more when it is over. Time and the output
are given. Called by the parts of the relay's service and of the agent's, in one thread each.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

AGAIN_MS: Final = 60_000  # between two reports of one problem
LEVELS: Final = ("debug", "info", "warning", "error")


class _Problem(msgspec.Struct, gc=False):
    count: int
    unsaid: int
    told_ms: int


class Log:
    """`write` takes a line without its end. `plain`: for a person; else JSON. `least`: the lowest level that is told.
    `again_ms`: between two reports of one problem."""

    def __init__(
        self,
        write: Callable[[str], object],
        *,
        wall_ms: Callable[[], int],
        monotonic_ms: Callable[[], int],
        plain: bool = False,
        least: str = "info",
        again_ms: int = AGAIN_MS,
    ) -> None:
        self._write = write
        self._wall_ms = wall_ms
        self._monotonic_ms = monotonic_ms
        self._plain = plain
        self.least = least
        self._again_ms = again_ms
        self._problems: dict[tuple[str, str], _Problem] = {}

    def event(self, event: str, level: str = "info", **fields: Any) -> None:
        if LEVELS.index(level) < LEVELS.index(self.least):
            return
        at = datetime.fromtimestamp(self._wall_ms() / 1000, UTC).isoformat(timespec="milliseconds")
        at = at.removesuffix("+00:00") + "Z"
        if self._plain:
            text = " ".join(f"{name}={_plain(value)}" for name, value in fields.items())
            mark = "" if level in ("debug", "info") else f"{level.upper()} "
            self._write(f"{at} {mark}{event} {text}".rstrip())
        else:
            self._write(json.dumps({"at": at, "level": level, "event": event, **fields}, default=str))

    def problem(self, what: str, about: str = "", **fields: Any) -> None:
        """`what` and `about` name the problem, for as long as it lasts. `about`: one of few, each is remembered."""
        now_ms = self._monotonic_ms()
        if about:
            fields = {"about": about, **fields}
        known = self._problems.get((what, about))
        if known is None:
            self._problems[what, about] = _Problem(1, 0, now_ms)
            self.event(what, "warning", **fields)
            return
        known.count += 1
        known.unsaid += 1
        if now_ms - known.told_ms >= self._again_ms:
            self.event(what, "warning", again=known.unsaid, **fields)
            known.unsaid = 0
            known.told_ms = now_ms

    def over(self, what: str, about: str = "", **fields: Any) -> None:
        """The problem is gone, if there was one."""
        known = self._problems.pop((what, about), None)
        if known is not None:
            if about:
                fields = {"about": about, **fields}
            self.event(f"{what}-over", times=known.count, **fields)

    def forget(self, what: str, about: str = "") -> None:
        """Another problem has taken the place of this one: not over, but told no more."""
        self._problems.pop((what, about), None)

    @property
    def problems(self) -> list[str]:
        """What is wrong now."""
        return [f"{what} {about}".strip() for what, about in self._problems]


def _plain(value: Any) -> str:
    quoted = not isinstance(value, str) or not value or " " in value or not value.isprintable()
    return json.dumps(value, default=str) if quoted else str(value)
