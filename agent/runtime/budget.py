"""What a metered link may carry: a token bucket of bytes and one of messages, each of a day's amount.

A bucket fills evenly, so that a day's amount is there after a day, and holds one day's at most. What was sent and heard
is taken out, estimates of headers and of idle connections too. It may go below nothing, by a day's amount at most: what
has begun is finished, and paid for by the silence after it. Pure; time is given. Called by agent.runtime.gate.
"""

from __future__ import annotations

from typing import Final

import msgspec

DAY_MS: Final = 86_400_000
RESUME_SHARE: Final = 24  # an empty bucket must hold an hour's amount before anything is sent again


class Bucket:
    """`per_day` 0: no limit."""

    __slots__ = ("_at_ms", "_level", "per_day")

    def __init__(self, per_day: int, now_ms: int) -> None:
        self.per_day = per_day
        self._level = float(per_day)
        self._at_ms = now_ms

    def level(self, now_ms: int) -> float:
        filled = self._level + self.per_day * max(0, now_ms - self._at_ms) / DAY_MS
        return min(float(self.per_day), filled)

    def set(self, level: float, now_ms: int) -> None:
        self._level = min(max(level, -float(self.per_day)), float(self.per_day))
        self._at_ms = now_ms

    def take(self, amount: float, now_ms: int) -> None:
        if self.per_day:
            self.set(self.level(now_ms) - amount, now_ms)

    def is_empty(self, now_ms: int) -> bool:
        return self.per_day > 0 and self.level(now_ms) <= 0

    def wait_ms(self, now_ms: int) -> int:
        """Until it holds enough to begin something; 0: now."""
        if not self.per_day:
            return 0
        missing = self.per_day / RESUME_SHARE - self.level(now_ms)
        return 0 if missing <= 0 else int(missing * DAY_MS / self.per_day) + 1


class _Kept(msgspec.Struct, frozen=True):
    data: float
    messages: float
    at_ms: int  # since 1970


class Budget:
    """`bytes_per_day`, `messages_per_day`: 0 for no limit. Times are of the monotonic clock, but where it is said."""

    __slots__ = ("_data", "_messages")

    def __init__(self, bytes_per_day: int, messages_per_day: int, now_ms: int) -> None:
        self._data = Bucket(bytes_per_day, now_ms)
        self._messages = Bucket(messages_per_day, now_ms)

    @property
    def is_limited(self) -> bool:
        return bool(self._data.per_day or self._messages.per_day)

    def take(self, data: float, messages: int, now_ms: int) -> None:
        self._data.take(data, now_ms)
        self._messages.take(messages, now_ms)

    def is_empty(self, now_ms: int) -> bool:
        return self._data.is_empty(now_ms) or self._messages.is_empty(now_ms)

    def wait_ms(self, now_ms: int) -> int:
        return max(self._data.wait_ms(now_ms), self._messages.wait_ms(now_ms))

    def left(self, now_ms: int) -> tuple[int | None, int | None]:
        """Bytes and messages that may go now; None where there is no limit."""
        found = [int(bucket.level(now_ms)) if bucket.per_day else None for bucket in (self._data, self._messages)]
        return found[0], found[1]

    def kept(self, now_ms: int, wall_ms: int) -> bytes:
        """To be remembered over a restart: a device that boots again and again has no new day each time."""
        return msgspec.json.encode(_Kept(self._data.level(now_ms), self._messages.level(now_ms), wall_ms))

    def restore(self, kept: bytes, now_ms: int, wall_ms: int) -> None:
        """What was kept, filled since then by the wall clock; by one that went back, not at all."""
        try:
            found = msgspec.json.decode(kept, type=_Kept)
        except msgspec.DecodeError:
            return  # as if there were none: a full bucket
        passed_ms = min(max(0, wall_ms - found.at_ms), 2 * DAY_MS)
        for bucket, level in ((self._data, found.data), (self._messages, found.messages)):
            bucket.set(level + bucket.per_day * passed_ms / DAY_MS, now_ms)
