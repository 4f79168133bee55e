"""What any adapter of the Table port does: one body of tests for all of them. Limits are those of DynamoDB."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from deviations import deviating
from dynamo_rig import Dynamo, Execute, Memory, tables
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud.table import (
    ITEM_ABSENT,
    ITEM_EXISTS,
    BatchGet,
    Cancelled,
    Check,
    Condition,
    ConditionFailed,
    Delete,
    Get,
    InvalidRequest,
    Page,
    Put,
    Query,
    Transact,
    Update,
)


@pytest.fixture(scope="module", params=["memory", "moto", "moto-server", "ministack"])
def make(request: pytest.FixtureRequest) -> Iterator[Memory | Dynamo]:
    """Makes a new, empty table of one adapter at each call."""
    yield from tables(request.param, lambda name: str(request.getfixturevalue(name)), "contract")


@pytest.fixture
def do(make: Memory | Dynamo) -> Execute:
    return make()


def item(pk: str, sk: str, **attributes: Any) -> dict[str, Any]:
    return {"pk": pk, "sk": sk, **attributes}


def all_pages(do: Execute, query: Query) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    after = query.after
    while True:
        page: Page = do(Query(query.pk, query.prefix, after, query.reverse, query.limit))
        found.extend(dict(each) for each in page.items)
        if page.after is None:
            return found
        after = page.after


# Single writes


def test_what_was_put_is_read(do: Execute) -> None:
    stored = item("p", "s", text="å", n=1, x=2.5, yes=True, none=None, map={"a": [1, {"b": "c"}]}, empty="")
    assert do(Get(("p", "s"))) is None
    assert do(Put(stored)) is None
    assert do(Get(("p", "s"))) == stored
    assert do(Get(("p", "t"))) is None


def test_a_put_replaces_the_whole_item(do: Execute) -> None:
    do(Put(item("p", "s", a=1, b=2)))
    do(Put(item("p", "s", b=3)))
    assert do(Get(("p", "s"))) == item("p", "s", b=3)


def test_a_delete_of_nothing_is_no_error(do: Execute) -> None:
    assert do(Delete(("p", "s"))) is None
    do(Put(item("p", "s")))
    do(Delete(("p", "s")))
    assert do(Get(("p", "s"))) is None


def test_an_update_sets_removes_and_creates(do: Execute) -> None:
    do(Update(("p", "s"), {"a": 1, "b": 2}))
    assert do(Get(("p", "s"))) == item("p", "s", a=1, b=2)
    do(Update(("p", "s"), {"b": 3, "c": [1]}, ("a", "never")))
    assert do(Get(("p", "s"))) == item("p", "s", b=3, c=[1])


def test_an_update_of_nothing_creates_a_bare_item(do: Execute) -> None:
    do(Update(("p", "s"), {}))
    do(Transact((Update(("p", "t"), {}),)))
    do(Update(("p", "s"), {}))
    assert all_pages(do, Query("p")) == [item("p", "s"), item("p", "t")]


@pytest.mark.parametrize("change", [Update(("p", "s"), {"pk": "q"}), Update(("p", "s"), {}, ("sk",))])
def test_an_update_may_not_touch_the_key(do: Execute, change: Update) -> None:
    do(Put(item("p", "s")))
    with pytest.raises(InvalidRequest):
        do(change)


HOLDING: list[Condition] = [
    ITEM_EXISTS,
    (("eq", "n", 1),),
    (("eq", "text", "a"), ("absent", "other", None)),
    (("exists", "none", None), ("eq", "none", None)),
    (("eq", "map", {"a": [1, True]}),),
    (("eq", "list", ["d", "e", 3, "f"]),),
]
# With the deviation that a known emulator has there.
FAILING: list[tuple[Condition, str]] = [
    (ITEM_ABSENT, ""),
    ((("eq", "n", 2),), ""),
    ((("eq", "n", True),), "untyped-equality"),
    ((("eq", "yes", 1),), "untyped-equality"),
    ((("eq", "n", "1"),), ""),
    ((("eq", "missing", None),), "untyped-equality"),
    ((("exists", "missing", None),), ""),
    ((("absent", "none", None),), ""),
    ((("eq", "map", {"a": [1, 1]}),), "untyped-equality"),
    ((("eq", "list", ["d", "e", 3]),), ""),
    ((("eq", "n", 1), ("eq", "text", "b")), ""),
]
PRESENT = item("p", "s", n=1, text="a", yes=True, none=None, map={"a": [1, True]}, list=["d", "e", 3, "f"])


@pytest.mark.parametrize("condition", HOLDING)
def test_a_condition_that_holds_lets_the_write_pass(do: Execute, condition: Condition) -> None:
    for write in (Put({**PRESENT, "new": 1}, condition), Update(("p", "s"), {"new": 2}, (), condition)):
        do(Put(PRESENT))
        do(write)
        assert "new" in do(Get(("p", "s")))
        do(Put(PRESENT))
        do(Transact((write,)))
        assert "new" in do(Get(("p", "s")))
    do(Put(PRESENT))
    do(Delete(("p", "s"), condition))
    assert do(Get(("p", "s"))) is None


@pytest.mark.parametrize(("condition", "deviation"), FAILING)
def test_a_condition_that_fails_lets_nothing_pass(make: Memory | Dynamo, condition: Condition, deviation: str) -> None:
    for write in (
        Put({**PRESENT, "new": 1}, condition),
        Update(("p", "s"), {"new": 2}, (), condition),
        Delete(("p", "s"), condition),
    ):
        do = make()
        do(Put(PRESENT))
        with deviating(deviation in make.deviations, deviation):
            with pytest.raises(ConditionFailed):
                do(write)
            with pytest.raises(Cancelled) as cancelled:
                do(Transact((Put(item("other", "s")), write)))
            assert cancelled.value.reasons == (None, "condition")
            assert do(Get(("p", "s"))) == PRESENT
            assert do(Get(("other", "s"))) is None


@pytest.mark.parametrize(
    ("condition", "deviation"),
    [(ITEM_EXISTS, ""), ((("eq", "a", None),), "untyped-equality"), ((("exists", "a", None),), "")],
)
def test_on_a_missing_item_only_absence_holds(make: Memory | Dynamo, condition: Condition, deviation: str) -> None:
    do = make()
    with deviating(deviation in make.deviations, deviation), pytest.raises(ConditionFailed):
        do(Put(item("p", "s"), condition))
    do(Put(item("q", "s"), (("absent", "a", None), *ITEM_ABSENT)))


@pytest.mark.parametrize(
    "request_",
    [
        Put(item("", "s")),
        Put(item("p", "")),
        Put({"pk": "p"}),
        Put({"pk": "p", "sk": 1}),
        Put(item("p" * 2049, "s")),
        Put(item("p", "s" * 1025)),
        Put(item("p", "é" * 513)),
        Delete(("", "s")),
        Update(("p", ""), {"a": 1}),
        Put(item("p", "s", text="x" * (400 * 1024))),
        BatchGet(()),
        BatchGet((("p", "s"), ("p", "s"))),
        BatchGet(tuple(("p", str(n)) for n in range(101))),
        Query("p", limit=0),
        Transact(()),
        Transact(tuple(Put(item("p", str(n))) for n in range(101))),
        Transact((Put(item("p", "s")), Delete(("p", "s")))),
        Transact((Put(item("p", "s")), Check(("p", "s"), ITEM_ABSENT))),
        Transact((Check(("p", "s"), ITEM_ABSENT), Check(("p", "s"), ITEM_ABSENT))),
        Transact(tuple(Put(item("p", str(n), text="x" * 90_000)) for n in range(50))),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_what_breaks_a_limit_is_refused_whole(do: Execute, request_: Any) -> None:
    with pytest.raises(InvalidRequest):
        do(request_)
    assert all_pages(do, Query("p")) == []


def test_the_largest_keys_and_items_are_taken(make: Memory | Dynamo) -> None:
    do = make()
    large = item("p" * 2048, "é" * 512, text="x" * (400 * 1024 - 2048 - 1024 - 8))
    with deviating("item-size" in make.deviations, "item-size"):
        do(Put(large))
        assert do(Get(("p" * 2048, "é" * 512))) == large
    with pytest.raises(InvalidRequest):
        do(Put({**large, "text": large["text"] + "x"}))


# Reading many


def test_a_batch_get_answers_what_exists(do: Execute) -> None:
    do(Put(item("p", "1")))
    do(Put(item("q", "2", a=1)))
    keys = (("q", "2"), ("p", "1"), ("p", "2"))
    assert do(BatchGet(keys)) == {("p", "1"): item("p", "1"), ("q", "2"): item("q", "2", a=1)}


SORT_KEYS = st.text(alphabet="ab#\U0010ffff\uffffé\x00", min_size=1, max_size=4)


def test_a_query_finds_in_byte_order_what_begins_with_the_prefix(make: Memory | Dynamo) -> None:
    @settings(max_examples=make.examples)
    @given(
        sks=st.sets(SORT_KEYS, max_size=12),
        gone=st.sets(SORT_KEYS, max_size=4),
        prefix=st.text(alphabet="ab#\U0010ffffé", max_size=2),
        after=st.none() | SORT_KEYS,
        reverse=st.booleans(),
        limit=st.none() | st.integers(1, 5),
    )
    def holds(sks: set[str], gone: set[str], prefix: str, after: str | None, reverse: bool, limit: int | None) -> None:
        do = make()
        for sk in sorted(sks, key=len):
            do(Put(item("p", sk)))
        for sk in sorted(gone):
            do(Delete(("p", sk)))
        expected = sorted((sk for sk in sks - gone if sk.startswith(prefix)), key=str.encode, reverse=reverse)
        if after is not None:
            passed = after.encode()
            expected = [sk for sk in expected if (sk.encode() < passed if reverse else sk.encode() > passed)]
        found = all_pages(do, Query("p", prefix, after, reverse, limit))
        assert [each["sk"] for each in found] == expected

    holds()


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("after", ["", "a", "b", "b1", "b2", "b9", "c", "z"])
def test_a_query_may_start_anywhere(do: Execute, after: str, reverse: bool) -> None:
    sks = ["a", "b", "b1", "b2", "c"]
    for sk in sks:
        do(Put(item("p", sk)))
    for prefix in ("", "b"):
        expected = [sk for sk in sks if sk.startswith(prefix) and (sk < after if reverse else sk > after)]
        found = do(Query("p", prefix, after, reverse)).items
        assert [each["sk"] for each in found] == (expected[::-1] if reverse else expected)


def test_a_page_is_about_a_megabyte(do: Execute) -> None:
    for n in range(30):
        do(Put(item("p", f"{n:02}", text="x" * 100_000)))
    page = do(Query("p"))
    assert 9 <= len(page.items) <= 12
    assert page.after == page.items[-1]["sk"]
    assert len(all_pages(do, Query("p"))) == 30


# Transactions


def test_a_transaction_takes_effect_whole(do: Execute) -> None:
    do(Put(item("p", "old", n=1)))
    do(Put(item("p", "seen", n=1)))
    do(
        Transact(
            (
                Put(item("p", "new")),
                Delete(("p", "old"), (("eq", "n", 1),)),
                Update(("p", "made"), {"a": 1}),
                Check(("p", "seen"), (("eq", "n", 1),)),
                Delete(("p", "never")),
            )
        )
    )
    assert [each["sk"] for each in all_pages(do, Query("p"))] == ["made", "new", "seen"]


def test_a_cancelled_transaction_tells_every_reason(do: Execute) -> None:
    do(Put(item("p", "a", n=1)))
    with pytest.raises(Cancelled) as cancelled:
        do(
            Transact(
                (
                    Put(item("p", "a"), ITEM_ABSENT),
                    Put(item("p", "b")),
                    Check(("p", "c"), ITEM_EXISTS),
                    Delete(("p", "a2"), (("exists", "n", None),)),
                )
            )
        )
    assert cancelled.value.reasons == ("condition", None, "condition", "condition")
    assert [each["sk"] for each in all_pages(do, Query("p"))] == ["a"]


KEYS = st.tuples(st.sampled_from("pq"), st.sampled_from("stu"))
WRITES = st.one_of(
    st.builds(lambda k, n: Put(item(*k, n=n)), KEYS, st.integers(0, 2)),
    st.builds(lambda k: Delete(k), KEYS),
    st.builds(
        lambda k, n, r: Update(k, {"m": n}, r),
        KEYS,
        st.integers(0, 2),
        st.sampled_from([(), ("n",)]),
    ),
    st.builds(
        lambda k, n, a: Put(item(*k, n=n), a),
        KEYS,
        st.integers(0, 2),
        st.sampled_from([ITEM_ABSENT, ITEM_EXISTS, (("eq", "n", 1),), (("absent", "m", None),)]),
    ),
)


def test_a_transaction_equals_its_writes_one_by_one_or_nothing(make: Memory | Dynamo) -> None:
    @settings(max_examples=make.examples)
    @given(batches=st.lists(st.lists(WRITES, min_size=1, max_size=4), max_size=10))
    def holds(batches: list[list[Any]]) -> None:
        whole, single = make(), make()
        for batch in batches:
            keys = [write.key for write in batch]
            if len(set(keys)) < len(keys):
                with pytest.raises(InvalidRequest):
                    whole(Transact(tuple(batch)))
                continue
            before = [*all_pages(whole, Query("p")), *all_pages(whole, Query("q"))]
            try:
                whole(Transact(tuple(batch)))
            except Cancelled:
                assert [*all_pages(whole, Query("p")), *all_pages(whole, Query("q"))] == before
                continue
            for write in batch:
                single(write)
            for pk in "pq":
                assert all_pages(whole, Query(pk)) == all_pages(single, Query(pk))

    holds()
