"""`register` and `devices`: which devices there are, whose they are, and what is known of them. Called by cloud.cli."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from agent.protocol import topics
from agent.protocol.commands.failure import OK, CommandError, note
from agent.protocol.commands.output import columns, print_json, print_rows, wants_json
from agent.protocol.commands.typed import checked_id
from agent.protocol.onetable.dates import iso_text
from agent.protocol.registration import Registration, text_of
from cloud import system
from cloud.commands.opening import opened
from cloud.credentials import digest_of
from cloud.dynamodb import DynamoTable
from cloud.head import Feed, head_key, log_position
from cloud.memory import BATCH_KEYS_MAX
from cloud.quarantine import HALTED
from cloud.registry import device_key, directory_entry, moved, ranges, registration, with_token
from cloud.table import SK, BatchGet, Cancelled, ConditionFailed, Get, Item, Key, Page, Put, Query

_URL: Final = re.compile(r"(wss?|mqtts?)://[^/\s]+")
_HEAD: Final = ("device", "account", "registered", "last heard of", "taken", "verdicts", "behind")


def register(arguments: argparse.Namespace) -> int:
    device = checked_id(arguments.device_id, "device")
    account = checked_id(arguments.account, "account")
    if not device or not account:
        raise CommandError("whose device is it?" if device else "which device?", "DEVICE --account ACCOUNT")
    if arguments.url and not arguments.out:
        raise CommandError("--url goes into the file of --out", "--out FILE")
    if arguments.url and not _URL.match(arguments.url):
        raise CommandError(
            f"--url {arguments.url!r}", "expected ws, wss, mqtt or mqtts, as in wss://relay.example:8765"
        )
    prefix = arguments.topic_prefix
    with _secret_file(arguments.out) as keep:
        table = opened(arguments).table
        how = _registered(table, device, account, bool(arguments.yes))
        token = _new_token(table, device, account) if arguments.token else ""
        made = Registration(device=device, account=account, token=token, prefix=prefix, url=arguments.url or "")
        keep(text_of(made))
    hears = [topics.to_device(device, prefix), topics.to_account(account, prefix), topics.to_all(prefix)]
    publishes = topics.from_device(device, prefix)
    if arguments.json:
        row = {"device": device, "account": account, "was": how, "publishes": publishes, "subscribes": hears}
        print_json({**row, **_told(made, arguments.out)})
        return OK
    print(f"{device} of account {account}: {how}")
    print(f"  publishes to   {publishes}")
    print(*(f"  subscribes to  {topic}" for topic in hears), sep="\n")
    for name, value in _told(made, arguments.out).items():
        print(f"  {name:<14} {value}")
    if arguments.token and not arguments.out:
        note("the token is not kept and not shown again; --token once more makes another, and ends this one")
    return OK


def _told(made: Registration, out: str | None) -> dict[str, str]:
    """Where the registration is; where it is nowhere, the token itself, this one time."""
    if out:
        return {"out": out}
    return {"token": made.token} if made.token else {}


def _new_token(table: DynamoTable, device: str, account: str) -> str:
    """Ends the one before, if there was one."""
    token = system.device_token()
    try:
        table.execute(with_token(device, digest_of(token), account))
    except ConditionFailed:
        raise CommandError(f"somebody else has moved {device} meanwhile", "look at `fleet-cloud devices`") from None
    return token


@contextlib.contextmanager
def _secret_file(path: str | None) -> Iterator[Callable[[str], object]]:
    """What writes it. There before anything is changed in the table, gone where that fails; for its owner alone from
    its first byte on. No path: writes nothing. Raises CommandError for a file that exists, and OSError."""
    if not path:
        yield lambda text: None
        return
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise CommandError(f"{path} exists", "nothing was changed; name a file that does not exist yet") from None
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            yield file.write
    except BaseException:
        os.unlink(path)
        raise


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
    found = registered(table) if not named else _named(table, named)
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


def registered(table: DynamoTable) -> dict[str, Item]:
    """All of them by name, in order of their names."""
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
