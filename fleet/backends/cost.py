"""What a run on a table of AWS will cost, told before it begins: the same plan in memory, on a table that keeps a bill.

A run does the same on any table, so units and writes are counted, not guessed; what is guessed is how often the stream
is looked at, and how many requests the service refuses and gets again. Called by `fleet run`.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from cloud.metered import MeteredTable
from cloud.table import Key, Record
from fleet.plants import types_with
from fleet.scenario.plan import Plan
from fleet.world.table import retain_ms
from fleet.world.world import World
from reports.cost import AWS, REGION

LOOKS: Final = 6  # reads of the stream for one write: some shards, and a second look now and then


@dataclass(frozen=True, slots=True)
class Estimate:
    write_units: int
    read_units: int
    stream_reads: int

    @property
    def dollars(self) -> float:
        """By the one price table, reports.cost."""
        units = {"write_units": self.write_units, "read_units": self.read_units, "stream_reads": self.stream_reads}
        return float(
            sum((AWS[name].cost(Fraction(number)) or Fraction(0) for name, number in units.items()), Fraction(0))
        )

    def __str__(self) -> str:
        return (
            f"about {self.write_units:,} write units, {self.read_units:,} read units and {self.stream_reads:,} reads "
            f"of the stream: ${max(0.01, self.dollars):.2f} by the list prices of {REGION}, on demand"
        )


def estimate(plan: Plan) -> Estimate:
    """Runs the plan in memory, to its end."""
    table = MeteredTable(shards=plan.cloud.shards, retain_ms=retain_ms(plan.cloud))
    keys: dict[Key, None] = {}
    writes = 0

    def committed(record: Record) -> None:
        nonlocal writes
        writes += 1
        keys[record.key] = None

    table.subscribe(committed)
    world = World(plan, types_with(plan.plant), table=table, hashed=False)
    world.finish(world.run())
    cleaning = len(keys)  # each is deleted at the end
    return Estimate(sum(table.write_units.values()) + cleaning, sum(table.read_units.values()), LOOKS * writes)
