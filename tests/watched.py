"""A client of boto3 that notes what it is asked for: tests of what must change nothing look at that."""

from __future__ import annotations

from typing import Any, Final

READS: Final = frozenset(
    ("describe_table", "describe_time_to_live", "get_item", "batch_get_item", "query", "exceptions", "meta")
)


class Watched:
    """Passes everything on to `client`. `asked`: the names of operations, in order."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.meta = client.meta
        self.asked: list[str] = []

    def __getattr__(self, name: str) -> Any:
        self.asked.append(name)
        return getattr(self.client, name)

    @property
    def writes(self) -> list[str]:
        return [name for name in self.asked if name not in READS]
