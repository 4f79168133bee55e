"""After a power cut at any write or sync: the database opens, what was acknowledged is there whole, nothing is there in
part, and the outbox holds exactly what is not yet acknowledged. On a simulated disk; and proof that this can fail.

The machinery is in power_cut, what the device does in power_scenario, the disk in simulated_disk.
"""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path
from typing import Any, Final

import pytest
from power_cut import (
    NEW,
    Recording,
    Result,
    UnexpectedError,
    Unwrapped,
    boots_to,
    crashes,
    cut_everywhere,
    cut_recoveries,
    live,
    record,
    reference,
)
from power_scenario import LATER, STEPS, Step
from simulated_disk import (
    FATES,
    FILE,
    LOG_PAGES,
    SHORT_LOG_PAGES,
    Disk,
    Files,
    Platter,
    abandon,
    connect,
    drop,
    keep,
    tear,
)

from agent.store import Store
from fleet.rng import rng

SEEDS: Final = 200


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """The states of the scenario on a real file; each step has made the transactions, and left the outbox, that it
    should."""
    return reference(tmp_path_factory.mktemp("reference") / FILE)


# What must hold


@pytest.mark.parametrize("log_pages", [LOG_PAGES, SHORT_LOG_PAGES])
def test_after_a_cut_at_any_operation_all_that_was_acknowledged_is_there_and_nothing_in_part(
    known: Recording, log_pages: int, capsys: pytest.CaptureFixture[str]
) -> None:
    recording = record(known, Disk(), log_pages=log_pages)
    result = cut_everywhere(recording, FATES)
    with capsys.disabled():
        print(f" [{result}]", end="")
    assert not result.failures, "\n".join(result.failures[:10])
    assert result.points == (len(recording.log) + 1) * len(FATES) > 2_000
    assert result.disks > 900, "the cuts leave hardly anything to find"


def test_after_a_second_cut_while_the_machine_recovers_too(
    known: Recording, capsys: pytest.CaptureFixture[str]
) -> None:
    result = cut_recoveries(record(known, Disk(), log_pages=SHORT_LOG_PAGES), FATES, every=50)
    with capsys.disabled():
        print(f" [{result}]", end="")
    assert not result.failures, "\n".join(result.failures[:10])
    assert result.points > 5_000


@pytest.mark.slow
def test_after_a_cut_with_any_other_fate_of_what_was_pending(
    known: Recording, capsys: pytest.CaptureFixture[str]
) -> None:
    recording = record(known, Disk(), log_pages=SHORT_LOG_PAGES)
    drawn = {name: FATES[name] for name in ("tear", "tear_front", "sectors", "garbage")}
    total = Result()
    for seed in range(2, SEEDS):
        total.add(cut_everywhere(recording, drawn, seed))
    with capsys.disabled():
        print(f" [{total}]", end="")
    assert not total.failures, "\n".join(total.failures[:10])


@pytest.mark.slow
def test_after_a_second_cut_while_the_machine_recovers_from_any_first_one(
    known: Recording, capsys: pytest.CaptureFixture[str]
) -> None:
    result = cut_recoveries(record(known, Disk(), log_pages=SHORT_LOG_PAGES), FATES, every=1)
    with capsys.disabled():
        print(f" [{result}]", end="")
    assert not result.failures, "\n".join(result.failures[:10])
    assert result.points > 200_000


def test_the_scenario_makes_every_kind_of_operation_and_leaves_every_kind_of_state(known: Recording) -> None:
    recording = record(known, Disk(), log_pages=SHORT_LOG_PAGES)
    assert {op.kind for op in recording.log} == {"create", "write", "truncate", "delete", "sync", "sync folder"}
    assert {op.name for op in recording.log} == {FILE, f"{FILE}-journal", f"{FILE}-wal"}
    rows = [row for step in STEPS for row in step.outbox]
    assert {row.split()[1] for row in rows} == {"create", "update", "delete", "sweep"}
    assert {row.split()[3] for row in rows} == {"unsent", "sent", "sent*", "acked", "held"}
    assert sum(step.commits for step in STEPS) > 30


# It can fail


def caught(recording: Recording, why: str) -> None:
    """By the cuts, and for this reason (a regular expression)."""
    result = cut_everywhere(recording, FATES, failures_max=100_000)
    assert any(re.search(why, failure) for failure in result.failures), result.failures[:3]


def test_a_disk_that_lies_about_syncs_is_caught(known: Recording) -> None:
    caught(record(known, Disk(syncs=False)), r"^drop at .* after write: found the state of the start")


def test_a_folder_that_is_never_synced_is_caught(known: Recording) -> None:
    caught(record(known, Disk(syncs_folder=False)), r"^drop at .* after write: found the state of the start")


@pytest.mark.parametrize("setting", ["OFF", "NORMAL"])
def test_a_weaker_synchronous_setting_is_caught(known: Recording, setting: str) -> None:
    caught(record(known, Disk(), f"synchronous={setting}"), r"^drop at .* after snapshot: found the state of ")


class Halved(Store):
    """Commits in the middle of its transactions."""

    def set_acked(self, u: int, op_id: str | None) -> None:
        if self.connection.in_transaction:
            self.execute("COMMIT")
            self.execute("BEGIN IMMEDIATE")
        super().set_acked(u, op_id)


