"""How much one device may ask of one relay: a guard against a device gone mad, no fair share.

Counts per window of time, in this relay's memory alone. A device over its measure is told once in a window to wait; its
further messages are dropped unread by the table. Called by `cloud.relay`.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

from cloud.config import RelayConfig


class Verdict(Enum):
    TAKE = "take"
    TELL = "tell"  # too many: say so
    DROP = "drop"  # too many, and it was told


class Flow:
    """One relay's counts: messages of each kind, by device."""

    def __init__(self, config: RelayConfig, clock_ms: Callable[[], int]) -> None:
        self.config = config
        self.clock_ms = clock_ms
        self._began_ms = 0
        self.hellos: dict[str, int] = {}
        self.ups: dict[str, int] = {}
        self.digests: dict[str, int] = {}

    def digest(self, device_id: str) -> bool:
        """Whether a comparison has room. Nobody is told of one that has not: it will be tried again some time."""
        config = self.config
        if self.count(self.digests, device_id, config.digest_per_window) is not Verdict.TAKE:
            return False
        return self.count(self.digests, "", config.digests_per_window) is Verdict.TAKE

    def count(self, counts: dict[str, int], device_id: str, most: int) -> Verdict:
        """One message more. `counts`: `hellos`, `ups` or `digests`; `most` of them may come in a window."""
        now_ms = self.clock_ms()
        if not 0 <= now_ms - self._began_ms < self.config.hello_window_ms:
            self._began_ms = now_ms
            self.hellos.clear()
            self.ups.clear()
            self.digests.clear()
        count = counts[device_id] = counts.get(device_id, 0) + 1
        if count <= most:
            return Verdict.TAKE
        return Verdict.TELL if count == most + 1 else Verdict.DROP

    def left_ms(self) -> int:
        """Until the window is over, at least 1."""
        return max(1, self._began_ms + self.config.hello_window_ms - self.clock_ms())
