"""What a request costs on DynamoDB: sizes of items, read and write units. Pure arithmetic; no I/O.

Sources: the service's developer guide, "Item sizes and formats" (names and strings in UTF-8; a number about half a byte
a digit and one more; true, false and null one byte; a list or map three bytes and one for each entry) and "Read and
write operations" (1 KB a write unit, 4 KB a strong read unit, transactions twice). Called by `cloud.memory` for its
limits, and by `cloud.metered`, which keeps a bill.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

READ_UNIT_BYTES: Final = 4096
WRITE_UNIT_BYTES: Final = 1024


def value_bytes(value: Any) -> int:
    if isinstance(value, str):
        return len(value) if value.isascii() else len(value.encode("utf-8", "surrogatepass"))
    if value is None or isinstance(value, bool):
        return 1
    if isinstance(value, int | float):
        digits = str(abs(value)).replace(".", "").strip("0")
        return (len(digits) + 1) // 2 + 1 + (value < 0)
    if isinstance(value, Mapping):
        return 3 + len(value) + item_bytes(value)
    if isinstance(value, list | tuple | set | frozenset):
        return 3 + len(value) + sum(map(value_bytes, value))
    return len(value)


def item_bytes(item: Mapping[str, Any]) -> int:
    """The size of an item (or of the entries of a map), names included."""
    size = 0
    for name, value in item.items():
        size += len(name) if name.isascii() else len(name.encode("utf-8", "surrogatepass"))
        if value.__class__ is str and value.isascii():
            size += len(value)
        else:
            size += value_bytes(value)
    return size


def read_units(size_bytes: int) -> int:
    """Of one strong read; a missing item costs one."""
    return max(1, -(-size_bytes // READ_UNIT_BYTES))


def write_units(before_bytes: int, after_bytes: int) -> int:
    """Of one write, outside a transaction: the larger of both images counts."""
    return max(1, -(-max(before_bytes, after_bytes) // WRITE_UNIT_BYTES))
