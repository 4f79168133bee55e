"""Numbers with units as people write them in a scenario: `1h30m`, `1kb`, `2/h`, `5%`, `10Mbit`, `20ppm`.

One parser and one formatter per unit, and the pydantic types made of them. A parser raises ValueError with a sentence
that says what was expected. Never guesses a unit: a bare `10` is no duration. Used by the scenario's models only.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, Field, PlainSerializer, WithJsonSchema

UNITS_US: Final = {"us": 1, "ms": 1_000, "s": 1_000_000, "m": 60_000_000, "h": 3_600_000_000, "d": 86_400_000_000}
_LARGEST_FIRST: Final = ("d", "h", "m", "s", "ms", "us")
DURATION_DAYS_MAX: Final = 3650  # ten years: beyond that it is a slip of the pen
SIGNED_DAYS_MAX: Final = 21_900  # sixty: a clock without a battery begins in 1970
SIZE_BYTES_MAX: Final = 1 << 40
RATE_PER_S_MAX: Final = 1e6
BPS_MAX: Final = 10**12

_NUMBER: Final = r"\d{1,15}(?:\.\d{1,9})?"
_DURATION: Final = re.compile(rf"({_NUMBER})\s*(us|ms|s|m|h|d)\s*")
_DURATION_WHOLE: Final = re.compile(rf"(?:{_NUMBER}\s*(?:us|ms|s|m|h|d)\s*)+")
_SIZE: Final = re.compile(rf"({_NUMBER})\s*(b|kb|mb|gb)", re.IGNORECASE)
_SIZE_UNITS: Final = {"b": 1, "kb": 1024, "mb": 1024**2, "gb": 1024**3}
_RATE: Final = re.compile(rf"({_NUMBER})\s*/\s*(s|m|h|d)")
_PERCENT: Final = re.compile(rf"({_NUMBER})\s*%")
_BITS: Final = re.compile(rf"({_NUMBER})\s*(k|M|G)?(?:bit)?(?:/s)?")
_BIT_UNITS: Final = {None: 1, "k": 10**3, "M": 10**6, "G": 10**9}
_PPM: Final = re.compile(rf"(-?{_NUMBER})\s*ppm")


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def parse_duration(value: Any, days_max: int = DURATION_DAYS_MAX) -> int:
    """Microseconds. `0` needs no unit."""
    if _number(value) and value == 0:
        return 0
    if not isinstance(value, str) or not _DURATION_WHOLE.fullmatch(value.strip()):
        raise ValueError(f"expected a duration such as 10s, 5m, 1h30m or 250ms, found {value!r}")
    parts = (Fraction(number) * UNITS_US[unit] for number, unit in _DURATION.findall(value))
    total = int(sum(parts, Fraction(0)))
    if total > days_max * UNITS_US["d"]:
        raise ValueError(f"impossible duration {value!r}: at most {days_max}d")
    return total


def parse_signed_duration(value: Any) -> int:
    """Microseconds, `-5m` too."""
    if isinstance(value, str) and value.lstrip().startswith("-"):
        return -parse_duration(value.lstrip()[1:], SIGNED_DAYS_MAX)
    return parse_duration(value, SIGNED_DAYS_MAX)


def parse_positive_duration(value: Any) -> int:
    """Microseconds, more than none."""
    total = parse_duration(value)
    if total <= 0:
        raise ValueError(f"impossible duration {value!r}: it must be longer than nothing")
    return total


def format_duration(us: int) -> str:
    """The shortest exact way to write it: 5_400_000_000 is `1h30m`."""
    if us == 0:
        return "0s"
    text, rest = "-" if us < 0 else "", abs(us)
    for unit in _LARGEST_FIRST:
        count, rest = divmod(rest, UNITS_US[unit])
        if count:
            text += f"{count}{unit}"
    return text


def parse_size(value: Any) -> int:
    """Bytes; 1 kb is 1,024 of them. A whole number without a unit is bytes."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        size = value
    else:
        match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
        if match is None:
            raise ValueError(f"expected a size such as 200, 1kb or 2mb, found {value!r}")
        size = int(Fraction(match[1]) * _SIZE_UNITS[match[2].lower()])
    if size > SIZE_BYTES_MAX:
        raise ValueError(f"impossible size {value!r}: at most 1024gb")
    return size


def format_size(size_bytes: int) -> int | str:
    for unit in ("gb", "mb", "kb"):
        if size_bytes and size_bytes % _SIZE_UNITS[unit] == 0:
            return f"{size_bytes // _SIZE_UNITS[unit]}{unit}"
    return size_bytes


