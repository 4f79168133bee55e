"""The parts of snapshots, as they come: gathered per feed until all of one reading are there (rule 13).

In memory alone: what a disconnection or a boot forgets is asked for again. Called by Session.
"""

from __future__ import annotations

from agent.protocol.messages import FeedName, Snapshot, SnapshotItem


class Parts:
    """One gathering a feed; a part of another snapshot starts it anew."""

    __slots__ = ("_parts",)

    def __init__(self) -> None:
        self._parts: dict[FeedName, dict[int, Snapshot]] = {}

    def clear(self) -> None:
        self._parts.clear()

    def add(self, part: Snapshot) -> list[SnapshotItem] | None:
        """The items of the whole snapshot once all of its parts are there; None while any is missing."""
        parts = self._parts.setdefault(part.feed, {})
        if parts:
            other = next(iter(parts.values()))
            if (other.scan, other.epoch, other.seq, other.parts, other.head) != (
                (part.scan, part.epoch, part.seq, part.parts, part.head)
            ):
                parts.clear()
        parts[part.part] = part
        if len(parts) < part.parts:
            return None
        del self._parts[part.feed]
        return [item for i in range(part.parts) for item in parts[i].items]
