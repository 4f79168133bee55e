"""The corrected clock: what the device stamps its writes with. Never reads a clock of its own: both are passed in.

corrected = monotonic + offset. The offset is learned from the `now` in acknowledgements. The relay stamped an
acknowledgement after it was asked and before it arrived: the offset lies between the two. The low end is low by the
delay on the way, so the largest one is the best; it is let down slowly (200 ppm), since the device's oscillator may run
fast, and at once when it is above the high end. Used by Database (stamps) and Session (learning).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

_LET_DOWN_PPM: Final = 200
_KEEP_IF_MOVED_MS: Final = 1_000  # the correction on file follows only moves like this: it costs a write


class CorrectedClock:
    """`monotonic_ms` counts since boot; `wall_ms` is the device's own idea of the time, perhaps 1970."""

    __slots__ = ("_learned_at_ms", "_monotonic_ms", "_offset_ms", "_wall_ms", "corrected")

    def __init__(self, monotonic_ms: Callable[[], int], wall_ms: Callable[[], int], correction_ms: int | None) -> None:
        """`correction_ms`: what an earlier boot learned about the wall clock; None when none did."""
        self._monotonic_ms = monotonic_ms
        self._wall_ms = wall_ms
        self._learned_at_ms = monotonic_ms()
        self._offset_ms = wall_ms() - self._learned_at_ms + (correction_ms or 0)
        self.corrected = False  # by an acknowledgement since boot

    def now_ms(self) -> int:
        """Milliseconds since 1970, as near to the relay's as was learned."""
        return self._monotonic_ms() + self._offset_ms

    def learn(self, relay_now_ms: int, asked_ms: int, known_correction_ms: int | None) -> int | None:
        """Takes a sample: the relay's time, somewhen between `asked_ms` (monotonic) and now. Only for an answer that is
        known to be one: the time in an old message says nothing. Returns the correction to the wall clock when it
        should be written to the file, else None."""
        now = self._monotonic_ms()
        low, high = relay_now_ms - now, relay_now_ms - asked_ms
        best = self._offset_ms - (now - self._learned_at_ms) * _LET_DOWN_PPM // 1_000_000
        if not self.corrected or low > best:
            best = low
        elif best > high:
            best = high
        self._offset_ms = best
        self._learned_at_ms = now
        self.corrected = True
        correction = now + best - self._wall_ms()
        if known_correction_ms is not None and abs(correction - known_correction_ms) < _KEEP_IF_MOVED_MS:
            return None
        return correction
