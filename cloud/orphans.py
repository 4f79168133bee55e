"""The sweep: items of a device's up models that an earlier epoch of it wrote and the present one did not write again.

Such an item is an orphan: kept and marked, or removed, as its model says (rule 17). Each step is fenced by HEAD's
epoch, so that a sweep that wakes up late does nothing to what a newer epoch owns. Called by `cloud.ingest`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator
from typing import Any

from agent.protocol.schema import Context, Model, Schema
from cloud import unique
from cloud.config import RelayConfig
from cloud.head import OP, ORPHAN, head_key, mark_of
from cloud.table import PK, SK, Cancelled, Check, Condition, Delete, Item, Key, Page, Query, Request, Transact, Update


class Orphans:
    """One decision a method, so that a check of the checks can take one away."""

    def __init__(self, schema: Schema, config: RelayConfig, counters: Counter[str]) -> None:
        self.schema = schema
        self.config = config
        self.counters = counters

    def sweep(
        self, device: str, account: str, epoch: str, restated: str = "", first_u: int = 0
    ) -> Generator[Request, Any, bool]:
        """Deals with every orphan. False when HEAD has another epoch by now. `restated`: a model that the device has
        restated with its operations from `first_u` on."""
        self.counters["sweep_run"] += 1
        for model, pk, prefix in self.schema.up_ranges(Context(device, account)):
            after: str | None = None
            while True:
                page: Page = yield Query(pk, prefix, after, False, self.config.snapshot_page)
                for item in page.items:
                    left = model.name == restated and self.is_left(item, model, device, epoch, first_u)
                    if left or self.is_orphan(item, model, device, epoch):
                        in_force = yield from self.deal_with(item, model, device, epoch)
                        if not in_force:
                            return False
                after = page.after
                if after is None:
                    break
        return True

    def is_orphan(self, item: Item, model: Model, device: str, epoch: str) -> bool:
        """Whether this device wrote it in another epoch, and it is not marked yet."""
        op = mark_of(item)
        if op is None or op[0] != device or op[1] == epoch or (ORPHAN in item and model.orphans == "keep"):
            return False
        return self.is_in(item, model, device)

    def is_left(self, item: Item, model: Model, device: str, epoch: str, first_u: int) -> bool:
        """Whether an operation of this epoch wrote it and no later one, though the device has restated all it has."""
        op = mark_of(item)
        if op is None or op[0] != device or op[1] != epoch or op[2] >= first_u:
            return False
        return not (ORPHAN in item and model.orphans == "keep") and self.is_in(item, model, device)

    def is_in(self, item: Item, model: Model, device: str) -> bool:
        place = self.schema.locate((item[PK], item[SK]))
        return place is not None and place.model is model and place.device_id == device

    def deal_with(self, item: Item, model: Model, device: str, epoch: str) -> Generator[Request, Any, bool]:
        """Marks or removes one orphan, unless it was written again meanwhile. False when the epoch is over."""
        key: Key = (item[PK], item[SK])
        still: Condition = (("eq", OP, item[OP]),)
        remove = model.orphans == "remove"
        action = Delete(key, still) if remove else Update(key, {ORPHAN: True}, (), still)
        freed = unique.changes(model, key, item, None) if remove else ()
        fence = self.fence(device, epoch)
        tries = 0
        while True:
            try:
                yield Transact((*fence, action, *freed))
            except Cancelled as error:
                if "condition" in error.reasons[: len(fence)]:
                    self.counters["sweep_overtaken"] += 1
                    return False
                if error.reasons[len(fence)] == "condition":
                    return True  # no orphan any more
                tries += 1
                if tries > self.config.transaction_retries:
                    raise
            else:
                self.counters["sweep_removed" if remove else "sweep_kept"] += 1
                return True

    def fence(self, device: str, epoch: str) -> tuple[Check, ...]:
        return (Check(head_key(device), (("eq", "epoch", epoch),)),)
