"""Dates in their stored forms: milliseconds, seconds of a ttl, or text as JavaScript's toISOString writes it.

Never reads a clock. Called by agent.protocol.onetable.writing, checking, reading, model and field_reader.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any, Final

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
MS_MAX: Final = 2**53  # what JavaScript counts without a gap
MS_OLDEST: Final = -62_135_596_800_000  # the first of the year 1: no date is older
_MS: Final = timedelta(milliseconds=1)
_ISO = re.compile(r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)\.(\d{3})Z", re.ASCII)


def to_ms(value: datetime) -> int:
    """Milliseconds since 1970, rounded down."""
    return (value - EPOCH) // _MS


def from_ms(value_ms: int) -> datetime:
    return EPOCH + value_ms * _MS


def iso_text(value_ms: int) -> str:
    """`2026-01-02T03:04:05.678Z`, as JavaScript's toISOString."""
    date = from_ms(value_ms)
    return f"{date.year:04}-{date.month:02}-{date.day:02}T{date:%H:%M:%S}.{date.microsecond // 1000:03}Z"


def iso_ms(text: str) -> int | None:
    """The inverse of `iso_text`, None for any other text."""
    match = _ISO.fullmatch(text)
    if match is None:
        return None
    year, month, day, hour, minute, second, ms = map(int, match.groups())
    try:
        return to_ms(datetime(year, month, day, hour, minute, second, ms * 1000, UTC))
    except ValueError:
        return None


def date_ms(stored: Any) -> int | None:
    """Milliseconds of a stored date in either form, None when it is none."""
    if stored.__class__ is int:
        ms: int = stored
        return ms
    return iso_ms(stored) if isinstance(stored, str) else None


def store_ms(value_ms: int, *, iso: bool, ttl: bool) -> int | str:
    """The stored form of a date: epoch seconds rounded up for a ttl, else ISO text or milliseconds."""
    if ttl:
        return -(-value_ms // 1000)
    return iso_text(value_ms) if iso else value_ms
