"""A capacity plan as values: what `fleet capacity` finds, prints as JSON, and shows on a page and in a terminal.

Values only. Filled by fleet.capacity.study.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from reports.cost import CostItem
from reports.quotas import QuotaUse, Recovery

# Figure -> unit, what it is. In the order of the tables.
FIGURES: Final[dict[str, tuple[str, str]]] = {
    "peak_connects_per_s": ("1/s", "CONNECTs, peak"),
    "mean_connects_per_s": ("1/s", "CONNECTs, mean"),
    "peak_messages_per_s": ("1/s", "messages, peak"),
    "mean_messages_per_s": ("1/s", "messages, mean"),
    "bytes_up_per_s": ("B/s", "bytes up"),
    "bytes_down_per_s": ("B/s", "bytes down"),
    "write_units_per_s": ("1/s", "write units"),
    "read_units_per_s": ("1/s", "read units"),
    "functions_per_s": ("1/s", "functions"),
    "function_s_per_s": ("s/s", "function time"),
}


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """`model` is empty where the size was simulated; else what was drawn through the parts of the fleet that were, and
    the figure is likely to be from `low` to `high`."""

    value: float
    model: str = ""
    low: float | None = None
    high: float | None = None


class Reached(msgspec.Struct, frozen=True, kw_only=True):
    """A quota that said no at this size: first and last, in seconds from the scenario's start, and how often."""

    name: str
    per: str
    effect: str
    times: int
    first_s: float
    last_s: float


class SizeRow(msgspec.Struct, frozen=True, kw_only=True):
    """One size. `how`: simulated as it is, or by parts of the fleet with parts of the quotas.

    `simulated`: devices of the largest part. `shares`: quota -> peak over its limit; `bounds`: from where to where that
    is likely to be, of a size that was not simulated. `recovery`: after the fault that
    cost the most connections."""

    devices: int
    simulated: int
    how: Literal["simulated", "scaled"]
    verdict: str
    figures: dict[str, Figure]
    shares: dict[str, float]
    reached: list[Reached]
    recovery: Recovery | None
    converged_after_s: float | None
    cost: list[CostItem]
    dollars: float | None  # in all; None where an item has no price
    bounds: dict[str, tuple[float, float]] = {}


class Break(msgspec.Struct, frozen=True, kw_only=True):
    """What gives way at which size of the fleet: `devices` None: at none that was asked for."""

    name: str
    per: str
    devices: int
    limit: float
    unit: str
    effect: str


class BackOff(msgspec.Struct, frozen=True, kw_only=True):
    """One setting of the agent's back-off, tried at one size. `refused`: CONNECTs refused, for each device."""

    label: str
    jitter: float
    base_s: float
    cap_s: float
    devices: int
    back_95_s: float | None
    back_99_s: float | None
    refused: float
    settings: str  # as --set takes them
    curve: list[tuple[float, float]] = []  # seconds since the fault's end, share of the lost connections that are back


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """One figure as parts of a fleet told it, and as it was seen: None: never. `low`, `high`: where it was said to be,
    None where nothing was said of that. `error`: of what was seen; above 0: told too high; None: there is none."""

    name: str
    words: str
    unit: str
    told: float | None
    seen: float | None
    low: float | None = None
    high: float | None = None
    model: str = ""
    error: float | None = None


class HeldOut(msgspec.Struct, frozen=True, kw_only=True):
    """The largest size that was simulated, beside what parts of it (devices of each: `by`) told of it."""

    devices: int
    by: list[int]
    rows: list[Compared] = []


class Capacity(msgspec.Struct, kw_only=True):
    """The whole plan."""

    scenario: str
    seed: int
    preset: str
    duration_s: float
    reproduce: str = ""
    rows: list[SizeRow] = []
    breaks: list[Break] = []
    quotas: list[QuotaUse] = []
    floor_s: float = 0.0
    cap_s: float = 0.0
    jitter: float = 1.0
    back_offs: list[BackOff] = []
    held_out: HeldOut | None = None
    coarse: list[int] = []  # sizes whose parts are so small that they tell little of the recovery
    prices: str = ""  # whose, and of when
    seconds: float = 0.0
