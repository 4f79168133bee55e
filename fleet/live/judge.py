"""The oracle's verdict on a live run: all that was seen, put in order, told to the same oracle as a simulation's.

Sightings carry the machine's own time and need no guess. A commit of the table does: the emulator says when it was to
some precision, and a look at the stream says before when. It is put no earlier than what caused it (the message that
carried the operation, the application's write), no earlier than the commit before it, and no later than it was; all
commits of one transaction get one time, as the oracle wants it. Reads files, and nothing else. Called by fleet.live.run
when the run is over.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import isnan
from pathlib import Path
from typing import Any, Final

from agent.protocol.messages import Key
from agent.protocol.schema import Schema
from cloud.table import PRIVATE_PREFIX, Item
from fleet.latencies import Latencies, Phases
from fleet.live import sightings
from fleet.live.clock import RunClock
from fleet.live.script import is_answer
from fleet.live.sightings import Sighting
from fleet.live.table import Commit
from fleet.oracle import CheckResult, Oracle
from fleet.oracle.stored import HEAD, LOG, OP, head_device
from fleet.oracle.wire import upward
from fleet.scenario.plan import Plan
from reports.result import Row

_NOT_THE_ORACLES: Final = (
    sightings.INTENT, sightings.DONE, sightings.MINTED, sightings.COUNTED, sightings.FINAL,
)  # fmt: skip
_KEYED: Final = ("device_sets_end",)  # calls that take no time
_TIMELESS: Final = ("device_reads", *_KEYED)
ONLINE: Final = "online"  # devices that are, in the run's own file
_SEEN, _COMMIT = 0, 1


class Verdict:
    """What the oracle says, and what was counted on the way."""

    def __init__(self, oracle: Oracle, latencies: Latencies) -> None:
        self.oracle = oracle
        self.latencies = latencies
        self.checks: list[CheckResult] = []
        self.counts: Counter[str] = Counter()
        self.timeline: list[Row] = []
        self.latency_up, self.latency_down = latencies.up, latencies.down
        self.state: dict[Key, int | None] = {}
        self.answers = 0  # writes of results of commands
        self.healed: list[int] = []  # when faults were healed, as the oracle was told


def gathered(folder: Path, devices: Iterable[str]) -> dict[str, list[Sighting]]:
    """Every device's sightings, and under "" those of the run itself."""
    found = {name: sightings.read(folder / f"{name}.seen") for name in devices}
    found[""] = sightings.read(folder / "run.seen")
    return found


def judged(
    plan: Plan,
    schema: Schema,
    clock: RunClock,
    seen: Mapping[str, Sequence[Sighting]],
    commits: Sequence[Commit],
    table: Sequence[Item] | None,
    end_us: int,
    is_foreign: Callable[[Key], object] = lambda _: False,
) -> Verdict:
    """`table`: all items at the end; None: the run was interrupted, and has no end to be judged. `is_foreign`: whether
    an item is none of these devices', and left out."""
    latencies = Latencies([group.name for group in plan.groups], schema.models)
    members = [(device.id, plan.groups[device.group].account) for device in plan.devices]
    oracle = Oracle(
        schema,
        members,
        latency_up=latencies.up,
        latency_down=latencies.down,
        start_ms=clock.start_wall_us // 1000,
        tallies=latencies.by_device(plan),
    )
    oracle.commands_are(plan.commands.keep_us, plan.commands.spacing_us)
    verdict = Verdict(oracle, latencies)
    seen = {name: until_final(records) for name, records in seen.items()}
    seen = {**seen, "": _at_their_commits(seen[""], date(commits, seen, clock))}
    commits = [commit for commit in commits if not is_foreign(commit.key)]
    table = None if table is None else [item for item in table if not is_foreign((item["pk"], item["sk"]))]
    own = [record for record in seen[""] if record[1] != "cloud_wrote" or not is_foreign(_pair(record[2][0]))]
    seen = {**seen, "": own}
    story = _Story(verdict, schema, plan.interval_us, Phases(plan))
    if not plan.faults:
        oracle.healed(0)
    for t_us, _, what in _in_order(seen, commits):
        story.until(t_us)
        if isinstance(what, Commit):
            oracle.committed(t_us, what)
        else:
            story.tell(what)
    story.close(end_us)
    verdict.checks = oracle.results() if table is None else _finished(oracle, members, seen, table, end_us, verdict)
    return verdict


def _in_order(
    seen: Mapping[str, Sequence[Sighting]], commits: Sequence[Commit]
) -> list[tuple[int, int, Commit | Sighting]]:
    """By time; at the same one, what may cause a commit first. The order within a source stays."""
    events: list[tuple[int, int, Commit | Sighting]] = []
    for records in seen.values():
        for record in records:
            if record[1] == sightings.FINAL:
                continue
            events.append((record[0], _SEEN, record))
    events += [(commit.t_us, _COMMIT, commit) for commit in commits]
    events.sort(key=lambda event: (event[0], event[1]))
    return events


