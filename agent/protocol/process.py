"""Who acts, and what a schema's `process` section says of a model: plain data.

Made by agent.protocol.onetable.rules and by whoever opens a database or serves a request.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Enable = Literal["cloud", "device", "both"]
Sync = Literal["none", "up", "down", "both"]
Conflict = Literal["latest", "arrival", "cloud", "device"]
Orphans = Literal["keep", "remove"]


@dataclass(frozen=True, slots=True)
class Context:
    """Who acts: its ids go into every item that models them. "" where there is none."""

    device_id: str
    account_id: str


@dataclass(frozen=True, slots=True)
class Process:
    """A model's entry in the schema's `process` section, after defaults."""

    enable: Enable = "both"
    sync: Sync = "none"
    conflict: Conflict = "latest"
    period_ms: int = 0
    orphans: Orphans = "keep"
    mem: bool = False
