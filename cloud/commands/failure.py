"""What `fleet-cloud` says of an error: as both command lines do, and of the table in the words of its errors.

Imports what defines those only when there is an error. Called when a command fails.
"""

from __future__ import annotations

from agent.protocol.commands import failure


def lines_of(error: Exception) -> tuple[int, list[str]]:
    """The exit code, and what to say."""
    if isinstance(error, ModuleNotFoundError) and error.name in ("boto3", "botocore", "ruamel", "ruamel.yaml"):
        error = failure.CommandError(f"{error.name} is not installed", "pip install 'fleet-sync[cloud]'")
    from cloud.table import TableError

    return failure.lines_of(error, "fleet-cloud", (TableError,), "change it on the device")
