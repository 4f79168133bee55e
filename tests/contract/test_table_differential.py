"""The same random requests to memory and to an emulator: answers, errors, items and stream records must be the same.

What an emulator is known to do otherwise (tests/deviations.py) is not asked for, or taken out of its records; the tests
at the end ask for just that, and fail when it has been mended.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from deviations import MINISTACK, MOTO, deviating
from dynamo_rig import Dynamo, adapter, tables
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from cloud.dynamodb import Called
from cloud.memory import MemoryTable
from cloud.table import (
    ITEM_ABSENT,
    ITEM_EXISTS,
    BatchGet,
    Cancelled,
    Check,
    Delete,
    Get,
    InvalidRequest,
    Item,
    Key,
    Put,
    Query,
    Record,
    TableError,
    Transact,
    Update,
)
from cloud.table_rules import same

CONTRACT = Path(__file__).parent
NOW_MS = 1_000
# No 1 beside true and no 0 beside false: "untyped-equality".
LEAVES = st.sampled_from([2, 0.5, -3, True, "", "a", "é"])
VALUES = LEAVES | st.none() | st.lists(LEAVES, max_size=2) | st.dictionaries(st.sampled_from(["x", "$$SS"]), LEAVES)
TAGGED = st.sampled_from([{"$SS": ["a", "b"]}, {"$NS": [2, 7]}, {"$B": "AAE="}, {"$N": "12345678901234567890123"}])
ATTRIBUTES = st.sampled_from(["a", "b.c", "name", "#d"])
KEYS = st.tuples(st.sampled_from(["p", "q"]), st.sampled_from(["s", "s1", "t"]))
STORED = st.dictionaries(ATTRIBUTES, VALUES | TAGGED, max_size=3)
TESTS = st.one_of(
    st.tuples(st.just("eq"), ATTRIBUTES, LEAVES | st.lists(LEAVES, max_size=2)),
    st.tuples(st.sampled_from(["absent", "exists"]), ATTRIBUTES | st.just("pk"), st.none()),
)
CONDITIONS = st.sampled_from([(), (), ITEM_ABSENT, ITEM_EXISTS]) | st.lists(TESTS, max_size=2).map(tuple)
PUTS = st.builds(lambda key, more, c: Put({"pk": key[0], "sk": key[1], **more}, c), KEYS, STORED, CONDITIONS)
DELETES = st.builds(Delete, KEYS, CONDITIONS)
UPDATES = st.builds(Update, KEYS, STORED, st.lists(ATTRIBUTES | st.just("pk"), max_size=2).map(tuple), CONDITIONS)
CHECKS = st.builds(Check, KEYS, st.lists(TESTS, min_size=1, max_size=2).map(tuple))
TRANSACTIONS = st.builds(Transact, st.lists(PUTS | DELETES | UPDATES | CHECKS, max_size=4).map(tuple))
READS = st.one_of(
    st.builds(Get, KEYS),
    st.builds(BatchGet, st.lists(KEYS, max_size=4).map(tuple)),
    st.builds(
        Query,
        st.sampled_from(["p", "q"]),
        st.sampled_from(["", "s", "t", "u"]),
        st.none() | st.sampled_from(["a", "s", "s1", "t", "z"]),
        st.booleans(),
        st.none() | st.integers(0, 3),
    ),
)
Change = tuple[Item | None, Item | None]


def outcome(execute: Any, request: Any) -> tuple[str, Any]:
    """The answer, or which error. A transaction's reasons count as far as they are told."""
    try:
        return "answer", execute(request)
    except Cancelled as error:
        return "Cancelled", error.reasons
    except TableError as error:
        return type(error).__name__, None


def equal(one: Any, other: Any) -> bool:
    """As the service compares: true is not 1."""
    if hasattr(one, "items") and not isinstance(one, dict):  # a Page
        # Whether an empty page follows the last one is left open by the port.
        ends = {one.after, other.after} - {None, one.items[-1]["sk"] if one.items else None}
        return not ends and equal(list(one.items), list(other.items))
    return same(one, other)


def by_key(records: list[Record]) -> dict[Key, list[Change]]:
    """Only the order of an item's changes is promised."""
    changes: dict[Key, list[Change]] = {}
    for record in records:
        changes.setdefault(record.key, []).append((record.old, record.new))
    return changes


