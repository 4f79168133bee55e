"""A table becomes Fleet's by adding what it lacks; nothing is taken away, and nothing of others is touched.

Called by pytest only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest
from dynamo_rig import moto_in_process
from relay_rig import SCHEMA
from watched import Watched

from agent.protocol.schema import Schema
from cloud import provision
from cloud.dynamodb_errors import Unusable
from cloud.dynamodb_table import definition, open_table
from cloud.provision import Provisioner
from cloud.table import MARKER_KEY
from cloud.table_definition import whole

INDEXED: Final = Schema.parse(
    SCHEMA.text.replace(
        "primary: {hash: 'pk', sort: 'sk'}",
        "primary: {hash: 'pk', sort: 'sk'}, gs1: {hash: '_type', sort: 'rev'}, gs2: {hash: 'state', project: 'keys'}",
    ),
    "s.json5",
)
LOCAL: Final = Schema.parse(
    SCHEMA.text.replace(
        "primary: {hash: 'pk', sort: 'sk'}", "primary: {hash: 'pk', sort: 'sk'}, ls1: {sort: 'rev', type: 'local'}"
    ),
    "s.json5",
)


@pytest.fixture
def client() -> Iterator[Watched]:
    with moto_in_process() as made:
        yield Watched(made("dynamodb"))


class Waits:
    """Seconds that were waited for, and what happens meanwhile."""

    def __init__(self, then: Callable[[], None] = lambda: None) -> None:
        self.taken_s: list[float] = []
        self.then = then

    def __call__(self, seconds: float) -> None:
        self.taken_s.append(seconds)
        self.then()


def provisioner(client: Any, schema: Schema | None = SCHEMA) -> Provisioner:
    return Provisioner(client, "mine", schema, Waits())


def make(client: Any, schema: Schema | None = SCHEMA) -> list[str]:
    """Does all that is planned; the texts."""
    plan = provisioner(client, schema).plan()
    for change in plan.changes:
        change.make()
    return [change.text for change in plan.changes]


def foreign(client: Watched, **changed: Any) -> dict[str, Any]:
    """A table of somebody else's, with an item; its description."""
    wanted = {**definition("mine"), **changed}
    client.client.create_table(**{name: value for name, value in wanted.items() if value is not None})
    client.client.put_item(TableName="mine", Item={"pk": {"S": "theirs"}, "sk": {"S": "1"}, "n": {"N": "1"}})
    return state(client)


def state(client: Watched) -> dict[str, Any]:
    return {
        "table": client.client.describe_table(TableName="mine")["Table"],
        "ttl": client.client.describe_time_to_live(TableName="mine")["TimeToLiveDescription"],
        "items": client.client.scan(TableName="mine")["Items"],
    }


def refused(client: Watched, words: str, schema: Schema | None = SCHEMA) -> None:
    before = state(client)
    with pytest.raises(Unusable, match=f"(?s){words}"):
        provisioner(client, schema).plan()
    assert client.writes == []
    assert state(client) == before


# Making and looking


@pytest.mark.parametrize("schema", [None, SCHEMA, INDEXED, LOCAL])
def test_a_new_table_has_everything_and_the_second_time_nothing_is_done(client: Watched, schema: Schema | None) -> None:
    assert not provisioner(client, schema).plan().exists
    made = make(client, schema)
    assert len(made) == 3 and made[0].startswith("create the table 'mine'")
    assert open_table(client, "mine")
    client.asked.clear()
    before = state(client)
    assert make(client, schema) == []
    assert client.writes == []
    assert state(client) == before


def test_a_plan_reads_only(client: Watched) -> None:
    provisioner(client).plan()
    assert client.writes == []
    foreign(client)
    provisioner(client).plan()
    assert client.writes == []


def test_what_is_there_stays(client: Watched) -> None:
    foreign(client, StreamSpecification=None)
    texts = make(client, INDEXED)
    words = [" ".join(text.replace(",", "").replace(":", "").split()[:4]) for text in texts]
    assert words == [
        "switch the stream on", "switch the time to", "add the index gs1", "add the index gs2", "put the marker the",
    ]  # fmt: skip
    after = state(client)
    assert {"pk": {"S": "theirs"}, "sk": {"S": "1"}, "n": {"N": "1"}} in after["items"]
    assert len(after["items"]) == 2
    assert make(client, INDEXED) == []


def test_the_marker_comes_last(client: Watched) -> None:
    """Whoever is interrupted has a table that is not Fleet's yet, and goes on from there."""
    plan = provisioner(client).plan()
    plan.changes[0].make()
    with pytest.raises(Unusable, match="no marker"):
        open_table(client, "mine")
    again = provisioner(client).plan()
    assert again.exists and [change.text for change in again.changes] == [change.text for change in plan.changes[1:]]


