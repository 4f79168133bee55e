"""The check `nothing-invented`. Called at every commit, first sending and state shown, and at the end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent.protocol.messages import Key
from fleet.oracle.check import Check, shown
from fleet.oracle.payload import REV, TEXT, is_genuine


class NothingInvented(Check):
    __slots__ = ()

    name = "nothing-invented"
    statement = (
        "Nothing appears that no application wrote: every change of the table is the announced write of a cloud "
        "application, an operation that the item's device has sent, or a sweep; every operation sent carries a write "
        "of that device; every image, in the table, in the log and before an application, has the text that belongs "
        "to its number, and on a device is the table's image. The very text that a damage put on the device's disk may "
        "be read until that is healed (see digest-heals); for good where the table's item has become too large to be "
        "sent."
    )

    def image(self, t_us: int, device: str, key: Key, image: Mapping[str, Any], where: str) -> None:
        self.checked += 1
        rev = image.get(REV)
        text = image.get(TEXT)
        if text is not None and not is_genuine(rev, text):
            self.fail(t_us, device, key, f"the text that was written as rev {rev}", f"another text {where}")

    def nobody(self, t_us: int, device: str, key: Key, before: int | None, after: int | None) -> None:
        """A change of the table without a cause."""
        self.fail(t_us, device, key, f"{shown(before)} in the table, as nobody has written", shown(after))

    def not_sent(self, t_us: int, device: str, key: Key, u: int, rev: int | None) -> None:
        self.fail(t_us, device, key, "an operation that the device has sent", f"{shown(rev)} as its operation {u}")

    def not_written(self, t_us: int, device: str, key: Key, u: int, kind: str, rev: int | None) -> None:
        self.checked += 1
        self.fail(t_us, device, key, "operations of writes only", f"operation {u}, {kind} to {shown(rev)}")

    def other_image(self, t_us: int, device: str, key: Key, rev: int | None, where: str) -> None:
        self.fail(t_us, device, key, f"the image written as rev {rev}", f"other values {where}")
