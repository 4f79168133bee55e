"""What a write's return promises: it is on the disk. Real files, a real process, a real kill.

A kill of the process shows what SQLite had handed to the system; that it was also synced is shown by the settings, and
by the simulated disk elsewhere.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest
from device_rig import Device, fresh_memory, memory_of

from agent.files import open_file
from agent.store import Store, StoreError
from fleet.rng import rng

ROOT: Final = Path(__file__).resolve().parents[2]
WRITER: Final = Path(__file__).with_name("durable_writer.py")


@contextmanager
def writer(file: Path, *mode: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, str(WRITER), str(file), *mode],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


class Said:
    """What the process has said that it wrote, over all its lives."""

    def __init__(self) -> None:
        self.wrote: list[int] = [0]
        self.acked = 0

    def hear(self, line: str) -> None:
        word, number = line.split()
        if word == "wrote":
            self.wrote.append(int(number))
        else:
            self.acked = int(number)


def check(file: Path, said: Said) -> None:
    """Everything that was said is there, and the file is sound."""
    connection = open_file(file)
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    device = Device(connection=connection)
    database = device.open()
    revs = [item["rev"] for item in database.find("Fault")]
    last = said.wrote[-1]
    assert revs == list(range(1, len(revs) + 1))
    assert len(revs) in (last, last + 1), "one write more may have been made than was said"
    diagnostics = {item["name"]: item["rev"] for item in database.find("Diagnostic")}
    for number in said.wrote[1:]:
        assert diagnostics[str(number % 7)] >= number
    assert device.store.identity.acked_u >= said.acked
    assert memory_of(device.store) == fresh_memory(connection)
    connection.close()


def test_a_file_is_opened_with_the_log_and_full_synchronisation(tmp_path: Path) -> None:
    connection = open_file(tmp_path / "agent.db")
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert Store(connection).synchronous() == 2
    assert connection.isolation_level is None
    connection.close()


def test_every_write_that_returned_survives_kill_9(tmp_path: Path) -> None:
    file = tmp_path / "agent.db"
    draw = rng(7, "test", "kill")
    said = Said()
    for _ in range(6):
        with writer(file, "until-killed") as process:
            assert process.stdout is not None
            for _ in range(1 + draw.below(40)):
                said.hear(process.stdout.readline())
            process.send_signal(signal.SIGKILL)
            for line in process.stdout:  # what it had said before it died
                if line.endswith("\n"):
                    said.hear(line)
            assert process.wait() == -signal.SIGKILL
        check(file, said)
    assert len(said.wrote) > 30 and said.acked > 10


@pytest.mark.parametrize("room_kb", [100, 200, 400])
def test_a_full_disk_refuses_the_write_and_keeps_all_before_it(tmp_path: Path, room_kb: int) -> None:
    file = tmp_path / "agent.db"
    with writer(file, "until-full", str(room_kb * 1024)) as process:
        assert process.stdout is not None
        lines = process.stdout.read().splitlines()
    assert lines[-1] == "same", "what the store remembers is what the file says"
    word, _, reason = lines[-2].partition(" ")
    assert word == "refused" and ("full" in reason or "I/O" in reason)
    said = Said()
    for line in lines[:-2]:
        said.hear(line)
    assert len(said.wrote) > 3
    check(file, said)


def test_a_disk_with_room_again_takes_writes_again(tmp_path: Path) -> None:
    file = tmp_path / "agent.db"
    with writer(file, "until-full", str(64 * 1024)) as process:
        assert process.stdout is not None
        assert process.stdout.read().splitlines()[-1] == "same"
    device = Device(connection=open_file(file))
    database = device.open()
    before = len(list(database.find("Fault")))
    database.create("Fault", {"id": "later", "rev": 1})
    assert len(list(database.find("Fault"))) == before + 1
    device.connection.close()


def test_what_is_no_database_is_refused_by_its_name(tmp_path: Path) -> None:
    file = tmp_path / "agent.db"
    file.write_text("not a database, though long enough to be looked at\n" * 100)
    with pytest.raises(StoreError, match=r"agent\.db: .*not a database"):
        open_file(file)
