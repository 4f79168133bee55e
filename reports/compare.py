"""Two runs, or two groups of runs, metric by metric: what changed, whether that is more than noise, and the verdict.

Of each metric the medians of the two sides are compared. Where a side has at least three runs, its runs tell the noise:
sigma is 1.4826 times the median absolute deviation from the side's median, times Croux and Rousseeuw's factor for few
values ("Time-efficient algorithms for two highly robust estimators of scale", 1992), both sides pooled. The band around
the median of BASE is five standard errors of the difference of two medians wide each way, at least 1 % of the median
and, of counts, three times its root; and it holds all values of BASE. Without three runs there is no band: then nothing
but rules and failed runs decide. Values only; called by `fleet compare`.
"""

from __future__ import annotations

import math
import operator
import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import msgspec

from reports.compare_metrics import INFINITE, PROBES, Metric, metrics_of
from reports.compare_runs import Difference, Group, Run
from reports.summary import EXIT_FAIL, EXIT_INPUT, EXIT_PASS, EXIT_UNKNOWN, Status
from reports.text import bytes_text, number_text, printable, seconds_text

RUNS_MIN: Final = 3  # that tell a noise
ERRORS: Final = 5.0
SHARE_MIN: Final = 0.01
_MAD: Final = 1.4826  # of a normal distribution
_FEW: Final = {3: 1.495, 4: 1.363, 5: 1.206, 6: 1.200, 7: 1.140, 8: 1.129, 9: 1.107}
_SECONDS_MIN: Final = 0.001

Change = Literal["same", "noise", "better", "worse", "changed", "missing"]
Verdict = Literal["regression", "passed", "not judged", "unknown", "no baseline", "not comparable"]
_EXIT: Final[dict[Verdict, int]] = {
    "regression": EXIT_FAIL,
    "passed": EXIT_PASS,
    "not judged": EXIT_PASS,
    "unknown": EXIT_UNKNOWN,
    "no baseline": EXIT_UNKNOWN,
    "not comparable": EXIT_INPUT,
}
OPERATORS: Final[dict[str, Callable[[float, float], bool]]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
}


