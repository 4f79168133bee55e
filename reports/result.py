"""RunResult: everything that a finished run leaves behind, as plain values, and the only input of the reports.

Knows no file and no simulator. The runner fills it; `reports.rundir` writes it to a directory and reads it back.
"""

from __future__ import annotations

import msgspec

from reports.quotas import Asked, LoadRow
from reports.summary import Latency, Summary

Row = dict[str, int | float]  # one interval of the timeline: column -> number; columns are open-ended

# Columns that the plots know. Counters count what happened in the interval; the others are values at its end.
# Counters: writes_device, writes_cloud, synced, messages_up, messages_down, messages_lost, retransmits, conflicts,
#   connects, disconnects, snapshots (loaded), duplicates (messages and batches that came twice), throttled (requests
#   that the table refused). Values: t_s (start of the interval), online, outbox, feed_lag, converged (devices in step:
#   with power, nothing of their own waiting, nothing of the table's missing), up_p50_s, up_p90_s, up_p99_s, down_p50_s,
#   down_p90_s, down_p99_s (latencies of the interval).


class FaultWindow(msgspec.Struct, frozen=True, kw_only=True):
    """One fault as it was: it acted from `start_s` to `end_s`; `healed_s`: what it broke was whole again;
    `recovered_s`: the fleet was back in step (None: not seen). `devices`: how many it touched."""

    name: str
    kind: str
    start_s: float
    end_s: float
    healed_s: float | None = None
    recovered_s: float | None = None
    devices: int = 0


class LatencyPhase(msgspec.Struct, frozen=True, kw_only=True):
    """The latencies of what was synced before, during or after faults (`name`), which was so long. `up` and `down`:
    (microseconds, how often) in rising order, to 1 %."""

    name: str
    seconds: float
    latency_s: Latency
    up: list[tuple[int, int]] = []
    down: list[tuple[int, int]] = []


class DeviceRow(msgspec.Struct, frozen=True, kw_only=True):
    """A device that did not end as it should, and why."""

    device: str
    group: str = ""
    reason: str = ""
    state: str = ""
    outbox: int = 0
    cursor: str = ""
    last_ack_s: float | None = None


class Checkpoint(msgspec.Struct, frozen=True, array_like=True):
    """The trace hash after so many events: two runs are compared by these before their events are."""

    events: int
    t_us: int
    hash: str


class Violation(msgspec.Struct, frozen=True, kw_only=True):
    """The first that a check found, in its parts: what `detail` says in words. `device` and `item` may be empty."""

    check: str
    t_s: float
    device: str = ""
    item: str = ""
    expected: str = ""
    found: str = ""


class LatencySlot(msgspec.Struct, frozen=True, array_like=True):
    """The latencies of what was synced from `t_s` on, until the next slot; as in LatencyPhase."""

    t_s: float
    up: list[tuple[int, int]]
    down: list[tuple[int, int]]


class StoryEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One event of the trace, as the trace has it; `detail` may be cut."""

    t_us: int
    kind: str
    entity: str
    detail: str = ""


class RunResult(msgspec.Struct, kw_only=True):
    """A finished run. `log` holds lines without line ends; `versions` maps a component to its version; `violations`:
    the first of each check that failed, in the checks' order; `phases`: those that the run had, in order of time;
    `slots`: the run cut into at most 128 equal parts; `story`: what the traced replay of a failed run tells around the
    first of the violations; `sketches`: SVG that others have put into the run directory, by file name; `events`: in the
    trace, 0 when it was read back; `load`: connections second by second, of a scenario with
    quotas, and `asked`, what was asked of these, neither of them kept."""

    summary: Summary
    timeline: list[Row] = []
    faults: list[FaultWindow] = []
    devices: list[DeviceRow] = []
    scenario_yaml: str = ""
    plan_json: bytes = b"{}"
    checkpoints: list[Checkpoint] = []
    log: list[str] = []
    versions: dict[str, str] = {}
    violations: list[Violation] = []
    load: list[LoadRow] = []
    asked: Asked = {}
    phases: list[LatencyPhase] = []
    slots: list[LatencySlot] = []
    story: list[StoryEvent] = []
    sketches: dict[str, bytes] = {}
    events: int = 0
