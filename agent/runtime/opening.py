"""From settings to an open database and a log, with the machine's clocks and randomness.

Called by agent.commands.run and agent.runtime.embedded.
"""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Callable
from typing import Final

from agent.database import Database
from agent.files import open_file
from agent.ids import Random
from agent.protocol.log import Log
from agent.protocol.schema import Context, Schema
from agent.runtime.settings import Settings
from agent.system import monotonic_ms, wall_ms

PROBLEM_AGAIN_MS: Final = 3_600_000  # an outage may last for weeks, and the journal is on the device's own flash


def open_database(settings: Settings, random: Random, log: Log) -> tuple[sqlite3.Connection, Database]:
    """Raises InputError for the schema, StoreError for the file."""
    schema = Schema.load(settings.schema)
    connection = open_file(settings.database)
    try:
        context = Context(settings.device, settings.account)
        database = Database(
            connection, schema, context, monotonic_ms=monotonic_ms, wall_ms=wall_ms, random=random
        )  # fmt: skip
    except BaseException:
        connection.close()
        raise
    for difference in database.differences:
        log.event("schema-changed", "warning", difference=str(difference))
    return connection, database


def log_of(settings: Settings, write: Callable[[str], object]) -> Log:
    """`write` takes a line without its end."""
    plain = settings.log_format == "plain" or (settings.log_format == "auto" and sys.stderr.isatty())
    return Log(
        write,
        wall_ms=wall_ms,
        monotonic_ms=monotonic_ms,
        plain=plain,
        least=settings.log_level,
        again_ms=PROBLEM_AGAIN_MS,
    )
