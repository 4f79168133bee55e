"""One row an interval of what the fleet did: counters of the interval, and values at its end. Flat memory but for rows.

Reads the world's counters, changes nothing. Columns are those that reports.result names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from reports.histogram import LatencyRecorder

if TYPE_CHECKING:
    from fleet.world.world import World

Row = dict[str, int | float]


class Timeline:
    """`close` at the end of each interval, `close_last` once at the end of the run."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._interval_us = world.plan.interval_us
        self._start_us = 0
        self._before = self._counters()
        self.next_us = self._interval_us
        self.rows: list[Row] = []

    def _counters(self) -> dict[str, int]:
        world = self._world
        broker, oracle, probes = world.broker, world.oracle, world.probes
        traffic = broker.counts()
        return {
            "writes_device": oracle.local_writes,
            "writes_cloud": oracle.cloud_writes,
            "synced": oracle.updates_synced,
            "messages_up": traffic["messages_up"],
            "messages_down": traffic["messages_down"],
            "messages_lost": traffic["messages_lost"],
            "connects": broker.connects,
            "disconnects": broker.disconnects,
            "retransmits": probes["retransmit"],
            "conflicts": probes["conflict_lost"],
        }

    def close(self) -> None:
        """The interval ends now."""
        world = self._world
        counters = self._counters()
        row: Row = {"t_s": self._start_us / 1e6}
        row.update({name: value - self._before[name] for name, value in counters.items()})
        row["online"] = world.online()
        row["outbox"] = world.outbox()
        row["feed_lag"] = world.cloud.backlog()
        _percentiles(row, "up", world.interval_up, world.latency_up)
        _percentiles(row, "down", world.interval_down, world.latency_down)
        self.rows.append(row)
        self._before = counters
        self._start_us = self.next_us
        self.next_us += self._interval_us

    def close_last(self) -> None:
        """The last interval may be a short one."""
        if self._world.clock.now > self._start_us:
            self.close()
        else:
            self._world.latency_up.merge(self._world.interval_up)
            self._world.latency_down.merge(self._world.interval_down)


def _percentiles(row: Row, name: str, interval: LatencyRecorder, total: LatencyRecorder) -> None:
    """Of this interval alone; then into the whole."""
    if len(interval):
        row[f"{name}_p50_s"], row[f"{name}_p99_s"] = interval.quantiles_s(50.0, 99.0)
    total.merge(interval)
    interval.clear()
