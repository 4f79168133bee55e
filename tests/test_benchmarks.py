"""The benchmarks run and say what they promise. No figure is judged here: machines differ. Called by pytest only."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import __main__ as benchmarks
from benchmarks import measure, sampling
from benchmarks.measure import Effort, Result

LEAST = Effort(1, 0.0005, True)
UNITS = {"1/s", "1/s wall", "ratio", "ms wall", "µs CPU", "s CPU", "KB", "MB", "s wall", "%"}


def check(document: dict[str, Any]) -> None:
    assert document["subject"] and document["question"].endswith("?")
    assert document["rows"]
    names = [row["name"] for row in document["rows"]]
    assert len(set(names)) == len(names)
    for row in document["rows"]:
        assert set(row) == {"name", "value", "unit", "repeats", "spread", "note"}
        assert row["unit"] in UNITS
        assert row["value"] > 0
        assert row["repeats"] >= 1
        assert row["spread"] >= 0


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmarks, "QUICK", LEAST)


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("subject", [*benchmarks.SUBJECTS, "profile"])
def test_a_subject_writes_its_figures(subject: str, tmp_path: Path) -> None:
    assert benchmarks.main([subject, "--quick", "--out", str(tmp_path)]) == 0
    (file,) = tmp_path.iterdir()
    assert file.name == f"{subject}.json"
    document = json.loads(file.read_text())
    assert document["subject"] == subject
    assert document["surroundings"]["effort"]["small"] is True
    check(document)


@pytest.mark.usefixtures("hasty")
def test_json_goes_to_standard_output_and_nowhere_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert benchmarks.main(["latency", "--quick", "--json", "--out", str(tmp_path)]) == 0
    (document,) = json.loads(capsys.readouterr().out)
    check(document)
    assert not list(tmp_path.iterdir())


def test_several_subjects_are_each_measured_in_a_process_of_its_own(tmp_path: Path) -> None:
    modules = set(sys.modules)
    assert benchmarks.main(["latency", "profile", "--quick", "--out", str(tmp_path)]) == 0
    assert sorted(file.name for file in tmp_path.iterdir()) == ["latency.json", "profile.json"]
    for file in tmp_path.iterdir():
        check(json.loads(file.read_text()))
    assert {name for name in set(sys.modules) - modules if name.startswith("benchmarks.")} == set()


def test_what_is_no_part_of_the_project_is_a_room_and_no_module_of_a_profile() -> None:
    sampler = sampling.Sampler()
    sampler(0, None)
    assert [(row.name, row.value, row.note) for row in sampling.profile_of(sampler).rows] == [("other", 100.0, "room")]


def test_a_subject_that_does_not_exist_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        benchmarks.main(["speed"])
    assert ended.value.code == 2
    assert "no subject speed" in capsys.readouterr().err


def test_the_profile_is_measured_only_when_asked_for() -> None:
    chosen = [list(benchmarks.chosen(benchmarks.parser().parse_args(argv))) for argv in ([], ["--profile"])]
    assert chosen == [list(benchmarks.SUBJECTS), ["profile"]]


def test_a_row_is_the_median_and_how_far_the_repeats_lie_apart() -> None:
    result = Result("x", "what?")
    assert result.add("n", [9.0, 10.0, 12.0], "1/s") == 10.0
    (row,) = result.rows
    assert (row.value, row.repeats, row.spread) == (10.0, 3, 0.3)


def test_ratios_are_taken_turn_by_turn() -> None:
    assert measure.ratios([10.0, 5.0], [5.0, 10.0]) == [2.0, 0.5]


def test_both_sides_of_a_comparison_take_turns() -> None:
    turns: list[str] = []
    ticks = iter(range(1_000_000))

    def side(name: str) -> measure.Work:
        return lambda _n: turns.append(name)

    measure.side_by_side(side("a"), side("b"), Effort(3, 1.0, True), lambda: float(next(ticks)))
    assert turns[-6:] == ["a", "b", "b", "a", "a", "b"]


def test_a_batch_is_long_enough_to_be_measured() -> None:
    now = 0.0

    def work(n: int) -> None:
        nonlocal now
        now += n * 1e-6

    n = measure.batch_size(work, Effort(1, 0.01, True), lambda: now)
    assert n * 1e-6 >= 0.01


@pytest.mark.parametrize(
    ("module", "room"),
    [
        ("agent/protocol/onetable/model.py", "agent.protocol: schema, messages"),
        ("agent/store.py", "agent: database, session"),
        ("cloud/memory_items.py", "cloud: the table in memory"),
        ("fleet/oracle/checks/feed.py", "fleet.oracle"),
        ("other", "other"),
    ],
)
def test_a_sample_counts_for_the_room_of_its_module(module: str, room: str) -> None:
    assert sampling.room_of(module) == room
