"""What `fleet-cloud` says of an error: as both command lines do, and of the table in the words of its errors.

Imports what defines those only when there is an error. Called when a command fails.
"""

from __future__ import annotations

from typing import Final

from agent.protocol.commands import failure

_EXTRA: Final = (
    "boto3",
    "botocore",
    "paho",
    "prometheus_client",
    "ruamel",
    "ruamel.yaml",
    "trio",
    "trio_websocket",
    "wsproto",
)


def lines_of(error: Exception) -> tuple[int, list[str]]:
    """The exit code, and what to say."""
    if isinstance(error, ModuleNotFoundError) and error.name in _EXTRA:
        error = failure.CommandError(f"{error.name} is not installed", "pip install 'fleet-sync[cloud]'")
    from cloud.table import TableError

    return failure.lines_of(error, "fleet-cloud", (TableError,), "change it on the device")
