"""Relay work a second on the table in memory, under a synchronous driver: what the logic and the table cost.

Messages and records are made beforehand. No transport, no waiting for a real table.
"""

from __future__ import annotations

from itertools import count

from agent.protocol.messages import FeedState, encode
from benchmarks.ground import DEVICE, Ground
from benchmarks.measure import Effort, Result, rates_prepared
from cloud.drive import run as drive
from cloud.head import log_feed, log_position
from cloud.table import PK, SK, Put, Record

QUESTION = "how much work does one relay get through?"


class Ups:
    """Batches of `ops` new states of the device's Status item, one batch after another."""

    def __init__(self, ground: Ground, ops: int) -> None:
        self._ground = ground
        self._ops = ops
        self._numbers = count(1, ops)

    def __call__(self, n: int) -> list[bytes]:
        return [encode(self._ground.up(next(self._numbers), self._ops)) for _ in range(n)]


class Changes:
    """Records of the device's Config item, which an application in the cloud changes."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._revs = count(1)
        self._shard = ground.table.shard_of(ground.image("Config", 1)[0][0])
        self._position = 1

    def __call__(self, n: int) -> list[Record]:
        table, wants = self._ground.table, self._ground.relay.wants
        for _ in range(n):
            key, image = self._ground.image("Config", next(self._revs))
            self._ground.execute(Put({PK: key[0], SK: key[1], **image}))
        found: list[Record] = []
        while len(found) < n:
            records, self._position = table.read(self._shard, self._position)
            found += [record for record in records if wants(record.key)]
        return found


def _hello_in_step(ground: Ground) -> bytes:
    """From a device that has all rows."""
    for record in Changes(ground)(1):
        drive(ground.relay.on_record(record), ground.execute, ground.publish)
    rows = [item for item in ground.table.scan(private=True) if log_feed((item[PK], item[SK])) == ("device", DEVICE)]
    epoch, seq = log_position(rows[-1])
    return encode(ground.hello({"device": FeedState("nonce", epoch, seq)}))


def run(effort: Effort) -> Result:
    result = Result("relay", QUESTION)
    for ops in (1, 50):
        ground = Ground()
        name = "up with one Status operation" if ops == 1 else f"up with {ops} operations of one item"
        result.add(name, rates_prepared(Ups(ground, ops), ground.send, effort), "1/s", "decode, decide, commit, ack")
        assert not ground.counters["lineage_refused"]
    ground = Ground()

    def log(record: Record) -> None:
        drive(ground.relay.on_record(record), ground.execute, ground.publish)

    result.add("change of an item: a row, pushed", rates_prepared(Changes(ground), log, effort), "1/s")
    ground = Ground()
    payload = _hello_in_step(ground)
    result.add("hello of a device in step", rates_prepared(lambda n: [payload] * n, ground.send, effort), "1/s")
    return result
