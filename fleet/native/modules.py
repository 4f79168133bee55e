"""Which modules are compiled: those that take the time of a run, and what their classes inherit from.

A class that is compiled inherits from compiled classes only, one of them at most. Modules that define msgspec's structs
stay as they are: msgspec reads their annotations when they are imported.
"""

from __future__ import annotations

from typing import Final

MODULES: Final = (
    "agent.changes",
    "agent.clock",
    "agent.database",
    "agent.incoming",
    "agent.outgoing",
    "agent.protocol.onetable.model",
    "agent.protocol.onetable.model_keys",
    "agent.protocol.onetable.template",
    "agent.protocol.onetable.writing",
    "agent.protocol.schema",
    "agent.receiving",
    "agent.replica",
    "agent.session",
    "agent.store",
    "cloud.feed",
    "cloud.head",
    "cloud.ingest",
    "cloud.memory",
    "cloud.memory_items",
    "cloud.memory_stream",
    "cloud.metered",
    "cloud.relay",
    "fleet.oracle.app_side",
    "fleet.oracle.command_side",
    "fleet.oracle.damaged",
    "fleet.oracle.final",
    "fleet.oracle.ledger",
    "fleet.oracle.log_side",
    "fleet.oracle.oracle",
    "fleet.oracle.payload",
    "fleet.oracle.restored",
    "fleet.oracle.state",
    "fleet.oracle.table_side",
    "fleet.oracle.tally",
    "fleet.oracle.wire_side",
    "fleet.rng",
    "fleet.trace",
    "fleet.world.broker",
    "fleet.world.clock",
    "fleet.world.cloud",
    "fleet.world.connection",
    "fleet.world.device",
    "fleet.world.downlink",
    "fleet.world.executor",
    "fleet.world.hops",
    "fleet.world.link",
    "fleet.world.shards",
    "fleet.world.tasks",
    "fleet.world.timeline",
    "fleet.world.uplink",
    "fleet.world.workers",
    "fleet.world.workload",
    "fleet.world.world",
    "reports.histogram",
)

# Planted bugs and the copy of a device inherit from these, and are not compiled; with each, what it inherits from.
OPEN: Final = frozenset(
    {
        "AppSide",
        "CloudWorld",
        "CommandSide",
        "CorrectedClock",
        "DamagedSide",
        "Database",
        "Final",
        "Ingest",
        "Ledger",
        "LogSide",
        "Oracle",
        "Receiving",
        "Relay",
        "Replica",
        "RestoredSide",
        "Sequencer",
        "Session",
        "Shards",
        "Store",
        "TableSide",
        "WireSide",
        "Workers",
    }
)
