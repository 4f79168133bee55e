"""A run on a table of AWS that a person named: what that table must be, and how it is left.

The table must be Fleet's (its marker item), hold nothing else, and have its time to live off, since the items of a run
carry virtual times. It is looked at before anything is written, and never made, changed or deleted. What the run writes
is taken out again at its end: those keys, and no others. Called by fleet.backends.opening and by `fleet run`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import count
from typing import Any, Final

from cloud.dynamodb import DynamoTable
from cloud.dynamodb_errors import Unusable
from cloud.dynamodb_table import asked, connect, our_table, place_of, ttl_of
from cloud.dynamodb_values import item_of
from cloud.incarnation import INCARNATION
from cloud.system import chance, pause, random_hex
from cloud.table import (
    MARKER_KEY,
    BatchGet,
    Check,
    Delete,
    Get,
    InvalidRequest,
    Item,
    Key,
    Put,
    Query,
    TableError,
    TableRequest,
    Transact,
)
from cloud.table_rules import key_of
from fleet.backends.failure import BackendFailed
from fleet.backends.stream import StreamReader
from fleet.backends.table import EmulatedTable
from fleet.scenario.plan import CloudPlan
from fleet.world.table import WorldTable, retain_ms

PAUSE_S: Final = 0.25  # a shard may be read five times a second
_HINT: Final = "Give a table that was made for runs alone"


def look(client: Any, name: str) -> str:
    """The name (ARN) of the table's stream. Reads only. Raises Unusable for a table that a run must not have."""
    stream, marker = our_table(client, name)
    place = place_of(client, name)
    if INCARNATION in marker:
        raise Unusable(f"{place} has been marked after a restore: somebody uses it", _HINT)
    status, attribute = ttl_of(client, name)
    if status != "DISABLED":
        raise Unusable(
            f"The time to live of {place} is {status}: the service would sweep what a run writes, whose times are "
            "virtual",
            "Switch it off, with `aws dynamodb update-time-to-live --table-name "
            f"{name} --time-to-live-specification Enabled=false,AttributeName={attribute or 'ttl'}`",
        )
    _empty(client, name, place)
    return stream


def _empty(client: Any, name: str, place: str) -> None:
    start: dict[str, Any] = {}
    while True:
        page = asked(client, name, partial(client.scan, TableName=name, ConsistentRead=True, Limit=2, **start))
        other = [key for key in map(key_of, map(item_of, page["Items"])) if key != MARKER_KEY]
        if other:
            raise Unusable(
                f"{place} holds other items than the marker, such as {' / '.join(other[0])}",
                f"{_HINT}; what a run that was killed has left has to be removed by hand",
            )
        if not page.get("LastEvaluatedKey"):
            return
        start = {"ExclusiveStartKey": page["LastEvaluatedKey"]}


class Noting(DynamoTable):
    """Keeps the key of every item that it was asked to write, whatever came of it."""

    def __init__(self, client: Any, name: str, own: str) -> None:
        numbers = count()
        super().__init__(client, name, wait=pause, chance=chance, token=lambda: f"{own}.{next(numbers)}")
        self.touched: dict[Key, None] = {}

    def execute(self, request: TableRequest) -> Any:
        if not isinstance(request, Get | BatchGet | Query):
            for action in request.actions if isinstance(request, Transact) else (request,):
                if not isinstance(action, Check):
                    key = key_of(action.item) if isinstance(action, Put) else action.key
                    if key == MARKER_KEY:
                        raise InvalidRequest("a run does not write the marker of a table that was given")
                    self.touched[key] = None
        return super().execute(request)

    def clean(self) -> None:
        """Takes out what was written. Raises TableError."""
        for key in self.touched:
            super().execute(Delete(key))


class GivenTable(EmulatedTable):
    """Is never put back to an older copy."""

    def restore(self, items: Iterable[Item]) -> None:
        raise BackendFailed("a table that was given is not put back to an older copy")


@contextmanager
def given(name: str, plan: CloudPlan) -> Iterator[WorldTable]:
    """The table for one run. Credentials and region come from where AWS's own tools find them. Raises Unusable, and
    BackendFailed where it could not be cleaned."""
    client, streams = connect(), connect(service="dynamodbstreams")
    reader = StreamReader(streams, look(client, name))
    table = Noting(client, name, random_hex(16))
    try:
        yield GivenTable(client, table, reader, plan.shards, retain_ms=retain_ms(plan), wait=pause, pause_s=PAUSE_S)
    finally:
        try:
            table.clean()
        except TableError as error:
            left = f"{place_of(client, name)} still holds items of this run"
            raise BackendFailed(f"{left}, which could not be removed: {error}") from None
