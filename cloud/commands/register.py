"""`register`: makes a device known, with its token and its registration file, with its thing and its certificate.

Looks at all that could stand in the way before anything is changed. Called by cloud.cli.
"""

from __future__ import annotations

import argparse
import os
import re
from typing import Any, Final

from agent.protocol import topics
from agent.protocol.commands.failure import OK, CommandError
from agent.protocol.commands.output import print_json
from agent.protocol.commands.typed import checked_id
from agent.protocol.registration import Registration, text_of
from cloud import system
from cloud.commands.certificates import Folder
from cloud.commands.opening import client_of, opened
from cloud.credentials import digest_of
from cloud.dynamodb import DynamoTable
from cloud.iot_things import Thing, Things, check_names
from cloud.registry import device_key, directory_entry, moved, registration, with_token
from cloud.table import Cancelled, ConditionFailed, Get, Put

_URL: Final = re.compile(r"(wss?|mqtts?)://[^/\s]+")


def register(arguments: argparse.Namespace) -> int:
    device, account = _checked(arguments)
    things, folder = _iot(arguments, device, account) if arguments.iot else (None, None)
    prefix = arguments.topic_prefix
    with _SecretFile(arguments.out) as file:
        table = opened(arguments).table
        if things is not None and folder is not None:
            _look(things, folder, device, account, bool(arguments.yes))
        how = _registered(table, device, account, bool(arguments.yes))
        thing = None if things is None or folder is None else things.register(device, account, folder.keep)
        token = _new_token(table, device, account) if arguments.token else ""
        made = Registration(device=device, account=account, token=token, prefix=prefix, url=arguments.url or "")
        file.write(text_of(made))
    hears = [topics.to_device(device, prefix), topics.to_account(account, prefix), topics.to_all(prefix)]
    publishes = topics.from_device(device, prefix)
    if arguments.json:
        values: dict[str, Any] = {"device": device, "account": account, "was": how}
        values.update(publishes=publishes, subscribes=hears, **_told(made, arguments.out))
        print_json(values if thing is None or folder is None else {**values, "iot": _iot_values(thing, folder)})
        return OK
    print(f"{device} of account {account}: {how}")
    print(f"  publishes to   {publishes}")
    print(*(f"  subscribes to  {topic}" for topic in hears), sep="\n")
    for name, value in _told(made, arguments.out).items():
        print(f"  {name:<14} {value}")
    if thing is not None and folder is not None:
        _tell_iot(thing, folder)
    if arguments.token and not arguments.out:
        print("The token is kept nowhere and not shown again; --token once more makes another, and ends this one.")
    return OK


def _checked(arguments: argparse.Namespace) -> tuple[str, str]:
    """Device and account."""
    device = checked_id(arguments.device_id, "device")
    account = checked_id(arguments.account, "account")
    if not device or not account:
        raise CommandError("whose device is it?" if device else "which device?", "DEVICE --account ACCOUNT")
    if bool(arguments.iot) != bool(arguments.certificates):
        raise CommandError("--iot and --certificates go together", "--iot POLICY --certificates DIR")
    if arguments.url and not arguments.out:
        raise CommandError("--url goes into the file of --out", "--out FILE")
    if arguments.url and not _URL.match(arguments.url):
        raise CommandError(
            f"--url {arguments.url!r}", "expected ws, wss, mqtt or mqtts, as in wss://relay.example:8765"
        )
    return device, account


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


class _SecretFile:
    """A new file for its owner alone, from its first byte on: there before anything is changed in the table, and gone
    where that fails. No path: there is none. Entering raises CommandError for a file that exists, and OSError."""

    def __init__(self, path: str | None) -> None:
        self._path = path
        self._descriptor = -1

    def __enter__(self) -> _SecretFile:
        if self._path:
            try:
                self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            except FileExistsError:
                hint = "nothing was changed; name a file that does not exist yet"
                raise CommandError(f"{self._path} exists", hint) from None
        return self

    def write(self, text: str) -> None:
        """Whole, and on the disk."""
        if self._path:
            with open(self._descriptor, "w", encoding="utf-8", closefd=False) as file:
                file.write(text)
            os.fsync(self._descriptor)

    def __exit__(self, kind: object, *_: object) -> None:
        if self._path:
            os.close(self._descriptor)
            if kind is not None:
                os.unlink(self._path)


def _iot(arguments: argparse.Namespace, device: str, account: str) -> tuple[Things, Folder]:
    check_names(device, account)
    return Things(client_of(arguments, "iot"), arguments.iot), Folder(arguments.certificates, device)


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
