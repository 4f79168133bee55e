"""The orders that a workload on the model Command may give, each by a word: what a Command then holds.

Pure values; the simulated devices' handlers for them are in fleet.world.executor. Used by fleet.scenario.check and by
the cloud's writers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol


class Chance(Protocol):
    """What an order is drawn with."""

    def between(self, low: int, high: int, /) -> int: ...


Args = Callable[[Chance], dict[str, Any] | None]
WORK_S: Final = (1, 90)

# Word -> (name of the command, its arguments).
ORDERS: Final[dict[str, tuple[str, Args]]] = {
    "blink": ("blink", lambda chance: {"times": chance.between(1, 5)}),  # ends at once
    "work": ("work", lambda chance: {"seconds": chance.between(*WORK_S)}),  # takes its time
    "fail": ("fail", lambda _: None),  # ends with an error
    "large": ("large", lambda _: {}),  # ends with more than a result may hold
    "invalid": ("work", lambda _: {"seconds": "soon"}),  # arguments of a wrong type
    "unknown": ("sing", lambda _: None),  # a command that no device knows
    "status": ("status", lambda _: None),
    "resync": ("resync", lambda _: None),
    "reboot": ("reboot", lambda _: {}),
}


def order(word: str, chance: Chance) -> dict[str, Any]:
    """The fields of a Command besides its dates."""
    name, args = ORDERS[word]
    given = args(chance)
    return {"name": name} if given is None else {"name": name, "args": given}
