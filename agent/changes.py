"""What triggers tell an application: one Change for each thing that happened to one item. Pure values.

Made by Database (own writes) and Session (what sync did); delivered after the commit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from agent.protocol.messages import Image, Key, decode_image

Event = Literal["created", "updated", "removed", "synced", "lost", "rejected"]
Origin = Literal["local", "sync"]


class Change:
    """`created`, `updated`, `removed`: what applications read has changed, by their own write or by sync.
    `synced`, `lost`, `rejected`: the verdict on an own write, named by its key and `updated` (ms); `code` says why."""

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
