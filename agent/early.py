"""Rows that came before the ones they follow: kept for a while, in case those were only late (rule 12).

In memory alone, and bounded: what is not kept is asked for. Called by Session.
"""

from __future__ import annotations

from agent.protocol.messages import FeedName, Rows


class Early:
    """Messages per feed, by the row that each follows."""

    __slots__ = ("_kept", "_most")

    def __init__(self, most: int) -> None:
        self._kept: dict[FeedName, dict[int, Rows]] = {}
        self._most = most  # of one feed

    def __bool__(self) -> bool:
        return bool(self._kept)

    def clear(self) -> None:
        self._kept.clear()

    def forget(self, feed: FeedName) -> None:
        self._kept.pop(feed, None)

    def keep(self, rows: Rows) -> None:
        kept = self._kept.setdefault(rows.feed, {})
        if len(kept) < self._most:
            kept[rows.a] = rows

    def take(self, feed: FeedName, seq: int) -> Rows | None:
        """A message that a cursor at `seq` can go on with; None when there is none. It is kept no more."""
        kept = self._kept.get(feed)
        if not kept:
            return None
        found = next((kept[a] for a in sorted(kept) if a <= seq), None)
        if found is not None:
            del kept[found.a]
            if not kept:
                del self._kept[feed]
        return found
