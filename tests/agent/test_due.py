"""What falls due: lives that end, periods that pass, and items that are kept in memory."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

import msgspec
import pytest
from device_rig import FEED, PK, Device, fresh_memory, memory_of
from device_schema import WHOLE
from hypothesis import given
from hypothesis import strategies as st
from relay_rig import NOW_MS

from agent.due import ITEMS_MAX, release
from agent.events import STOP
from agent.protocol.errors import ModelError
from agent.protocol.messages import (
    NO_IMAGE,
    Ack,
    HeadMark,
    Hello,
    Key,
    Row,
    Rows,
    Snapshot,
    SnapshotItem,
    Up,
    encode_image,
)
from agent.protocol.onetable.dates import from_ms
from agent.session import NEVER
from agent.store import HELD, SENT, UNSENT

SOON_S: Final = NOW_MS // 1000 + 100
PERIOD_MS: Final = 60_000


def at(second: int) -> datetime:
    return from_ms(second * 1000)


def whole() -> Device:
    device = Device(schema=WHOLE)
    device.open()
    device.changes.clear()
    return device


def online() -> Device:
    """Adopted, nothing in flight, a cursor in its feed, the relay's time known."""
    device = Device(schema=WHOLE).boot()
    device.connect()
    (hello,) = device.sent()
    assert isinstance(hello, Hello)
    epoch = device.store.identity.epoch
    device.hear(Ack(epoch=epoch, up=0, now=device.set_ms, n=hello.n))
    device.hear(Ack(epoch=epoch, up=1, upid=device.session.boot_id, now=device.set_ms))
    device.store.set_cursor("device", FEED, 5, device.session.replica.fingerprints["device"])
    assert device.store.outbox() == []
    device.sent()
    device.changes.clear()
    return device


def told(model: str, name: str, rev: int = 1, **more: Any) -> tuple[Key, dict[str, Any]]:
    image = {"_type": model, "deviceId": "home-1", "id": name, "rev": rev, "created": NOW_MS, "updated": NOW_MS, **more}
    return (PK, f"{model.lower()}#{name}"), image


def rows(a: int, *written: tuple[Key, dict[str, Any]] | Row) -> Rows:
    made = [w if isinstance(w, Row) else Row(w[0], msgspec.Raw(encode_image(w[1]))) for w in written]
    return Rows(feed="device", epoch=FEED, a=a, b=a + len(made), last=a + len(made), rows=made)


def ups(device: Device) -> list[Up]:
    """Batches that went out since the last look."""
    return [message for message in device.sent() if isinstance(message, Up)]


def operations(device: Device) -> list[tuple[str, str]]:
    return [(row.kind, row.sk) for row in device.store.outbox("kind<>'sweep'")]


# Lives


@pytest.mark.parametrize("model", ["Session", "Alarm", "Lease", "User"])
def test_an_item_whose_life_is_over_is_absent_to_every_read_and_write(model: str) -> None:
    device = online()
    database = device.database
    database.create(model, {"id": "a", "ttl": at(SOON_S)})
    device.set_ms = SOON_S * 1000 - 1
    assert database.get(model, {"id": "a"}) is not None
    device.set_ms += 1
    assert database.get(model, {"id": "a"}) is None
    assert not list(database.find(model)) and not list(database.items()) and not list(database.export_items())
    assert database.statistics().items == 0
    assert not database.remove(model, {"id": "a"})
    assert device.events() == ["created", "expired"], "the first write found it over"
    database.create(model, {"id": "a", "ttl": at(SOON_S + 50)})
    assert database.get(model, {"id": "a"}) is not None
    assert database.check() == []


