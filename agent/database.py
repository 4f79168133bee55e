"""The embedded database as an application on the device sees it: models, keys and properties, triggers.

Every write of a model that syncs up puts its operation into the outbox in the same transaction; the write is visible at
once. Sends nothing itself: it tells `on_outbox` that there is something to send. Called by applications (from any
thread) and by Session.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, Final

from agent import ids
from agent.changes import Callback, Change, Event
from agent.clock import CorrectedClock
from agent.file_errors import stored_image
from agent.protocol.errors import ModelError
from agent.protocol.messages import ITEM_BYTES_MAX, Image, Key, Kind, encode_image
from agent.protocol.model import HASH, SORT
from agent.protocol.schema import Context, Model, Schema
from agent.store import UNSENT, DeadLetter, Store, Visible

LOCAL_ITEM_BYTES_MAX: Final = 400 * 1024
FIND_PAGE_ITEMS: Final = 64  # read at once

_EVENT_OF: Final[dict[Kind, Event]] = {"create": "created", "update": "updated", "delete": "removed"}


def _ignore() -> None:
    return None


class Database:
    """One device's data. `connection`: see agent.files; `monotonic_ms`, `wall_ms`: agent.clock; `random`: agent.ids."""

    __slots__ = (
        "_callbacks", "_listeners", "_new_id", "clock", "context", "lock", "on_callback_error", "on_outbox", "random",
        "schema", "store",
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
        """Opens, or makes on first use. Raises StoreError when the file is something else."""
        self.schema = schema
        self.context = context
        self.random = random
        self.store = store_type(connection)
        if self.store.is_new():
            self.store.initialise(ids.epoch(random))
        self.store.load()
        self.clock = CorrectedClock(monotonic_ms, wall_ms, self.store.identity.correction_ms)
        self.lock = threading.RLock()
        self.on_outbox: Callable[[], None] = _ignore
        self.on_callback_error: Callable[[Change, Exception], None] | None = None
        self._new_id = ids.generator(random, self.clock.now_ms)
        self._callbacks: dict[tuple[str, str], list[Callback]] = {}
        self._listeners: dict[tuple[str, str], tuple[Callback, ...]] = {}  # the same, put together per model and event

    # ---------------------------------------------------------------- writing

    def create(self, model: str, properties: Mapping[str, Any]) -> dict[str, Any]:
        """A new item; returns its properties. Raises ModelError: `exists`, or what the schema refuses."""
        m = self._model(model)
        with self.lock:
            now = self.clock.now_ms()
            key, image = m.create(properties, self.context, now, self._new_id)
            visible = self.store.visible(*key)
            if visible.image is not None:
                raise ModelError("exists", f"{model} {key} exists already", model=model)
            image = self._insert(m, key, image, now, visible)
        return m.read(key, image)

    def update(self, model: str, properties: Mapping[str, Any]) -> dict[str, Any]:
        """Changes the fields given, None removes one; returns all properties. Raises ModelError: `missing`, or what the
        schema refuses."""
        m = self._model(model)
        with self.lock:
            key = m.key(properties, self.context)
            visible = self.store.visible(*key)
            if visible.image is None:
                raise ModelError("missing", f"{model} {key} does not exist", model=model)
            image = self._change(m, key, visible, properties)
        return m.read(key, image)

    def upsert(self, model: str, properties: Mapping[str, Any]) -> dict[str, Any]:
        """Update, or create when there is no such item."""
        m = self._model(model)
        with self.lock:
            key, image = self._upsert(m, properties)
        return m.read(key, image)

    def put(self, model: str, properties: Mapping[str, Any]) -> None:
        """As upsert, for those who report and do not read: gives nothing back, which saves making it."""
        m = self._model(model)
        with self.lock:
            self._upsert(m, properties)

    def _upsert(self, m: Model, properties: Mapping[str, Any]) -> tuple[Key, Image]:
        key = m.key(properties, self.context)
        visible = self.store.visible(*key)
        if visible.image is not None:
            return key, self._change(m, key, visible, properties)
        now = self.clock.now_ms()
        key, image = m.create(properties, self.context, now, self._new_id)
        return key, self._insert(m, key, image, now, visible)

    def remove(self, model: str, properties: Mapping[str, Any]) -> bool:
        """Whether there was such an item."""
        m = self._model(model)
        with self.lock:
            key = m.key(properties, self.context)
            visible = self.store.visible(*key)
            if visible.image is None:
                return False
            updated = max(self.clock.now_ms(), visible.updated + 1)
            self._write(m, key, "delete", None, visible.image, updated, visible)
        return True

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
        """The one way for an application's write: a single durable statement, then triggers."""
        if m.receives and not m.sends:
            raise ModelError("direction", f"{m.name} syncs down: the device cannot write it", model=m.name)
        pk, sk = key
        data: bytes | None = None
        if image is not None:
            data = encode_image(image)
            limit = ITEM_BYTES_MAX if m.sends else LOCAL_ITEM_BYTES_MAX
            if len(data) > limit:
                raise ModelError("size", f"{m.name} {key}: {len(data)} bytes, at most {limit}", model=m.name)
        if m.sends:
            self._put_operation(pk, sk, kind, data, updated, visible)
        elif data is None:
            self.store.delete_base(pk, sk)
        else:
            self.store.put_base(pk, sk, data, updated)
        if self._callbacks:
            try:
                self.emit((Change(_EVENT_OF[kind], "local", m.name, key, image, before, updated),))
            except Exception:
                if m.sends:
                    self.on_outbox()  # the write is done, whatever a callback makes of it
                raise
        if m.sends:
            self.on_outbox()

    def _put_operation(self, pk: str, sk: str, kind: Kind, data: bytes | None, updated: int, visible: Visible) -> None:
        """A row that was never sent takes a newer write of its item; a sent row never changes."""
        if visible.n and visible.state == UNSENT:
            self.store.squash(visible.n, kind, data, updated)
        else:
            self.store.add_operation(pk, sk, kind, data, updated)

    # ---------------------------------------------------------------- reading

    def get(self, model: str, properties: Mapping[str, Any]) -> dict[str, Any] | None:
        m = self._model(model)
        key = m.key(properties, self.context)
        with self.lock:
            image = self.store.visible(*key).image
        return None if image is None else m.read(key, stored_image(image))

    def find(
        self,
        model: str,
        properties: Mapping[str, Any] | None = None,
        *,
        where: Callable[[dict[str, Any]], bool] | None = None,
        after: str | None = None,
        limit: int | None = None,
    ) -> Iterator[dict[str, Any]]:
        """Items in order of their sort key. `properties` may give the first variables of the sort key's template and
        any other field (equal). `after`: a sort key, to go on from. Reads page by page as it goes: an item that is
        written meanwhile is shown as it is when its page is read."""
        m = self._model(model)
        wanted = dict(properties or {})
        pk, prefix = m.search(wanted, self.context)
        wanted.pop(HASH, None)
        exactly = wanted.pop(SORT, None)

        def chosen(sk: str, image: Image) -> dict[str, Any] | None:
            if (exactly is not None and sk != exactly) or not self._belongs(m, (pk, sk), image):
                return None
            item = m.read((pk, sk), image)
            if any(item.get(name) != value for name, value in wanted.items()):
                return None
            return item if where is None or where(item) else None

        found = (chosen(sk, image) for sk, image in self._pages(pk, prefix, after or ""))
        return islice((item for item in found if item is not None), limit)

    def _pages(self, pk: str, prefix: str, after: str) -> Iterator[tuple[str, Image]]:
        while True:
            with self.lock:
                page = self.store.page(pk, prefix, after, FIND_PAGE_ITEMS)
            for sk, image in page:
                yield sk, stored_image(image)
            if len(page) < FIND_PAGE_ITEMS:
                return
            after = page[-1][0]

    def _belongs(self, m: Model, key: Key, image: Image) -> bool:
        """Ranges of models may lie within each other; a model whose keys are given by hand is told by its type."""
        place = self.schema.locate(key)
        return place.model is m if place is not None else image.get(m.type_field) == m.name

    def items(self) -> Iterator[tuple[Model, Key, Image]]:
        """Every item that an application can read, in order of the keys. Reads page by page, as `find` does."""
        after = ("", "")
        while True:
            with self.lock:
                page = self.store.page_of_all(*after, FIND_PAGE_ITEMS)
            for pk, sk, image in page:
                place = self.schema.locate((pk, sk))
                if place is not None:
                    yield place.model, (pk, sk), stored_image(image)
            if len(page) < FIND_PAGE_ITEMS:
                return
            after = page[-1][:2]

    def dead_letters(self) -> list[DeadLetter]:
        """Writes that the relay rejected and rows that could not be applied, oldest first."""
        with self.lock:
            return self.store.dead_letters()

    # ---------------------------------------------------------------- triggers

    def on(self, model: str, event: Event | str, callback: Callback) -> None:
        """Calls back after the commit. `*` stands for every model, or every event."""
        if model != "*":
            self._model(model)
        self._callbacks.setdefault((model, event), []).append(callback)
        self._listeners.clear()

    def emit(self, changes: Iterable[Change]) -> None:
        """Delivers. A callback that fails is reported to `on_callback_error` and harms nobody else."""
        if not self._callbacks:
            return
        for change in changes:
            listeners = self._listeners.get((change.model, change.event))
            if listeners is None:
                listeners = self._listeners_of(change.model, change.event)
            for callback in listeners:
                try:
                    callback(change)
                except Exception as error:
                    if self.on_callback_error is None:
                        raise
                    self.on_callback_error(change, error)

    def _listeners_of(self, model: str, event: str) -> tuple[Callback, ...]:
        names = (("*", "*"), (model, "*"), ("*", event), (model, event))
        found = tuple(callback for name in names for callback in self._callbacks.get(name, ()))
        self._listeners[model, event] = found
        return found

    def _model(self, name: str) -> Model:
        model = self.schema.models.get(name)
        if model is None:
            raise ModelError("model", f"no model {name!r} in the schema", model=name)
        if not model.on_device:
            raise ModelError("model", f"{name} lives in the cloud alone", model=name)
        return model

    def close(self) -> None:
        with self.lock:
            self.store.connection.close()
