"""When the agent may be connected: always, or on demand; and as far as a metered link's budget goes.

The session says when it wants a connection, and tries again with back-off and jitter; the gate may keep it waiting, and
may close a connection on which nothing is said any more. On demand, a connection is made when something waits to be
sent, and every `poll_ms` to hear what is new. Out of budget, nothing is begun: the connection is closed as soon as it
is quiet, since pings and pushes cost too, and made again when an hour's amount is there. What has begun is finished all
the same, an answer to a hello, a snapshot in parts: cut in the middle, it would begin again and cost more. Pure; time
and chance are given. Called by agent.runtime.driver.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from agent.runtime.budget import Budget

NEVER: Final = 1 << 62
BUDGET_QUIET_MS: Final = 3_000  # without a message, before a connection that may not cost more is closed
POLL_JITTER: Final = 0.2  # of the period, both ways: a fleet must not ask at the same moment


class GateSettings(msgspec.Struct, frozen=True, kw_only=True):
    """`on_demand`: connected only while there is something to say. Budgets: 0 for no limit."""

    on_demand: bool = False
    poll_ms: int = 6 * 3_600_000
    linger_ms: int = 10_000  # without a message, before a connection on demand is closed
    bytes_per_day: int = 0
    messages_per_day: int = 0


class Gate:
    """`need`, where it is asked for: whether something waits to be sent. Times are of the monotonic clock."""

    def __init__(self, settings: GateSettings, now_ms: int, chance: Callable[[], float]) -> None:
        self.settings = settings
        self.budget = Budget(settings.bytes_per_day, settings.messages_per_day, now_ms)
        self._chance = chance
        self._poll_at = now_ms  # the first connection after a boot is made at once
        self._up_ms: int | None = None
        self._quiet_ms = now_ms  # when the last message went or came
        self._idle_bytes_per_s = 0.0

    # What happens.

    def connecting(self, connect_bytes: int, now_ms: int) -> None:
        self.budget.take(connect_bytes, 0, now_ms)

    def connected(self, idle_bytes_per_s: float, now_ms: int) -> None:
        self._up_ms = self._quiet_ms = now_ms
        self._idle_bytes_per_s = idle_bytes_per_s
        spread = 1.0 + POLL_JITTER * (2.0 * self._chance() - 1.0)
        self._poll_at = now_ms + int(self.settings.poll_ms * spread)

    def carried(self, size_bytes: int, now_ms: int) -> None:
        """A message, either way."""
        self._quiet_ms = now_ms
        self.budget.take(size_bytes, 1, now_ms)

    def disconnected(self, now_ms: int) -> None:
        self._pay_idle(now_ms)
        self._up_ms = None

    def _pay_idle(self, now_ms: int) -> None:
        if self._up_ms is not None:
            self.budget.take((now_ms - self._up_ms) / 1000 * self._idle_bytes_per_s, 0, now_ms)
            self._up_ms = now_ms

    # What is asked.

    def opens_in_ms(self, now_ms: int, *, need: bool) -> int:
        """How long the session has to wait for its connection; 0: not at all."""
        poll = 0 if need or not self.settings.on_demand else max(0, self._poll_at - now_ms)
        return max(poll, self.budget.wait_ms(now_ms))

    def why_shut(self, now_ms: int, *, need: bool) -> str:
        """What keeps it waiting."""
        if self.budget.wait_ms(now_ms):
            return "budget"
        return "on-demand" if self.opens_in_ms(now_ms, need=need) else ""

    def closes(self, now_ms: int, *, need: bool) -> str:
        """Why the connection is to be closed now; "": it is not."""
        quiet_ms = now_ms - self._quiet_ms
        if self.budget.is_limited:
            self._pay_idle(now_ms)
            if quiet_ms >= BUDGET_QUIET_MS and self.budget.is_empty(now_ms):
                return "budget"
        if self.settings.on_demand and not need and quiet_ms >= self.settings.linger_ms:
            return "idle"
        return ""

    def look_again_ms(self, now_ms: int) -> int:
        """In how many milliseconds `closes` may say something else, if nothing happens."""
        waits = []
        if self.settings.on_demand:
            waits.append(self._quiet_ms + self.settings.linger_ms - now_ms)
        if self.budget.is_limited:
            waits.append(self._quiet_ms + BUDGET_QUIET_MS - now_ms)
        if not waits:
            return NEVER
        return min((wait for wait in waits if wait > 0), default=max(1_000, self.settings.linger_ms))