@pytest.mark.parametrize(("model", "left"), [("Session", []), ("Alarm", ["delete"]), ("Lease", ["delete"])])
def test_expire_drops_what_is_due_and_tells_the_cloud_of_what_syncs_up(model: str, left: list[str]) -> None:
    device = whole()
    database = device.database
    for name, end_s in (("a", SOON_S), ("b", SOON_S + 1), ("c", None)):
        database.create(model, {"id": name, **({} if end_s is None else {"ttl": at(end_s)})})
    before = database.store.visible(PK, f"{model.lower()}#a").updated
    device.changes.clear()
    assert database.expire() == 0
    device.set_ms = SOON_S * 1000
    assert database.expire() == 1
    assert database.expire() == 0
    assert [(change.event, change.key[1]) for change in device.changes] == [("expired", f"{model.lower()}#a")]
    assert (device.changes[0].before or {})["id"] == "a"
    rows_left = database.store.outbox("sk=?", (f"{model.lower()}#a",))
    assert [row.kind for row in rows_left] == left
    assert [row.updated for row in rows_left] == [before + 1] * len(left), "whatever was written later wins"
    assert database.store.base(PK, f"{model.lower()}#a") is None
    assert [item["id"] for item in database.find(model)] == ["b", "c"]
    assert database.check() == []


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.integers(-3, 8), st.booleans()), max_size=12), st.integers(0, 9))
def test_what_is_over_at_a_time_is_dropped_then_and_nothing_else(steps: list[Any], at_s: int) -> None:
    device = whole()
    database = device.database
    expected: dict[str, int] = {}
    now_s = NOW_MS // 1000
    for name, end_s, gone in steps:
        if gone:
            database.remove("Session", {"id": name})
            expected.pop(name, None)
        else:
            database.upsert("Session", {"id": name, "ttl": at(now_s + end_s)})
            expected[name] = end_s
    over = {name for name, end_s in expected.items() if end_s <= at_s}
    device.set_ms = NOW_MS + at_s * 1000 + 999
    assert [item["id"] for item in database.find("Session")] == sorted(expected.keys() - over)
    database.expire()
    assert database.expire() == 0
    assert len(database.store.base_keys(PK, "session#")) == len(expected) - len(over)
    assert memory_of(database.store) == fresh_memory(device.connection)
    assert database.check() == []


def test_more_than_one_page_of_items_may_be_over_at_once() -> None:
    device = whole()
    with device.database.transaction():
        for number in range(2 * ITEMS_MAX + 3):
            device.database.create("Alarm", {"id": f"{number:04}", "ttl": at(SOON_S)})
    device.set_ms = SOON_S * 1000
    assert device.database.expire() == 2 * ITEMS_MAX + 3
    assert device.database.indexing.next_end_ms() is None


def test_the_session_drops_what_is_over_in_its_time() -> None:
    device = online()
    device.database.create("Session", {"id": "a", "ttl": at(SOON_S)})
    device.database.create("Alarm", {"id": "b", "ttl": at(SOON_S + 20)})
    device.hear(rows(5, told("Offer", "c", ttl=SOON_S + 40)))
    device.hear(Ack(epoch=device.store.identity.epoch, up=2, upid=device.session.boot_id, now=device.set_ms))
    device.events()
    device.sent()
    device.advance(SOON_S * 1000 - device.set_ms - 1)
    assert device.events() == []
    device.advance(1)
    assert device.events() == ["expired"]
    device.advance(20_000)
    assert device.events() == ["expired"]
    assert operations(device) == [("delete", "alarm#b")]
    assert any(isinstance(message, Up) for message in device.sent())
    device.advance(20_000)
    assert device.events() == ["expired"]
    assert list(device.database.items()) == []


def test_the_session_drops_nothing_by_a_clock_that_the_relay_has_not_set() -> None:
    device = Device(schema=WHOLE)
    device.open().create("Alarm", {"id": "a", "ttl": at(SOON_S)})
    device.wall_offset_ms = 10 * 365 * 86_400_000
    device.boot()
    device.connect()
    device.advance(60_000)
    assert device.store.visible(PK, "alarm#a").image is not None
    device.sent()
    device.hear(Ack(epoch=device.store.identity.epoch, up=0, now=device.set_ms, n=device.session._hello_n))
    assert device.database.clock.corrected
    assert device.database.get("Alarm", {"id": "a"}) is not None


