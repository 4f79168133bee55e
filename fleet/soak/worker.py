"""One run of a night, in the process that does it. Sent there by its name."""

from __future__ import annotations

import gc
import os
import resource
from pathlib import Path
from typing import Final

import msgspec

from fleet.soak.draws import Reference
from fleet.sweep.attempt import Outcome, attempt
from fleet.sweep.case import Runnable

_STATM: Final = Path("/proc/self/statm")


def one_run(case: Runnable) -> Outcome:
    """An attempt; of the reference also who made it, and how much memory that process holds afterwards."""
    outcome = attempt(case)
    if not isinstance(case, Reference):
        return outcome
    return msgspec.structs.replace(outcome, process=os.getpid(), rss_mb=rss_mb())


def rss_mb() -> float:
    """What this process holds now, without what only waits to be collected. Where the system does not tell: the most
    that it ever held."""
    gc.collect()
    try:
        pages = int(_STATM.read_text("ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return pages * resource.getpagesize() / (1 << 20)
