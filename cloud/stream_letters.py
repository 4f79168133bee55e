"""The stored form of stream records that were set aside: dead letters in the table, each with its reason.

Pure functions and generators. The key comes from the record alone, so that setting it aside twice leaves one letter.

    pk _fleet#letter#stream   sk TIME#SEQ    key [pk, sk], reason, tries, at (ms, of the record), set_aside (ms), relay,
                                             by_ttl (true), ttl (seconds)

`by_ttl` is absent where it is not true; `key` is two empty texts where the record had none that could be read. Called
by cloud.stream_work, and by cloud.commands.letters for the person who looks at them.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Final

from cloud.relay import Relay
from cloud.stream import Change
from cloud.table import PK, PRIVATE_PREFIX, SK, ConditionFailed, Delete, Item, Query, Record, Request

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


def can_be_retried(item: Item) -> bool:
    """Whether it is known which item the record was of."""
    return bool(item["key"][0])


def retry(relay: Relay, item: Item) -> Generator[Request, Any, bool]:
    """Works on a letter as the stream's readers would, and removes it when that has ended well: the row that it adds
    has the item as it is now, so that it may be done any number of times. False: no feed wants the item (any more),
    and the letter is removed. Raises what the relay's logic raises; then the letter is still there."""
    record = record_of(item)
    is_wanted = relay.wants(record.key)
    if is_wanted:
        yield from relay.on_record(record)
    yield from drop(item)
    return is_wanted


def drop(item: Item) -> Generator[Request, Any, None]:
    """Removes a letter, unless it is gone or has been set aside anew meanwhile."""
    try:
        yield Delete((item[PK], item[SK]), (("eq", "set_aside", item["set_aside"]),))
    except ConditionFailed:
        return
