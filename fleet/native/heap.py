"""Gives memory back to the system: what a run has left behind, before its report is drawn.

A world is full of cycles, so that nothing of it is free before a full collection; and the C library keeps what is free.
Changes nothing but the memory of a process. Called by the command that runs one scenario, when its run is over.
"""

from __future__ import annotations

import ctypes
import gc
from contextlib import suppress


def give_back() -> None:
    """Collects all garbage. Where the C library is not glibc, it gives back what it sees fit."""
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