@dataclass(frozen=True, slots=True)
class Rule:
    """`--fail-on`: the comparison fails when this is so. `kind`: `value` of NEW, its `change` against BASE, or that in
    `percent` of BASE."""

    text: str
    metric: str
    op: str
    value: float
    kind: Literal["value", "change", "percent"]


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One metric. Values are medians; None: nothing was measured, or (`never`) it never came to its end.

    `low` and `high`: the band around BASE; `decides`: a `worse` of it is a regression."""

    name: str
    section: str
    unit: str
    worse_is: str
    base: float | None
    new: float | None
    change: float | None = None
    change_percent: float | None = None
    low: float | None = None
    high: float | None = None
    status: Change = "same"
    decides: bool = True
    never: str = ""  # "base", "new" or "both"


class RuleResult(msgspec.Struct, frozen=True, kw_only=True):
    """`fail`: the rule was met."""

    rule: str
    status: Status
    actual: float | None = None
    detail: str = ""


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """`runs`: that ended by themselves, and are compared. `verdicts`: of all."""

    name: str
    path: str
    runs: int
    seeds: list[int]
    verdicts: dict[str, int]


class Unlike(msgspec.Struct, frozen=True, kw_only=True):
    """A key that is not the same. `forbids`: what the sides measured does not compare."""

    key: str
    base: str
    new: str
    forbids: bool = False


class Comparison(msgspec.Struct, kw_only=True):
    """All that a comparison found. `regressions`: names of metrics, rules, and `verdict`."""

    verdict: Verdict
    reason: str
    base: Side
    new: Side
    regressions: list[str] = []
    improvements: list[str] = []
    has_band: bool = False
    unlike: list[Unlike] = []
    rules: list[RuleResult] = []
    rows: list[Row] = []
    notes: list[str] = []

    @property
    def exit_code(self) -> int:
        return _EXIT[self.verdict]


def compare(
    base: Group, new: Group, rules: Sequence[Rule] = (), differing: Sequence[Difference] = (), *, across: bool = False
) -> Comparison:
    """`differing`: what is not the same on both sides. `across`: it was asked for all the same."""
    result = Comparison(
        verdict="passed",
        reason="",
        base=_side(base),
        new=_side(new),
        unlike=[Unlike(key=one.key, base=one.base, new=one.new, forbids=one.forbids) for one in differing],
        notes=[*base.notes, *new.notes],
    )
    if not base.whole:
        result.verdict, result.reason = "no baseline", "BASE holds no run that came to its end: nothing to compare with"
        return result
    forbidding = [one.key for one in differing if one.forbids]
    if forbidding and not across:
        result.verdict = "not comparable"
        result.reason = f"not the same: {', '.join(forbidding)}; --across compares all the same"
        return result
    result.rows = _rows(base.whole, new.whole)
    result.has_band = any(row.low is not None for row in result.rows)
    result.rules = [_ruled(rule, result.rows) for rule in rules]
    _judge(result, base.runs, new.runs)
    return result


def _side(group: Group) -> Side:
    return Side(
        name=group.name,
        path=printable(str(group.runs[0].path if len(group.runs) == 1 else group.name), 200),
        runs=len(group.whole),
        seeds=sorted({run.summary.seed for run in group.runs}),
        verdicts=dict(sorted(Counter(run.summary.verdict for run in group.runs).items())),
    )


def _judge(result: Comparison, base: Sequence[Run], new: Sequence[Run]) -> None:
    worse = [row.name for row in result.rows if row.status == "worse" and row.decides]
    result.improvements = [row.name for row in result.rows if row.status == "better" and row.decides]
    broken = [one.rule for one in result.rules if one.status == "fail"]
    failed = [run for run in new if run.summary.verdict == "fail"]
    fails_newly = bool(failed) and not any(run.summary.verdict == "fail" for run in base)
    result.regressions = [*(["verdict"] if fails_newly else []), *broken, *worse]
    if result.regressions:
        result.verdict = "regression"
        parts = [f"{len(failed)} of {len(new)} runs of NEW failed, none of BASE"] if fails_newly else []
        parts += [f"{len(broken)} of {len(result.rules)} rules broken"] if broken else []
        parts += [f"{_metrics(len(worse))} worse than noise"] if worse else []
        result.reason = "; ".join(parts)
    elif any(one.status == "unknown" for one in result.rules):
        result.verdict, result.reason = "unknown", "a rule had nothing to compare"
    elif not new or not any(run.is_whole for run in new):
        result.verdict, result.reason = "unknown", "NEW holds no run that came to its end"
    elif result.has_band:
        better = f", {_metrics(len(result.improvements))} better" if result.improvements else ""
        result.reason = f"nothing is worse than noise{better}"
    elif result.rules:
        result.reason = f"all {len(result.rules)} rules kept; no noise band without {RUNS_MIN} runs on a side"
    else:
        result.verdict = "not judged"
        result.reason = f"no noise band without {RUNS_MIN} runs on a side, and no --fail-on: these are changes alone"


def _metrics(count: int) -> str:
    return f"{count} metric{'' if count == 1 else 's'}"


# ---------------------------------------------------------------- metrics


def _rows(base: Sequence[Run], new: Sequence[Run]) -> list[Row]:
    sides = [[metrics_of(run.summary, run.faults) for run in runs] for runs in (base, new)]
    metrics: dict[str, Metric] = {}
    for runs in sides:
        for run in runs:
            for name, (metric, _) in run.items():
                metrics.setdefault(name, metric)
    found = []
    for name, metric in metrics.items():
        missing = 0.0 if name.startswith(PROBES) else None  # a probe that nothing counted is 0
        values = [[run[name][1] if name in run else missing for run in runs] for runs in sides]
        found.append(_row(metric, *([one for one in side if one is not None] for side in values)))
    return found


def _row(metric: Metric, base: list[float], new: list[float]) -> Row:
    one, other = (_median(side) for side in (base, new))
    never = {(True, True): "both", (True, False): "base", (False, True): "new"}.get(
        (one == INFINITE, other == INFINITE)
    )
    row = Row(
        name=metric.name,
        section=metric.section,
        unit=metric.unit,
        worse_is=metric.worse,
        base=_finite(one),
        new=_finite(other),
        decides=metric.decides and bool(metric.worse),
        never=never or "",
    )
    if one is None or other is None:
        return msgspec.structs.replace(row, status="missing")
    band = _band(metric, base, new)
    change = other - one if never is None else None
    percent = 100 * change / one if change is not None and one else None
    low, high = band if band is not None else (None, None)
    return msgspec.structs.replace(
        row,
        change=change,
        change_percent=percent,
        low=low,
        high=high,
        status=_status(metric, one, other, band),
    )


def _status(metric: Metric, base: float, new: float, band: tuple[float, float] | None) -> Change:
    if base == new:
        return "same"
    if band is None:
        return "changed"
    if band[0] <= new <= band[1]:
        return "noise"
    if not metric.worse:
        return "changed"
    return "worse" if (new > base) == (metric.worse == "more") else "better"


def _median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _band(metric: Metric, base: Sequence[float], new: Sequence[float]) -> tuple[float, float] | None:
    """Around the median of BASE; None where no side has enough runs."""
    finite = [[one for one in side if math.isfinite(one)] for side in (base, new)]
    telling = [side for side in finite if len(side) >= RUNS_MIN]
    if not telling or not finite[0]:
        return None
    weight = sum(len(side) - 1 for side in telling)  # ints
    sigma = math.sqrt(math.fsum((len(side) - 1) * noise(side) ** 2 for side in telling) / weight)
    middle = statistics.median(finite[0])
    error = sigma * math.sqrt(_variance(len(finite[0])) + _variance(max(1, len(finite[1]))))
    half = max(ERRORS * error, SHARE_MIN * abs(middle))
    if metric.unit == "":
        half = max(half, 3 * math.sqrt(max(1.0, middle)))
    elif metric.unit == "s":
        half = max(half, _SECONDS_MIN)
    return max(0.0, min(middle - half, *finite[0])), max(middle + half, *finite[0])


def noise(values: Sequence[float]) -> float:
    """Sigma of at least RUNS_MIN values, robustly: a run out of line does not move it."""
    middle = statistics.median(values)
    count = len(values)
    factor = _FEW.get(count, count / (count - 0.8))
    return _MAD * factor * statistics.median(abs(one - middle) for one in values)


def _variance(count: int) -> float:
    """Of a median of so many values of variance 1."""
    return 1.0 if count == 1 else math.pi / 2 / count


# ---------------------------------------------------------------- rules


def _ruled(rule: Rule, rows: Sequence[Row]) -> RuleResult:
    row = next((one for one in rows if one.name == rule.metric), None)
    if row is None:
        return RuleResult(rule=rule.text, status="unknown", detail="neither side has it")
    base, new = _value(row, "base"), _value(row, "new")
    if new is None or (base is None and rule.kind != "value"):
        return RuleResult(
            rule=rule.text, status="unknown", detail=f"nothing was measured in {'NEW' if new is None else 'BASE'}"
        )
    if rule.kind == "value":
        actual, said = new, f"is {shown(new, row.unit)}"
    elif base == new:
        actual, said = 0.0, "did not change"
    elif base == INFINITE or new == INFINITE:
        assert base is not None
        actual = new - base
        said = f"{shown(base, row.unit)} before, {shown(new, row.unit)} now"
    else:
        assert base is not None
        change = new - base
        actual = (
            change if rule.kind == "change" else (100 * change / abs(base) if base else math.copysign(INFINITE, change))
        )
        said = f"{shown(base, row.unit)} before, {shown(new, row.unit)} now"
    broken = OPERATORS[rule.op](actual, rule.value)
    return RuleResult(rule=rule.text, status="fail" if broken else "pass", actual=_finite(actual), detail=said)


def _value(row: Row, side: Literal["base", "new"]) -> float | None:
    if row.never in (side, "both"):
        return INFINITE
    return row.base if side == "base" else row.new


def shown(value: float | None, unit: str) -> str:
    """For people, in the unit of a metric."""
    if value is None:
        return "–"
    if value == INFINITE:
        return "never"
    if unit == "s":
        return seconds_text(value)
    if unit == "B":
        return bytes_text(round(value)) if value >= 0 else f"-{bytes_text(round(-value))}"
    return f"{number_text(value)} MB" if unit == "MB" else number_text(value)
