"""What our requests do to a table of DynamoDB's, on moto's server: what the JavaScript library's do, case by case.

An application in the cloud writes through agent.protocol.onetable.expressions; the same corpus, and the same raw items,
as for the device's engine (test_engine.py). Each step has the stored item at hand, then once more without it: what can
be done without must end the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import pytest
from botocore.exceptions import ClientError
from emulators import client
from onetable.capture import expected, states
from onetable.case import Case, Step
from onetable.corpus import CASES
from onetable.engine import raw_item, start
from onetable.values import Raw

from agent.protocol.errors import ModelError
from agent.protocol.messages import Image, Key
from agent.protocol.onetable.attributes import AttributeMap, from_item, key_attributes, to_item
from agent.protocol.onetable.expressions import Requests, Write

EXPECTED: Final = expected()
TABLE: Final = "requests"
REFUSED: Final = ("ConditionalCheckFailedException", "TransactionCanceledException")


@pytest.fixture(scope="module")
def dynamo(moto: str) -> Iterator[Any]:
    boto = client(moto)
    boto.create_table(
        TableName=TABLE,
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
        AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in ("pk", "sk")],
        BillingMode="PAY_PER_REQUEST",
    )
    yield boto
    boto.delete_table(TableName=TABLE)


class CloudApplication:
    """Carries a case out by requests. `looks`: it reads the stored item before it writes."""

    def __init__(self, case: Case, dynamo: Any, looks: bool) -> None:
        engine = start(case)
        self.model, self.context = engine.model, engine.context
        self.requests = Requests(engine.model, TABLE)
        self.dynamo = dynamo
        self.looks = looks

    def carry_out(self, step: Step) -> bool:
        """Whether the write was taken. Raises ModelError `before` where it cannot be done without a look."""
        if step.raw is not None:
            self.dynamo.put_item(TableName=TABLE, Item=_for_boto(step.raw))
            return True
        if step.verb in ("get", "find"):
            return True
        try:
            method, parameters = self.write(step).request()
            getattr(self.dynamo, method)(**parameters)
        except ModelError as error:
            if error.code == "before":
                raise
            return False
        except ClientError as error:
            if error.response["Error"]["Code"] not in REFUSED:
                raise
            return False
        return True

    def write(self, step: Step) -> Write:
        requests, props, context = self.requests, step.props, self.context
        if step.verb == "create":
            return requests.create(props, context, step.now_ms, _masked)
        before: dict[str, Any] = {}
        if self.looks:
            image = self.stored(self.model.key(props, context))
            if image is None and step.verb == "update":
                raise ModelError("missing", "there is nothing to change", model=self.model.name)
            before = {"before": image}
        if step.verb == "update":
            return requests.update(props, context, step.now_ms, **before)
        if step.verb == "upsert":
            return requests.upsert(props, context, step.now_ms, _masked, **before)
        return requests.remove(props, context, **before)

    def stored(self, key: Key) -> Image | None:
        answer = self.dynamo.get_item(TableName=TABLE, Key=key_attributes(key), ConsistentRead=True)
        return from_item(answer["Item"])[1] if "Item" in answer else None

    def raw(self) -> list[Raw]:
        items = [raw_item(item) for item in self.dynamo.scan(TableName=TABLE)["Items"]]
        return sorted(items, key=lambda item: (item["pk"]["S"], item["sk"]["S"]))

    def clear(self) -> None:
        for item in self.dynamo.scan(TableName=TABLE)["Items"]:
            self.dynamo.delete_item(TableName=TABLE, Key={"pk": item["pk"], "sk": item["sk"]})


def _masked(kind: str) -> str:
    return f"<{kind}>"


def _for_boto(raw: Raw) -> AttributeMap:
    key, image = from_item(raw)
    return to_item(key, image)


def ends(case: Case, dynamo: Any, looks: bool) -> str:
    """ "" where every step ends as the library's did; else where it parts."""
    application = CloudApplication(case, dynamo, looks)
    record = EXPECTED[case.name]
    try:
        for number, (step, wanted, after) in enumerate(
            zip(case.steps, record["steps"], states(record), strict=True), 1
        ):
            taken = application.carry_out(step)
            if taken != ("error" not in wanted or "items" in wanted):
                return f"{'takes' if taken else 'refuses'} step {number}, {step.verb}"
            if application.raw() != after:
                return f"stores otherwise in step {number}, {step.verb}"
    finally:
        application.clear()
    return ""


SAME: Final = [name for name, case in CASES.items() if not case.ours]
# All take a minute: every sixth is enough to see most mistakes at once.
SOME: Final = [pytest.param(name, marks=[pytest.mark.slow] if n % 6 else []) for n, name in enumerate(SAME)]


@pytest.mark.parametrize("name", SOME)
def test_requests_do_to_the_table_what_the_librarys_do(name: str, dynamo: Any) -> None:
    assert ends(CASES[name], dynamo, looks=True) == ""


@pytest.mark.parametrize("name", SOME)
def test_what_can_be_written_without_a_look_ends_the_same(name: str, dynamo: Any) -> None:
    try:
        end = ends(CASES[name], dynamo, looks=False)
    except ModelError as error:
        assert error.code == "before"
    else:
        assert end == ""