def test_what_the_cloud_says_is_gone_for_its_age_is_expired_here() -> None:
    device = online()
    device.hear(rows(5, told("Offer", "a"), told("Offer", "b")))
    assert device.events() == ["created", "created"]
    device.hear(rows(7, Row((PK, "offer#a"), NO_IMAGE, expired=True), Row((PK, "offer#b"), NO_IMAGE)))
    assert device.events() == ["expired", "removed"]


def test_an_item_that_comes_down_after_its_life_is_not_there_and_not_told() -> None:
    device = online()
    device.set_ms = SOON_S * 1000 + 5
    device.hear(rows(5, told("Offer", "a", ttl=SOON_S), told("Offer", "b", ttl=SOON_S + 9)))
    assert [change.key[1] for change in device.changes] == ["offer#b"]
    assert device.store.base_keys(PK, "offer#") == ["offer#b"]
    device.hear(rows(7, told("Offer", "b", 2, ttl=SOON_S)))
    assert [change.event for change in device.changes] == ["created", "expired"], "it came over"


def test_an_item_that_went_in_the_cloud_while_it_was_over_here_is_told_to_be_expired() -> None:
    """Nobody has told the applications that they cannot read it any more."""
    device = online()
    device.hear(rows(5, told("Offer", "a", ttl=SOON_S), told("Offer", "b", ttl=SOON_S), told("Offer", "c")))
    device.set_ms = SOON_S * 1000 + 5
    device.hear(rows(8, Row((PK, "offer#a"), NO_IMAGE), told("Offer", "b", 2, ttl=SOON_S + 900)))
    assert device.events() == ["created", "created", "created", "expired", "created"]
    assert device.database.check() == []


@pytest.mark.parametrize(("model", "kinds"), [("Alarm", ["create"]), ("Lease", ["create"]), ("Session", [])])
def test_what_is_hidden_by_a_clock_that_the_relay_has_not_set_is_not_thrown_away(model: str, kinds: list[str]) -> None:
    """A write takes its place, and nothing else does; what stays in this file alone goes by the device's own clock."""
    device = whole()
    database = device.database
    database.create(model, {"id": "a", "ttl": at(SOON_S)})
    key = (PK, f"{model.lower()}#a")
    device.set_ms = (SOON_S + 10) * 1000
    assert not database.remove(model, {"id": "a"})
    with pytest.raises(ModelError, match="does not exist"):
        database.update(model, {"id": "a", "ttl": None})
    assert (database.store.visible(*key).image is None) == (not kinds)
    assert [row.kind for row in device.store.outbox("kind<>'sweep'")] == kinds
    assert database.check() == []
    database.create(model, {"id": "a", "ttl": at(SOON_S + 50)})
    assert database.get(model, {"id": "a"}) is not None
    assert [row.kind for row in device.store.outbox("kind<>'sweep'")] == kinds
    assert device.events() == (["created", "created"] if kinds else ["created", "expired", "created"])
    assert database.check() == [] and database.expire() == 0


def test_a_longer_life_from_the_cloud_wins_over_an_expiry_here() -> None:
    """The cloud wrote before the device dropped the item: that is newer than the end of what the device had."""
    device = online()
    device.database.create("Lease", {"id": "a", "rev": 1, "ttl": at(SOON_S)})
    written = device.store.visible(PK, "lease#a").updated
    device.set_ms = (SOON_S + 1) * 1000
    device.database.expire()
    (row,) = device.store.outbox("kind='delete'")
    assert row.updated == written + 1 < device.set_ms - 60_000


def test_a_snapshot_that_brings_an_item_after_its_life_says_that_it_is_expired() -> None:
    device = online()
    device.hear(rows(5, told("Offer", "a", ttl=SOON_S + 900), told("Offer", "b", ttl=SOON_S + 900)))
    device.events()
    device.set_ms = SOON_S * 1000 + 5
    items = [SnapshotItem(key, msgspec.Raw(encode_image(image))) for key, image in (told("Offer", "a", 2, ttl=SOON_S),)]
    nonce = device.session.nonces["device"]
    device.hear(Snapshot(feed="device", nonce=nonce, epoch=FEED, seq=9, part=0, parts=1, items=items, head=None))
    assert [(change.key[1], change.event) for change in device.changes] == [
        ("offer#a", "expired"),
        ("offer#b", "removed"),
    ]


