"""The stored form of what the relay keeps for itself: HEAD, one per device, and LOG, the rows of the feeds.

Pure functions over items; the one place that knows these attributes. Called by the relay's logic, and by tests and
checks that read the table.

    HEAD  pk _fleet#head#DEVICE          sk head           epoch, up, upid (absent at 0), verdicts {u as text: code},
                                                           inc (the table's incarnation; absent: ""),
                                                           born, halted (see cloud.quarantine; may be absent)
    LOG   pk _fleet#log#device#DEVICE    sk EPOCH#SEQ      key [pk, sk], image, head [epoch, up, upid], ttl (seconds),
          pk _fleet#log#account#ACCOUNT                    expired (true), oversize (bytes)
          pk _fleet#log#all

Of LOG's attributes all but ttl may be absent: an empty row has no key, a deleted item no image, an account's feed no
head. EPOCH is fixed-width time and chance, then the table's incarnation, SEQ has 12 digits: sort keys sort as positions
do.
Items that a device wrote carry `_op` = [device, epoch, u, id]; an orphan carries `_orphan` = true.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

import msgspec

from agent.protocol.messages import NO_IMAGE, FeedName, HeadMark, Row, encode_image
from agent.protocol.schema import Place
from agent.protocol.topics import to_account, to_all, to_device
from cloud.incarnation import IN
from cloud.quarantine import BORN
from cloud.table import PK, PRIVATE_PREFIX, SK, Condition, Item, Key, Query, Update

OP: Final = "_op"
ORPHAN: Final = "_orphan"
HIDDEN: Final = (PK, SK, OP, ORPHAN)  # never sent down
_MARK_PARTS: Final = 4
_HEAD_PK: Final = PRIVATE_PREFIX + "head#"
LOG_PK: Final = PRIVATE_PREFIX + "log#"
_HEAD_SK: Final = "head"
_TIME_DIGITS: Final = 13  # of milliseconds: until the year 2286
_RANDOM_DIGITS: Final = 16
_SEQ_DIGITS: Final = 12


# HEAD


def head_key(device: str) -> Key:
    return (_HEAD_PK + device, _HEAD_SK)


def head_device(key: Key) -> str | None:
    """The device whose HEAD a key is; None for any other key."""
    return key[0][len(_HEAD_PK) :] if key[0].startswith(_HEAD_PK) else None


def new_head(device: str, epoch: str, incarnation: str = "") -> Item:
    pk, sk = head_key(device)
    return {PK: pk, SK: sk, **_fresh(epoch, incarnation)}


def adopt(device: str, replaced: Item, epoch: str, incarnation: str, born: Sequence[int]) -> Update:
    """HEAD takes a new epoch, if it still has the one that is to be replaced, of the same incarnation."""
    unchanged: Condition = (("eq", "epoch", replaced["epoch"]),)
    if incarnation or IN in replaced:
        unchanged = (*unchanged, ("eq", IN, replaced[IN]) if IN in replaced else ("absent", IN, None))
    gone = ("upid",) if incarnation or IN not in replaced else ("upid", IN)
    return Update(head_key(device), {**_fresh(epoch, incarnation), BORN: list(born)}, gone, unchanged)


def _fresh(epoch: str, incarnation: str) -> dict[str, Any]:
    fresh: dict[str, Any] = {"epoch": epoch, "up": 0, "verdicts": {}}
    if incarnation:
        fresh[IN] = incarnation
    return fresh


def head_mark(head: Item) -> HeadMark:
    return HeadMark(head["epoch"], head["up"], head.get("upid"))


def head_verdicts(head: Item) -> dict[int, str]:
    return {int(u): code for u, code in head["verdicts"].items()}


def advance(key: Key, condition: Condition, up: int, upid: str, verdicts: Mapping[int, str] | None) -> Update:
    """HEAD moves on to operation (up, upid). `verdicts` None: they stay as they are."""
    if verdicts is None:
        return Update(key, {"up": up, "upid": upid}, (), condition)
    stored = {str(u): code for u, code in verdicts.items()}
    return Update(key, {"up": up, "upid": upid, "verdicts": stored}, (), condition)


# LOG


class Feed:
    """One feed: where its rows are stored and where they are published."""

    __slots__ = ("device", "name", "pk", "qos", "topic")

    def __init__(self, name: FeedName, owner: str, prefix: str) -> None:
        self.name: FeedName = name
        self.pk = log_pk(name, owner)
        if name == "device":
            self.device: str | None = owner
            self.topic = to_device(owner, prefix)
            self.qos = 1
        else:
            self.device = None
            self.qos = 0
            self.topic = to_account(owner, prefix) if name == "account" else to_all(prefix)

    def tail(self) -> Query:
        """Asks for the last row."""
        return Query(self.pk, "", None, True, 1)

    def rows(self, epoch: str, after_seq: int, limit: int) -> Query:
        """Asks for the rows of one feed epoch after a position."""
        return Query(self.pk, epoch + "#", log_sk(epoch, after_seq), False, limit)


def feed_of(place: Place, prefix: str) -> Feed | None:
    """The feed that a key belongs to; None when its model does not travel down."""
    model = place.model
    if not model.receives or model.feed is None:
        return None
    owner = place.device_id if model.feed == "device" else place.account_id if model.feed == "account" else ""
    return None if owner is None else Feed(model.feed, owner, prefix)


def new_feed_epoch(now_ms: int, random_digits: str, incarnation: str = "") -> str:
    """Sorts by time; equal times differ by chance. `random_digits`: 16 hexadecimal digits."""
    return f"{now_ms:0{_TIME_DIGITS}d}{random_digits}{incarnation}"


def feed_epoch_ms(epoch: str) -> int:
    """When a feed epoch began, by the clock of the worker that began it."""
    return int(epoch[:_TIME_DIGITS])


def feed_epoch_incarnation(epoch: str) -> str:
    """The incarnation of the table in which a feed epoch began."""
    return epoch[_TIME_DIGITS + _RANDOM_DIGITS :]


def log_sk(epoch: str, seq: int) -> str:
    return f"{epoch}#{seq:0{_SEQ_DIGITS}d}"


def log_pk(name: str, owner: str) -> str:
    """The hash key of a feed's rows. `owner`: of a device's feed its id, of an account's the account."""
    return f"{LOG_PK}{name}#{owner}" if name != "all" else LOG_PK + "all"


