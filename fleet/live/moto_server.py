"""moto's DynamoDB as a process: says its address on standard output, and serves until it is killed.

Mended is what moto does not do for many writers and large tables, and the service does. One request is done after the
other: moto's transactions are none while other threads write. A transaction that is cancelled takes back what it has
changed, instead of putting back a copy of the whole table, stream included, that was made for each one. A query reads
the items of its hash key, instead of sorting the whole table. Records of the stream are plain values, and are written
as such. Started by fleet.live.parts, as a file. It has a free port of loopback, and its tables are gone when it ends.
"""

from __future__ import annotations

import copy
import json
import os
import threading
from collections.abc import Callable, Iterable
from typing import Any


def mend() -> None:
    """Requests cost what they touch. The backend is called under a lock (see `main`)."""
    mend_transactions()
    mend_queries()
    mend_records()


def mend_transactions() -> None:
    from moto.dynamodb.models import DynamoDBBackend
    from moto.dynamodb.models.table import Table

    whole = DynamoDBBackend.transact_write_items

    def transact(self: Any, transact_items: list[dict[str, Any]]) -> None:
        undo = [_undo(self, next(iter(each.values()))) for each in transact_items]
        Table.__deepcopy__ = lambda table, _: table  # type: ignore[attr-defined]
        try:
            whole(self, transact_items)
        except BaseException:
            for take_back in reversed(undo):
                take_back()
            raise
        finally:
            del Table.__deepcopy__  # type: ignore[attr-defined]

    DynamoDBBackend.transact_write_items = transact  # type: ignore[method-assign]


def mend_queries() -> None:
    from moto.dynamodb.models.table import Table

    everywhere = Table.query

    def query(self: Any, hash_key: Any, *arguments: Any, **named: Any) -> Any:
        if hash_key is None or self.range_key_attr is None or arguments[6]:  # the name of an index
            return everywhere(self, hash_key, *arguments, **named)
        self.all_items = lambda: list(self.items[hash_key].values()) if hash_key in self.items else []
        try:
            return everywhere(self, hash_key, *arguments, **named)
        finally:
            del self.all_items

    Table.query = query  # type: ignore[method-assign]


def mend_records() -> None:
    from moto.dynamodbstreams.responses import DynamoDBStreamsHandler

    def get_records(self: Any) -> tuple[int, dict[str, str], str]:
        limit = self._get_param("Limit") or 1000
        found = self.backend.get_records(self._get_param("ShardIterator"), limit)
        return 200, {"Content-Type": "application/x-amz-json-1.0"}, json.dumps(found, default=_seconds)

    DynamoDBStreamsHandler.get_records = get_records  # type: ignore[assignment, method-assign]


def _seconds(value: Any) -> float:
    """Of a time, as JSON of AWS has it: since 1970."""
    return float(value.timestamp())


def _undo(backend: Any, action: dict[str, Any]) -> Callable[[], None]:
    """Takes back what one action will do to its item, and to the stream."""
    from moto.dynamodb.models.dynamo_type import DynamoType

    table = backend.tables.get(action.get("TableName"))
    values = action.get("Item") or action.get("Key") or {}
    if table is None or not {table.hash_key_attr, table.range_key_attr} <= values.keys():
        return lambda: None  # it will be refused
    pk, sk = DynamoType(values[table.hash_key_attr]), DynamoType(values[table.range_key_attr])
    before = copy.deepcopy(table.items[pk].get(sk)) if pk in table.items else None
    shard = table.stream_shard
    told = len(shard.items) if shard is not None else 0

    def take_back() -> None:
        if before is not None:
            table.items[pk][sk] = before
        elif pk in table.items:
            table.items[pk].pop(sk, None)
        if shard is not None:
            del shard.items[told:]

    return take_back


def main() -> None:
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
    from werkzeug.serving import make_server

    mend()
    one = threading.Lock()
    inner: Any = DomainDispatcherApplication(create_backend_app)

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        with one:
            return list(inner(environ, start_response))

    MotoRequestHandler.protocol_version = "HTTP/1.1"  # one connection for many requests
    server = make_server("127.0.0.1", 0, application, True, request_handler=MotoRequestHandler)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # a line for each request, which nobody reads
    print(f"http://127.0.0.1:{server.port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
