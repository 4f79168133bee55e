"""Remote commands of a device with a real relay and table: disks and tables that are put back, and copies of a disk."""

from __future__ import annotations

import sqlite3

import pytest
from device_rig import PK, Pair
from relay_rig import stored
from remote_rig import MINUTE_MS, SCHEMA, Remote, command

from agent.files import open_memory
from cloud.incarnation import mark
from cloud.table import Delete, Item, Put


class Orders(Pair):
    """A pair whose device takes commands."""

    device: Remote

    def __init__(self) -> None:
        super().__init__(schema=SCHEMA, device_type=Remote)
        self.meet()

    def meet(self) -> None:
        """Everything that can be said is said, and every handler has run."""
        self.drain(MINUTE_MS)
        self.act(self.device.finish)
        self.drain(MINUTE_MS)

    def order(self, command_id: str, name: str = "blink") -> None:
        image = command(command_id, name, expires_ms=self.rig.now_ms + 60 * MINUTE_MS)
        self.rig.execute(Put(stored(image)))

    def state_in_table(self, command_id: str) -> str:
        item = self.rig.item((PK, f"command-result#{command_id}"))
        return "" if item is None else str(item["state"])

    def disk(self) -> sqlite3.Connection:
        copy = open_memory()
        self.device.connection.backup(copy)
        return copy

    def put_back(self, disk: sqlite3.Connection) -> Remote:
        """The device has an older disk now. Returns the device that it was."""
        was = self.device
        was.off()
        self.up.clear()
        self.down.clear()
        self.device = Remote(connection=disk, now_ms=lambda: self.rig.now_ms, seed=2)
        self.device.boots = was.boots
        return was

    def put_table_back(self, copy: list[Item]) -> None:
        """What was on its way is gone with the relay; the table is marked."""
        for held in (self.up, self.down, self.tasks, self.records):
            held.clear()
        self.rig.table.restore(copy)
        self.rig.position = self.rig.table.stream.latest(0)
        self.rig.execute(mark(self.rig.random_hex))
        self.rig.now_ms += MINUTE_MS  # so long a relay goes by what it knew


def test_an_order_gets_its_answer_in_the_table() -> None:
    pair = Orders()
    pair.order("c1")
    pair.meet()
    assert pair.state_in_table("c1") == "done" and pair.device.ran == [("c1", "blink")]


def test_a_disk_from_before_the_deed_is_noticed_before_anything_is_done() -> None:
    pair = Orders()
    disk = pair.disk()
    pair.order("c1")
    pair.meet()
    was = pair.put_back(disk)
    pair.order("c2")
    pair.meet()
    assert was.ran == [("c1", "blink")] and pair.device.ran == []
    assert pair.device.states() == {"c1": "refused", "c2": "refused"}, "both came before the new epoch began"
    assert pair.state_in_table("c1") == "refused", "the device's own word replaces what it said before"
    pair.order("c3")
    pair.meet()
    assert pair.device.ran == [("c3", "blink")] and pair.state_in_table("c3") == "done"


def test_an_empty_disk_does_nothing_of_what_was_ordered_before() -> None:
    pair = Orders()
    pair.order("c1")
    pair.meet()
    pair.put_back(open_memory())
    pair.meet()
    assert pair.device.ran == [] and pair.device.states() == {"c1": "refused"}
    pair.order("c2")
    pair.meet()
    assert pair.device.ran == [("c2", "blink")]


@pytest.mark.parametrize("answered", [True, False])
def test_a_table_that_is_put_back_makes_no_deed_happen_again(answered: bool) -> None:
    """Its copy has the order, and may not have the answer."""
    pair = Orders()
    pair.order("c1")
    if answered:
        pair.meet()
    copy = pair.rig.table.backup()
    pair.meet()
    pair.rig.execute(Delete((PK, "command#c1")))
    pair.meet()
    assert not pair.device.knows("c1")
    pair.order("c2")
    pair.put_table_back(copy)
    pair.meet()
    assert pair.device.knows("c1") and not pair.device.knows("c2")
    assert pair.device.ran.count(("c1", "blink")) == 1
    assert pair.state_in_table("c1") == "done"


def test_a_copy_of_the_disk_does_nothing_that_the_device_may_have_done() -> None:
    pair = Orders()
    original = pair.device
    copied = Remote(connection=pair.disk(), now_ms=lambda: pair.rig.now_ms, seed=2)
    ran: list[tuple[str, str]] = []
    for number in range(4):
        pair.order(f"c{number}")
        pair.meet()
        pair.device.off()
        pair.up.clear()
        pair.down.clear()
        pair.device = copied if pair.device is original else original
        pair.meet()
        ran = original.ran + copied.ran
        assert len(ran) == len(set(ran))
    assert len(ran) >= 2
