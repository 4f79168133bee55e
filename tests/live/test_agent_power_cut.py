"""The power fails while the daemon runs: a new agent opens whatever the disk is left with, and comes to one state with
the cloud.

The daemon runs in the test's process on the simulated disk of the store's own tests, with its socket, a real broker and
the relay. Before operations of the disk that are drawn at random, the cloud's table is noted: messages that are on
their way then are lost, as they are in a cut. From each, what a machine would find that boots there is made, with one
fate or another of what was not synced; `fleet-agent run` starts on those files, against the cloud as it was.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from agent_rig import NAMES, AgentProcess, Application
from broker_relay import BrokerRelay
from daemon_rig import daemon_on
from live_rig import Mosquitto, until
from relay_rig import Rig, config, stored
from simulated_disk import FATES, SHORT_LOG_PAGES, Disk, Files, Op, Platter, connect

from agent.api.client import Client
from cloud.table import Item
from fleet.rng import rng

OPERATIONS_MAX: Final = 120  # of the disk, between two moments; a write takes about six


class Moment(msgspec.Struct):
    """`done`: operations that the disk had done. `settings`, `faults`: acknowledged before; `rev`: the last that was
    asked for. `table`: the cloud's."""

    done: int
    settings: dict[str, int]
    faults: dict[str, int]
    rev: int
    table: list[Item]


class Watch:
    """Notes so many moments of a daemon's life, each before an operation of its disk: it stands in the disk's way."""

    def __init__(self, disk: Disk, relay: BrokerRelay, application: Application, count: int) -> None:
        self.found: list[Moment] = []
        self._disk = disk
        self._relay = relay
        self._application = application
        self._count = count
        self._chance = random.Random(count)
        self._at = 0
        disk.fail = self._look

    def _look(self, _kind: str) -> None:
        if len(self._disk.log) < self._at or self.whole:
            return
        self._at = len(self._disk.log) + self._chance.randrange(1, OPERATIONS_MAX)
        application = self._application
        with self._relay.still():
            table = self._relay.rig.table.backup()
            settings, faults = dict(application.settings), dict(application.faults)
            self.found.append(Moment(len(self._disk.log), settings, faults, application.rev, table))

    @property
    def whole(self) -> bool:
        return len(self.found) == self._count


def moments(folder: Path, broker: Mosquitto, disk: Disk, count: int) -> list[Moment]:
    """Of one life of the daemon, while an application and the cloud write."""
    place = AgentProcess(folder, {"url": f'"{broker.url}"'})
    with BrokerRelay(broker.port) as relay, daemon_on(connect(disk, log_pages=SHORT_LOG_PAGES), place) as said:
        application = Application(place.socket)
        watch = Watch(disk, relay, application, count)
        application.start()
        revs = iter(range(1, 1_000_000))

        def cloud_writes() -> None:
            relay.put(stored(config(next(revs))))
            application.pause()

        until(lambda: application.failure or watch.whole, f"{count} moments", cloud_writes)
        application.end()
    assert not [event for event in said if event["event"] == "session-failed"]
    return watch.found


def left(log: Sequence[Op], found: Sequence[Moment], fates: Sequence[str]) -> Iterator[tuple[Moment, Files]]:
    """What the disk has after a cut at each moment, with the fates by turns."""
    platter = Platter({}, log)
    for number, moment in enumerate(found):
        while platter.done < moment.done:
            platter.step()
        fate = fates[number % len(fates)]
        yield moment, platter.after(FATES[fate], rng(1, f"{number}", fate))


def boots(folder: Path, broker: Mosquitto, moment: Moment, files: Files) -> None:
    """A new agent on these files, and the cloud as it was. Raises AssertionError when they do not come to one state, in
    which all is that was acknowledged."""
    folder.mkdir()
    agent = AgentProcess(folder, {"url": f'"{broker.url}"'})
    for name, data in files.items():
        (agent.folder / name).write_bytes(data)
    rig = Rig()
    rig.table.restore(moment.table)
    with BrokerRelay(broker.port, rig) as relay, agent.start():
        agent.wait("connected")
        with agent.client() as client:
            until(partial(alike, client, relay), "device and cloud are alike", agent.pause)
            on_device = device_items(client)
        assert agent.terminate() == 0 and not agent.odd
        assert not agent.events("session-failed")
    for name, rev in moment.settings.items():
        now = on_device["Setting"].get(name)
        assert now is not None, f"{name} is missing"
        assert rev <= now <= moment.rev and f"s{now % NAMES}" == name, (name, rev, now)
    for name, rev in moment.faults.items():
        assert on_device["Fault"].get(name) == rev, f"{name} is missing"
    assert all(name == f"f{rev}" and rev <= moment.rev for name, rev in on_device["Fault"].items())


def device_items(client: Client) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {"Setting": {}, "Fault": {}, "Config": {}}
    for model, items in found.items():
        answer = client.ask("find", model=model, limit=1_000)
        assert not answer["more"]
        items.update((str(item.get("name") or item.get("id") or ""), item["rev"]) for item in answer["items"])
    return found


def alike(client: Client, relay: BrokerRelay) -> bool:
    """Nothing waits to be sent, and both have the same items."""
    there: dict[str, dict[str, Any]] = {"Setting": {}, "Fault": {}, "Config": {}}
    for item in relay.items():
        there[item["_type"]][item.get("name") or item.get("id") or ""] = item["rev"]
    return client.ask("status")["status"]["pending"] == 0 and device_items(client) == there


def cut(folder: Path, broker: Mosquitto, disk: Disk, count: int, fates: Sequence[str]) -> int:
    """How many power cuts were overcome."""
    recorded = folder / "recorded"
    recorded.mkdir()
    found = moments(recorded, broker, disk, count)
    cuts = 0
    for moment, files in left(disk.log, found, fates):
        boots(folder / f"{cuts}", broker, moment, files)
        cuts += 1
    return cuts


def test_after_a_power_cut_a_new_agent_converges_with_the_cloud(tmp_path: Path, broker: Mosquitto) -> None:
    assert cut(tmp_path, broker, Disk(), 8, tuple(FATES)) == 8


@pytest.mark.slow
def test_so_it_does_after_a_hundred_cuts(tmp_path: Path, broker: Mosquitto) -> None:
    assert cut(tmp_path, broker, Disk(), 104, tuple(FATES)) == 104


def test_a_disk_that_lies_about_syncs_is_noticed(tmp_path: Path, broker: Mosquitto) -> None:
    with pytest.raises(AssertionError, match="is missing"):
        cut(tmp_path, broker, Disk(syncs=False), 3, ("drop",))
