"""`devices`: which devices there are, whose they are, and what is known of them. Called by cloud.cli."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any, Final

from agent.protocol.commands.failure import OK, CommandError, note
from agent.protocol.commands.output import columns, print_json, print_rows, wants_json
from agent.protocol.commands.typed import checked_id
from agent.protocol.onetable.dates import iso_text
from cloud.commands.opening import opened
from cloud.dynamodb import DynamoTable
from cloud.head import Feed, head_key, log_position
from cloud.quarantine import HALTED
from cloud.registry import device_key, ranges
from cloud.table import BATCH_KEYS_MAX, SK, BatchGet, Item, Key, Page, Query

_HEAD: Final = ("device", "account", "registered", "last heard of", "taken", "verdicts", "behind")


def devices(arguments: argparse.Namespace) -> int:
    as_json = wants_json(arguments)
    table = opened(arguments).table
    named = [checked_id(name, "device") for name in arguments.device_ids]
    found = registered(table, named)
    heads = _batch(table, [head_key(name) for name in found])
    rows = [_values(name, item, heads.get(head_key(name))) for name, item in found.items()]
    for row in rows if named else ():
        row["behind"] = _behind(table, row)
    if as_json:
        for row in rows:
            print_json(row)
        return OK
    if not rows:
        note("no device is registered")
        return OK
    print_rows(_HEAD, [_cells(row) for row in rows], columns())
    for row in rows:
        if row["quarantine"]:
            note(f"fleet-cloud: {row['device']} is in quarantine ({row['quarantine']}); `fleet-cloud release` ends it")
    return OK


def registered(table: DynamoTable, named: Sequence[str] = ()) -> dict[str, Item]:
    """Those that are named, each of which must be there, or all in order of their names."""
    if named:
        return _named(table, named)
    names: list[str] = []
    for query in ranges():
        after: str | None = None
        while True:
            page: Page = table.execute(Query(query.pk, "", after))
            names.extend(item[SK] for item in page.items)
            after = page.after
            if after is None:
                break
    return _items(table, sorted(names))


def _items(table: DynamoTable, names: Sequence[str]) -> dict[str, Item]:
    found = _batch(table, [device_key(name) for name in names])
    return {name: found[device_key(name)] for name in names if device_key(name) in found}


def _named(table: DynamoTable, names: Sequence[str]) -> dict[str, Item]:
    found = _items(table, names)
    missing = [name for name in names if name not in found]
    if missing:
        raise CommandError(f"not registered: {', '.join(missing)}", "`fleet-cloud register` makes a device known")
    return found


def _batch(table: DynamoTable, keys: Sequence[Key]) -> dict[Key, Item]:
    found: dict[Key, Item] = {}
    unique = list(dict.fromkeys(keys))
    for start in range(0, len(unique), BATCH_KEYS_MAX):
        found.update(table.execute(BatchGet(tuple(unique[start : start + BATCH_KEYS_MAX]))))
    return found


def _values(name: str, item: Item, head: Item | None) -> dict[str, Any]:
    return {
        "device": name,
        "account": item["account"],
        "registered": iso_text(item["registered"]) if "registered" in item else None,
        "seen": iso_text(item["seen"]) if "seen" in item else None,
        "schema": item.get("schema"),
        "epoch": None if head is None else head["epoch"],
        "taken": None if head is None else head["up"],
        "verdicts": None if head is None else len(head["verdicts"]),
        "quarantine": iso_text(head[HALTED]) if head is not None and HALTED in head else None,
        "feeds": item.get("feeds", {}),
    }


def _behind(table: DynamoTable, row: Mapping[str, Any]) -> int | None:
    """Rows of the device's own feed that it had not at its last hello; None when it has no place in the feed."""
    cursor = row["feeds"].get("device")
    page: Page = table.execute(Feed("device", row["device"], "").tail())
    if not page.items or cursor is None:
        return None
    epoch, seq = log_position(page.items[0])
    return max(0, seq - cursor[1]) if cursor[0] == epoch else None


def _cells(row: Mapping[str, Any]) -> list[str]:
    names = ("device", "account", "registered", "seen", "taken", "verdicts", "behind")
    return ["" if row.get(name) is None else str(row[name]) for name in names]
