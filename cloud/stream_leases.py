"""Who reads which shard: leases and checkpoints of a stream's shards, kept in the table, shared fairly, taken over.

As the Kinesis client's lease table has them: a lease has an owner and a counter; the owner moves the counter, and who
has seen an owner and counter unchanged for the lease time, on its own monotonic clock, may take the lease under the
condition that both are so still. No two clocks are compared. Every write of a lease is fenced by owner and counter, so
that a relay that woke up late cannot say what is done. What it does to feeds meanwhile does no harm (see cloud.feed).

    pk _fleet#lease#LABEL     sk shard#ID           owner (absent: nobody), counter, checkpoint (START, a place, END)
                              sk relay#NAME#BOOT    counter

LABEL is the stream's: a stream switched off and on again is another one. A relay's own item tells the others that it
lives though it may hold no shard yet: each gives up what is over its share, at the end of a batch. One generator,
`tick`, does all of this process's writes, so that they never race each other. Called by the service's stream tasks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Mapping
from typing import Any, Final

import msgspec

from cloud.stream import END, LOST_HINT, START, ListShards, Shard, ShardPage, Step
from cloud.stream_config import StreamConfig
from cloud.stream_work import Tell
from cloud.table import (
    ITEM_ABSENT,
    PK,
    PRIVATE_PREFIX,
    SK,
    Condition,
    ConditionFailed,
    Delete,
    Get,
    Item,
    Key,
    Page,
    Put,
    Query,
    TableError,
    Update,
)

LEASE_PK: Final = PRIVATE_PREFIX + "lease#"
_SHARD: Final = "shard#"
_RELAY: Final = "relay#"
_GONE_AFTER: Final = 2  # listings that do not have a shard before it counts as gone
_DEAD_AFTER: Final = 10  # lease times before a dead relay's own item is removed


class Usurped(Exception):
    """Another relay was started under this one's name, and has taken its leases."""


class Held:
    """A lease of this process. `place` is what has been done, `saved` what the table knows of it.

    `asked_back`: to be given up at the end of the batch; the reader says so with `ended`. `lost`: stop at once."""

    __slots__ = ("asked_back", "counter", "ended", "lost", "place", "renewed_ms", "saved", "shard", "urgent")

    def __init__(self, shard: str, counter: int, checkpoint: str, renewed_ms: int) -> None:
        self.shard = shard
        self.counter = counter
        self.place = self.saved = checkpoint
        self.renewed_ms = renewed_ms
        self.asked_back = self.ended = self.lost = self.urgent = False


class _Seen(msgspec.Struct, gc=False):
    """What was last seen of an item of this partition, and since when it has been so."""

    item: Item
    since_ms: int

    @property
    def owner(self) -> str | None:
        return self.item.get("owner")


