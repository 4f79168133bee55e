"""Sightings of a live run, the times of commits, and the comparison of distributions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from agent.protocol.messages import Key
from agent.protocol.schema import Schema
from fleet.live import sightings
from fleet.live.clock import RunClock, monotonic_us
from fleet.live.comparison import kolmogorov_smirnov
from fleet.live.figures import read as figures_of
from fleet.live.following import Following
from fleet.live.judge import _at_their_commits, date, until_final
from fleet.live.script import count_models
from fleet.live.table import Commit
from fleet.oracle.stored import HEAD, LOG
from fleet.scenario.shipped import schema_path
from reports.histogram import LatencyRecorder

ITEM: Key = ("device#d1", "setting#a")
FAULT: Key = ("device#d1", "fault#1")
OWN: Key = (f"{HEAD}d1", "head")


def up(*ops: tuple[int, str, Key]) -> bytes:
    """A batch: (number, kind, key) each."""
    listed = [{"u": u, "kind": kind, "id": "x", "key": key, "updated": 1, "image": None} for u, kind, key in ops]
    return msgspec.json.encode({"t": "up", "epoch": "e", "first_u": 1, "ops": listed})


def commit(key: Key, new: dict[str, Any] | None, said_us: int, old: dict[str, Any] | None = None) -> Commit:
    return Commit(key, old, new, said_us, 0, 10_000_000)


@pytest.fixture
def clock() -> RunClock:
    made = RunClock(monotonic_us())
    made.start_wall_us = 0
    return made


def test_a_record_that_a_kill_has_torn_is_none_and_the_next_one_follows_the_last_whole(tmp_path: Path) -> None:
    path, times = tmp_path / "d.seen", iter(range(100))
    writer = sightings.Writer(path, lambda: next(times))
    writer("one", "d", [1, 2])
    writer("two", b"\0\1")
    writer.close()
    whole = path.read_bytes()
    for cut in range(1, 12):
        path.write_bytes(whole[:-cut])
        assert [name for _, name, _ in sightings.read(path)] == ["one"]
    again = sightings.Writer(path, lambda: 7)
    again("three")
    again.close()
    assert sightings.read(path) == [(0, "one", ["d", [1, 2]]), (7, "three", [])]


def test_what_one_message_does_takes_no_time(tmp_path: Path) -> None:
    times = iter(range(100))
    writer = sightings.Writer(tmp_path / "d.seen", lambda: next(times))
    with writer.at_once():
        writer("heard")
        writer("saw")
    writer("wrote")
    writer.close()
    assert [t for t, _, _ in sightings.read(tmp_path / "d.seen")] == [0, 0, 1]


def test_a_commit_is_not_before_its_cause_nor_before_the_one_before_it(clock: RunClock) -> None:
    seen: dict[str, Any] = {
        "d1": [(5_000, "wire_up", ["d1", up((1, "create", ITEM))])],
        "": [(9_000, "cloud_wrote", [("device#d1", "config#"), 7, "put"])],
    }
    commits = [
        commit(OWN, {"epoch": "e", "up": 1}, 4_000),
        commit(ITEM, {"rev": 3, "_op": ["d1", "e", 1, "x"]}, 4_500),
        commit(("device#d1", "config#"), {"rev": 7}, 8_000),
        commit((f"{LOG}device#d1", "f#1"), {"key": ITEM}, 8_500),
    ]
    date(commits, seen, clock)
    assert [one.t_us for one in commits] == [5_000, 5_000, 9_000, 9_000]


def test_what_one_transaction_has_changed_has_one_time_whatever_the_emulator_says(clock: RunClock) -> None:
    seen: dict[str, Any] = {"d1": [(1_000, "wire_up", ["d1", up((1, "delete", FAULT), (2, "create", ITEM))])], "": []}
    commits = [
        commit(OWN, {"epoch": "e", "up": 2}, 2_000, {"epoch": "e", "up": 0}),
        commit(FAULT, None, 300_000, {"rev": 1}),
        commit(ITEM, {"rev": 2, "_op": ["d1", "e", 2, "x"]}, 600_000),
        commit(FAULT, None, 700_000, {"rev": 9}),
        commit(ITEM, {"rev": 5}, 800_000),
    ]
    date(commits, seen, clock)
    assert [one.t_us for one in commits] == [2_000, 2_000, 2_000, 2_000, 800_000]


def test_a_delete_of_an_application_in_the_cloud_is_told_when_it_is_carried_out(clock: RunClock) -> None:
    records: Any = [(1_000, "cloud_wrote", [ITEM, 0, "delete"]), (2_000, "cloud_wrote", [ITEM, 0, "delete"])]
    commits = [commit(ITEM, {"rev": 4}, 2_500), commit(ITEM, None, 3_000, {"rev": 4})]
    done = date(commits, {"": records}, clock)
    assert done == {(ITEM, 2_000): 3_000}
    assert [t for t, _, _ in _at_their_commits(records, done)] == [1_000, 3_000]


def test_what_a_device_did_after_its_last_look_is_left_out() -> None:
    saw: Any = (1, "device_saw", [])
    final: Any = (2, sightings.FINAL, [[], 0, None])
    wrote: Any = (3, "device_wrote", [])
    assert until_final([saw, final, wrote]) == [saw, final]
    assert until_final([saw, final, wrote, final, wrote]) == [saw, final, wrote, final]
    assert until_final([saw, wrote]) == [saw, wrote]


def recorder(*values_us: int) -> LatencyRecorder:
    made = LatencyRecorder()
    for value in values_us:
        made.add(value)
    return made


def test_the_distance_of_two_distributions() -> None:
    assert kolmogorov_smirnov(recorder(1, 2, 3), recorder(1, 2, 3)) == (0.0, 0)
    assert kolmogorov_smirnov(recorder(1, 2), recorder(10, 20)) == (1.0, 2)
    assert kolmogorov_smirnov(recorder(1, 2, 3, 4), recorder(3, 4, 5, 6)) == (0.5, 2)
    assert kolmogorov_smirnov(recorder(), recorder(1)) == (None, None)


def test_everybody_is_in_step_when_no_row_is_missing_and_all_have_come_to_the_end() -> None:
    path = schema_path("fleet.json5")
    assert path is not None
    schema = Schema.load(path)
    following = Following(schema, {"d1": "acme"})
    key = ("device#d1", "config#")
    row = (f"{LOG}device#d1", "0000000000000aa#000000000001")
    following.take([commit(key, {"rev": 1}, 0)])
    assert following.unlogged == {key: 1}
    following.take([commit(row, {"key": list(key), "image": {"rev": 1}}, 0)])
    assert not following.unlogged
    tail = following.tail("d1", "device")
    assert tail is not None and tail[1] == 1
    status = {"on": True, "done": True, "rows": 0, "healing": False, "cursors": {"device": list(tail)}}
    assert following.in_step("d1", status)
    assert not following.in_step("d1", {**status, "rows": 1})
    assert not following.in_step("d1", {**status, "cursors": {"device": [tail[0], 0]}})
    assert following.behind("d1", {"cursors": {"device": []}}) == ["device:none/1"]
    assert count_models(schema, dict.fromkeys([key, ("device#d1", "status#"), ("x", "y")])) == {
        "Status": 1,
        "Config": 1,
    }


def test_a_relays_page_of_figures_gives_what_its_logic_counts() -> None:
    page = """\
# TYPE fleet_relay_events_total counter
fleet_relay_events_total{event="catchup_rows"} 12.0
fleet_relay_table_calls_total{operation="GetItem"} 400.0
fleet_relay_digests_total{result="same"} 3.0
"""
    assert figures_of(page) == {"catchup_rows": 12, "digest_same": 3}