def test_the_timer_of_an_end_that_was_put_off_rings_once() -> None:
    """A session whose next end is in the past would wake up every millisecond."""
    device = online()
    for name in ("a", "b"):
        device.database.create("Session", {"id": name, "ttl": at(SOON_S)})
    device.database.update("Session", {"id": "a", "ttl": at(SOON_S + 500)})
    device.database.remove("Session", {"id": "b"})
    device.advance(SOON_S * 1000 - device.set_ms)
    assert device.database.indexing.next_end_ms() == (SOON_S + 500) * 1000
    assert device.session.timer_at_ms > device.monotonic_ms() + 1000
    device.advance(500_000)
    assert device.events()[-1:] == ["expired"]


@pytest.mark.parametrize("first", ["acked", "sent"])
def test_an_accepted_write_ends_with_its_life_though_its_delete_is_lost(first: str) -> None:
    """The row that shows the write is still on its way. The cloud has swept the item, so that the delete comes to
    nothing, and nothing is sent again."""
    device = online()
    device.database.create("Lease", {"id": "a", "rev": 1, "ttl": at(SOON_S)})
    epoch, boot_id = device.store.identity.epoch, device.session.boot_id
    if first == "acked":
        device.hear(Ack(epoch=epoch, up=2, upid=boot_id, now=device.set_ms))
    device.advance(SOON_S * 1000 - device.set_ms)
    if first == "sent":
        device.hear(Ack(epoch=epoch, up=2, upid=boot_id, now=device.set_ms))
    device.hear(Ack(epoch=epoch, up=3, upid=boot_id, now=device.set_ms, verdicts={3: "lost"}))
    ups(device)
    device.advance(60_000)
    assert ups(device) == [] and device.events().count("expired") == 1
    assert device.database.get("Lease", {"id": "a"}) is None and device.database.check() == []
    device.hear(rows(5, Row((PK, "lease#a"), NO_IMAGE, HeadMark(epoch, 3, boot_id), expired=True)))
    assert device.store.outbox() == [] and device.events() == []


@pytest.mark.parametrize("verdict", ["lost", "unique"])
def test_an_expiry_that_comes_to_nothing_in_the_cloud_is_not_sent_again(verdict: str) -> None:
    """The cloud has swept the item too, and the row that says so is still on its way."""
    device = online()
    device.hear(rows(5, told("Lease", "a", ttl=SOON_S)))
    device.advance(SOON_S * 1000 - device.set_ms)
    (message,) = ups(device)
    assert [op.kind for op in message.ops] == ["delete"]
    epoch = device.store.identity.epoch
    device.hear(Ack(epoch=epoch, up=2, upid=device.session.boot_id, now=device.set_ms, verdicts={2: verdict}))
    device.advance(60_000)
    assert ups(device) == [] and device.store.outbox() == []
    assert device.events().count("expired") == 1
    assert device.database.get("Lease", {"id": "a"}) is None
    device.hear(rows(6, told("Lease", "a", 2, ttl=SOON_S + 900)))
    assert (device.database.get("Lease", {"id": "a"}) or {})["rev"] == 2, "a longer life from the cloud"


@pytest.mark.parametrize("verdict", ["lost", "unique"])
@pytest.mark.parametrize("below", ["row", "accepted"])
@pytest.mark.parametrize("left_s", [0, 100])
def test_what_lies_below_a_write_that_came_to_nothing_and_is_over_never_shows_again(
    below: str, verdict: str, left_s: int
) -> None:
    """The device had shortened a life, and has told of its end. The life that it had before is over later."""
    device, u = changed_life(below, SOON_S + 60 + left_s)
    device.advance(SOON_S * 1000 - device.set_ms)
    device.advance(60_000)
    device.hear(acked(device, u, {u: verdict}))
    assert device.events().count("expired") == 1
    ups(device)
    device.hear(acked(device, u + 1, {u + 1: verdict}))
    assert device.events() == [*(["created"] if left_s else []), "lost" if verdict == "lost" else "rejected"]
    assert (device.database.get("Lease", {"id": "a"}) is None) == (not left_s)
    device.advance(60_000)
    assert device.events() == [] and ups(device) == [] and device.database.check() == []


