"""The check `no-gap`. Called where rows are delivered and where a device says how far it is."""

from __future__ import annotations

from agent.protocol.messages import Key
from fleet.oracle.check import Check


class NoGap(Check):
    __slots__ = ()

    name = "no-gap"
    statement = (
        "Nothing is skipped on the way down: a message that claims the rows after a up to b holds every item whose "
        "last row lies there, and no device says in a hello that it stands beyond what was delivered to it without a "
        "gap. One exception, counted: where the table was put back, and a relay that did not know of it has given "
        "numbers of rows again, a message that was sent before holds the items whose rows had these numbers then."
    )
    excuse = "items whose rows have numbers that others had before the table was put back"

    def cursor(self, t_us: int, device: str, feed: str, epoch: str, seq: int, reach: tuple[str, int] | None) -> None:
        """The device claims a position that it cannot have."""
        here = f"row {reach[1]} of epoch {reach[0]}" if reach is not None else "nothing"
        expected = f"a cursor in feed {feed!r} within what was delivered, up to {here}"
        self.fail(t_us, device, None, expected, f"row {seq} of epoch {epoch}")

    def left_out(self, t_us: int, device: str, key: Key, seq: int, a: int, b: int) -> None:
        """A message leaves out an item."""
        self.fail(t_us, device, key, f"its row {seq} in a message of rows {a + 1} to {b}", "it was left out")
