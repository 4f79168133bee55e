"""Sets a process up to simulate fast: called first of all by every command that simulates, and by its workers.

What it sets cannot be set later, and changes nothing but the time that a run takes.
"""

from __future__ import annotations

from fleet.native.finder import use
from fleet.sqlite_library import without_locks


def prepare() -> bool:
    """Whether the core is compiled in this process. Call it before anything is imported that simulates."""
    without_locks()
    return use()
