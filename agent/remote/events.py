"""What goes into a Commander and what comes out, and its settings. Plain values.

Times are milliseconds of a monotonic clock. Used by whoever drives a commander: the daemon, the simulated device.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec


class CommandConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the device allows, and its limits."""

    allow_reboot: bool = False
    reboot_spacing_ms: int = 10 * 60 * 1000  # least time between two reboots by command
    running_max: int = 4  # commands that run at once; others wait their turn, and may expire meanwhile
    settle_ms: int = 3000  # after a boot, for news that an order was withdrawn meanwhile
    result_bytes_max: int = 16 * 1024  # of a result's data, as JSON; more is left out
    text_chars_max: int = 500  # of a message or a name in a result
    life_max_ms: int = 30 * 24 * 60 * 60 * 1000  # from now to `expires`; a command that ends later is refused
    keep_ms: int = 7 * 24 * 60 * 60 * 1000  # how long a result outlives its command's `expires`

    def __post_init__(self) -> None:
        if self.running_max < 1:
            raise ValueError("running_max must be at least 1")
        if min(self.settle_ms, self.reboot_spacing_ms) < 0:
            raise ValueError("settle_ms and reboot_spacing_ms must not be negative")
        if min(self.result_bytes_max, self.text_chars_max, self.life_max_ms) < 1:
            raise ValueError("result_bytes_max, text_chars_max and life_max_ms must be at least 1")
        if self.reboot_spacing_ms > self.keep_ms:
            raise ValueError("keep_ms must not be less than reboot_spacing_ms: results remember the last reboot")


class Event(msgspec.Struct, frozen=True, gc=False):
    """Something happened that may concern commands."""


class Look(Event, frozen=True, gc=False):
    """The session has handled an event, or the time of the last WakeAt has come. Costs nothing when nothing is new."""


class Finished(Event, frozen=True):
    """A handler has returned: an object of JSON values, or nothing."""

    id: str
    data: Mapping[str, Any] | None = None


class Failed(Event, frozen=True, gc=False):
    """A handler has raised an error, or the reboot could not be done."""

    id: str
    message: str


class Effect(msgspec.Struct, frozen=True, gc=False):
    """Something to be done by the driver."""


class Run(Effect, frozen=True):
    """Call the handler of this name with these arguments, once; answer with Finished or Failed. It may take long."""

    id: str
    name: str
    arguments: Any


class Reboot(Effect, frozen=True, gc=False):
    """Restart the machine now. Answer with Failed if that cannot be done."""

    id: str


class Reconnect(Effect, frozen=True, gc=False):
    """If there is a connection: close it, and give the session Disconnected. It connects again, and fetches everything
    anew. No answer is wanted."""

    id: str


class WakeAt(Effect, frozen=True, gc=False):
    """Give Look at this time. Replaces the one before."""

    at_ms: int


LOOK: Final = Look()
