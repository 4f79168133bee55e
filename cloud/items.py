"""Items of a table through the schema, for applications in the cloud: get, find, create, update, upsert, remove.

Writes what the JavaScript OneTable library would write (agent.protocol.onetable.expressions makes the requests), to a
table that the caller has opened; never what begins with `_fleet#`. A write is sent once more only when it was certainly
not done. Called by the commands of `fleet-cloud`. Errors: ModelErrors (`exists`, `missing`, `unique`, `changed`, and
those of the model), and those of the Table port.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import islice
from typing import Any, Final

from agent.protocol.errors import ModelError
from agent.protocol.keys import HASH, SORT
from agent.protocol.matching import has
from agent.protocol.messages import Image, Key
from agent.protocol.onetable.attributes import from_item, to_attribute
from agent.protocol.onetable.expressions import Requests, Write
from agent.protocol.onetable.unique import UNIQUE
from agent.protocol.process import Context
from agent.protocol.schema import Model
from cloud.dynamodb import DynamoTable
from cloud.dynamodb_errors import RAISED, fault_of
from cloud.retry import Retry
from cloud.table import PK, PRIVATE_PREFIX, SK, Cancelled, ConditionFailed, Get, Page, Query, TableError

Props = dict[str, Any]
NewId = Callable[[str], str]
_METHODS: Final = ("put_item", "update_item", "delete_item", "transact_write_items")


class Items:
    """One table. `clock_ms`: milliseconds since 1970. `new_id`: see Model.create. `wait`, `chance`: see DynamoTable."""

    def __init__(
        self,
        client: Any,
        table: DynamoTable,
        *,
        clock_ms: Callable[[], int],
        new_id: NewId,
        wait: Callable[[float], None],
        chance: Callable[[], float],
    ) -> None:
        self._client = client
        self._table = table
        self._clock_ms = clock_ms
        self._new_id = new_id
        self._wait = wait
        self._chance = chance
        self._retry = Retry()

    # Reading

    def get(self, model: Model, props: Mapping[str, Any], context: Context) -> Props | None:
        key = _own_key(model, model.key(props, context))
        image = self._image(model, key)
        return None if image is None else model.read(key, image)

    def find(
        self,
        model: Model,
        props: Mapping[str, Any],
        context: Context,
        *,
        index: str | None = None,
        reverse: bool = False,
        limit: int | None = None,
    ) -> Iterator[Props]:
        """The items with these values, by the beginning of the sort key or by an index (whose reads may be late)."""
        wanted = dict(props)
        if index is None:
            pk, prefix = model.search(wanted, context)
            _own_key(model, (pk, prefix))
            found = self._pages(pk, prefix, reverse)
        else:
            found = self._by_index(model, wanted, context, index, reverse)
        wanted.pop(HASH, None)
        return islice(self._chosen(model, found, wanted), limit)

    def _chosen(self, model: Model, found: Iterator[tuple[Key, Image]], wanted: Props) -> Iterator[Props]:
        exactly = wanted.pop(SORT, None)
        for key, image in found:
            if not _is_of(model, image) or (exactly is not None and key[1] != exactly):
                continue
            item = model.read(key, image)
            if has(model, item, image, wanted):
                yield item

    def _pages(self, pk: str, prefix: str, reverse: bool) -> Iterator[tuple[Key, Image]]:
        after: str | None = None
        while True:
            page: Page = self._table.execute(Query(pk, prefix, after, reverse))
            for item in page.items:
                image = dict(item)
                yield (image.pop(PK), image.pop(SK)), image
            after = page.after
            if after is None:
                return

    def _by_index(
        self, model: Model, wanted: Props, context: Context, index: str, reverse: bool
    ) -> Iterator[tuple[Key, Image]]:
        hash_value, sort = model.index_search(index, wanted, context)
        definition = model.indexes[index]
        names, values = {"#h": definition.hash}, {":h": to_attribute(hash_value)}
        condition = "#h = :h"
        if sort is not None and definition.sort is not None:
            names["#s"], values[":s"] = definition.sort, to_attribute(sort)
            condition += " AND begins_with(#s, :s)" if isinstance(sort, str) else " AND #s = :s"
        for name in (definition.hash, definition.sort):
            if name is not None and name in wanted and (name not in model.fields or model.fields[name].hidden):
                del wanted[name]
        parameters: dict[str, Any] = {
            "TableName": self._table.name,
            "IndexName": index,
            "KeyConditionExpression": condition,
            "ExpressionAttributeNames": names,
            "ExpressionAttributeValues": values,
            "ScanIndexForward": not reverse,
        }
        return self._index_pages(parameters)

    def _index_pages(self, parameters: dict[str, Any]) -> Iterator[tuple[Key, Image]]:
        while True:
            answer = self._asked(partial(self._client.query, **parameters))
            for attributes in answer["Items"]:
                yield from_item(attributes)
            if "LastEvaluatedKey" not in answer:
                return
            parameters = {**parameters, "ExclusiveStartKey": answer["LastEvaluatedKey"]}

    def _image(self, model: Model, key: Key) -> Image | None:
        item = self._table.execute(Get(key))
        if item is None or not _is_of(model, item):
            return None
        return {name: value for name, value in item.items() if name not in (PK, SK)}

    # Writing

    def create(self, model: Model, props: Mapping[str, Any], context: Context) -> Props:
        write = self._requests(model).create(props, context, self._clock_ms(), self._new_id)
        self._send(model, write, "exists", "is there already")
        return self._written(model, write)

    def update(self, model: Model, props: Mapping[str, Any], context: Context) -> Props:
        key = _own_key(model, model.key(props, context))
        before = self._image(model, key)
        if before is None:
            raise ModelError("missing", f"there is no {_named(model, key)}", model=model.name)
        write = self._requests(model).update(props, context, self._clock_ms(), before=before)
        self._send(model, write, "changed", "has changed meanwhile: try again")
        return self._written(model, write)

    def upsert(self, model: Model, props: Mapping[str, Any], context: Context) -> Props:
        try:
            before = self._image(model, _own_key(model, model.key(props, context)))
        except ModelError as error:
            if error.code not in ("key", "required"):
                raise
            before = None  # a part of the key is generated
        write = self._requests(model).upsert(props, context, self._clock_ms(), self._new_id, before=before)
        self._send(model, write, "changed", "has changed meanwhile: try again")
        return self._written(model, write)

    def remove(self, model: Model, props: Mapping[str, Any], context: Context) -> Props | None:
        """What the item was; None when there was none."""
        key = _own_key(model, model.key(props, context))
        before = self._image(model, key)
        if before is None:
            return None
        write = self._requests(model).remove(props, context, before=before)
        self._send(model, write, "changed", "has changed meanwhile: try again")
        return model.read(key, before)

    def _requests(self, model: Model) -> Requests:
        return Requests(model, self._table.name)

    def _written(self, model: Model, write: Write) -> Props:
        """As it is now: somebody may have written it since."""
        image = self._image(model, write.key)
        if image is None:
            raise ModelError("changed", f"{_named(model, write.key)} was written, and is gone again", model=model.name)
        return model.read(write.key, image)

    def _send(self, model: Model, write: Write, code: str, what: str) -> None:
        """`code`, `what`: what it means when the item is not as it was read."""
        _own_key(model, write.key)
        method, parameters = write.request()
        assert method in _METHODS
        try:
            self._asked(partial(getattr(self._client, method), **parameters))
        except ConditionFailed:
            raise ModelError(code, f"{_named(model, write.key)} {what}", model=model.name) from None
        except Cancelled as error:
            if error.reasons and error.reasons[-1] == "condition":
                raise ModelError(code, f"{_named(model, write.key)} {what}", model=model.name) from None
            if "condition" in error.reasons:
                names = ", ".join(field.name for field in model.unique_fields)
                text = f"{_named(model, write.key)}: another {model.name} has the same unique value ({names})"
                raise ModelError("unique", text, model=model.name) from None
            raise

    def _asked(self, call: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any]:
        """The answer. Asked again while the service certainly did nothing."""
        error: TableError | None = None
        for attempt in range(self._retry.attempts_max):
            if attempt:
                self._wait(self._retry.pause_s(attempt, self._chance()))
            try:
                return call()
            except RAISED as raised:
                fault = fault_of(raised)
                error = fault.error
                if fault.verdict != "refused":
                    break
        assert error is not None
        raise error


def _is_of(model: Model, image: Mapping[str, Any]) -> bool:
    return image.get(model.type_field) == model.name


def _named(model: Model, key: Key) -> str:
    return f"{model.name} {' / '.join(key)}"


def _own_key(model: Model, key: Key) -> Key:
    """Some keys belong to the relay, or stand for unique values, whatever a schema's templates give."""
    for prefix in (PRIVATE_PREFIX, UNIQUE):
        if key[0].startswith(prefix):
            raise ModelError("key", f"{_named(model, key)}: keys in {prefix!r} are no application's", model=model.name)
    return key
