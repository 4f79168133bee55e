"""The Stream port on DynamoDB Streams: executes the requests of `cloud.stream` through a boto3 client that is given.

Asks once: what failed is asked again by the reader, which knows whether it still wants it. Thread-safe, as boto3's
clients are. Called by a service's driver, one call a request.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from botocore import exceptions as boto

from cloud.dynamodb_errors import RAISED, Unusable, fault_of
from cloud.stream import (
    IteratorExpired,
    ListShards,
    OpenShard,
    ReadRecords,
    RecordPage,
    Shard,
    ShardGone,
    ShardPage,
    StreamRequest,
    TrimmedData,
)
from cloud.stream_records import change_of
from cloud.table import InvalidRequest, TableError, Throttled

_ERRORS: Final[dict[str, type[TableError]]] = {
    "ExpiredIteratorException": IteratorExpired,
    "TrimmedDataAccessException": TrimmedData,
    "LimitExceededException": Throttled,  # too many calls, or too many readers of one shard
}


class DynamoStream:
    """One stream, by its ARN."""

    def __init__(self, client: Any, arn: str) -> None:
        self.arn = arn
        self._client = client
        self._handlers: dict[type, Callable[[Any], Any]] = {
            ListShards: self._list,
            OpenShard: self._open,
            ReadRecords: self._read,
        }

    def execute(self, request: StreamRequest) -> Any:
        """The answer as `cloud.stream` states it. Raises its errors, the table's, and Unusable."""
        handler = self._handlers.get(request.__class__)
        if handler is None:
            raise InvalidRequest(f"{request.__class__.__name__} is no request of a stream")
        try:
            return handler(request)
        except RAISED as error:
            raise _error_of(error, request) from None

    def _list(self, request: ListShards) -> ShardPage:
        start = {} if request.after is None else {"ExclusiveStartShardId": request.after}
        told = self._client.describe_stream(StreamArn=self.arn, **start)["StreamDescription"]
        shards = tuple(
            Shard(each["ShardId"], each.get("ParentShardId"), "EndingSequenceNumber" in each["SequenceNumberRange"])
            for each in told["Shards"]
        )
        return ShardPage(shards, told.get("LastEvaluatedShardId"))

    def _open(self, request: OpenShard) -> str:
        if request.after is None:
            place = {"ShardIteratorType": "TRIM_HORIZON"}
        else:
            place = {"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "SequenceNumber": request.after}
        answer = self._client.get_shard_iterator(StreamArn=self.arn, ShardId=request.shard, **place)
        return str(answer["ShardIterator"])

    def _read(self, request: ReadRecords) -> RecordPage:
        answer = self._client.get_records(ShardIterator=request.iterator, Limit=request.limit)
        return RecordPage(tuple(map(change_of, answer["Records"])), answer.get("NextShardIterator"))


def _error_of(error: Exception, request: StreamRequest) -> TableError:
    told = error.response.get("Error", {}) if isinstance(error, boto.ClientError) else {}
    code, text = str(told.get("Code", "")).rpartition("#")[2], str(told.get("Message", ""))
    known = _ERRORS.get(code)
    if known is not None:
        return known(text)
    if code == "ResourceNotFoundException":
        if isinstance(request, OpenShard):
            return ShardGone(f"{request.shard}: {text}")
        return Unusable(f"The stream is not there: {text}", "Was it switched off, or the table deleted? Start again")
    found = fault_of(error).error
    return found
