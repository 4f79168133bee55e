"""One row an interval of what the fleet did: counters of the interval, and values at its end. Memory is bounded.

A run of more than ROWS_MAX intervals gets longer ones, so that days cost no more than hours; a row is kept as numbers
and becomes a dict when it is asked for. Reads the world's counters, changes nothing. Columns are those that
reports.result names.
"""

from __future__ import annotations

from array import array
from math import isnan
from typing import TYPE_CHECKING, Final

from fleet.intervals import COUNTERS, LATENCIES, VALUES, interval_us
from fleet.latencies import Phases

if TYPE_CHECKING:
    from fleet.world.world import World

Row = dict[str, int | float]

_WHOLE: Final = len(COUNTERS) + len(VALUES)  # so many columns are whole numbers


class Timeline:
    """`close` at the end of each interval, `close_last` once at the end of the run."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._phases = Phases(world.plan)
        self._interval_us = interval_us(world.plan)
        self._start_us = 0
        self._before = self._counters()
        self._rows: list[array[float]] = []
        self.next_us = self._interval_us

    def _counters(self) -> tuple[int, ...]:
        world = self._world
        broker, oracle, probes = world.broker, world.oracle, world.probes
        return (
            oracle.local_writes,
            oracle.cloud_writes,
            oracle.updates_synced,
            *broker.traffic(),
            broker.connects,
            broker.disconnects,
            probes["retransmit"],
            probes["conflict_lost"],
            probes["snapshot_loaded"],
            probes["duplicate_dropped"] + probes["duplicate_batch"],
            probes["throttled"],
        )

    @property
    def rows(self) -> list[Row]:
        """Those of the intervals that are over."""
        return self.rows_from(0)

    def rows_from(self, first: int) -> list[Row]:
        """Those of the intervals that are over, without the first so many."""
        return [_row((first + n) * self._interval_us, numbers) for n, numbers in enumerate(self._rows[first:])]

    def close(self) -> None:
        """The interval ends now."""
        world = self._world
        counters = self._counters()
        numbers = array("d", (now - before for now, before in zip(counters, self._before, strict=True)))
        outbox, in_step = world.waiting()
        numbers.extend((world.online(), outbox, world.cloud.backlog(), in_step))
        now_us = world.clock.now
        phase = self._phases.of(self._start_us, now_us)
        for quantiles in world.latencies.close(phase, (now_us - self._start_us) / 1e6):
            numbers.extend(quantiles)
        self._rows.append(numbers)
        self._before = counters
        self._start_us = self.next_us
        self.next_us += self._interval_us

    def close_last(self) -> None:
        """The last interval may be a short one."""
        world = self._world
        if world.clock.now > self._start_us:
            self.close()
        else:  # what came at the very end of the interval before
            world.latencies.close(self._phases.of(self._start_us - 1, self._start_us), 0.0)
        world.latencies.finish()


def _row(start_us: int, numbers: array[float]) -> Row:
    row: Row = {"t_s": start_us / 1e6}
    row.update(zip((*COUNTERS, *VALUES), map(int, numbers[:_WHOLE]), strict=True))
    row.update((name, number) for name, number in zip(LATENCIES, numbers[_WHOLE:], strict=True) if not isnan(number))
    return row
