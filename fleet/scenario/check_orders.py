"""What must hold of workloads that give commands, and of a schema whose devices take them.

Adds problems to the document; called by fleet.scenario.check.
"""

from __future__ import annotations

from typing import Final

from agent.protocol.errors import InputError
from agent.protocol.remote import COMMAND, COMMAND_FIELDS, COMMAND_OPTIONAL, RESULT, check_models, has_commands
from agent.protocol.schema import Schema
from fleet.scenario.document import Document, Path_
from fleet.scenario.draft import unknown
from fleet.scenario.facts import REV
from fleet.scenario.model import Workload
from fleet.scenario.orders import ORDERS

FILLED: Final = frozenset((*COMMAND_FIELDS, *COMMAND_OPTIONAL))  # of a Command, by a workload that gives commands


def check_schema(document: Document, schema: Schema) -> None:
    """Where devices take commands, the models must be those that the agent needs."""
    if has_commands(schema):
        try:
            check_models(schema, (REV,))
        except InputError as error:
            document.problems.extend(error.problems)


def check_orders(document: Document, path: Path_, workload: Workload, schema: Schema | None) -> None:
    unknown(document, (*path, "commands"), workload.commands, tuple(ORDERS), "command")
    if not workload.commands:
        if workload.expires_us[1]:
            document.complain((*path, "expires"), "goes with `commands` only", "`life` ends an item's life")
        return
    if (workload.model, workload.side, workload.action) != (COMMAND, "cloud", "create"):
        hint = f"side: cloud, model: {COMMAND}, action: create"
        document.complain((*path, "commands"), f"only the cloud gives commands, as new items of {COMMAND}", hint)
    elif schema is not None and not has_commands(schema):
        hint = "schemas/commands.json5 has both models"
        document.complain((*path, "commands"), f"the schema has no {RESULT}: devices take no commands", hint)
    if workload.expires_us[0] <= 0:
        hint = "such as expires: [1m, 10m]"
        document.complain((*path, "commands"), "needs `expires`: when a command is void", hint)
