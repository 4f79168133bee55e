"""What a scenario expects: names of checks, and thresholds such as `latency_s.up.p99 < 5s` on numbers of summary.json.

Parses and evaluates; reads no files. Used by fleet.scenario.check before a run, and by the run at its end.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args, get_origin

import msgspec

from fleet.oracle.checks import CLASSES
from fleet.scenario.units import parse_duration, parse_size
from reports.summary import Summary

CHECKS: Final = tuple(check.name for check in CLASSES)
ALWAYS_REQUIRED: Final = ("convergence", "no-acked-write-lost")

_OPERATORS: Final[dict[str, Callable[[float, float], bool]]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
}
_FORM: Final = re.compile(r"\s*([A-Za-z_][\w.-]*)\s*(<=|>=|==|<|>)\s*(\S.*?)\s*")
_NUMBER: Final = re.compile(r"-?\d{1,15}(\.\d{1,9})?")
PROBES: Final = "probes."  # any name: a probe that nothing counted is 0


def _paths(struct: Any, prefix: str = "") -> Iterator[str]:
    """Of every number in the structure."""
    for field in msgspec.structs.fields(struct):
        kinds = get_args(field.type) or (field.type,)
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            yield from _paths(field.type, f"{prefix}{field.name}.")
        elif get_origin(field.type) is not dict and (int in kinds or float in kinds):
            yield f"{prefix}{field.name}"


PATHS: Final = tuple(_paths(Summary))


@dataclass(frozen=True, slots=True)
class Threshold:
    """`path op limit`; the limit is in the path's own unit."""

    expr: str
    path: str
    op: str
    limit: float

    def evaluate(self, summary: Mapping[str, Any]) -> tuple[Literal["pass", "fail", "unknown"], float | None]:
        """Against summary.json's content. Unknown when there was nothing to measure."""
        value: Any = summary
        parts = self.path.split(".", 1) if self.path.startswith(PROBES) else self.path.split(".")
        for part in parts:
            value = value.get(part) if isinstance(value, Mapping) else None
        if value is None and self.path.startswith(PROBES):
            value = 0
        if self.path.startswith("latency_s.") and not self.path.endswith(".count"):
            around: Any = summary.get("latency_s", {})
            around = around.get(parts[1], {}) if isinstance(around, Mapping) else {}
            if not around.get("count"):
                value = None
        if not isinstance(value, int | float):
            return "unknown", None
        return ("pass" if _OPERATORS[self.op](value, self.limit) else "fail"), value


def parse_threshold(expr: str) -> Threshold:
    """Raises ValueError (the form, the limit) or KeyError (the path is unknown; its argument is the path)."""
    match = _FORM.fullmatch(expr)
    if match is None:
        raise ValueError(f"cannot be read: {expr!r}; expected PATH < LIMIT, with one of {' '.join(_OPERATORS)}")
    path, op, text = match.groups()
    if path not in PATHS and not (path.startswith(PROBES) and len(path) > len(PROBES)):
        raise KeyError(path)
    return Threshold(expr, path, op, _limit(path, text))


def _limit(path: str, text: str) -> float:
    if _NUMBER.fullmatch(text):
        return float(text)
    if path.endswith(".count"):
        raise ValueError(f"expected a number for {path}, found {text!r}")
    if path.startswith("latency_s.") or path.endswith("_s"):
        return parse_duration(text) / 1e6
    if "_mb" in path:
        return parse_size(text) / 1024**2
    if "bytes" in path:
        return float(parse_size(text))
    raise ValueError(f"expected a number for {path}, found {text!r}")
