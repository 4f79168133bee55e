"""Names and limits of the table's key attributes, and the names that are Fleet's own. Constants, for every room."""

from __future__ import annotations

from typing import Final

HASH: Final = "pk"
SORT: Final = "sk"
HASH_BYTES_MAX: Final = 2048  # DynamoDB's limits on keys
SORT_BYTES_MAX: Final = 1024
PRIVATE_ATTRIBUTES: Final = ("_fleet", "_op", "_orphan")  # beginnings of the names that only the relay writes
