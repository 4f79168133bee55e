"""Planted bugs of what falls due on a device, and of what it keeps in memory: lives, periods, `mem`. One subclass each:
the docstring says what goes wrong.

Called by nobody but fleet.plants, which puts them into a world's types. The real agent has no switch for any of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from agent.database import Database
from agent.file_errors import stored_image
from agent.protocol.messages import Image, Key, Kind
from agent.protocol.schema import Model
from agent.session import Session
from agent.store import HELD, Store, Visible


class OwnClockDatabase(Database):
    """Takes the device's own clock for true before the relay has told the time: items are thrown away, here and in the
    cloud, before they are over."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self.clock.corrected = True


class SilentExpiryDatabase(Database):
    """Drops an item that is over, and sends no delete."""

    def commit(self, m: Model, key: Key, kind: Kind, data: bytes | None, updated: int, visible: Visible) -> None:
        image = visible.image
        if kind == "delete" and not visible.n and image is not None and self.is_over(m, stored_image(image)):
            self.store.delete_base(*key)
        else:
            super().commit(m, key, kind, data, updated, visible)


class LastingDatabase(Database):
    """Leaves the end of an item that came down to the cloud: until the sweep is heard of, it is there to be read."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        for name in [name for name, plan in self.indexing.plans.items() if not plan.model.sends]:
            del self.indexing.plans[name]

    def is_over(self, m: Model, image: Image) -> bool:
        return m.sends and super().is_over(m, image)


class UnheldDatabase(Database):
    """Does not know periods: every change is sent at once."""

    def commit(self, m: Model, key: Key, kind: Kind, data: bytes | None, updated: int, visible: Visible) -> None:
        if m.sends and m.period_ms:
            self._put_operation(*key, kind, data, updated, visible)
        else:
            super().commit(m, key, kind, data, updated, visible)


class FirstOfPeriodDatabase(Database):
    """Of the changes within a period the first is sent, and the last is lost."""

    def _put_operation(self, pk: str, sk: str, kind: Kind, data: bytes | None, updated: int, visible: Visible) -> None:
        if not (visible.n and visible.state == HELD and kind == "update"):
            super()._put_operation(pk, sk, kind, data, updated, visible)


class KeptRemovalDatabase(Database):
    """The removal of an item whose model has a period is never sent."""

    def commit(self, m: Model, key: Key, kind: Kind, data: bytes | None, updated: int, visible: Visible) -> None:
        if kind == "delete" and m.period_ms and (not visible.n or visible.state == HELD):
            self.store.delete_base(*key)
            if visible.n:
                self.store.drop_operation(visible.n)
        else:
            super().commit(m, key, kind, data, updated, visible)


class KeptCursorSession(Session):
    """Keeps the cursor of a feed with items in memory over a reboot: what went with the power does not come again."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self.replica.feeds_in_memory = ()


class FileStore(Store):
    """Keeps in the file what should be in memory alone."""

    def keep_in_memory(self, is_in_memory: Callable[[str, str], bool]) -> None:
        pass
