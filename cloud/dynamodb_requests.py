"""Requests of the Table port as calls of DynamoDB: operation and parameters, checked against the service's limits.

Pure: no I/O, no botocore. Raises InvalidRequest (and, for an item in a transaction that is too large, Cancelled) before
anything is sent. All names and values go through placeholders, so that none can be a reserved word or an expression.
Called by cloud.dynamodb.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from agent.protocol.onetable.attributes import AttributeMap, key_attributes
from cloud.dynamodb_values import attributes_bytes, attributes_of
from cloud.table import (
    ACTIONS_MAX,
    BATCH_KEYS_MAX,
    ITEM_BYTES_MAX,
    PK,
    SK,
    TRANSACTION_BYTES_MAX,
    BatchGet,
    Cancelled,
    Check,
    Condition,
    Delete,
    Get,
    InvalidRequest,
    Item,
    Key,
    Put,
    Query,
    Transact,
    Update,
)
from cloud.table_rules import check_key, key_of

EXPRESSION_BYTES_MAX: Final = 4096
OPERATORS_MAX: Final = 300  # of one expression
NEVER: Final = "_fleet#never"  # no item has this attribute: an update must name one, if only in a transaction


@dataclass(frozen=True, slots=True)
class Call:
    """One operation of the service. `parameters` by the service's names, for boto3's client."""

    operation: str
    parameters: Mapping[str, Any]


@dataclass(slots=True)
class _Words:
    """Placeholders of one request: `#0` for a name, `:0` for a value."""

    names: dict[str, str] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)

    def name(self, name: str) -> str:
        return self.names.setdefault(name, f"#{len(self.names)}")

    def value(self, attribute: Any) -> str:
        word = f":{len(self.values)}"
        self.values[word] = attribute
        return word

    def parameters(self) -> dict[str, Any]:
        made: dict[str, Any] = {}
        if self.names:
            made["ExpressionAttributeNames"] = {word: name for name, word in self.names.items()}
        if self.values:
            made["ExpressionAttributeValues"] = self.values
        return made


def get(table: str, request: Get) -> Call:
    return Call("GetItem", {"TableName": table, "Key": _key(request.key), "ConsistentRead": True})


def batch_keys(request: BatchGet) -> list[AttributeMap]:
    """The keys of a batch, as the service takes them."""
    keys = request.keys
    if not 0 < len(keys) <= BATCH_KEYS_MAX:
        raise InvalidRequest(f"{len(keys)} keys, 1 to {BATCH_KEYS_MAX} in a batch")
    if len(frozenset(keys)) < len(keys):
        raise InvalidRequest("a key twice in a batch")
    return [_key(key) for key in keys]


def batch_get(table: str, keys: list[AttributeMap]) -> Call:
    return Call("BatchGetItem", {"RequestItems": {table: {"Keys": keys, "ConsistentRead": True}}})


def query(table: str, request: Query) -> Call | None:
    """None: nothing can be found, whatever the table holds."""
    if request.limit is not None and request.limit < 1:
        raise InvalidRequest(f"limit {request.limit}, at least 1")
    check_key((request.pk, request.prefix or "-"))
    words = _Words()
    condition = f"{words.name(PK)} = {words.value({'S': request.pk})}"
    if request.prefix:
        condition += f" AND begins_with({words.name(SK)}, {words.value({'S': request.prefix})})"
    parameters: dict[str, Any] = {
        "TableName": table,
        "ConsistentRead": True,
        "KeyConditionExpression": condition,
        "ScanIndexForward": not request.reverse,
        **words.parameters(),
    }
    if request.limit is not None:
        parameters["Limit"] = request.limit
    if request.after is not None:
        if not request.after.startswith(request.prefix) or not request.after:
            # The service refuses a start outside of what is asked for; on one side of it is all, on the other nothing.
            # Python's order of strings is by code points, which is UTF-8's.
            if (request.after < request.prefix or not request.after) is request.reverse:
                return None
        else:
            parameters["ExclusiveStartKey"] = _key((request.pk, request.after))
    return Call("Query", parameters)


def put(table: str, request: Put) -> Call:
    item = _item(request.item)
    size_bytes = attributes_bytes(item)
    if size_bytes > ITEM_BYTES_MAX:
        raise InvalidRequest(f"item of {size_bytes} bytes, at most {ITEM_BYTES_MAX}")
    words = _Words()
    return Call("PutItem", {"TableName": table, "Item": item, **_conditional(words, request.condition)})


def delete(table: str, request: Delete) -> Call:
    words = _Words()
    return Call("DeleteItem", {"TableName": table, "Key": _key(request.key), **_conditional(words, request.condition)})


def update(table: str, request: Update) -> Call:
    parameters, _ = _update(request)
    return Call("UpdateItem", {"TableName": table, **parameters})


def transact(table: str, request: Transact, token: str) -> Call:
    """`token` names this transaction for the service: sent again, it takes effect once."""
    actions = request.actions
    if not 0 < len(actions) <= ACTIONS_MAX:
        raise InvalidRequest(f"{len(actions)} actions, 1 to {ACTIONS_MAX} in a transaction")
    keys = [key_of(action.item) if isinstance(action, Put) else action.key for action in actions]
    if len(frozenset(keys)) < len(keys):
        raise InvalidRequest("a key twice in a transaction")
    made: list[dict[str, Any]] = []
    reasons: list[str | None] = []
    total_bytes = 0
    for action in actions:
        kind, parameters, size_bytes = _action(action)
        made.append({kind: {"TableName": table, **parameters}})
        reasons.append("size" if size_bytes > ITEM_BYTES_MAX else None)
        total_bytes += size_bytes
    if total_bytes > TRANSACTION_BYTES_MAX:
        raise InvalidRequest(f"{total_bytes} bytes, at most {TRANSACTION_BYTES_MAX} in a transaction")
    if any(reasons):
        raise Cancelled(tuple(reasons))
    return Call("TransactWriteItems", {"TransactItems": made, "ClientRequestToken": token})


def _action(action: Put | Delete | Update | Check) -> tuple[str, dict[str, Any], int]:
    """Kind, parameters and bytes. Of an update only what is sent counts: the item is not at hand."""
    words = _Words()
    if isinstance(action, Put):
        item = _item(action.item)
        return "Put", {"Item": item, **_conditional(words, action.condition)}, attributes_bytes(item)
    if isinstance(action, Update):
        parameters, size_bytes = _update(action)
        return "Update", parameters, size_bytes
    kind = "Delete" if isinstance(action, Delete) else "ConditionCheck"
    if isinstance(action, Check) and not action.condition:
        raise InvalidRequest("a check without a condition")
    return kind, {"Key": _key(action.key), **_conditional(words, action.condition)}, 0


def _update(request: Update) -> tuple[dict[str, Any], int]:
    """Parameters but for the table, and the bytes that are set."""
    key = _key(request.key)
    for name in (PK, SK):
        if name in request.set or name in request.remove:
            raise InvalidRequest("an update may not touch the key")
    both = [name for name in request.remove if name in request.set]
    if both:
        raise InvalidRequest(f"{both[0]!r} both set and removed")
    attributes = attributes_of(request.set)
    size_bytes = attributes_bytes({**key, **attributes})
    if size_bytes > ITEM_BYTES_MAX:
        raise InvalidRequest(f"{size_bytes} bytes set in an item, at most {ITEM_BYTES_MAX}")
    words = _Words()
    clauses = []
    if attributes:
        clauses.append("SET " + ", ".join(f"{words.name(n)} = {words.value(value)}" for n, value in attributes.items()))
    if request.remove:
        # Naming an attribute twice is an overlap to the service.
        clauses.append("REMOVE " + ", ".join(words.name(name) for name in dict.fromkeys(request.remove)))
    expression = _checked(" ".join(clauses) or f"REMOVE {words.name(NEVER)}", 0)
    return {"Key": key, "UpdateExpression": expression, **_conditional(words, request.condition)}, size_bytes


def _conditional(words: _Words, condition: Condition) -> dict[str, Any]:
    """The expression of a condition, with the placeholders of the whole request."""
    if not condition:
        return words.parameters()
    tests = []
    for kind, name, value in condition:
        if kind == "eq":
            (attribute,) = attributes_of({name: value}).values()
            tests.append(f"{words.name(name)} = {words.value(attribute)}")
        else:
            tests.append(f"attribute_{'exists' if kind == 'exists' else 'not_exists'}({words.name(name)})")
    expression = _checked(" AND ".join(tests), 2 * len(tests) - 1)
    return {"ConditionExpression": expression, **words.parameters()}


def _checked(expression: str, operators: int) -> str:
    if len(expression) > EXPRESSION_BYTES_MAX:
        raise InvalidRequest(f"an expression of {len(expression)} bytes, at most {EXPRESSION_BYTES_MAX}: fewer names")
    if operators > OPERATORS_MAX:
        raise InvalidRequest(f"an expression of {operators} operators, at most {OPERATORS_MAX}: fewer tests")
    return expression


def _item(item: Item) -> AttributeMap:
    key_of(item)
    return attributes_of(item)


def _key(key: Key) -> AttributeMap:
    check_key(key)
    return key_attributes(key)
