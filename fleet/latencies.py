"""The latencies of a run, divided by group of devices, by model, and by when they were: before, during, after faults.

The oracle records into one small recorder for each group, model and way; once an interval these are put together here,
so that an update pays for no division of its own. Used by the simulated world's timeline and by the judge of live runs;
reads no clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import inf, nan
from typing import Final, Literal

from fleet.oracle.tally import Recorder, Tally
from fleet.scenario.plan import FaultPlan, Plan
from reports.histogram import CoarseCounts, LatencyRecorder
from reports.result import LatencyPhase, LatencySlot
from reports.summary import Latency, Part

Phase = Literal["before", "during", "after"]
Pair = tuple[LatencyRecorder, LatencyRecorder]  # up, down

PHASES: Final[tuple[Phase, ...]] = ("before", "during", "after")
PERCENTS: Final = (50.0, 90.0, 99.0)
SLOTS_MAX: Final = 128
# A fault that acts for a larger share of a run is its background, no event in it; where that leaves none, the next.
BACKGROUND_SHARES: Final = (0.5, 0.8, inf)


class Phases:
    """Which part of a run an interval belongs to. A fault lasts until what it did has healed, as the plan has it; those
    in the background count only when there are no others. Between two faults is after the first."""

    def __init__(self, plan: Plan) -> None:
        acting = [fault for fault in plan.faults if fault.at_us < plan.duration_us]
        limits = (share * plan.duration_us for share in BACKGROUND_SHARES)
        events = ([one for one in acting if one.until_us - one.at_us < limit] for limit in limits)
        found: list[FaultPlan] = next((some for some in events if some), [])
        self._spans = [(fault.at_us, max(fault.until_us, fault.at_us + 1)) for fault in found]
        self._first_us = min((start for start, _ in self._spans), default=None)

    def of(self, start_us: int, end_us: int) -> Phase:
        """Of the interval from `start_us` up to `end_us`. Everything is before where there are no faults."""
        if self._first_us is None or end_us <= self._first_us:
            return "before"
        return "during" if any(start < end_us and start_us < end for start, end in self._spans) else "after"


class Latencies:
    """`up`, `down`: of the whole run, complete after `finish`. `tallies`: group -> what the oracle records into."""

    def __init__(self, groups: Sequence[str], models: Iterable[str]) -> None:
        self._models = list(models)
        self._now: dict[tuple[str, str], Pair] = {}
        self._sums: dict[tuple[str, str], Pair] = {}
        self.tallies: dict[str, Tally] = {}
        for group in groups:
            up: dict[str, Recorder] = {}
            down: dict[str, Recorder] = {}
            for model in self._models:
                pair = self._now[group, model] = _pair()
                self._sums[group, model] = _pair()
                up[model], down[model] = pair
            self.tallies[group] = Tally(up, down)
        self._phases: dict[Phase, Pair] = {phase: _pair() for phase in PHASES}
        self._seconds: dict[Phase, float] = dict.fromkeys(PHASES, 0.0)
        self._over: list[tuple[CoarseCounts, CoarseCounts]] = []  # slots
        self._open: Pair | None = None  # the last one
        self._slot_s = self._open_s = 0.0  # how long a slot is; how much of the last one has been
        self.up, self.down = _pair()

    def by_device(self, plan: Plan) -> dict[str, Tally]:
        """Each device's, by its group."""
        return {device.id: self.tallies[plan.groups[device.group].name] for device in plan.devices}

    def close(self, phase: Phase, seconds: float) -> list[tuple[float, ...]]:
        """An interval of `phase` is over. Its latencies in seconds at PERCENTS, up and then down; NaN for none."""
        whole = _pair()
        for name, pair in self._now.items():
            for recorder, total, interval in zip(pair, self._sums[name], whole, strict=True):
                if recorder.buckets:
                    interval.merge(recorder)
                    total.merge(recorder)
                    recorder.clear()
        for interval, total, slot in zip(whole, self._phases[phase], self._slot(seconds), strict=True):
            total.merge(interval)
            slot.merge(interval)
        self._seconds[phase] += seconds
        return [one.quantiles_s(*PERCENTS) if one.buckets else (nan,) * len(PERCENTS) for one in whole]

    def _slot(self, seconds: float) -> Pair:
        """That of an interval so long. When there are too many slots, each two become one."""
        self._slot_s = self._slot_s or seconds
        if self._open is not None and seconds and self._open_s + seconds > self._slot_s * 1.000_001:
            self._over.append(_coarse(self._open))
            self._open, self._open_s = None, 0.0
            if len(self._over) == SLOTS_MAX:
                halves = zip(self._over[::2], self._over[1::2], strict=True)
                self._over = [(one[0].plus(other[0]), one[1].plus(other[1])) for one, other in halves]
                self._slot_s *= 2
        if self._open is None:
            self._open = _pair()
        self._open_s += seconds
        return self._open

    def slots(self) -> list[LatencySlot]:
        """The run in equal parts, the last one shorter."""
        found = [*self._over, _coarse(self._open)] if self._open is not None else self._over
        return [LatencySlot(round(n * self._slot_s, 6), up.pairs(), down.pairs()) for n, (up, down) in enumerate(found)]

    def finish(self) -> None:
        """The last interval is over."""
        for pair in self._phases.values():
            self.up.merge(pair[0])
            self.down.merge(pair[1])

    def so_far(self, way: Literal["up", "down"], group: str = "", model: str = "") -> LatencyRecorder:
        """Up to the end of the last interval; of all groups or models, or of one."""
        found = LatencyRecorder()
        for (one, other), pair in self._sums.items():
            if group in ("", one) and model in ("", other):
                found.merge(pair[0] if way == "up" else pair[1])
        return found

    def phases(self) -> list[LatencyPhase]:
        """Those that the run had."""
        return [
            LatencyPhase(
                name=phase,
                seconds=round(self._seconds[phase], 6),
                latency_s=_latency(pair),
                up=pair[0].coarse(),
                down=pair[1].coarse(),
            )
            for phase, pair in self._phases.items()
            if self._seconds[phase]
        ]

    def by_group(self) -> dict[str, Part]:
        """In the order of the groups, with what the latencies tell: `updates_synced` counts those with a latency."""
        return {
            group: _part([pair for (name, _), pair in self._sums.items() if name == group], tally.writes.total())
            for group, tally in self.tallies.items()
        }

    def by_model(self) -> dict[str, Part]:
        """The same for each model that anything was written to, in the order of the schema."""
        found = {}
        for model in self._models:
            writes = sum(tally.writes[model] for tally in self.tallies.values())  # ints
            part = _part([pair for (_, name), pair in self._sums.items() if name == model], writes)
            if any(part.counts.values()):
                found[model] = part
        return found


def _pair() -> Pair:
    return LatencyRecorder(), LatencyRecorder()


def _coarse(pair: Pair) -> tuple[CoarseCounts, CoarseCounts]:
    return CoarseCounts(pair[0].coarse()), CoarseCounts(pair[1].coarse())


def _latency(pair: Pair) -> Latency:
    return Latency(up=pair[0].percentiles(), down=pair[1].percentiles())


def _part(pairs: Iterable[Pair], writes: int) -> Part:
    whole = _pair()
    for pair in pairs:
        whole[0].merge(pair[0])
        whole[1].merge(pair[1])
    latency = _latency(whole)
    return Part(
        counts={"local_writes": writes, "updates_synced": latency.up.count + latency.down.count}, latency_s=latency
    )
