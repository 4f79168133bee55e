"""The checks of remote commands: `command-at-most-once`, `command-answered`, `command-not-expired`,
`command-after-clock` and `command-reboots-spaced`. Called when a device really does something, and at the end."""

from __future__ import annotations

from typing import Final

from agent.protocol.messages import Key
from fleet.oracle.check import Check
from fleet.oracle.checks.lives import LATE_US

SPACING_US: Final = 10 * 60 * 1_000_000  # where nothing else is said
CLOCK_SHARE: Final = 10  # a clock may be set between two reboots by a tenth of what must lie between them


class CommandAtMostOnce(Check):
    __slots__ = ()

    name = "command-at-most-once"
    statement = (
        "No command is done twice, counted where it is done and not by what the device records: whatever comes again, "
        "is restored or was cut off, and on a copy of the device, too. What is done was ordered by the cloud."
    )

    def ran(self, t_us: int, device: str, key: Key, times: int, ordered: bool) -> None:
        self.checked += 1
        if not ordered:
            self.fail(t_us, device, key, "nothing to be done that nobody ordered", "it was done")
        elif times > 1:
            self.fail(t_us, device, key, "the command to be done once", f"it was done {times} times")


class CommandAnswered(Check):
    __slots__ = ()

    name = "command-answered"
    statement = (
        "Every command that reached its device before it expired, and was not withdrawn, nor lost in the table, has "
        "one result there that is final, and so has every one that was done. A result says `done` or `failed` only of "
        "what was done, and `expired` or `refused` only of what was not; none is still `started` at the end. A restart "
        "that was ordered is done by any restart of the device after the order came. Three exceptions, counted: where "
        "two copies of a device lived, or its disk was put back since the command came, each may have answered; a "
        "record whose life ended while its device was away says no more; and a device that was away, was fetching its "
        "feed anew, or had lost a command that waited from its disk, silently, until the command was too old says "
        "nothing of it."
    )
    excuse = "commands that a copy may have answered too, or that were too old when their device was back"

    def at_end(self, t_us: int, device: str, key: Key, ran: int, final: str | None, present: str | None) -> None:
        """`final`: the final state that the table has had; `present`: the state that it has, None: no result."""
        self.checked += 1
        if final is None:
            done = "which was done" if ran else "which reached the device in time"
            found = "none" if present is None else f"only {present!r}"
            self.fail(t_us, device, key, f"a final result of the command, {done}", found)
        elif present == "started":
            self.fail(t_us, device, key, f"the result to stay {final!r}", "'started' at the end")
        elif not ran and final in ("done", "failed"):
            self.fail(t_us, device, key, "a result of a command that was never done", repr(final))
        elif ran and final in ("expired", "refused"):
            self.fail(t_us, device, key, "a result of a command that was done", repr(final))

    def changed(self, t_us: int, device: str, key: Key, final: str, state: str) -> None:
        """A result that was final has become another."""
        self.fail(t_us, device, key, f"the result to stay {final!r}", repr(state))


class CommandNotExpired(Check):
    __slots__ = ()

    name = "command-not-expired"
    statement = (
        "No command is begun after it has expired, by true time, but for a minute by which a device's clock may be "
        "late: what the relay tells is as old as its way was long."
    )

    def ran(self, t_us: int, device: str, key: Key, left_us: int) -> None:
        self.checked += 1
        if left_us < -LATE_US:
            self.fail(
                t_us, device, key, "nothing to be done of an expired command", f"done {-left_us / 1e6:.3f} s late"
            )


class CommandAfterClock(Check):
    __slots__ = ()

    name = "command-after-clock"
    statement = (
        "No command is begun before the relay has answered the device since its last boot: the answer tells the time, "
        "and the device's own clock may be wrong by years."
    )

    def ran(self, t_us: int, device: str, key: Key, answered: bool) -> None:
        self.checked += 1
        if not answered:
            self.fail(t_us, device, key, "nothing to be done before the relay has told the time", "it was done")


class RebootsSpaced(Check):
    __slots__ = ("spacing_us",)

    name = "command-reboots-spaced"
    statement = (
        "A device restarts by command at most once in ten minutes, but for a minute by which its clock may have been "
        "set in between; so no command makes it restart for ever. A device whose disk was put back may know no more."
    )

    def __init__(self) -> None:
        super().__init__()
        self.spacing_us = SPACING_US

    def rebooted(self, t_us: int, device: str, key: Key, since_us: int | None) -> None:
        """`since_us`: since the last time; None: there was none."""
        self.checked += 1
        if since_us is not None and since_us < self.spacing_us - self.spacing_us // CLOCK_SHARE:
            expected = f"{self.spacing_us / 1e6:.0f} s between two reboots"
            self.fail(t_us, device, key, expected, f"{since_us / 1e6:.3f} s")
