"""What became of a threshold: pass, fail or unknown, the value, and where that was, in words.

Works on plain values: numbers of the run, rows of its timeline, its faults as they were. Of a run that is not over yet,
`fail` means that the run may be stopped for it (`abort: true`). Called by fleet.run at the end, by fleet.abort before.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from fleet.scenario.expect import COLUMNS, CONVERGED, PROBES, RECOVERED, is_counter, kind_of
from fleet.scenario.expect_grammar import AfterHeal, During, FromTo, Limit, Threshold
from reports.result import FaultWindow, Row
from reports.summary import Status
from reports.text import bytes_text, clock_text, number_text, seconds_text

_OPERATORS: Final[dict[str, Callable[[float, float], bool]]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
}
_AT_MOST: Final = ("<", "<=", "==")
_US: Final = 1e6


@dataclass(frozen=True, slots=True)
class Measured:
    """A run, or what there is of it. `numbers`: path -> value, or None where nothing was measured; of one group or
    model with ("group" | "model", NAME). Times in seconds; a row of the timeline lasts `interval_s`, the last one may
    be short. `is_over`: no more will come."""

    numbers: Callable[[str, tuple[str, str] | None], float | None]
    rows: Sequence[Row]
    faults: Sequence[FaultWindow]
    interval_s: float
    now_s: float
    devices: int
    is_over: bool = True


@dataclass(frozen=True, slots=True)
class Finding:
    """`actual`: in the unit of the limit: seconds, MB, bytes, pieces; a rate a second; a share 0 to 1."""

    status: Status
    actual: float | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class _Span:
    """A window in seconds; `is_past`: it is known whole. `begin_s` None: it never came, `why` says that."""

    begin_s: float | None
    end_s: float = 0.0
    is_past: bool = False
    why: str = ""


def from_summary(summary: Mapping[str, Any]) -> Callable[[str, tuple[str, str] | None], float | None]:
    """Numbers of summary.json's content."""

    def number(path: str, of: tuple[str, str] | None) -> float | None:
        where: Any = summary
        if of is not None:
            where = summary.get(f"{of[0]}s")
            where = where.get(of[1]) if isinstance(where, Mapping) else None
        value = where
        parts = path.split(".", 1) if path.startswith(PROBES) else path.split(".")
        for part in parts:
            value = value.get(part) if isinstance(value, Mapping) else None
        if value is None and path.startswith(PROBES):
            return 0
        if path.startswith("latency_s.") and not path.endswith(".count"):
            around: Any = where.get("latency_s", {}) if isinstance(where, Mapping) else {}
            around = around.get(parts[1], {}) if isinstance(around, Mapping) else {}
            if not around.get("count"):
                return None
        return value if isinstance(value, int | float) else None

    return number


def evaluate(threshold: Threshold, run: Measured) -> Finding:
    """Unknown where there was nothing to measure."""
    if threshold.window is None:
        return _of_the_run(threshold, run)
    span = _span(threshold, run)
    if span.begin_s is None:
        return Finding("unknown", detail=span.why)
    if threshold.path.text == RECOVERED:
        return _recovered(threshold, run)
    rows = _rows(run, span)
    if is_counter(threshold.path.text):
        return _counted(threshold, run, span, rows)
    if not rows:
        return _no_row(run)
    return _in_rows(threshold, run, span, rows)


# ---------------------------------------------------------------- the whole run


def _of_the_run(threshold: Threshold, run: Measured) -> Finding:
    path, limit = threshold.path.text, threshold.limit
    of = None if threshold.of is None else (threshold.part, threshold.of.text)
    value = run.numbers(path, of)
    if limit.kind == "share":
        assert limit.base is not None  # the grammar has seen to it
        return _share(threshold, value, run.numbers(limit.base.text, None))
    if limit.kind == "rate":
        return _rate(threshold, value, run.now_s)
    if value is None:
        return Finding("unknown", detail=_nothing(path, of))
    holds = _OPERATORS[threshold.op](value, limit.value)
    if not run.is_over and is_counter(path) and not _is_beyond(threshold, value):
        holds = True  # it may still get there
    return Finding("pass" if holds else "fail", value, f"is {_said(path, limit, value)}")


