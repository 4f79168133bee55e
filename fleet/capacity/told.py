"""What the runs of a study say of each size, how far parts of a fleet were off, and what breaks first.

Times are those of the largest part; totals are drawn through the parts up to the whole (fleet.capacity.fit), peaks read
off what each part was asked for second by second (fleet.capacity.peaks). Called by the command `fleet capacity`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Final

import msgspec

from fleet.capacity.fit import CONSTANT, LINE, PEAK, Estimate, fitted, total_at
from fleet.capacity.peaks import busy, together
from fleet.capacity.runs import Kept
from fleet.capacity.study import Study
from fleet.scenario.plan import Plan
from reports.capacity import FIGURES, Break, Capacity, Compared, Figure, HeldOut, Reached, SizeRow
from reports.cost import DATE, REGION, Price, a_month_of, priced, prices_of, total
from reports.quotas import Quotas, QuotaUse, Recovery, Usage

# What is metered and grows with the fleet.
METERED: Final = (
    "connects", "messages", "rule_triggers", "rule_actions", "bytes_up", "bytes_down", "write_units", "read_units",
    "functions", "function_s", "connection_minutes",
)  # fmt: skip
PEAKS: Final = {"peak_connects_per_s": "connects_per_s", "peak_messages_per_s": "messages"}
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
OWN_KEYS: Final = -1  # the second that stands for the keys of one device
BACK: Final = {"50 % back": "back_50_s", "95 % back": "back_95_s", "99 % back": "back_99_s"}

Runs = Mapping[int, Kept]  # by devices
Prices = Mapping[str, Price]


def quotas_in(run: Kept) -> Quotas:
    quotas = run.summary.quotas
    assert quotas is not None
    return quotas


def main_recovery(run: Kept) -> Recovery | None:
    """Of the fault that cost the most connections, the first of these."""
    return max(quotas_in(run).recoveries, key=lambda one: (one.lost, -one.end_s), default=None)


def told(study: Study) -> Capacity:
    """After the runs: what they say."""
    wanted = study.wanted
    any_run = study.runs[min(study.runs)] if study.runs else next(iter(next(iter(study.parts.values())).values()))
    plan = study.plan(study.least())
    quotas = quotas_in(any_run)
    limits = {use.name: float(getattr(plan.quotas, use.name)) for use in quotas.uses}
    uses = [msgspec.structs.replace(use, limit=limits[use.name]) for use in quotas.uses]
    prices = prices_of(quotas.preset, dict(wanted.prices))
    rows = [
        simulated_row(study.runs[size], limits, prices)
        if size in study.runs
        else drawn_row(study.parts[size], size, limits, prices)
        for size in wanted.sizes
    ]
    recovery = rows[-1].recovery
    return Capacity(
        scenario=plan.scenario,
        seed=plan.seed,
        preset=quotas.preset,
        duration_s=plan.duration_us / 1e6,
        rows=rows,
        breaks=breaks_of(plan, uses, rows, limits),
        quotas=uses,
        floor_s=0.0 if recovery is None else recovery.floor_s,
        cap_s=plan.agent.connect_cap_ms / 1000,
        jitter=plan.agent.connect_jitter,
        held_out=held_out(study, limits, prices),
        coarse=[size for size in wanted.sizes if size not in study.runs and is_coarse(study, size, limits)],
        prices=f"list prices of {REGION}, {DATE}" if priced(quotas.preset) else "",
    )


# One size.


def simulated_row(run: Kept, limits: Mapping[str, float], prices: Prices) -> SizeRow:
    quotas = quotas_in(run)
    usage = quotas.usage
    shares = {use.name: use.peak_share for use in quotas.uses if limits[use.name]}
    figures = {name: Figure(value=figure_of(usage, name)) for name in FIGURES}
    return _row(run, run.summary.devices, figures, shares, usage, prices)


def drawn_row(parts: Runs, size: int, limits: Mapping[str, float], prices: Prices) -> SizeRow:
    """Of a size that is told by parts."""
    metered = metered_at(parts, size)
    largest = quotas_in(parts[max(parts)]).usage
    usage = Usage(seconds=largest.seconds, stream_reads=largest.stream_reads)
    for name, estimate in metered.items():
        setattr(usage, name, estimate.value if name == "function_s" else round(estimate.value))
    lasted = [max(quotas_in(run).usage.seconds, 1e-9) for run in parts.values()]
    seconds = max(lasted), min(lasted)
    figures = {}
    for name in FIGURES:
        metered_name = MEANS.get(name, name)
        longest, shortest = seconds if name in MEANS else (1.0, 1.0)
        estimate = metered[metered_name]
        model = PEAK if name in PEAKS else model_of(parts, metered_name)
        figures[name] = Figure(
            value=figure_of(usage, name), model=model, low=estimate.low / longest, high=estimate.high / shortest
        )
    peaks = peaks_at(parts, size)
    told_of = {name: peak for name, peak in peaks.items() if limits[name]}
    shares = {name: peak.value / limits[name] for name, peak in told_of.items()}
    bounds = {name: (peak.low / limits[name], peak.high / limits[name]) for name, peak in told_of.items()}
    row = _row(parts[max(parts)], size, figures, shares, usage, prices)
    return msgspec.structs.replace(row, bounds=bounds, how="scaled")


def _row(
    run: Kept, size: int, figures: dict[str, Figure], shares: dict[str, float], usage: Usage, prices: Prices
) -> SizeRow:
    quotas = quotas_in(run)
    devices = run.summary.devices
    recovery = main_recovery(run)
    items = a_month_of(usage, prices, quotas.preset)
    return SizeRow(
        devices=size,
        simulated=devices,
        how="simulated",
        verdict=run.summary.verdict,
        figures=figures,
        shares=shares,
        reached=[reached_of(use, size / devices) for use in quotas.uses if use.throttled],
        recovery=recovery and msgspec.structs.replace(recovery, lost=round(recovery.lost * size / devices)),
        converged_after_s=run.summary.converged_after_s,
        cost=items,
        dollars=total(items),
    )


def figure_of(usage: Usage, name: str) -> float:
    metered = MEANS.get(name)
    if metered is None:
        return float(getattr(usage, name))
    return float(getattr(usage, metered)) / max(usage.seconds, 1e-9)


def points_of(parts: Runs, name: str) -> list[tuple[int, float]]:
    return [(n, float(getattr(quotas_in(run).usage, name))) for n, run in sorted(parts.items())]


def model_of(parts: Runs, name: str) -> str:
    return LINE if len(parts) > 1 and fitted(points_of(parts, name)).model == LINE else CONSTANT


def metered_at(parts: Runs, size: int) -> dict[str, Estimate]:
    """What is metered at a size that parts of it tell of."""
    found = {name: total_at(points_of(parts, name), size) for name in METERED}
    found.update({name: rate_at(parts, size, asked) for name, asked in PEAKS.items()})
    return found


def rate_at(parts: Runs, size: int, name: str) -> Estimate:
    """The highest second of the whole, by what the parts were asked for."""
    found = {}
    for n, run in parts.items():
        rows = [(second, amount) for second, amount in run.asked.get(name, []) if second != OWN_KEYS]
        found[n] = busy(rows, quotas_in(run).usage.seconds)
    return together(found, size)


def instances_at(parts: Runs, size: int) -> Estimate:
    usages = {n: quotas_in(run).usage for n, run in parts.items()}
    found = {n: busy(run.asked.get("functions", []), usages[n].seconds, least=0.0) for n, run in parts.items()}
    largest = usages[max(parts)]
    return together(found, size, noise=1.0, draws_per_s=largest.functions / max(largest.function_s, 1e-6))


def peaks_at(parts: Runs, size: int) -> dict[str, Estimate]:
    """The peak of each quota at that size. What one connection may do does not grow with the fleet, and neither does
    what the keys of one device are asked for."""
    peaks = {}
    for use in quotas_in(parts[max(parts)]).uses:
        found = [(n, _use(run, use.name).peak) for n, run in sorted(parts.items())]
        if use.per not in OF_THE_FLEET:
            peaks[use.name] = _most(Estimate(), max(peak for _, peak in found))
        elif use.unit in LEVELS:
            peaks[use.name] = total_at(found, size)
        elif use.name == "functions":
            peaks[use.name] = instances_at(parts, size)
        else:
            own = max(
                (a for run in parts.values() for second, a in run.asked.get(use.name, []) if second == OWN_KEYS),
                default=0.0,
            )
            peaks[use.name] = _most(rate_at(parts, size, use.name), own)
    return peaks


def _most(estimate: Estimate, least: float) -> Estimate:
    return Estimate(value=max(estimate.value, least), low=max(estimate.low, least), high=max(estimate.high, least))


def _use(run: Kept, name: str) -> QuotaUse:
    return next(use for use in quotas_in(run).uses if use.name == name)


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


def held_out(study: Study, limits: Mapping[str, float], prices: Prices) -> HeldOut | None:
    """The largest size that was run as it is, beside what its parts told of it; None where nothing was extrapolated."""
    size = max((size for size in study.parts if size in study.runs), default=None)
    if size is None:
        return None
    seen, said = simulated_row(study.runs[size], limits, prices), drawn_row(study.parts[size], size, limits, prices)
    rows = []
    for name, (unit, words) in FIGURES.items():
        one = said.figures[name]
        rows.append(compared(name, words, unit, one.value, seen.figures[name].value, one.low, one.high, one.model))
    for name, share in said.shares.items():
        low, high = (bound * limits[name] for bound in said.bounds[name])
        value, was = share * limits[name], _use(study.runs[size], name).peak
        unit = _use(study.runs[size], name).unit
        rows.append(compared(f"quota.{name}", name, unit, value, was, low, high, ""))
    if said.recovery is not None and seen.recovery is not None:
        for words, name in BACK.items():
            told_s, seen_s = getattr(said.recovery, name), getattr(seen.recovery, name)
            rows.append(compared(f"recovery.{name}", words, "s", told_s, seen_s))
    rows.append(compared("converged_after_s", "all equal again", "s", said.converged_after_s, seen.converged_after_s))
    if seen.dollars is not None:
        rows.append(compared("cost.total", "cost a month", "$", said.dollars, seen.dollars))
    return HeldOut(devices=size, by=sorted(study.parts[size]), rows=rows)


def compared(
    name: str,
    words: str,
    unit: str,
    value: float | None,
    seen: float | None,
    low: float | None = None,
    high: float | None = None,
    model: str = "",
) -> Compared:
    error = None
    if value is not None and seen is not None:
        error = error_of(value, seen)
    return Compared(
        name=name, words=words, unit=unit, told=value, seen=seen, low=low, high=high, model=model, error=error
    )


def is_coarse(study: Study, size: int, limits: Mapping[str, float]) -> bool:
    """Whether the largest part that tells of a size is let in by less than one a second."""
    parts = study.parts.get(size)
    return parts is not None and 0 < limits["connects_per_s"] * max(parts) / size < 1


def error_of(value: float, seen: float) -> float | None:
    """As a share of what was seen; above 0: too high."""
    if seen == 0:
        return 0.0 if value == 0 else None
    return (value - seen) / abs(seen)


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
        effect = "too low: the storm repeats"
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
