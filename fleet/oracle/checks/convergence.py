"""The check `convergence`. Called at the end of a run by fleet.oracle.final."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent.protocol.messages import Key
from agent.protocol.schema import Model
from fleet.oracle.check import Check, shown
from fleet.oracle.stored import image_equals, public


class Convergence(Check):
    __slots__ = ()

    name = "convergence"
    statement = (
        "After the last heal, and within the scenario's bound, device and cloud are equal for every synced model: each "
        "item that either side has, the other has with the same image, and every outbox is empty. Left out: orphans, "
        "items too large for the wire, items of an up model whose last write was rejected. The stamp of an up model "
        "may differ, since the relay cuts stamps that lie in the future."
    )

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
