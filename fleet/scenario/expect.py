"""What a scenario can expect of a run: the names of the oracle's checks, and the numbers that thresholds are set on.

Names and units only; fleet.scenario.expect_grammar reads expressions, fleet.scenario.expect_measure evaluates them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, Literal, get_args, get_origin

import msgspec

from fleet.intervals import COUNTERS, LATENCIES, VALUES
from fleet.oracle.checks import CLASSES
from reports.summary import Summary

CHECKS: Final = tuple(check.name for check in CLASSES)
ALWAYS_REQUIRED: Final = ("convergence", "no-acked-write-lost")

PROBES: Final = "probes."  # any name: a probe that nothing counted is 0
CONVERGED: Final = "converged_after_s"
RECOVERED: Final = "recovered_s"
SHARES: Final = ("online", "converged")  # of the devices

Kind = Literal["seconds", "megabytes", "bytes", "count"]
Unit = Literal["", "s", "MB", "B"]


def _paths(struct: Any, prefix: str = "") -> Iterator[str]:
    """Of every number in the structure."""
    for field in msgspec.structs.fields(struct):
        kinds = get_args(field.type) or (field.type,)
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            yield from _paths(field.type, f"{prefix}{field.name}.")
        elif get_origin(field.type) is not dict and (int in kinds or float in kinds):
            yield f"{prefix}{field.name}"


PATHS: Final = tuple(_paths(Summary))  # numbers of the whole run
LATENCY_PATHS: Final = tuple(path for path in PATHS if path.startswith("latency_s."))
# Numbers of one group, or of one model.
PART_PATHS: Final = {
    "group": (
        *LATENCY_PATHS, "counts.local_writes", "counts.updates_synced", "counts.reboots", "counts.messages_up",
        "counts.messages_down", "counts.messages_lost", "counts.bytes_up", "counts.bytes_down",
    ),
    "model": (*LATENCY_PATHS, "counts.local_writes", "counts.cloud_writes", "counts.updates_synced"),
}  # fmt: skip
# Path -> column of the timeline: what can be asked of a part of the run. `up_p50_s` is latency_s.up.p50.
_LATENCY_COLUMNS: Final = {f"latency_s.{name.removesuffix('_s').replace('_', '.')}": name for name in LATENCIES}
COLUMNS: Final = {**{name: name for name in (*VALUES, *COUNTERS)}, **_LATENCY_COLUMNS}
OF_THE_MACHINE: Final = ("wall_s", "cpu_s", "rss_mb_max")
# Set at the beginning, or at the end: nothing that a run could be stopped for on its way.
ONLY_AT_THE_END: Final = (*OF_THE_MACHINE, "seed", "devices", "virtual_s", CONVERGED, RECOVERED)


def kind_of(path: str) -> Kind:
    """What unit a limit on it may have."""
    if path.endswith(".count") or path.startswith(PROBES):
        return "count"
    if path.startswith("latency_s.") or path.endswith("_s"):
        return "seconds"
    if "_mb" in path:
        return "megabytes"
    return "bytes" if "bytes" in path else "count"


def is_counter(path: str) -> bool:
    """Whether it only grows, over a run or over a part of it: such a number has a rate, and shares of another."""
    return path in COUNTERS or path.startswith(("counts.", PROBES)) or path.endswith(".count")
