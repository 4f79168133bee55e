"""Sets up SQLite's library before Python opens it: for a process that uses each connection from one thread at a time.

A simulated device asks SQLite for some hundred locks an update, and nobody else is there: the library can do without,
and without counting its memory. That can only be said before it is initialised, which `import sqlite3` does. Where it
cannot be said (sqlite3 is imported already, or is part of the interpreter) nothing changes but the time of a run.
Called by the commands that simulate, first of all. https://sqlite.org/c3ref/config.html
"""

from __future__ import annotations

import ctypes
import sys
from importlib.util import find_spec
from typing import Final

_OK: Final = 0
_MULTITHREAD: Final = 2  # SQLITE_CONFIG_MULTITHREAD: no lock for each connection; what all share keeps its own
_MEMSTATUS: Final = 9  # SQLITE_CONFIG_MEMSTATUS: 0, nothing counts what is allocated


def without_locks() -> bool:
    """Whether the library took it."""
    module = "_sqlite3"
    if module in sys.modules:
        return False
    spec = find_spec(module)
    if spec is None or spec.origin is None or not spec.has_location:
        return False
    try:
        library = ctypes.CDLL(spec.origin)  # the library that this very module is linked with
        return bool(library.sqlite3_config(_MULTITHREAD) == _OK and library.sqlite3_config(_MEMSTATUS, 0) == _OK)
    except (OSError, AttributeError):
        return False
