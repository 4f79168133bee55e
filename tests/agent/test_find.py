"""Finding: by an index, by the beginning of a sort key, in either order, page by page: what a plain list would give."""

from __future__ import annotations

from typing import Any, Final

import pytest
from device_rig import Device
from device_schema import WHOLE
from hypothesis import given
from hypothesis import strategies as st

from agent.database import FIND_PAGE_ITEMS, Database
from agent.protocol.errors import ModelError
from agent.protocol.messages import encode_image
from agent.protocol.schema import Schema
from agent.upkeep import check

IDS: Final = st.sampled_from(["a", "b", "ab", "é", "\U0010ffff"])
RANKS: Final = st.one_of(st.none(), st.integers(-3, 3), st.sampled_from([0.5, -2.5, 2**60, 1e100]))
KINDS: Final = st.sampled_from([None, "k", "l"])
STEPS: Final = st.lists(
    st.tuples(st.sampled_from(["Task", "Job", "Meter"]), IDS, KINDS, RANKS, st.sampled_from(["put", "put", "remove"])),
    max_size=14,
)
FIELDS: Final = {"Task": {"area": "a"}, "Job": {}, "Meter": {}}


@pytest.fixture
def database() -> Database:
    return Device(schema=WHOLE).open()


def built(steps: list[Any]) -> tuple[Database, dict[tuple[str, str], dict[str, Any]]]:
    """A database after the steps, and a plain dict of what it must hold: (model, id) -> properties."""
    database = Device(schema=WHOLE).open()
    plain: dict[tuple[str, str], dict[str, Any]] = {}
    for at, (model, name, kind, rank, action) in enumerate(steps):
        properties = {**FIELDS[model], "id": name, "kind": kind}
        properties |= {"rev": at} if model == "Meter" else {"rank": rank}
        if action == "remove":
            database.remove(model, properties)
            plain.pop((model, name), None)
        else:
            database.put(model, properties)
            plain[model, name] = {name: value for name, value in properties.items() if value is not None}
        if at % 3 == 2:
            database.store.take_batch(2, 100_000, "boot")  # what was sent stays below newer writes
    return database, plain


def in_order(plain: dict[tuple[str, str], dict[str, Any]], model: str, kind: str) -> list[str]:
    found = [(v["rank"], f"{model.lower()}#a#{name}", name) for (m, name), v in plain.items()
             if m == model and v.get("kind") == kind and "rank" in v]  # fmt: skip
    return [name for _, _, name in sorted(found)]


@given(STEPS, st.sampled_from(["k", "l"]), st.booleans())
def test_an_index_shows_what_has_its_keys_in_order_of_its_sort_key(steps: list[Any], kind: str, reverse: bool) -> None:
    database, plain = built(steps)
    for model in ("Task", "Job"):
        found = [item["id"] for item in database.find(model, {"kind": kind}, index="kinds", reverse=reverse)]
        expected = in_order(plain, model, kind)
        assert found == (expected[::-1] if reverse else expected)
    assert list(database.find("Meter", {"kind": kind}, index="kinds")) == [], "an item without a rank is not in it"
    assert check(database) == []


@given(STEPS, st.integers(0, 4), st.booleans(), st.sampled_from([None, "kinds"]))
def test_going_on_after_the_last_item_gives_the_rest(
    steps: list[Any], limit: int, reverse: bool, index: str | None
) -> None:
    database, _ = built(steps)
    wanted = {"kind": "k", "area": "a"}
    whole = list(database.find("Task", wanted, index=index, reverse=reverse))
    found = list(database.find("Task", wanted, index=index, reverse=reverse, limit=limit))
    assert found == whole[:limit]
    if found:
        assert found + list(database.find("Task", wanted, index=index, reverse=reverse, after=found[-1])) == whole


@given(STEPS, st.one_of(st.integers(-3, 3), st.sampled_from([0.5, 2**60, 1e100])))
def test_a_number_that_the_index_sorts_by_is_found_exactly(steps: list[Any], rank: float) -> None:
    database, plain = built(steps)
    expected = [name for name in in_order(plain, "Job", "k") if plain["Job", name]["rank"] == rank]
    for reverse in (False, True):
        found = database.find("Job", {"kind": "k", "rank": rank}, index="kinds", reverse=reverse)
        assert [item["id"] for item in found] == (expected[::-1] if reverse else expected)


def test_the_beginning_of_a_sort_key_s_template_is_enough(database: Database) -> None:
    for area in ("a", "ab", "b"):
        for name in "123":
            database.create("Task", {"area": area, "id": name, "text": f"t{name}"})
    assert [item["id"] for item in database.find("Task", {"area": "a"})] == ["1", "2", "3"]
    assert [item["id"] for item in database.find("Task", {"area": "a"}, reverse=True)] == ["3", "2", "1"]
    found = database.find("Task", {"text": "t2"}, index="gs1")
    assert [item["area"] for item in found] == ["a", "ab", "b"]
    assert [item["id"] for item in database.find("Task", {"gs1pk": "task"}, index="gs1")] == list("111222333")
    assert len(list(database.find("Task", index="gs1", after="text#t2#~"))) == 3


