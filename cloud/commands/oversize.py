"""`oversize`: items that applications in the cloud made larger than a message may be, so that no device can have them.

Reads the items as the relay reads them for a snapshot, and measures them as it does. Called by cloud.cli.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from typing import Any, Final

from agent.protocol.commands.failure import OK, note
from agent.protocol.commands.output import columns, print_json, print_rows, wants_json
from agent.protocol.commands.typed import checked_id
from agent.protocol.messages import ITEM_BYTES_MAX, SnapshotItem
from agent.protocol.process import Context
from cloud.commands.devices import registered
from cloud.commands.opening import logic, opened, schema_of, unheard
from cloud.drive import run
from cloud.head import Feed
from cloud.relay import Relay
from cloud.table import Item
from cloud.table_definition import ttl_attribute

_HEAD: Final = ("model", "item", "bytes", "feed")


def oversize(arguments: argparse.Namespace) -> int:
    as_json = wants_json(arguments)
    schema = schema_of(arguments)
    relay = logic(schema)
    table = opened(arguments, ttl_attribute(schema)).table
    named = [checked_id(name, "device") or "" for name in arguments.device_ids]
    rows: list[dict[str, Any]] = []
    for feed, context in _feeds(relay, registered(table, named)):
        items: list[SnapshotItem] = run(relay.catchup.read_items(feed, context), table.execute, unheard)
        rows.extend(_values(relay, feed, item) for item in items if item.oversize)
    if as_json:
        for row in rows:
            print_json(row)
    elif rows:
        cells = [(row["model"], " / ".join(row["key"]), f"{row['bytes']:,}", row["feed"]) for row in rows]
        print_rows(_HEAD, cells, columns())
    if not rows:
        note(f"no item is too large (over {ITEM_BYTES_MAX:,} bytes)")
    return OK


def _feeds(relay: Relay, devices: Mapping[str, Item]) -> Iterator[tuple[Feed, Context]]:
    """Each feed of these devices once, and of whose it is; an account's is read as the first of its devices would."""
    prefix = relay.config.topic_prefix
    seen: set[str] = set()
    for device, item in devices.items():
        context = Context(device, item["account"])
        for feed in (Feed("device", device, prefix), Feed("account", item["account"], prefix), Feed("all", "", prefix)):
            if feed.pk not in seen:
                seen.add(feed.pk)
                yield feed, context


def _values(relay: Relay, feed: Feed, item: SnapshotItem) -> dict[str, Any]:
    place = relay.schema.locate(item.key)
    assert place is not None  # or it had not been read
    return {
        "model": place.model.name,
        "key": list(item.key),
        "bytes": item.oversize,
        "most": ITEM_BYTES_MAX,
        "feed": feed.name,
    }
