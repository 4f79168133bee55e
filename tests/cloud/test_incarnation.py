"""A table that is put back to an older copy and marked: the relay notices, devices leave what they knew (rule 19).

A HEAD that is lost, or put back without a mark, is noticed by its device.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from device_rig import Pair, PowerCut, arm
from relay_rig import ACCOUNTS, EPOCH, SCHEMA, Rig, Task, config, every_interleaving, hello, op, status, stored, up

from agent.protocol.messages import Ack, FeedName, FeedState, Hello, Reset, Rows, Snapshot, Up, decode_to_device, encode
from cloud.config import RelayConfig
from cloud.drive import run
from cloud.head import feed_epoch_incarnation, head_key
from cloud.incarnation import INCARNATION, mark
from cloud.relay import Relay
from cloud.table import MARKER_KEY, Delete, Get, Item, Put, TableRequest

NEW = "epoch-of-the-new-table"


def marked(rig: Rig) -> str:
    """Marks the table; its new incarnation."""
    rig.execute(mark(rig.random_hex))
    item = rig.item(MARKER_KEY)
    assert item is not None
    return str(item[INCARNATION])


def another(rig: Rig) -> Relay:
    """One more relay on the same table, which has just read the marker."""
    counters: Counter[str] = Counter()
    relay = Relay(SCHEMA, RelayConfig(), lambda: rig.now_ms, rig.random_hex, counters, ACCOUNTS.get)
    item = rig.item(MARKER_KEY)
    relay.incarnation.learn("" if item is None else item[INCARNATION])
    return relay


def in_table(incarnation: str, epoch: str = NEW, replaces: str | None = None, device: FeedState | None = None) -> Hello:
    feeds: dict[FeedName, FeedState] = {} if device is None else {"device": device}
    return Hello(epoch=epoch, hn="hn", n=1, schema="1", feeds=feeds, replaces=replaces, inc=incarnation)


# ---------------------------------------------------------------- what the relay knows, and what it costs


def test_the_marker_is_read_once_a_minute_and_not_for_each_message() -> None:
    rig = Rig()
    asked: list[TableRequest] = []
    execute = rig.execute

    def watched(request: TableRequest) -> Any:
        asked.append(request)
        return execute(request)

    rig.execute = watched  # type: ignore[method-assign]
    rig.send(hello())
    for u in range(1, 100):
        rig.now_ms += 500
        assert rig.ack(up(op(u, "create", status(u)))).up == u
        rig.execute(Put(stored(config(u))))
        rig.sequence()
    assert asked.count(Get(MARKER_KEY)) == 1
    rig.now_ms += 60_000
    rig.send(hello())
    rig.send(hello())
    assert asked.count(Get(MARKER_KEY)) == 2


def test_a_table_without_a_marker_and_one_whose_marker_says_nothing_are_of_the_same_incarnation() -> None:
    rig = Rig()
    rig.send(hello())
    rig.execute(Put({"pk": MARKER_KEY[0], "sk": MARKER_KEY[1], "_type": "_FleetTable"}))
    rig.now_ms += 60_000
    (answer,) = rig.send(hello())
    assert isinstance(answer, Ack) and "inc" not in rig.head()


def test_the_clock_of_a_relay_that_goes_back_does_not_keep_what_it_knows_for_ever() -> None:
    rig = Rig()
    rig.send(hello())
    marked(rig)
    rig.now_ms -= 3_600_000
    (answer,) = rig.send(hello())
    assert isinstance(answer, Reset)


def test_a_config_that_keeps_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="incarnation_ms"):
        RelayConfig(incarnation_ms=0)


# ---------------------------------------------------------------- HEAD


def test_a_device_of_an_older_incarnation_is_told_of_the_new_one_by_hello_and_by_up() -> None:
    rig = Rig()
    rig.send(hello())
    incarnation = marked(rig)
    rig.now_ms += 60_000
    told = Reset(hn="hn", head_epoch=EPOCH, inc=incarnation)
    assert rig.send(hello()) == [told]
    assert rig.send(up(op(1, "create", status(1)))) == [told]
    assert rig.head()["up"] == 0 and rig.item(status(1)[0]) is None


def test_a_device_that_knows_the_new_incarnation_is_adopted_whatever_it_replaces() -> None:
    rig = Rig()
    rig.send(hello())
    rig.ack(up(op(1, "create", status(1))))
    incarnation = marked(rig)
    (answer,) = rig.send(in_table(incarnation, replaces="something else"))
    assert isinstance(answer, Ack) and (answer.epoch, answer.up, answer.upid) == (NEW, 0, None)
    assert rig.head() == {**rig.head(), "epoch": NEW, "up": 0, "inc": incarnation}
    (answer,) = rig.send(in_table(incarnation, "one more", replaces="something else"))
    assert isinstance(answer, Reset) and not answer.inc, "in one incarnation `replaces` decides"


def test_an_epoch_that_was_adopted_without_the_device_knowing_is_adopted_again() -> None:
    rig = Rig()
    rig.send(hello())
    incarnation = marked(rig)
    (answer,) = rig.send(in_table(incarnation, EPOCH))
    assert isinstance(answer, Ack) and rig.head()["inc"] == incarnation


def test_a_head_that_the_copy_did_not_have_is_made_in_the_new_incarnation() -> None:
    rig = Rig()
    incarnation = marked(rig)
    assert rig.send(hello()) == [Reset(hn="hn", head_epoch=None, inc=incarnation)]
    assert rig.item(head_key("home-1")) is None
    rig.send(in_table(incarnation))
    assert (rig.head()["epoch"], rig.head()["inc"]) == (NEW, incarnation)


def test_a_relay_that_does_not_know_of_the_mark_asks_where_anything_says_so() -> None:
    rig = Rig()
    stale = another(rig)
    incarnation = marked(rig)
    sent = rig.run(stale.on_message("home-1", encode(in_table(incarnation))))
    assert isinstance(sent[0], Ack) and rig.head()["inc"] == incarnation
    stale.incarnation.learn("")
    message = Up(epoch=NEW, first_u=1, ops=[op(1, "create", status(1))], hn="hn")
    (answer,) = rig.run(stale.on_message("home-1", encode(message)))
    assert isinstance(answer, Ack) and answer.up == 1
    assert stale.incarnation.known == incarnation


def test_a_relay_that_does_not_know_of_the_mark_serves_what_is_still_as_before_it() -> None:
    rig = Rig()
    rig.send(hello())
    stale = another(rig)
    marked(rig)
    (answer,) = rig.run(stale.on_message("home-1", encode(up(op(1, "create", status(1))))))
    assert isinstance(answer, Ack) and answer.up == 1


def test_two_workers_adopt_one_hello_of_the_new_incarnation_and_neither_undoes_what_follows() -> None:
    def build() -> tuple[Rig, list[Task]]:
        rig = Rig()
        rig.send(hello())
        incarnation = marked(rig)
        return rig, [Task(rig, another(rig).on_message("home-1", encode(in_table(incarnation)))) for _ in range(2)]

    count = 0
    for rig in every_interleaving(build):
        assert rig.head()["epoch"] == NEW
        assert sum(record.key == head_key("home-1") for record in rig.commits) == 2, "made once, adopted once"
        count += 1
    assert count > 1


# ---------------------------------------------------------------- feeds


def test_a_feed_begins_a_new_epoch_in_a_new_incarnation_also_when_the_clock_is_behind() -> None:
    rig = Rig()
    rig.execute(Put(stored(config(1))))
    rig.sequence()
    before, _ = rig.tail()
    incarnation = marked(rig)
    rig.now_ms -= 120_000
    rig.execute(Put(stored(config(2))))
    (push,) = rig.sequence()
    assert isinstance(push, Rows) and push.a == 0
    epoch, seq = rig.tail()
    assert seq == 1 and epoch > before and feed_epoch_incarnation(epoch) == incarnation
    rig.execute(Put(stored(config(3))))
    rig.sequence()
    assert rig.tail() == (epoch, 2)


def test_a_cursor_beyond_what_the_table_holds_gets_a_snapshot_of_a_new_feed_epoch() -> None:
    rig = Rig()
    rig.execute(Put(stored(config(1))))
    rig.sequence()
    copy = rig.table.backup()
    for rev in range(2, 9):
        rig.execute(Put(stored(config(rev))))
    rig.sequence()
    epoch, seq = rig.tail()
    rig.table.restore(copy)
    incarnation = marked(rig)
    rig.now_ms += 60_000
    _, snapshot = rig.send(in_table(incarnation, device=FeedState("nonce", epoch, seq)))
    assert isinstance(snapshot, Snapshot) and snapshot.epoch > epoch and snapshot.seq == 1
    assert [item.key for item in snapshot.items] == [config(1)[0]]


def test_what_a_relay_that_does_not_know_of_the_mark_logs_is_in_the_snapshot_that_begins_the_new_feed_epoch() -> None:
    """It may add to a feed epoch that is over. Whoever comes into the new one has the change by the snapshot, or by a
    row that follows it."""

    def build() -> tuple[Rig, list[Task]]:
        rig = Rig()
        rig.execute(Put(stored(config(1))))
        rig.sequence()
        stale = another(rig)
        incarnation = marked(rig)
        fresh = another(rig)
        rig.execute(Put(stored(config(2))))
        (record,) = rig.records()
        joins = in_table(incarnation, device=FeedState("nonce"))
        return rig, [
            Task(rig, stale.on_record(record)),
            Task(rig, fresh.on_message("home-1", encode(joins))),
        ]

    stranded = 0
    for rig in every_interleaving(build, most=20_000):
        sent = rig.published
        epoch, _ = rig.tail()
        assert feed_epoch_incarnation(epoch)
        stranded += any(row["sk"].rpartition("#")[0] < epoch for row in rig.log()[1:])
        (snapshot,) = [m for m in (decode_to_device(one.payload) for one in sent) if isinstance(m, Snapshot)]
        assert snapshot.epoch == epoch
        shown = {item.key: b'"rev":2' in bytes(item.image) for item in snapshot.items}
        later = [row for row in rig.log() if row["sk"] > f"{epoch}#{snapshot.seq:012d}" and "key" in row]
        assert shown == {config(2)[0]: True} or any(row["image"]["rev"] == 2 for row in later)
    assert stranded, "no order of steps showed what the test is about"


# ---------------------------------------------------------------- a device through it


def settled(pair: Pair) -> Pair:
    pair.act(pair.device.boot)
    pair.connect()
    pair.drain(60_000)
    return pair


def table_of(pair: Pair) -> dict[tuple[str, str], Item]:
    return {(item["pk"], item["sk"]): item for item in pair.rig.table.scan() if "_orphan" not in item}


def equal(pair: Pair) -> bool:
    table = {key: item["rev"] for key, item in table_of(pair).items()}
    return {key: image["rev"] for key, image in pair.device.visible().items()} == table


def put_back(pair: Pair, copy: list[Item]) -> None:
    """What was on its way is gone with the relay."""
    for held in (pair.up, pair.down, pair.tasks, pair.records):
        held.clear()
    pair.rig.table.restore(copy)
    pair.rig.position = pair.rig.table.stream.latest(0)


def written(pair: Pair, rev: int) -> None:
    pair.write("upsert", "Status", {"rev": rev})
    pair.write("upsert", "Setting", {"name": "mode", "rev": rev})
    pair.rig.execute(Put(stored(config(rev))))
    pair.drain(60_000)


def test_a_device_lives_through_a_restore_of_the_table_and_keeps_what_is_its_own() -> None:
    pair = settled(Pair())
    written(pair, 1)
    copy = pair.rig.table.backup()
    for rev in range(2, 6):
        written(pair, rev)
    assert equal(pair)
    epoch = pair.device.store.identity.epoch
    put_back(pair, copy)
    incarnation = marked(pair.rig)
    pair.drain()
    store = pair.device.store
    assert equal(pair) and store.outbox_rows == 0 and store.identity.adopted
    assert store.identity.epoch != epoch and store.incarnation == incarnation
    revs = {image["_type"]: image["rev"] for image in pair.device.visible().values()}
    assert revs == {"Status": 5, "Setting": 1, "Config": 1}
    written(pair, 9)
    assert equal(pair) and pair.device.session.mints == 1


def test_a_device_that_was_off_for_two_restores_needs_one_new_epoch() -> None:
    pair = settled(Pair())
    copy = pair.rig.table.backup()
    written(pair, 2)
    pair.device.off()
    for _ in range(2):
        put_back(pair, copy)
        marked(pair.rig)
        pair.rig.now_ms += 60_000
    settled(pair)
    written(pair, 3)
    assert equal(pair) and pair.device.session.mints == 1


def test_a_device_that_is_not_adopted_yet_enters_without_a_new_epoch() -> None:
    pair = Pair()
    incarnation = marked(pair.rig)
    pair.act(pair.device.boot)
    pair.write("upsert", "Status", {"rev": 1})
    settled(pair)
    assert equal(pair) and pair.device.store.incarnation == incarnation and pair.device.session.mints == 0


def test_an_old_word_of_another_incarnation_changes_nothing() -> None:
    pair = settled(Pair())
    old = pair.device.session.hn
    marked(pair.rig)
    pair.rig.now_ms += 60_000
    pair.drain()
    before = pair.device.dump()
    pair.deliver_down(encode(Reset(hn=old, head_epoch="x", inc="another")))
    assert pair.device.dump() == before
    assert pair.device.probes["stale_reset"] == 1


def test_the_incarnation_outlives_a_boot_and_a_power_cut_of_the_new_epoch_leaves_all_or_nothing() -> None:
    for statements in range(40):
        pair = settled(Pair())
        written(pair, 1)
        before = pair.device.dump()
        arm(pair.device.store, statements)
        try:
            pair.device.session.replica.mint(None, "the-new-one")
        except PowerCut:
            pair.device.off()
            assert pair.device.dump() == before, statements
        else:
            pair.device.off()
            pair.act(pair.device.boot)
            assert pair.device.store.incarnation == "the-new-one" and not pair.device.store.cursors
            return
    raise AssertionError("the power failed every time")


# ---------------------------------------------------------------- HEAD is lost, and no mark says so


@pytest.mark.parametrize("case", ["lost", "put back"])
def test_a_head_that_is_behind_its_device_does_not_wedge_it(case: str) -> None:
    pair = settled(Pair())
    written(pair, 1)
    head = pair.rig.head()
    for rev in (2, 3):
        written(pair, rev)
    pair.rig.execute(Delete(head_key("home-1")) if case == "lost" else Put(head))
    pair.disconnect()
    pair.drain(60_000)
    written(pair, 4)
    assert equal(pair) and pair.device.store.outbox_rows == 0
    assert pair.device.probes["head_behind"] == 1 and pair.device.session.mints == 1


def test_an_answer_from_before_an_acknowledgement_is_no_sign_of_a_lost_head() -> None:
    """The answer to a hello may be old when it comes: what was acknowledged since then is no reason for anything."""
    pair = settled(Pair())
    pair.disconnect()
    pair.connect()
    for payload in list(pair.up):
        pair.up.remove(payload)
        pair.deliver_up(payload)
    while pair.tasks:
        pair.step(0)
    late, pair.down = pair.down, []
    pair.write("upsert", "Status", {"rev": 1})
    pair.settle()
    acked = pair.device.store.identity.acked_u
    for payload in late:
        pair.deliver_down(payload)
    assert acked and pair.device.session.mints == 0 and pair.device.probes["head_behind"] == 0


def test_a_schema_of_a_relay_says_nothing_of_the_marker() -> None:
    assert SCHEMA.locate(MARKER_KEY) is None
    rig = Rig()
    assert not rig.relay.wants(MARKER_KEY)
    run(rig.message(hello()), rig.execute, rig.published.append)
