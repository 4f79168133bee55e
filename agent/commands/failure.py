"""What `fleet-agent` says of an error: as both command lines do, and of a database's file in the words of its errors.

Imports what defines those only when there is an error. Called by agent.cli.
"""

from __future__ import annotations

from agent.protocol.commands import failure


def lines_of(error: Exception) -> tuple[int, list[str]]:
    """The exit code, and what to say."""
    from agent.file_errors import StoreError

    return failure.lines_of(error, "fleet-agent", (StoreError,), "change it in the cloud")
