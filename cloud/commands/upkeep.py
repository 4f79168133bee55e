"""`restore-mark` and `release`: what a person does after a restore of the table, or after two devices had one identity.

Each changes one item of the relay's own: the table's marker, or one device's HEAD. Called by cloud.cli.
"""

from __future__ import annotations

import argparse
from typing import Final

from agent.protocol.commands.failure import BAD_INPUT, OK, CommandError, note
from agent.protocol.commands.output import print_json
from agent.protocol.commands.typed import checked_id
from agent.protocol.onetable.dates import iso_text
from cloud import system
from cloud.commands.devices import registered
from cloud.commands.opening import opened, table_name
from cloud.head import head_key
from cloud.incarnation import INCARNATION, mark
from cloud.quarantine import HALTED, released
from cloud.table import ITEM_EXISTS, MARKER_KEY, Condition, ConditionFailed, Get

_WHAT: Final = (
    "every device will begin a new epoch, fetch its feeds anew and send its own items again;\n"
    "  what the cloud had taken since the copy stays gone, but for items that devices own (models that sync up)"
)


def restore_mark(arguments: argparse.Namespace) -> int:
    table = opened(arguments).table
    name = table_name(arguments)
    marker = table.execute(Get(MARKER_KEY))
    was = marker.get(INCARNATION, "")
    count = len(registered(table))
    if not arguments.json:
        print(f"table {name!r}, incarnation {was or '(the first)'}, {count} devices registered:\n  {_WHAT}")
    if not arguments.yes:
        note(
            "fleet-cloud: nothing was changed: was this table put back to an older copy, and is every relay that "
            "served it before stopped, or on this copy now? (--yes marks it)"
        )
        return BAD_INPUT
    same: Condition = (("eq", INCARNATION, was),) if was else (("absent", INCARNATION, None),)
    made = mark(system.random_hex, (*ITEM_EXISTS, *same))
    try:
        table.execute(made)
    except ConditionFailed:
        raise CommandError(
            "somebody else has marked the table meanwhile", "that will do; nothing was changed"
        ) from None
    if arguments.json:
        print_json({"table": name, "was": was, "incarnation": made.set[INCARNATION], "devices": count})
    else:
        print(f"marked: incarnation {made.set[INCARNATION]}")
    return OK


def release(arguments: argparse.Namespace) -> int:
    device = checked_id(arguments.device_id, "device")
    table = opened(arguments).table
    key = head_key(device or "")
    head = table.execute(Get(key))
    try:
        table.execute(released(key))
    except ConditionFailed:
        heard = "has never been heard of" if head is None else "is not in quarantine"
        raise CommandError(
            f"{device} {heard}", "nothing was changed; `fleet-cloud devices --json` tells which are"
        ) from None
    since = iso_text(head[HALTED])
    if arguments.json:
        print_json({"device": device, "halted": since, "epoch": head["epoch"]})
    else:
        print(f"{device} is released; it was in quarantine since {since}")
        print(
            "  Should two copies of it still be alive, it will be there again soon: wipe one, or give it a new identity"
        )
    return OK
