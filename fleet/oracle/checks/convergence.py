"""The check `convergence`. Called at the end of a run by fleet.oracle.final."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent.protocol.messages import Key
from agent.protocol.schema import Model
from fleet.oracle.check import FIRST_MAX, Check, item_name, shown
from fleet.oracle.stored import image_equals, public


class Convergence(Check):
    __slots__ = ("large",)

    name = "convergence"
    statement = (
        "After the last heal, and within the scenario's bound, device and cloud are equal for every synced model: each "
        "item that either side has, the other has with the same image, and every outbox is empty. Left out: orphans, "
        "items too large for the wire (these are listed), items of an up model whose last write was rejected. The "
        "stamp of an up model may differ, since the relay cuts stamps that lie in the future."
    )

    def __init__(self) -> None:
        super().__init__()
        self.large: dict[Key, int] = {}  # items in the table that no message can carry, with their bytes

    def too_large(self, key: Key, size_bytes: int) -> None:
        """An item of the table that its devices cannot have: no difference, but somebody should know."""
        self.large[key] = size_bytes

    def detail(self) -> str:
        if not self.large:
            return super().detail()
        named = [f"{item_name(key)} ({size_bytes:,} bytes)" for key, size_bytes in sorted(self.large.items())]
        more = [f"and {len(named) - FIRST_MAX:,} more"] if len(named) > FIRST_MAX else []
        listed = f"{len(named):,} too large to be synced, not compared: {', '.join([*named[:FIRST_MAX], *more])}"
        return "\n".join(filter(None, (super().detail(), listed)))

    def items(
        self,
        t_us: int,
        device: str,
        key: Key,
        model: Model,
        image: Mapping[str, Any] | None,
        item: Mapping[str, Any] | None,
    ) -> None:
        """`image`: what the device's applications read; `item`: the table's."""
        self.checked += 1
        if image is None or item is None:
            if image is not item:
                self.fail(t_us, device, key, _state(item) + " as in the table", _state(image))
        elif not image_equals(image, item) and not (
            model.sync == "up" and model.stamp(dict(image), 0) == model.stamp(public(item), 0)
        ):
            theirs = _different(public(item), image)
            self.fail(t_us, device, key, f"{_state(item)} as in the table", f"{_state(image)}{theirs}")

    def outbox(self, t_us: int, device: str, key: Key | None, rows: int) -> None:
        """`key`: the item of the first operation that waits."""
        self.checked += 1
        if rows:
            self.fail(t_us, device, key, "an empty outbox", f"{rows} operations waiting")


def _state(image: Mapping[str, Any] | None) -> str:
    return shown(None if image is None else image.get("rev"))


def _different(item: Mapping[str, Any], image: Mapping[str, Any]) -> str:
    names = sorted(name for name in {**item, **image} if item.get(name) != image.get(name))
    return f" with other values of {', '.join(names)}" if names != ["rev"] else ""
