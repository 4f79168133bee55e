"""`restore-mark`: tells the relay and all devices that the table was put back to an older copy.

Changes one item, the table's marker, and only where a person has said so. Called by cloud.cli.
"""

from __future__ import annotations

import argparse
from typing import Final

from agent.protocol.commands.failure import BAD_INPUT, OK, CommandError, note
from agent.protocol.commands.output import print_json
from cloud import system
from cloud.commands.devices import registered
from cloud.commands.opening import opened, table_name
from cloud.incarnation import INCARNATION, MARKER_KEY, mark
from cloud.table import ITEM_EXISTS, Condition, ConditionFailed, Get

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
