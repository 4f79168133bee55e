"""How far a device can have come in a feed, by what was delivered to it: an upper bound of its cursor.

A device may refuse a snapshot (a late one, of a feed epoch that is over), and its disk may be set back to a copy of
any age, so the bound of every epoch is kept: epochs are few, since a new one begins only where a log has run dry or the
table was put back. A message that begins beyond the bound is kept as an interval, since the device may hold it until
the gap is filled. A plain value with no judgement; kept by fleet.oracle.wire_side for each device and feed.
"""

from __future__ import annotations


class Reach:
    """Of one device in one feed; `epoch` and `seq` are those of the last feed epoch."""

    __slots__ = ("ahead", "epoch", "former", "seq")

    def __init__(self, epoch: str, seq: int) -> None:
        self.epoch = epoch
        self.seq = seq
        self.ahead: list[tuple[int, int]] | None = None  # delivered beyond a gap
        self.former: dict[str, Reach] | None = None  # earlier feed epochs

    def snapshot(self, epoch: str, seq: int) -> None:
        """A part of a snapshot of position `seq` was delivered."""
        if epoch == self.epoch:
            if seq > self.seq:
                self.seq = seq
                self._close()
            return
        former = self.former = self.former or {}
        known = former.get(epoch)
        if known is not None:
            known.snapshot(epoch, seq)
            return
        if epoch < self.epoch:
            former[epoch] = Reach(epoch, seq)
        else:
            left = former[self.epoch] = Reach(self.epoch, self.seq)
            left.ahead = self.ahead
            self.epoch, self.seq, self.ahead = epoch, seq, None

    def rows(self, epoch: str, a: int, b: int) -> None:
        """Rows after `a` up to `b` were delivered."""
        if epoch != self.epoch:
            known = self.former.get(epoch) if self.former is not None else None
            if known is not None:
                known.rows(epoch, a, b)
        elif a <= self.seq:
            if b > self.seq:
                self.seq = b
                if self.ahead is not None:
                    self._close()
        elif self.ahead is None:
            self.ahead = [(a, b)]
        else:
            self._add(a, b)

    def _add(self, a: int, b: int) -> None:
        """Intervals stay sorted, and those that touch are one."""
        merged: list[tuple[int, int]] = []
        for low, high in sorted([*(self.ahead or ()), (a, b)]):
            if merged and low <= merged[-1][1]:
                merged[-1] = (merged[-1][0], max(high, merged[-1][1]))
            else:
                merged.append((low, high))
        self.ahead = merged

    def _close(self) -> None:
        ahead = self.ahead or []
        while ahead and ahead[0][0] <= self.seq:
            self.seq = max(self.seq, ahead.pop(0)[1])
        self.ahead = ahead or None

    def covers(self, epoch: str, seq: int) -> bool:
        """Whether the device can stand there."""
        if epoch == self.epoch:
            return seq <= self.seq
        known = self.former.get(epoch) if self.former is not None else None
        return known is not None and seq <= known.seq
