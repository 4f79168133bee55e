"""What must hold of `expect` in a scenario: checks that exist, thresholds that can be read and that name what exists.

Adds problems to the document, each at the character where it is; called by fleet.scenario.check.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import ValidationError

from fleet.intervals import widened
from fleet.scenario.document import Document, Path_
from fleet.scenario.draft import Draft, first_of, raw_names, unknown
from fleet.scenario.events import OFFLINE
from fleet.scenario.expect import CHECKS, ONLY_AT_THE_END, is_counter
from fleet.scenario.expect_grammar import (
    AfterHeal,
    During,
    ExpressionError,
    FromTo,
    Name,
    Threshold,
    parse_threshold,
)
from fleet.scenario.explain import guess
from fleet.scenario.model import Threshold as Expected
from fleet.scenario.model import window_key
from fleet.scenario.units import format_duration


def check_expect(draft: Draft) -> None:
    """Of both keys. Elements that are right by themselves are looked at, whatever the others are."""
    document = draft.document
    if draft.expect is not None:
        unknown(document, ("expect", "checks"), draft.expect.checks, CHECKS, "check")
    written = document.written(("expect", "thresholds"))
    for index, value in enumerate(written if isinstance(written, list) else ()):
        try:
            one = Expected.model_validate(value)
        except ValidationError:
            continue  # explained already
        path: Path_ = ("expect", "thresholds", index)
        place = _Place(document, path)
        try:
            threshold = parse_threshold(one.expr)
        except ExpressionError as error:
            place.complain(error.at, error.message, error.hint)
            continue
        _names_exist(draft, place, threshold)
        _window(draft, place, threshold)
        if one.abort:
            _may_abort(document, (*path, "abort"), threshold)


class _Place:
    """Where an expression stands: a text, the text of `expr`, or a key and its value."""

    def __init__(self, document: Document, path: Path_) -> None:
        self._document = document
        written = document.written(path)
        self._window = window_key(written)
        self._path = (*path, "expr") if isinstance(written, dict) and self._window is None else path

    def complain(self, at: int, message: str, hint: str = "") -> None:
        """`at`: so many characters into the expression."""
        if self._window is None:
            self._document.complain(self._path, message, hint, at=at)
            return
        beyond = at - len(self._window) - len(": ")
        path = (*self._path, self._window)
        if beyond >= 0:
            self._document.complain(path, message, hint, at=beyond)
        else:
            self._document.complain(path, message, hint, key=True, at=at)


def _names_exist(draft: Draft, place: _Place, threshold: Threshold) -> None:
    document, window = draft.document, threshold.window
    if isinstance(window, During | AfterHeal):
        _exists(place, window.fault, fault_names(draft), "fault")
    if threshold.of is not None and threshold.part == "group":
        groups = [name for _, name in raw_names(document, "devices")]
        _exists(place, threshold.of, groups, "group")
    elif threshold.of is not None and draft.schema is not None:
        _exists(place, threshold.of, list(draft.schema.models), "model")


def fault_names(draft: Draft) -> list[str]:
    """As written, also of faults that are wrong otherwise; the kind where there is no name.

    The breaks that link profiles bring have one too."""
    faults = draft.document.written(("faults",))
    names = [
        one.get("name") or one.get("kind")
        for one in (faults if isinstance(faults, list) else [])
        if isinstance(one, dict)
    ]
    return [*(name for name in names if isinstance(name, str)), OFFLINE]


def _exists(place: _Place, name: Name, known: Sequence[str], what: str) -> None:
    if name.text not in known:
        hint = guess(name.text, known) or first_of(known) or f"there is no {what} in this scenario"
        place.complain(name.at, f"unknown {what} {name.text!r}", hint)


def _window(draft: Draft, place: _Place, threshold: Threshold) -> None:
    """A window that no interval of the timeline fits into measures nothing."""
    window = threshold.window
    longest_us = _longest_us(draft)
    if isinstance(window, FromTo):
        if longest_us is not None and window.from_us >= longest_us:
            place.complain(0, f"begins after the run's end, {format_duration(longest_us)} at most")
        lasts_us = None if window.until_us is None else window.until_us - window.from_us
    else:
        lasts_us = window.within_us if isinstance(window, AfterHeal) else None
    if lasts_us is None or longest_us is None or draft.interval_us is None:
        return
    interval_us = widened(draft.interval_us, longest_us)
    if lasts_us < interval_us:
        hint = "a window is measured by intervals that lie in it; make `interval` shorter"
        place.complain(0, f"shorter than the timeline's interval, {format_duration(interval_us)}", hint)


def _longest_us(draft: Draft) -> int | None:
    if draft.duration_us is None or draft.phases is None:
        return None
    return draft.duration_us + draft.phases.converge_within_us + draft.phases.quiesce_us


def _may_abort(document: Document, place: Path_, threshold: Threshold) -> None:
    path = threshold.path.text
    grows = threshold.window is None and threshold.limit.kind == "plain" and is_counter(path)
    if path in ONLY_AT_THE_END:
        document.complain(place, f"no run can be stopped for {path}", "it is known only at the end")
    elif threshold.of is not None and is_counter(path):
        document.complain(place, f"no run can be stopped for {path} of one {threshold.part}", "only for its latencies")
    elif grows and threshold.op in (">", ">="):
        hint = "a count that only grows may still get there: it is known only at the end"
        document.complain(place, f"no run can be stopped for `{path} {threshold.op}`", hint)
