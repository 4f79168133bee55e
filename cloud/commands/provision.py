"""`provision`: makes the table, or shows what a table that exists lacks, and adds it when told to.

Called by cloud.cli.
"""

from __future__ import annotations

import argparse

from agent.protocol.commands.failure import BAD_INPUT, OK, CommandError, note
from agent.protocol.commands.output import print_json
from cloud import system
from cloud.commands.opening import client_of, schema_if_any, table_name
from cloud.provision import Plan, Provisioner


def provision(arguments: argparse.Namespace) -> int:
    if arguments.yes and arguments.dry_run:
        raise CommandError("--yes and --dry-run contradict each other", "name one")
    schema = schema_if_any(arguments)
    name = table_name(arguments)
    plan = Provisioner(client_of(arguments), name, schema, system.pause).plan()
    wants_yes = plan.exists and bool(plan.changes) and not arguments.yes
    apply = bool(plan.changes) and not arguments.dry_run and not wants_yes
    if not arguments.json:
        _tell(plan, apply)
    if apply:
        for change in plan.changes:
            change.make()
    if arguments.json:
        changes = [change.text for change in plan.changes]
        print_json({"table": name, "existed": plan.exists, "changes": changes, "applied": apply})
    if wants_yes and not arguments.dry_run:
        note("fleet-cloud: nothing was changed, because the table exists (--yes makes these changes)")
        return BAD_INPUT
    return OK


def _tell(plan: Plan, apply: bool) -> None:
    if not plan.changes:
        print(f"{plan.place}: has everything, nothing to do")
        return
    print(f"{plan.place}: {'changes' if apply else 'would change'}")
    print(*(f"  {change.text}" for change in plan.changes), sep="\n")
