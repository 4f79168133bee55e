"""What was seen in a live run, as calls of the oracle with their times: written where it happens, read when it is over.

A file for each device, and one for the run itself. A record is on its way to the file when the call returns, and is
there whatever becomes of the process: SIGKILL takes nothing back that the kernel has. What a kill has torn in the
middle is no record. Called by fleet.live.device, which writes, and by fleet.live.judge, which reads.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec

Sighting = tuple[
    int, str, list[Any]
]  # time of the run in microseconds, the oracle's call, its arguments after the time

# Not calls of the oracle, but what the run has to know.
# About to be written: number of the operation (None: the result of a command), key, kind, rev, rev before.
INTENT: Final = "intent"
DONE: Final = "done"  # number of the operation: it has returned
MINTED: Final = "minted"  # the device has minted an epoch, after its first one was adopted
COUNTED: Final = "counted"  # how often since the last such record, by name: probes, connects, disconnects
FINAL: Final = "final"  # items, operations waiting, the item of the first one
_LENGTH: Final = struct.Struct("<I")
_encoder: Final = msgspec.msgpack.Encoder()


class Writer:
    """Appends to one file. Not safe for several threads at once: a device's records are made under its own lock."""

    def __init__(self, path: Path, now_us: Callable[[], int]) -> None:
        """Goes on behind the last whole record."""
        whole = _whole(path.read_bytes()) if path.exists() else 0
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.ftruncate(self._file, whole)
        os.lseek(self._file, whole, os.SEEK_SET)
        self._clock_us = now_us
        self._held_us: int | None = None

    def __call__(self, name: str, *arguments: Any) -> None:
        self.at(self._clock_us() if self._held_us is None else self._held_us, name, *arguments)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """All that is written within happens at the moment when it began: what a message does takes no time, as in a
        simulation."""
        self._held_us = self._clock_us()
        try:
            yield
        finally:
            self._held_us = None

    def at(self, t_us: int, name: str, *arguments: Any) -> None:
        data = _encoder.encode((t_us, name, arguments))
        os.write(self._file, _LENGTH.pack(len(data)) + data)

    def close(self) -> None:
        os.close(self._file)


def read(path: Path) -> list[Sighting]:
    """All whole records, in the order of their writing. A file that is not there has none."""
    data = path.read_bytes() if path.exists() else b""
    found: list[Sighting] = []
    at = 0
    while (end := _end(data, at)) is not None:
        t_us, name, arguments = msgspec.msgpack.decode(data[at + _LENGTH.size : end])
        found.append((t_us, name, arguments))
        at = end
    return found


def _end(data: bytes, at: int) -> int | None:
    """Where the record that begins there ends; None when it is not whole."""
    if at + _LENGTH.size > len(data):
        return None
    end: int = at + _LENGTH.size + _LENGTH.unpack_from(data, at)[0]
    return end if end <= len(data) else None


def _whole(data: bytes) -> int:
    at = 0
    while (end := _end(data, at)) is not None:
        at = end
    return at