@pytest.mark.parametrize("below", ["row", "accepted"])
def test_a_longer_life_that_came_to_nothing_ends_with_the_one_below_and_no_delete_is_sent(below: str) -> None:
    device, u = changed_life(below, SOON_S, SOON_S + 900)
    device.advance((SOON_S + 60) * 1000 - device.set_ms)
    device.events()
    ups(device)
    device.hear(acked(device, u, {u: "lost"}))
    assert device.events() == ["expired", "lost"]
    assert device.database.get("Lease", {"id": "a"}) is None and device.database.check() == []
    device.advance(60_000)
    assert device.events() == [] and ups(device) == []


def changed_life(below: str, first_s: int, then_s: int = SOON_S) -> tuple[Device, int]:
    """An item that the device has, by a row or as its own accepted write, to end at `first_s`; the device has changed
    that to `then_s`, as the operation whose number is returned."""
    device = online()
    if below == "row":
        device.hear(rows(5, told("Lease", "a", ttl=first_s)))
    else:
        device.database.create("Lease", {"id": "a", "rev": 1, "ttl": at(first_s)})
        device.hear(acked(device, 2))
    device.database.update("Lease", {"id": "a", "ttl": at(then_s)})
    return device, 2 if below == "row" else 3


def acked(device: Device, up: int, verdicts: dict[int, str] | None = None) -> Ack:
    epoch, boot_id = device.store.identity.epoch, device.session.boot_id
    return Ack(epoch=epoch, up=up, upid=boot_id, now=device.set_ms, verdicts=verdicts or {})


# Periods


