"""The embedded database as an application on the device sees it: models, keys and properties, triggers.

Every write of a model that syncs up puts its operation into the outbox in the same transaction; the write is visible at
once. Sends nothing itself: it tells `on_outbox` that there is something to send, or that something will fall due.
Called by applications (from any thread) and by Session. What is seldom done to a whole file is in agent.upkeep,
agent.transfer and agent.letters.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Final

from agent import due, evolving, ids, letters, search, transfer, upkeep
from agent.changes import Callback, Change, Event, Triggers
from agent.clock import CorrectedClock
from agent.file_errors import stored_image
from agent.index_table import IndexTable
from agent.indexing import UNIQUE, Indexing, Plan
from agent.protocol.errors import ModelError
from agent.protocol.evolution import Difference
from agent.protocol.lives import end_of_life_s
from agent.protocol.messages import ITEM_BYTES_MAX, Image, Key, Kind, encode_image
from agent.protocol.schema import Context, Model, Schema
from agent.search import FIND_PAGE_ITEMS as FIND_PAGE_ITEMS
from agent.store import HELD, SCHEMA_VERSION, UNSENT, DeadLetter, Store, StoreError, Visible
from agent.transaction import Block

LOCAL_ITEM_BYTES_MAX: Final = 400 * 1024

_EVENT_OF: Final[dict[Kind, Event]] = {"create": "created", "update": "updated", "delete": "removed"}
_NO_TRANSACTION: Final = nullcontext()


def _ignore() -> None:
    return None


class Database:
    """One device's data. `connection`: see agent.files; `monotonic_ms`, `wall_ms`: agent.clock; `random`: agent.ids."""

    __slots__ = (
        "_block", "_callbacks", "_models", "_new_id", "_plans", "_triggers", "by_hand", "clock", "context",
        "differences", "emit", "indexing", "lock", "on_outbox", "period_ms_max", "random", "schema", "store", "timed",
    )  # fmt: skip

    def __init__(
        self,
        connection: sqlite3.Connection,
        schema: Schema,
        context: Context,
        *,
        monotonic_ms: Callable[[], int],
        wall_ms: Callable[[], int],
        random: ids.Random,
        store_type: type[Store] = Store,
    ) -> None:
        """Opens, or makes on first use. Raises StoreError when the file is something else.

        `differences`: what has changed since another schema was used with this file; each says in words what that
        means for the items in it."""
        self.schema = schema
        self.context = context
        self.random = random
        self._models = schema.models_on_device
        models = self._models.values()
        self.by_hand = tuple(m for m in models if m.definition.hash_template is None)
        self.period_ms_max = max((m.period_ms for m in models if m.sends), default=0)
        self.timed = self.period_ms_max > 0 or any(m.ttl_attribute is not None for m in models)
        self.store = self._opened(store_type(connection))
        self.clock = CorrectedClock(monotonic_ms, wall_ms, self.store.identity.correction_ms)
        self.lock = threading.RLock()
        self.on_outbox: Callable[[], None] = _ignore
        self._new_id = ids.generator(random, self.clock.now_ms)
        self._triggers = Triggers()
        self._callbacks = self._triggers.by_name
        self.emit: Callable[[Iterable[Change]], None] = self._triggers.emit
        self._block: Block | None = None  # the transaction that an application has open
        self.differences: list[Difference] = evolving.settle(self)

    def _opened(self, store: Store) -> Store:
        self.indexing = Indexing(self.schema, lambda name: IndexTable(lambda: store.execute, name))
        self._plans = self.indexing.plans
        version = store.version()
        if version == 0:
            store.initialise(ids.epoch(self.random))
        elif version < SCHEMA_VERSION:
            store.upgrade()
        if any(model.mem for model in self.schema.models.values()):
            store.keep_in_memory(self._is_in_memory)
        store.indexes = self.indexing.tables
        store.load()
        return store

    def _is_in_memory(self, pk: str, sk: str) -> bool:
        place = self.schema.locate((pk, sk))
        return place is not None and place.model.mem

    # ---------------------------------------------------------------- writing

    def create(self, model: str, properties: Mapping[str, Any]) -> dict[str, Any]:
        """A new item; returns its properties. Raises ModelError: `exists`, `unique`, `size`, `direction`, or what the
        schema refuses; then nothing has changed."""
        m = self._models.get(model) if properties.__class__ is dict else None
        if m is None:
            m = self._model(model, properties)
        with self.lock:
            now = self.clock.now_ms()
            key, image = m.create(properties, self.context, now, self._new_id)
            visible = self.store.visible(*key) if m.ttl_attribute is None else due.living(self, m, key)
            if visible.image is not None:
                raise ModelError("exists", f"{model} {key} exists already", model=model)
            image = self._insert(m, key, image, now, visible)
        return m.read(key, image)

    def update(self, model: str, properties: Mapping[str, Any]) -> dict[str, Any]:
        """Changes the fields given, None removes one; returns all properties. Raises ModelError: `missing`, or as
        `create`."""
        m = self._models.get(model) if properties.__class__ is dict else None
        if m is None:
            m = self._model(model, properties)
        with self.lock:
            key = m.key(properties, self.context)
            visible = self.store.visible(*key) if m.ttl_attribute is None else due.living(self, m, key)
            if visible.image is None:
                raise ModelError("missing", f"{model} {key} does not exist", model=model)
            image = self._change(m, key, visible, properties)
        return m.read(key, image)

    def upsert(self, model: str, properties: Mapping[str, Any]) -> dict[str, Any]:
        """Update, or create when there is no such item."""
        m = self._models.get(model) if properties.__class__ is dict else None
        if m is None:
            m = self._model(model, properties)
        with self.lock:
            key, image = self._upsert(m, properties)
        return m.read(key, image)

    def put(self, model: str, properties: Mapping[str, Any]) -> None:
        """As upsert, for those who report and do not read: gives nothing back, which saves making it."""
        m = self._models.get(model) if properties.__class__ is dict else None
        if m is None:
            m = self._model(model, properties)
        with self.lock:
            self._upsert(m, properties)

    def _upsert(self, m: Model, properties: Mapping[str, Any]) -> tuple[Key, Image]:
        key = m.key(properties, self.context)
        visible = self.store.visible(*key) if m.ttl_attribute is None else due.living(self, m, key)
        if visible.image is not None:
            return key, self._change(m, key, visible, properties)
        now = self.clock.now_ms()
        key, image = m.create(properties, self.context, now, self._new_id)
        return key, self._insert(m, key, image, now, visible)

    def remove(self, model: str, properties: Mapping[str, Any]) -> bool:
        """Whether there was such an item."""
        m = self._models.get(model) if properties.__class__ is dict else None
        if m is None:
            m = self._model(model, properties)
        with self.lock:
            key = m.key(properties, self.context)
            visible = self.store.visible(*key) if m.ttl_attribute is None else due.living(self, m, key)
            if visible.image is None:
                return False
            self.delete(m, key, visible)
        return True

    def delete(self, m: Model, key: Key, visible: Visible) -> None:
        """An item that is there. `visible`: as it is."""
        updated = max(self.clock.now_ms(), visible.updated + 1)
        self._write(m, key, "delete", None, visible.image, updated, visible)

    # A stamp is never older than what it follows, also when the clock went back: the device must not lose to itself.

    def _insert(self, m: Model, key: Key, image: Image, now: int, visible: Visible) -> Image:
        updated = now
        if visible.updated >= now:  # over an own delete with a later stamp
            updated = visible.updated + 1
            image = m.stamp(image, updated)
        self._write(m, key, "create", image, None, updated, visible)
        return image

    def _change(self, m: Model, key: Key, visible: Visible, properties: Mapping[str, Any]) -> Image:
        assert visible.image is not None
        before = stored_image(visible.image)
        updated = max(self.clock.now_ms(), visible.updated + 1)
        image = m.update(key, before, properties, self.context, updated)
        self._write(m, key, "update", image, before, updated, visible)
        return image

    def replace(self, m: Model, key: Key, image: Image, visible: Visible) -> None:
        """An item as a whole, with a new stamp: what was imported, or is sent again. `visible`: what is there now."""
        updated = max(self.clock.now_ms(), visible.updated + 1)
        kind: Kind = "create" if visible.image is None else "update"
        self._write(m, key, kind, m.stamp(image, updated), visible.image, updated, visible)

    def _write(
        self,
        m: Model,
        key: Key,
        kind: Kind,
        image: Image | None,
        before: bytes | Image | None,
        updated: int,
        visible: Visible,
    ) -> None:
        """The one way for an application's write: durable, then triggers."""
        if m.receives and not m.sends:
            raise ModelError("direction", f"{m.name} syncs down: the device cannot write it", model=m.name)
        data: bytes | None = None
        if image is not None:
            data = encode_image(image)
            limit = ITEM_BYTES_MAX if m.sends else LOCAL_ITEM_BYTES_MAX
            if len(data) > limit:
                raise ModelError("size", f"{m.name} {key}: {len(data)} bytes, at most {limit}", model=m.name)
        plan = self._plans.get(m.name) if self._plans else None
        if plan is None and self._block is None:
            self.commit(m, key, kind, data, updated, visible)
        else:
            self._write_indexed(plan, m, key, kind, image, data, before, updated, visible)
        block = self._block
        if self._callbacks:
            change = Change(_EVENT_OF[kind], "local", m.name, key, image, before, updated)
            if block is not None:
                block.changes.append(change)
            else:
                try:
                    self.emit((change,))
                except Exception:
                    if m.sends:
                        self.on_outbox()  # the write is done, whatever a callback makes of it
                    raise
        if m.sends or (plan is not None and m.ttl_attribute is not None):
            if block is not None:
                block.news = True
            else:
                self.on_outbox()

    def _write_indexed(
        self,
        plan: Plan | None,
        m: Model,
        key: Key,
        kind: Kind,
        image: Image | None,
        data: bytes | None,
        before: bytes | Image | None,
        updated: int,
        visible: Visible,
    ) -> None:
        """A write with its places in the indexes, in one transaction; or a part of one that is open."""
        if plan is not None and image is not None and m.unique_fields:
            self._refuse_taken(m, key, image)
        if before is None and m.ttl_attribute is not None:
            before = self.store.visible(*key).image  # one that is hidden, by a clock that nobody has set yet
        try:
            with self.atomic():
                self.commit(m, key, kind, data, updated, visible)
                if plan is not None:
                    was = stored_image(before) if isinstance(before, bytes) else before
                    self.indexing.move(plan, key, was, image)
        except (sqlite3.Error, StoreError):
            if self._block is not None:
                self._block.broken = True  # what was done of this write must not be committed with the rest
            raise

    def _refuse_taken(self, m: Model, key: Key, image: Image) -> None:
        """Within this file: the cloud alone knows what other devices have."""
        for pk, _ in m.unique_keys(key, image):
            for owner in self.indexing.of(m).owner(UNIQUE, pk):
                if owner != key and due.living(self, m, owner).image is not None:
                    raise ModelError("unique", f"{m.name} {key}: {pk!r} belongs to {owner}", model=m.name)

    def commit(self, m: Model, key: Key, kind: Kind, data: bytes | None, updated: int, visible: Visible) -> None:
        """What a write of a model is in the file: one durable statement. `visible`: what was there."""
        pk, sk = key
        if m.sends:
            if m.period_ms and not (visible.n and visible.state in (UNSENT, HELD)):
                due_ms = self.clock.now_ms() + m.period_ms
                self.store.hold_operation(pk, sk, kind, data, updated, due_ms)
            else:
                self._put_operation(pk, sk, kind, data, updated, visible)
        elif data is None:
            self.store.delete_base(pk, sk)
        else:
            self.store.put_base(pk, sk, data, updated)

    def _put_operation(self, pk: str, sk: str, kind: Kind, data: bytes | None, updated: int, visible: Visible) -> None:
        """A row that was never sent takes a newer write of its item; a sent row never changes."""
        if visible.n and (visible.state == UNSENT or visible.state == HELD):
            self.store.squash(visible.n, kind, data, updated)
        else:
            self.store.add_operation(pk, sk, kind, data, updated)

    def transaction(self) -> Block:
        """`with database.transaction():` all writes of the block, of any items and models, in one durable transaction.
        Reads in the block see them; triggers run after the commit; an exception undoes them all. Other threads wait for
        its end. Raises ModelError `transaction` within another one.

        The relay gets one operation for each item, in order, and may decide them apart."""
        return Block(self)

    @property
    def block(self) -> Block | None:
        """The transaction that is open."""
        return self._block

    @block.setter
    def block(self, block: Block | None) -> None:
        self._block = block

    def atomic(self) -> AbstractContextManager[None]:
        """One transaction of the file; part of the open one, if there is one."""
        return self.store.transaction() if self._block is None else _NO_TRANSACTION

    # ---------------------------------------------------------------- reading

    def get(self, model: str, properties: Mapping[str, Any]) -> dict[str, Any] | None:
        m = self._models.get(model) if properties.__class__ is dict else None
        if m is None:
            m = self._model(model, properties)
        key = m.key(properties, self.context)
        with self.lock:
            image = self.store.visible(*key).image
        if image is None:
            return None
        decoded = stored_image(image)
        return None if m.ttl_attribute is not None and self.is_over(m, decoded) else m.read(key, decoded)

    def find(
        self,
        model: str,
        properties: Mapping[str, Any] | None = None,
        *,
        where: search.Where | None = None,
        index: str | None = None,
        reverse: bool = False,
        after: search.After = None,
        limit: int | None = None,
    ) -> Iterator[dict[str, Any]]:
        """Items in order of their sort key, or of an index of the schema. `properties` may give the first variables of
        the sort key's template and any other field (equal). `after`: a sort key, or the last item that was found, to go
        on from. Reads page by page as it goes: an item that is written meanwhile is shown as it is when its page is
        read. Raises ModelError: `key` when the hash key cannot be told, `index`, `find`, or what the schema refuses."""
        m = self._model(model, {} if properties is None else properties)
        return search.find(self, m, properties or {}, where, index, reverse, after, limit)

    def find_one(
        self,
        model: str,
        properties: Mapping[str, Any] | None = None,
        *,
        where: search.Where | None = None,
        index: str | None = None,
    ) -> dict[str, Any] | None:
        """The one item that `find` finds; None when there is none. Two or more: ModelError `ambiguous`."""
        found = list(self.find(model, properties, where=where, index=index, limit=2))
        if len(found) > 1:
            raise ModelError("ambiguous", f"{model}: more than one item has {dict(properties or {})}", model=model)
        return found[0] if found else None

    def items(self) -> Iterator[tuple[Model, Key, Image]]:
        """Every item that an application can read, in order of the keys. Reads page by page, as `find` does."""
        return search.items(self)

    def is_shown(self, m: Model, key: Key, image: Image) -> bool:
        """Whether an item found under a key is the model's, and its life is not over. Ranges of models may lie within
        each other; a model whose keys are given by hand is told by its type."""
        place = self.schema.locate(key)
        if (place.model is not m) if place is not None else image.get(m.type_field) != m.name:
            return False
        return m.ttl_attribute is None or not self.is_over(m, image)

    def is_over(self, m: Model, image: Image) -> bool:
        """Whether the item's life is over, by the corrected clock."""
        end_s = end_of_life_s(m, image)
        return end_s is not None and end_s * 1000 <= self.clock.now_ms()

    def by_type(self, image: Image) -> Model | None:
        """The model of an item whose key was given by hand, by the type that it bears."""
        return next((m for m in self.by_hand if image.get(m.type_field) == m.name), None)

    # ---------------------------------------------------------------- what falls due

    def expire(self) -> int:
        """Drops the items whose lives are over, with the event `expired`: an up or both model's is deleted in the cloud
        too, unless it was written again there. Returns how many. Reads hide such items in any case."""
        return due.expire(self)

    # ---------------------------------------------------------------- the file as a whole

    def pending(self) -> int:
        """Changes that the cloud has not decided yet."""
        return self.store.outbox_rows

    def statistics(self) -> upkeep.Statistics:
        """What the file holds. Reads all items."""
        return upkeep.statistics(self)

    def check(self) -> list[str]:
        """What is wrong with the file, one line each; empty when it is sound. Reads everything, changes nothing."""
        return upkeep.check(self)

    def backup(self, path: str | Path) -> None:
        """A whole copy, as of the end of the call, in a new file; others go on reading and writing. Raises StoreError
        when the file exists or cannot be written, or the database is damaged."""
        upkeep.backup(self, path)

    def compact(self) -> tuple[int, int]:
        """Gives unused space back. Returns the bytes of the file before and after. Needs as much free space again."""
        return upkeep.compact(self)

    def export_items(self) -> Iterator[dict[str, Any]]:
        """Every item as a value for JSON: {"model", "key", "item"}. See agent.transfer."""
        return transfer.export_items(self)

    def import_items(self, rows: Iterable[Mapping[str, Any]]) -> transfer.ImportResult:
        """Writes items that `export_items` gave, here or elsewhere. What is refused is told, and stops nothing else."""
        return transfer.import_items(self, rows)

    def dead_letters(self) -> list[DeadLetter]:
        """Writes that the relay rejected and rows that could not be applied, oldest first."""
        with self.lock:
            return self.store.dead_letters()

    def discard(self, n: int) -> bool:
        """Forgets a dead letter. Whether there was one of that number."""
        with self.lock:
            return self.store.drop_dead_letter(n)

    def retry(self, n: int) -> bool:
        """A rejected write becomes a new operation. Whether there was one of that number. Raises ModelError `retry`
        when it cannot, or the item was written since."""
        return letters.retry(self, n)

    # ---------------------------------------------------------------- triggers

    def on(self, model: str, event: Event | str, callback: Callback) -> Callable[[], None]:
        """Calls back after the commit. `*` stands for every model, or every event. Returns what takes it off again."""
        if model != "*":
            self._model(model, {})
        return self._triggers.add(model, event, callback)

    @property
    def on_callback_error(self) -> Callable[[Change, Exception], None] | None:
        """Told when a callback fails; while it is None, the error comes out of the call that made the change."""
        return self._triggers.on_error

    @on_callback_error.setter
    def on_callback_error(self, told: Callable[[Change, Exception], None] | None) -> None:
        self._triggers.on_error = told

    def model(self, name: str) -> Model:
        """A model that has items on devices. Raises ModelError `model`."""
        return self._model(name, {})

    def _model(self, name: str, properties: Mapping[str, Any]) -> Model:
        model = self.schema.models.get(name)
        if model is None:
            raise ModelError("model", f"no model {name!r} in the schema", model=name)
        if not model.on_device:
            raise ModelError("model", f"{name} lives in the cloud alone", model=name)
        if properties.__class__ is not dict and not isinstance(properties, Mapping):
            raise ModelError("type", f"{name}: expected properties by name, found {properties!r:.60}", model=name)
        return model

    def close(self) -> None:
        with self.lock:
            self.store.connection.close()
