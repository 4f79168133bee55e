"""The checks `feed-dense` and `every-change-logged`. Called at every change of a LOG row, and at the end."""

from __future__ import annotations

from agent.protocol.messages import Key
from fleet.oracle.check import Check, shown
from fleet.oracle.stored import FeedId


def _position(feed: FeedId, epoch: str, seq: int) -> str:
    return f"row {seq} of {'#'.join(part for part in feed if part)} in epoch {epoch}"


class FeedDense(Check):
    __slots__ = ()

    name = "feed-dense"
    statement = (
        "The log of a feed is dense, immutable and in commit order: within a feed epoch every row has the number after "
        "the row before it, a new epoch sorts after the old one and starts at 1, no row changes or goes before its "
        "time, the images of one item appear in the order of its commits, and a row's head claims no operation that "
        "its image does not contain. Two exceptions, counted. Of several workers that find a log empty at once, each "
        "begins an epoch; the one that sorts last lives on. A row of an epoch before it that comes late, from a worker "
        "that had read the log earlier, is read by nobody: every cursor in the living epoch stems from a snapshot that "
        "has what that row has. And a silent damage in the table is no commit: a worker that read the item before it "
        "may append what it read after it, if nothing later than that was logged before the damage."
    )
    excuse = "rows of epochs that lost a race to begin, or with what was read before a damage"

    def appended(self) -> None:
        self.checked += 1

    def gap(self, t_us: int, feed: FeedId, expected: tuple[str, int], found: tuple[str, int]) -> None:
        self.checked += 1
        self.fail(t_us, "", None, _position(feed, *expected), _position(feed, *found))

    def changed(self, t_us: int, feed: FeedId, position: tuple[str, int], key: Key | None) -> None:
        """`key`: the item whose image the row has now."""
        self.checked += 1
        owner = feed[1] if feed[0] == "device" else ""
        self.fail(t_us, owner, key, f"{_position(feed, *position)} unchanged", "it was written again")

    def removed(self, t_us: int, feed: FeedId, position: tuple[str, int]) -> None:
        self.checked += 1
        self.fail(t_us, "", None, f"{_position(feed, *position)} until its time to live ends", "it was deleted")

    def older(
        self, t_us: int, device: str, key: Key, expected: int | None, found: int | None, feed: FeedId, seq: int
    ) -> None:
        where = f"older {shown(found)} in row {seq} of {'#'.join(feed)}"
        self.fail(t_us, device, key, f"{shown(expected)}, as logged before, or a later state", where)

    def head_ahead(self, t_us: int, device: str, key: Key, up: int, u: int, found: int | None) -> None:
        expected = f"an image that contains operation {u}, since the row's head says {up}"
        self.fail(t_us, device, key, expected, f"the older {shown(found)}")


class EveryChangeLogged(Check):
    __slots__ = ()

    name = "every-change-logged"
    statement = (
        "Every change of a down or both model in the table reaches the log of its feed: a row with that image, or with "
        "a later one of the same item."
    )

    def logged(self) -> None:
        self.checked += 1

    def missing(self, t_us: int, device: str, key: Key, rev: int | None, logged: int | None) -> None:
        self.checked += 1
        self.fail(t_us, device, key, f"a log row with {shown(rev)}", f"{shown(logged)} as the last one logged")
