"""Transactions a second of the device's database: in memory by CPU time, on a real file by the wall's clock.

On a file every write waits until the disk has it (write-ahead log, synchronous=FULL): that is the disk's figure as much
as the database's. The file lies in the system's temporary directory; TMPDIR moves it.
"""

from __future__ import annotations

import sqlite3
import tempfile
from itertools import count
from pathlib import Path

from agent.database import Database
from agent.files import open_file, open_memory
from benchmarks.ground import database, load_schema, properties
from benchmarks.measure import CPU, WALL, Clock, Effort, Result, Work, rates

QUESTION = "how many writes does a device's database take?"


def _updates(db: Database) -> Work:
    """The same item again and again: what is not sent yet is overwritten in place."""
    revs = count(1)

    def work(n: int) -> None:
        for _ in range(n):
            db.upsert("Status", properties(next(revs)))

    return work


def _creates(db: Database) -> Work:
    revs = count(1)

    def work(n: int) -> None:
        for _ in range(n):
            db.create("Fault", properties(next(revs)))

    return work


def _reads(db: Database) -> Work:
    db.upsert("Setting", {"name": "mode", **properties(1)})

    def work(n: int) -> None:
        for _ in range(n):
            db.get("Setting", {"name": "mode"})

    return work


def _measure(result: Result, where: str, connection: sqlite3.Connection, clock: Clock, effort: Effort) -> None:
    db = database(connection, load_schema())
    unit = "1/s" if clock is CPU else "1/s wall"
    result.add(f"update one item, {where}", rates(_updates(db), effort, clock), unit)
    result.add(f"create items, {where}", rates(_creates(db), effort, clock), unit)
    result.add(f"read one item, {where}", rates(_reads(db), effort, clock), unit)
    db.close()


def run(effort: Effort) -> Result:
    result = Result("database", QUESTION)
    _measure(result, "memory", open_memory(), CPU, effort)
    with tempfile.TemporaryDirectory(prefix="fleet-benchmark-") as folder:
        _measure(result, "file", open_file(Path(folder) / "device.db"), WALL, effort)
    return result
