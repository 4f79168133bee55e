"""Two copies of one device live at once: they replace each other's epochs, until HEAD stops both (rule 18)."""

from __future__ import annotations

import sqlite3

from device_rig import Device
from relay_rig import Rig, hello, op, status, up

from agent.files import open_memory
from agent.protocol.messages import QUARANTINE, Ack, Hello, Reset, Wait
from cloud.config import RelayConfig
from cloud.drive import run
from cloud.head import head_key
from cloud.quarantine import HALTED, WINDOW_MS, released
from cloud.table import Put, Query

WAIT = Wait(hn="hn", retry_after=RelayConfig().quarantine_retry_ms, reason=QUARANTINE)
MOST = RelayConfig().epochs_per_hour


def replaced(rig: Rig, times: int, every_ms: int = 1_000, first: int = 0) -> list[object]:
    """A new epoch in the place of the one before, so often."""
    answers: list[object] = []
    for number in range(first, first + times):
        rig.now_ms += every_ms
        (answer,) = rig.send(hello(f"epoch-{number + 1}", f"epoch-{number}"))
        answers.append(answer)
    return answers


def begun() -> Rig:
    rig = Rig()
    rig.send(hello("epoch-0"))
    return rig


# ---------------------------------------------------------------- HEAD counts


def test_one_more_epoch_than_an_hour_allows_puts_the_device_into_quarantine() -> None:
    rig = begun()
    assert all(isinstance(answer, Ack) for answer in replaced(rig, MOST))
    assert replaced(rig, 1, first=MOST) == [WAIT]
    assert rig.counters["device_quarantined"] == 1
    head = rig.head()
    assert head[HALTED] == rig.now_ms and head["epoch"] == f"epoch-{MOST}", "the epoch stays as it was"


def test_epochs_that_lie_more_than_an_hour_back_do_not_count() -> None:
    rig = begun()
    answers = replaced(rig, 4 * MOST, every_ms=WINDOW_MS // MOST + 1)
    assert all(isinstance(answer, Ack) for answer in answers)
    assert len(rig.head()["born"]) <= MOST


def test_epochs_of_a_clock_that_went_back_do_not_count_for_ever() -> None:
    rig = begun()
    replaced(rig, MOST)
    rig.now_ms -= 10 * WINDOW_MS
    assert isinstance(replaced(rig, 1, first=MOST)[0], Ack)


def test_in_quarantine_nothing_is_taken_and_nothing_is_told_whatever_the_epoch() -> None:
    rig = begun()
    replaced(rig, MOST + 1)
    before = list(rig.table.scan(private=True))
    epoch = rig.head()["epoch"]
    for message in (
        hello(epoch), hello("another"), hello("another", epoch),
        up(op(1, "create", status(1)), epoch=epoch), up(op(1, "create", status(1)), epoch="another"),
    ):  # fmt: skip
        assert rig.send(message) == [WAIT]
    assert list(rig.table.scan(private=True)) == before
    assert rig.counters["message_refused_quarantine"] == 6
    (other,) = rig.send(hello("of another"), "home-2")
    assert isinstance(other, Ack), "another device is none the worse"


def test_a_release_ends_it_and_the_count_begins_anew() -> None:
    rig = begun()
    replaced(rig, MOST + 1)
    rig.execute(released(head_key("home-1")))
    assert all(isinstance(answer, Ack) for answer in replaced(rig, MOST, first=MOST))
    assert replaced(rig, 1, first=2 * MOST) == [WAIT]


def test_a_restore_of_the_table_does_not_count_as_a_copy() -> None:
    rig = begun()
    for number in range(2 * MOST):
        rig.execute(Put({"pk": "_fleet#table", "sk": "marker", "incarnation": f"i{number}"}))
        rig.now_ms += 60_000
        message = Hello(epoch=f"e{number}", hn="hn", n=1, schema="1", feeds={}, inc=f"i{number}")
        (answer,) = rig.send(message)
        assert isinstance(answer, Ack)


def test_a_refused_epoch_does_not_count() -> None:
    rig = begun()
    for number in range(3 * MOST):
        (answer,) = rig.send(hello(f"stranger-{number}"))
        assert isinstance(answer, Reset)
    assert "born" not in rig.head()


# ---------------------------------------------------------------- two copies, alive


class Clones:
    """Two devices of one name on one table. Both hear what is sent to that name."""

    def __init__(self) -> None:
        self.rig = Rig()
        first = Device(now_ms=lambda: self.rig.now_ms).boot()
        self.devices = [first]
        self.settle(60_000)
        first.database.upsert("Status", {"rev": 1})
        self.settle(60_000)
        copy: sqlite3.Connection = open_memory()
        first.connection.backup(copy)
        self.devices.append(Device(connection=copy, seed=2, now_ms=lambda: self.rig.now_ms).boot())

    def settle(self, for_ms: int) -> None:
        end_ms = self.rig.now_ms + for_ms
        while self.rig.now_ms < end_ms:
            for device in self.devices:
                if device.connecting:
                    device.connect()
                device.tick()
                out, device.out[:] = list(device.out), []
                for payload in out:
                    run(self.rig.relay.on_message("home-1", payload), self.rig.execute, self.rig.published.append)
            for device in self.devices:
                for message in self.rig.published:
                    if device.online and message.topic == "ioto/device/home-1/sync":
                        device.hear(message.payload)
            self.rig.published.clear()
            self.rig.now_ms += 250

    def mints(self) -> int:
        return sum(device.session.mints for device in self.devices)


def test_two_live_copies_are_stopped_and_keep_what_their_applications_write() -> None:
    clones = Clones()
    for rev in range(2, 40):
        for number, device in enumerate(clones.devices):
            device.database.upsert("Status", {"rev": 100 * number + rev})
        clones.settle(30_000)
    assert HALTED in clones.rig.head()
    assert clones.rig.counters["device_quarantined"] == 1
    after = clones.mints()
    assert after <= MOST + 2, "they would go on for ever"
    assert [device.session.wait_reason for device in clones.devices] == [QUARANTINE] * 2
    clones.rig.counters.clear()
    clones.settle(2 * 3_600_000)
    assert clones.mints() == after
    assert clones.rig.counters["message_refused_quarantine"] < 2 * 2 * 3_600_000 / WAIT.retry_after + 4, (
        "they are quiet"
    )
    held = [image["rev"] for device in clones.devices for image in device.visible().values()]
    assert held == [39, 139]


def test_once_one_copy_is_gone_a_release_lets_the_other_go_on() -> None:
    clones = Clones()
    for rev in range(2, 40):
        for device in clones.devices:
            device.database.upsert("Status", {"rev": rev})
        clones.settle(30_000)
    left = clones.devices.pop(0)
    clones.devices[0].database.upsert("Status", {"rev": 77})
    clones.rig.execute(released(head_key("home-1")))
    clones.settle(3_600_000)
    device = clones.devices[0]
    assert not left.session.store.identity.adopted or left.session.store.identity.epoch != clones.rig.head()["epoch"]
    assert device.session.store.outbox_rows == 0 and device.session.wait_reason == ""
    (item,) = clones.rig.execute(Query("device#home-1", "status#")).items
    assert item["rev"] == 77
