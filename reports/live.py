"""What `summary.json` says of a live run beyond a simulated one: what was real, what was not applied, how it compares.

Values only. Filled by fleet.live; shown by reports.terminal and reports.html.
"""

from __future__ import annotations

import msgspec


class NotApplied(msgspec.Struct, frozen=True, kw_only=True):
    """Something of the scenario that has no real counterpart in a live run."""

    name: str
    kind: str
    why: str


class Total(msgspec.Struct, frozen=True, kw_only=True):
    """One number, live and simulated."""

    name: str
    live: int
    simulated: int

    @property
    def equal(self) -> bool:
        return self.live == self.simulated


class Distribution(msgspec.Struct, frozen=True, kw_only=True):
    """Latencies one way, in seconds, live and simulated. `distance`: the largest difference of the two shares of
    latencies up to any value (Kolmogorov and Smirnov), 0 for the same distribution, 1 for two that nowhere overlap;
    None where either has no latency. `at_s`: where it is."""

    name: str
    live: dict[str, float]
    simulated: dict[str, float]
    distance: float | None = None
    at_s: float | None = None


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """The live run beside the same plan simulated. `same_items`: items of the table that ended in the same state, of
    `items` in either."""

    totals: list[Total] = []
    latencies: list[Distribution] = []
    same_items: int = 0
    items: int = 0
    simulated_passed: bool = True

    @property
    def equal(self) -> bool:
        """Whether all totals are."""
        return all(total.equal for total in self.totals)


class Attached(msgspec.Struct, frozen=True, kw_only=True):
    """A device that was expected and not started, as far as the cloud can see it."""

    device: str
    status: str  # pass, fail
    hellos: int = 0
    batches: int = 0
    acks: int = 0
    items: int = 0
    detail: str = ""


class LiveRun(msgspec.Struct, frozen=True, kw_only=True):
    """What took part. `speed`: by how much the plan's waits were shortened."""

    speed: float
    broker: str
    table: str
    relays: int
    processes: int
    not_applied: list[NotApplied] = []
    attached: list[Attached] = []
    comparison: Comparison | None = None
