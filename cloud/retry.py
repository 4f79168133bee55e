"""How long to wait before a request that failed is tried again. Used by cloud.dynamodb, and by what stands for it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Retry:
    """Pauses double from `base_ms` to `cap_ms`; each is drawn between nothing and that (full jitter).

    In all at most `attempts_max` calls, each of which may take as long as the client's time-outs allow."""

    attempts_max: int = 8
    base_ms: int = 25
    cap_ms: int = 2_000

    def __post_init__(self) -> None:
        if self.attempts_max < 1 or not 0 < self.base_ms <= self.cap_ms:
            raise ValueError(f"attempts_max {self.attempts_max}: at least 1; base_ms {self.base_ms}: 1 to cap_ms")

    def pause_s(self, attempt: int, chance: float) -> float:
        """Before the attempt of this number, the first being 0. `chance`: from 0 to 1."""
        return chance * float(min(self.cap_ms, self.base_ms * 2 ** min(attempt - 1, 30))) / 1000
