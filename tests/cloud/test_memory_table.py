"""What the memory table adds to the port: its change stream, time to live, and shared items."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.memory import MemoryTable
from cloud.memory_stream import TrimmedHorizon
from cloud.table import ITEM_EXISTS, Cancelled, Delete, Get, Key, Put, Query, Record, Transact, Update
from cloud.units import item_bytes, read_units, write_units


def item(pk: str, sk: str, **attributes: Any) -> dict[str, Any]:
    return {"pk": pk, "sk": sk, **attributes}


def everything(table: MemoryTable) -> list[Record]:
    return [
        record for shard in range(table.stream.shards) for record in table.read(shard, table.stream.horizon(shard))[0]
    ]


def test_each_change_gives_one_record_with_both_images() -> None:
    table = MemoryTable(shards=1)
    first, second = item("p", "s", n=1), item("p", "s", n=2)
    table.execute(Put(first), 10)
    table.execute(Put(second), 20)
    table.execute(Delete(("p", "s")), 30)
    records, position = table.read(0, 1)
    assert [(r.seq, r.old, r.new, r.at_ms) for r in records] == [
        (1, None, first, 10),
        (2, first, second, 20),
        (3, second, None, 30),
    ]
    assert position == 4
    assert table.read(0, position) == ([], 4)


def test_a_write_that_changes_nothing_gives_no_record() -> None:
    table = MemoryTable(shards=1)
    table.execute(Put(item("p", "s", n=1, flag=True)), 1)
    table.execute(Put(item("p", "s", n=1, flag=True)), 2)
    table.execute(Update(("p", "s"), {"n": 1}), 3)
    table.execute(Delete(("p", "t")), 4)
    table.execute(Transact((Put(item("p", "s", n=1, flag=True)), Delete(("q", "q")))), 5)
    assert len(everything(table)) == 1
    table.execute(Put(item("p", "s", n=1, flag=1)), 6)  # true is not 1
    assert len(everything(table)) == 2


def test_a_cancelled_transaction_gives_no_record() -> None:
    table = MemoryTable()
    with pytest.raises(Cancelled):
        table.execute(Transact((Put(item("p", "s")), Put(item("p", "t"), ITEM_EXISTS))), 1)
    assert everything(table) == []


def test_news_come_after_the_whole_transaction() -> None:
    table = MemoryTable()
    seen: list[tuple[Key, bool]] = []
    table.subscribe(lambda record: seen.append((record.key, table.execute(Get(("p", "t")), 0) is not None)))
    table.execute(Transact((Put(item("p", "s")), Put(item("p", "t")))), 1)
    assert seen == [(("p", "s"), True), (("p", "t"), True)]


def test_observers_see_all_and_the_reader_what_it_wants() -> None:
    table = MemoryTable(shards=1)
    seen: list[str] = []
    read: list[str] = []
    table.execute(Put(item("p", "before")), 1)
    table.stream.wants = lambda key: not key[0].startswith("_fleet#")
    table.execute(Put(item("_fleet#head#d", "head")), 1)
    table.subscribe(lambda record: seen.append(record.key[0]))
    table.on_record = lambda record: read.append(record.key[0])
    table.execute(Put(item("_fleet#head#d", "head", up=1)), 1)
    table.execute(Put(item("p", "s")), 1)
    assert seen == ["_fleet#head#d", "p"]
    assert read == ["p"]
    assert [record.key for record in table.read(0, 1)[0]] == [("p", "before"), ("p", "s")]


def test_items_of_one_hash_key_share_a_shard() -> None:
    table = MemoryTable(shards=7)
    for n in range(50):
        table.execute(Put(item(f"p{n % 5}", str(n))), n)
    for shard in range(7):
        for record in table.read(shard, 1)[0]:
            assert table.shard_of(record.key[0]) == shard == record.shard
    assert len(everything(table)) == 50
    assert len({record.shard for record in everything(table)}) > 1


@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("write"), st.integers(0, 9)),
            st.tuples(st.just("trim"), st.integers(0, 40)),
            st.tuples(st.just("age"), st.integers(0, 40)),
            st.tuples(st.just("release"), st.integers(0, 40)),
        ),
        max_size=60,
    ),
    limit=st.integers(1, 5),
)
def test_what_is_not_trimmed_can_be_read_in_pieces(steps: list[tuple[str, int]], limit: int) -> None:
    table = MemoryTable(shards=1, retain_ms=5)
    table.stream.wants = lambda key: key[1] != "0"  # leaves gaps in the numbers
    table.subscribe(lambda record: None)
    kept: list[tuple[int, int]] = []
    horizon = 1
    for now, (step, n) in enumerate(steps):
        if step == "write":
            table.execute(Put(item("p", str(n), at=now)), now)
            if n:
                kept.append((table.stream.latest(0) - 1, now))
            continue
        if step == "trim":
            table.trim(0, n)
            kept = [entry for entry in kept if entry[0] >= n]
        elif step == "age":
            table.stream.trim_older(n)
            kept = [entry for entry in kept if entry[1] >= n]
        else:
            table.stream.release(0, n, now)
            kept = [entry for entry in kept if entry[0] >= n or entry[1] >= now - 5]
        assert table.stream.horizon(0) >= horizon
        horizon = table.stream.horizon(0)
    found: list[int] = []
    position = horizon
    while True:
        records, after = table.read(0, position, limit)
        if not records:
            break
        found.extend(record.seq for record in records)
        position = after
    assert found == [seq for seq, _ in kept]
    assert table.stream.count() == len(kept)
    if horizon > 1:
        with pytest.raises(TrimmedHorizon) as trimmed:
            table.read(0, horizon - 1)
        assert trimmed.value.horizon == horizon


def test_released_is_what_is_both_passed_and_old() -> None:
    table = MemoryTable(shards=1, retain_ms=100)
    for now in (0, 10, 20, 500):
        table.execute(Put(item("p", "s", n=now)), now)
    assert table.stream.release(0, passed_seq=5, now_ms=100) == 0  # a replay may still ask
    assert table.stream.release(0, passed_seq=3, now_ms=10_000) == 2  # a reader has not passed the others
    assert table.stream.release(0, passed_seq=5, now_ms=599) == 1
    assert [record.at_ms for record in table.read(0, table.stream.horizon(0))[0]] == [500]


def test_trimming_keeps_memory_flat() -> None:
    table = MemoryTable(shards=1, retain_ms=100)
    position = 1
    for now in range(5_000):
        table.execute(Put(item("log", f"{now:08}", ttl=now // 1000)), now)
        if now >= 50:
            table.execute(Delete(("log", f"{now - 50:08}")), now)
        _, position = table.read(0, position)
        table.stream.release(0, position, now)
        assert table.stream.count() <= 203
    partition = table._partitions["log"]
    assert len(partition.keys) < 300
    assert len(table.stream._shards[0].records) < 700


def test_an_expired_item_stays_until_it_is_swept() -> None:
    table = MemoryTable(shards=1)
    table.execute(Put(item("p", "s", ttl=10)), 0)
    table.execute(Put(item("p", "text", ttl="10")), 0)
    table.execute(Put(item("p", "yes", ttl=True)), 0)
    assert table.sweep(10_000) == 0
    assert not table.expired_waiting(10_000)
    assert table.expired_waiting(10_001)
    assert table.execute(Get(("p", "s")), 99_000) is not None
    assert table.sweep(10_001) == 1
    assert table.execute(Get(("p", "s")), 99_000) is None
    record = everything(table)[-1]
    assert record.by_ttl and record.new is None
    assert table.sweep(10**12) == 0
    assert table.count() == 2


def test_a_sweep_leaves_alone_what_lives_longer_now() -> None:
    table = MemoryTable()
    table.execute(Put(item("p", "s", ttl=10)), 0)
    table.execute(Put(item("p", "s", ttl=20)), 0)
    table.execute(Put(item("p", "t", ttl=10)), 0)
    table.execute(Update(("p", "t"), {}, ("ttl",)), 0)
    assert table.sweep(15_000) == 0
    assert table.sweep(25_000) == 1
    assert [each["sk"] for each in table.scan()] == ["t"]


@given(ttls=st.lists(st.integers(0, 20), max_size=20), limit=st.integers(1, 4), seed=st.randoms(use_true_random=False))
def test_a_sweep_takes_any_order_in_bounded_steps(ttls: list[int], limit: int, seed: Any) -> None:
    table = MemoryTable()
    for n, ttl in enumerate(ttls):
        table.execute(Put(item("p", f"{n:02}", ttl=ttl)), 0)
    expired = sum(ttl < 10 for ttl in ttls)
    swept = 0
    while True:
        done = table.sweep(10_000, limit, lambda n: seed.randrange(n))
        assert done <= limit
        swept += done
        if not done:
            break
    assert swept == expired
    assert table.count() == len(ttls) - expired


@pytest.mark.parametrize(("pick", "gone"), [(lambda n: 0, "0"), (lambda n: n - 1, "2"), (lambda n: 1, "1")])
def test_the_caller_picks_what_a_sweep_takes_next(pick: Callable[[int], int], gone: str) -> None:
    table = MemoryTable()
    for n in range(4):
        table.execute(Put(item("p", str(n), ttl=n if n < 3 else 99)), 0)
    assert table.sweep(50_000, 1, pick) == 1
    assert [each["sk"] for each in table.scan()] == [sk for sk in "0123" if sk != gone]


def test_items_are_shared_not_copied() -> None:
    table = MemoryTable()
    stored = item("p", "s", map={"a": 1})
    table.execute(Put(stored), 0)
    assert table.execute(Get(("p", "s")), 0) is stored
    assert table.execute(Query("p"), 0).items[0] is stored
    table.execute(Update(("p", "s"), {"n": 1}), 0)
    assert "n" not in stored


def test_private_items_are_scanned_only_when_asked_for() -> None:
    table = MemoryTable()
    table.execute(Put(item("_fleet#head#d", "head")), 0)
    table.execute(Put(item("p", "s")), 0)
    assert [each["pk"] for each in table.scan()] == ["p"]
    assert len(list(table.scan(private=True))) == table.count() == 2


def test_sizes_and_units_are_the_services() -> None:
    # The developer guide's own kind of example: names and values in UTF-8 bytes, 3 for a map, 1 a member.
    assert item_bytes({"pk": "abc", "é": "é"}) == 2 + 3 + 2 + 2
    assert item_bytes({"m": {"a": "b"}}) == 1 + 3 + 1 + 1 + 1
    assert item_bytes({"l": [True, None]}) == 1 + 3 + 2 + 2
    assert item_bytes({"n": 1234}) == 1 + 3
    assert [read_units(n) for n in (0, 4096, 4097)] == [1, 1, 2]
    assert [write_units(a, b) for a, b in ((0, 0), (1024, 1), (1, 1025))] == [1, 1, 2]


def test_a_table_that_is_put_back_holds_the_copy_alone_and_its_stream_tells_nothing_of_it() -> None:
    table = MemoryTable(shards=2)
    seen: list[Record] = []
    table.execute(Put({"pk": "a", "sk": "1", "ttl": 10}), 1_000)
    table.execute(Put({"pk": "a", "sk": "2"}), 1_000)
    copy = table.backup()
    table.execute(Delete(("a", "1")), 2_000)
    table.execute(Put({"pk": "b", "sk": "1"}), 2_000)
    table.subscribe(seen.append)
    table.restore(reversed(copy))
    assert list(table.scan()) == copy and table.stream.count() == 0 and seen == []
    assert table.execute(Query("a"), 3_000).items == tuple(copy)
    assert table.sweep(20_000) == 1 and table.peek(("a", "1")) is None, "its times to live are there again"
    assert table.stream.count() == 1 and [record.by_ttl for record in seen] == [True]
