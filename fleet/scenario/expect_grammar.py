"""The language of thresholds: `latency_s.up.p99 < 5s`, `after heal outage: online > 99% within 3m`.

    threshold := [window ":"] number OP limit ["within" DURATION]
    window    := "during" FAULT | "after" "heal" FAULT | "from" DURATION ["to" DURATION]
    number    := PATH ["of" ("group" | "model") NAME]
    limit     := VALUE | VALUE "/" ("s" | "m" | "h" | "d") | VALUE "%" ["of" PATH]

Reads text into values and knows which numbers there are; which faults, groups and models there are is the scenario's
matter (fleet.scenario.expect_check). Reads no files.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from fleet.scenario.expect import (
    COLUMNS,
    LATENCY_PATHS,
    PART_PATHS,
    PATHS,
    PROBES,
    RECOVERED,
    SHARES,
    is_counter,
    kind_of,
)
from fleet.scenario.explain import guess
from fleet.scenario.units import UNITS_US, parse_duration, parse_size

OPERATORS: Final = ("<", "<=", ">", ">=", "==")
PARTS: Final = tuple(PART_PATHS)
TEXT_MAX: Final = 500  # characters of an expression

_TOKEN: Final = re.compile(
    r"(?P<word>[A-Za-z_][\w.-]*)"
    r"|(?P<value>-?\d[\w.]*(?:\s+(?:us|ms|s|m|h|d|kb|mb|gb)\b)?(?:\s*%)?(?:\s*/\s*[A-Za-z]+\b)?)"
    r"|(?P<op>[<>=!]+)"
    r"|(?P<colon>:)",
    re.ASCII,
)
_NUMBER: Final = re.compile(r"-?\d{1,15}(\.\d{1,9})?", re.ASCII)
_SHARE: Final = re.compile(r"(-?\d{1,15}(?:\.\d{1,9})?)\s*%", re.ASCII)
_RATE: Final = re.compile(r"(.+?)\s*/\s*(\w+)", re.ASCII)
_RATE_UNITS: Final = ("s", "m", "h", "d")
_WINDOWS: Final = ("during", "after", "from")


class ExpressionError(ValueError):
    """What is wrong with an expression, where (characters before it), and what to do."""

    def __init__(self, message: str, at: int, hint: str = "") -> None:
        self.message = message
        self.at = at
        self.hint = hint
        super().__init__(f"{message} ({hint})" if hint else message)


@dataclass(frozen=True, slots=True)
class Name:
    """A word of an expression, and how many characters stand before it."""

    text: str
    at: int


@dataclass(frozen=True, slots=True)
class During:
    """While the fault acts."""

    fault: Name


@dataclass(frozen=True, slots=True)
class AfterHeal:
    """From the fault's heal on. `within_us`: the limit has to hold once until then; None: it always must."""

    fault: Name
    within_us: int | None = None


@dataclass(frozen=True, slots=True)
class FromTo:
    """Between two times of the run; `until_us` None: to its end."""

    from_us: int
    until_us: int | None


Window = During | AfterHeal | FromTo


@dataclass(frozen=True, slots=True)
class Limit:
    """`value` is in the number's own unit (seconds, MB, bytes, pieces); of a rate a second; of a share 0 to 1.

    `base`: what it is a share of; None: of the devices."""

    kind: Literal["plain", "rate", "share"]
    value: float
    base: Name | None = None


@dataclass(frozen=True, slots=True)
class Threshold:
    """One expression. `part` and `of`: the number of one group or model only."""

    expr: str
    path: Name
    op: str
    limit: Limit
    window: Window | None = None
    part: Literal["", "group", "model"] = ""
    of: Name | None = None


def parse_threshold(expr: str) -> Threshold:
    """Raises ExpressionError, a ValueError."""
    return _Parser(expr).threshold()


def fault_of(threshold: Threshold) -> str:
    """The fault that its window is of; empty: none."""
    return threshold.window.fault.text if isinstance(threshold.window, During | AfterHeal) else ""


def known_number(path: str, known: Sequence[str]) -> str:
    """A hint for a path that is none of `known`."""
    return guess(path, known) or f"such as {', '.join(known[:3])}; docs/scenarios.md lists all"


