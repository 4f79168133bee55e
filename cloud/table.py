"""The Table port: what the relay and applications ask of the one table, as plain data, and how it answers.

The relay's logic is written as generators that yield these requests and get the answer sent in (or one of the errors
below thrown in). A driver executes them: the simulator on `cloud.memory`, a service on DynamoDB. Nothing here does I/O.
An Item is the raw item: attribute -> JSON value, the two key attributes among them. Items are never changed in place:
whoever changes one makes a new dict, so that adapters and logs may share them.
All reads are strongly consistent.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any, Final, Literal

import msgspec

PK: Final = "pk"
SK: Final = "sk"
PRIVATE_PREFIX: Final = "_fleet#"  # HEAD, LOG, leases, markers: never in a feed, never shown to applications

Key = tuple[str, str]  # (pk, sk)
Item = Mapping[str, Any]

MARKER_KEY: Final[Key] = (PRIVATE_PREFIX + "table", "marker")  # of the item that says that a table is Fleet's

ACTIONS_MAX: Final = 100  # of one transaction
TRANSACTION_BYTES_MAX: Final = 4 * 1024 * 1024
BATCH_KEYS_MAX: Final = 100
ITEM_BYTES_MAX: Final = 400 * 1024
PAGE_BYTES_MAX: Final = 1024 * 1024

# One test of an attribute: ("eq", name, value) or ("absent", name, None) or ("exists", name, None).
# All tests of a condition must hold. On a missing item "eq" and "exists" fail and "absent" holds.
Test = tuple[Literal["eq", "absent", "exists"], str, Any]
Condition = tuple[Test, ...]
ITEM_ABSENT: Final[Condition] = (("absent", PK, None),)
ITEM_EXISTS: Final[Condition] = (("exists", PK, None),)


class Get(msgspec.Struct, frozen=True, gc=False):
    """Answer: Item or None."""

    key: Key


class BatchGet(msgspec.Struct, frozen=True, gc=False):
    """Up to BATCH_KEYS_MAX distinct keys. Answer: dict[Key, Item] of those that exist."""

    keys: tuple[Key, ...]


class Put(msgspec.Struct, frozen=True, gc=False):
    """Replaces the whole item. Answer: None. Raises ConditionFailed."""

    item: Item
    condition: Condition = ()

    @property
    def key(self) -> Key:
        return (self.item[PK], self.item[SK])


class Delete(msgspec.Struct, frozen=True, gc=False):
    """Answer: None, also when there was no such item. Raises ConditionFailed."""

    key: Key
    condition: Condition = ()


class Update(msgspec.Struct, frozen=True, gc=False):
    """Sets and removes top-level attributes; creates the item when missing. Answer: None. Raises ConditionFailed."""

    key: Key
    set: Mapping[str, Any]
    remove: tuple[str, ...] = ()
    condition: Condition = ()


class Check(msgspec.Struct, frozen=True, gc=False):
    """Only in a transaction: a condition on an item that is not written."""

    key: Key
    condition: Condition


class Transact(msgspec.Struct, frozen=True, gc=False):
    """All or nothing, at most ACTIONS_MAX, no key twice. Answer: None. Raises Cancelled."""

    actions: tuple[Put | Delete | Update | Check, ...]


class Query(msgspec.Struct, frozen=True, gc=False):
    """Items of one hash key whose sort key begins with `prefix`, in order of the sort key (UTF-8 bytes).

    `after`: exclusive start, a sort key. Answer: Page."""

    pk: str
    prefix: str = ""
    after: str | None = None
    reverse: bool = False
    limit: int | None = None


class Page(msgspec.Struct, frozen=True, gc=False):
    items: tuple[Item, ...]
    after: str | None  # pass on in the next Query; None: that was the last page


class Publish(msgspec.Struct, frozen=True, gc=False):
    """Not for the table: a message to a topic. Answer: None, when the broker has taken it or it was dropped."""

    topic: str
    payload: bytes
    qos: int


Write = Put | Delete | Update | Transact
TableRequest = Get | BatchGet | Put | Delete | Update | Transact | Query
Request = TableRequest | Publish
Work = Generator[Request, Any, None]  # what a driver runs


class TableError(Exception):
    """Base of what a table answers instead of a result."""


class ConditionFailed(TableError):
    """The condition of a single write did not hold; nothing was written."""


class Cancelled(TableError):
    """A transaction was cancelled; nothing was written. `reasons` is aligned with the actions: None where all was well,
    else "condition", "conflict", "throttled" or "size"."""

    def __init__(self, reasons: tuple[str | None, ...]) -> None:
        self.reasons = reasons
        super().__init__(", ".join(f"{i}: {reason}" for i, reason in enumerate(reasons) if reason))


class Throttled(TableError):
    """Over the provisioned throughput; nothing was written; try later."""


class Unavailable(TableError):
    """No answer: a write may or may not have happened."""


class InvalidRequest(TableError):
    """The request breaks one of the service's limits or forms (too large, too many actions, a key twice, ...)."""


class Record(msgspec.Struct, frozen=True, gc=False):
    """One change, as the stream tells it: images of the whole item before and after. Order holds per item only.

    `seq` grows per shard. `at_ms`: when it was committed. `by_ttl`: the service's own sweep of an expired item."""

    shard: int
    seq: int
    key: Key
    old: Item | None
    new: Item | None
    at_ms: int
    by_ttl: bool = False
