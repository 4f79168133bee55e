"""What is wrong with the machine while the daemon runs: a disk that is full or fails, a clock at 1970.

It says once what is wrong and what to do; serves what can be served; tries again without a storm; and goes on when it
is over. The daemon is in the test's process, on the simulated disk. What a file system that was made read-only answers
to who has a file open is a failing disk, too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import apsw
import pytest
from agent_rig import AgentProcess
from broker_relay import BrokerRelay
from daemon_rig import daemon_on
from live_rig import Mosquitto, until, wall_ms
from relay_rig import config, stored
from simulated_disk import SHORT_LOG_PAGES, Disk, connect

from agent.protocol.commands.failure import CommandError

WRITES = ("create", "write", "truncate")
YEAR_MS = 365 * 24 * 3_600_000


LOOKS = 50  # of 0.05 s each


def of(said: list[dict[str, Any]], event: str) -> list[dict[str, Any]]:
    return [each for each in said if each["event"] == event]


class Broken:
    """Refuses what writes, for as long as it is `on`; counts."""

    def __init__(self, disk: Disk, error: type[apsw.Error]) -> None:
        self.on = False
        self.refused = 0
        self._error = error
        disk.fail = self._fail

    def _fail(self, kind: str) -> None:
        if self.on and kind in WRITES:
            self.refused += 1
            raise self._error


@pytest.mark.parametrize(("error", "text"), [(apsw.FullError, "the disk is full"), (apsw.IOError, "the disk failed")])
def test_a_disk_that_takes_no_writes_is_told_once_and_reads_go_on(
    tmp_path: Path, broker: Mosquitto, error: type[apsw.Error], text: str
) -> None:
    disk = Disk()
    broken = Broken(disk, error)
    place = AgentProcess(tmp_path, {"url": f'"{broker.url}"'})
    connection = connect(disk, log_pages=SHORT_LOG_PAGES)
    with BrokerRelay(broker.port) as relay, daemon_on(connection, place) as said, place.client() as client:
        client.ask("upsert", model="Setting", item={"name": "a", "rev": 1})
        until(lambda: place.status()["pending"] == 0, "it is in step", place.pause)
        broken.on = True
        with pytest.raises(CommandError, match=text) as refused:
            client.ask("upsert", model="Setting", item={"name": "a", "rev": 2})
        assert refused.value.hint
        relay.put(stored(config(7)))  # which the session cannot store
        until(lambda: of(said, "session-failed"), "it is told", place.pause)
        tries = broken.refused
        for _ in range(LOOKS):
            assert client.ask("get", model="Setting", item={"name": "a"})["item"]["rev"] == 1
            place.pause()
        assert broken.refused - tries < LOOKS // 2, "a storm"
        (failed,) = of(said, "session-failed")
        assert text in failed["reason"]
        broken.on = False
        client.ask("upsert", model="Setting", item={"name": "a", "rev": 3})
        until(lambda: place.status()["pending"] == 0, "it goes on", place.pause)
        until(lambda: client.ask("get", model="Config", item={})["item"], "what it missed is there", place.pause)
        assert [item["rev"] for item in relay.items() if item["_type"] == "Setting"] == [3]


def test_a_clock_at_1970_is_told_and_writes_get_the_right_time_once_the_relay_has_told_it(
    tmp_path: Path, broker: Mosquitto
) -> None:
    began = wall_ms()
    place = AgentProcess(tmp_path, {"url": f'"{broker.url}"'})
    with daemon_on(connect(Disk()), place, lambda: 1_000 + wall_ms() - began) as said, place.client() as client:
        (told,) = of(said, "clock-not-set")
        assert told["level"] == "warning" and "TLS needs the clock" in told["hint"]
        client.ask("create", model="Fault", item={"id": "early", "rev": 1})
        assert not place.status()["clock_corrected"]
        with BrokerRelay(broker.port) as relay:
            until(lambda: place.status()["pending"] == 0, "it is in step", place.pause)
            assert place.status()["clock_corrected"]
            client.ask("create", model="Fault", item={"id": "late", "rev": 2})
            until(lambda: place.status()["pending"] == 0, "it is in step again", place.pause)
            stamps = {item["id"]: item["updated"] for item in relay.items()}
    assert stamps["early"] < YEAR_MS
    assert began <= stamps["late"] <= wall_ms()