class Leases:
    """`name` is this relay's, `boot` of this process: a relay takes over at once what an earlier process of its name
    held. `counters`: lease_taken, lease_taken_over, lease_given_up, lease_lost, lease_finished, stream_shard_lost."""

    def __init__(
        self,
        label: str,
        name: str,
        boot: str,
        config: StreamConfig,
        *,
        monotonic_ms: Callable[[], int],
        counters: Counter[str],
        tell: Tell,
    ) -> None:
        self.pk = LEASE_PK + label
        self.name = name
        self.me = f"{name}#{boot}"
        self.config = config
        self.monotonic_ms = monotonic_ms
        self.counters = counters
        self.tell = tell
        self.held: dict[str, Held] = {}
        self.shards: dict[str, Shard] = {}  # as last listed
        self.stopping = False
        self.renewed_ms: int | None = None  # when a whole tick last succeeded
        self._beat = 0
        self._tick_at = self._discover_at = monotonic_ms()
        self._save_at: int | None = None
        self._saved_ms = self._tick_at
        self._shards_seen: dict[str, _Seen] = {}
        self._relays_seen: dict[str, _Seen] = {}
        self._missing: Counter[str] = Counter()

    # What readers say.

    def done(self, held: Held, place: str, urgent: bool = True) -> None:
        """All before `place` is done. Not urgent (nothing was to do): it is saved with the next renewal, since
        saving it would make a record of the stream again."""
        held.place = place
        if urgent or place == END:
            held.urgent = True
            self._save_soon(0 if place == END else self.config.checkpoint_ms)

    def ended(self, held: Held) -> None:
        """The reader of a shard that was asked back has stopped."""
        held.ended = True
        self._save_soon(0)

    def _save_soon(self, after_ms: int) -> None:
        at = max(self.monotonic_ms(), self._saved_ms + after_ms)
        self._save_at = at if self._save_at is None else min(at, self._save_at)

    def stop(self) -> None:
        """All shards are asked back, and no more are taken."""
        self.stopping = True
        for held in self.held.values():
            held.asked_back = True

    @property
    def due_ms(self) -> int:
        """When `tick` wants to be called, on the monotonic clock."""
        return self._tick_at if self._save_at is None else min(self._tick_at, self._save_at)

    # What is done.

    def tick(self) -> Generator[Step, Any, None]:
        """Renews, saves, gives up, looks around and takes. Raises TableError when something of it failed: call it again
        soon. Raises Usurped."""
        whole = self.monotonic_ms() >= self._tick_at
        self._save_at = None
        self._saved_ms = self.monotonic_ms()
        failed = yield from self._write_all(whole)
        self._forget_lost()
        if whole and not self.stopping:
            yield from self._beat_once()
            yield from self._look()
            if self.monotonic_ms() >= self._discover_at:
                yield from self._discover()
            yield from self._settle()
        if failed is not None:
            raise failed
        if whole:
            self.renewed_ms = self.monotonic_ms()
            self._tick_at = self.renewed_ms + self.config.renew_ms

    def leave(self) -> Generator[Step, Any, None]:
        """After the last tick: this relay's own item goes."""
        yield Delete((self.pk, _RELAY + self.me))

    def _write_all(self, whole: bool) -> Generator[Step, Any, TableError | None]:
        """Every held lease that needs it, the one that was renewed longest ago first."""
        failed: TableError | None = None
        for held in sorted(self.held.values(), key=lambda each: (each.renewed_ms, each.shard)):
            if held.lost or not (whole or held.ended or held.urgent):
                continue
            try:
                yield from self._write(held)
            except TableError as error:
                failed = error
        return failed

    def _write(self, held: Held) -> Generator[Step, Any, None]:
        asked_ms = self.monotonic_ms()
        place, finished = held.place, held.place == END
        given_up = held.ended and not finished
        remove = ("owner",) if finished or given_up else ()
        fence: Condition = (("eq", "owner", self.me), ("eq", "counter", held.counter))
        try:
            yield Update(self._key(held.shard), {"counter": held.counter + 1, "checkpoint": place}, remove, fence)
        except ConditionFailed:
            yield from self._fenced(held)
            return
        held.counter += 1
        held.saved = place
        held.urgent = held.place != place
        held.renewed_ms = asked_ms
        if finished or given_up:
            self.held.pop(held.shard, None)
            self._shards_seen.pop(held.shard, None)
            self.counters["lease_finished" if finished else "lease_given_up"] += 1
            self.tell("shard-finished" if finished else "shard-given-up", shard=held.shard, place=place)
            if finished and not self.stopping:  # its children may be read now
                self._discover_at = self._tick_at = asked_ms

    def _fenced(self, held: Held) -> Generator[Step, Any, None]:
        """The lease is not as it was left: taken by another, or an answer was lost and it is this process's still."""
        item: Item | None = yield Get(self._key(held.shard))
        owner = None if item is None else item.get("owner")
        if item is not None and owner == self.me:
            held.counter = item["counter"]
            self._save_soon(0)
            return
        held.lost = True
        if owner is not None and self._mine(owner):
            raise Usurped(self.name)

    def _forget_lost(self) -> None:
        """A lease that could not be renewed for its time may be another's by now."""
        now_ms = self.monotonic_ms()
        for held in list(self.held.values()):
            if held.lost or now_ms - held.renewed_ms >= self.config.lease_ms:
                held.lost = True
                del self.held[held.shard]
                self.counters["lease_lost"] += 1
                self.tell("shard-lost", shard=held.shard, place=held.saved)

    def _beat_once(self) -> Generator[Step, Any, None]:
        self._beat += 1
        yield Put({PK: self.pk, SK: _RELAY + self.me, "counter": self._beat})

    def _look(self) -> Generator[Step, Any, None]:
        """All leases and relays, and since when each has been as it is."""
        found: dict[str, Item] = {}
        after: str | None = None
        while True:
            page: Page = yield Query(self.pk, "", after)
            found.update((item[SK], item) for item in page.items)
            after = page.after
            if after is None:
                break
        now_ms = self.monotonic_ms()
        self._shards_seen = _observed(self._shards_seen, found, _SHARD, now_ms)
        self._relays_seen = _observed(self._relays_seen, found, _RELAY, now_ms)
        for name, seen in self._relays_seen.items():
            predecessor = self._mine(name) and name != self.me
            if predecessor or now_ms - seen.since_ms >= self.config.lease_ms * _DEAD_AFTER:
                try:
                    yield Delete((self.pk, _RELAY + name), (("eq", "counter", seen.item["counter"]),))
                except ConditionFailed:
                    continue  # it lives

    def _discover(self) -> Generator[Step, Any, None]:
        """The stream's shards; and what the table has leases of that are shards no more."""
        found: dict[str, Shard] = {}
        after: str | None = None
        while True:
            page: ShardPage = yield ListShards(after)
            found.update((shard.id, shard) for shard in page.shards)
            after = page.after
            if after is None:
                break
        self.shards = found
        self._discover_at = self.monotonic_ms() + self.config.discover_ms
        for name, seen in self._shards_seen.items():
            self._missing[name] = 0 if name in found else self._missing[name] + 1
            if self._missing[name] >= _GONE_AFTER and name not in self.held:
                yield from self._clear_away(name, seen)

    def _clear_away(self, shard: str, seen: _Seen) -> Generator[Step, Any, None]:
        try:
            yield Delete(self._key(shard), (("eq", "counter", seen.item["counter"]),))
        except ConditionFailed:
            return
        del self._missing[shard]
        if seen.item["checkpoint"] != END:
            self.counters["stream_shard_lost"] += 1
            self.tell("shard-lost-unread", shard=shard, place=seen.item["checkpoint"], hint=LOST_HINT)

    # Sharing.

    def alive(self) -> list[str]:
        """The relays that are at work, this one among them, in an order that all of them agree on."""
        now_ms = self.monotonic_ms()
        names = {name for name, seen in self._relays_seen.items() if now_ms - seen.since_ms < self.config.lease_ms}
        return sorted({name for name in names if not self._mine(name)} | {self.me})

    def readable(self) -> list[str]:
        """Shards that are not finished and whose parents are, or are forgotten by the stream."""

        def finished(shard: str) -> bool:
            seen = self._shards_seen.get(shard)
            return seen is not None and seen.item["checkpoint"] == END

        return sorted(
            name
            for name, shard in self.shards.items()
            if not finished(name) and (shard.parent not in self.shards or finished(str(shard.parent)))
        )

    def share(self, shards: int) -> int:
        """How many of so many shards are this relay's: the first relays have one more where it does not divide."""
        alive = self.alive()
        each, more = divmod(shards, len(alive))
        return each + (alive.index(self.me) < more)

    def _settle(self) -> Generator[Step, Any, None]:
        """Takes what is free up to the share, or asks back what is over it."""
        readable = self.readable()
        share = self.share(len(readable))
        mine = [held for held in self.held.values() if not held.asked_back and held.place != END]
        for held in sorted(mine, key=lambda each: each.shard)[share:]:
            held.asked_back = True
        wanted = share - len(mine)
        for shard in readable:
            if wanted <= 0 or self.stopping:
                return
            seen = self._shards_seen.get(shard)
            if shard not in self.held and self._free(seen):
                wanted -= yield from self._take(shard, seen)

    def _free(self, seen: _Seen | None) -> bool:
        if seen is None or seen.owner is None or self._mine(seen.owner):
            return True
        return self.monotonic_ms() - seen.since_ms >= self.config.lease_ms

    def _take(self, shard: str, seen: _Seen | None) -> Generator[Step, Any, bool]:
        asked_ms = self.monotonic_ms()
        pk, sk = self._key(shard)
        if seen is None:
            held = Held(shard, 1, START, asked_ms)
            write: Put | Update = Put(
                {PK: pk, SK: sk, "owner": self.me, "counter": 1, "checkpoint": START}, ITEM_ABSENT
            )
        else:
            counter: int = seen.item["counter"]
            held = Held(shard, counter + 1, seen.item["checkpoint"], asked_ms)
            owned: Condition = (("absent", "owner", None) if seen.owner is None else ("eq", "owner", seen.owner),)
            write = Update(
                (pk, sk), {"owner": self.me, "counter": counter + 1}, (), (*owned, ("eq", "counter", counter))
            )
        try:
            yield write
        except ConditionFailed:
            return False  # another was faster
        held.asked_back = self.stopping  # since the table was asked
        self.held[shard] = held
        from_another = seen is not None and seen.owner is not None
        self.counters["lease_taken_over" if from_another else "lease_taken"] += 1
        self.tell("shard-taken-over" if from_another else "shard-taken", shard=shard, place=held.place)
        return True

    def _mine(self, owner: str) -> bool:
        """Whether that is this relay's name, now or in an earlier process."""
        return owner.rpartition("#")[0] == self.name

    def _key(self, shard: str) -> Key:
        return self.pk, _SHARD + shard


def _observed(before: Mapping[str, _Seen], items: Mapping[str, Item], kind: str, now_ms: int) -> dict[str, _Seen]:
    """The items of one kind, by name. `since_ms` stays where owner and counter have not moved."""
    seen: dict[str, _Seen] = {}
    for sk, item in items.items():
        if not sk.startswith(kind):
            continue
        name = sk[len(kind) :]
        old = before.get(name)
        same = old is not None and (old.owner, old.item["counter"]) == (item.get("owner"), item["counter"])
        seen[name] = _Seen(item, old.since_ms if old is not None and same else now_ms)
    return seen
