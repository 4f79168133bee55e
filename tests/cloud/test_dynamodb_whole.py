"""The relay on the DynamoDB adapter: a real device in sync with a table on an emulator, what a change costs there, and
answers that are lost on the way.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from botocore.exceptions import ReadTimeoutError
from device_rig import Pair
from dynamo_rig import Dynamo, adapter, tables
from relay_rig import MeteredRig, Rig, config, fault, notice, setting, stored

from cloud.dynamodb import Called
from cloud.head import public_image
from cloud.metered import MeteredTable
from cloud.table import (
    ITEM_ABSENT,
    ITEM_EXISTS,
    PK,
    PRIVATE_PREFIX,
    SK,
    BatchGet,
    Delete,
    Get,
    Key,
    Put,
    Query,
    Record,
    TableRequest,
    Transact,
    Unavailable,
    Update,
)

LIFE_MS = 5 * 60_000


class DynamoRig(Rig):
    """The relay, on a table of an emulator: only where requests go and records come from is another."""

    def __init__(self, make: Dynamo) -> None:
        super().__init__()
        self.calls: list[Called] = []
        self.make = make
        self.name = make.fresh()
        self.dynamo = adapter(make.client, self.name, on_call=self.calls.append)
        self.seen = 0
        self.written = False

    def execute(self, request: TableRequest) -> Any:
        self.written = self.written or not isinstance(request, Get | BatchGet | Query)
        return self.dynamo.execute(request)

    def records(self) -> list[Record]:
        if not self.written:
            return []  # reading a stream takes three calls
        self.written = False
        every = self.make.records(self.name)
        fresh, self.seen = every[self.seen :], len(every)
        return [record for record in fresh if self.relay.wants(record.key)]


@pytest.fixture(scope="module", params=["moto", "ministack"])
def make(request: pytest.FixtureRequest) -> Iterator[Dynamo]:
    for made in tables(request.param, lambda name: str(request.getfixturevalue(name)), "whole"):
        assert isinstance(made, Dynamo)
        yield made


def everything(rig: DynamoRig) -> dict[Key, dict[str, Any]]:
    """All items of the table but the relay's own."""
    items = rig.make.client.scan(TableName=rig.name, ConsistentRead=True)["Items"]
    keys = [(item[PK]["S"], item[SK]["S"]) for item in items]
    found = rig.execute(BatchGet(tuple(key for key in keys if not key[0].startswith(PRIVATE_PREFIX))))
    return {key: public_image(item) for key, item in found.items()}


def live(pair: Pair) -> None:
    """Writes on both sides, online and offline, with removals; then all is delivered."""
    pair.connect()
    pair.settle()
    for rev, name in enumerate("abc", 1):
        pair.write("upsert", "Fault", {"id": name, "rev": rev})
        pair.write("upsert", "Setting", {"name": name, "rev": rev})
        pair.settle()
    pair.rig.execute(Put(stored(config(1))))
    pair.rig.execute(Put(stored(notice(1, "n"))))
    pair.rig.execute(Put(stored(notice(1, "m"))))
    pair.settle()
    pair.disconnect()
    pair.write("remove", "Fault", {"id": "b"})
    pair.write("upsert", "Setting", {"name": "a", "rev": 10})
    pair.rig.execute(Put(stored(setting(20, "c", pair.rig.now_ms + 1_000))))
    pair.rig.execute(Delete(notice(1, "m")[0]))
    pair.drain(LIFE_MS)


def test_a_device_and_a_table_on_an_emulator_become_equal(make: Dynamo) -> None:
    pair = Pair()
    rig = pair.rig = DynamoRig(make)
    pair.act(pair.device.boot)
    live(pair)
    table = everything(rig)
    assert pair.device.visible() == table
    assert {key: image["rev"] for key, image in table.items()} == {
        fault(1, "a")[0]: 1,
        fault(3, "c")[0]: 3,
        setting(10, "a")[0]: 10,
        setting(2, "b")[0]: 2,
        setting(20, "c")[0]: 20,
        config(1)[0]: 1,
        notice(1, "n")[0]: 1,
    }
    assert not pair.device.store.outbox_rows


# What it costs: ministack tells the units as the service does, and moto only how often it was asked.


OPERATIONS = {
    "Get": "GetItem",
    "BatchGet": "BatchGetItem",
    "Query": "Query",
    "Put": "PutItem",
    "Delete": "DeleteItem",
    "Update": "UpdateItem",
    "Transact": "TransactWriteItems",
}


