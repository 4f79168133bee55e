"""A real device in sync with a table through the functions, as AWS runs them: rule, stream, failures and repeats.

The table is moto's, under real boto3; every message passes the rule's form, every change that of a stream's record.
Called by pytest only.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from device_rig import Pair
from dynamo_rig import Dynamo, tables
from lambda_rig import AMPLE_MS, lambda_record, rule_message, sequence
from relay_rig import Rig, config, notice, setting, stored

from cloud.accounts import Accounts
from cloud.dynamodb import DynamoTable
from cloud.functions import Functions, NotSetAside
from cloud.functions_log import Log
from cloud.head import public_image
from cloud.registry import registration
from cloud.table import PK, PRIVATE_PREFIX, SK, BatchGet, Delete, Get, Key, Put, Query, Record, TableRequest, Throttled

LIFE_MS = 8 * 60_000


class FunctionsRig(Rig):
    """The relay behind its functions, on a table of moto's. `every`: each so many requests one is throttled,
    which must be more than one message takes: it would never be done."""

    def __init__(self, make: Dynamo, every: int = 0) -> None:
        super().__init__()
        self.name = make.fresh()
        self.make = make
        self.every = every
        self.requests = 0
        self.seen = 0
        self.written = False
        self.totals: Counter[str] = Counter()
        pauses: list[float] = []
        self.dynamo = DynamoTable(
            make.client, self.name, wait=pauses.append, chance=lambda: 0.5, token=lambda: f"{self.name}.{self.requests}"
        )
        accounts = Accounts(lambda: self.now_ms)
        self.relay.account_of = accounts.of
        log = Log(self.hear, lambda: self.now_ms, {"table": self.name})
        self.functions = Functions(self.relay, accounts, self.asked, self.published.append, self.refuse, log, 1_000)
        self.execute(registration("home-1", "main", self.now_ms))

    def hear(self, line: str) -> None:
        """Sums up what the functions' metrics say."""
        values = json.loads(line)
        for about in values.get("_aws", {}).get("CloudWatchMetrics", ()):
            for metric in about["Metrics"]:
                self.totals[metric["Name"]] += values[metric["Name"]]

    def refuse(self, reason: str, record: Any) -> None:
        raise NotSetAside(reason)

    def execute(self, request: TableRequest) -> Any:
        self.written = self.written or not isinstance(request, Get | BatchGet | Query)
        return self.dynamo.execute(request)

    def asked(self, request: TableRequest) -> Any:
        self.requests += 1
        if self.every and self.requests % self.every == 0:
            raise Throttled("the test says so")
        return self.execute(request)

    def records(self) -> list[Record]:
        if not self.written:
            return []  # reading a stream takes three calls
        self.written = False
        all_of_them = self.make.records(self.name)
        fresh, self.seen = all_of_them[self.seen :], len(all_of_them)
        return fresh


class FunctionsPair(Pair):
    """The wire ends at the functions. `batch`: how many records an invocation gets."""

    def __init__(self, rig: FunctionsRig, batch: int) -> None:
        super().__init__()
        self.rig = self.functions_rig = rig
        self.batch = batch
        self.act(self.device.boot)

    def deliver_up(self, payload: bytes) -> None:
        self.functions_rig.functions.on_message(rule_message("home-1", payload), lambda: AMPLE_MS)

    def sequence(self, record: Record) -> None:
        """An invocation with this record and those behind it; what failed, and all after it, comes again."""
        batch = [record, *self.records[: self.batch - 1]]
        del self.records[: self.batch - 1]
        raw = list(map(lambda_record, batch))
        answer = self.functions_rig.functions.on_stream({"Records": raw}, lambda: AMPLE_MS)
        for failure in answer["batchItemFailures"]:
            at = [sequence(each) for each in raw].index(failure["itemIdentifier"])
            self.records[:0] = batch[at:]


@pytest.fixture(scope="module")
def make() -> Iterator[Dynamo]:
    for made in tables("moto", str, "functions"):
        assert isinstance(made, Dynamo)
        yield made


def everything(rig: FunctionsRig) -> dict[Key, dict[str, Any]]:
    items = rig.make.client.scan(TableName=rig.name, ConsistentRead=True)["Items"]
    keys = [(item[PK]["S"], item[SK]["S"]) for item in items]
    found = rig.execute(BatchGet(tuple(key for key in keys if not key[0].startswith(PRIVATE_PREFIX))))
    return {key: public_image(item) for key, item in found.items()}


@pytest.mark.parametrize(("every", "batch"), [(0, 1), (0, 10), (13, 3), (11, 5)])
def test_a_device_and_the_table_become_equal(make: Dynamo, every: int, batch: int) -> None:
    rig = FunctionsRig(make, every)
    pair = FunctionsPair(rig, batch)
    pair.connect()
    pair.drain(LIFE_MS)
    for rev, name in enumerate("abc", 1):
        pair.write("upsert", "Fault", {"id": name, "rev": rev})
        pair.write("upsert", "Setting", {"name": name, "rev": rev})
    rig.execute(Put(stored(config(1))))
    rig.execute(Put(stored(notice(1, "n"))))
    rig.execute(Put(stored(notice(1, "m"))))
    pair.drain(LIFE_MS)
    pair.disconnect()
    pair.write("remove", "Fault", {"id": "b"})
    pair.write("upsert", "Setting", {"name": "a", "rev": 10})
    rig.execute(Put(stored(setting(20, "c", rig.now_ms + 1_000))))
    rig.execute(Delete(notice(1, "m")[0]))
    pair.connect()
    pair.drain(3 * LIFE_MS)
    table = everything(rig)
    assert pair.device.visible() == table
    assert {key[1]: image["rev"] for key, image in table.items()} == {
        "fault#a": 1, "fault#c": 3, "setting#a": 10, "setting#b": 2, "setting#c": 20, "config#": 1, "notice#n": 1,
    }  # fmt: skip
    assert not pair.device.store.outbox_rows
    assert rig.totals["messages"] > 3 and rig.totals["stream_records"] > 5 and rig.totals["stream_ignored"] > 0
    assert bool(rig.totals["stream_failed"]) is bool(every)
    assert not rig.totals["stream_set_aside"]
