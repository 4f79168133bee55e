"""`status`: how the agent is; where none runs, what its database says.

Called by agent.cli.
"""

from __future__ import annotations

import argparse
from typing import Any

from agent.commands.opening import opened
from agent.commands.reaching import agent_of
from agent.protocol.commands.failure import OK
from agent.protocol.commands.output import print_json
from agent.protocol.commands.tables import cell


def status(arguments: argparse.Namespace) -> int:
    agent = agent_of(arguments)
    if agent is not None:
        with agent.client as client:
            found: dict[str, Any] = client.ask("status")["status"]
    else:
        found = _stopped(arguments)
    if arguments.json:
        print_json(found)
        return OK
    shown = {name: value for name, value in found.items() if value not in (None, "", {}) and name != "probes"}
    width = max(map(len, shown))
    for name, value in shown.items():
        print(f"{name.ljust(width)}  {cell(round(value, 1) if isinstance(value, float) else value)}")
    return OK


def _stopped(arguments: argparse.Namespace) -> dict[str, Any]:
    with opened(arguments) as database:
        statistics = database.statistics()
        return {
            "device": database.context.device_id,
            "account": database.context.account_id,
            "state": "stopped",
            "items": statistics.items,
            "pending": statistics.outbox_rows,
            "in_flight": statistics.in_flight,
            "rejected": statistics.dead_letters,
            "file_bytes": statistics.file_bytes,
            "adopted": statistics.adopted,
        }
