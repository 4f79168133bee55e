"""The corrected clock: near the relay's time whatever the wall clock says, and never led astray by an old answer."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent.clock import CorrectedClock

TRUE_MS = 1_700_000_000_000


class Oscillator:
    """True time, and a device's two clocks."""

    def __init__(self, wall_ms: int = TRUE_MS, ppm: int = 0) -> None:
        self.passed_ms = 0
        self.wall_at_boot_ms = wall_ms
        self.ppm = ppm

    def true_ms(self) -> int:
        return TRUE_MS + self.passed_ms

    def monotonic_ms(self) -> int:
        return self.passed_ms + self.passed_ms * self.ppm // 1_000_000

    def wall_ms(self) -> int:
        return self.wall_at_boot_ms + self.monotonic_ms()

    def clock(self, correction_ms: int | None = None) -> CorrectedClock:
        return CorrectedClock(self.monotonic_ms, self.wall_ms, correction_ms)


def ask(oscillator: Oscillator, clock: CorrectedClock, there_ms: int, back_ms: int) -> int:
    """Asks the relay, whose answer takes this long. Returns how far the clock is off now."""
    asked_ms = oscillator.monotonic_ms()
    oscillator.passed_ms += there_ms
    told_ms = oscillator.true_ms()
    oscillator.passed_ms += back_ms
    clock.learn(told_ms, asked_ms, None)
    return clock.now_ms() - oscillator.true_ms()


def test_an_unlearned_clock_shows_the_wall_clock_and_what_an_earlier_boot_learned() -> None:
    oscillator = Oscillator(wall_ms=5)
    assert oscillator.clock().now_ms() == 5
    assert oscillator.clock(TRUE_MS - 5).now_ms() == TRUE_MS


@given(st.integers(0, TRUE_MS * 2), st.integers(0, 60_000), st.integers(0, 60_000))
def test_the_first_answer_sets_the_clock_within_its_way_back(wall_ms: int, there_ms: int, back_ms: int) -> None:
    oscillator = Oscillator(wall_ms)
    assert ask(oscillator, oscillator.clock(), there_ms, back_ms) == -back_ms


@given(st.lists(st.tuples(st.integers(0, 20_000), st.integers(0, 20_000)), min_size=1, max_size=20))
def test_with_a_true_oscillator_the_clock_is_never_ahead_and_at_most_the_best_way_back_behind(
    ways: list[tuple[int, int]],
) -> None:
    oscillator = Oscillator(wall_ms=0)
    clock = oscillator.clock()
    let_down_ms = 1 + sum(there + back for there, back in ways) * 200 // 1_000_000 + len(ways)
    for number, (there_ms, back_ms) in enumerate(ways, 1):
        off_ms = ask(oscillator, clock, there_ms, back_ms)
        best_ms = min(back for _, back in ways[:number])
        assert -best_ms - let_down_ms <= off_ms <= 0


@given(st.integers(-150, 150), st.integers(1, 48))
def test_a_drifting_oscillator_is_followed(ppm: int, hours: int) -> None:
    oscillator = Oscillator(ppm=ppm)
    clock = oscillator.clock()
    for _ in range(hours):
        ask(oscillator, clock, 50, 50)
        oscillator.passed_ms += 3_600_000
    assert abs(ask(oscillator, clock, 50, 50)) <= 100 + 3_600 * 200 // 1_000


def test_a_clock_ahead_of_what_the_relay_can_have_meant_is_set_back_at_once() -> None:
    oscillator = Oscillator()
    clock = oscillator.clock()
    clock.learn(oscillator.true_ms() + 3_600_000, oscillator.monotonic_ms(), None)  # a relay whose clock was wrong
    assert ask(oscillator, clock, 40, 60) == 40
    assert ask(oscillator, clock, 0, 30) <= 0


def test_a_slow_answer_does_not_set_the_clock_back() -> None:
    oscillator = Oscillator()
    clock = oscillator.clock()
    assert ask(oscillator, clock, 10, 10) == -10
    assert ask(oscillator, clock, 10, 300_000) >= -10 - 300_020 * 200 // 1_000_000 - 2


def test_the_correction_is_told_when_it_is_new_and_when_it_has_moved_a_second() -> None:
    oscillator = Oscillator(wall_ms=0)
    clock = oscillator.clock()
    correction_ms = clock.learn(TRUE_MS, 0, None)
    assert correction_ms == TRUE_MS
    assert clock.learn(TRUE_MS + 999, 0, correction_ms) is None
    assert clock.learn(TRUE_MS + 1_000, 0, correction_ms) == TRUE_MS + 1_000