class _Parser:
    """Recursive descent without recursion: one token is looked at, and taken."""

    def __init__(self, text: str) -> None:
        if len(text) > TEXT_MAX:
            raise ExpressionError(f"longer than {TEXT_MAX} characters", 0)
        self._text = text
        self._tokens: list[tuple[str, str, int]] = []
        at = 0
        while at < len(text):
            if text[at].isspace():
                at += 1
                continue
            match = _TOKEN.match(text, at)
            if match is None:
                raise ExpressionError(f"cannot be read from {text[at : at + 20]!r} on", at, _FORM)
            self._tokens.append((str(match.lastgroup), match.group(), at))
            at = match.end()
        self._next = 0

    def _peek(self) -> tuple[str, str, int]:
        return self._tokens[self._next] if self._next < len(self._tokens) else ("end", "", len(self._text))

    def _take(self, kind: str, expected: str) -> Name:
        found, text, at = self._peek()
        if found != kind:
            what = repr(text) if text else "the end"
            raise ExpressionError(f"cannot be read: expected {expected}, found {what}", at, _FORM)
        self._next += 1
        return Name(text, at)

    def _takes(self, word: str) -> bool:
        if self._peek()[1] != word:
            return False
        self._next += 1
        return True

    def threshold(self) -> Threshold:
        window = self._window()
        path, part, of = self._number(window)
        op = self._take("op", "one of " + " ".join(OPERATORS))
        if op.text not in OPERATORS:
            hint = "did you mean ==?" if op.text == "=" else "one of " + " ".join(OPERATORS)
            raise ExpressionError(f"no comparison: {op.text}", op.at, hint)
        limit = self._limit(path, window)
        if part and limit.kind != "plain":
            raise ExpressionError(f"a number of one {part} has no rate and no share", path.at)
        if self._takes("within"):
            within = self._duration()
            if not isinstance(window, AfterHeal):
                hint = "such as after heal outage: online > 99% within 3m"
                raise ExpressionError("`within` counts from a heal", within.at, hint)
            if path.text == RECOVERED or is_counter(path.text):
                raise ExpressionError(f"{path.text} cannot be waited for", within.at, "set its limit without `within`")
            window = AfterHeal(window.fault, parse_duration(within.text))
        if self._peek()[0] != "end":
            _, text, at = self._peek()
            raise ExpressionError(f"cannot be read: expected nothing more, found {text!r}", at, _FORM)
        return Threshold(self._text, path, op.text, limit, window, part, of)

    def _window(self) -> Window | None:
        colon = next((at for kind, _, at in self._tokens if kind == "colon"), None)
        if colon is None:
            return None
        window: Window
        if self._takes("during"):
            window = During(self._take("word", "the name of a fault"))
        elif self._takes("after"):
            if not self._takes("heal"):
                raise ExpressionError("cannot be read: expected `heal` after `after`", self._peek()[2], _FORM)
            window = AfterHeal(self._take("word", "the name of a fault"))
        elif self._takes("from"):
            first = self._duration()
            until = self._duration() if self._takes("to") else None
            until_us = None if until is None else parse_duration(until.text)
            if until is not None and until_us is not None and until_us <= parse_duration(first.text):
                raise ExpressionError("ends before it begins", until.at)
            window = FromTo(parse_duration(first.text), until_us)
        else:
            _, text, at = self._peek()
            hint = guess(text, _WINDOWS) or "during FAULT:, after heal FAULT:, from 5m to 10m:"
            raise ExpressionError(f"cannot be read: {text!r} begins no window", at, hint)
        self._take("colon", "`:`")
        return window

    def _duration(self) -> Name:
        found = self._take("value", "a duration such as 3m")
        words = [found.text]
        while self._peek()[0] == "value":  # `1h 30m`
            words.append(self._take("value", "").text)
        name = Name(" ".join(words), found.at)
        _checked_duration(name)
        return name

    def _number(self, window: Window | None) -> tuple[Name, Literal["", "group", "model"], Name | None]:
        path = self._take("word", "a number such as latency_s.up.p99")
        known = numbers_of(window)
        if path.text not in known and not (window is None and _is_probe(path.text)):
            raise _unknown(path, known, window)
        if not self._takes("of"):
            return path, "", None
        part = self._take("word", "`group` or `model`")
        if part.text not in PARTS:
            raise ExpressionError(f"of what: {part.text!r}", part.at, guess(part.text, PARTS) or "group or model")
        if window is not None:
            hint = f"of the whole run alone: latency_s.up.p99 of {part.text} NAME"
            raise ExpressionError(f"a window does not tell one {part.text} from others", part.at, hint)
        if path.text not in PART_PATHS[part.text]:
            hint = f"there are {', '.join(_families(PART_PATHS[part.text]))}"
            raise ExpressionError(f"there is no {path.text} of one {part.text}", path.at, hint)
        of = self._take("word", f"the name of a {part.text}")
        return path, "group" if part.text == "group" else "model", of

    def _limit(self, path: Name, window: Window | None) -> Limit:
        found = self._take("value", _example(path.text))
        text = found.text
        if "%" in text:
            return self._share(path, found, window)
        rate = _RATE.fullmatch(text)
        if rate is not None:
            if not is_counter(path.text):
                raise ExpressionError(f"{path.text} has no rate", found.at, "counts alone have one")
            if rate[2] not in _RATE_UNITS:
                raise ExpressionError(f"no rate: {text!r}", found.at, "a second, minute, hour or day: /s /m /h /d")
            per_s = UNITS_US[rate[2]] / UNITS_US["s"]
            return Limit("rate", _value(path.text, Name(rate[1], found.at)) / per_s)
        words = [text]
        while self._peek()[0] == "value" and kind_of(path.text) == "seconds":  # `1h 30m`
            words.append(self._take("value", "").text)
        return Limit("plain", _value(path.text, Name(" ".join(words), found.at)))

    def _share(self, path: Name, found: Name, window: Window | None) -> Limit:
        match = _SHARE.fullmatch(found.text)
        if match is None:
            raise ExpressionError(f"no share: {found.text!r}", found.at, "such as 99%")
        share = float(match[1]) / 100
        base = None
        if self._takes("of"):
            base = self._take("word", "a count such as counts.messages_up")
            known = [one for one in numbers_of(window) if is_counter(one)]
            if base.text not in known and not (window is None and _is_probe(base.text)):
                raise _unknown(base, known, window)
        if is_counter(path.text) == (base is None) or (base is None and path.text not in SHARES):
            hint = "online is a share of the devices, a count is a share of another: `< 1% of counts.messages_up`"
            raise ExpressionError(f"{path.text} as a share of what?", found.at, hint)
        if base is None and not 0 <= share <= 1:
            raise ExpressionError(f"impossible share {found.text}", found.at, "0% to 100%")
        return Limit("share", share, base)


