"""`--fail-on`: when a comparison fails. `latency_s.up.p99 > +10%`, `converged_after_s > 2m`, `counts.connects > +500`.

    rule := METRIC OP LIMIT       LIMIT with a sign: the change against BASE; with a sign and %: in percent of BASE

Reads text into `reports.compare.Rule`. Called by `fleet compare`.
"""

from __future__ import annotations

import re
from typing import Final

from agent.protocol.errors import Problem
from fleet.scenario.explain import guess
from fleet.scenario.units import parse_duration, parse_size
from reports.compare import OPERATORS, Rule
from reports.compare_metrics import METRICS, OF, PROBES

_FORM: Final = re.compile(
    r"\s*([A-Za-z_][\w.]*(?:\s+of\s+\w+\s+[\w.-]+)?)\s*([<>=!]+)\s*([+-]?)\s*(\S.*?)\s*", re.ASCII
)
_NUMBER: Final = re.compile(r"\d{1,15}(\.\d{1,9})?", re.ASCII)
_PERCENT: Final = re.compile(r"(\d{1,15}(?:\.\d{1,9})?)\s*%", re.ASCII)
_HOW: Final = "such as latency_s.up.p99 > +10%, counts.connects > +500 or converged_after_s > 2m"
_RECOVERED: Final = "recovered_s"
NAMES: Final = {metric.name: metric.unit for metric in METRICS}


def parse_rule(text: str) -> Rule | Problem:
    """The problem when it is none."""
    match = _FORM.fullmatch(text)
    if match is None or len(text) > 500:
        return _problem(text, "cannot be read: expected METRIC > LIMIT", _HOW)
    metric, op, sign, limit = " ".join(match[1].split()), match[2], match[3], match[4]
    known = _known(metric)
    if known is not None:
        return _problem(text, *known)
    if op not in OPERATORS:
        hint = "did you mean ==?" if op == "=" else f"one of {' '.join(OPERATORS)}"
        return _problem(text, f"no comparison: {op}", hint)
    percent = _PERCENT.fullmatch(limit)
    if percent is not None and not sign:
        return _problem(text, f"percent of what: {limit}", f"of BASE: {metric} {op} +{limit}")
    try:
        value = float(percent[1]) if percent is not None else _value(unit_of(metric), limit)
    except ValueError as error:
        return _problem(text, str(error))
    signed = -value if sign == "-" else value
    return Rule(text.strip(), metric, op, signed, "percent" if percent is not None else "change" if sign else "value")


def _problem(text: str, message: str, hint: str = "") -> Problem:
    return Problem(f"--fail-on {text!r}", 0, 0, "", message, hint)


def unit_of(metric: str) -> str:
    """Of a metric that is known."""
    plain = metric.partition(" of ")[0]
    return "s" if plain.startswith((_RECOVERED, "latency_s.")) else NAMES.get(plain, "")


def _known(metric: str) -> tuple[str, str] | None:
    """Message and hint when there is no such metric in any comparison."""
    plain, of, _ = metric.partition(" of ")
    part = next((one for one in OF if one in metric), "")
    if of and not part:
        return f"of what: {metric!r}", "group NAME, model NAME or fault NAME"
    if part == OF[2]:
        return None if plain == _RECOVERED else (f"no metric {metric!r}", f"did you mean {_RECOVERED}{part}NAME?")
    if part:
        percentiles = plain.startswith("latency_s.") and plain.endswith((".p50", ".p99")) and plain in NAMES
        return (
            None if percentiles else (f"no metric {metric!r}", f"such as latency_s.up.p99{part}NAME; p50 and p99 alone")
        )
    if plain in NAMES or (plain.startswith(PROBES) and len(plain) > len(PROBES)):
        return None
    names = [*NAMES, f"{PROBES}NAME"]
    return f"unknown metric {plain!r}", guess(plain, names) or f"docs/compare.md lists all; {_HOW}"


def _value(unit: str, text: str) -> float:
    if _NUMBER.fullmatch(text):
        return float(text)
    if unit == "s":
        return parse_duration(text) / 1e6
    if unit in ("B", "MB"):
        return parse_size(text) / (1024**2 if unit == "MB" else 1)
    raise ValueError(f"expected a number, found {text!r}")
