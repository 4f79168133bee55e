"""Units of a run with quotas, in memory and on moto, against a bill made of the very calls that the adapter sends.

moto's own ConsumedCapacity is not asked: it knows nothing of sizes. The bill is made here, from the parameters of each
call and from what moto holds just before it: 1 KB a write unit, the larger image counts, 4 KB a strong read unit, a
transaction twice.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
from run_rig import CALM, busy_plan

from cloud.dynamodb_values import attributes_bytes
from fleet.backends.opening import Backend, opened
from fleet.backends.table import EmulatedTable
from fleet.quota.setup import quotas_of
from fleet.quota.table import QuotaTable
from fleet.scenario.plan import Plan, QuotaPlan
from fleet.world.world import World
from reports.quotas import Usage

Attributes = Mapping[str, Any]
BRIEF = (
    CALM.replace("duration: 12m", "duration: 90s").replace("warm_up: 1m, quiesce: 3m", "warm_up: 20s, quiesce: 30s")
    + "faults:\n  - {kind: relay-stall, rate: 120/h, duration: 20s}\n"
    + "  - {kind: stream-replay, share: 20%, late: [1s, 10s]}\n"
    + "cloud: {worker_life: 30s, record_life: 1m, feed_retention: 5m, ttl_margin: 1m}\n"
)


class Bill:
    """Stands before the adapter's methods of a client."""

    def __init__(self, table: EmulatedTable) -> None:
        adapter = table._table
        self.name = adapter.name
        self.client = adapter._client
        self.write_units = self.read_units = 0
        self.calls: Counter[str] = Counter()
        for operation, method in list(adapter._methods.items()):
            adapter._methods[operation] = self.method(operation, method)

    def method(self, operation: str, method: Callable[..., Any]) -> Callable[..., Any]:
        price = getattr(self, operation)

        def call(**parameters: Any) -> Any:
            self.calls[operation] += 1
            if operation in ("GetItem", "BatchGetItem", "Query"):
                answer = method(**parameters)
                price(parameters, answer)
                return answer
            self.write_units += price(parameters)  # before, and also where the condition then fails
            return method(**parameters)

        return call

    def size(self, item: Attributes | None) -> int:
        return attributes_bytes(item) if item else 0

    def stored(self, key: Attributes) -> Attributes | None:
        found: Attributes | None = self.client.get_item(TableName=self.name, Key=key, ConsistentRead=True).get("Item")
        return found

    def read(self, size_bytes: int) -> None:
        self.read_units += max(1, -(-size_bytes // 4096))

    def GetItem(self, parameters: Any, answer: Any) -> None:
        self.read(self.size(answer.get("Item")))

    def Query(self, parameters: Any, answer: Any) -> None:
        self.read(sum(self.size(item) for item in answer["Items"]))

    def BatchGetItem(self, parameters: Any, answer: Any) -> None:
        found = {(one["pk"]["S"], one["sk"]["S"]): one for one in answer["Responses"].get(self.name, ())}
        for key in parameters["RequestItems"][self.name]["Keys"]:
            self.read(self.size(found.get((key["pk"]["S"], key["sk"]["S"]))))

    def written(self, before: Attributes | None, after: Attributes | None) -> int:
        return max(1, -(-max(self.size(before), self.size(after)) // 1024))

    def PutItem(self, parameters: Any) -> int:
        item = parameters["Item"]
        return self.written(self.stored({"pk": item["pk"], "sk": item["sk"]}), item)

    def DeleteItem(self, parameters: Any) -> int:
        return self.written(self.stored(parameters["Key"]), None)

    ConditionCheck = DeleteItem

    def UpdateItem(self, parameters: Any) -> int:
        before = self.stored(parameters["Key"])
        after = {**parameters["Key"], **(before or {})}
        names, values = parameters.get("ExpressionAttributeNames", {}), parameters.get("ExpressionAttributeValues", {})
        for name, value in re.findall(r"(#\w+) = (:\w+)", parameters["UpdateExpression"]):
            after[names[name]] = values[value]
        for name in re.findall(r"#\w+", parameters["UpdateExpression"].partition("REMOVE")[2]):
            after.pop(names[name], None)
        return self.written(before, after)

    def TransactWriteItems(self, parameters: Any) -> int:
        prices = {"Put": self.PutItem, "Delete": self.DeleteItem, "Update": self.UpdateItem}
        units = 0
        for action in parameters["TransactItems"]:
            ((kind, inner),) = action.items()
            units += 2 * prices.get(kind, self.ConditionCheck)(inner)
        return units


def used(plan: Plan, backend: str) -> tuple[Usage, str, Bill | None]:
    with opened(Backend(backend), plan.cloud) as table:
        bill = Bill(table) if isinstance(table, EmulatedTable) else None
        world = World(plan, table=table)
        world.run()
        quotas = quotas_of(world)  # before the final read, which the relay has no part in
        world.finish()
        assert quotas is not None and isinstance(world.table, QuotaTable)
        assert not [check for check in world.checks if check.status == "fail"]
        return quotas.usage, world.trace.finish(), bill


def test_units_of_a_run_are_those_of_the_calls_that_the_adapter_makes(tmp_path: Path) -> None:
    plan = msgspec.structs.replace(busy_plan(tmp_path, 2, BRIEF), quotas=QuotaPlan())
    memory, memory_hash, _ = used(plan, "memory")
    moto, moto_hash, bill = used(plan, "moto")
    assert bill is not None and moto_hash == memory_hash
    assert bill.calls.keys() >= {"GetItem", "Query", "PutItem", "TransactWriteItems"}, bill.calls
    assert memory == moto
    assert (bill.write_units, bill.read_units) == (memory.write_units, memory.read_units)
    assert memory.write_units > 200 and memory.read_units > 200
