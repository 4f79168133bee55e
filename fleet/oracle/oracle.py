"""The oracle: judges a run by what applications did and saw, messages on the wire, commits, and the final states.

It shares no logic with the code under test: it reads keys by the schema, messages by their wire form, and the relay's
own records through fleet.oracle.stored. Online, linear in the number of calls, flat in memory: what is decided and seen
by everyone is forgotten. It never stops a run and never raises on a violation; the checks keep score.
Called by the simulated world and by live runs; times are virtual microseconds and never run backwards.

`updates_synced` counts once for each write and receiving side: the table, when it commits an up or both model's write
(or the later write of the same item that superseded it; a write that lost does not count), and each device, when it
durably has a table's change or a newer one of the same item. A device's own write coming back does not count. A change
that no application could notice (created and removed before the device heard of it) is counted, without a latency, once
the device's cursor has passed it.
"""

from __future__ import annotations

from fleet.oracle.command_side import CommandSide


class Oracle(CommandSide):
    """One run's oracle. See the sides for its calls: AppSide, TableSide, WireSide, RestoredSide, DamagedSide, Final,
    CommandSide."""
