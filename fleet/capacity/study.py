"""The study behind `fleet capacity`: which runs it takes, and what they say of each size.

Sizes up to a limit are run as they are. A larger one is told by three parts of it, each with its share of the quotas
(fleet.capacity.scaling): times are those of the largest part, figures are drawn through the three up to the whole
(fleet.capacity.fit). The largest size that was run as it is is told by its parts as well; how far that is from what was
measured is the error. Draws nothing itself: the seed's runs do. Called by the command.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

import msgspec

from fleet.capacity.fit import CONSTANT, Fit, fitted, fitted_peaks
from fleet.capacity.scaling import part_of_plan
from fleet.run import execute
from fleet.scenario.build import build_plan
from fleet.scenario.load import load
from fleet.scenario.plan import Plan
from reports.capacity import FIGURES, Break, Capacity, Figure, HeldOut, Reached, SizeRow
from reports.cost import DATE, REGION, a_month_of, priced, total
from reports.quotas import Quotas, QuotaUse, Recovery, Usage
from reports.result import RunResult

DEFAULT_PRESET: Final = "aws-iot-default"
PARTS: Final = (0.5, 0.75, 1.0)  # of the largest of the three
PART_SHARE: Final = 4  # the largest part is that part of the largest size that is run as it is, or more:
CONNECTS_MIN: Final = 5.0  # a part that may connect less than that a second is coarse: what is let in comes by ones
# What is metered and grows with the fleet.
METERED: Final = (
    "connects", "messages", "rule_triggers", "rule_actions", "bytes_up", "bytes_down", "write_units", "read_units",
    "functions", "function_s", "connection_minutes",
)  # fmt: skip
PEAKS: Final = ("peak_connects_per_s", "peak_messages_per_s")
MEANS: Final = {
    "mean_connects_per_s": "connects",
    "mean_messages_per_s": "messages",
    "bytes_up_per_s": "bytes_up",
    "bytes_down_per_s": "bytes_down",
    "write_units_per_s": "write_units",
    "read_units_per_s": "read_units",
    "functions_per_s": "functions",
    "function_s_per_s": "function_s",
}
LEVELS: Final = ("connections", "messages")  # units of quotas of an amount, not of a rate
OF_THE_FLEET: Final = ("account", "table", "partition key")  # what a quota holds for, where it is shared
BREAKS_SHOWN: Final = 3

Runs = Mapping[int, RunResult]  # by devices


class Stopped(Exception):
    """Somebody has interrupted the study."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What was asked for. `sizes`: rising."""

    scenario: str
    sizes: tuple[int, ...]
    simulate_up_to: int
    seed: int | None = None
    preset: str = ""  # empty: the scenario's own, else DEFAULT_PRESET
    changes: tuple[str, ...] = ()