class CountedRig(MeteredRig):
    """The same, with what was asked of the table."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: Counter[str] = Counter()

    def execute(self, request: TableRequest) -> Any:
        self.asked[OPERATIONS[type(request).__name__]] += 1
        return super().execute(request)


def test_the_adapter_asks_for_what_the_bill_says(make: Dynamo) -> None:
    pairs = Pair(), Pair()
    billed, asked = CountedRig(), DynamoRig(make)
    pairs[0].rig, pairs[1].rig = billed, asked
    for pair in pairs:
        pair.act(pair.device.boot)
        live(pair)
    assert Counter(call.operation for call in asked.calls) == billed.asked
    assert not [call for call in asked.calls if call.attempt]
    if "units" in make.deviations:
        return
    units: Counter[str] = Counter()
    for call in asked.calls:
        units[call.operation] += call.units  # type: ignore[assignment]
    bill = {OPERATIONS[kind]: n for kind, n in (billed.metered.read_units + billed.metered.write_units).items()}
    assert dict(units) == bill


SMALL = {"pk": "p", "sk": "small", "text": "x"}
LARGE = {"pk": "p", "sk": "large", "text": "x" * 5_000, "n": 12345, "map": {"a": [1, None, True], "b": {}}}
PRICED: list[TableRequest] = [
    Put(SMALL),
    Put(LARGE),
    Put({**LARGE, "text": "y" * 9_000}),
    Put({**LARGE, "text": "z"}),
    Put(LARGE, ITEM_EXISTS),
    Update(("p", "large"), {"n": 1}),
    Update(("p", "large"), {"text": "w" * 3_000}, ("n",)),
    Get(("p", "large")),
    Get(("p", "missing")),
    Query("p"),
    Query("q"),
    BatchGet((("p", "large"), ("p", "small"))),
    Transact((Put({**SMALL, "text": "t" * 1_500}), Update(("p", "large"), {"m": 1}))),
    Delete(("p", "small")),
    Delete(("p", "missing")),
]


def test_every_kind_of_request_costs_what_the_bill_says(make: Dynamo) -> None:
    billed = MeteredTable()
    calls: list[Called] = []
    do = adapter(make.client, make.fresh(), on_call=calls.append).execute
    for request in PRICED:
        calls.clear()
        billed.read_units.clear()
        billed.write_units.clear()
        do(request)
        billed.execute(request, 0)
        deviation = "batch-units" if isinstance(request, BatchGet) else "units"
        (called,) = calls
        (units,) = (billed.read_units + billed.write_units).values()
        assert called.operation == OPERATIONS[type(request).__name__]
        if deviation in make.deviations:
            continue
        assert called.units == units, request


# Answers that are lost after the emulator has done what it was asked.


class Losing:
    """A client that loses the first answer to each operation of `names`, and lets another writer come between."""

    def __init__(self, client: Any, *names: str, meanwhile: Callable[[], Any] = lambda: None) -> None:
        self.client = client
        self.names = list(names)
        self.meanwhile = meanwhile

    def __getattr__(self, name: str) -> Any:
        operation = getattr(self.client, name)

        def call(**parameters: Any) -> Any:
            answer = operation(**parameters)
            if name in self.names:
                self.names.remove(name)
                self.meanwhile()
                raise ReadTimeoutError(endpoint_url="http://127.0.0.1")
            return answer

        return call


NEW = {"pk": "p", "sk": "new", "n": 1, "who": ["me", 2.5, {"$SS": ["a"]}]}
OLD = {"pk": "p", "sk": "old", "n": 1}
WRITES: list[Any] = [
    Put(NEW, ITEM_ABSENT),
    Update(("p", "old"), {"n": 2}, (), (("eq", "n", 1),)),
    Delete(("p", "old"), ITEM_EXISTS),
]
NAMES = ("put_item", "update_item", "delete_item")


@pytest.mark.parametrize(("write", "n"), [(WRITES[0], 1), (WRITES[1], 2)], ids=NAMES[:2])
def test_a_write_that_finds_its_own_effect_has_succeeded(make: Dynamo, write: Any, n: int) -> None:
    name = make.fresh()
    plain = adapter(make.client, name).execute
    plain(Put(OLD))
    assert adapter(Losing(make.client, *NAMES), name).execute(write) is None
    assert plain(Get(write.key))["n"] == n


@pytest.mark.parametrize("write", WRITES, ids=NAMES)
def test_a_write_that_another_has_written_over_is_in_doubt(make: Dynamo, write: Any) -> None:
    name = make.fresh()
    plain = adapter(make.client, name).execute
    plain(Put(OLD))
    over = {"pk": "p", "sk": write.key[1], "n": 3}
    lossy = Losing(make.client, *NAMES, meanwhile=lambda: plain(Put(over)))
    if isinstance(write, Delete):  # without anything between: gone, by whomever
        lossy.meanwhile = lambda: None
    with pytest.raises(Unavailable, match="may have happened"):
        adapter(lossy, name).execute(write)


def test_a_device_is_in_sync_when_every_kind_of_answer_is_lost_once(make: Dynamo) -> None:
    pair = Pair()
    rig = pair.rig = DynamoRig(make)
    names = ("get_item", "query", "put_item", "update_item", "transact_write_items", "batch_get_item")
    lossy = Losing(make.client, *names)
    rig.dynamo = adapter(lossy, rig.name)
    pair.act(pair.device.boot)
    pair.connect()
    pair.settle()
    for rev, name in enumerate("abc", 1):
        pair.write("upsert", "Setting", {"name": name, "rev": rev})
    pair.drain(LIFE_MS)
    assert set(lossy.names) <= {"batch_get_item"}
    assert pair.device.visible() == everything(rig)
    assert len(pair.device.visible()) == 3
    assert not pair.device.store.outbox_rows