def test_a_change_of_a_model_with_a_period_is_there_at_once_and_sent_when_that_has_passed() -> None:
    device = online()
    database = device.database
    database.create("Meter", {"id": "a", "rev": 1})
    assert (database.get("Meter", {"id": "a"}) or {})["rev"] == 1
    device.advance(PERIOD_MS // 2)
    database.update("Meter", {"id": "a", "rev": 2})
    database.create("Meter", {"id": "b", "rev": 1})
    assert ups(device) == []
    assert database.pending() == 2
    device.advance(PERIOD_MS // 2 - 1)
    assert ups(device) == []
    device.advance(1)
    (first,) = ups(device)
    assert [(op.key[1], op.kind, msgspec.json.decode(op.image)["rev"]) for op in first.ops] == [
        ("meter#a", "create", 2)
    ]
    assert [(row.sk, row.state) for row in device.store.outbox()] == [("meter#b", HELD), ("meter#a", SENT)]
    device.hear(Ack(epoch=first.epoch, up=2, upid=device.session.boot_id, now=device.set_ms))
    device.advance(PERIOD_MS // 2)
    (second,) = ups(device)
    assert [(op.u, op.key[1]) for op in second.ops] == [(3, "meter#b")]


def test_a_removal_is_held_too_and_takes_the_place_of_what_was_held() -> None:
    device = online()
    database = device.database
    database.create("Meter", {"id": "a", "rev": 1})
    device.advance(PERIOD_MS)
    device.hear(Ack(epoch=device.store.identity.epoch, up=2, upid=device.session.boot_id, now=device.set_ms))
    device.sent()
    database.update("Meter", {"id": "a", "rev": 2})
    assert database.remove("Meter", {"id": "a"})
    assert database.get("Meter", {"id": "a"}) is None
    device.advance(PERIOD_MS - 1)
    assert ups(device) == []
    device.advance(1)
    (message,) = ups(device)
    assert [(op.u, op.kind) for op in message.ops] == [(3, "delete")]


def test_a_held_change_does_not_hold_up_others() -> None:
    device = online()
    device.database.create("Meter", {"id": "a", "rev": 1})
    device.database.create("Job", {"id": "x"})
    (message,) = ups(device)
    assert [(op.u, op.key[1]) for op in message.ops] == [(2, "job#x")]


def test_a_write_while_the_one_before_is_in_flight_waits_for_a_period_of_its_own() -> None:
    device = online()
    device.database.create("Meter", {"id": "a", "rev": 1})
    device.advance(PERIOD_MS)
    device.sent()
    device.database.update("Meter", {"id": "a", "rev": 2})
    assert [(row.state, row.u) for row in device.store.outbox()] == [(SENT, 2), (HELD, 0)]
    assert (device.database.get("Meter", {"id": "a"}) or {})["rev"] == 2


@pytest.mark.parametrize("off_ms", [1_000, PERIOD_MS + 1, 10 * PERIOD_MS])
def test_a_period_goes_on_over_a_reboot(off_ms: int) -> None:
    device = online()
    device.database.create("Meter", {"id": "a", "rev": 1})
    started = device.set_ms
    device.off()
    device.set_ms += off_ms
    device.boot()
    assert device.store.held_due_ms in (None, started + PERIOD_MS)
    device.connect()
    left_ms = started + PERIOD_MS - device.set_ms
    if left_ms > 0:
        device.advance(left_ms - 1)
        assert ups(device) == []
        device.advance(1)
    assert [op.key[1] for message in ups(device)[:1] for op in message.ops] == ["meter#a"]


def test_a_clock_that_goes_back_does_not_hold_a_change_for_years() -> None:
    device = Device(schema=WHOLE)
    device.wall_offset_ms = 10 * 365 * 86_400_000
    device.open().create("Meter", {"id": "a", "rev": 1})
    device.wall_offset_ms = 0
    device.boot()
    assert [row.state for row in device.store.outbox("sk='meter#a'")] == [UNSENT]


def test_a_clock_that_is_set_back_a_little_ends_no_period() -> None:
    """What the relay tells of the time does so all the time."""
    device = online()
    device.database.create("Meter", {"id": "a", "rev": 1})
    device.database.clock._offset_ms -= 500
    device.hear(rows(5, told("Offer", "b")))
    assert [row.state for row in device.store.outbox("sk='meter#a'")] == [HELD]
    device.advance(PERIOD_MS + 499)
    assert ups(device) == []
    device.advance(1)
    assert [op.key[1] for message in ups(device)[:1] for op in message.ops] == ["meter#a"]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["put a", "put b", "remove a", "job", "release", "send", "reopen"]), st.integers(0, 70)
        ),
        max_size=16,
    )
)
def test_however_writes_periods_and_reboots_follow_each_other_the_outbox_is_sound(steps: list[tuple[str, int]]) -> None:
    """Numbers have no gaps, an item has one row at most that was not sent, and what is last written is what is read."""
    device = whole()
    last: dict[str, int | None] = {}
    for number, (action, wait_s) in enumerate(steps):
        database = device.database
        device.set_ms += wait_s * 1000
        if action == "reopen":
            again = Device(connection=device.connection, schema=WHOLE)
            again.set_ms = device.set_ms
            device = again
            device.open()
        elif action == "release":
            release(database)
        elif action == "send":
            if not database.store.in_flight:
                database.store.take_batch(3, 100_000, "boot")
        elif action == "job":
            database.upsert("Job", {"id": "j", "rank": number})
        elif action == "remove a":
            database.remove("Meter", {"id": "a"})
            last["a"] = None
        else:
            database.upsert("Meter", {"id": action[-1], "rev": number})
            last[action[-1]] = number
        assert device.database.check() == []
        for name, rev in last.items():
            item = device.database.get("Meter", {"id": name})
            assert (item and item["rev"]) == rev
            unsent = device.store.outbox(f"sk=? AND state IN ({UNSENT}, {HELD})", (f"meter#{name}",))
            assert len(unsent) <= 1
        assert memory_of(device.store) == fresh_memory(device.connection)


