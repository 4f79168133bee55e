"""The Table port on DynamoDB: executes the requests of `cloud.table` through a boto3 client that is given.

It never creates, changes or deletes a table, reads no clock, and draws and waits only through what it is given. All
reads are strong. Botocore's own retries are off (`cloud.dynamodb_table.connect`): what is asked again, and how often,
is decided here, because only here it is known what asking again would do:

- Reads are asked again, and so is everything that certainly was not done.
- A write whose answer was lost may have happened. A transaction is sent again under its token, which the service
  carries out once. A conditional write is sent again, too: if its condition then fails on just the state that it was
  to make, it has succeeded; if it fails otherwise, nobody can know, and the caller is told so (Unavailable). A write
  without a condition is not sent again: it could undo what others have written since.

Thread-safe, as boto3's clients are. Called by a service's driver, one call a request.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from agent.protocol.onetable.attributes import AttributeMap
from cloud import dynamodb_requests as requests
from cloud.dynamodb_errors import RAISED, Fault, fault_of
from cloud.dynamodb_requests import Call
from cloud.dynamodb_values import attributes_of, item_of
from cloud.retry import Retry
from cloud.table import (
    SK,
    BatchGet,
    Delete,
    Get,
    InvalidRequest,
    Item,
    Key,
    Page,
    Put,
    Query,
    TableRequest,
    Throttled,
    Transact,
    Unavailable,
    Update,
)


class Called(msgspec.Struct, frozen=True, gc=False):
    """One call of the service, answered or not. `units`: read or write units, as the service counts them."""

    operation: str
    attempt: int
    verdict: str  # "" when it was done, else that of cloud.dynamodb_errors
    units: float


class DynamoTable:
    """One table.

    `wait` takes seconds; `chance` gives a number from 0 to 1; `token` a text of at most 36 characters, never the same
    twice. `on_call` is told of every call, with its units: asking for these costs nothing, but bytes."""

    def __init__(
        self,
        client: Any,
        name: str,
        *,
        wait: Callable[[float], None],
        chance: Callable[[], float],
        token: Callable[[], str],
        retry: Retry | None = None,
        on_call: Callable[[Called], None] | None = None,
    ) -> None:
        self.name = name
        self._client = client
        self._wait = wait
        self._chance = chance
        self._token = token
        self._retry = retry or Retry()
        self._on_call = on_call
        self._methods: dict[str, Callable[..., Mapping[str, Any]]] = {
            "GetItem": client.get_item,
            "BatchGetItem": client.batch_get_item,
            "Query": client.query,
            "PutItem": client.put_item,
            "DeleteItem": client.delete_item,
            "UpdateItem": client.update_item,
            "TransactWriteItems": client.transact_write_items,
        }
        self._handlers: dict[type, Callable[[Any], Any]] = {
            Get: self._get,
            BatchGet: self._batch_get,
            Query: self._query,
            Put: self._put,
            Delete: self._delete,
            Update: self._update,
            Transact: self._transact,
        }

    def execute(self, request: TableRequest) -> Any:
        """The answer to a request as `cloud.table` states it.

        Raises the port's errors, all of them, and Unusable (cloud.dynamodb_errors) where only a person can help."""
        handler = self._handlers.get(request.__class__)
        if handler is None:
            raise InvalidRequest(f"{request.__class__.__name__} is no request of a table")
        return handler(request)

    # Reads.

    def _get(self, request: Get) -> Item | None:
        answer = self._repeated(requests.get(self.name, request))
        return item_of(answer["Item"]) if "Item" in answer else None

    def _batch_get(self, request: BatchGet) -> dict[Key, Item]:
        """What the service leaves unprocessed is asked for again: after a pause, for as long as it makes headway."""
        left = requests.batch_keys(request)
        found: dict[Key, AttributeMap] = {}
        idle = 0
        while left:
            if idle == self._retry.attempts_max:
                raise Throttled(f"{len(left)} of {len(request.keys)} keys of a batch were left unprocessed")
            if idle or len(left) < len(request.keys):
                self._pause(max(1, idle))
            answer = self._repeated(requests.batch_get(self.name, left))
            for attributes in answer.get("Responses", {}).get(self.name, ()):
                found[attributes["pk"]["S"], attributes["sk"]["S"]] = attributes
            unprocessed = list(answer.get("UnprocessedKeys", {}).get(self.name, {}).get("Keys", ()))
            idle = idle + 1 if len(unprocessed) == len(left) else 0
            left = unprocessed
        return {key: item_of(found[key]) for key in request.keys if key in found}

    def _query(self, request: Query) -> Page:
        call = requests.query(self.name, request)
        if call is None:
            return Page((), None)
        answer = self._repeated(call)
        last = answer.get("LastEvaluatedKey")
        return Page(tuple(map(item_of, answer["Items"])), last[SK]["S"] if last else None)

    # Writes.

    def _put(self, request: Put) -> None:
        call = requests.put(self.name, request)
        item: Item = request.item
        self._written(call, bool(request.condition), lambda found: found is not None and _as_stored(found, item))

    def _update(self, request: Update) -> None:
        call = requests.update(self.name, request)
        self._written(call, bool(request.condition), lambda found: found is not None and _shows(found, request))

    def _delete(self, request: Delete) -> None:
        # That the item is gone says nothing of who deleted it.
        self._written(requests.delete(self.name, request), bool(request.condition), lambda found: False)

    def _written(self, call: Call, conditional: bool, made: Callable[[Mapping[str, Any] | None], bool]) -> None:
        """`made`: whether an item (attributes) shows that this very write was done."""
        lost: Unavailable | None = None
        fault: Fault | None = None
        for attempt in range(self._retry.attempts_max):
            answer = self._try(call, attempt)
            if not isinstance(answer, Fault):
                return
            fault = answer
            if fault.verdict == "final":
                break
            if fault.verdict == "lost":
                lost = Unavailable(str(fault.error))
                if not conditional:
                    break
                call = Call(call.operation, {**call.parameters, "ReturnValuesOnConditionCheckFailure": "ALL_OLD"})
        assert fault is not None
        if lost is None:
            raise fault.error
        if fault.verdict == "final" and made(fault.found):
            return
        raise Unavailable(f"{lost}; the write may have happened; at last: {fault.error}")

    def _transact(self, request: Transact) -> None:
        """Under one token, it is done once, however often it is sent; an answer is an answer to all of them."""
        self._repeated(requests.transact(self.name, request, self._token()))

    # Calls.

    def _repeated(self, call: Call) -> Mapping[str, Any]:
        """Of what may be asked again without a thought: the answer, or the last error."""
        lost: Exception | None = None
        fault: Fault | None = None
        for attempt in range(self._retry.attempts_max):
            answer = self._try(call, attempt)
            if not isinstance(answer, Fault):
                return answer
            fault = answer
            if fault.verdict == "final":
                raise fault.error
            if fault.verdict == "lost":
                lost = fault.error
        assert fault is not None
        raise lost or fault.error  # what may have happened once is not undone by a later refusal

    def _try(self, call: Call, attempt: int) -> Mapping[str, Any] | Fault:
        """One call, after its pause: the answer, or what was wrong."""
        if attempt:
            self._pause(attempt)
        metered = {} if self._on_call is None else {"ReturnConsumedCapacity": "TOTAL"}
        try:
            answer = self._methods[call.operation](**call.parameters, **metered)
        except RAISED as error:
            fault = fault_of(error)
            self._tell(call, attempt, fault.verdict, {})
            return fault
        self._tell(call, attempt, "", answer)
        return answer

    def _tell(self, call: Call, attempt: int, verdict: str, answer: Mapping[str, Any]) -> None:
        if self._on_call is not None:
            self._on_call(Called(call.operation, attempt, verdict, _units(answer.get("ConsumedCapacity"))))

    def _pause(self, attempt: int) -> None:
        self._wait(self._retry.pause_s(attempt, self._chance()))


def _as_stored(found: Mapping[str, Any], item: Item) -> bool:
    return same_attributes(found, attributes_of(item))


def _shows(found: Mapping[str, Any], request: Update) -> bool:
    """Whether an update has been done, which only a value that it set can show."""
    after = attributes_of(request.set)
    if not after or any(name in found for name in request.remove):
        return False
    return same_attributes({name: found[name] for name in after if name in found}, after)


def same_attributes(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """By value: how a number is written, and in which order a set comes, makes no difference."""
    return bool(item_of(found) == item_of(wanted))


def _units(capacity: Any) -> float:
    """Of one table: an operation tells it alone, or in a list."""
    tables = capacity if isinstance(capacity, list) else [capacity] if capacity else []
    units = 0.0
    for table in tables:
        units += float(table.get("CapacityUnits", 0.0))
    return units
