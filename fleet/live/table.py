"""The table of a live run: made on an emulator, written by applications in the cloud, followed commit by commit.

What a commit is told with: when it was, as near as the emulator says and causes allow (fleet.live.judge puts them in
order). Plain calls that wait; a live run makes them in threads. Called by fleet.live.run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any, Final

import msgspec

from agent.protocol.errors import InputError, Problem
from agent.protocol.messages import Key
from agent.protocol.schema import Schema
from cloud.credentials import digest_of
from cloud.dynamodb import DynamoTable
from cloud.dynamodb_errors import RAISED, Unusable
from cloud.dynamodb_table import connect, create_table
from cloud.dynamodb_values import item_of
from cloud.registry import registration, with_token
from cloud.system import device_token, pause, random_hex
from cloud.table import ITEM_EXISTS, PK, SK, ConditionFailed, Delete, Item, Put, Update
from fleet.backends.stream import StreamReader, Told
from fleet.live.parts import KEYS
from fleet.live.script import CloudOp, shifted

REGION: Final = "us-east-1"
_KEYS: Final = (KEYS["AWS_ACCESS_KEY_ID"], KEYS["AWS_SECRET_ACCESS_KEY"])


class Commit(msgspec.Struct, gc=False):
    """One change, in the order of commits. `said_us`: when it was, by the emulator's wall clock, microseconds since
    1970; it was seen by a look that began at `looked_us` (of the run) and not by the one that began at `before_us`.
    `t_us`: of the run, once it is known."""

    key: Key
    old: Item | None
    new: Item | None
    said_us: int
    before_us: int
    looked_us: int
    by_ttl: bool = False
    t_us: int = 0


class Watch(StreamReader):
    """The table's change stream, with the times that it tells. One thread at a time. `now_us`: of the run."""

    def __init__(self, client: Any, arn: str, now_us: Callable[[], int]) -> None:
        super().__init__(client, arn)
        self.commits: list[Commit] = []
        self._now_us = now_us
        self._said: list[int] = []
        self._looked_us = 0

    def look(self) -> list[Commit]:
        """What is new."""
        before_us, self._looked_us = self._looked_us, self._now_us()
        told = self.read()
        said, self._said = self._said, []
        ends_us = self._now_us()
        found = [
            Commit(one.key, one.old, one.new, wall, before_us, ends_us) for one, wall in zip(told, said, strict=True)
        ]
        self.commits += found
        return found

    def told(self, record: Mapping[str, Any]) -> Told:
        change = record["dynamodb"]
        self._said.append(int(change["ApproximateCreationDateTime"].timestamp() * 1_000_000))
        return super().told(record)


class LiveTable:
    """A new table at an emulator's address, gone when it is closed. Raises InputError for an address that is none."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.name = f"fleet-live-{random_hex(12)}"
        try:
            self._client = connect(region=REGION, endpoint_url=address, keys=_KEYS)
            self._streams = connect(region=REGION, endpoint_url=address, keys=_KEYS, service="dynamodbstreams")
            self.arn = create_table(self._client, self.name)
        except Unusable as error:
            raise InputError([Problem("--table", 0, 0, address, error.problem, error.hint)]) from None
        self._adapter = DynamoTable(
            self._client, self.name, wait=pause, chance=lambda: 1.0, token=lambda: random_hex(32)
        )

    def watch(self, now_us: Callable[[], int]) -> Watch:
        return Watch(self._streams, self.arn, now_us)

    def execute(self, request: Any) -> Any:
        return self._adapter.execute(request)

    def register(self, device: str, account: str, now_ms: int, *, token: bool) -> str:
        """The device's token for the relay itself, "" for none."""
        self.execute(registration(device, account, now_ms))
        if not token:
            return ""
        secret = device_token()
        self.execute(with_token(device, digest_of(secret), account))
        return secret

    def scan(self) -> Iterator[Item]:
        """Every item, private ones too."""
        start: dict[str, Any] = {}
        while True:
            page = self._client.scan(TableName=self.name, ConsistentRead=True, **start)
            yield from map(item_of, page["Items"])
            if not page.get("LastEvaluatedKey"):
                return
            start = {"ExclusiveStartKey": page["LastEvaluatedKey"]}

    def close(self) -> None:
        with suppress(*RAISED):  # an emulator that is gone has taken its tables with it
            self._client.delete_table(TableName=self.name)


class CloudApplications:
    """What applications in the cloud do. `tell`: the oracle, by name and arguments, before a write is on its way."""

    def __init__(
        self,
        table: LiveTable,
        schema: Schema,
        ops: list[CloudOp],
        tell: Callable[..., object],
        *,
        wall_ms: Callable[[], int],
        ahead_ms: int,
    ) -> None:
        """`ahead_ms`: what the run's time is ahead of that in which `ops` were made up."""
        self.ops = ops
        self.next = 0
        self._table = table
        self._schema = schema
        self._tell = tell
        self._wall_ms = wall_ms
        self._ahead_ms = ahead_ms

    @property
    def is_done(self) -> bool:
        return self.next >= len(self.ops)

    def do(self) -> None:
        """The next one, until the table has taken it."""
        op = self.ops[self.next]
        key = op.key
        if op.kind == "delete":
            self._tell("cloud_wrote", key, 0, "delete")
            self._table.execute(Delete(key))
        else:
            place = self._schema.locate(key)
            assert place is not None  # the simulation has written it
            image = shifted(op.image, place.model, self._wall_ms(), self._ahead_ms)
            self._tell("cloud_wrote", key, op.rev, op.kind)
            self._write(op, key, image)
        self.next += 1

    def _write(self, op: CloudOp, key: Key, image: dict[str, Any]) -> None:
        if op.kind == "update":
            try:
                self._table.execute(Update(key, {name: image[name] for name in op.changes}, (), ITEM_EXISTS))
                return
            except ConditionFailed:  # a device has removed it meanwhile
                pass
        self._table.execute(Put({PK: key[0], SK: key[1], **image}))
