"""What several subjects stand on: the shipped schema, one device's database, one relay on a table in memory.

Nothing is measured here, and nothing waits. Called by the subjects.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable
from itertools import count
from typing import Any, Final

import msgspec

from agent.database import Database
from agent.ids import generator
from agent.protocol.messages import FeedState, Hello, Op, Up, encode, encode_image
from agent.protocol.schema import Context, Schema
from cloud.config import RelayConfig
from cloud.memory import MemoryTable
from cloud.relay import Relay
from cloud.table import Publish, TableRequest
from fleet.oracle import text_for
from fleet.rng import rng
from fleet.scenario.shipped import schema_path

DEVICE: Final = "home-0001"
ACCOUNT: Final = "main"
CONTEXT: Final = Context(DEVICE, ACCOUNT)
START_MS: Final = 1_767_225_600_000
TEXT_BYTES: Final = 170  # brings an item to the 300 bytes or so of the shipped scenarios
EPOCH: Final = "benchmark-epoch"
OP_ID: Final = "boot-nonce"


def load_schema() -> Schema:
    path = schema_path("fleet.json5")
    assert path is not None
    return Schema.load(path)


def ticking() -> Callable[[], int]:
    """A clock that goes on by one millisecond at each look."""
    ticks = count(START_MS)
    return lambda: next(ticks)


def database(connection: sqlite3.Connection, schema: Schema) -> Database:
    return Database(
        connection,
        schema,
        CONTEXT,
        monotonic_ms=ticking(),
        wall_ms=lambda: START_MS,
        random=rng(1, DEVICE, "benchmark"),
    )


def properties(rev: int) -> dict[str, Any]:
    """What a workload writes."""
    return {"rev": rev, "text": text_for(rev, TEXT_BYTES)}


class Ground:
    """One relay, one device that it knows, and a synchronous driver. `published` counts messages to the device."""

    def __init__(self) -> None:
        self.schema = load_schema()
        self.table = MemoryTable()
        self.counters: Counter[str] = Counter()
        self.published = 0
        self._ms = START_MS
        config = RelayConfig(hello_per_window=1 << 60)
        self.relay = Relay(
            self.schema, config, self.now_ms, rng(1, "cloud", "benchmark").hex, self.counters, self._account
        )
        self.new_id = generator(rng(1, "cloud", "ids"), self.now_ms)
        self.status = self.schema.models["Status"]
        self._rev = 0
        self.send(encode(self.hello()))

    def now_ms(self) -> int:
        return self._ms

    def _account(self, device: str) -> str | None:
        return ACCOUNT if device == DEVICE else None

    def execute(self, request: TableRequest) -> Any:
        return self.table.execute(request, self._ms)

    def publish(self, _message: Publish) -> None:
        self.published += 1

    def send(self, payload: bytes) -> None:
        """One message of the device, through the relay to its end."""
        from cloud.drive import run

        run(self.relay.on_message(DEVICE, payload), self.execute, self.publish)

    def hello(self, feeds: dict[Any, FeedState] | None = None) -> Hello:
        return Hello(epoch=EPOCH, hn="hn", n=1, schema=self.schema.version, feeds=feeds or {})

    def image(self, model: str, rev: int) -> tuple[tuple[str, str], dict[str, Any]]:
        return self.schema.models[model].create(properties(rev), CONTEXT, self._ms, self.new_id)

    def up(self, u: int, ops: int = 1) -> Up:
        """A batch of new states of the device's one Status item, from operation `u` on."""
        made = []
        for number in range(u, u + ops):
            key, image = self.image("Status", number)
            made.append(Op(number, "update", OP_ID, key, self._ms, msgspec.Raw(encode_image(image))))
        return Up(epoch=EPOCH, first_u=u, prev_id=OP_ID if u > 1 else None, ops=made, hn="hn")
