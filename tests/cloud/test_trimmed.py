"""A stream that was trimmed before any relay read it: what it told is in no feed, and `restore-mark` heals it.

Three devices of two accounts, with the real database and session, on one relay and one table; messages travel at once.
Called by pytest only.
"""

from __future__ import annotations

from typing import Any

import pytest
from device_rig import Device
from relay_rig import ACCOUNTS, Rig, config, notice, setting, stored

from agent.events import CONNECTED
from agent.protocol import topics
from agent.protocol.messages import Key
from cloud.incarnation import mark
from cloud.table import Delete, Put

HOUR_MS = 3_600_000


class Houses:
    """Every device that there is an account for, connected."""

    def __init__(self) -> None:
        self.rig = Rig()
        self.devices = {
            name: Device(device_id=name, account=account, now_ms=lambda: self.rig.now_ms).boot()
            for name, account in ACCOUNTS.items()
        }

    def pass_time(self, by_ms: int) -> None:
        """All goes well meanwhile: timers ring, messages arrive, changes of the table become rows and pushes."""
        end_ms = self.rig.now_ms + by_ms
        while self.rig.now_ms < end_ms:
            self.rig.now_ms += 1_000
            for device in self.devices.values():
                device.tick()
                if device.connecting:
                    device.connecting = False
                    device.feed(CONNECTED)
            self.settle()

    def settle(self) -> None:
        rig = self.rig
        while any(device.out for device in self.devices.values()) or rig.published or rig.sequence():
            for name, device in self.devices.items():
                for payload in device.out:
                    rig.run(rig.relay.on_message(name, payload))
                device.out.clear()
            published, rig.published = rig.published, []
            for message in published:
                for device in self.devices.values():
                    name, account = device.context.device_id or "", device.context.account_id or ""
                    heard = (topics.to_device(name), topics.to_account(account), topics.to_all())
                    if device.online and message.topic in heard:
                        device.hear(message.payload)

    def lose_records(self) -> None:
        """No relay ran for a day: what the stream had is gone."""
        assert self.rig.records()

    def differing(self) -> list[Key]:
        """Items that a device has otherwise than the table, or not at all, or alone."""
        found: list[Key] = []
        table = {(item["pk"], item["sk"]): item["rev"] for item in self.rig.table.scan()}
        for name, device in self.devices.items():
            account = ACCOUNTS[name]
            there = {key: rev for key, rev in table.items() if key[0] in (f"device#{name}", f"account#{account}")}
            here = {key: image["rev"] for key, image in device.visible().items()}
            found.extend(key for key in there.keys() | here.keys() if there.get(key) != here.get(key))
        return found

    def write(self, *items: Any) -> None:
        for item in items:
            self.rig.execute(Put(stored(item)))


@pytest.fixture
def houses() -> Houses:
    made = Houses()
    made.write(
        *(config(1, name) for name in ACCOUNTS), setting(1), notice(1, "a"), notice(1, "b"), notice(1, "a", "other")
    )
    for rev, device in enumerate(made.devices.values(), 1):
        device.database.upsert("Status", {"rev": rev})
    made.pass_time(20 * 60_000)
    assert made.differing() == []
    return made


def lost_writes(houses: Houses) -> None:
    """Changed, made and removed, in feeds of devices and of an account; and an operation that waits on a device."""
    houses.write(config(2), setting(2), setting(1, "new"), notice(2, "a"))
    houses.rig.execute(Delete(config(1, "home-2")[0]))
    houses.rig.execute(Delete(notice(1, "b")[0]))
    houses.lose_records()


def test_what_a_trimmed_stream_told_is_missed_until_the_table_is_marked(houses: Houses) -> None:
    lost_writes(houses)
    houses.pass_time(2 * HOUR_MS)
    assert len(houses.differing()) == 8, "no hello brings what is in no feed; items of an account differ on two devices"
    houses.rig.execute(mark(houses.rig.random_hex))
    houses.pass_time(HOUR_MS)
    assert houses.differing() == []
    for device in houses.devices.values():
        assert device.store.outbox_rows == 0 and device.session.mints == 1
        assert device.store.incarnation != ""
    houses.write(config(3), notice(3, "c"))
    houses.pass_time(60_000)
    assert houses.differing() == [], "and all goes on as before"


def test_what_a_device_writes_meanwhile_is_kept_through_the_mark(houses: Houses) -> None:
    lost_writes(houses)
    device = houses.devices["home-1"]
    houses.rig.execute(mark(houses.rig.random_hex))
    device.database.upsert("Setting", {"name": "own", "rev": 7})
    device.database.upsert("Status", {"rev": 7})
    houses.pass_time(HOUR_MS)
    assert houses.differing() == []
    revs = {key[1]: image["rev"] for key, image in device.visible().items() if key[0] == "device#home-1"}
    assert revs == {"status#": 7, "setting#own": 7, "setting#mode": 2, "setting#new": 1, "config#": 2}
