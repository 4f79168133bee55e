"""moto, within this process: boto3's clients answered without a network, and the housekeeping that moto does not do.

moto copies a whole table for each transaction, its stream included, and keeps records, iterators and copies for ever.
The service drops records after a day; here those that have been read are dropped at once, with all that moto lists but
no longer needs, or a run of some thousand writes would take hours and gigabytes. Imported only when moto is asked for.
Used by fleet.backends.opening.
"""

from __future__ import annotations

from typing import Any, Final

from moto.core.common_models import BaseModel
from moto.dynamodb.models import dynamodb_backends
from moto.dynamodb.models.dynamo_type import Item
from moto.dynamodb.models.table import StreamRecord, StreamShard, Table
from moto.dynamodbstreams.models import ShardIterator, dynamodbstreams_backends

from fleet.backends.stream import StreamReader, Told

# Kinds of which moto lists every one that it ever made, until it is reset.
_LISTED: Final[tuple[type[BaseModel], ...]] = (Item, StreamRecord, StreamShard, Table, ShardIterator)


class TidyReader(StreamReader):
    """Leaves nothing behind of what it has read."""

    def __init__(self, client: Any, arn: str) -> None:
        _, _, _, region, account, resource = arn.split(":", 5)
        self._table = resource.split("/")[1]
        self._tables = dynamodb_backends[account][region].tables
        self._iterators = dynamodbstreams_backends[account][region].shard_iterators
        super().__init__(client, arn)

    def read(self) -> list[Told]:
        found = super().read()
        shard = self._tables[self._table].stream_shard
        assert shard is not None
        shard.starting_sequence_number += len(shard.items)
        shard.items.clear()
        self._iterators.clear()
        for kind in _LISTED:
            kind.instances_tracked.clear()  # type: ignore[attr-defined]
        return found
