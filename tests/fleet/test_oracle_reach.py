"""Reach is the furthest cursor that what was delivered allows, whatever the order of delivery."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fleet.oracle.reach import Reach

ranges = st.lists(st.tuples(st.integers(0, 12), st.integers(1, 5)).map(lambda p: (p[0], p[0] + p[1])), max_size=12)


def furthest(start: int, delivered: list[tuple[int, int]]) -> int:
    """By trying until nothing moves."""
    seq, moved = start, True
    while moved:
        moved = False
        for a, b in delivered:
            if a <= seq < b:
                seq, moved = b, True
    return seq


@given(start=st.integers(0, 6), delivered=ranges)
def test_it_is_what_a_device_that_keeps_everything_could_apply(start: int, delivered: list[tuple[int, int]]) -> None:
    reach = Reach("e", start)
    for a, b in delivered:
        reach.rows("e", a, b)
    best = furthest(start, delivered)
    assert reach.seq == best
    assert reach.covers("e", best)
    assert not reach.covers("e", best + 1)


def test_a_snapshot_moves_on_and_an_epoch_left_is_remembered() -> None:
    reach = Reach("a", 3)
    reach.rows("a", 5, 7)
    reach.snapshot("a", 5)
    assert reach.seq == 7
    reach.snapshot("b", 1)
    assert (reach.epoch, reach.seq) == ("b", 1)
    assert reach.covers("a", 7)
    assert not reach.covers("a", 8)
    assert reach.covers("b", 1)
    assert not reach.covers("c", 0)


def test_a_late_snapshot_of_a_former_epoch_may_be_refused_or_taken() -> None:
    reach = Reach("b", 1)
    reach.snapshot("a", 2)
    reach.rows("b", 1, 2)
    reach.rows("a", 2, 5)
    assert reach.covers("b", 2)
    assert reach.covers("a", 5)
    assert not reach.covers("a", 6)


def test_a_disk_set_back_may_stand_in_any_former_epoch_and_go_on_there_but_not_beyond() -> None:
    reach = Reach("b", 1)
    for n in range(10):
        reach.snapshot(f"c{n}", n)
    reach.rows("c2", 2, 3)
    assert reach.covers("b", 1) and not reach.covers("b", 2)
    assert reach.covers("c2", 3) and not reach.covers("c2", 4)
    assert all(reach.covers(f"c{n}", n) for n in range(10))
    assert not reach.covers("c", 0)
