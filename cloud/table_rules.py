"""What the requests of the Table port mean, whichever adapter executes them: keys, equality, conditions, updates.

Pure functions; they never raise anything but InvalidRequest. Called by the adapters, and by whoever has to know what a
write comes to without asking a table.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from agent.protocol.keys import HASH_BYTES_MAX, SORT_BYTES_MAX
from cloud.table import PK, SK, Condition, InvalidRequest, Item, Key, Update

_MISSING: Final = object()


def key_of(item: Item) -> Key:
    try:
        key = (item[PK], item[SK])
    except KeyError:
        raise InvalidRequest(f"an item without {PK} or {SK}") from None
    check_key(key)
    return key


def check_key(key: Key) -> None:
    pk, sk = key
    if pk.__class__ is not str or sk.__class__ is not str or not pk or not sk:
        raise InvalidRequest("a key attribute must be a string that is not empty")
    if len(pk) + len(sk) > SORT_BYTES_MAX // 4:
        sizes = len(pk.encode("utf-8", "surrogatepass")), len(sk.encode("utf-8", "surrogatepass"))
        if sizes[0] > HASH_BYTES_MAX or sizes[1] > SORT_BYTES_MAX:
            raise InvalidRequest(
                f"key of {sizes[0]} and {sizes[1]} bytes, at most {HASH_BYTES_MAX} and {SORT_BYTES_MAX}"
            )


def same(a: Any, b: Any) -> bool:
    """Equality as the service has it: true is not 1, while 1 and 1.0 are one number."""
    if a.__class__ is b.__class__:
        if isinstance(a, dict):
            return len(a) == len(b) and all(name in b and same(value, b[name]) for name, value in a.items())
        if isinstance(a, list | tuple):
            return len(a) == len(b) and all(map(same, a, b))
        return bool(a == b)
    if isinstance(a, bool) or isinstance(b, bool):
        return False
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return same(dict(a), dict(b))
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return same(list(a), list(b))
    return bool(a == b)


def holds(condition: Condition, item: Item | None) -> bool:
    """Whether every test of a condition holds on an item (None: there is no such item)."""
    if item is None:
        return all(kind == "absent" for kind, _, _ in condition)
    for kind, name, value in condition:
        present = item.get(name, _MISSING)
        if kind == "eq":
            if present is _MISSING or (present is not value and not same(present, value)):
                return False
        elif (present is _MISSING) is (kind == "exists"):
            return False
    return True


def updated(request: Update, old: Item | None) -> Item:
    new: dict[str, Any] = {PK: request.key[0], SK: request.key[1]} if old is None else dict(old)
    if PK in request.set or SK in request.set or PK in request.remove or SK in request.remove:
        raise InvalidRequest("an update may not touch the key")
    if request.remove:
        for name in request.remove:
            if name in request.set:
                raise InvalidRequest(f"{name!r} both set and removed")
            new.pop(name, None)
    new.update(request.set)
    return new
