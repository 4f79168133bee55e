"""A scripted change stream, and relays that read it under a clock that tests set.

No emulator splits or closes a shard, trims one when told, or lets an iterator expire early: `ScriptedStream` does, as
the guide to DynamoDB Streams describes these. It is a fake: that real answers look so is shown on emulators elsewhere.
The relays are the real readers, leases and record work; only their driver is the test's, one request after the other.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Generator
from typing import Any, Final

from relay_rig import ACCOUNTS, NOW_MS, SCHEMA

from cloud.config import RelayConfig
from cloud.memory import MemoryTable
from cloud.relay import Relay
from cloud.stream import (
    Change,
    IteratorExpired,
    ListShards,
    OpenShard,
    Pause,
    ReadRecords,
    RecordPage,
    Shard,
    ShardGone,
    ShardPage,
    TrimmedData,
)
from cloud.stream_config import StreamConfig
from cloud.stream_leases import Held, Leases
from cloud.stream_reader import ShardReader
from cloud.stream_work import RecordWork
from cloud.table import Key, Publish, Record, TableError

ITERATOR_LIFE_MS: Final = 15 * 60_000


class ScriptedShard:
    def __init__(self, parent: str | None) -> None:
        self.parent = parent
        self.closed = False
        self.changes: list[Change] = []
        self.horizon = 0  # records before this index are gone


class ScriptedStream:
    """Shards by name. `page`: how many one listing tells. Sequence numbers grow over all shards, as in the service."""

    def __init__(self, *names: str, page: int = 2) -> None:
        self.page = page
        self.now_ms = 0
        self.shards: dict[str, ScriptedShard] = {name: ScriptedShard(None) for name in names}
        self.forgotten: dict[str, ScriptedShard] = {}
        self.asked: Counter[str] = Counter()
        self._seq = itertools.count(1)

    def add(self, shard: str, key: Key, *, by_ttl: bool = False, problem: str = "", private: bool = False) -> str:
        number = next(self._seq)
        seq = f"{number:021d}"
        record = None if problem or private else Record(0, number, key, None, None, NOW_MS, by_ttl)
        assert not self.shards[shard].closed
        self.shards[shard].changes.append(Change(seq, key, NOW_MS, record, problem))
        return seq

    def split(self, shard: str, *children: str) -> None:
        self.shards[shard].closed = True
        for child in children:
            self.shards[child] = ScriptedShard(shard)

    def trim(self, shard: str, records: int) -> None:
        """The oldest records go."""
        self.shards[shard].horizon += records

    def forget(self, shard: str) -> None:
        self.forgotten[shard] = self.shards.pop(shard)

    def execute(self, request: Any) -> Any:
        self.asked[type(request).__name__] += 1
        if isinstance(request, ListShards):
            return self._list(request)
        if isinstance(request, OpenShard):
            shard = self._shard(request.shard)
            index = shard.horizon
            if request.after is not None:
                index = next(
                    (i for i, each in enumerate(shard.changes) if each.seq > request.after), len(shard.changes)
                )
                if index < shard.horizon:
                    raise TrimmedData(f"{request.after} is beyond the trim horizon")
            return f"{request.shard} {index} {self.now_ms}"
        assert isinstance(request, ReadRecords)
        return self._read(request)

    def _list(self, request: ListShards) -> ShardPage:
        names = sorted(self.shards)
        if request.after is not None:
            names = [name for name in names if name > request.after]
        told = names[: self.page]
        shards = tuple(Shard(name, self.shards[name].parent, self.shards[name].closed) for name in told)
        return ShardPage(shards, told[-1] if len(names) > len(told) else None)

    def _read(self, request: ReadRecords) -> RecordPage:
        name, index_text, born = request.iterator.split()
        if self.now_ms - int(born) >= ITERATOR_LIFE_MS:
            raise IteratorExpired(request.iterator)
        shard, index = self._shard(name), int(index_text)
        if index < shard.horizon:
            raise TrimmedData(request.iterator)
        changes = tuple(shard.changes[index : index + request.limit])
        index += len(changes)
        over = shard.closed and index == len(shard.changes)
        return RecordPage(changes, None if over else f"{name} {index} {self.now_ms}")

    def _shard(self, name: str) -> ScriptedShard:
        if name not in self.shards:
            raise ShardGone(name)
        return self.shards[name]


class TriggerRelay(Relay):
    """The relay, but for what it does with a record: it notes it, or fails as the test says."""

    def __init__(self, world: World, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.world = world
        self.done: list[Record] = []
        self.fails: Callable[[Record], Exception | None] = lambda record: None

    def wants(self, key: Key) -> bool:
        return key[0].startswith("device#")

    def on_record(self, record: Record) -> Generator[Any, Any, None]:
        error = self.fails(record)
        if error is not None:
            raise error
        yield Publish("t", b"", 1)
        self.done.append(record)
        self.world.done.append(record)


class World:
    """One table for the leases, one stream, one clock; relays come and go."""

    def __init__(self, stream: ScriptedStream, config: StreamConfig | None = None) -> None:
        self.stream = stream
        self.config = config or StreamConfig()
        self.table = MemoryTable()
        self.now_ms = 0
        self.relays: list[Reading] = []
        self.told: list[tuple[str, dict[str, Any]]] = []
        self.done: list[Record] = []  # by whichever relay
        self.counters: Counter[str] = Counter()
        self._boots = itertools.count(1)

    def start(self, name: str) -> Reading:
        relay = Reading(self, name, f"boot{next(self._boots)}")
        self.relays.append(relay)
        return relay

    def tell(self, event: str, **fields: Any) -> None:
        self.told.append((event, fields))

    def events(self, event: str) -> list[dict[str, Any]]:
        return [fields for name, fields in self.told if name == event]

    def pass_time(self, by_ms: int, step_ms: int = 500) -> None:
        """Every relay does what is due, again and again, until so much time has passed."""
        for _ in range(by_ms // step_ms):
            self.now_ms += step_ms
            self.stream.now_ms = self.now_ms
            for relay in list(self.relays):
                relay.turn()

    def owners(self) -> dict[str, str]:
        """Shard -> the name of the relay that holds it."""
        return {shard: relay.name for relay in self.relays for shard in sorted(relay.leases.held)}

    def execute(self, request: Any) -> Any:
        if isinstance(request, Pause):
            self.now_ms += request.ms
            return None
        if isinstance(request, Publish):
            return None
        if isinstance(request, ListShards | OpenShard | ReadRecords):
            return self.stream.execute(request)
        return self.table.execute(request, NOW_MS + self.now_ms)


class Reading:
    """One relay process: what the service does, without threads. `looks` of a turn: of each shard."""

    def __init__(self, world: World, name: str, boot: str) -> None:
        self.world = world
        self.name = name
        self.relay = TriggerRelay(
            world,
            SCHEMA,
            RelayConfig(),
            lambda: NOW_MS,
            lambda digits: "0" * digits,
            world.counters,
            ACCOUNTS.get,
        )
        shared: dict[str, Any] = {"counters": world.counters, "tell": world.tell}
        clock = lambda: world.now_ms  # noqa: E731
        self.leases = Leases("label", name, boot, world.config, monotonic_ms=clock, **shared)
        self.work = RecordWork(
            self.relay,
            world.config,
            name=name,
            now_ms=lambda: NOW_MS + world.now_ms,
            monotonic_ms=clock,
            chance=lambda: 0.5,
            **shared,
        )
        self.readers: dict[str, tuple[Held, ShardReader]] = {}
        self.execute = world.execute
        self.shared = shared

    def run(self, steps: Generator[Any, Any, Any]) -> Any:
        """To its end, or to the error that it raises."""
        try:
            request = next(steps)
            while True:
                try:
                    answer = self.execute(request)
                except TableError as error:
                    request = steps.throw(error)
                else:
                    request = steps.send(answer)
        except StopIteration as end:
            return end.value

    def turn(self) -> None:
        if self.world.now_ms >= self.leases.due_ms:
            try:
                self.run(self.leases.tick())
            except TableError:
                return  # again at the next turn
        for shard, held in list(self.leases.held.items()):
            self.read(shard, held)

    def read(self, shard: str, held: Held) -> None:
        if held.ended or held.place == "END":
            return
        if held.asked_back:
            self.leases.ended(held)
            return
        if self.readers.get(shard, (None,))[0] is not held:
            reader = ShardReader(shard, held.place, self.world.config, chance=lambda: 0.5, **self.shared)
            self.readers[shard] = (held, reader)
        batch = self.run(self.readers[shard][1].look())
        lanes = self.work.lanes(batch.changes)
        for lane in lanes:
            self.run(self.work.lane(lane))
        if batch.place != held.place:
            self.leases.done(held, batch.place, bool(lanes))

    def die(self) -> None:
        self.world.relays.remove(self)

    def stop(self) -> None:
        self.leases.stop()
        while self.leases.held:
            self.turn()
            self.run(self.leases.tick())
        self.run(self.leases.leave())
        self.world.relays.remove(self)