def _nothing(path: str, of: tuple[str, str] | None) -> str:
    if path == CONVERGED:
        return "did not converge"
    where = f" of {of[0]} {of[1]}" if of is not None else ""
    return f"nothing was synced{where} that way" if path.startswith("latency_s.") else "nothing to measure"


def _is_beyond(threshold: Threshold, count: float) -> bool:
    """Whether a count that only grows can never hold the limit any more."""
    limit = threshold.limit.value
    if threshold.op not in _AT_MOST:
        return False
    return count >= limit if threshold.op == "<" else count > limit


def _share(threshold: Threshold, value: float | None, base: float | None) -> Finding:
    assert threshold.limit.base is not None
    if value is None or not base:
        return Finding("unknown", detail=f"{threshold.limit.base.text} is 0: a share of nothing")
    return _judged(threshold, value / base, f"({number_text(value)} of {number_text(base)})")


def _rate(threshold: Threshold, value: float | None, seconds: float) -> Finding:
    if value is None or seconds <= 0:
        return Finding("unknown", detail="nothing to measure")
    return _judged(threshold, value / seconds, f"({_plain(threshold.path.text, value)} in {clock_text(seconds)})")


def _judged(threshold: Threshold, actual: float, where: str = "") -> Finding:
    status: Status = "pass" if _OPERATORS[threshold.op](actual, threshold.limit.value) else "fail"
    return Finding(status, actual, f"is {_said(threshold.path.text, threshold.limit, actual)} {where}".rstrip())


# ---------------------------------------------------------------- windows


def _span(threshold: Threshold, run: Measured) -> _Span:
    window = threshold.window
    if isinstance(window, FromTo):
        end_s = run.now_s if window.until_us is None else min(window.until_us / _US, run.now_s)
        if run.now_s <= window.from_us / _US:
            return _Span(None, why=f"the run ended at {clock_text(run.now_s)}")
        is_past = run.is_over or (window.until_us is not None and run.now_s >= window.until_us / _US)
        return _Span(window.from_us / _US, end_s, is_past)
    assert isinstance(window, During | AfterHeal)
    name = window.fault.text
    fault = next((one for one in run.faults if one.name == name), None)
    if fault is None:
        return _Span(None, why=f"{name} never acted")
    if isinstance(window, During):
        return _Span(fault.start_s, fault.end_s, run.is_over or run.now_s > fault.end_s)
    if fault.healed_s is None:
        return _Span(None, why=f"{name} never healed")
    if window.within_us is None:
        return _Span(fault.healed_s, run.now_s, run.is_over)
    end_s = fault.healed_s + window.within_us / _US
    return _Span(fault.healed_s, end_s, run.is_over or run.now_s >= end_s)


def _recovered(threshold: Threshold, run: Measured) -> Finding:
    assert isinstance(threshold.window, AfterHeal)
    name = threshold.window.fault.text
    fault = next(one for one in run.faults if one.name == name)
    if fault.recovered_s is None or fault.healed_s is None:
        return Finding("unknown", detail=f"not seen in step after {name}")
    return _judged(threshold, max(0.0, fault.recovered_s - fault.healed_s), f"after {name} healed")


def _rows(run: Measured, span: _Span) -> list[tuple[float, Row]]:
    """(end of the interval, row) of those that lie in the window whole. Rounded to the microsecond, as times are."""
    assert span.begin_s is not None
    begin_us, end_us, now_us = round(span.begin_s * _US), round(span.end_s * _US), round(run.now_s * _US)
    step_us = round(run.interval_s * _US)
    found = []
    for row in run.rows:
        start_us = round(row["t_s"] * _US)
        last_us = min(start_us + step_us, now_us)
        if begin_us <= start_us and last_us <= end_us:
            found.append((last_us / _US, row))
    return found