def _finished(
    oracle: Oracle,
    members: Sequence[tuple[str, str]],
    seen: Mapping[str, Sequence[Sighting]],
    table: Sequence[Item],
    end_us: int,
    verdict: Verdict,
) -> list[CheckResult]:
    finals = {name: _final(seen[name]) for name, _ in members}
    minted = {
        name: sum(int(record[2][0]) for record in seen[name] if record[1] == sightings.MINTED) for name, _ in members
    }
    verdict.state = {(item["pk"], item["sk"]): item.get("rev") for item in table if not _is_private(item["pk"])}

    def items(name: str) -> Iterable[tuple[Key, int | None, Any]]:
        for key, rev, image in finals[name][0]:
            yield (key[0], key[1]), rev, image

    return oracle.finish(
        end_us,
        items,
        table,
        {name: rows for name, (_, rows, _) in finals.items()},
        minted,
        {name: (first[0], first[1]) for name, (_, _, first) in finals.items() if first is not None},
    )


def _final(records: Sequence[Sighting]) -> tuple[list[Any], int, Any]:
    """Of a device that was not there at the end: nothing that anybody can read."""
    for record in reversed(records):
        if record[1] == sightings.FINAL:
            items, rows, first = record[2]
            return items, rows, first
    return [], 0, None


def until_final(records: Sequence[Sighting]) -> Sequence[Sighting]:
    """Without what the device did after its last look, which nobody has looked at."""
    last = max((n for n, record in enumerate(records) if record[1] == sightings.FINAL), default=len(records))
    return records[: last + 1]


def _is_private(pk: str) -> bool:
    return pk.startswith(PRIVATE_PREFIX)


# Commits and their times.


Asked = tuple[Key, int]  # a delete by an application in the cloud: the item, and when it was asked for


def _at_their_commits(records: Sequence[Sighting], done: Mapping[Asked, int]) -> list[Sighting]:
    """The oracle wants to know of a delete when it is carried out: what there is to be deleted may come meanwhile."""
    found = []
    for t_us, name, arguments in records:
        if name == "cloud_wrote" and arguments[2] == "delete":
            t_us = done.get((_pair(arguments[0]), t_us), t_us)
        found.append((t_us, name, arguments))
    return found


def date(commits: Sequence[Commit], seen: Mapping[str, Sequence[Sighting]], clock: RunClock) -> dict[Asked, int]:
    """Gives every commit its time. Returns when the deletes of applications in the cloud were carried out."""
    causes = _Causes(seen)
    done: dict[Asked, int] = {}
    last_us = 0
    n = 0
    while n < len(commits):
        end = _transaction(commits, n, causes)
        together = commits[n:end]
        first = together[0]
        said_us = min(max(clock.of_wall(first.said_us), first.before_us), first.looked_us)
        caused_us = max(causes.of(commit) for commit in together)
        asked_us = causes.of_delete(first, said_us) if first.new is None else None
        last_us = max(last_us, said_us, caused_us, asked_us or 0)
        if asked_us is not None:
            done[first.key, asked_us] = last_us
        for commit in together:
            commit.t_us = last_us
        n = end
    return done


def _transaction(commits: Sequence[Commit], start: int, causes: _Causes) -> int:
    """Where the commits end that belong together with the one at `start`: a HEAD that moves, and behind it what its
    operations have changed."""
    head = commits[start]
    pk = head.key[0]
    end = start + 1
    if not pk.startswith(HEAD) or head.new is None:
        return end
    device, epoch, up = head_device(pk), head.new["epoch"], head.new["up"]
    low = head.old["up"] if head.old is not None and head.old["epoch"] == epoch else 0
    while low < up and end < len(commits) and _is_of(commits[end], device, epoch, range(low + 1, up + 1), causes):
        end += 1
    return end


def _is_of(commit: Commit, device: str, epoch: str, moved: range, causes: _Causes) -> bool:
    """Whether one of these operations has made the commit; of what the relay keeps beside items nobody asks."""
    if _is_private(commit.key[0]):
        return not commit.key[0].startswith((HEAD, LOG))
    if commit.new is None:
        return any(causes.deletes(device, epoch, u, commit.key) for u in moved)
    mark = commit.new.get(OP)
    was = commit.old.get(OP) if commit.old is not None else None
    return bool(mark is not None and mark != was and mark[0] == device and mark[1] == epoch and mark[2] in moved)


PRECISION_US: Final = 1_000  # of the times that emulators tell