def test_two_at_once_make_one_marker(client: Watched) -> None:
    first, second = provisioner(client), provisioner(client)
    foreign(client)
    plans = [first.plan(), second.plan()]
    for plan in plans:
        plan.changes[-1].make()
    client.client.update_item(
        TableName="mine", Key={"pk": {"S": MARKER_KEY[0]}, "sk": {"S": MARKER_KEY[1]}},
        UpdateExpression="SET more = :v", ExpressionAttributeValues={":v": {"S": "1"}},
    )  # fmt: skip
    plans[0].changes[-1].make()  # a marker that says more is not replaced
    item = client.client.get_item(TableName="mine", Key={"pk": {"S": MARKER_KEY[0]}, "sk": {"S": MARKER_KEY[1]}})
    assert item["Item"]["more"] == {"S": "1"}


def test_a_table_that_takes_its_time_is_waited_for(client: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    describe = client.client.describe_table
    answers = iter(["CREATING", "CREATING"])

    def slowly(**given: Any) -> Any:
        answer = describe(**given)
        answer["Table"]["TableStatus"] = next(answers, "ACTIVE")
        return answer

    wait = Waits()
    plan = Provisioner(client, "mine", SCHEMA, wait).plan()
    monkeypatch.setattr(client.client, "describe_table", slowly)
    plan.changes[0].make()
    assert wait.taken_s == [provision.WAIT_S] * 2


def test_a_table_that_never_becomes_active_is_told(client: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    describe = client.client.describe_table
    plan = provisioner(client).plan()

    def never(**given: Any) -> Any:
        answer = describe(**given)
        answer["Table"]["TableStatus"] = "CREATING"
        return answer

    monkeypatch.setattr(client.client, "describe_table", never)
    with pytest.raises(Unusable, match=r"still not ACTIVE.*goes on from there"):
        plan.changes[0].make()


# What is refused, with nothing done


def test_other_keys_are_refused(client: Watched) -> None:
    client.client.create_table(
        TableName="mine",
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    refused(client, r"keys of table 'mine'.*id \(HASH, S\).*another table")


@pytest.mark.parametrize("view", ["KEYS_ONLY", "NEW_IMAGE", "OLD_IMAGE"])
def test_a_stream_of_somebody_elses_is_left_alone(client: Watched, view: str) -> None:
    foreign(client, StreamSpecification={"StreamEnabled": True, "StreamViewType": view})
    refused(client, f"{view}.*Somebody may read that stream")


def test_a_time_to_live_elsewhere_is_left_alone(client: Watched) -> None:
    foreign(client)
    client.client.update_time_to_live(
        TableName="mine", TimeToLiveSpecification={"Enabled": True, "AttributeName": "expires"}
    )
    refused(client, "'expires'.*'ttl'.*one attribute")


def test_a_time_to_live_that_is_being_switched_off_is_waited_for_by_the_person(
    client: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    foreign(client)
    told = {"TimeToLiveDescription": {"TimeToLiveStatus": "DISABLING", "AttributeName": "ttl"}}
    monkeypatch.setattr(client.client, "describe_time_to_live", lambda **given: told)
    refused(client, "switching its time to live off.*an hour")


def test_an_index_of_other_keys_is_refused(client: Watched) -> None:
    make(client, INDEXED)
    client.asked.clear()
    other = Schema.parse(INDEXED.text.replace("gs1: {hash: '_type', sort: 'rev'}", "gs1: {hash: 'text'}"), "s.json5")
    refused(client, "index 'gs1' of table 'mine'.* is of _type and rev", other)


def test_a_local_index_that_is_missing_is_refused(client: Watched) -> None:
    make(client, SCHEMA)
    client.asked.clear()
    refused(client, "no local index 'ls1'.*comes with its table", LOCAL)


def test_a_table_that_is_being_deleted_is_refused(client: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    foreign(client)
    describe = client.client.describe_table

    def deleting(**given: Any) -> Any:
        answer = describe(**given)
        answer["Table"]["TableStatus"] = "DELETING"
        return answer

    monkeypatch.setattr(client.client, "describe_table", deleting)
    refused(client, "DELETING.*Wait")


def test_an_index_more_than_the_schema_has_stays(client: Watched) -> None:
    make(client, INDEXED)
    assert make(client, SCHEMA) == []
    assert len(state(client)["table"]["GlobalSecondaryIndexes"]) == 2


def test_the_definition_is_of_the_schema() -> None:
    wanted = whole("mine", INDEXED)
    types = {each["AttributeName"]: each["AttributeType"] for each in wanted["AttributeDefinitions"]}
    assert types == {"pk": "S", "sk": "S", "_type": "S", "rev": "N", "state": "S"}
