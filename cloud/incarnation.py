"""The incarnation of the table: a random text that changes when the table is put back to an older copy (rule 19).

It lies in the table's marker item; a marker without it, or none, is the incarnation "". HEAD says in which incarnation
its epoch was adopted, a feed epoch in which it began. What a relay knows of it is kept for a while, so that no message
pays for reading it. That is safe, because the relay asks the table again wherever something that it reads anyway (HEAD,
a feed's last row) or is sent (hello) says another: so what it knows can be out of date only where nothing has been
touched yet since the mark, and there all is as it was between the restore and the mark. Whatever happens in that time,
a device leaves behind when it hears of the mark: its epoch, and all of its cursors. docs/protocol.md has the argument.

Generators: every yield is a request to the table. Called by the relay's parts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator
from typing import Any, Final

from cloud.config import RelayConfig
from cloud.table import MARKER_KEY, Condition, Get, Item, Request, Update

INCARNATION: Final = "incarnation"  # attribute of the marker
IN: Final = "inc"  # attribute of HEAD; absent: ""
_DIGITS: Final = 16


def incarnation_of(item: Item) -> str:
    """In which HEAD's epoch was adopted."""
    value: str = item.get(IN, "")
    return value


def mark(random_hex: Callable[[int], str], condition: Condition = ()) -> Update:
    """The marker says from now on that the table is another one than before: a new incarnation."""
    return Update(MARKER_KEY, {INCARNATION: random_hex(_DIGITS)}, (), condition)


class Incarnation:
    """What one relay knows, shared by its parts. Never less true than the table was `incarnation_ms` ago."""

    def __init__(self, config: RelayConfig, clock_ms: Callable[[], int], counters: Counter[str]) -> None:
        self.config = config
        self.clock_ms = clock_ms
        self.counters = counters
        self.known: str | None = None
        self._asked_ms = 0

    def learn(self, value: str) -> None:
        """The table says so now."""
        self.known = value
        self._asked_ms = self.clock_ms()

    def agrees(self, seen: str) -> bool:
        """Whether what was just read, or sent, is of the present incarnation, as far as that needs no question."""
        return self.known == seen and 0 <= self.clock_ms() - self._asked_ms < self.config.incarnation_ms

    def current(self, *seen: str) -> Generator[Request, Any, str]:
        """The present one. The table is asked when what is known is too old, or anything that was `seen` differs."""
        if self.known is not None and all(map(self.agrees, seen or (self.known,))):
            return self.known
        item: Item | None = yield Get(MARKER_KEY)
        self.counters["incarnation_read"] += 1
        value = "" if item is None else str(item.get(INCARNATION, ""))
        if self.known not in (None, value):
            self.counters["incarnation_changed"] += 1
        self.learn(value)
        return value
