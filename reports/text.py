"""Text for people: hostile strings made harmless, durations and numbers made readable. Pure functions, used by all
writers here. Escaping for HTML and XML is not done here: that is the template's and the XML writer's own job.
"""

from __future__ import annotations

import math
import re
from typing import Final

# Control characters (terminal escapes among them), bidirectional overrides that make text read as something else,
# lone surrogates that no encoder takes, and what XML 1.0 forbids.
_UNSAFE: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)
REPLACEMENT: Final = "\ufffd"


def printable(text: str, length_max: int | None = None) -> str:
    """One line without control characters, cut to `length_max` characters with an ellipsis."""
    line = _UNSAFE.sub(REPLACEMENT, text.replace("\r\n", " ").replace("\n", " ").replace("\t", " "))
    if length_max is not None and len(line) > length_max:
        return line[: max(0, length_max - 1)] + "…"
    return line


def printable_lines(text: str) -> str:
    """The same for text of several lines: line ends and tabs stay."""
    return _UNSAFE.sub(REPLACEMENT, text.replace("\r\n", "\n"))


def seconds_text(value_s: float | None) -> str:
    """A measured time with three significant digits: `0`, `850 µs`, `12.3 ms`, `4.56 s`, `2m 5s`, `1h 30m`."""
    if value_s is None:
        return "–"
    if value_s < 0:
        return "-" + seconds_text(-value_s)
    if value_s == 0:
        return "0"
    if value_s < 0.0009995:
        return f"{_three(value_s * 1e6)} µs"
    if value_s < 0.9995:
        return f"{_three(value_s * 1e3)} ms"
    if value_s < 119.5:
        return f"{_three(value_s)} s"
    return clock_text(value_s)


def clock_text(value_s: float) -> str:
    """A time since the scenario's start, or a long duration: `0s`, `45s`, `10m`, `1h 30m`, `2d 3h`."""
    whole = round(value_s)
    if abs(value_s) < 60 and value_s != whole:
        return f"{value_s:.3g}s"
    days, rest = divmod(whole, 86400)
    hours, rest = divmod(rest, 3600)
    minutes, seconds = divmod(rest, 60)
    parts = [f"{n}{unit}" for n, unit in ((days, "d"), (hours, "h"), (minutes, "m"), (seconds, "s")) if n]
    return " ".join(parts[:3] if days == 0 else parts[:2]) or "0s"


def number_text(value: float | None) -> str:
    """`1,234,567`, `0.125`, `98.6`, `1e+300`."""
    if value is None:
        return "–"
    if not math.isfinite(value):
        return str(value)
    if abs(value) < 1e15 and value == int(value):
        return f"{int(value):,}"
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e15 else f"{value:.4g}"


def bytes_text(size_bytes: int) -> str:
    """`812 B`, `4.1 kB`, `93.2 MB` (powers of 1000)."""
    value = float(size_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 999.5:
            return f"{value:.0f} {unit}" if unit == "B" else f"{_three(value)} {unit}"
        value /= 1000
    return f"{_three(value)} TB"


def _three(value: float) -> str:
    return f"{value:.2f}" if value < 9.995 else f"{value:.1f}" if value < 99.95 else f"{value:,.0f}"
