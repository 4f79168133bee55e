"""What a model is made of: plain data. Made by loader, held by model, both beside it."""

from __future__ import annotations

from dataclasses import dataclass

from agent.protocol.messages import FeedName
from agent.protocol.onetable.fields import Field
from agent.protocol.onetable.indexes import Index
from agent.protocol.onetable.template import Template
from agent.protocol.process import Process


@dataclass(frozen=True, slots=True)
class Definition:
    """What a model is made of. Templates are bound to attributes; None: the caller gives that part of the key."""

    name: str
    process: Process
    feed: FeedName | None
    type_field: str
    fields: tuple[Field, ...]  # without the keys, the type and the stamps
    hash_template: Template | None
    sort_template: Template | None
    created: Field | None
    updated: Field | None
    visible_keys: tuple[bool, bool] = (False, False)
    indexes: tuple[Index, ...] = ()
