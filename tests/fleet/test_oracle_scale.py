"""The oracle is linear in what it is told, and what it keeps does not grow with virtual time."""

from __future__ import annotations

import time
import tracemalloc
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracle_history import STEP_US, History, command, config, fault, notice, setting, status

from fleet.oracle import Oracle, text_for
from fleet.oracle.payload import is_genuine
from fleet.oracle.state import ABSENT, UNKNOWN, WINDOW_US, Item

D: Final = "home-1"


def day(h: History, rounds: int) -> None:
    """Items come and go on both sides, and one device of the account hears of nothing but by its hellos."""
    for n in range(rounds):
        name = f"x{h.t}"
        h.write(D, status(D), "create" if n == 0 and status(D) not in h.table else "update")
        h.write(D, fault(D, name), "create")
        h.sync_up(D)
        h.write(D, fault(D, name), "delete")
        h.sync_up(D)
        h.write(D, setting(D, name), "create")
        h.sync_up(D)
        h.log(setting(D, name))
        h.write(D, setting(D, name), "delete")
        h.sync_up(D)
        h.log(setting(D, name))
        h.cloud(config(D))
        h.push(D, config(D))
        for key in (command(D, name), notice("main", name)):
            h.cloud(key)
            h.log(key)
            h.cloud(key, "delete")
            h.log(key)
        h.catch_up(D, f"device#{D}")
        h.hello(D)
        for device in (D, "home-2"):
            h.catch_up(device, "account#main")
            h.hello(device, "account")
        h.t += WINDOW_US // 20


def start() -> History:
    h = History()
    for device in h.devices:
        h.head(device, 0)
        for feed in ("device", "account"):
            h.snapshot(device, [], feed=feed)
    return h


def test_what_is_gone_everywhere_is_forgotten() -> None:
    h = start()
    day(h, 60)
    kept = len(h.oracle._items)
    day(h, 200)
    assert len(h.oracle._items) <= kept + 5
    assert len(h.oracle._dead) <= 6 * 25
    assert all(not feed.unsettled for feed in h.oracle._feeds.values())
    assert all(len(device.ops) <= 3 for device in h.oracle._devices.values())
    assert h.oracle.failures() == 0
    results = h.finish()
    assert all(r.status != "fail" for r in results.values()), results


def test_memory_is_flat_over_virtual_time() -> None:
    h = start()
    h.up.values = h.down.values = _Nothing()
    day(h, 80)
    tracemalloc.start()
    day(h, 40)
    text_for.cache_clear()
    before = tracemalloc.get_traced_memory()[0]
    day(h, 160)
    text_for.cache_clear()
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert grown < 60_000, grown  # 2,000 writes; a hundred bytes for each would be over three times as much


class _Nothing(list[int]):
    def append(self, _value: int, /) -> None:
        pass


def test_the_history_of_an_item_goes_back_to_its_slowest_reader_only() -> None:
    h = start()
    for n in range(400):
        h.cloud(notice("main"))
        h.log(notice("main"))
        h.see(D, notice("main"))
        if n < 200:
            h.see("home-2", notice("main"))
        h.t += WINDOW_US // 10
    item = h.oracle._items[notice("main")]
    assert 200 <= len(item.history) < 250
    h.see("home-2", notice("main"))
    for _ in range(300):
        h.cloud(notice("main"))
        h.log(notice("main"))
        for device in (D, "home-2"):
            h.see(device, notice("main"))
        h.t += WINDOW_US // 10
    assert len(item.history) < 40
    assert h.oracle.failures() == 0
    assert h.oracle.updates_synced == 2 * 700


def _seconds(rounds: int) -> float:
    h = start()
    recorded = _Recorder(h.oracle)
    h.oracle = recorded  # type: ignore[assignment]
    day(h, rounds)
    fresh = start().oracle
    began = time.process_time()
    for name, arguments in recorded.calls:
        getattr(fresh, name)(*arguments)
    return time.process_time() - began


class _Recorder:
    def __init__(self, oracle: Oracle) -> None:
        self.oracle = oracle
        self.calls: list[tuple[str, tuple[object, ...]]] = []

    def __getattr__(self, name: str) -> object:
        def call(*arguments: object) -> None:
            self.calls.append((name, arguments))
            getattr(self.oracle, name)(*arguments)

        return call


def test_time_is_linear_in_what_happened() -> None:
    short = min(_seconds(100) for _ in range(3))
    long = min(_seconds(800) for _ in range(2))
    assert long < 8 * short * 2.5, (short, long)


@given(rev=st.integers(1, 2**60), size=st.integers(1, 2000))
def test_a_text_belongs_to_one_number_and_one_size(rev: int, size: int) -> None:
    text = text_for(rev, size)
    assert len(text) == size
    assert text.isascii()
    assert is_genuine(rev, text)
    if size > 16:
        assert not is_genuine(rev + 1, text)
        assert not is_genuine(rev, text[:-1])
        assert not is_genuine(rev, text[1:] + text[:1] + "x")
    assert not is_genuine(None, text)
    assert not is_genuine(rev, 7)


@given(revs=st.lists(st.one_of(st.none(), st.integers(1, 1000)), min_size=1, max_size=40, unique_by=lambda r: r or 0))
def test_a_state_is_found_by_its_number_while_the_window_holds_it(revs: list[int | None]) -> None:
    h = start()
    item = h.oracle._find_item(config(D))
    assert item is not None
    for n, rev in enumerate(revs):
        item.advance(rev, (n + 1) * STEP_US)
    for n, rev in enumerate(revs):
        if rev is not None:
            assert item.find(rev, ABSENT) == n
            assert item.at(n) == rev
    assert item.find(5000, ABSENT) == UNKNOWN
    assert item.superseded_us(item.index) is None
    if len(revs) > 1:
        assert item.superseded_us(0) == 2 * STEP_US


@pytest.mark.parametrize(
    ("revs", "seen", "found"),
    [
        ([1, None, 2, None], 0, 1),  # the first absence that may follow what was seen
        ([1, None, 2, None], 2, 3),
        ([1, None, 2], 2, 1),  # a step back
        ([1, 2], 1, ABSENT),  # back before the first state
    ],
)
def test_an_absence_is_the_earliest_that_may_follow(revs: list[int | None], seen: int, found: int) -> None:
    h = start()
    item: Item | None = h.oracle._find_item(config(D))
    assert item is not None
    for n, rev in enumerate(revs):
        item.advance(rev, n)
    assert item.find(None, seen) == found
