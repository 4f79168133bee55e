"""`summary.json`: its structure, the verdict and the exit code. Scripts depend on it: keys are added, never changed.

Values only: no files, no clock, no simulator. Filled by whoever ran a scenario, read by every other module here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal

import msgspec

from reports.live import LiveRun
from reports.quotas import Quotas

Status = Literal["pass", "fail", "unknown"]

EXIT_PASS: Final = 0
EXIT_FAIL: Final = 1
EXIT_INPUT: Final = 2
EXIT_UNKNOWN: Final = 3
EXIT_HARNESS: Final = 4
EXIT_INTERRUPTED: Final = 130
_EXIT: Final[dict[Status, int]] = {"pass": EXIT_PASS, "fail": EXIT_FAIL, "unknown": EXIT_UNKNOWN}


class Counts(msgspec.Struct, kw_only=True):
    """What happened, over the whole run. `updates_synced`: once per write and receiving side."""

    local_writes: int = 0
    cloud_writes: int = 0
    updates_synced: int = 0
    messages_up: int = 0
    messages_down: int = 0
    messages_lost: int = 0
    bytes_up: int = 0
    bytes_down: int = 0
    connects: int = 0
    disconnects: int = 0
    reboots: int = 0
    retransmits: int = 0
    snapshots: int = 0
    conflicts: int = 0


class Percentiles(msgspec.Struct, frozen=True, kw_only=True):
    """A distribution of latencies, in seconds. All 0 when `count` is 0."""

    count: int = 0
    p50: float = 0.0
    p90: float = 0.0
    p99: float = 0.0
    p999: float = 0.0
    max: float = 0.0


class Latency(msgspec.Struct, kw_only=True):
    """`up`: local commit to table commit. `down`: table commit to device commit."""

    up: Percentiles = msgspec.field(default_factory=Percentiles)
    down: Percentiles = msgspec.field(default_factory=Percentiles)


class Part(msgspec.Struct, kw_only=True):
    """What belongs to one group of devices, or to one model. `counts`: those of the names in `Counts` that can be told
    apart so; of a group also `devices` and `not_in_step` (at the end)."""

    counts: dict[str, int] = {}
    latency_s: Latency = msgspec.field(default_factory=Latency)


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One check of the oracle. `checked`: how often it was evaluated; `failures`: how often it did not hold.

    `required`: the scenario asks for it, so that `unknown` makes the verdict unknown."""

    name: str
    status: Status
    checked: int = 0
    detail: str = ""
    failures: int = 0
    required: bool = False


class Threshold(msgspec.Struct, frozen=True, kw_only=True):
    """One expression of the scenario. `actual` is None when there was nothing to measure (status unknown); its unit is
    the limit's (a rate: a second; a share: 0 to 1). `detail`: the same in words, with where and when, or why there was
    nothing. `abort`: it ends a run early when it fails."""

    expr: str
    status: Status
    actual: float | None = None
    detail: str = ""
    abort: bool = False


class Summary(msgspec.Struct, kw_only=True):
    """The run in numbers. `converged_after_s` is None when the run never converged.

    Added to the documented keys: `plant` (a planted bug's name), `interrupted`, `live` (of a live run), `groups` and
    `models` (by name), `aborted` (the threshold that ended the run early), `quotas` (where the scenario has quotas:
    what was used of them, and what is metered)."""

    scenario: str
    seed: int
    verdict: Status
    trace_hash: str = ""
    backend: str = "memory"
    devices: int = 0
    virtual_s: float = 0.0
    wall_s: float = 0.0
    cpu_s: float = 0.0
    rss_mb_max: float = 0.0
    counts: Counts = msgspec.field(default_factory=Counts)
    latency_s: Latency = msgspec.field(default_factory=Latency)
    converged_after_s: float | None = None
    probes: dict[str, int] = {}
    checks: list[Check] = []
    thresholds: list[Threshold] = []
    reproduce: str = ""
    plant: str = ""
    interrupted: bool = False
    live: LiveRun | None = None
    quotas: Quotas | None = None
    groups: dict[str, Part] = {}
    models: dict[str, Part] = {}
    aborted: str = ""


def verdict(checks: Iterable[Check], thresholds: Iterable[Threshold], required: Iterable[str] = ()) -> Status:
    """Fail if a check or threshold failed; else unknown if a required one was never evaluated; else pass.

    `required` names checks in addition to those that carry the mark; a name that no check has was never evaluated.
    A threshold is always required: the scenario wrote it down, and what was not measured did not pass."""
    needed = frozenset(required)
    seen: dict[str, Status] = {}
    unknown = failed = False
    for check in checks:
        seen[check.name] = check.status
        failed |= check.status == "fail"
        unknown |= check.status == "unknown" and (check.required or check.name in needed)
    for threshold in thresholds:
        failed |= threshold.status == "fail"
        unknown |= threshold.status == "unknown"
    if failed:
        return "fail"
    return "unknown" if unknown or any(name not in seen for name in needed) else "pass"


def exit_code(summary: Summary) -> int:
    """What the command that ran it exits with."""
    return EXIT_INTERRUPTED if summary.interrupted else _EXIT[summary.verdict]


def checks_in_order(checks: Iterable[Check]) -> list[Check]:
    """As people should read them: failures, required ones that were never evaluated, passes, the rest."""

    def rank(check: Check) -> int:
        if check.status == "fail":
            return 0
        if check.status == "pass":
            return 2
        return 1 if check.required else 3

    return sorted(checks, key=rank)
