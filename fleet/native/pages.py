"""Huge pages for a process that simulates: a fleet's memory is touched all over, and finding small pages takes time.

Linux alone, where the system lets a program ask for them (`transparent_hugepage/enabled` is `madvise` or `always`);
elsewhere nothing happens. Changes nothing but the time of a run. Called by fleet.run, now and then.
See madvise(2), MADV_COLLAPSE.
"""

from __future__ import annotations

import ctypes
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

HUGE_BYTES: Final = 2 << 20
FIRST_BYTES: Final = 96 << 20  # a small run is over before it pays
GROWTH: Final = 1.15  # what was asked for is looked at again when the process has grown by this
_ADVICE: Final = (14, 25)  # MADV_HUGEPAGE: what comes; MADV_COLLAPSE, since Linux 6.1: what is there already
_ENABLED: Final = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_MAPS: Final = Path("/proc/self/maps")


class HugePages:
    """Asks for them as the process grows."""

    def __init__(self, madvise: Callable[[int, int, int], int] | None) -> None:
        self._madvise = madvise
        self._next_bytes = float(FIRST_BYTES)

    def look(self) -> int:
        """Bytes asked for: 0 as long as the process has not grown enough. Cheap, made to be called often."""
        if self._madvise is None:
            return 0
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        if most < self._next_bytes:
            return 0
        self._next_bytes = most * GROWTH
        asked = 0
        for start, end in ranges(_MAPS.read_text()):
            for advice in _ADVICE:
                self._madvise(start, end - start, advice)  # an answer of no leaves small pages: as good as before
            asked += end - start
        return asked


def of_this_process() -> HugePages:
    return HugePages(_madvise() if _allowed() else None)


def ranges(maps: str) -> Iterator[tuple[int, int]]:
    """(first byte, end) of the process's own memory, in whole huge pages. `maps`: the text of /proc/PID/maps."""
    for line in maps.splitlines():
        addresses, access, _, _, inode, *name = line.split(maxsplit=5)
        if inode != "0" or not access.startswith("rw-p") or (name and name[0] != "[heap]"):
            continue
        first, end = (int(address, 16) for address in addresses.split("-"))
        first = -(-first // HUGE_BYTES) * HUGE_BYTES
        end = end // HUGE_BYTES * HUGE_BYTES
        if first < end:
            yield first, end


def _allowed() -> bool:
    try:
        return "[never]" not in _ENABLED.read_text() and _MAPS.exists()
    except OSError:
        return False


def _madvise() -> Callable[[int, int, int], int] | None:
    try:
        function = ctypes.CDLL(None).madvise
    except (OSError, AttributeError):
        return None
    function.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    function.restype = ctypes.c_int
    return function
