"""Where the oracle counts what devices of one group do, by model. Values only; fleet.latencies reads them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Protocol


class Recorder(Protocol):
    """Takes latencies in microseconds."""

    def add(self, value_us: int, /) -> None: ...


class Tally:
    """`up`, `down`: model -> recorder of its latencies; `writes`: model -> writes of applications on these devices."""

    __slots__ = ("down", "up", "writes")

    def __init__(self, up: dict[str, Recorder], down: dict[str, Recorder]) -> None:
        self.up = up
        self.down = down
        self.writes: Counter[str] = Counter()


def undivided(models: Iterable[str], up: Recorder, down: Recorder) -> Tally:
    """One recorder each way for all models."""
    names = list(models)
    return Tally(dict.fromkeys(names, up), dict.fromkeys(names, down))
