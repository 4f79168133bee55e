"""What a device whose disk was set back is told once more: the rows after the place in a feed where its disk stands.

Where they come in several messages it sees states of long ago, which the oracle has forgotten, in their order. A plain
value with no judgement; kept by fleet.oracle.wire_side for each device and feed.
"""

from __future__ import annotations

from collections.abc import Mapping

from agent.protocol.messages import Key

NOTHING: Mapping[Key, int | None] = {}


class Replay:
    """Of one device in one feed, of the feed epoch that it was in. `until`: how far it had come before."""

    __slots__ = ("at", "epoch", "told", "until")

    def __init__(self, epoch: str, until: int) -> None:
        self.epoch = epoch
        self.until = until
        self.at: int | None = None  # where it stands; None: it has not said so yet, or not in that epoch
        self.told = NOTHING  # the states in the last message, if that came in its turn

    def stands(self, epoch: str | None, seq: int) -> None:
        """The device has said where its disk stands."""
        self.at = seq if epoch == self.epoch else None
        self.told = NOTHING

    def moves(self, epoch: str, a: int, b: int) -> bool:
        """Rows after `a` up to `b` were delivered. Whether they come in their turn and begin with what it had before;
        a message that comes late or twice, and one after a gap, bring nothing old."""
        self.told = NOTHING
        if epoch != self.epoch or self.at is None or not a <= self.at < b:
            return False
        again = self.at < self.until
        self.at = b
        return again

    def shows(self, key: Key, rev: int | None) -> bool:
        """Whether the last message tells of this state."""
        return key in self.told and self.told[key] == rev
