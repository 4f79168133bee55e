"""Events of a trace in words, for the story of a failed run. Pure functions; used by the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from reports.failure import first_bad, is_of_life
from reports.result import RunResult, StoryEvent, Violation
from reports.text import clock_text, printable

# kind -> (who, what), as a person would say it
_WORDS: Final = {
    "write": ("application", "writes"),
    "saw": ("application", "is told"),
    "to-cloud": ("device → cloud", "message"),
    "deliver": ("cloud → device", "message"),
    "commit": ("table", "commits"),
    "cloud-write": ("cloud application", "writes"),
    "boot": ("device", "boots"),
    "connect": ("device", "is connected"),
    "disconnect": ("device", "is disconnected"),
    "stop": ("device", "stops"),
    "power-off": ("device", "loses power"),
    "fault": ("fault", "strikes"),
    "drop": ("network", "drops a message"),
    "expired": ("device", "ends a life"),
    "ran": ("device", "runs a command"),
    "damage": ("fault", "damages an item"),
    "message-failed": ("relay", "fails at a message"),
}
_KEYS_MAX: Final = 3
_TEXT_MAX: Final = 220


@dataclass(frozen=True, slots=True)
class Line:
    """One row of a story. `mark`: `fail` for the bad event itself, `item` for what concerns its item, or empty."""

    at: str
    gap: str
    who: str
    what: str
    rest: str
    mark: str = ""


@dataclass(frozen=True, slots=True)
class Failure:
    """The first bad event. `lines`: what concerns its item, when its device came and went, and the event itself;
    `others`: what else the device did."""

    bad: Violation
    at: str
    lines: list[Line]
    others: list[Line]


def failure_of(result: RunResult) -> Failure | None:
    """None where no check has named an event."""
    bad = first_bad(result.violations)
    if bad is None:
        return None
    item = bad.item.partition("/")[2] or bad.item
    at_us = round(bad.t_s * 1e6)
    broken = Line(moment(at_us), "", "check", bad.check, _expectation(bad), "fail")
    lines: list[Line] = []
    others: list[Line] = []
    is_told = False
    for event in result.story:
        if event.t_us > at_us and not is_told:
            lines.append(broken)
            is_told = True
        mark = "item" if item and item in event.detail else ""
        line = Line(moment(event.t_us), _gap(event.t_us - at_us), *words_of(event), mark)
        (lines if mark or not item or is_of_life(event) else others).append(line)
    if lines and not is_told:
        lines.append(broken)
    return Failure(bad, moment(at_us), lines, others)


def _expectation(bad: Violation) -> str:
    return f"expected {bad.expected}, found {bad.found}" if bad.expected or bad.found else ""


def moment(t_us: int) -> str:
    """Since the scenario's start: `1:28:00.125`."""
    seconds, rest = divmod(max(0, t_us), 1_000_000)
    return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}.{rest // 1000:03}"


def _gap(us: int) -> str:
    """Before or after the bad event."""
    if abs(us) < 1000:
        return "then"
    sign = "−" if us < 0 else "+"
    return f"{sign}{abs(us) / 1e6:.3g} s" if abs(us) < 60_000_000 else f"{sign}{clock_text(abs(us) / 1e6)}"


def words_of(event: StoryEvent) -> tuple[str, str, str]:
    """(Who, what, the rest)."""
    who, what = _WORDS.get(event.kind, ("run", event.kind))
    if event.kind in ("to-cloud", "deliver"):
        what, rest = _message(event.detail)
    elif event.kind == "fault":
        rest = event.entity
    elif event.kind in ("commit", "write", "cloud-write", "saw", "expired"):
        key, _, rev = event.detail.rpartition(" ")
        rest = f"{key} removed" if rev == "None" else f"{key} rev {rev}"
    else:
        rest = event.detail
    return who, printable(what, 40), printable(rest, _TEXT_MAX)


def _message(detail: str) -> tuple[str, str]:
    """Its type, and what matters of it; the text itself where it cannot be read (it may have been cut)."""
    try:
        message = msgspec.json.decode(detail)
    except (ValueError, RecursionError):  # decoding errors are ValueErrors
        kind = detail.removeprefix('{"t":"').partition('"')[0] if detail.startswith('{"t":"') else "message"
        return kind, detail
    if not isinstance(message, dict):
        return "message", detail
    parts = []
    for name, value in message.items():
        said = _part(str(name), value)
        if said:
            parts.append(said)
    return str(message.get("t", "message")), " · ".join(parts)


def _part(name: str, value: Any) -> str:
    if name in ("t", "v", "n", "hn", "nonce", "epoch", "schema", "now", "upid", "prev_id", "scan", "head"):
        return ""
    if name in ("ops", "rows", "items") and isinstance(value, list):
        return f"{len(value)} {name}{_keys(value)}"
    if name == "feeds" and isinstance(value, Mapping):
        return ", ".join(
            f"{feed} at {place['seq']}" if isinstance(place, dict) and "seq" in place else f"{feed} from the start"
            for feed, place in value.items()
        )
    if isinstance(value, str | int | float):
        return f"{name} {value}"
    return f"{name} {msgspec.json.encode(value).decode()}" if value else ""


def _keys(entries: Sequence[Any]) -> str:
    keys = []
    for entry in entries[:_KEYS_MAX]:
        key = entry.get("key") if isinstance(entry, dict) else None
        if isinstance(key, list) and len(key) == 2:
            removed = " removed" if "image" not in entry and "kind" not in entry else ""
            kind = f"{entry['kind']} " if "kind" in entry else ""
            keys.append(f"{kind}{key[1]}{removed}")
    more = f" and {len(entries) - _KEYS_MAX} more" if len(entries) > _KEYS_MAX else ""
    return f": {', '.join(keys)}{more}" if keys else ""
