"""What relays count, asked now and then while they run: a relay that is killed takes the rest with it.

Reads a relay's /metrics on loopback; names are the relay's own again. Calls that wait, for a thread. Called by
fleet.live.run.
"""

from __future__ import annotations

import re
import urllib.error
import urllib.request
from collections import Counter
from typing import Final

from cloud.service_metrics import FAMILIES
from fleet.live.parts import RelayPart

_LIMIT_S: Final = 2.0
_SAMPLE: Final = re.compile(r'(\w+?)_total\{\w+="([^"]*)"\} (\S+)')
_LOGIC: Final = tuple(metric for beginning, metric, _, _ in FAMILIES if beginning in ("", "digest_"))
_BEGINNINGS: Final = {metric: beginning for beginning, metric, _, _ in FAMILIES}


class Figures:
    """Of all relays of a run, also over their restarts."""

    def __init__(self, relays: list[RelayPart]) -> None:
        self._relays = relays
        self._last: dict[tuple[str, int], Counter[str]] = {}  # (relay, start) -> what it said last

    def look(self) -> None:
        """Who does not answer, stopped or about to end, is asked again the next time."""
        for relay in self._relays:
            said = relay.events("listening")
            if not relay.alive or not said:
                continue
            try:
                with urllib.request.urlopen(said[-1]["metrics"], timeout=_LIMIT_S) as answer:
                    text = answer.read().decode()
            except (OSError, urllib.error.URLError, ValueError):
                continue
            self._last[relay.name, relay.starts] = read(text)

    def total(self) -> Counter[str]:
        found: Counter[str] = Counter()
        for counted in self._last.values():
            found.update(counted)
        return found


def read(text: str) -> Counter[str]:
    """What the relay's logic counts, of a page of /metrics, under its own names: what a simulation counts too."""
    found: Counter[str] = Counter()
    for name, label, value in _SAMPLE.findall(text):
        if name in _LOGIC:
            found[_BEGINNINGS[name] + label] += int(float(value))
    return found
