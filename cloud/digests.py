"""Digests in the cloud: whether a device that says what it holds holds what the table has for it.

Comparable is what the device says at the tail of its feeds, with HEAD where it says, before the items are read and
after; all else is left for another time. A change that is committed and has no row in its feed yet makes a difference
all the same, and so does a damage that nobody was told of: they are told apart by time. A record of the stream lives so
long, and the worker that has it so long; a difference that is the very same after both is not on its way. Then it is
said to be there to stay, counted, and told to the operator; the device heals it. Keeps nothing: what an earlier
comparison has found the device says itself, and it can fool nobody but itself. Generators: every yield is a request to
the table or a message. Called by `cloud.relay`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator
from typing import Any, Protocol

from agent.protocol import digest
from agent.protocol.digest import Tallies
from agent.protocol.messages import ITEM_BYTES_MAX, QUARANTINE, Claim, Compared, Digest, Key, Wait, encode_image
from agent.protocol.schema import Context, Model, Schema
from cloud.answer import Answer
from cloud.config import RelayConfig
from cloud.feed import Sequencer
from cloud.head import ORPHAN, Feed, head_key, log_position, mark_of, public_image
from cloud.incarnation import incarnation_of
from cloud.quarantine import HALTED
from cloud.table import PK, SK, Get, Item, Page, Query, Request, Work


class OnMismatch(Protocol):
    """Told when a device and the table differ for good. `models`: by name, with the difference of their sums."""

    def __call__(self, event: str, /, *, device: str, models: str) -> None: ...


def _tell_nobody(event: str, /, *, device: str, models: str) -> None:
    return


class Digests:
    """One decision a method, so that a check of the checks can take one away."""

    def __init__(
        self,
        schema: Schema,
        config: RelayConfig,
        clock_ms: Callable[[], int],
        counters: Counter[str],
        sequencer: Sequencer,
    ) -> None:
        self.schema = schema
        self.config = config
        self.clock_ms = clock_ms
        self.counters = counters
        self.sequencer = sequencer
        self.fingerprint = digest.fingerprint(schema)
        self.tell: OnMismatch = _tell_nobody

    def compare(self, device: str, account: str, message: Digest, answer: Answer) -> Work:
        head: Item | None = yield Get(head_key(device))
        if head is not None and HALTED in head:
            self.counters["message_refused_quarantine"] += 1
            yield answer(Wait(hn=message.hn, retry_after=self.config.quarantine_retry_ms, reason=QUARANTINE))
            return
        context = Context(device, account)
        tallies: Tallies | None = None
        if self.is_schema(message) and self.is_at(head, message):
            models = yield from self.comparable(message, context)
            tallies = Tallies(self.schema, context, models, message.cut_s, message.apart)
            yield from self.count(tallies, device, message)
            yield from self.leave_out(tallies, context, message)
        yield answer(self.verdict(device, message, {} if tallies is None else tallies.sums, tallies))

    # What can be compared

    def is_schema(self, message: Digest) -> bool:
        if message.schema == self.fingerprint:
            return True
        self.counters["digest_other_schema"] += 1
        return False

    def is_at(self, head: Item | None, message: Digest) -> bool:
        """Whether HEAD has all that the device has sent, and nothing else."""
        return (
            head is not None
            and head["epoch"] == message.epoch
            and head["up"] == message.up
            and head.get("upid") == message.upid
            and incarnation_of(head) == (message.inc or "")
        )

    def comparable(self, message: Digest, context: Context) -> Generator[Request, Any, list[str]]:
        """The models that both know, whose feeds the device has followed to their tails."""
        at_tail: dict[str | None, bool] = {None: True}
        for name in dict.fromkeys(m.feed for m in self.schema.models.values() if m.receives):
            at_tail[name] = name is not None and (yield from self.is_tail(name, message, context))
        return [
            name
            for name in message.models
            if (model := self.schema.models.get(name)) is not None
            and (model.sends or model.receives)
            and at_tail[model.feed if model.receives else None]
        ]

    def is_tail(self, name: Any, message: Digest, context: Context) -> Generator[Request, Any, bool]:
        cursor = message.cursors.get(name)
        if cursor is None:
            return False
        owner = context.device_id if name == "device" else context.account_id
        tail = yield from self.sequencer.read_tail(Feed(name, owner, self.config.topic_prefix))
        return tail is not None and log_position(tail) == cursor

    def leave_out(self, tallies: Tallies, context: Context, message: Digest) -> Generator[Request, Any, None]:
        """What has moved while the items were read, and all of it when a life may have ended meanwhile that counts."""
        head: Item | None = yield Get(head_key(context.device_id))
        if not self.is_at(head, message) or self.clock_ms() >= message.cut_s * 1000:
            tallies.sums.clear()
            return
        models = yield from self.comparable(message, context)
        for name in [name for name in tallies.sums if name not in models]:
            del tallies.sums[name]

    # Counting

    def count(self, tallies: Tallies, device: str, message: Digest) -> Generator[Request, Any, None]:
        """Every item of these models, as a snapshot would read them; a model with one that is too large to be sent is
        left out, unless the device says that it knows."""
        large: dict[str, None] = {}
        for pk, prefix, models in tallies.ranges():
            after: str | None = None
            while True:
                page: Page = yield Query(pk, prefix, after, False, self.config.snapshot_page)
                for item in page.items:
                    key = (item[PK], item[SK])
                    model = tallies.model_of(key, models)
                    if model is None or not self.counts(model, item, device, message):
                        continue
                    if not self.add(tallies, model, key, item):
                        large[model.name] = None
                after = page.after
                if after is None:
                    break
        for name in large:
            self.counters["digest_oversize"] += 1
            del tallies.sums[name]

    def counts(self, model: Model, item: Item, device: str, message: Digest) -> bool:
        """Whether an item is one that the device should have. Of an up model those that its present epoch has written:
        orphans, and what somebody else put there, are not on it."""
        if model.receives:
            return True
        op = mark_of(item)
        return op is not None and op[0] == device and op[1] == message.epoch and ORPHAN not in item

    def add(self, tallies: Tallies, model: Model, key: Key, item: Item) -> bool:
        image = encode_image(public_image(item))
        if len(image) > ITEM_BYTES_MAX:
            return False
        tallies.add(model, key, image)
        return True

    # The answer

    def verdict(self, device: str, message: Digest, sums: dict[str, int], tallies: Tallies | None) -> Compared:
        differs: dict[str, str] = {}
        heal: list[str] = []
        skipped: list[str] = []
        for name, claim in message.models.items():
            if tallies is None or name not in sums:
                skipped.append(name)
            elif not self.is_equal(claim, sums[name], tallies.counts[name]):
                differs[name] = digest.shown(digest.delta(sums[name], claim.sum))
                if self.is_to_stay(claim, differs[name]):
                    self.counters["digest_mismatch"] += 1
                    heal.append(name)
        self.counters["digest_compared"] += len(message.models) - len(skipped)
        self.counters["digest_differs"] += len(differs)
        self.counters["digest_skipped"] += len(skipped)
        if heal:
            self.tell("digest-mismatch", device=device, models=" ".join(f"{name}:{differs[name]}" for name in heal))
        return Compared(
            hn=message.hn, n=message.n, differs=differs, heal=heal, skipped=skipped, after_ms=self.config.settled_ms
        )

    def is_equal(self, claim: Claim, total: int, count: int) -> bool:
        return digest.delta(total, claim.sum) == 0

    def is_to_stay(self, claim: Claim, delta: str) -> bool:
        """Whether no change that is on its way can be the reason."""
        return claim.delta == delta and claim.age_ms >= self.config.settled_ms