def position_of(sk: str) -> tuple[str, int]:
    """(feed epoch, seq) of the row with this sort key. Sort keys of one feed sort as positions do."""
    epoch, _, seq = sk.rpartition("#")
    return epoch, int(seq)


def log_position(row: Item) -> tuple[str, int]:
    """(feed epoch, seq) of a stored row."""
    return position_of(row[SK])


def log_feed(key: Key) -> tuple[FeedName, str] | None:
    """(name, owner) of the feed whose LOG row a key is; None for any other key."""
    if not key[0].startswith(LOG_PK):
        return None
    name, _, owner = key[0][len(LOG_PK) :].partition("#")
    if name == "device":
        return "device", owner
    return ("account", owner) if name == "account" else ("all", "")


def mark_of(item: Item) -> Sequence[Any] | None:
    """(device, epoch, u, id) of the operation that last wrote an item. None: no operation did, or what stands there is
    none of a relay's marks: other programs write to the table too."""
    mark = item.get(OP)
    if mark.__class__ not in (list, tuple):
        return None
    found = cast(Sequence[Any], mark)
    return found if len(found) == _MARK_PARTS and found[0].__class__ is str and found[2].__class__ is int else None


def public_image(item: Item) -> dict[str, Any]:
    """What a device may see of an item: all but keys and the relay's own marks."""
    image = dict(item)
    for name in HIDDEN:
        image.pop(name, None)
    return image


def wire_row(stored: Item) -> Row:
    """A stored row (not an empty one) as it is sent."""
    pk, sk = stored["key"]
    image = stored.get("image")
    head = stored.get("head")
    return Row(
        (pk, sk),
        NO_IMAGE if image is None else msgspec.Raw(encode_image(image)),
        None if head is None else HeadMark(*head),
        stored.get("expired", False),
        stored.get("oversize", 0),
    )
