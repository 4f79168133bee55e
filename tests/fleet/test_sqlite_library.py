"""SQLite's library without its locks: told before it is opened, or not at all."""

from __future__ import annotations

import subprocess
import sys

USE = """
import sys
from fleet.sqlite_library import without_locks
{before}
print(without_locks())
import sqlite3
connection = sqlite3.connect(":memory:")
connection.execute("CREATE TABLE t(x)")
connection.executemany("INSERT INTO t VALUES(?)", [(n,) for n in range(1000)])
print(connection.execute("SELECT sum(x) FROM t").fetchone()[0])
"""


def in_a_process(before: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", USE.format(before=before)], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_a_library_that_nobody_has_opened_takes_it_and_works() -> None:
    assert in_a_process("") == ["True", "499500"]


def test_a_library_that_is_open_is_left_alone() -> None:
    assert in_a_process("import sqlite3") == ["False", "499500"]


def test_an_interpreter_that_has_the_module_built_in_is_left_alone() -> None:
    built_in = "import fleet.sqlite_library as it; it.find_spec = lambda name: None"
    assert in_a_process(built_in) == ["False", "499500"]
