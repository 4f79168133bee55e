"""A table under quotas: counts the units of every request as DynamoDB does, and throttles what is over them.

A partition key has its own quota, for writes and for reads; the table as a whole has what an on-demand table of its age
has. As in the service, a request is let in while its bucket is not in debt, and pays what it costs. Stands before the
memory table or an emulator's (fleet.backends), which must be able to `peek`. Made by fleet.quota.setup.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, Protocol

from cloud.memory_stream import ChangeStream
from cloud.metered import MeteredTable
from cloud.table import (
    PRIVATE_PREFIX,
    BatchGet,
    Cancelled,
    Check,
    ConditionFailed,
    Delete,
    Get,
    Item,
    Key,
    Put,
    Query,
    TableRequest,
    Throttled,
    Transact,
    Update,
)
from cloud.table_rules import key_of, updated
from cloud.units import item_bytes, read_units, write_units
from fleet.quota.bucket import SECOND_US, Bucket, Buckets, Gauge
from fleet.scenario.plan import QuotaPlan
from fleet.world.table import WorldTable

MS_US: Final = 1_000
TRANSACTION_FACTOR: Final = 2  # prepare and commit


class Peekable(WorldTable, Protocol):
    """A table that a bill can be made of."""

    def peek(self, key: Key) -> Item | None: ...


class Throughput:
    """What an on-demand table takes of one kind of unit: its first share, then twice the peak of the last period."""

    def __init__(self, first: float, most: float, doubling_us: int) -> None:
        self.gauge = Gauge(first)
        self._bucket = Bucket(first) if first else None
        self._most = most
        self._doubling_us = doubling_us
        self._until_us = doubling_us
        self._peak = 0  # units in one second, of this period
        self._second = -1
        self._count = 0

    def is_over(self, now_us: int) -> bool:
        """Whether a request must be refused now."""
        if self._bucket is None:
            return False
        if self._doubling_us and now_us >= self._until_us:
            self._until_us = now_us + self._doubling_us
            grown = max(self.gauge.limit, 2.0 * self._peak)
            self.gauge.limit = min(grown, self._most) if self._most else grown
            self._bucket.set_rate(now_us, self.gauge.limit)
            self._peak = 0
        return self._bucket.in_debt(now_us)

    def spend(self, now_us: int, units: int) -> None:
        second = now_us // SECOND_US
        if second != self._second:
            self._second = second
            self._count = 0
        self._count += units
        self._peak = max(self._peak, self._count)
        if self._bucket is not None:
            self._bucket.spend(now_us, units)


class QuotaTable:
    """As the table that it stands before. `shared`: whether several devices use a partition key; such a key has
    `plan.shared` of a partition's quota."""

    def __init__(self, table: Peekable, plan: QuotaPlan, shared: Callable[[str], bool], start_ms: int) -> None:
        self.table = table
        self.stream: ChangeStream = table.stream
        self.write_units = self.read_units = 0
        self.partition_writes, self.partition_reads = (
            Gauge(plan.partition_writes_per_s),
            Gauge(plan.partition_reads_per_s),
        )
        self.writes = Throughput(plan.table_writes_per_s, plan.table_most_per_s, plan.table_doubling_us)
        self.reads = Throughput(plan.table_reads_per_s, plan.table_most_per_s, plan.table_doubling_us)
        self.hottest: dict[str, str] = {
            "writes": "",
            "reads": "",
        }  # the partition key that was asked most within a second
        self._shared = shared
        self.own_peak = {"writes": 0.0, "reads": 0.0}  # of the keys that belong to one device
        self._share = plan.shared
        self._start_ms = start_ms
        self._writes_by_key = self._buckets(plan.partition_writes_per_s, 1.0)
        self._reads_by_key = self._buckets(plan.partition_reads_per_s, 1.0)
        self._writes_by_shared = self._buckets(plan.partition_writes_per_s, plan.shared)
        self._reads_by_shared = self._buckets(plan.partition_reads_per_s, plan.shared)

    @staticmethod
    def _buckets(per_s: float, share: float) -> Buckets:
        return Buckets(per_s * share or 1.0)

    # What is not a request.

    def scan(self, *, private: bool = False) -> Iterator[Item]:
        return self.table.scan(private=private)

    def sweep(self, now_ms: int, limit: int = 1000, pick: Callable[[int], int] | None = None) -> int:
        """Costs nothing."""
        return self.table.sweep(now_ms, limit, pick)

    def expired_waiting(self, now_ms: int) -> bool:
        return self.table.expired_waiting(now_ms)

    def backup(self) -> list[Item]:
        return self.table.backup()

    def restore(self, items: Iterable[Item]) -> None:
        self.table.restore(items)

    def put_back(self, key: Key, item: Item | None) -> None:
        self.table.put_back(key, item)

    def peek(self, key: Key) -> Item | None:
        return self.table.peek(key)

    # Requests.

    def execute(self, request: TableRequest, now_ms: int) -> Any:
        """As the table's; raises Throttled, or Cancelled with the reason `throttled`, for what is over a quota."""
        now = (now_ms - self._start_ms) * MS_US
        if isinstance(request, Get | BatchGet | Query):
            return self._read(request, now_ms, now)
        return self._write(request, now_ms, now)

    def _read(self, request: Get | BatchGet | Query, now_ms: int, now: int) -> Any:
        keys = _partitions(request)
        over = self.reads.is_over(now)
        if over:
            self.reads.gauge.refuse(now)
        for pk in keys:
            if self.partition_reads.limit and self._by(pk, write=False).in_debt(now, pk):
                self.partition_reads.refuse(now)
                over = True
        if over:
            self.reads.gauge.ask(now, len(keys))
            raise Throttled("over the read throughput")
        answer = self.table.execute(request, now_ms)
        for pk, units in self._read_units(request, answer).items():
            self.read_units += units
            self.reads.gauge.ask(now, units)
            self.reads.spend(now, units)
            self._spend(now, pk, units, write=False)
        return answer

    @staticmethod
    def _read_units(request: Get | BatchGet | Query, answer: Any) -> dict[str, int]:
        """By partition key. As `cloud.metered`'s bill, which a batch has for all its keys together."""
        if not isinstance(request, BatchGet):
            return {_partitions(request)[0]: MeteredTable.reading(request, answer)}
        units: dict[str, int] = {}
        for key in request.keys:
            item = answer.get(key)
            units[key[0]] = units.get(key[0], 0) + read_units(0 if item is None else item_bytes(item))
        return units

    def _write(self, request: Put | Delete | Update | Transact, now_ms: int, now: int) -> Any:
        actions = request.actions if isinstance(request, Transact) else (request,)
        factor = TRANSACTION_FACTOR if isinstance(request, Transact) else 1
        costs = [self._cost(action, factor) for action in actions]
        reasons: list[str | None] = [None] * len(actions)
        all_over = self.writes.is_over(now)
        if all_over:
            self.writes.gauge.refuse(now)
        for index, (pk, _) in enumerate(costs):
            over = all_over
            if self.partition_writes.limit and self._by(pk, write=True).in_debt(now, pk):
                self.partition_writes.refuse(now)
                over = True
            reasons[index] = "throttled" if over else None
        if any(reasons):
            self.writes.gauge.ask(now, len(costs))
            if isinstance(request, Transact):
                raise Cancelled(tuple(reasons))
            raise Throttled("over the write throughput")
        try:
            answer = self.table.execute(request, now_ms)
        except (ConditionFailed, Cancelled):
            self._pay(costs, now)
            raise
        self._pay(costs, now)
        return answer

    def _cost(self, action: Put | Delete | Update | Check, factor: int) -> tuple[str, int]:
        """(partition key, units) of one action, before it is carried out."""
        key = key_of(action.item) if isinstance(action, Put) else action.key
        old = self.table.peek(key)
        after = 0
        if isinstance(action, Put):
            after = item_bytes(action.item)
        elif isinstance(action, Update):
            after = item_bytes(updated(action, old))
        return key[0], factor * write_units(0 if old is None else item_bytes(old), after)

    def _pay(self, costs: list[tuple[str, int]], now: int) -> None:
        for pk, units in costs:
            self.write_units += units
            self.writes.gauge.ask(now, units)
            self.writes.spend(now, units)
            self._spend(now, pk, units, write=True)

    def _by(self, pk: str, *, write: bool) -> Buckets:
        if self._share != 1.0 and self._shared(pk):
            return self._writes_by_shared if write else self._reads_by_shared
        return self._writes_by_key if write else self._reads_by_key

    def _spend(self, now: int, pk: str, units: int, *, write: bool) -> None:
        buckets = self._by(pk, write=write)
        gauge = self.partition_writes if write else self.partition_reads
        side = "writes" if write else "reads"
        asked = float(buckets.asked(now, pk, units))
        if buckets is self._writes_by_shared or buckets is self._reads_by_shared:
            gauge.most(now, asked)
            asked /= self._share
        elif asked > self.own_peak[side]:
            self.own_peak[side] = asked
        if asked > gauge.peak:
            self.hottest[side] = pk
        gauge.level(now, asked)
        if gauge.limit:
            buckets.spend(now, pk, units)


def _partitions(request: Get | BatchGet | Query) -> list[str]:
    if isinstance(request, BatchGet):
        return list(dict.fromkeys(key[0] for key in request.keys))
    return [request.pk if isinstance(request, Query) else request.key[0]]


def key_of_fleet(pk: str, devices: frozenset[str]) -> bool:
    """Whether this partition key belongs to more than one device: no part of it is the name of a device."""
    parts = pk.removeprefix(PRIVATE_PREFIX).split("#")
    return not any(part in devices for part in parts)
