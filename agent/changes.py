"""What triggers tell an application: one Change for each thing that happened to one item, and who wants to hear of it.

Made by Database (own writes) and Session (what sync did); delivered after the commit.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Final, Literal, get_args

from agent.protocol.errors import ModelError
from agent.protocol.messages import Image, Key, decode_image

Event = Literal["created", "updated", "removed", "synced", "lost", "rejected", "expired"]
Origin = Literal["local", "sync"]
EVENTS: Final[tuple[str, ...]] = get_args(Event)
_ALL: Final = ("*", "*")  # every event of every model


class Change:
    """`created`, `updated`, `removed`: what applications read has changed, by their own write or by sync. `expired`:
    the item is gone because its life was over. `synced`, `lost`, `rejected`: the verdict on an own write, named by its
    key and `updated` (ms); `code` says why."""

    __slots__ = ("_before", "_image", "code", "event", "key", "model", "origin", "updated")

    def __init__(
        self,
        event: Event,
        origin: Origin,
        model: str,
        key: Key,
        image: bytes | Image | None,
        before: bytes | Image | None,
        updated: int = 0,
        code: str = "",
    ) -> None:
        self.event = event
        self.origin = origin
        self.model = model
        self.key = key
        self.updated = updated
        self.code = code
        self._image = image
        self._before = before

    @property
    def image(self) -> Image | None:
        """The raw item now; None when it is gone."""
        if isinstance(self._image, bytes):
            self._image = decode_image(self._image)
        return self._image

    @property
    def before(self) -> Image | None:
        """The raw item before; None when there was none."""
        if isinstance(self._before, bytes):
            self._before = decode_image(self._before)
        return self._before

    def __repr__(self) -> str:
        return f"Change({self.event}, {self.origin}, {self.model}, {self.key}, updated={self.updated})"


Callback = Callable[[Change], None]


class Triggers:
    """Callbacks by model and event, `*` for all. May be used from any thread."""

    __slots__ = ("_everywhere", "_listeners", "_lock", "by_name", "on_error")

    def __init__(self) -> None:
        self.on_error: Callable[[Change, Exception], None] | None = None
        self.by_name: dict[tuple[str, str], tuple[Callback, ...]] = {}  # empty: nobody listens
        self._listeners: dict[tuple[str, str], tuple[Callback, ...]] = {}  # the same, put together per model and event
        self._everywhere: tuple[Callback, ...] | None = ()  # who hears of all; None: there are others as well
        self._lock = threading.Lock()

    def add(self, model: str, event: str, callback: Callback) -> Callable[[], None]:
        """Returns what takes it off again; called once more, that does nothing. Raises ModelError `event`."""
        if event != "*" and event not in EVENTS:
            raise ModelError("event", f"no event {event!r}: there are {', '.join(EVENTS)}, and *", model=model)
        name = (model, event)
        here = [callback]  # its own mark: the same callback may be there twice
        with self._lock:
            self.by_name[name] = (*self.by_name.get(name, ()), callback)
            self._forget()

        def off() -> None:
            with self._lock:
                if not here:
                    return
                here.clear()
                left = list(self.by_name[name])
                left.remove(callback)
                if left:
                    self.by_name[name] = tuple(left)
                else:
                    del self.by_name[name]
                self._forget()

        return off

    def _forget(self) -> None:
        self._listeners = {}
        everywhere = self.by_name.get(_ALL, ())
        self._everywhere = everywhere if len(self.by_name) == bool(everywhere) else None

    def emit(self, changes: Iterable[Change]) -> None:
        """Delivers. A callback that fails is reported to `on_error` and harms nobody else."""
        for change in changes:
            listeners = self._everywhere
            if listeners is None:
                listeners = self._listeners.get((change.model, change.event))
            if listeners is None:
                listeners = self._listeners_of(change.model, change.event)
            for callback in listeners:
                try:
                    callback(change)
                except Exception as error:
                    if self.on_error is None:
                        raise
                    self.on_error(change, error)

    def _listeners_of(self, model: str, event: str) -> tuple[Callback, ...]:
        with self._lock:
            names = (_ALL, (model, "*"), ("*", event), (model, event))
            found = tuple(callback for name in names for callback in self.by_name.get(name, ()))
            self._listeners[model, event] = found
        return found
