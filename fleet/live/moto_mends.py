"""What moto's server needs to last through a live run: transactions that cost what they touch, nothing kept for ever.

moto copies the whole table, its stream included, for each action of a transaction, and puts the last copy in its place
when the transaction is cancelled. So a batch of 20 writes takes seconds after some thousand records; an iterator that
was open stays with the old stream and is never told anything again; what another connection wrote meanwhile is taken
back; and such an iterator keeps every copy. Here a cancelled transaction puts back the items that it touched, requests
are taken one at a time, and what moto lists for its own resets is not listed. A query reads the items of its hash key,
where moto sorts the whole table first; records of the stream are written as the plain values that they are; and a
connection serves more than one request. What is answered is moto's own: the contract suite is held against both. Used
by fleet.live.moto_server.
"""

from __future__ import annotations

import copy
import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any, Final

from moto.core.common_models import BaseModel
from moto.dynamodb import models
from moto.dynamodb.models import DynamoDBBackend
from moto.dynamodb.models.dynamo_type import DynamoType, Item
from moto.dynamodb.models.table import StreamRecord, Table
from moto.dynamodb.models.utilities import DynamoJsonEncoder
from moto.dynamodbstreams.models import DynamoDBStreamsBackend, ShardIterator
from moto.dynamodbstreams.responses import DynamoDBStreamsHandler
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler

ITERATORS_MAX: Final = 10_000  # each answer makes one; a reader has use for the last
_LISTED: Final[tuple[type[BaseModel], ...]] = (Item, StreamRecord, ShardIterator)

_INDEX: Final = 6  # among what a query is asked with after its hash key: the name of an index
_RECORDS_MAX: Final = 1_000  # of one answer, where none is asked for

Before = tuple[Table, DynamoType, DynamoType | None, Item | None]


def mend() -> None:
    """Once, before the first request, in a process whose only use is to serve moto."""
    plain = DynamoDBBackend.transact_write_items

    def transact_write_items(self: DynamoDBBackend, transact_items: list[dict[str, Any]]) -> None:
        before = list(_touched(self, transact_items))
        told = {table.name: len(table.stream_shard.items) for table, *_ in before if table.stream_shard is not None}
        try:
            plain(self, transact_items)
        except BaseException:
            for each in before:
                _put_back(*each)
                shard = each[0].stream_shard
                if shard is not None:
                    del shard.items[told[each[0].name] :]
            raise

    DynamoDBBackend.transact_write_items = transact_write_items  # type: ignore[method-assign]
    vars(models)["copy"] = _NoTables
    for kind in _LISTED:
        kind.instances_tracked = _Forgetful()  # type: ignore[attr-defined]
    _keep_few_iterators()
    _read_one_hash_key()
    _write_records_plainly()
    _take_one_at_a_time()
    MotoRequestHandler.protocol_version = "HTTP/1.1"


class _NoTables:
    """Stands where moto's requests look for the module `copy`: only a transaction copies tables there."""

    @staticmethod
    def deepcopy(value: Any) -> Any:
        return value if isinstance(value, Table) else copy.deepcopy(value)


class _Forgetful(list[Any]):
    """Takes everything and has nothing."""

    def append(self, _: Any) -> None:
        return


class _Latest(OrderedDict[str, Any]):
    """The last ITERATORS_MAX that came in."""

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key, value)
        if len(self) > ITERATORS_MAX:
            self.popitem(last=False)


def _keep_few_iterators() -> None:
    made = DynamoDBStreamsBackend.__init__

    def __init__(self: DynamoDBStreamsBackend, region_name: str, account_id: str) -> None:
        made(self, region_name, account_id)
        self.shard_iterators = _Latest()

    DynamoDBStreamsBackend.__init__ = __init__  # type: ignore[method-assign]


def _read_one_hash_key() -> None:
    everywhere = Table.query

    def query(self: Table, hash_key: Any, *arguments: Any, **named: Any) -> Any:
        if hash_key is None or not self.has_range_key or arguments[_INDEX]:
            return everywhere(self, hash_key, *arguments, **named)
        vars(self)["all_items"] = lambda: list(self.items[hash_key].values()) if hash_key in self.items else []
        try:
            return everywhere(self, hash_key, *arguments, **named)
        finally:
            del vars(self)["all_items"]

    Table.query = query  # type: ignore[method-assign]


def _write_records_plainly() -> None:
    def get_records(self: Any) -> tuple[int, dict[str, str], str]:
        limit = self._get_param("Limit") or _RECORDS_MAX
        found = self.backend.get_records(self._get_param("ShardIterator"), limit)
        return 200, {"Content-Type": "application/x-amz-json-1.0"}, json.dumps(found, cls=DynamoJsonEncoder)

    DynamoDBStreamsHandler.get_records = get_records  # type: ignore[assignment, method-assign]


def _take_one_at_a_time() -> None:
    """moto has no locks of its own, and its server a thread for each connection."""
    answer = DomainDispatcherApplication.__call__
    lock = threading.Lock()

    def __call__(
        self: DomainDispatcherApplication, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        with lock:
            return list(answer(self, environ, start_response))

    DomainDispatcherApplication.__call__ = __call__  # type: ignore[method-assign]


def _touched(backend: DynamoDBBackend, actions: list[dict[str, Any]]) -> Iterable[Before]:
    """Each item that these actions name, as it is. What is no proper action is left to moto, which refuses it."""
    for action in actions:
        for operation in action.values():
            table = backend.tables.get(operation.get("TableName", ""))
            if table is None:
                continue
            named = operation.get("Key") or operation.get("Item") or {}
            hash_key, range_key = (
                DynamoType(named[name]) if name in named else None
                for name in (table.hash_key_attr, table.range_key_attr)
            )
            if hash_key is not None and (range_key is not None or not table.has_range_key):
                yield table, hash_key, range_key, copy.deepcopy(table.get_item(hash_key, range_key))


def _put_back(table: Table, hash_key: DynamoType, range_key: DynamoType | None, item: Item | None) -> None:
    place: Any = table.items if range_key is None else table.items[hash_key]
    key = hash_key if range_key is None else range_key
    if item is None:
        place.pop(key, None)
    else:
        place[key] = item
