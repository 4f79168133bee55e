"""The trace: every event of a run in order, always hashed, written to a file when asked.

An event is (time in µs, kind, entity, detail). Same seed, same hash. Never reads a clock or the world. Events are
gathered and hashed in blocks, so that the path of a message pays for one append; each block's end is a checkpoint, by
which a replay finds where two runs part.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple, TextIO

import msgspec

from fleet.world.clock import Clock

BLOCK: Final = 4096
CHECKPOINTS_MAX: Final = 4096

Event = tuple[int, str, str, bytes | str]


class Checkpoint(NamedTuple):
    """After `events` events, the last at `at_us`, the hash was `hash`."""

    events: int
    at_us: int
    hash: str


class Trace:
    """Called with (kind, entity, detail). `clock` gives the virtual time; `on_event` sees every event (replay)."""

    __slots__ = ("_block", "_clock", "_encode", "_events", "_every", "_hash", "_writer", "checkpoints", "on_block")

    def __init__(self, clock: Clock, path: Path | None = None) -> None:
        self._clock = clock
        self._hash = hashlib.blake2b(digest_size=16)
        self._encode = msgspec.msgpack.Encoder().encode
        self._block: list[Event] = []
        self._events = 0
        self._every = 1
        self._writer: TextIO | None = None
        if path is not None:  # open until `close`, for as long as there are events
            self._writer = gzip.open(path, "wt", encoding="utf-8", compresslevel=4)  # noqa: SIM115
        self.checkpoints: list[Checkpoint] = []
        self.on_block: Callable[[list[Event]], None] | None = None

    def __call__(self, kind: str, entity: str, detail: bytes | str) -> None:
        block = self._block
        block.append((self._clock._now, kind, entity, detail))
        if len(block) >= BLOCK:
            self._flush()

    def _flush(self) -> None:
        block = self._block
        if not block:
            return
        self._block = []
        self._hash.update(self._encode(block))
        self._events += len(block)
        if self._writer is not None:
            self._writer.writelines(line_of(event) for event in block)
        if self.on_block is not None:
            self.on_block(block)
        if (self._events // BLOCK) % self._every == 0:
            self.checkpoints.append(Checkpoint(self._events, block[-1][0], self._hash.copy().hexdigest()))
            if len(self.checkpoints) >= CHECKPOINTS_MAX:  # flat over virtual days: every second one goes
                self.checkpoints = self.checkpoints[1::2]
                self._every *= 2

    @property
    def events(self) -> int:
        return self._events + len(self._block)

    def finish(self) -> str:
        """Ends the trace; returns its hash, 32 hexadecimal digits."""
        self._flush()
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        return self._hash.hexdigest()


class NoTrace(Trace):
    """For measuring what tracing costs. Its hash is that of nothing."""

    __slots__ = ()

    def __call__(self, kind: str, entity: str, detail: bytes | str) -> None:
        return None


def line_of(event: Event) -> str:
    at_us, kind, entity, detail = event
    text = detail.decode("utf-8", "backslashreplace") if isinstance(detail, bytes) else detail
    return json.dumps({"t_us": at_us, "kind": kind, "entity": entity, "detail": text}, ensure_ascii=False) + "\n"
