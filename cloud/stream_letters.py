"""The stored form of stream records that were set aside: dead letters in the table, each with its reason.

Pure functions and one generator. The key comes from the record alone, so that setting it aside twice leaves one letter.

    pk _fleet#letter#stream   sk TIME#SEQ    key [pk, sk], reason, tries, at (ms, of the record), set_aside (ms), relay,
                                             by_ttl (true), ttl (seconds)

`by_ttl` is absent where it is not true. Called by cloud.stream_work and by whoever lists them.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Final

from cloud.stream import Change
from cloud.table import PK, PRIVATE_PREFIX, SK, Item, Query, Record, Request

LETTERS_PK: Final = PRIVATE_PREFIX + "letter#stream"
REASON_CHARS_MAX: Final = 500
_TIME_DIGITS: Final = 13


def letter(
    change: Change, reason: str, tries: int, *, relay: str, now_ms: int, ttl_attribute: str, life_ms: int
) -> dict[str, Any]:
    item: dict[str, Any] = {
        PK: LETTERS_PK,
        SK: f"{max(0, change.at_ms):0{_TIME_DIGITS}d}#{change.seq}",
        "key": [change.key[0], change.key[1]],
        "reason": reason[:REASON_CHARS_MAX],
        "tries": tries,
        "at": change.at_ms,
        "set_aside": now_ms,
        "relay": relay,
        ttl_attribute: (now_ms + life_ms) // 1000,
    }
    if change.record is not None and change.record.by_ttl:
        item["by_ttl"] = True
    return item


def read_letters(limit: int = 1000) -> Generator[Request, Any, list[Item]]:
    """The oldest `limit` letters, oldest first."""
    found: list[Item] = []
    after: str | None = None
    while len(found) < limit:
        page = yield Query(LETTERS_PK, "", after, False, limit - len(found))
        found.extend(page.items)
        after = page.after
        if after is None:
            break
    return found


def record_of(item: Item) -> Record:
    """The trigger that a letter holds, to be worked on again: key, time and whose deletion it was; no images."""
    pk, sk = item["key"]
    seq = str(item[SK]).rpartition("#")[2]
    return Record(0, int(seq), (pk, sk), None, None, int(item["at"]), bool(item.get("by_ttl", False)))
