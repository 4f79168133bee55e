"""`register` and `devices`: which devices there are, whose they are, and what is known of them. Called by cloud.cli."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any, Final

from agent.protocol import topics
from agent.protocol.commands.failure import OK, CommandError, note
from agent.protocol.commands.output import columns, print_json, print_rows, wants_json
from agent.protocol.commands.typed import checked_id
from agent.protocol.onetable.dates import iso_text
from cloud import system
from cloud.commands.certificates import Folder
from cloud.commands.opening import client_of, opened
from cloud.dynamodb import DynamoTable
from cloud.head import Feed, head_key, log_position
from cloud.iot_things import Thing, Things, check_names
from cloud.quarantine import HALTED
from cloud.registry import device_key, directory_entry, moved, ranges, registration
from cloud.table import BATCH_KEYS_MAX, SK, BatchGet, Cancelled, ConditionFailed, Get, Item, Key, Page, Put, Query

_HEAD: Final = ("device", "account", "registered", "last heard of", "taken", "verdicts", "behind")


def register(arguments: argparse.Namespace) -> int:
    device = checked_id(arguments.device_id, "device")
    account = checked_id(arguments.account, "account")
    if not device or not account:
        raise CommandError("whose device is it?" if device else "which device?", "DEVICE --account ACCOUNT")
    if bool(arguments.iot) != bool(arguments.out):
        raise CommandError("--iot and --out go together", "--iot POLICY --out DIR")
    things, folder = _iot(arguments, device, account) if arguments.iot else (None, None)
    table = opened(arguments).table
    if things is not None and folder is not None:
        _look(things, folder, device, account, bool(arguments.yes))
    how = _registered(table, device, account, bool(arguments.yes))
    thing = None if things is None or folder is None else things.register(device, account, folder.keep)
    prefix = arguments.topic_prefix
    hears = [topics.to_device(device, prefix), topics.to_account(account, prefix), topics.to_all(prefix)]
    publishes = topics.from_device(device, prefix)
    if arguments.json:
        values = {"device": device, "account": account, "was": how, "publishes": publishes, "subscribes": hears}
        print_json(values if thing is None or folder is None else {**values, "iot": _iot_values(thing, folder)})
        return OK
    print(f"{device} of account {account}: {how}")
    print(f"  publishes to   {publishes}")
    print(*(f"  subscribes to  {topic}" for topic in hears), sep="\n")
    if thing is not None and folder is not None:
        _tell_iot(thing, folder)
    return OK


def _iot(arguments: argparse.Namespace, device: str, account: str) -> tuple[Things, Folder]:
    check_names(device, account)
    return Things(client_of(arguments, "iot"), arguments.iot), Folder(arguments.out, device)


def _look(things: Things, folder: Folder, device: str, account: str, may_move: bool) -> None:
    """What would stand in the way, before anything is changed."""
    things.check()
    if things.account_of(device) not in (None, "", account) and not may_move:
        raise CommandError(f"the thing {device} has another account", "nothing was changed; --yes moves it")
    if not things.certificates(device):
        folder.check()


def _iot_values(thing: Thing, folder: Folder) -> dict[str, Any]:
    files = [str(folder.certificate), str(folder.key)] if thing.is_new else []
    return {
        "thing": thing.name,
        "certificates": list(thing.certificates),
        "new": thing.is_new,
        "files": files,
        "endpoint": thing.endpoint,
    }


def _tell_iot(thing: Thing, folder: Folder) -> None:
    print(f"  connects to    {thing.endpoint}, as {thing.name}")
    if thing.is_new:
        print(f"  certificate    {folder.certificate}\n  its key        {folder.key}")
    else:
        print(f"  certificate    {', '.join(thing.certificates)}: was there, and stays")


def _registered(table: DynamoTable, device: str, account: str, may_move: bool) -> str:
    try:
        table.execute(registration(device, account, system.wall_ms()))
        return "registered"
    except Cancelled:
        item = table.execute(Get(device_key(device)))
    before = None if item is None else item["account"]
    if before == account:
        table.execute(Put(directory_entry(device)))  # where somebody else has put the device's item alone
        return "registered already"
    if not may_move or before is None:
        raise CommandError(f"{device} belongs to account {before!r}", "nothing was changed; --yes moves it")
    try:
        table.execute(moved(device, account, before))
    except ConditionFailed:
        raise CommandError(f"somebody else has moved {device} meanwhile", "look at `fleet-cloud devices`") from None
    return f"moved from {before}"


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
