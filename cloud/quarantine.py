"""Two live copies of one identity mint against each other: HEAD counts, and stops both (rule 18).

HEAD keeps when its last epochs were adopted in the place of others (`born`), and since when the identity is in
quarantine (`halted`): from then on nothing of it is taken and no hello is answered, until a person releases it. Pure
functions over HEAD. Called by the relay's parts and by `fleet-cloud release`.
"""

from __future__ import annotations

from typing import Final

from cloud.table import Condition, Item, Key, Test, Update

BORN: Final = "born"  # milliseconds since 1970, oldest first
HALTED: Final = "halted"  # the same
WINDOW_MS: Final = 3_600_000


def born(head: Item, now_ms: int) -> list[int]:
    """When epochs of this device were replaced within the last hour. By a clock that went back, none is in the
    future."""
    return [at_ms for at_ms in head.get(BORN, ()) if now_ms - WINDOW_MS < at_ms <= now_ms]


def halt(key: Key, head: Item, now_ms: int) -> Update:
    """Into quarantine, if HEAD still has the epoch that was read."""
    condition: Condition = (("eq", "epoch", head["epoch"]), ("absent", HALTED, None))
    return Update(key, {HALTED: now_ms}, (), condition)


def released(key: Key) -> Update:
    """Out of quarantine. Fails where there is none."""
    halted: Test = ("exists", HALTED, None)
    return Update(key, {}, (HALTED, BORN), (halted,))
