"""Tables of every adapter for tests: in memory, on moto in this process, on the servers of moto and ministack; streams.

The adapter gets no real time and no chance: a pause is noted, never taken. Used by the tests of the Table port and of
the DynamoDB adapter.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from deviations import MINISTACK, MOTO, MOTO_SERVER
from emulators import KEY_ID, REGION, SECRET
from emulators import client as emulator_client

from cloud.dynamodb import Called, DynamoTable
from cloud.dynamodb_table import definition
from cloud.dynamodb_values import item_of
from cloud.memory import MemoryTable
from cloud.retry import Retry
from cloud.table import PK, SK, Record

Execute = Callable[[Any], Any]
HALF: Final = 0.5


@dataclass
class Pauses:
    """What an adapter was given for time, chance and tokens, and what it did with them."""

    taken_s: list[float] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)

    def token(self, table: str) -> str:
        self.tokens.append(f"{table}.{len(self.tokens)}")  # servers know tokens, not tables
        return self.tokens[-1]


def adapter(
    client: Any,
    name: str,
    pauses: Pauses | None = None,
    retry: Retry | None = None,
    on_call: Callable[[Called], None] | None = None,
) -> DynamoTable:
    pauses = pauses or Pauses()
    return DynamoTable(
        client,
        name,
        wait=pauses.taken_s.append,
        chance=lambda: HALF,
        token=lambda: pauses.token(name),
        retry=retry,
        on_call=on_call,
    )


class Memory:
    """Fresh tables in memory. `examples`: of a property, as many as stay fast. `deviations`: known ones, by name."""

    examples = 60
    deviations: Collection[str] = ()

    def __call__(self) -> Execute:
        table = MemoryTable()
        return lambda request: table.execute(request, 1_000)


class Dynamo:
    """The same on an emulator. `prefix`: of the names of tables, which tests on one server must not share."""

    def __init__(self, client: Any, streams: Any, examples: int, deviations: Collection[str], prefix: str) -> None:
        self.client = client
        self.streams = streams
        self.examples = examples
        self.deviations = deviations
        self._prefix = prefix
        self._made = 0

    def fresh(self) -> str:
        """The name of a new, empty table."""
        self._made += 1
        name = f"{self._prefix}-{self._made}"
        self.client.create_table(**definition(name))
        return name

    def records(self, name: str) -> list[Record]:
        """All that the stream of a table has."""
        arn = self.client.describe_table(TableName=name)["Table"]["LatestStreamArn"]
        return records(self.streams, arn)

    def __call__(self) -> Execute:
        return adapter(self.client, self.fresh()).execute


def keys() -> dict[str, str]:
    return {"aws_access_key_id": KEY_ID, "aws_secret_access_key": SECRET, "region_name": REGION}


@contextlib.contextmanager
def moto_in_process() -> Iterator[Callable[[str], Any]]:
    """boto3's clients by service, answered by moto within this process; empty at first, gone at the end."""
    import boto3
    from botocore.config import Config
    from moto import mock_aws

    config = Config(retries={"total_max_attempts": 1}, account_id_endpoint_mode="disabled")
    with mock_aws():
        yield lambda service: boto3.client(service, config=config, **keys())


def tables(kind: str, address: Callable[[str], str], prefix: str) -> Iterator[Memory | Dynamo]:
    """Of one kind, for as long as the iterator lives. `address`: of the emulator of that name."""
    if kind == "memory":
        yield Memory()
    elif kind == "moto":
        with moto_in_process() as service:
            yield Dynamo(service("dynamodb"), service("dynamodbstreams"), 15, MOTO, prefix)
    else:
        name = kind.partition("-")[0]
        deviations, examples = (MOTO_SERVER, 6) if name == "moto" else (MINISTACK, 10)
        clients = [emulator_client(address(name), service) for service in ("dynamodb", "dynamodbstreams")]
        yield Dynamo(clients[0], clients[1], examples, deviations, prefix)


def records(streams: Any, stream_arn: str) -> list[Record]:
    """All records of a stream, in order of each shard."""
    found: list[Record] = []
    shards = streams.describe_stream(StreamArn=stream_arn)["StreamDescription"]["Shards"]
    for number, shard in enumerate(shards):
        iterator = streams.get_shard_iterator(
            StreamArn=stream_arn, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
        )["ShardIterator"]
        while iterator:
            answer = streams.get_records(ShardIterator=iterator)
            found.extend(record_of(number, each["dynamodb"]) for each in answer["Records"])
            iterator = answer.get("NextShardIterator") if answer["Records"] else None
    return found


def record_of(shard: int, change: Mapping[str, Any]) -> Record:
    old, new = (item_of(change[name]) if change.get(name) else None for name in ("OldImage", "NewImage"))
    key = item_of(change["Keys"])
    at_ms = round(change["ApproximateCreationDateTime"].timestamp() * 1000)
    return Record(shard, int(change["SequenceNumber"]), (key[PK], key[SK]), old, new, at_ms)
