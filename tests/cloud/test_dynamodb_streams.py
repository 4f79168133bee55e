"""The Stream port on emulators: records, places, iterators and errors, as a reader meets them."""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from botocore.exceptions import ClientError
from deviations import deviating
from dynamo_rig import Dynamo, adapter, tables

from cloud.dynamodb_errors import Unusable
from cloud.dynamodb_streams import DynamoStream
from cloud.stream import (
    START,
    IteratorExpired,
    ListShards,
    OpenShard,
    ReadRecords,
    RecordPage,
    Shard,
    ShardGone,
    ShardPage,
    TrimmedData,
)
from cloud.stream_config import StreamConfig
from cloud.stream_reader import ShardReader
from cloud.table import Delete, InvalidRequest, Put, TableError, Throttled


@pytest.fixture(scope="module", params=["moto-server", "ministack"])
def make(request: pytest.FixtureRequest) -> Iterator[Dynamo]:
    for made in tables(request.param, lambda name: str(request.getfixturevalue(name)), "streams"):
        assert isinstance(made, Dynamo)
        yield made


def opened(make: Dynamo) -> tuple[Any, DynamoStream]:
    """A fresh table's requests, and its stream."""
    name = make.fresh()
    arn = make.client.describe_table(TableName=name)["Table"]["LatestStreamArn"]
    return adapter(make.client, name).execute, DynamoStream(make.streams, arn)


def only_shard(stream: DynamoStream) -> str:
    page: ShardPage = stream.execute(ListShards())
    (shard,) = page.shards
    assert page.after is None and not shard.closed and shard.parent is None
    return shard.id


def read(stream: DynamoStream, shard: str, after: str | None = None, limit: int = 1000) -> RecordPage:
    page: RecordPage = stream.execute(ReadRecords(stream.execute(OpenShard(shard, after)), limit))
    return page


def test_records_come_in_order_and_a_place_goes_on_behind_it(make: Dynamo) -> None:
    execute, stream = opened(make)
    items = [{"pk": "device#1", "sk": f"s{i}", "n": i} for i in range(4)]
    for item in items:
        execute(Put(item))
    execute(Delete(("device#1", "s0")))
    execute(Put({"pk": "_fleet#log#all", "sk": "x"}))
    shard = only_shard(stream)
    changes = read(stream, shard).changes
    assert [change.record and change.record.new for change in changes] == [*items, None, None]
    assert changes[4].record is not None and changes[4].record.old == items[0]
    assert changes[5].record is None and not changes[5].problem  # private
    assert read(stream, shard, changes[2].seq).changes == changes[3:]
    first = read(stream, shard, limit=2)
    assert first.changes == changes[:2] and first.next is not None
    assert stream.execute(ReadRecords(first.next)).changes == changes[2:]


def look(stream: DynamoStream, reader: ShardReader) -> list[str]:
    """The sort keys that one look gives."""
    steps = reader.look()
    resume: Callable[[], Any] = lambda: next(steps)  # noqa: E731
    while True:
        try:
            request = resume()
        except StopIteration as end:
            return [change.key[1] for change in end.value.changes]
        try:
            resume = partial(steps.send, stream.execute(request))
        except TableError as error:
            resume = partial(steps.throw, error)


def test_the_reader_goes_on_when_its_iterator_has_expired(ministack: str) -> None:
    """Ministack keeps an iterator's age in it: one that is made older expires as in the service. Moto's never do."""
    (make,) = tables("ministack", lambda _: ministack, "expiry")
    assert isinstance(make, Dynamo)
    execute, stream = opened(make)
    counters: Counter[str] = Counter()
    reader = ShardReader(
        only_shard(stream),
        START,
        StreamConfig(),
        chance=lambda: 0.5,
        counters=counters,
        tell=lambda *_, **__: None,
    )
    execute(Put({"pk": "device#1", "sk": "a"}))
    assert look(stream, reader) == ["a"]
    assert reader._iterator is not None
    told = json.loads(base64.b64decode(reader._iterator))
    told["i"] -= 16 * 60
    reader._iterator = base64.b64encode(json.dumps(told).encode()).decode()
    execute(Put({"pk": "device#1", "sk": "b"}))
    assert look(stream, reader) == []
    assert look(stream, reader) == ["b"]
    assert counters == {"stream_iterator_expired": 1}


def test_a_place_that_is_gone_says_so(make: Dynamo) -> None:
    execute, stream = opened(make)
    execute(Put({"pk": "device#1", "sk": "a"}))
    shard = only_shard(stream)
    with deviating("places" in make.deviations, "places"), pytest.raises(TrimmedData):
        read(stream, shard, "0" * 30)


class Answers:
    """A client of the service that answers with what it was given."""

    def __init__(self, **answers: Any) -> None:
        self.answers = answers
        self.asked: list[dict[str, Any]] = []

    def __getattr__(self, method: str) -> Any:
        def call(**parameters: Any) -> Any:
            self.asked.append(parameters)
            answer = self.answers[method]
            if isinstance(answer, list):
                answer = answer.pop(0)
            if isinstance(answer, str):
                raise ClientError({"Error": {"Code": answer, "Message": "text"}}, method)
            return answer

        return call


def test_shards_are_listed_page_by_page_with_parents_and_ends() -> None:
    first = {
        "Shards": [{"ShardId": "s1", "SequenceNumberRange": {"EndingSequenceNumber": "9"}}],
        "LastEvaluatedShardId": "s1",
    }
    second = {"Shards": [{"ShardId": "s2", "ParentShardId": "s1", "SequenceNumberRange": {}}]}
    client = Answers(describe_stream=[{"StreamDescription": first}, {"StreamDescription": second}])
    stream = DynamoStream(client, "arn")
    assert stream.execute(ListShards()) == ShardPage((Shard("s1", None, True),), "s1")
    assert stream.execute(ListShards("s1")) == ShardPage((Shard("s2", "s1", False),), None)
    assert client.asked == [{"StreamArn": "arn"}, {"StreamArn": "arn", "ExclusiveStartShardId": "s1"}]


def test_the_last_page_of_a_closed_shard_has_no_iterator() -> None:
    assert DynamoStream(Answers(get_records={"Records": []}), "arn").execute(ReadRecords("i")) == RecordPage((), None)


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("ExpiredIteratorException", IteratorExpired),
        ("TrimmedDataAccessException", TrimmedData),
        ("LimitExceededException", Throttled),
        ("ProvisionedThroughputExceededException", Throttled),
        ("ValidationException", InvalidRequest),
        ("AccessDeniedException", Unusable),
        ("ResourceNotFoundException", Unusable),
    ],
)
def test_what_the_service_says_in_the_ports_words(code: str, error: type[TableError]) -> None:
    stream = DynamoStream(Answers(get_records=code), "arn")
    with pytest.raises(error):
        stream.execute(ReadRecords("i"))


def test_a_shard_that_is_not_there_is_gone() -> None:
    stream = DynamoStream(Answers(get_shard_iterator="ResourceNotFoundException"), "arn")
    with pytest.raises(ShardGone):
        stream.execute(OpenShard("s1"))
    with pytest.raises(InvalidRequest):
        stream.execute("what")  # type: ignore[arg-type]
