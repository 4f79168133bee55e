"""What the device makes of the relay's messages: acknowledgements, rows, snapshots, and when it takes a new epoch.

Rules are numbered as in docs/protocol.md. Messages are made by hand: no relay would have sent some of them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final

import msgspec
import pytest
from device_rig import FEED, PK, Device, PowerCut, arm, dump, fresh_memory, memory_of
from relay_rig import NOW_MS, config, notice, setting, status

from agent.changes import Change
from agent.protocol.messages import (
    NO_IMAGE,
    Ack,
    FeedName,
    HeadMark,
    Hello,
    Key,
    Row,
    Rows,
    Snapshot,
    SnapshotItem,
    encode_image,
)
from agent.replica import Outcome
from agent.store import ACKED, SENT, UNSENT

Written = tuple[Key, dict[str, Any]]


def device(*, cursor: int = 5) -> Device:
    """Adopted, its first sweep done, with a cursor in both feeds and nothing on the wire."""
    made = Device().boot()
    made.connect()
    made.hear(Ack(epoch=made.store.identity.epoch, up=0, now=NOW_MS))
    made.hear(Ack(epoch=made.store.identity.epoch, up=1, upid=made.session.boot_id, now=NOW_MS))
    assert made.store.outbox() == []
    for feed in ("device", "account"):
        made.store.set_cursor(feed, FEED, cursor, made.session.replica.fingerprints[feed])
    made.sent()
    made.changes.clear()
    return made


def pending(*names: str, made: Device | None = None) -> Device:
    """With a write of each of these settings in flight, in one batch: they were made while it was not connected."""
    made = made or device()
    made.drop()
    for rev, name in enumerate(names, 1):
        made.database.create("Setting", {"name": name, "rev": rev})
    made.connect()
    (hello,) = made.sent()
    assert isinstance(hello, Hello)
    identity = made.store.identity
    made.hear(Ack(epoch=identity.epoch, up=identity.acked_u, upid=identity.acked_id, now=made.set_ms, n=hello.n))
    assert [row.sk for row in made.store.in_flight] == [f"setting#{name}" for name in names]
    made.sent()
    made.changes.clear()
    return made


def row(written: Written | Key, head: HeadMark | None = None) -> Row:
    if isinstance(written[1], dict):
        return Row(written[0], msgspec.Raw(encode_image(written[1])), head)
    return Row(written, NO_IMAGE, head)


def rows(*some: Row, a: int = 5, b: int | None = None, epoch: str = FEED, feed: FeedName = "device") -> Rows:
    end = a + len(some) if b is None else b
    return Rows(feed=feed, epoch=epoch, a=a, b=end, last=end, rows=list(some))


def head(made: Device, up: int, upid: str | None = None, epoch: str | None = None) -> HeadMark:
    return HeadMark(epoch or made.store.identity.epoch, up, upid or made.session.boot_id)


def ack(made: Device, up: int, upid: str | None = None, **verdicts: str) -> Ack:
    """`verdicts`: u3="lost"."""
    told = {int(name[1:]): verdict for name, verdict in verdicts.items()}
    return Ack(epoch=made.store.identity.epoch, up=up, upid=upid or made.session.boot_id, now=NOW_MS, verdicts=told)


def snapshot(
    *items: Written, seq: int = 9, epoch: str = FEED, mark: HeadMark | None = None, feed: FeedName = "device"
) -> tuple[Snapshot, list[SnapshotItem]]:
    listed = [SnapshotItem(key, msgspec.Raw(encode_image(image))) for key, image in items]
    return Snapshot(feed=feed, nonce="", epoch=epoch, seq=seq, part=0, parts=1, items=listed, head=mark), listed


def unchanged(made: Device, action: Callable[[], Any]) -> Any:
    """Runs `action`; nothing of the database, or of what the store remembers, may change."""
    before, memory = made.dump(), memory_of(made.store)
    result = action()
    assert made.dump() == before
    assert memory_of(made.store) == memory
    return result


def shown(made: Device) -> dict[str, int]:
    return {key[1]: image["rev"] for key, image in made.visible().items()}


# Rule 7: acknowledgements


def test_an_ack_of_another_epoch_changes_nothing() -> None:
    made = pending("a")
    other = msgspec.structs.replace(ack(made, 2), epoch="other")
    assert unchanged(made, lambda: made.session.replica.ack(other)) is Outcome.NOTHING


def test_an_ack_below_the_last_one_changes_nothing() -> None:
    made = pending("a")
    assert made.session.replica.ack(ack(made, 2)) is Outcome.APPLIED
    assert unchanged(made, lambda: made.session.replica.ack(ack(made, 1, "whoever"))) is Outcome.NOTHING


def test_an_ack_equal_to_the_last_one_must_have_its_id() -> None:
    made = pending("a")
    assert unchanged(made, lambda: made.session.replica.ack(ack(made, 1))) is Outcome.NOTHING
    assert unchanged(made, lambda: made.session.replica.ack(ack(made, 1, "other"))) is Outcome.ROLLED_BACK


def test_an_ack_of_what_was_not_sent_shows_a_rolled_back_database() -> None:
    made = pending("a")
    made.database.create("Setting", {"name": "b", "rev": 2})
    assert [row.state for row in made.store.outbox()] == [SENT, UNSENT]
    for message in (ack(made, 2, "other"), ack(made, 3, None), ack(made, 4, None)):
        assert unchanged(made, partial(made.session.replica.ack, message)) is Outcome.ROLLED_BACK


def test_a_rolled_back_database_takes_a_new_epoch_that_replaces_the_message_s() -> None:
    made = pending("a")
    old = made.store.identity.epoch
    made.hear(ack(made, 7, "other"))
    identity = made.store.identity
    assert identity.epoch != old
    assert (identity.replaces, identity.adopted, identity.acked_u, identity.acked_id) == (old, False, 0, None)


def test_an_accepted_operation_of_an_up_model_becomes_the_base() -> None:
    made = device()
    made.database.create("Status", {"rev": 7})
    made.hear(ack(made, 2))
    assert made.store.outbox() == []
    assert made.store.base(PK, "status#") is not None
    assert made.events()[-1] == "synced"


def test_an_accepted_operation_of_a_both_model_stays_until_the_feed_shows_it() -> None:
    made = pending("a")
    made.hear(ack(made, 2))
    assert [row.state for row in made.store.outbox()] == [ACKED]
    assert shown(made) == {"setting#a": 1}
    made.hear(rows(row(setting(1, "a"), head(made, 2))))
    assert made.store.outbox() == []
    assert shown(made) == {"setting#a": 1}


def test_an_operation_that_the_feed_has_shown_ends_with_its_ack() -> None:
    made = pending("a")
    made.hear(rows(row(setting(9, "a"), head(made, 2))))
    assert shown(made) == {"setting#a": 9}
    assert [row.seen for row in made.store.outbox()] == [1]
    made.hear(ack(made, 2))
    assert made.store.outbox() == []


def test_a_lost_operation_is_dropped_and_the_base_shows_through() -> None:
    made = device()
    made.hear(rows(row(setting(5, "a"))))
    made.database.update("Setting", {"name": "a", "rev": 6})
    assert shown(made) == {"setting#a": 6}
    made.changes.clear()
    made.hear(ack(made, 2, u2="lost"))
    assert shown(made) == {"setting#a": 5}
    assert made.store.outbox() == []
    assert made.events() == ["updated", "lost"]


def test_a_rejected_operation_of_a_both_model_is_dropped_and_buried_with_its_reason() -> None:
    made = device()
    made.database.create("Setting", {"name": "a", "rev": 6})
    made.changes.clear()
    made.hear(ack(made, 2, u2="foreign"))
    assert shown(made) == {}
    (dead,) = made.database.dead_letters()
    assert (dead.pk, dead.sk, dead.kind, dead.code) == (PK, "setting#a", "create", "foreign")
    assert made.events() == ["removed", "rejected"]


def test_a_rejected_operation_of_an_up_model_stays_as_the_base_and_is_marked() -> None:
    made = device()
    made.database.create("Status", {"rev": 6})
    made.hear(ack(made, 2, u2="size"))
    assert shown(made) == {"status#": 6}
    assert made.connection.execute("SELECT rejected FROM item").fetchall() == [("size",)]
    made.database.update("Status", {"rev": 7})
    made.hear(ack(made, 3))
    assert made.connection.execute("SELECT rejected FROM item").fetchall() == [(None,)]


def test_each_operation_of_a_batch_gets_its_own_verdict() -> None:
    made = pending("a", "b", "c")
    made.hear(ack(made, 4, u3="lost"))
    assert [(row.u, row.state) for row in made.store.outbox()] == [(2, ACKED), (4, ACKED)]
    assert shown(made) == {"setting#a": 1, "setting#c": 3}


def test_a_part_of_a_batch_may_be_acknowledged() -> None:
    made = pending("a", "b", "c")
    made.hear(ack(made, 3))
    assert [row.u for row in made.store.in_flight] == [4]
    assert [row.state for row in made.store.outbox()] == [ACKED, ACKED, SENT]


def test_a_newer_write_keeps_hiding_what_was_acknowledged() -> None:
    made = device()
    made.database.create("Status", {"rev": 1})
    made.database.update("Status", {"rev": 2})
    made.hear(ack(made, 2))
    assert shown(made) == {"status#": 2}


def test_an_operation_whose_model_the_schema_has_lost_ends_with_its_ack() -> None:
    made = device()
    made.store.add_operation("thing#home-1", "old#", "create", b"{}", 1)
    made.store.take_batch(98, 100_000, made.session.boot_id)
    made.hear(ack(made, 2))
    assert made.store.outbox() == []


# Rule 12: rows


def test_rows_that_follow_the_cursor_are_applied_with_it() -> None:
    made = device()
    made.hear(rows(row(config(1)), row(setting(2, "a")), row(config(3))))
    assert shown(made) == {"config#": 3, "setting#a": 2}
    assert made.store.cursors["device"] == (FEED, 8)


def test_rows_that_overlap_the_cursor_are_applied() -> None:
    made = device()
    made.hear(rows(row(config(1)), a=2, b=9))
    assert made.store.cursors["device"] == (FEED, 9)


@pytest.mark.parametrize(
    ("message", "outcome"),
    [
        (rows(row(config(1)), a=2, b=5), Outcome.NOTHING),
        (rows(row(config(1)), a=0, b=1), Outcome.NOTHING),
        (rows(row(config(1)), a=6), Outcome.GAP),
        (rows(row(config(1)), epoch="other"), Outcome.ASK),
    ],
    ids=["old", "very old", "gap", "other epoch"],
)
def test_rows_that_do_not_follow_change_nothing(message: Rows, outcome: Outcome) -> None:
    made = pending("a")
    assert unchanged(made, lambda: made.session.replica.rows(message)) is outcome


def test_rows_of_a_feed_without_a_cursor_ask() -> None:
    made = device()
    made.store.drop_cursor("device")
    assert unchanged(made, lambda: made.session.replica.rows(rows(row(config(1))))) is Outcome.ASK


def test_an_empty_row_moves_the_cursor_alone() -> None:
    made = device()
    made.hear(rows(b=6))
    assert made.store.cursors["device"] == (FEED, 6)
    assert made.events() == []


def test_a_deleted_item_is_gone() -> None:
    made = device()
    made.hear(rows(row(config(1)), row((PK, "config#"))))
    assert shown(made) == {}
    made.hear(rows(row((PK, "config#")), a=7))
    assert shown(made) == {}


def only_the_cursor_moves(made: Device, message: Rows) -> None:
    before = made.dump()
    made.hear(message)
    after = made.dump()
    assert after.pop("cursor") != before.pop("cursor")
    assert after == before
    assert made.events() == []


@pytest.mark.parametrize(
    "written",
    [
        status(99),
        config(99, device="home-2"),
        setting(99, "a", device="home-2"),
        notice(99, "a"),
        (("elsewhere", "config#"), {"_type": "Config", "rev": 99}),
        ((PK, "diagnostic#a"), {"_type": "Diagnostic", "rev": 99}),
        ((PK, "audit#a"), {"_type": "Audit", "rev": 99}),
        (("_fleet#head#home-1", "head"), {"epoch": "e"}),
    ],
    ids=lambda written: written[0][1] + "-of-" + written[0][0],
)
def test_rows_of_what_the_device_s_feed_may_not_write_are_set_aside(written: Written) -> None:
    """Up models, other devices, other feeds, local models, what the cloud keeps for itself (rule 15)."""
    made = pending("a")
    made.hear(ack(made, 2))
    made.database.create("Status", {"rev": 1})
    made.database.create("Diagnostic", {"name": "a", "rev": 1})
    made.changes.clear()
    only_the_cursor_moves(made, rows(row(written, head(made, 2))))
    assert made.probes["row_set_aside"] == 1


def test_a_notice_of_another_account_is_set_aside() -> None:
    made = device()
    only_the_cursor_moves(made, rows(row(notice(1, "a", account="other")), feed="account"))


def test_deleting_an_up_model_s_item_from_the_cloud_does_nothing() -> None:
    made = device()
    made.database.create("Status", {"rev": 1})
    made.hear(ack(made, 2))
    made.changes.clear()
    only_the_cursor_moves(made, rows(row((PK, "status#"))))


@pytest.mark.parametrize("image", [b"5", b"null", b"[]", b'"x"', b'{"a":"\xff"}', b'{"a":"\\ud800"}'])
@pytest.mark.parametrize("written", [config(1), setting(1, "a")], ids=["down", "both"])
def test_a_poisoned_row_is_set_aside_and_harms_no_other(image: bytes, written: Written) -> None:
    made = device()
    made.hear(rows(row(written)))
    poison = Row(written[0], msgspec.Raw(image))
    assert made.session.replica.rows(rows(poison, row(setting(2, "b")), a=6)) is Outcome.APPLIED
    assert shown(made) == {written[0][1]: 1, "setting#b": 2}
    (dead,) = made.database.dead_letters()
    assert (dead.sk, dead.kind, dead.code, dead.image) == (written[0][1], "row", "malformed", image)
    made.hear(rows(row((written[0], written[1] | {"rev": 3})), a=8))
    assert shown(made)[written[0][1]] == 3


def test_an_oversize_row_is_set_aside_and_ends_the_operations_it_covers() -> None:
    made = pending("a")
    made.hear(ack(made, 2))
    made.hear(rows(Row((PK, "setting#a"), head=head(made, 2), oversize=200_000)))
    assert made.store.outbox() == []
    assert [dead.code for dead in made.database.dead_letters()] == ["oversize"]


def updated(rev: int = 8) -> Device:
    """It knows setting a as of rev 7, and has sent an update, operation 2."""
    made = device()
    made.hear(rows(row(setting(7, "a"))))
    made.database.update("Setting", {"name": "a", "rev": rev})
    made.sent()
    made.changes.clear()
    return made


def tell(made: Device, form: str, one: Row) -> None:
    """A row, or a snapshot that says the same."""
    end = made.store.cursors["device"][1] + 1
    if form == "row":
        assert made.session.replica.rows(rows(one, a=end - 1)) is Outcome.APPLIED
    else:
        items = [SnapshotItem(one.key, one.image, one.oversize)]
        first = Snapshot(feed="device", nonce="", epoch=FEED, seq=end, part=0, parts=1, items=items, head=one.head)
        assert made.session.replica.snapshot(first, items) is Outcome.APPLIED


def too_large(made: Device) -> Row:
    """What a later writer has made of setting a; it covers operation 2."""
    return Row((PK, "setting#a"), head=head(made, 2), oversize=200_000)


@pytest.mark.parametrize("form", ["row", "snapshot"])
def test_what_was_accepted_shows_on_when_a_later_state_of_its_item_is_set_aside(form: str) -> None:
    made = updated()
    made.hear(ack(made, 2))
    made.changes.clear()
    tell(made, form, too_large(made))
    assert shown(made) == {"setting#a": 8} and made.store.outbox() == [] and made.changes == []


@pytest.mark.parametrize("form", ["row", "snapshot"])
def test_what_was_removed_stays_away_when_a_later_state_of_its_item_is_set_aside(form: str) -> None:
    made = device()
    made.hear(rows(row(setting(7, "a"))))
    made.database.remove("Setting", {"name": "a"})
    made.sent()
    made.hear(ack(made, 2))
    tell(made, form, too_large(made))
    assert shown(made) == {} and made.store.outbox() == []


@pytest.mark.parametrize("form", ["row", "snapshot"])
@pytest.mark.parametrize("verdicts", [{}, {"u2": "lost"}], ids=["accepted", "lost"])
def test_what_has_no_verdict_shows_until_it_has_when_a_later_state_of_its_item_is_set_aside(
    form: str, verdicts: dict[str, str]
) -> None:
    made = updated()
    tell(made, form, too_large(made))
    assert shown(made) == {"setting#a": 8}
    made.hear(ack(made, 2, **verdicts))
    assert shown(made) == {"setting#a": 7 if verdicts else 8}
    tell(made, form, row(setting(9, "a"), head(made, 2)))
    assert shown(made) == {"setting#a": 9} and made.store.outbox() == []


@pytest.mark.parametrize("form", ["row", "snapshot"])
@pytest.mark.parametrize("gone", [False, True])
def test_what_was_set_aside_is_over_when_a_later_state_of_its_item_is_applied(form: str, gone: bool) -> None:
    made = updated()
    made.hear(ack(made, 2))
    tell(made, form, too_large(made))
    tell(made, "row", Row((PK, "setting#b"), oversize=200_000))
    made.store.load()  # as after a boot
    assert {dead.sk for dead in made.database.dead_letters()} == {"setting#a", "setting#b"}
    tell(made, "row", Row((PK, "setting#a")) if gone else row(setting(9, "a"), head(made, 2)))
    assert shown(made) == ({} if gone else {"setting#a": 9})
    assert [dead.sk for dead in made.database.dead_letters()] == ["setting#b"] and made.store.has_aside
    tell(made, form, Row((PK, "setting#b")) if form == "row" else row(setting(9, "a"), head(made, 2)))
    assert made.database.dead_letters() == [] and not made.store.has_aside


def test_a_rejected_write_stays_among_the_dead_letters_when_a_row_of_its_item_is_applied() -> None:
    made = updated()
    made.hear(ack(made, 2, u2="unique"))
    tell(made, "row", too_large(made))
    tell(made, "row", row(setting(9, "a"), head(made, 2)))
    assert [(dead.kind, dead.code) for dead in made.database.dead_letters()] == [("update", "unique")]


@pytest.mark.parametrize("stamp", [-5, 1 << 60, 1 << 80, 1e30, "yesterday", None])
def test_an_absurd_stamp_does_not_stop_later_writes(stamp: Any) -> None:
    made = device()
    (key, image) = setting(1, "a")
    made.hear(rows(row((key, image | {"updated": stamp}))))
    assert made.store.cursors["device"] == (FEED, 6)
    assert made.database.update("Setting", {"name": "a", "rev": 2})["rev"] == 2


# Rule 14: what rows and snapshots do to own operations


def test_an_operation_not_covered_by_a_row_s_head_stays_visible() -> None:
    made = pending("a")
    made.hear(rows(row(setting(9, "a"), head(made, 1))))
    assert shown(made) == {"setting#a": 1}


def test_a_row_of_another_key_does_not_end_an_operation() -> None:
    made = pending("a", "b")
    made.hear(ack(made, 3), rows(row(setting(9, "b"), head(made, 3))))
    assert [row.sk for row in made.store.outbox()] == ["setting#a"]
    assert shown(made) == {"setting#a": 1, "setting#b": 9}


def test_a_newer_operation_stays_when_an_older_one_of_its_key_is_covered() -> None:
    made = pending("a")
    made.database.update("Setting", {"name": "a", "rev": 7})
    made.hear(rows(row(setting(1, "a"), head(made, 2))))
    assert shown(made) == {"setting#a": 7}
    assert [(row.state, row.seen) for row in made.store.outbox()] == [(SENT, 1), (UNSENT, 0)]


def test_a_row_that_claims_what_was_not_sent_undoes_the_whole_message() -> None:
    made = pending("a")
    message = rows(row(config(1)), row(setting(9, "a"), head(made, 2)), row(config(2), head(made, 8, "other")))
    assert unchanged(made, lambda: made.session.replica.rows(message)) is Outcome.ROLLED_BACK
    old = made.store.identity.epoch
    made.hear(message)
    assert (made.store.identity.replaces, made.session.mints) == (old, 1)
    assert shown(made) == {"setting#a": 1}


def test_a_row_with_another_id_for_a_number_shows_a_rolled_back_database() -> None:
    made = pending("a")
    message = rows(row(setting(9, "a"), head(made, 2, "other")))
    assert unchanged(made, lambda: made.session.replica.rows(message)) is Outcome.ROLLED_BACK


def test_a_row_with_the_head_of_an_old_epoch_mints_nothing() -> None:
    made = pending("a")
    made.hear(rows(row(config(1), head(made, 99, epoch="old"))))
    assert made.session.mints == 0
    assert shown(made) == {"config#": 1, "setting#a": 1}


# Rule 13: snapshots


def test_a_snapshot_replaces_the_base_of_its_feed_alone() -> None:
    made = device()
    made.database.create("Diagnostic", {"name": "d", "rev": 8})
    made.database.create("Status", {"rev": 9})
    made.hear(ack(made, 2), rows(row(config(1)), row(setting(2, "a"))), rows(row(notice(3, "n")), feed="account"))
    made.changes.clear()
    assert made.session.replica.snapshot(*snapshot(config(4), setting(5, "b"))) is Outcome.APPLIED
    assert shown(made) == {"config#": 4, "diagnostic#d": 8, "notice#n": 3, "setting#b": 5, "status#": 9}
    assert sorted(made.events()) == ["created", "removed", "updated"]
    assert made.store.cursors == {"device": (FEED, 9), "account": (FEED, 5 + 1)}


def test_a_snapshot_older_than_the_cursor_of_its_epoch_changes_nothing() -> None:
    made = device()
    assert unchanged(made, lambda: made.session.replica.snapshot(*snapshot(config(4), seq=4))) is Outcome.NOTHING
    assert made.session.replica.snapshot(*snapshot(config(4), seq=4, epoch=FEED[:-1] + "1")) is Outcome.APPLIED


def test_a_snapshot_keeps_the_overlay_and_ends_what_its_head_covers() -> None:
    made = pending("a", "b")
    made.hear(ack(made, 2))
    made.database.create("Setting", {"name": "c", "rev": 3})
    made.session.replica.snapshot(*snapshot(setting(7, "a"), setting(8, "b"), mark=head(made, 2)))
    assert shown(made) == {"setting#a": 7, "setting#b": 2, "setting#c": 3}
    assert [(row.sk, row.state) for row in made.store.outbox()] == [("setting#b", SENT), ("setting#c", UNSENT)]


def test_a_snapshot_never_hides_what_an_up_model_shows() -> None:
    made = device()
    made.database.create("Status", {"rev": 1})
    made.hear(ack(made, 2))
    made.database.update("Status", {"rev": 2})
    assert [row.state for row in made.store.outbox()] == [SENT]
    made.session.replica.snapshot(*snapshot(mark=head(made, 3)))
    assert shown(made) == {"status#": 2}


def test_a_snapshot_tells_of_every_item_that_it_takes_away() -> None:
    """Also of one that was in the outbox alone: accepted, then deleted in the cloud before any row came."""
    made = pending("a")
    made.hear(ack(made, 2))
    made.changes.clear()
    made.session.replica.snapshot(*snapshot(mark=head(made, 2)))
    assert shown(made) == {}
    assert made.events() == ["removed"]


def test_a_snapshot_of_the_own_epoch_ends_acknowledged_operations_of_older_ones() -> None:
    made = pending("a")
    made.hear(ack(made, 2))
    made.session.replica.mint("old")
    assert [(row.sk, row.state) for row in made.store.outbox("kind<>'sweep'")] == [("setting#a", ACKED)]
    made.session.replica.snapshot(*snapshot(setting(6, "a"), mark=HeadMark("other", 3, "x")))
    assert len(made.store.outbox("kind<>'sweep'")) == 1
    made.store.drop_cursor("device")
    made.session.replica.snapshot(*snapshot(setting(6, "a"), mark=head(made, 0)))
    assert made.store.outbox("kind<>'sweep'") == []
    assert shown(made) == {"setting#a": 6}


def test_a_snapshot_that_claims_what_was_not_sent_changes_nothing() -> None:
    made = pending("a")
    message = snapshot(config(1), mark=head(made, 7, "other"))
    assert unchanged(made, lambda: made.session.replica.snapshot(*message)) is Outcome.ROLLED_BACK


def test_items_of_others_in_a_snapshot_are_set_aside() -> None:
    made = device()
    made.database.create("Status", {"rev": 9})
    made.hear(ack(made, 2))
    made.session.replica.snapshot(*snapshot(status(1), config(2, device="home-2"), config(3)))
    assert shown(made) == {"config#": 3, "status#": 9}
    assert made.probes["row_set_aside"] == 2


# Rules 16 and 17: a new epoch


def with_something_of_everything() -> Device:
    made = device()
    made.database.create("Fault", {"id": "kept", "rev": 1})
    made.hear(ack(made, 2))
    made.database.create("Fault", {"id": "gone", "rev": 2})
    made.hear(ack(made, 3))
    made.database.create("Setting", {"name": "acked", "rev": 3})
    made.hear(ack(made, 4))
    made.database.create("Setting", {"name": "seen", "rev": 4})
    made.hear(rows(row(setting(4, "seen"), head(made, 5))))
    made.database.remove("Fault", {"id": "gone"})
    made.database.create("Status", {"rev": 5})
    made.database.create("Setting", {"name": "unsent", "rev": 6})
    made.changes.clear()
    return made


def test_a_new_epoch_creates_live_up_items_sweeps_and_then_repeats_pending_writes() -> None:
    made = with_something_of_everything()
    before, visible = made.store.outbox(), shown(made)
    made.session.replica.mint("old")
    after = made.store.outbox(f"state={UNSENT}")
    assert [(row.u, row.kind, row.sk) for row in after] == [
        (1, "create", "status#"),
        (2, "create", "fault#kept"),
        (3, "sweep", ""),
        (4, "create", "setting#unsent"),
    ]
    assert all(row.id == "" and row.epoch == made.store.identity.epoch for row in after)
    old = {row.sk: row for row in before}
    assert all(row.updated == old[row.sk].updated and row.image == old[row.sk].image for row in (after[0], after[3]))
    assert made.store.outbox(f"state={ACKED}") == [old["setting#acked"]]
    assert shown(made) == visible
    assert made.store.cursors.keys() == {"account"}
    assert memory_of(made.store) == fresh_memory(made.connection)


def test_a_new_epoch_changes_nothing_that_an_application_sees() -> None:
    made = with_something_of_everything()
    made.session.replica.mint("old")
    assert made.events() == []


# A failure at any statement of any message: nothing of it has happened, and memory is what the file says


MESSAGES: Final[dict[str, Callable[[Device], Any]]] = {
    "ack": lambda made: ack(made, 5, u5="lost"),
    "rejection": lambda made: ack(made, 5, u5="size"),
    "rollback": lambda made: ack(made, 9, "other"),
    "rows": lambda made: rows(row(setting(4, "acked"), head(made, 5)), row((PK, "config#")), a=6),
    "snapshot": lambda made: msgspec.structs.replace(
        snapshot(setting(7, "acked"), config(8), mark=head(made, 5))[0], nonce=made.session.nonces["device"]
    ),
}


@pytest.mark.parametrize("name", MESSAGES)
@pytest.mark.parametrize("error", [sqlite3.OperationalError, PowerCut], ids=["disk", "power"])
def test_a_message_interrupted_at_any_statement_has_not_come(name: str, error: type[BaseException]) -> None:
    done = with_something_of_everything()
    before = done.dump()
    done.hear(MESSAGES[name](done))
    assert done.dump() != before
    for statements in range(200):
        made = with_something_of_everything()
        first, left = made.dump(), statements
        execute = made.store.execute

        def failing(sql: str, values: Any = (), /) -> sqlite3.Cursor:
            nonlocal left
            left -= 1
            if left == -1:
                raise error
            return execute(sql, values)  # noqa: B023

        made.store.execute = failing
        with suppress(error):
            made.hear(MESSAGES[name](made))
        made.store.execute = execute
        assert memory_of(made.store) == fresh_memory(made.connection)
        if left >= 0:
            return
        # The message's own transaction is whole; what was learned or sent around it is another matter.
        kept = {table: made.dump()[table] for table in ("item", "cursor", "dead_letter")}
        assert kept in ({table: first[table] for table in kept}, {table: done.dump()[table] for table in kept})
    raise AssertionError("never passes")


def test_the_fuse_of_these_tests_blows() -> None:
    made = device()
    arm(made.store, 2)
    with pytest.raises(PowerCut):
        made.hear(rows(row(config(1)), row(config(2))))
    made.off()
    assert dump(made.connection)["item"] == []


def test_changes_carry_what_was_before_and_after() -> None:
    made = device()
    made.hear(rows(row(config(1)), row(config(2)), row((PK, "config#"))))
    told: list[Change] = made.changes
    assert [(c.event, c.before and c.before["rev"], c.image and c.image["rev"]) for c in told] == [
        ("created", None, 1),
        ("updated", 1, 2),
        ("removed", 2, None),
    ]
