"""The error of a run whose emulator failed. Raised by the other modules of this package, shown by `fleet run`."""

from __future__ import annotations


class BackendFailed(Exception):
    """The emulator does not do what a table does: the run ends here, and says nothing of the code under test."""