_FORM: Final = "such as latency_s.up.p99 < 5s, or after heal outage: online > 99% within 3m"


def numbers_of(window: Window | None) -> list[str]:
    """What can be asked of the whole run, or of a part of it."""
    if window is None:
        return list(PATHS)
    return [*COLUMNS, RECOVERED] if isinstance(window, AfterHeal) else list(COLUMNS)


def _is_probe(path: str) -> bool:
    return path.startswith(PROBES) and len(path) > len(PROBES)


def _unknown(path: Name, known: Sequence[str], window: Window | None) -> ExpressionError:
    if path.text == RECOVERED or (window is None and path.text in COLUMNS):
        where = "after heal FAULT:" if path.text == RECOVERED else "from 5m to 10m: or during FAULT:"
        return ExpressionError(f"{path.text} needs a window", path.at, f"such as {where} {path.text} ...")
    if window is not None and path.text in PATHS:
        same = path.text.rpartition(".")[2]
        close = f"did you mean {same}?" if same in known else known_number(path.text, known)
        return ExpressionError(f"{path.text} is a number of the whole run, not of a window", path.at, close)
    return ExpressionError(f"unknown number {path.text!r}", path.at, known_number(path.text, [*known, PROBES + "NAME"]))


def _families(paths: Sequence[str]) -> list[str]:
    """The paths, latencies as one."""
    return list(dict.fromkeys("latency_s..." if path in LATENCY_PATHS else path for path in paths))


def _example(path: str) -> str:
    words = {"seconds": "a duration such as 5s", "megabytes": "a size such as 500mb", "bytes": "a size such as 10mb"}
    return words.get(kind_of(path), "a number")


def _checked_duration(found: Name) -> int:
    try:
        return parse_duration(found.text)
    except ValueError as error:
        raise ExpressionError(str(error), found.at) from None


def _value(path: str, found: Name) -> float:
    """In the path's own unit."""
    text = found.text.strip()
    if _NUMBER.fullmatch(text):
        return float(text)
    kind = kind_of(path)
    if kind == "seconds":
        return _checked_duration(found) / 1e6
    try:
        if kind == "megabytes":
            return parse_size(text) / 1024**2
        if kind == "bytes":
            return float(parse_size(text))
    except ValueError as error:
        raise ExpressionError(str(error), found.at) from None
    raise ExpressionError(f"expected a number for {path}, found {text!r}", found.at)
