"""Reads the change stream of an emulator's table through the streams API, as far as it has come. Never waits.

Shards are read in the order in which the stream lists them, a parent before its children. Each look opens its shards
anew, after the last record seen: an iterator would expire, and moto's are void after a cancelled transaction. Called by
fleet.backends.table after every write.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from cloud.dynamodb_values import item_of
from cloud.table import PK, SK, Item, Key

RECORDS_MAX: Final = 1000  # of one call


class Told(msgspec.Struct, frozen=True, gc=False):
    """One record. Neither its time, which is the emulator's, nor its number is kept: a run must not depend on them."""

    key: Key
    old: Item | None
    new: Item | None


class StreamReader:
    """`arn`: of the stream. Raises what boto3's client raises."""

    def __init__(self, client: Any, arn: str) -> None:
        self._client = client
        self._arn = arn
        self._last: dict[str, str] = {}  # shard -> sequence number of the last record seen; empty: none yet
        self._ended: dict[str, bool] = {}

    def look_for_shards(self) -> None:
        """A stream may get new shards at any time."""
        start: dict[str, str] = {}
        while True:
            told = self._client.describe_stream(StreamArn=self._arn, **start)["StreamDescription"]
            for shard in told["Shards"]:
                self._last.setdefault(shard["ShardId"], "")
            if not told.get("LastEvaluatedShardId"):
                return
            start = {"ExclusiveStartShardId": told["LastEvaluatedShardId"]}

    def read(self) -> list[Told]:
        """What has come since the last time."""
        if not self._last:
            self.look_for_shards()
        found: list[Told] = []
        try:
            for shard in self._last:
                if shard not in self._ended:
                    self._read(shard, found)
        except Exception:  # what has come is told first; what is wrong is still wrong the next time
            if not found:
                raise
        return found

    def _read(self, shard: str, found: list[Told]) -> None:
        last = self._last[shard]
        place = {"ShardIteratorType": "TRIM_HORIZON"}
        if last:
            place = {"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "SequenceNumber": last}
        opened = self._client.get_shard_iterator(StreamArn=self._arn, ShardId=shard, **place)
        iterator = opened["ShardIterator"]
        while True:
            answer = self._client.get_records(ShardIterator=iterator, Limit=RECORDS_MAX)
            records = answer["Records"]
            for record in records:
                found.append(self.told(record))
                self._last[shard] = record["dynamodb"]["SequenceNumber"]
            iterator = answer.get("NextShardIterator")
            if iterator is None:
                self._ended[shard] = True
            if iterator is None or not records or not self._more(records):
                return

    def told(self, record: Mapping[str, Any]) -> Told:
        """What is kept of one record."""
        return _told(record["dynamodb"])

    def _more(self, records: list[Any]) -> bool:
        """Whether to ask on after such a page. A short page is the end, for now."""
        return len(records) == RECORDS_MAX


def _told(change: Mapping[str, Any]) -> Told:
    old, new = (item_of(change[name]) if change.get(name) else None for name in ("OldImage", "NewImage"))
    keys = item_of(change["Keys"])
    return Told((keys[PK], keys[SK]), old, new)