def test_a_new_epoch_sends_what_was_held() -> None:
    device = online()
    device.database.create("Meter", {"id": "a", "rev": 1})
    device.session.replica.mint(None)
    assert [(row.u, row.kind, row.sk, row.state) for row in device.store.outbox()] == [
        (1, "create", "meter#a", UNSENT),
        (2, "sweep", "", UNSENT),
    ]
    assert device.store.held_due_ms is None


def test_a_stopped_session_sets_no_timer() -> None:
    device = online()
    device.database.create("Meter", {"id": "a", "rev": 1})
    device.feed(STOP)
    assert device.session.timer_at_ms == NEVER


# In memory


def test_items_kept_in_memory_leave_nothing_in_the_file_and_read_like_others() -> None:
    device = online()
    device.hear(rows(5, told("Weather", "b", kind="k"), told("Offer", "c"), told("Weather", "a", kind="k")))
    database = device.database
    assert [item["id"] for item in database.find("Weather")] == ["a", "b"]
    assert [item["id"] for item in database.find("Weather", reverse=True)] == ["b", "a"]
    assert (database.get("Weather", {"id": "a"}) or {})["rev"] == 1
    assert [key[1] for _, key, _ in database.items()] == ["offer#c", "weather#a", "weather#b"]
    assert database.statistics().items_by_model == {"Offer": 1, "Weather": 2}
    assert [row[1] for row in device.dump()["item"]] == ["offer#c"]
    device.hear(rows(8, told("Weather", "a", 2), Row((PK, "weather#b"), NO_IMAGE)))
    assert [item["rev"] for item in database.find("Weather")] == [2]
    assert device.events() == ["created", "created", "created", "updated", "removed"]
    assert database.check() == []


def test_a_message_that_is_undone_leaves_memory_as_it_was() -> None:
    device = online()
    device.hear(rows(5, told("Weather", "a")))
    with pytest.raises(ZeroDivisionError), device.store.transaction():
        device.store.delete_base(PK, "weather#a")
        device.store.put_base(PK, "weather#b", b"{}", 1)
        raise ZeroDivisionError
    assert [item["id"] for item in device.database.find("Weather")] == ["a"]


def test_after_a_reboot_what_was_in_memory_is_gone_and_asked_for_again() -> None:
    device = online()
    device.hear(rows(5, told("Weather", "a"), told("Offer", "c")))
    device.off()
    device.boot()
    assert [key[1] for key in device.visible()] == ["offer#c"]
    assert "device" not in device.store.cursors
    device.connect()
    hello = device.sent()[-1]
    assert isinstance(hello, Hello) and hello.feeds["device"].epoch is None
    nonce = hello.feeds["device"].nonce
    items = [
        SnapshotItem(key, msgspec.Raw(encode_image(image))) for key, image in (told("Weather", "a"), told("Offer", "c"))
    ]
    device.events()
    device.hear(Snapshot(feed="device", nonce=nonce, epoch=FEED, seq=9, part=0, parts=1, items=items, head=None))
    assert [key[1] for key in device.visible()] == ["offer#c", "weather#a"]
    assert device.events() == ["created"], "what had stayed is not told again"
    device.hear(rows(9, told("Weather", "a", 3)))
    assert (device.database.get("Weather", {"id": "a"}) or {})["rev"] == 3


def test_what_is_in_memory_has_lives_and_indexes_too() -> None:
    device = online()
    device.hear(rows(5, told("Weather", "a", ttl=SOON_S), told("Weather", "b")))
    assert device.dump()["item_index"] == []
    device.advance(SOON_S * 1000 - device.set_ms)
    assert [key[1] for key in device.visible()] == ["weather#b"]
    assert device.events() == ["created", "created", "expired"]


def test_a_device_without_such_models_has_no_tables_for_them() -> None:
    database = Device().open()
    names = database.store.connection.execute("SELECT name FROM sqlite_temp_master").fetchall()
    assert names == []