def _no_row(run: Measured) -> Finding:
    why = f"no interval of the timeline ({clock_text(run.interval_s)}) lies in that window"
    return Finding("unknown", detail=why)


def _counted(threshold: Threshold, run: Measured, span: _Span, rows: list[tuple[float, Row]]) -> Finding:
    """What happened in the window, all intervals together."""
    path, limit = threshold.path.text, threshold.limit
    if not rows:
        return _no_row(run)
    columns = [COLUMNS[path], *([COLUMNS[limit.base.text]] if limit.base is not None else [])]
    if not all(any(column in row for _, row in rows) for column in columns):
        return Finding("unknown", detail="nothing was measured in that window")
    value = _total(rows, columns[0])
    if not span.is_past and (limit.kind != "plain" or not _is_beyond(threshold, value)):
        return Finding("unknown", value, "the window is not over")
    if limit.kind == "share":
        return _share(threshold, value, _total(rows, columns[1]))
    if limit.kind == "rate":
        return _rate(threshold, value, rows[-1][0] - float(rows[0][1]["t_s"]))
    return _judged(threshold, value)


def _total(rows: list[tuple[float, Row]], column: str) -> float:
    return sum(int(row.get(column, 0)) for _, row in rows)  # ints


def _in_rows(threshold: Threshold, run: Measured, span: _Span, rows: list[tuple[float, Row]]) -> Finding:
    """A value at the end of each interval, or a percentile of each: it must hold in all, or once when waited for."""
    limit, column = threshold.limit, COLUMNS[threshold.path.text]
    scale = run.devices if limit.kind == "share" else 1
    known = [(end_s, row[column] / scale) for end_s, row in rows if column in row] if scale else []
    if isinstance(threshold.window, AfterHeal) and threshold.window.within_us is not None:
        return _waited_for(threshold, span, known)
    if not known:
        return Finding("unknown", detail="nothing was measured in that window")
    at_s, worst = known[0]
    for end_s, value in known[1:]:
        if _is_worse(threshold, value, worst):
            at_s, worst = end_s, value
    holds = _OPERATORS[threshold.op](worst, limit.value)
    word = {"==": "furthest", "<": "highest", "<=": "highest"}.get(threshold.op, "lowest")
    said = f"{word} {_said(threshold.path.text, limit, worst)} at {clock_text(at_s)}"
    return Finding("pass" if holds else "fail", worst, said)


def _waited_for(threshold: Threshold, span: _Span, known: list[tuple[float, float]]) -> Finding:
    assert isinstance(threshold.window, AfterHeal) and span.begin_s is not None
    path, limit = threshold.path.text, threshold.limit
    for end_s, value in known:
        if _OPERATORS[threshold.op](value, limit.value):
            return Finding(
                "pass", value, f"is {_said(path, limit, value)} {clock_text(end_s - span.begin_s)} after the heal"
            )
    if not known:
        return Finding("unknown", detail="nothing was measured in that window")
    best = known[0][1]
    for _, value in known[1:]:
        if _is_worse(threshold, best, value):
            best = value
    if not span.is_past:
        return Finding("unknown", best, "the window is not over")
    return Finding("fail", best, f"{_said(path, limit, best)} at best within {clock_text(span.end_s - span.begin_s)}")


def _is_worse(threshold: Threshold, value: float, than: float) -> bool:
    """Further from holding."""
    limit = threshold.limit.value
    if threshold.op == "==":
        return abs(value - limit) > abs(than - limit)
    return value > than if threshold.op in _AT_MOST else value < than


# ---------------------------------------------------------------- for people


def _said(path: str, limit: Limit, value: float) -> str:
    if limit.kind == "share":
        return f"{100 * value:.4g} %"
    return f"{_plain(path, value)}/s" if limit.kind == "rate" else _plain(path, value)


def _plain(path: str, value: float) -> str:
    kind = kind_of(path)
    if kind == "seconds":
        return seconds_text(value)
    if kind == "megabytes":
        return f"{number_text(value)} MB"
    return bytes_text(round(value)) if kind == "bytes" else number_text(value)