def parse_rate(value: Any) -> float:
    """Events a second."""
    match = _RATE.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f"expected a rate such as 100/s, 2/h or 1/d, found {value!r}")
    rate = Fraction(match[1]) / (UNITS_US[match[2]] // UNITS_US["s"])
    if rate <= 0:
        raise ValueError(f"impossible rate {value!r}: it must be more than nothing")
    if rate > RATE_PER_S_MAX:
        raise ValueError(f"impossible rate {value!r}: at most 1000000/s")
    return float(rate)


def format_rate(per_s: float) -> str:
    for unit in ("s", "m", "h", "d"):
        count = Fraction(per_s).limit_denominator(10**9) * (UNITS_US[unit] // UNITS_US["s"])
        if count >= 1 or unit == "d":
            return f"{float(round(count, 9)):.12g}/{unit}"
    raise AssertionError


def parse_share(value: Any) -> float:
    """A part of the whole, 0 to 1: `5%` or 0.05."""
    if isinstance(value, str) and (match := _PERCENT.fullmatch(value.strip())):
        share = float(Fraction(match[1]) / 100)
    elif _number(value):
        share = float(value)
    else:
        raise ValueError(f"expected a share such as 5% or 0.05, found {value!r}")
    if not 0.0 <= share <= 1.0:
        raise ValueError(f"impossible share {value!r}: between 0% and 100%")
    return share


def format_share(share: float) -> str:
    return f"{float(Fraction(share).limit_denominator(10**9) * 100):.12g}%"


def parse_bits(value: Any) -> int:
    """Bits a second; k, M and G are powers of 1,000. 0: no limit."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        bps = value
    else:
        match = _BITS.fullmatch(value.strip()) if isinstance(value, str) else None
        if match is None:
            raise ValueError(f"expected bits a second such as 375k or 10M, found {value!r}")
        bps = int(Fraction(match[1]) * _BIT_UNITS[match[2]])
    if bps > BPS_MAX:
        raise ValueError(f"impossible rate {value!r}: at most 1000G")
    return bps


def format_bits(bps: int) -> int | str:
    for unit in ("G", "M", "k"):
        if bps and bps % _BIT_UNITS[unit] == 0:
            return f"{bps // _BIT_UNITS[unit]}{unit}"
    return bps


def parse_ppm(value: Any) -> int:
    """Parts per billion. `20ppm`: gains 20 µs in every second."""
    match = _PPM.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None and not (_number(value) and value == 0):
        raise ValueError(f"expected a drift such as 20ppm, found {value!r}")
    ppb = int(Fraction(match[1]) * 1000) if match else 0
    if abs(ppb) > 100_000_000:
        raise ValueError(f"impossible drift {value!r}: at most 100000ppm")
    return ppb


def format_ppm(ppb: int) -> str:
    return f"{ppb / 1000:.9g}ppm"


def one_or_many(value: Any) -> Any:
    """`x` may be written for `[x]`."""
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def _pair(parse: Any) -> Any:
    def parse_pair(value: Any) -> tuple[Any, Any]:
        low, high = value if isinstance(value, list | tuple) and len(value) == 2 else (value, value)
        if isinstance(low, list | tuple):
            raise ValueError("expected one value or [least, most]")
        pair = (parse(low), parse(high))
        if pair[0] > pair[1]:
            raise ValueError(f"the least, {low!r}, is more than the most, {high!r}")
        return pair

    return parse_pair


def _text(pattern: str, *examples: str, other: str | None = None) -> dict[str, Any]:
    text: dict[str, Any] = {"type": "string", "pattern": f"^{pattern}$", "examples": list(examples)}
    return {"anyOf": [text, {"type": other, "minimum": 0}]} if other else text


_DURATION_JSON: Final = {
    "anyOf": [_text(_DURATION_WHOLE.pattern, "10s", "5m", "1h30m", "250ms"), {"type": "number", "const": 0}]
}
_SIGNED_JSON: Final = {"anyOf": [_text("-?" + _DURATION_WHOLE.pattern, "10s", "-5m"), {"type": "number", "const": 0}]}
_SHARE_JSON: Final = {
    "anyOf": [_text(rf"{_NUMBER}\s*%", "5%"), {"type": "number", "minimum": 0, "maximum": 1}],
}
_SIZE_JSON: Final = _text(rf"{_NUMBER}\s*([bB]|[kmgKMG][bB])", "1kb", other="integer")


def _either(one: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [one, {"type": "array", "items": one, "minItems": 2, "maxItems": 2}]}


def _type(parse: Any, show: Any, json: dict[str, Any]) -> tuple[Any, ...]:
    return BeforeValidator(parse), PlainSerializer(show), WithJsonSchema(json)


def _show_pair(show: Any) -> Any:
    return lambda pair: show(pair[0]) if pair[0] == pair[1] else [show(pair[0]), show(pair[1])]


Duration = Annotated[int, *_type(parse_duration, format_duration, _DURATION_JSON)]
PositiveDuration = Annotated[int, *_type(parse_positive_duration, format_duration, _DURATION_JSON)]
SignedDuration = Annotated[int, *_type(parse_signed_duration, format_duration, _SIGNED_JSON)]
DurationRange = Annotated[
    tuple[int, int], *_type(_pair(parse_duration), _show_pair(format_duration), _either(_DURATION_JSON))
]
Times = Annotated[
    tuple[int, ...],
    *_type(
        lambda value: tuple(parse_duration(one) for one in one_or_many(value)),
        lambda times: format_duration(times[0]) if len(times) == 1 else [format_duration(time) for time in times],
        {"anyOf": [_DURATION_JSON, {"type": "array", "items": _DURATION_JSON}]},
    ),
]
Size = Annotated[int, *_type(parse_size, format_size, _SIZE_JSON)]
SizeRange = Annotated[tuple[int, int], *_type(_pair(parse_size), _show_pair(format_size), _either(_SIZE_JSON))]
Rate = Annotated[float, *_type(parse_rate, format_rate, _text(rf"{_NUMBER}\s*/\s*[smhd]", "100/s", "2/h"))]
Share = Annotated[float, *_type(parse_share, format_share, _SHARE_JSON)]
Bits = Annotated[int, *_type(parse_bits, format_bits, _text(_BITS.pattern, "375k", "10M", other="integer"))]
Drift = Annotated[
    int,
    *_type(parse_ppm, format_ppm, {"anyOf": [_text(_PPM.pattern, "20ppm"), {"type": "number", "const": 0}]}),
]
Names = Annotated[
    tuple[str, ...],
    BeforeValidator(one_or_many),
    PlainSerializer(list),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}),
    Field(strict=False),
]
