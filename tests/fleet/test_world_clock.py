"""Virtual time: order, ties, cancelling, and simpy's processes on the same clock."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest
import simpy
from hypothesis import given
from hypothesis import strategies as st

from fleet.world.clock import Clock


def order(seed: int, names: list[str], rounds: int = 3) -> list[str]:
    """Everyone schedules something at 10, 20, ... µs; the order in which it happens."""
    clock = Clock(seed)
    seen: list[str] = []
    for name in names:
        tie = clock.tie(name)
        for i in range(rounds):
            clock.post_at(10 * (i + 1), tie, seen.append, f"{name}/{i}")
    clock.run_until(1000)
    return seen


def test_calls_happen_in_order_of_time_and_time_is_a_whole_number() -> None:
    clock = Clock(1)
    tie = clock.tie("a")
    seen: list[tuple[str, int]] = []
    for delay in (30, 10, 20):
        clock.post_in(delay, tie, lambda name: seen.append((name, clock.now)), str(delay))
    clock.run_until(25)
    assert seen == [("10", 10), ("20", 20)]
    assert clock.now == 25
    clock.run_until(30)
    assert len(seen) == 2, "what is due at the end of a run belongs to the next"
    clock.run_until(31)
    assert seen[-1] == ("30", 30)
    assert type(clock.now) is int


def test_a_tie_is_broken_by_the_seed_and_not_by_who_came_first() -> None:
    names = [f"device-{i}" for i in range(8)]
    first = order(1, names)
    assert first == order(1, names)
    assert len({tuple(order(seed, names)) for seed in range(6)}) == 6
    assert first[:8] != [f"{name}/0" for name in names]


@given(st.integers(0, 2**32), st.integers(0, 7))
def test_leaving_out_one_entity_leaves_the_order_of_the_others(seed: int, gone: int) -> None:
    names = [f"device-{i}" for i in range(8)]
    rest = [name for i, name in enumerate(names) if i != gone]
    assert [text for text in order(seed, names) if not text.startswith(f"{names[gone]}/")] == order(seed, rest)


def test_a_cancelled_call_does_not_happen_and_others_of_the_moment_do() -> None:
    clock = Clock(1)
    tie = clock.tie("a")
    seen: list[str] = []
    kept = clock.call_in(5, tie, seen.append, "kept")
    gone = clock.call_in(5, tie, seen.append, "gone")
    gone.cancel()
    assert kept.pending and not gone.pending
    clock.run_until(10)
    assert seen == ["kept"]
    assert not kept.pending
    kept.cancel()


def test_the_past_is_refused() -> None:
    clock = Clock(1)
    tie = clock.tie("a")
    clock.run_until(100)
    with pytest.raises(ValueError, match="in the past"):
        clock.post_at(99, tie, print, None)
    with pytest.raises(ValueError, match="delay"):
        clock.call_in(-1, tie, print, None)
    with pytest.raises(ValueError, match="in the past"):
        clock.run_until(99)


def test_simpy_processes_share_the_clock_with_calls() -> None:
    clock = Clock(1)
    tie = clock.tie("a")
    seen: list[tuple[int, str]] = []
    store = simpy.Store(clock, capacity=1)

    def producer() -> Generator[Any, Any, str]:
        for i in range(3):
            yield clock.timeout(10)
            yield store.put(i)
        return "done"

    def consumer() -> Generator[Any, Any, None]:
        while True:
            got = yield store.get()
            seen.append((clock.now, f"got {got}"))

    clock.process(consumer())
    made = clock.process(producer())
    clock.post_at(15, tie, lambda name: seen.append((clock.now, name)), "call")
    assert clock.run(until=made) == "done"
    clock.run(until=100)
    assert clock.now == 100
    assert seen == [(10, "got 0"), (15, "call"), (20, "got 1"), (30, "got 2")]


def test_an_interrupt_comes_before_anything_else_of_its_moment() -> None:
    for seed in range(20):
        clock = Clock(seed)
        seen: list[str] = []

        def sleeper(clock: Clock = clock, seen: list[str] = seen) -> Generator[Any, Any, None]:
            try:
                yield clock.timeout(10)
                seen.append("slept")
            except simpy.Interrupt:
                seen.append("interrupted")

        process = clock.process(sleeper())
        clock.run_until(5)
        process.interrupt()
        clock.post_in(0, clock.tie("a"), seen.append, "call")
        clock.run_until(20)
        assert seen == ["interrupted", "call"]


def test_errors_come_out_of_the_run_and_the_clock_goes_on() -> None:
    clock = Clock(1)
    tie = clock.tie("a")
    seen: list[int] = []

    def fail(_: object) -> None:
        raise KeyError("broken")

    def broken() -> Generator[Any, Any, None]:
        yield clock.timeout(20)
        raise LookupError("process")

    clock.post_at(10, tie, fail, None)
    clock.process(broken())
    clock.post_at(40, tie, seen.append, 40)
    with pytest.raises(KeyError):
        clock.run_until(30)
    with pytest.raises(LookupError, match="process"):
        clock.run_until(35)
    clock.run_until(50)
    assert seen == [40]
    assert clock.now == 50


def test_a_fraction_of_a_microsecond_is_refused() -> None:
    with pytest.raises(TypeError, match="whole microseconds"):
        Clock(1).timeout(0.5)