def test_a_local_index_sorts_one_hash_key_otherwise(database: Database) -> None:
    for name, rank in (("a", 2), ("b", 3), ("c", 1)):
        database.create("Job", {"id": name, "rank": rank})
    database.create("Task", {"area": "x", "id": "y", "rank": 0})
    assert [item["id"] for item in database.find("Job", index="ranks")] == ["c", "a", "b"]
    assert [item["id"] for item in database.find("Job", index="ranks", after=1)] == ["a", "b"]
    assert [item["id"] for item in database.find("Job", index="ranks", after=3, reverse=True)] == ["a", "c"]


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("index", [None, "ranks"])
def test_items_may_be_written_while_find_reads_and_none_that_stayed_is_missed(
    database: Database, index: str | None, reverse: bool
) -> None:
    count = 3 * FIND_PAGE_ITEMS + 1
    with database.transaction():
        for number in range(count):
            database.create("Job", {"id": f"{number:04}", "rank": number})
    seen: list[str] = []
    for item in database.find("Job", index=index, reverse=reverse):
        seen.append(item["id"])
        database.remove("Job", {"id": item["id"]})
        if not item["id"].startswith("new"):
            database.upsert("Job", {"id": f"new{len(seen)}", "rank": -len(seen)})
    old = [name for name in seen if not name.startswith("new")]
    assert old == sorted((f"{number:04}" for number in range(count)), reverse=reverse)
    assert check(database) == []


def test_find_one_finds_the_one_or_none_and_says_when_there_are_more(database: Database) -> None:
    assert database.find_one("Job", {"rank": 1}) is None
    database.create("Job", {"id": "a", "rank": 1})
    assert (database.find_one("Job", {"rank": 1}) or {})["id"] == "a"
    database.create("Job", {"id": "b", "rank": 1})
    with pytest.raises(ModelError, match="more than one") as caught:
        database.find_one("Job", {"rank": 1})
    assert caught.value.code == "ambiguous"
    assert (database.find_one("Job", where=lambda item: bool(item["id"] == "b")) or {})["id"] == "b"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ({"index": "nothing"}, "index"),
        ({"index": "kinds"}, "key"),
        ({"limit": -1}, "find"),
        ({"limit": "2"}, "find"),
        ({"after": 5}, "find"),
        ({"after": "\ud800"}, "key"),
        ({"properties": ["id"]}, "type"),
        ({"properties": {"id": "\ud800"}}, "type"),
    ],
)
def test_what_cannot_be_looked_for_is_refused_at_the_call(
    database: Database, arguments: dict[str, Any], code: str
) -> None:
    with pytest.raises(ModelError) as caught:
        database.find("Job", **arguments)
    assert caught.value.code == code


def statements(database: Database, model: str, properties: dict[str, Any]) -> list[str]:
    """What a create runs."""
    run: list[str] = []
    execute = database.store.execute

    def watched(sql: str, values: Any = (), /) -> Any:
        run.append(sql)
        return execute(sql, values)

    database.store.execute = watched
    database.create(model, properties)
    database.store.execute = execute
    return run


def test_a_write_of_a_model_without_indexes_runs_no_statement_more(database: Database) -> None:
    counts = []
    for opened, model in ((Device().open(), "Fault"), (Device().open(), "Diagnostic"), (database, "Note")):
        properties = {"pk": "a", "sk": "b"} if model == "Note" else {"id": "a", "name": "a", "rev": 1}
        counts.append([sql.split()[0] for sql in statements(opened, model, properties)])
    assert counts == [["SELECT", "INSERT"]] * 3


def test_items_and_statistics_show_a_model_whose_keys_are_given_by_hand(database: Database) -> None:
    database.create("Note", {"pk": "a", "sk": "1", "text": "x"})
    assert [(model.name, key) for model, key, _ in database.items()] == [("Note", ("a", "1"))]
    assert database.statistics().items_by_model == {"Note": 1}


def test_an_unindexable_value_from_outside_is_in_no_index(database: Database) -> None:
    image = {"_type": "Job", "deviceId": "home-1", "id": "a", "kind": ["k"], "rank": 1}
    database.store.put_base("device#home-1", "job#a", encode_image(image), 1)
    assert database.indexing.plans["Job"].entries(("device#home-1", "job#a"), image) == [
        ("ranks:Job", "device#home-1", 1)
    ]


# Unique values


def test_a_unique_value_has_one_owner_in_this_database(database: Database) -> None:
    database.create("User", {"id": "1", "email": "a@x"})
    for action in ("create", "upsert"):
        with pytest.raises(ModelError, match="belongs to") as caught:
            getattr(database, action)("User", {"id": "2", "email": "a@x"})
        assert caught.value.code == "unique"
    database.create("User", {"id": "2", "email": "b@x"})
    with pytest.raises(ModelError):
        database.update("User", {"id": "2", "email": "a@x"})
    database.update("User", {"id": "1", "email": "c@x"})
    database.update("User", {"id": "2", "email": "a@x"})
    database.update("User", {"id": "2", "email": "a@x"})
    database.remove("User", {"id": "1"})
    database.create("User", {"id": "3", "email": "c@x"})
    assert check(database) == []


HIDDEN: Final = """{
    version: '1', indexes: {primary: {hash: 'pk', sort: 'sk'}, ranks: {hash: 'kind', sort: 'rank'}},
    process: {Task: {enable: 'device'}},
    models: {Task: {
        pk: {type: 'string', value: 'task'}, sk: {type: 'string', value: 'task#${id}'}, id: {type: 'string'},
        kind: {type: 'string'}, rank: {type: 'number', hidden: true},
    }},
}"""


@pytest.mark.parametrize("index", [None, "ranks"])
def test_a_hidden_field_finds_what_has_its_very_value(index: str | None) -> None:
    database = Device(schema=Schema.parse(HIDDEN, "hidden.json5")).open()
    for name, rank in (("a", 5), ("b", 5.5), ("c", 6), ("d", 5)):
        database.create("Task", {"id": name, "kind": "k", "rank": rank})
    for rank, found in ((5, ["a", "d"]), (5.5, ["b"]), (6, ["c"]), (4, [])):
        wanted = {"kind": "k", "rank": rank}
        assert [item["id"] for item in database.find("Task", wanted, index=index)] == found
    assert "rank" not in (database.get("Task", {"id": "a"}) or {})