class Late(Store):
    """Says that it has committed, and does so with the next write."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        super().__init__(connection)
        execute = self.execute

        def delayed(sql: str, values: Any = (), /) -> sqlite3.Cursor:
            if sql == "COMMIT":
                return execute("SELECT 1")
            if connection.in_transaction and sql == "BEGIN IMMEDIATE":
                execute("COMMIT")
            return execute(sql, values)

        self.execute = delayed


@pytest.mark.parametrize("store_type", [Halved, Unwrapped])
def test_a_store_that_commits_twice_is_caught(known: Recording, store_type: type[Store]) -> None:
    early = STEPS[: -len(LATER)]  # where no application undoes a transaction: without them that shows by itself
    caught(record(known, Disk(), store_type=store_type, steps=early), "a part of a transaction")


def test_a_store_that_commits_late_is_caught(known: Recording) -> None:
    caught(record(known, Disk(), store_type=Late, steps=STEPS[:10]), "after swept: found the state of adopted")


@pytest.mark.parametrize(("commits", "outbox"), [(2, ("1 sweep - unsent",)), (3, ()), (3, ("1 sweep - sent",))])
def test_a_step_that_does_not_do_what_it_should_is_caught(
    tmp_path: Path, commits: int, outbox: tuple[str, ...]
) -> None:
    boot = STEPS[0]
    reference(tmp_path / "right.db", [boot])
    with pytest.raises(UnexpectedError, match=r"^boot: "):
        reference(tmp_path / "wrong.db", [Step(boot.name, boot.act, commits, outbox)])


def test_a_file_that_is_not_sound_is_caught(known: Recording) -> None:
    """A page of an index that was never written: opened without a word, found by the check."""
    *_, (_, _, files) = crashes(record(known, Disk(), steps=STEPS[:26]), {"keep": keep})
    assert boots_to(files) == known.states[26][-1]
    page = 4096 * 2
    data = files[FILE]
    unsound = {**files, FILE: data[:page] + bytes(4096) + data[page + 4096 :]}
    with pytest.raises(Exception, match=r"integrity_check|damaged"):
        boots_to(unsound)


# The disk itself


def small(*pragmas: str) -> tuple[Disk, sqlite3.Connection]:
    disk = Disk()
    connection = connect(disk, *pragmas)
    connection.execute("CREATE TABLE t(a)")
    return disk, connection


def test_what_is_not_synced_is_pending_and_what_is_synced_is_durable() -> None:
    disk = Disk()
    file = disk.open("a", create=True)
    disk.ask("write", "a", file, 0, b"x" * 1_000)
    disk.ask("sync", "a", file)
    disk.ask("sync folder", "a", file)
    disk.ask("write", "a", file, 900, b"y" * 600)
    disk.ask("truncate", "a", file, 1_400)
    platter = Platter({}, disk.log)

    def left(fate: Any) -> Files:
        return platter.after(fate, rng(1, "test", "disk"))

    assert left(keep) == {}
    platter.step()
    platter.step()
    assert left(keep) == {"a": b"x" * 1_000} and left(drop) == {}
    platter.step()
    assert left(drop) == {}, "its bytes are durable, its name is not"
    platter.step()
    assert left(drop) == {"a": b"x" * 1_000}
    platter.step()
    assert left(keep) == {"a": b"x" * 900 + b"y" * 600} and left(drop) == {"a": b"x" * 1_000}
    torn = left(tear)["a"]
    assert torn[:901] == b"x" * 900 + b"y" and 900 < len(torn.rstrip(b"x")) < 1_500
    platter.step()
    assert left(keep) == disk.files() == {"a": b"x" * 900 + b"y" * 500}


def test_a_write_is_split_at_the_sectors_of_the_disk() -> None:
    disk = Disk()
    disk.ask("write", "a", 0, 500, bytes(range(256)) * 3)
    parts = list(disk.log[0].sectors())
    assert [(part.at, len(part.data)) for part in parts] == [(500, 12), (512, 512), (1_024, 244)]
    assert b"".join(part.data for part in parts) == disk.log[0].data


def test_what_was_deleted_comes_back_until_the_folder_is_synced() -> None:
    disk = Disk({"a": b"old"})
    disk.ask("delete", "a", 0)
    file = disk.open("a", create=True)
    disk.ask("write", "a", file, 0, b"new")
    disk.ask("sync", "a", file)
    disk.ask("sync folder", "a", file)
    platter = Platter({"a": b"old"}, disk.log)
    found = []
    for _ in disk.log:
        platter.step()
        found.append(platter.after(drop, rng(1, "test", "disk")))
    assert found == [{"a": b"old"}] * 4 + [{"a": b"new"}]


def test_the_settings_on_the_simulated_disk_are_those_of_a_real_file() -> None:
    _, connection = small()
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert connection.execute("PRAGMA locking_mode").fetchone() == ("exclusive",)
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
    abandon(connection)


def test_a_commit_ends_in_a_sync_of_the_log() -> None:
    disk, connection = small()
    disk.log.clear()
    connection.execute("INSERT INTO t VALUES(1)")
    assert (disk.log[-1].kind, disk.log[-1].name) == ("sync", f"{FILE}-wal")
    abandon(connection)


def test_a_recording_says_what_a_cut_between_two_calls_may_leave() -> None:
    one, two, three = {"a": [(1,)]}, {"a": [(2,)]}, {"a": [(3,)]}
    recording = Recording(["the start", "x", "y", "z"], [[NEW], [one], [two, three], [three]], [0, 4, 9, 9])
    assert recording.allowed(0) == ("after the start", [NEW])
    assert recording.allowed(3) == ("during x", [NEW, one])
    assert recording.allowed(4) == ("after x", [one])
    assert recording.allowed(8) == ("during y", [one, two, three])
    assert recording.allowed(9) == ("after z", [three])


def test_a_run_on_the_simulated_disk_goes_through_the_states_of_one_on_a_real_file(known: Recording) -> None:
    """All of them, also those within a step."""
    disk = Disk()
    there = live(lambda: connect(disk), STEPS, NEW, lambda: len(disk.log))
    assert there.states == known.states and there.names == known.names
    assert there.marks[-1] == len(record(known, Disk()).log)
