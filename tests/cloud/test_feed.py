"""The sequencer: rows in true order, dense, never claiming more than they contain."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from relay_rig import (
    EPOCH,
    NOW_MS,
    Rig,
    Task,
    config,
    every_interleaving,
    fault,
    hello,
    killed_at_every_step,
    notice,
    op,
    setting,
    status,
    stored,
    up,
)

from agent.protocol.messages import ITEM_BYTES_MAX, FeedName, HeadMark, Row, Rows, decode_image, encode_image
from cloud.config import RelayConfig
from cloud.head import HIDDEN, head_device, head_key, log_feed, log_position, log_sk, new_feed_epoch
from cloud.table import Delete, Item, Put, Record

R_MS = RelayConfig().retention_ms
MARGIN_MS = RelayConfig().expiry_margin_ms


def rows_of(rig: Rig, feed: FeedName = "device", owner: str = "home-1") -> list[Item]:
    return [row for row in rig.log(feed, owner) if "key" in row]


def is_dense(rows: list[Item]) -> bool:
    """Positions go up by one; a new feed epoch begins at 1 and sorts above."""
    positions = [log_position(row) for row in rows]
    return positions[:1] in ([], [(positions[0][0] if positions else "", 1)]) and all(
        (right[0] == left[0] and right[1] == left[1] + 1) or (right[0] > left[0] and right[1] == 1)
        for left, right in pairwise(positions)
    )


# One record


def test_a_change_becomes_the_next_row_and_is_pushed() -> None:
    rig = Rig()
    for rev in (1, 2):
        rig.execute(Put(stored(config(rev))))
        (message,) = rig.sequence()
        assert isinstance(message, Rows)
        epoch, seq = rig.tail()
        assert seq == rev
        assert (message.feed, message.epoch, message.a, message.b, message.last) == ("device", epoch, rev - 1, rev, rev)
        (row,) = message.rows
        assert (row.key, decode_image(row.image), row.head) == (*config(rev), None)
        assert rig.published[-1].topic == "ioto/device/home-1/sync"
        assert rig.published[-1].qos == 1


def test_a_row_holds_what_head_said_and_hides_the_relays_marks() -> None:
    rig = Rig()
    rig.send(hello())
    written = setting(1)
    rig.send(up(op(1, "create", written)))
    (message,) = rig.sequence()
    assert isinstance(message, Rows)
    assert message.rows == [Row(written[0], message.rows[0].image, HeadMark(EPOCH, 1, "boot"))]
    assert decode_image(message.rows[0].image) == written[1]
    (row,) = rows_of(rig)
    assert not set(row["image"]) & set(HIDDEN)
    assert row["head"] == [EPOCH, 1, "boot"]


def test_a_deleted_item_gives_a_row_without_an_image() -> None:
    rig = Rig()
    rig.execute(Put(stored(config(1))))
    rig.execute(Delete(config(1)[0]))
    first, second = rig.sequence()
    assert isinstance(first, Rows) and isinstance(second, Rows)
    assert bytes(first.rows[0].image) == bytes(second.rows[0].image) == b""  # content is read anew, not taken over
    assert not second.rows[0].expired


def test_a_sweep_by_the_service_is_told_apart() -> None:
    rig = Rig()
    rig.execute(Put({**stored(config(1)), "ttl": NOW_MS // 1000 - 5}))
    rig.sequence()
    assert rig.table.sweep(NOW_MS) == 1
    (message,) = rig.sequence()
    assert isinstance(message, Rows)
    assert message.rows[0].expired


def test_account_feeds_have_their_own_topics_and_no_head() -> None:
    rig = Rig()
    rig.send(hello())
    rig.execute(Put(stored(notice(1, "a"))))
    (message,) = rig.sequence()
    assert isinstance(message, Rows)
    assert (message.feed, message.rows[0].head) == ("account", None)
    assert (rig.published[-1].topic, rig.published[-1].qos) == ("ioto/account/main/sync", 0)
    assert len(rows_of(rig, "account", "main")) == 1


@pytest.mark.parametrize("written", [status(1), fault(1, "a"), (head_key("home-1"), {"updated": 0})])
def test_private_and_up_only_keys_reach_no_feed(written: Any) -> None:
    rig = Rig()
    assert not rig.relay.wants(written[0])
    record = Record(0, 1, written[0], None, stored(written), NOW_MS)
    assert rig.run(rig.relay.on_record(record)) == []
    assert rig.table.count() == 0
    assert rig.relay.wants(config(1)[0]) and rig.relay.wants(setting(1)[0]) and rig.relay.wants(notice(1, "a")[0])


def test_an_item_too_large_to_send_is_told_by_its_size() -> None:
    rig = Rig()
    large = config(1, text="x" * ITEM_BYTES_MAX)
    rig.execute(Put(stored(large)))
    (message,) = rig.sequence()
    assert isinstance(message, Rows)
    assert message.rows == [Row(large[0], oversize=len(encode_image(large[1])))]
    assert rig.counters["row_oversize"] == 1


def test_a_repeated_record_adds_a_row_that_says_the_same() -> None:
    rig = Rig()
    rig.execute(Put(stored(config(1))))
    (record,) = rig.records()
    for _ in range(3):
        rig.run(rig.relay.on_record(record))
    assert [row["image"] for row in rows_of(rig)] == [config(1)[1]] * 3
    assert is_dense(rig.log())


# Feed epochs


def test_a_row_lives_for_the_retention_and_never_less_than_the_one_before() -> None:
    rig = Rig()
    ends: list[int] = []
    for shift_ms in (0, 1_500, -90_000, 1):
        rig.now_ms += shift_ms
        rig.execute(Put(stored(config(len(ends)))))
        rig.sequence()
        ends.append(rig.log()[-1]["ttl"])
    start_s = (NOW_MS + R_MS) // 1000
    assert ends == [start_s, start_s + 2, start_s + 2, start_s + 2]


@pytest.mark.parametrize(("left_ms", "same"), [(MARGIN_MS, True), (MARGIN_MS - 1, False), (-1, False)])
def test_after_a_row_near_its_end_a_new_feed_epoch_begins(left_ms: int, same: bool) -> None:
    rig = Rig()
    rig.execute(Put(stored(config(1))))
    rig.sequence()
    old, _ = rig.tail()
    rig.now_ms += R_MS - left_ms
    rig.execute(Put(stored(config(2))))
    rig.sequence()
    epoch, seq = rig.tail()
    assert (epoch == old, seq) == (same, 2 if same else 1)
    assert epoch >= old
    assert rig.counters["feed_epoch_minted"] == (1 if same else 2)


def test_a_new_feed_epoch_sorts_above_whatever_the_clock_says() -> None:
    rig = Rig()
    rig.execute(Put(stored(config(1))))
    rig.sequence()
    (row,) = rig.log()
    rig.execute(Put({**row, "ttl": 1}))  # as if long gone, yet written by a clock far ahead
    rig.now_ms = 5_000
    rig.execute(Put(stored(config(2))))
    rig.sequence()
    assert rig.tail()[0] > log_position(row)[0]
    assert rows_of(rig)[-1]["image"]["rev"] == 2


def test_positions_sort_as_they_follow() -> None:
    positions = [
        (new_feed_epoch(now_ms, digits), seq)
        for now_ms in (0, 999, 1_000, NOW_MS, 10**13 - 1)
        for digits in ("0" * 16, "f" * 16)
        for seq in (1, 9, 10, 99_999, 10**11)
    ]
    assert sorted(positions) == positions
    sks = [log_sk(*position) for position in positions]
    assert sorted(sks) == sks
    assert [log_position({"sk": sk}) for sk in sks] == positions


def test_the_keys_of_head_and_log_tell_whose_they_are() -> None:
    rig = Rig()
    rig.send(hello(), "home-1")
    for written in (config(1), notice(1, "a", "other")):
        rig.execute(Put(stored(written)))
    rig.sequence()
    private = [(item["pk"], item["sk"]) for item in rig.table.scan(private=True) if item["pk"].startswith("_fleet#")]
    assert [head_device(key) for key in private] == ["home-1", None, None]
    assert [log_feed(key) for key in private] == [None, ("device", "home-1"), ("account", "other")]


# Workers that come between each other


def write(*requests: Any) -> Any:
    yield from requests


def test_two_workers_on_one_feed_in_every_order() -> None:
    def build() -> tuple[Rig, list[Task]]:
        rig = Rig()
        rig.execute(Put(stored(config(1))))
        first = rig.records()[0]
        rig.execute(Put(stored(config(2))))
        second = rig.records()[0]
        late = write(Put(stored(config(3))))
        return rig, [Task(rig, rig.relay.on_record(first)), Task(rig, rig.relay.on_record(second)), Task(rig, late)]

    two_epochs = 0
    for rig in every_interleaving(build, 200_000):
        rig.sequence()  # the late write's record
        epochs: dict[str, list[int]] = {}
        for row in rows_of(rig):
            epochs.setdefault(log_position(row)[0], []).append(row["image"]["rev"])
        for revs in epochs.values():
            assert revs == sorted(revs), "an older image after a newer one"
        assert epochs[rig.tail()[0]][-1] == 3
        assert is_dense(rig.log())
        two_epochs += rig.counters["feed_epoch_minted"] == 2
    assert two_epochs > 0


def test_workers_that_want_the_same_position_both_get_one() -> None:
    def build() -> tuple[Rig, list[Task]]:
        rig = Rig()
        rig.execute(Put(stored(config(1))))
        rig.sequence()
        rig.execute(Put(stored(config(2))))
        (record,) = rig.records()
        return rig, [Task(rig, rig.relay.on_record(record)) for _ in range(2)]

    conflicts = 0
    for rig in every_interleaving(build, 50_000):
        assert [log_position(row)[1] for row in rig.log()] == [1, 2, 3]
        assert [row["image"]["rev"] for row in rows_of(rig)] == [1, 2, 2]
        conflicts += rig.counters["append_conflict"]
    assert conflicts > 0


def test_head_never_claims_more_than_the_image_contains() -> None:
    def build() -> tuple[Rig, list[Task]]:
        rig = Rig()
        rig.send(hello())
        rig.send(up(op(1, "create", setting(1, updated_ms=NOW_MS + 1))))
        (record,) = rig.records()
        batch = up(op(2, "update", setting(2, updated_ms=NOW_MS + 2)))
        return rig, [Task(rig, rig.relay.on_record(record)), Task(rig, rig.message(batch))]

    seen = set()
    for rig in every_interleaving(build):
        rig.sequence()
        for row in rows_of(rig):
            seen.add((row["head"][1], row["image"]["rev"]))
            assert row["image"]["rev"] >= row["head"][1]
        assert rows_of(rig)[-1]["image"]["rev"] == 2
    assert (1, 2) in seen, "the image may be newer than HEAD, and in some order is"


def test_a_worker_killed_anywhere_still_brings_the_change_to_the_log() -> None:
    def build() -> Any:
        rig = Rig()
        rig.send(hello())
        rig.send(up(op(1, "create", setting(1))))
        (record,) = rig.records()
        return rig, lambda: rig.relay.on_record(record)

    places = []
    for place, rig in killed_at_every_step(build):
        places.append(place)
        assert {row["image"]["rev"] for row in rows_of(rig)} == {1}
        assert is_dense(rig.log())
        assert 1 <= len(rows_of(rig)) <= 2
    assert places == list(range(5))


@given(
    writes=st.lists(st.tuples(st.integers(0, 2), st.booleans()), min_size=1, max_size=12),
    seed=st.integers(0, 2**32),
    repeat=st.booleans(),
)
def test_many_workers_and_writers_leave_a_log_in_true_order(
    writes: list[tuple[int, bool]], seed: int, repeat: bool
) -> None:
    rng = random.Random(seed)
    rig = Rig()
    rig.execute(Put(stored(config(0))))
    rig.sequence()
    todo = [
        Put(stored(setting(rev, f"s{n}", updated_ms=NOW_MS + rev))) if put else Delete(setting(0, f"s{n}")[0])
        for rev, (n, put) in enumerate(writes, 1)
    ]
    tasks: list[Task] = []
    history: dict[tuple[str, str], list[int | None]] = {}
    while todo or tasks:
        if todo and rng.random() < 0.3:
            request = todo.pop(0)
            rig.execute(request)
            new = rig.item(request.key)
            history.setdefault(request.key, [None]).append(None if new is None else new["rev"])
        for record in rig.records():
            tasks.extend(Task(rig, rig.relay.on_record(record)) for _ in range(1 + repeat))
        if tasks:
            task = rng.choice(tasks)
            task.step()
            tasks = [each for each in tasks if not each.done]
    assert is_dense(rig.log())
    for key, revs in history.items():
        at = 0
        logged = [row for row in rows_of(rig) if tuple(row["key"]) == key]
        for row in logged:
            rev = row["image"]["rev"] if "image" in row else None
            at = next(i for i in range(at, len(revs)) if revs[i] == rev)  # StopIteration: an image out of order
        item = rig.item(key)
        if logged:
            assert (logged[-1].get("image") or {}).get("rev") == (None if item is None else item["rev"])
        else:
            assert item is None  # deleted before it was there
