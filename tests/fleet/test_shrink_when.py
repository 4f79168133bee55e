"""From when on a failure cannot be avoided: the moment is found where runs that are drawn anew fail all the same."""

from __future__ import annotations

from pathlib import Path

import pytest
from run_rig import fleet
from shrink_rig import FAILS, KIND, PASSES, tiny_plan

from fleet.commands.shrink_output import conclusion
from fleet.scenario.plan import Plan
from fleet.shrink import when
from fleet.shrink.step import Step, step
from fleet.shrink.when import Localised, Point, localise, reseeded
from fleet.shrink.witness import watch
from fleet.sweep.pool import Here, opened

DECIDED_US = 70_000_000


def decides(data: bytes, early: bool, hashed: bool) -> Step:
    """Fails with one run of five, and always once it is decided."""
    plan = Plan.decode(data)
    assert plan.reseed is not None
    return FAILS if plan.reseed.at_us >= DECIDED_US or plan.reseed.number % 5 == 0 else PASSES


def found_with(jobs: int, plan: Plan) -> Localised:
    arguments = (plan, KIND, 120_000_000)
    if not jobs:
        return localise(Here(), *arguments, points=5, runs=10, early=True, stopped=lambda found, count: False)
    with opened(jobs) as pool:
        return localise(pool, *arguments, points=5, runs=10, early=True, stopped=lambda found, count: False)


def test_the_moment_is_found_and_looked_at_more_closely(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(when, "step", decides)
    found = found_with(0, tiny_plan(tmp_path, ""))
    assert found.complete and found.moment_us is not None and found.before_us is not None
    assert found.before_us < DECIDED_US <= found.moment_us
    assert found.moment_us - found.before_us < 120_000_000 / 4 / 5**3 + 5
    assert [point.at_us for point in found.points] == sorted(point.at_us for point in found.points)
    assert {point.failed for point in found.points} == {2, 10}
    assert conclusion(found, True)[0].startswith("It was decided between 69.")


def test_a_single_moment_that_came_out_high_by_chance_does_not_count() -> None:
    found = Localised([Point(0, 1, 10), Point(1, 10, 10), Point(2, 3, 10), Point(3, 9, 10), Point(4, 10, 10)])
    found.judge()
    assert (found.before_us, found.moment_us) == (2, 3)
    never = Localised([Point(0, 1, 10), Point(1, 8, 10)])
    never.judge()
    assert never.moment_us is None and "could be avoided" in conclusion(never, False)[0]
    always = Localised([Point(0, 9, 10), Point(1, 10, 10)])
    always.judge()
    assert (always.before_us, always.moment_us) == (None, 0) and "not be avoided at all" in conclusion(always, False)[0]


def test_it_can_be_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(when, "step", decides)
    plan = tiny_plan(tmp_path, "")
    found = localise(Here(), plan, KIND, 9, points=3, runs=4, early=True, stopped=lambda found, count: count >= 5)
    assert not found.complete and found.points == []


def test_faults_that_lie_ahead_come_at_another_time_and_those_of_the_past_stay(tmp_path: Path) -> None:
    plan = tiny_plan(tmp_path, "")
    at_us = 150_000_000
    drawn = [reseeded(plan, at_us, number) for number in (1, 2)]
    for one in drawn:
        for before, after in zip(plan.faults, one.faults, strict=True):
            past = [event for event in before.events if event[0] <= at_us]
            assert after.events[: len(past)] == past and len(after.events) == len(before.events)
            assert all(at > at_us and at + n <= plan.duration_us for at, _, n in after.events[len(past) :])
    assert drawn[0].faults != drawn[1].faults != plan.faults


def test_a_watched_run_is_the_run_and_tells_of_writes_messages_and_faults(tmp_path: Path) -> None:
    plan = tiny_plan(tmp_path, "")
    seen = watch(plan.encode())
    assert seen.trace_hash == step(plan.encode(), False, True).trace_hash
    labels = {arrow.label.split()[0] for arrow in seen.story.arrows}
    assert {"hello", "up", "ack", "rows", "write"} <= labels
    assert any(arrow.lost.startswith("lost: ") for arrow in seen.story.arrows), "an outage loses some"
    told = {note.text for note in seen.story.notes}
    assert {"power on", "connected", "broker-outage begins", "broker-outage is over"} <= told
    came = [arrow for arrow in seen.story.arrows if arrow.came_us is not None]
    assert len(came) > 100 and all(arrow.came_us >= arrow.sent_us for arrow in came if arrow.came_us is not None)


def test_the_command_tells_when(tmp_path: Path) -> None:
    path = tmp_path / "failed.plan.json"
    path.write_bytes(tiny_plan(tmp_path, "direction-forgotten").encode())
    done = fleet("shrink", str(path), "--when", "--runs", "3", "--points", "2", "--jobs", "2")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(tmp_path / "failed.plan.when.svg")
    assert "drawn anew from" in done.stdout and "3 of 3" in done.stdout
    assert (tmp_path / "failed.plan.when.svg").read_text().startswith("<svg")