def without_deviations(records: list[Record], deviations: Any) -> list[Record]:
    kept = []
    for record, after in zip(records, [*records[1:], None], strict=False):
        bare = record.old is None and record.new is not None and len(record.new) == 2
        twice = bare and after is not None and after.key == record.key and after.old is None
        if twice and "update-creates-twice" in deviations:
            continue
        if "record-of-nothing" in deviations and same(record.old, record.new):
            continue
        kept.append(record)
    return kept


@pytest.fixture(scope="module", params=["moto", "moto-server", "ministack"])
def make(request: pytest.FixtureRequest) -> Iterator[Dynamo]:
    for made in tables(request.param, lambda name: str(request.getfixturevalue(name)), "random"):
        assert isinstance(made, Dynamo)
        yield made


def test_memory_and_emulator_do_the_same(make: Dynamo) -> None:
    class Both(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self.memory = MemoryTable()
            self.name = make.fresh()
            self.other = adapter(make.client, self.name)
            self.alike = True

        @rule(request=PUTS | DELETES | UPDATES | TRANSACTIONS)
        def write(self, request: Any) -> None:
            self.ask(request)
            for pk in ("p", "q"):
                self.ask(Query(pk))

        @rule(request=READS)
        def read(self, request: Any) -> None:
            self.ask(request)

        def ask(self, request: Any) -> None:
            expected = outcome(lambda r: self.memory.execute(r, NOW_MS), request)
            found = outcome(self.other.execute, request)
            self.alike = found[0] == expected[0] and equal(found[1], expected[1])
            assert self.alike, (request, expected, found)

        def teardown(self) -> None:
            found = by_key(without_deviations(make.records(self.name), make.deviations))
            expected = by_key([r for shard in range(4) for r in self.memory.read(shard, 1)[0]])
            make.client.delete_table(TableName=self.name)
            if not self.alike:
                return  # that is what is told
            assert found.keys() == expected.keys()
            for key, changes in expected.items():
                assert same([list(change) for change in found[key]], [list(change) for change in changes]), key

    run_state_machine_as_test(Both, settings=settings(max_examples=make.examples, stateful_step_count=20))


# The known deviations: what the service does, which must fail where an emulator is known to do otherwise.


def test_an_update_that_creates_gives_one_record(make: Dynamo) -> None:
    name = make.fresh()
    adapter(make.client, name).execute(Update(("p", "s"), {"a": 1}))
    with deviating("update-creates-twice" in make.deviations, "update-creates-twice"):
        assert [(r.old, r.new) for r in make.records(name)] == [(None, {"pk": "p", "sk": "s", "a": 1})]


@pytest.mark.parametrize(
    "again", [Put({"pk": "p", "sk": "s", "a": 1}), Update(("p", "s"), {"a": 1})], ids=["put", "set"]
)
def test_a_write_that_changes_nothing_gives_no_record(make: Dynamo, again: Any) -> None:
    name = make.fresh()
    do = adapter(make.client, name).execute
    do(Put({"pk": "p", "sk": "s", "a": 1}))
    do(again)
    with deviating("record-of-nothing" in make.deviations, "record-of-nothing"):
        assert len(make.records(name)) == 1


def test_a_transaction_sent_twice_takes_effect_once(make: Dynamo) -> None:
    class Repeating:
        """Says the answer was lost, once; meanwhile another writes."""

        def __init__(self) -> None:
            self.lost = False

        def __getattr__(self, operation: str) -> Any:
            return getattr(make.client, operation)

        def transact_write_items(self, **parameters: Any) -> Any:
            from botocore.exceptions import ReadTimeoutError

            answer = make.client.transact_write_items(**parameters)
            if not self.lost:
                self.lost = True
                plain(Update(("p", "s"), {"n": 3}))
                raise ReadTimeoutError(endpoint_url="http://127.0.0.1")
            return answer

    name = make.fresh()
    plain = adapter(make.client, name).execute
    plain(Put({"pk": "p", "sk": "s", "n": 1}))
    transaction = Transact((Update(("p", "s"), {"n": 2}, (), ITEM_EXISTS), Put({"pk": "p", "sk": "t"})))
    adapter(Repeating(), name).execute(transaction)
    with deviating("tokens" in make.deviations, "tokens"):
        assert plain(Get(("p", "s"))) == {"pk": "p", "sk": "s", "n": 3}


def test_a_token_is_bound_to_its_transaction(make: Dynamo) -> None:
    table = adapter(make.client, make.fresh())
    table._token = lambda: f"{table.name}.same"
    table.execute(Transact((Put({"pk": "p", "sk": "s"}),)))
    with deviating("tokens" in make.deviations, "tokens"), pytest.raises(InvalidRequest):
        table.execute(Transact((Put({"pk": "p", "sk": "t"}),)))


def test_units_are_those_of_the_service(make: Dynamo) -> None:
    calls: list[Called] = []
    do = adapter(make.client, make.fresh(), on_call=calls.append).execute
    do(Put({"pk": "p", "sk": "s", "text": "x" * 2_000}))
    do(Get(("p", "s")))
    do(Query("p"))
    do(Transact((Put({"pk": "p", "sk": "t"}),)))
    with deviating("units" in make.deviations, "units"):
        assert [call.units for call in calls] == [2.0, 1.0, 1.0, 2.0]


def test_units_of_a_batch_are_those_of_its_reads(make: Dynamo) -> None:
    calls: list[Called] = []
    do = adapter(make.client, make.fresh(), on_call=calls.append).execute
    do(Put({"pk": "p", "sk": "s", "text": "x" * 5_000}))
    do(BatchGet((("p", "s"), ("p", "missing"))))
    with deviating("batch-units" in make.deviations, "batch-units"):
        assert calls[-1].units == 3.0


def test_an_open_iterator_outlives_a_cancelled_transaction(make: Dynamo) -> None:
    name = make.fresh()
    do = adapter(make.client, name).execute
    do(Put({"pk": "p", "sk": "s", "n": 1}))
    arn = make.client.describe_table(TableName=name)["Table"]["LatestStreamArn"]
    (shard, *_) = make.streams.describe_stream(StreamArn=arn)["StreamDescription"]["Shards"]
    where = {"StreamArn": arn, "ShardId": shard["ShardId"], "ShardIteratorType": "TRIM_HORIZON"}
    answer = make.streams.get_records(ShardIterator=make.streams.get_shard_iterator(**where)["ShardIterator"])
    assert len(answer["Records"]) == 1
    with pytest.raises(Cancelled):
        do(Transact((Put({"pk": "p", "sk": "t"}), Update(("p", "s"), {"n": 2}), Check(("q", "s"), ITEM_EXISTS))))
    assert [item["n"] for item in do(Query("p")).items] == [1]
    do(Put({"pk": "p", "sk": "u", "n": 3}))
    with deviating("deaf-iterators" in make.deviations, "deaf-iterators"):
        records = make.streams.get_records(ShardIterator=answer["NextShardIterator"])["Records"]
        assert [record["dynamodb"]["Keys"]["sk"] for record in records] == [{"S": "u"}]


def test_a_transaction_costs_what_it_touches_and_not_what_is_there(make: Dynamo) -> None:
    """Turn by turn in tables with few and with many records: the fastest of some turns each, so that other work of the
    machine counts little."""
    few, many = (adapter(make.client, make.fresh()).execute for _ in range(2))
    for do, count in ((few, 10), (many, 200)):
        for n in range(count):
            do(Put({"pk": "p", "sk": "s", "n": n}))
    times: dict[Any, list[float]] = {few: [], many: []}
    for turn in range(3):
        for do, taken in times.items():
            actions = tuple(Put({"pk": "q", "sk": f"s{n}", "n": turn}) for n in range(10))
            began = time.perf_counter()
            do(Transact(actions))
            taken.append(time.perf_counter() - began)
    with deviating("copies" in make.deviations, "copies"):
        assert min(times[many]) < 4 * min(times[few])


def test_every_deviation_on_the_list_is_looked_for() -> None:
    files = [*CONTRACT.glob("test_table_*.py"), CONTRACT.parent / "cloud" / "test_dynamodb_streams.py"]
    source = "".join(path.read_text("utf-8") for path in files)
    assert [name for name in {**MOTO, **MINISTACK} if f'"{name}" in make.deviations' not in source] == [
        "untyped-equality"
    ]
    assert '"untyped-equality"),' in source  # a parameter there