class _Causes:
    """When what may cause a commit was under way."""

    def __init__(self, seen: Mapping[str, Sequence[Sighting]]) -> None:
        self._ops: dict[tuple[str, Any, int], int] = {}  # (device, epoch, number) -> when it was first sent
        self._removals: dict[tuple[str, str, int], Key] = {}  # (device, epoch, number) of a delete -> its item
        self._writes: dict[tuple[Key, int], int] = {}  # (key, rev) -> when an application in the cloud wrote it
        self._deletes: dict[Key, list[int]] = {}  # key -> when applications in the cloud deleted it
        for records in seen.values():
            for t_us, name, arguments in records:
                if name == "wire_up":
                    self._sent(t_us, arguments[0], arguments[1])
                elif name == "cloud_wrote":
                    key, rev, kind = arguments
                    if kind == "delete":
                        self._deletes.setdefault((key[0], key[1]), []).append(t_us)
                    else:
                        self._writes[(key[0], key[1]), rev] = t_us

    def _sent(self, t_us: int, device: str, payload: bytes) -> None:
        message = upward(payload)
        if message is None:
            return
        for op in message.ops:
            self._ops.setdefault((device, message.epoch, op.u), t_us)
            if op.kind == "delete":
                self._removals[device, message.epoch, op.u] = op.key

    def deletes(self, device: str, epoch: str, u: int, key: Key) -> bool:
        """Whether that operation is to delete the item."""
        return self._removals.get((device, epoch, u)) == key

    def of(self, commit: Commit) -> int:
        new = commit.new
        if new is None:
            return 0
        if commit.key[0].startswith(HEAD):
            return self._ops.get((head_device(commit.key[0]), new["epoch"], new["up"]), 0)
        mark = new.get(OP)
        caused_us = self._writes.get((commit.key, new.get("rev", 0)), 0)
        return max(caused_us, self._ops.get((mark[0], mark[1], mark[2]), 0)) if mark is not None else caused_us

    def of_delete(self, commit: Commit, said_us: int) -> int | None:
        """Nothing in the table says whose delete it was: the last one that an application had asked for by then."""
        asked = self._deletes.get(commit.key, ())
        for by_us in (said_us + PRECISION_US, commit.looked_us):
            before = [t_us for t_us in asked if t_us <= by_us]
            if before:
                return before[-1]
        return None


# What is told, and counted.


class _Story:
    """Tells the oracle what was seen, and keeps the counts and the timeline."""

    def __init__(self, verdict: Verdict, schema: Schema, interval_us: int, phases: Phases) -> None:
        self._verdict = verdict
        self._schema = schema
        self._oracle = verdict.oracle
        self._interval_us = interval_us
        self._phases = phases
        self._next_us = interval_us
        self._before: Counter[str] = Counter()
        self._values: dict[str, int] = {ONLINE: 0, "outbox": 0, "converged": 0}

    def until(self, t_us: int) -> None:
        """Closes the intervals that end before."""
        while t_us >= self._next_us:
            self._row(self._next_us - self._interval_us, self._next_us)
            self._next_us += self._interval_us

    def close(self, end_us: int) -> None:
        self.until(end_us)
        self._row(self._next_us - self._interval_us, end_us)
        self._verdict.latencies.finish()

    def tell(self, record: Sighting) -> None:
        t_us, name, arguments = record
        counts = self._verdict.counts
        if name == sightings.COUNTED:
            counts.update(arguments[0])
            return
        if name == ONLINE:
            self._values.update(arguments[0])
            return
        if name in _NOT_THE_ORACLES:
            return
        if name == "device_wrote":
            self._verdict.answers += is_answer(self._schema, _pair(arguments[1]))
        if name == "healed":
            self._verdict.healed.append(t_us)
        if name in ("wire_up", "wire_down"):
            way = name.removeprefix("wire_")
            counts[f"messages_{way}"] += 1
            counts[f"bytes_{way}"] += len(arguments[1])
        call = getattr(self._oracle, name)
        if name == "device_expired":
            *before, own = _with_keys(name, arguments)
            call(t_us, *before, own=own)
        elif name in _TIMELESS:
            call(*_with_keys(name, arguments))
        else:
            call(t_us, *_with_keys(name, arguments))

    def _row(self, start_us: int, end_us: int) -> None:
        verdict, oracle = self._verdict, self._oracle
        now = Counter(verdict.counts)
        now.update(writes_device=oracle.local_writes, writes_cloud=oracle.cloud_writes, synced=oracle.updates_synced)
        row: Row = {"t_s": start_us / 1e6}
        for name in COUNTERS:
            row[name] = now[_PROBES.get(name, name)] - self._before[_PROBES.get(name, name)]
        row.update(self._values)
        quantiles = verdict.latencies.close(self._phases.of(start_us, end_us), (end_us - start_us) / 1e6)
        for way, values in zip(("up", "down"), quantiles, strict=True):
            if not isnan(values[0]):
                row[f"{way}_p50_s"], row[f"{way}_p90_s"], row[f"{way}_p99_s"] = values
        verdict.timeline.append(row)
        self._before = now


COUNTERS: Final = (
    "writes_device", "writes_cloud", "synced", "messages_up", "messages_down", "connects", "disconnects",
    "retransmits", "conflicts",
)  # fmt: skip
_PROBES: Final = {"retransmits": "retransmit", "conflicts": "conflict_lost"}


def _pair(value: Sequence[str]) -> Key:
    return value[0], value[1]


def _with_keys(name: str, arguments: Sequence[Any]) -> list[Any]:
    """Keys are pairs again: on their way through a file they became lists."""
    if name == "device_reads":
        return [arguments[0], [((key[0], key[1]), rev) for key, rev in arguments[1]]]
    return [(value[0], value[1]) if isinstance(value, list) and len(value) == 2 else value for value in arguments]
