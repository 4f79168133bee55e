"""What a live run sees of its table while it runs: where each feed's log ends, and what no row of it tells yet.

By that, and by what devices say of themselves, a run knows when everybody is in step. It judges nothing: that is the
oracle's, when the run is over. Pure; called by fleet.live.run.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from agent.protocol.messages import Key
from agent.protocol.schema import Schema
from cloud.head import LOG_PK, ORPHAN, log_pk, position_of
from cloud.table import PRIVATE_PREFIX
from fleet.live.table import Commit
from fleet.oracle.payload import REV


class Following:
    """One run's table."""

    def __init__(self, schema: Schema, accounts: Mapping[str, str]) -> None:
        """`accounts`: device -> account."""
        self.changed_us = 0  # when the last item has changed, as far as it was seen
        self.unlogged: dict[Key, int | None] = {}  # items that come down, with the state that no row tells yet
        self._schema = schema
        self._accounts = dict(accounts)
        self._tails: dict[str, str] = {}
        self.changes = 0  # of items

    def take(self, commits: Iterable[Commit]) -> None:
        for commit in commits:
            pk, sk = commit.key
            if pk.startswith(LOG_PK):
                if commit.new is not None:
                    self._tails[pk] = max(sk, self._tails.get(pk, ""))
                    self._logged(commit.new)
            elif not pk.startswith(PRIVATE_PREFIX):
                self.changed_us = commit.looked_us
                self.changes += 1
                self._item(commit)

    def _item(self, commit: Commit) -> None:
        place = self._schema.locate(commit.key)
        if place is None or not place.model.receives:
            return
        new = commit.new
        if new is not None and ORPHAN in new:
            self.unlogged.pop(commit.key, None)
            return
        self.unlogged[commit.key] = None if new is None else new.get(REV)

    def _logged(self, row: Mapping[str, Any]) -> None:
        named = row.get("key")
        if named is None:
            return
        key = (named[0], named[1])
        image = row.get("image")
        if key in self.unlogged and (row.get("oversize") or self.unlogged[key] == (image or {}).get(REV)):
            del self.unlogged[key]

    def behind(self, device: str, status: Mapping[str, Any]) -> list[str]:
        """Feeds of which the device has not all, with where it is and where the log ends."""
        found = []
        for feed, cursor in status["cursors"].items():
            tail = self.tail(device, feed)
            if tail is None or not cursor or (cursor[0], cursor[1]) != tail:
                found.append(f"{feed}:{cursor[1] if cursor else 'none'}/{tail[1] if tail else 0}")
        return found

    def in_step(self, device: str, status: Mapping[str, Any]) -> bool:
        """Nothing on its way or to be done, at the tail of every feed."""
        busy = status["rows"] or status.get("healing") or status.get("busy")
        ready = status["on"] and status["done"] and not busy
        return bool(ready and status["cursors"]) and not self.behind(device, status)

    def tail(self, device: str, feed: str) -> tuple[str, int] | None:
        """Where the log of a device's feed ends; None: it has no row."""
        tail = self._tails.get(log_pk(feed, device if feed == "device" else self._accounts[device]))
        return None if tail is None else position_of(tail)