@dataclass(slots=True)
class Study:
    """Runs as it goes. `step`: told what is being run."""

    wanted: Wanted
    step: Callable[[str], object]
    stopped: Callable[[], bool]
    runs: dict[int, RunResult] = field(default_factory=dict)  # by size, those that are run as they are
    parts: dict[int, dict[int, RunResult]] = field(default_factory=dict)  # by size, then by devices that were run
    _preset: str = ""

    def plan(self, devices: int, changes: Sequence[str] = ()) -> Plan:
        """Raises InputError."""
        wanted = self.wanted
        preset = wanted.preset or self._preset
        given = [*wanted.changes, *([f"cloud.preset={preset}"] if preset else []), *changes]
        plan = build_plan(load(wanted.scenario, given, devices), wanted.seed)
        if plan.quotas is None and not preset:
            self._preset = DEFAULT_PRESET
            return self.plan(devices, changes)
        return msgspec.structs.replace(plan, thresholds=[])  # a scenario's thresholds are for its own size

    def least(self) -> int:
        """Devices that the scenario needs. Raises InputError."""
        return len(load(self.wanted.scenario, list(self.wanted.changes)).devices)

    def run(self, plan: Plan, words: str) -> RunResult:
        """Raises Stopped when somebody has said so."""
        self.step(words)
        result = execute(plan, None, None, self.stopped, hashed=False)
        if result.summary.interrupted:
            raise Stopped
        return result

    def run_all(self) -> None:
        """Every run but those of the search. Raises Stopped."""
        wanted = self.wanted
        small = [size for size in wanted.sizes if size <= wanted.simulate_up_to]
        large = [size for size in wanted.sizes if size > wanted.simulate_up_to]
        for size in sorted({*small, *([wanted.simulate_up_to] if large else [])}):
            self.runs[size] = self.run(self.plan(size), f"{size:,} devices")
        if large:
            largest = max(self.runs)
            for size in (*large, largest):
                self.parts[size] = self._told_by_parts(size)

    def part(self, size: int, wanted: int, most: int) -> int:
        """So many devices stand for that size: `wanted`; more where the CONNECT rate would be coarse, up to `most`."""
        quotas = self.plan(self.least()).quotas
        rate = quotas.connects_per_s if quotas is not None else 0.0
        fine = math.ceil(CONNECTS_MIN * size / rate) if rate else 0
        return max(self.least(), min(most, max(wanted, fine)))

    def _told_by_parts(self, size: int) -> dict[int, RunResult]:
        found = {}
        up_to = self.wanted.simulate_up_to
        part = self.part(size, up_to // PART_SHARE, up_to if size > up_to else up_to // 2)
        for devices in dict.fromkeys(max(self.least(), round(part * share)) for share in PARTS):
            words = f"{size:,} devices, by {devices:,} of them"
            found[devices] = self.run(part_of_plan(self.plan(devices), size), words)
        return found


def quotas_in(result: RunResult) -> Quotas:
    quotas = result.summary.quotas
    assert quotas is not None
    return quotas


def main_recovery(result: RunResult) -> Recovery | None:
    """Of the fault that cost the most connections, the first of these."""
    return max(quotas_in(result).recoveries, key=lambda one: (one.lost, -one.end_s), default=None)


def told(study: Study) -> Capacity:
    """After the runs: what they say."""
    wanted = study.wanted
    plan = study.plan(max(study.runs))
    quotas = quotas_in(study.runs[max(study.runs)])
    limits = {use.name: float(getattr(plan.quotas, use.name)) for use in quotas.uses}
    rows = [
        simulated_row(study.runs[size], limits) if size in study.runs else drawn_row(study.parts[size], size, limits)
        for size in wanted.sizes
    ]
    recovery = rows[-1].recovery
    return Capacity(
        scenario=plan.scenario,
        seed=plan.seed,
        preset=quotas.preset,
        duration_s=plan.duration_us / 1e6,
        rows=rows,
        breaks=breaks_of(plan, quotas.uses, rows, limits),
        quotas=quotas.uses,
        floor_s=0.0 if recovery is None else recovery.floor_s,
        cap_s=plan.agent.connect_cap_ms / 1000,
        jitter=plan.agent.connect_jitter,
        held_out=held_out(study, limits),
        coarse=[size for size in wanted.sizes if is_coarse(study, size, limits)],
        priced=priced(quotas.preset),
        prices=f"list prices of {REGION}, {DATE}",
    )


# One size.


def simulated_row(result: RunResult, limits: Mapping[str, float]) -> SizeRow:
    quotas = quotas_in(result)
    usage = quotas.usage
    shares = {use.name: use.peak_share for use in quotas.uses if limits[use.name]}
    figures = {name: Figure(value=figure_of(usage, name)) for name in FIGURES}
    return _row(result, result.summary.devices, figures, shares, usage)


def drawn_row(parts: Runs, size: int, limits: Mapping[str, float]) -> SizeRow:
    """Of a size that is told by parts."""
    usage, fits = usage_at(parts, size)
    figures = {}
    for name in FIGURES:
        fit = fits[MEANS.get(name, name)]
        figures[name] = Figure(value=figure_of(usage, name), model=fit.model)
    peaks = peaks_at(parts, size)
    shares = {name: peak / limits[name] for name, peak in peaks.items() if limits[name]}
    return _row(parts[max(parts)], size, figures, shares, usage)


def _row(result: RunResult, size: int, figures: dict[str, Figure], shares: dict[str, float], usage: Usage) -> SizeRow:
    quotas = quotas_in(result)
    devices = result.summary.devices
    recovery = main_recovery(result)
    items = a_month_of(usage) if priced(quotas.preset) else []
    return SizeRow(
        devices=size,
        simulated=devices,
        how="simulated" if devices == size else "scaled",
        verdict=result.summary.verdict,
        figures=figures,
        shares=shares,
        reached=[reached_of(use, size / devices) for use in quotas.uses if use.throttled],
        recovery=recovery and msgspec.structs.replace(recovery, lost=round(recovery.lost * size / devices)),
        converged_after_s=result.summary.converged_after_s,
        cost=items,
        dollars=total(items),
    )


def figure_of(usage: Usage, name: str) -> float:
    metered = MEANS.get(name)
    if metered is None:
        return float(getattr(usage, name))
    return float(getattr(usage, metered)) / max(usage.seconds, 1e-9)


def usage_at(parts: Runs, size: int) -> tuple[Usage, dict[str, Fit]]:
    """What is metered at a size that parts of it tell of, and by which models."""
    largest = quotas_in(parts[max(parts)]).usage
    usage = Usage(seconds=largest.seconds, stream_reads=largest.stream_reads)
    fits = {}
    for name in (*METERED, *PEAKS):
        points = [(n, float(getattr(quotas_in(run).usage, name))) for n, run in parts.items()]
        fit = fits[name] = fitted_peaks(points) if name in PEAKS else fitted(points)
        value = _grown(fit, max(parts), size)
        setattr(usage, name, value if name == "function_s" else round(value))
    return usage, fits


def _grown(fit: Fit, part: int, size: int) -> float:
    """What is alike in all parts is so by chance: it grows with the fleet."""
    return fit.first * size / part if fit.model == CONSTANT else fit.at(size)


def peaks_at(parts: Runs, size: int) -> dict[str, float]:
    """The peak of each quota at that size. What one connection may do does not grow with the fleet; the gauge of a
    partition key that devices share tells of the whole fleet already."""
    peaks = {}
    for use in quotas_in(parts[max(parts)]).uses:
        found = [(n, _use(run, use.name).peak) for n, run in sorted(parts.items())]
        if use.per not in OF_THE_FLEET:
            peaks[use.name] = max(peak for _, peak in found)
            continue
        if use.per == "partition key":
            found = [(n, peak * n / size) for n, peak in found]
        peaks[use.name] = (
            _grown(fitted(found), max(parts), size) if use.unit in LEVELS else fitted_peaks(found).at(size)
        )
    return peaks


def _use(result: RunResult, name: str) -> QuotaUse:
    return next(use for use in quotas_in(result).uses if use.name == name)


def reached_of(use: QuotaUse, grown: float) -> Reached:
    return Reached(
        name=use.name,
        per=use.per,
        effect=use.effect,
        times=round(use.throttled * grown),
        first_s=use.first_s or 0.0,
        last_s=use.last_s or 0.0,
    )


# The error, and what breaks.


def held_out(study: Study, limits: Mapping[str, float]) -> HeldOut | None:
    """The largest size that was run as it is, beside what its parts told of it; None where nothing was extrapolated."""
    size = max(study.runs)
    parts = study.parts.get(size)
    if parts is None:
        return None
    measured, predicted = simulated_row(study.runs[size], limits), drawn_row(parts, size, limits)
    errors = {name: error_of(predicted.figures[name].value, measured.figures[name].value) for name in FIGURES}
    told_s = None if predicted.recovery is None else predicted.recovery.back_95_s
    was_s = None if measured.recovery is None else measured.recovery.back_95_s
    return HeldOut(
        devices=size,
        by=max(parts),
        predicted_s=told_s,
        measured_s=was_s,
        error=None if told_s is None or was_s is None else error_of(told_s, was_s),
        errors=errors,
    )


def is_coarse(study: Study, size: int, limits: Mapping[str, float]) -> bool:
    """Whether the largest part that tells of a size is let in by less than one a second."""
    parts = study.parts.get(size)
    return parts is not None and 0 < limits["connects_per_s"] * max(parts) / size < 1


def error_of(predicted: float, measured: float) -> float:
    if measured == 0:
        return 0.0 if predicted == 0 else 1.0
    return abs(predicted - measured) / abs(measured)


def breaks_of(
    plan: Plan, uses: Sequence[QuotaUse], rows: Sequence[SizeRow], limits: Mapping[str, float]
) -> list[Break]:
    """The first that give way as the fleet grows: quotas whose peak goes over the limit, and the back-off's cap, which
    is too low from devices / (CONNECTs a second) on."""
    found = []
    for use in uses:
        size = crossing([(row.devices, row.shares.get(use.name, 0.0)) for row in rows], use.per in OF_THE_FLEET)
        if size is not None:
            found.append(
                Break(
                    name=use.name,
                    per=use.per,
                    devices=size,
                    limit=limits[use.name],
                    unit=use.unit,
                    effect=use.effect,
                )
            )
    rate = limits.get("connects_per_s", 0.0)
    if rate:
        cap_s = plan.agent.connect_cap_ms / 1000
        effect = "below the floor: the storm repeats"
        size = max(1, round(cap_s * rate))
        found.append(Break(name="connect_cap", per="agent", devices=size, limit=cap_s, unit="s", effect=effect))
    return sorted(found, key=lambda one: (one.devices, one.name))[:BREAKS_SHOWN]


def crossing(shares: Sequence[tuple[int, float]], grows: bool) -> int | None:
    """The size at which a share of a quota passes 1: between two sizes on a straight line of the logarithms, outside of
    them in proportion. None: it does not, as far as can be told."""
    if not grows:
        return 1 if any(share > 1 for _, share in shares) else None
    first, last = shares[0], shares[-1]
    if first[1] > 1:
        return max(1, math.ceil(first[0] / first[1]))
    for (n, share), (more, larger) in pairwise(shares):
        if larger > 1:
            if share <= 0:
                return math.ceil(more / larger)
            slope = math.log(larger / share) / math.log(more / n)
            return min(more, math.ceil(n * math.exp(-math.log(share) / slope)))
    return math.ceil(last[0] / last[1]) if last[1] > 0 else None
