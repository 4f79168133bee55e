"""What a table lacks to be Fleet's, and how it gets it: table, stream, time to live, indexes, and the marker at last.

Only adds: it never takes anything away, switches nothing off, and changes nothing that somebody else may rely on; what
stands in the way is refused with its reason. A table that has all of it gets no write at all. Called by
`fleet-cloud provision`, which shows the changes before it makes them. Raises Unusable.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from agent.protocol.onetable.attributes import key_attributes
from agent.protocol.schema import Schema
from cloud import table_definition
from cloud.dynamodb_errors import Unusable
from cloud.dynamodb_table import VIEW, asked, check_keys, marker, place_of, ttl_of
from cloud.table import MARKER_KEY, PK

WAIT_S: Final = 2.0  # between two looks at a table that is being made
WAITS_MAX: Final = 300


@dataclass(frozen=True, slots=True)
class Change:
    """`text`: for a person, as an order. `make`: sends it, and waits until it is done."""

    text: str
    make: Callable[[], None]


@dataclass(frozen=True, slots=True)
class Plan:
    place: str
    exists: bool
    changes: tuple[Change, ...]


class Provisioner:
    """One table. `wait` takes seconds."""

    def __init__(self, client: Any, name: str, schema: Schema | None, wait: Callable[[float], None]) -> None:
        self._client = client
        self._name = name
        self._schema = schema
        self._wait = wait
        self._ttl = table_definition.ttl_attribute(schema)
        self._wanted = table_definition.whole(name, schema)

    def plan(self) -> Plan:
        """Reads only."""
        place = place_of(self._client, self._name)
        found = self._described()
        if found is None:
            made = [f"create the table {self._name!r} with its stream ({VIEW})"]
            made += [f"index {index['IndexName']}" for index in self._indexes(self._wanted).values()]
            create = Change(", ".join(made), self._create)
            return Plan(place, False, (create, self._ttl_change(), self._marker_change()))
        check_keys(found, place)
        changes = [*self._of_stream(found, place), *self._of_ttl(place), *self._of_indexes(found, place)]
        if not self._is_marked():
            changes.append(self._marker_change())
        return Plan(place, True, tuple(changes))

    # What is there

    def _described(self) -> Mapping[str, Any] | None:
        client = self._client
        try:
            answer: Mapping[str, Any] = self._asked(lambda: _found(client, self._name))
        except LookupError:
            return None
        table: Mapping[str, Any] = answer["Table"]
        return table

    def _is_marked(self) -> bool:
        key = key_attributes(MARKER_KEY)
        return "Item" in self._asked(lambda: self._client.get_item(TableName=self._name, Key=key, ConsistentRead=True))

    def _of_stream(self, found: Mapping[str, Any], place: str) -> list[Change]:
        stream = found.get("StreamSpecification", {})
        if not stream.get("StreamEnabled"):
            return [Change(f"switch the stream on, with view type {VIEW}", self._switch_stream_on)]
        if stream.get("StreamViewType") != VIEW:
            raise Unusable(
                f"{place} has a stream that shows {stream.get('StreamViewType')}, and Fleet needs {VIEW}",
                "Somebody may read that stream, so it is left alone: switch it off yourself, or give another table",
            )
        return []

    def _of_ttl(self, place: str) -> list[Change]:
        status, attribute = ttl_of(self._client, self._name)
        if status in ("ENABLED", "ENABLING"):
            if attribute != self._ttl:
                raise Unusable(
                    f"{place} has its time to live in {attribute!r}, and the schema in {self._ttl!r}",
                    "A table has one attribute for it: map the schema's fields to it, or give another table",
                )
            return []
        if status == "DISABLING":
            raise Unusable(f"{place} is switching its time to live off", "That takes an hour: try again then")
        return [self._ttl_change()]

    def _of_indexes(self, found: Mapping[str, Any], place: str) -> list[Change]:
        have, want = self._indexes(found), self._indexes(self._wanted)
        changes = []
        for name, index in want.items():
            if name not in have:
                if any(index is local for local in self._wanted.get("LocalSecondaryIndexes", ())):
                    raise Unusable(
                        f"{place} has no local index {name!r}",
                        "A local index comes with its table alone: give another table, or make the index global",
                    )
                changes.append(Change(f"add the index {name}", self._adding(index)))
            elif have[name]["KeySchema"] != index["KeySchema"]:
                keys = " and ".join(key["AttributeName"] for key in have[name]["KeySchema"])
                raise Unusable(
                    f"The index {name!r} of {place} is of {keys}, the schema's is not",
                    "The keys of an index cannot be changed: name the schema's index otherwise",
                )
        return changes

    @staticmethod
    def _indexes(table: Mapping[str, Any]) -> dict[str, Any]:
        kinds = ("GlobalSecondaryIndexes", "LocalSecondaryIndexes")
        return {index["IndexName"]: index for kind in kinds for index in table.get(kind) or ()}

    # Changing it

    def _create(self) -> None:
        self._asked(lambda: self._client.create_table(**self._wanted))
        self._wait_until_active()

    def _switch_stream_on(self) -> None:
        stream = {"StreamEnabled": True, "StreamViewType": VIEW}
        self._asked(lambda: self._client.update_table(TableName=self._name, StreamSpecification=stream))
        self._wait_until_active()

    def _ttl_change(self) -> Change:
        wanted = {"Enabled": True, "AttributeName": self._ttl}

        def switch_on() -> None:
            self._asked(lambda: self._client.update_time_to_live(TableName=self._name, TimeToLiveSpecification=wanted))

        return Change(f"switch the time to live on, in {self._ttl!r}", switch_on)

    def _adding(self, index: dict[str, Any]) -> Callable[[], None]:
        """The service wants the attributes of all keys that there are, and of no others."""
        keys = [key["AttributeName"] for key in index["KeySchema"]]

        def add() -> None:
            present: list[Any] = list((self._described() or {}).get("AttributeDefinitions", ()))
            known = [each["AttributeName"] for each in present]
            wanted = [each for each in self._wanted["AttributeDefinitions"] if each["AttributeName"] in keys]
            present += [each for each in wanted if each["AttributeName"] not in known]
            parameters = {"AttributeDefinitions": present, "GlobalSecondaryIndexUpdates": [{"Create": index}]}
            self._asked(lambda: self._client.update_table(TableName=self._name, **parameters))
            self._wait_until_active()

        return add

    def _marker_change(self) -> Change:
        put = {"TableName": self._name, "Item": marker(), "ConditionExpression": "attribute_not_exists(#pk)"}

        def mark() -> None:
            try:
                self._asked(lambda: self._client.put_item(**put, ExpressionAttributeNames={"#pk": PK}))
            except Unusable:
                if not self._is_marked():  # else somebody was faster
                    raise

        return Change("put the marker: the table is Fleet's from then on", mark)

    def _wait_until_active(self) -> None:
        """The table and all its indexes."""
        for _ in range(WAITS_MAX):
            found = self._described() or {}
            states = [found.get("TableStatus"), *(each.get("IndexStatus") for each in self._indexes(found).values())]
            if all(state in ("ACTIVE", None) for state in states) and found.get("TableStatus") == "ACTIVE":
                return
            self._wait(WAIT_S)
        place = place_of(self._client, self._name)
        raise Unusable(f"{place} is still not ACTIVE", "Run `fleet-cloud provision` again later: it goes on from there")

    def _asked(self, call: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any]:
        return asked(self._client, self._name, call)


def _found(client: Any, name: str) -> Mapping[str, Any]:
    """Raises LookupError when there is no such table."""
    try:
        answer: Mapping[str, Any] = client.describe_table(TableName=name)
    except client.exceptions.ResourceNotFoundException:
        raise LookupError(name) from None
    return answer
