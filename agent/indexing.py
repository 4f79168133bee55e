"""What of an item is in the index table: its places in the schema's indexes, the end of its life, its unique values.

Pure but for `Indexing.rebuild`, which reads the items once, when the schema's indexes have changed. A model without any
of these has no plan, and costs nothing. Called by Database for its own writes and by Replica for what sync changes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Final

from agent.index_table import END_OF_LIFE, Entry, IndexTable
from agent.protocol.errors import ModelError
from agent.protocol.lives import end_of_life_s
from agent.protocol.messages import Image, Key
from agent.protocol.onetable.indexes import Index
from agent.protocol.schema import Model, Schema

NOTE: Final = "indexes"
UNIQUE: Final = "unique"


class Plan:
    """Of one model that has something to be indexed."""

    __slots__ = ("_indexes", "in_memory", "model")

    def __init__(self, model: Model) -> None:
        self.model = model
        self.in_memory = model.mem
        self._indexes: tuple[tuple[str, Index], ...] = tuple(
            (f"{index.name}:{model.name}", index) for index in model.own_indexes
        )

    @property
    def is_empty(self) -> bool:
        model = self.model
        return not self._indexes and model.ttl_attribute is None and not model.unique_fields

    @property
    def definition(self) -> list[object]:
        """What the rows of the index table depend on."""
        model = self.model
        uniques = [[f.name, f.attribute, f.scope.text if f.scope else None] for f in model.unique_fields]
        places = [[name, index.hash, index.sort] for name, index in self._indexes]
        return [model.name, model.sync, places, model.ttl_attribute, uniques]

    def entries(self, key: Key, image: Image | None) -> list[Entry]:
        """Where an item stands; [] where there is none. Raises nothing: a value that cannot be a key is in no index."""
        if image is None:
            return []
        found: list[Entry] = []
        for name, index in self._indexes:
            place = index.key(key, image)
            if place is not None:
                found.append((name, place[0], "" if place[1] is None else place[1]))
        end_s = end_of_life_s(self.model, image)
        if end_s is not None:
            found.append((END_OF_LIFE, "", end_s))
        if self.model.unique_fields:
            with suppress(ModelError):  # one made under another schema may have a value that is nobody's
                found.extend((UNIQUE, pk, "") for pk, _ in self.model.unique_keys(key, image))
        return found


class Indexing:
    """The plans of a schema, and the tables that hold what they say. `plans`: by model; empty for most schemas."""

    __slots__ = ("memory", "plans", "table")

    def __init__(self, schema: Schema, table: Callable[[str], IndexTable]) -> None:
        """`table`: makes the index table of a name."""
        plans = (Plan(model) for model in schema.models.values() if model.on_device)
        self.plans = {plan.model.name: plan for plan in plans if not plan.is_empty}
        self.table = table("item_index")
        self.memory = table("mem_index") if any(plan.in_memory for plan in self.plans.values()) else None

    @property
    def tables(self) -> tuple[IndexTable, ...]:
        if not self.plans:
            return ()
        return (self.table,) if self.memory is None else (self.table, self.memory)

    def of(self, model: Model) -> IndexTable:
        return self.memory if model.mem and self.memory is not None else self.table

    def move(self, plan: Plan, key: Key, before: Image | None, after: Image | None) -> None:
        """An item has changed; in its transaction."""
        self.of(plan.model).move(key, plan.entries(key, before), plan.entries(key, after))

    def next_end_ms(self) -> int | None:
        """When the next life ends, in milliseconds since 1970; None: none does."""
        ends = [table.next_end_s for table in self.tables if table.next_end_s is not None]
        return min(ends) * 1000 if ends else None

    def fingerprint(self) -> bytes:
        return json.dumps([plan.definition for plan in self.plans.values() if not plan.in_memory]).encode()

    def rebuild(self, items: Iterable[tuple[Model, Key, Image]]) -> None:
        """From all items that are kept in the file; in a transaction."""
        self.table.clear()
        for model, key, image in items:
            plan = self.plans.get(model.name)
            if plan is not None and not plan.in_memory:
                self.table.move(key, (), plan.entries(key, image))
