"""Hello: identity, the rows that a device misses, snapshots; and that any device gets there whatever is lost."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import example, given
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
    image,
    killed_at_every_step,
    notice,
    op,
    setting,
    status,
    stored,
    up,
)

from agent.protocol.messages import (
    ITEM_BYTES_MAX,
    MESSAGE_BYTES_MAX,
    RATE,
    Ack,
    FeedName,
    FeedState,
    HeadMark,
    Image,
    Key,
    Reset,
    Rows,
    Snapshot,
    ToDevice,
    Wait,
    decode_image,
    decode_to_device,
    encode,
    encode_image,
)
from agent.protocol.schema import Context
from cloud.config import RelayConfig
from cloud.head import Feed, head_key, head_mark, log_position
from cloud.table import Delete, Publish, Put, Query

R_MS = RelayConfig().retention_ms


def ask(epoch: str | None = None, seq: int = 0, feed: FeedName = "device") -> Any:
    return hello(feeds={feed: FeedState("nonce", epoch, seq)})


def rig_with(count: int, settings: RelayConfig | None = None) -> Rig:
    """A feed of `count` rows, alternately of two items."""
    rig = Rig(settings)
    rig.send(hello())
    for rev in range(1, count + 1):
        rig.execute(Put(stored(setting(rev, f"s{rev % 2}", updated_ms=NOW_MS + rev))))
        rig.sequence()
    return rig


def answers(rig: Rig, message: Any, kind: Any) -> list[Any]:
    sent = rig.send(message)
    assert isinstance(sent[0], Ack)
    assert all(isinstance(each, kind) for each in sent[1:]), sent
    return sent[1:]


# Identity


def test_the_first_hello_makes_head_and_is_acknowledged() -> None:
    rig = Rig()
    assert rig.ack(hello(n=7)) == Ack(epoch=EPOCH, up=0, now=NOW_MS, n=7)
    assert head_mark(rig.head()) == HeadMark(EPOCH, 0, None)


def test_a_hello_tells_what_head_has() -> None:
    rig = Rig()
    rig.send(hello())
    rig.send(up(op(1, "create", status(1)), op(2, "update", setting(2))))
    commits = len(rig.commits)
    assert rig.ack(hello(n=2)) == Ack(epoch=EPOCH, up=2, now=NOW_MS, upid="boot", verdicts={2: "lost"}, n=2)
    assert len(rig.commits) == commits


@pytest.mark.parametrize("replaces", [None, "9" * 32])
def test_a_device_that_head_does_not_know_is_reset_and_gets_nothing_more(replaces: str | None) -> None:
    rig = rig_with(3)
    before = rig.head()
    message = hello("f" * 32, replaces, {"device": FeedState("nonce")})
    assert rig.send(message) == [Reset(hn="hn", head_epoch=EPOCH)]
    assert rig.head() is before
    assert rig.counters["reset_sent"] == 1


def test_an_epoch_that_replaces_heads_is_adopted_from_zero() -> None:
    rig = Rig()
    rig.send(hello())
    rig.send(up(op(1, "create", status(1)), op(2, "update", setting(2))))
    assert rig.ack(hello("f" * 32, EPOCH)) == Ack(epoch="f" * 32, up=0, now=NOW_MS, n=1)
    assert dict(rig.head()) == {
        "pk": rig.head()["pk"],
        "sk": "head",
        "epoch": "f" * 32,
        "up": 0,
        "verdicts": {},
        "born": [NOW_MS],
    }
    assert rig.counters["epoch_adopted"] == 1
    assert rig.ack(hello("f" * 32, EPOCH)).up == 0
    assert rig.counters["epoch_adopted"] == 1


def test_of_two_epochs_that_replace_the_same_one_is_adopted() -> None:
    def build() -> tuple[Rig, list[Task]]:
        rig = Rig()
        rig.send(hello())
        return rig, [Task(rig, rig.message(hello(letter * 32, EPOCH))) for letter in "ab"]

    for rig in every_interleaving(build):
        kinds = sorted(type(decode_to_device(sent.payload)).__name__ for sent in rig.published[1:])
        assert kinds == ["Ack", "Reset"]
        assert rig.counters["epoch_adopted"] == 1


def test_two_first_hellos_make_one_head() -> None:
    def build() -> tuple[Rig, list[Task]]:
        rig = Rig()
        return rig, [Task(rig, rig.message(hello())) for _ in range(2)]

    for rig in every_interleaving(build):
        assert [type(decode_to_device(sent.payload)) for sent in rig.published] == [Ack, Ack]
        assert sum(record.key == head_key("home-1") for record in rig.commits) == 1


# Rows


def test_a_device_behind_gets_the_last_row_of_each_key() -> None:
    rig = rig_with(5)
    epoch, _ = rig.tail()
    (rows,) = answers(rig, ask(epoch, 1), Rows)
    assert (rows.feed, rows.epoch, rows.a, rows.b, rows.last) == ("device", epoch, 1, 5, 5)
    assert sorted((row.key[1], decode_image(row.image)["rev"]) for row in rows.rows) == [
        ("setting#s0", 4),
        ("setting#s1", 5),
    ]
    assert all(row.head == HeadMark(EPOCH, 0, None) for row in rows.rows)
    assert rig.counters["rows_coalesced"] == 2
    assert rig.counters["catchup_rows"] == 4


def test_a_device_at_the_tail_gets_nothing() -> None:
    rig = rig_with(2)
    assert answers(rig, ask(*rig.tail()), ()) == []
    assert len(rig.log()) == 2


@pytest.mark.parametrize("age", [0, 1, 2])
@pytest.mark.parametrize("seq", [0, 1, 2])
def test_the_ack_tells_how_far_each_feed_goes_and_what_follows_leads_there(seq: int, age: int) -> None:
    """At the tail, behind, and where the feed is tired or has run out."""
    rig = rig_with(2)
    epoch, _ = rig.tail()
    rig.now_ms += age * (R_MS // 2 + 2_000)
    ack, *sent = rig.send(hello(feeds={"device": FeedState("n", epoch, seq), "account": FeedState("m")}))
    assert isinstance(ack, Ack) and ack.tails
    assert set(ack.tails) == {"device", "account"}
    reached: dict[FeedName, tuple[str, int]] = {"device": (epoch, seq)}
    for each in sent:
        assert isinstance(each, (Rows, Snapshot))
        reached[each.feed] = (each.epoch, each.seq if isinstance(each, Snapshot) else each.b)
    for feed, tail in ack.tails.items():
        assert reached[feed] >= tail  # a feed that begins anew goes beyond
        assert reached[feed] == tail or tail == {"device": (epoch, seq + 1), "account": ("", 1)}[feed]
    told = any(isinstance(each, (Rows, Snapshot)) and each.feed == "device" for each in sent)
    assert (ack.tails["device"] > (epoch, seq)) is told


def test_rows_come_in_parts_of_bounded_rows() -> None:
    rig = rig_with(7, RelayConfig(catchup_rows=3))
    epoch, _ = rig.tail()
    parts = []
    seq = 1
    while True:
        sent = answers(rig, ask(epoch, seq), Rows)
        if not sent:
            break
        parts.append((sent[0].a, sent[0].b, sent[0].last))
        seq = sent[0].b
    assert parts == [(1, 4, 7), (4, 7, 7)]


@given(sizes=st.lists(st.integers(0, 60_000), min_size=1, max_size=8), items=st.integers(1, 4))
@example(sizes=[40_000, 40_000, 70_000], items=2)  # the row that is too much would have replaced one that was taken
def test_rows_come_in_parts_of_bounded_size(sizes: list[int], items: int) -> None:
    rig = Rig()
    rig.send(hello())
    for rev, size in enumerate([0, *sizes]):
        rig.execute(Put(stored(setting(rev, f"s{rev % items}", text="x" * size))))
        rig.sequence()
    epoch, last = rig.tail()
    seq, got = 1, dict[Key, int]()
    while seq < last:
        (rows,) = answers(rig, ask(epoch, seq), Rows)
        assert len(rig.published[-1].payload) <= MESSAGE_BYTES_MAX
        assert rows.a == seq < rows.b <= last
        got.update((row.key, decode_image(row.image)["rev"]) for row in rows.rows)
        window = rig.log()[seq : rows.b]
        assert {row.key: bytes(row.image) for row in rows.rows} == {
            tuple(row["key"]): encode_image(row["image"]) for row in window
        }
        seq = rows.b
    for key, rev in got.items():
        item = rig.item(key)
        assert item is not None and item["rev"] == rev
    assert len(got) == min(items, len(sizes))


def test_the_largest_rows_fit_in_a_message_in_either_encoding() -> None:
    rig = Rig()
    fractions = [0.5] * 20_000  # short in JSON, nine bytes each in MessagePack
    rig.execute(Put(stored(config(0))))
    rig.sequence()
    rig.execute(Put(stored(config(1, limits={"all": fractions}))))
    rig.sequence()
    rig.execute(Put(stored(setting(2, "n" * 1000, text="x" * (ITEM_BYTES_MAX - 1_500)))))
    rig.sequence()
    epoch, _ = rig.tail()
    for seq in (1, 2):
        for compact in (False, True):
            rig.send(ask(epoch, seq), compact=compact)
            assert len(rig.published[-1].payload) <= MESSAGE_BYTES_MAX
            assert (rig.published[-1].payload[:1] == b"{") is (not compact or seq == 1)


def test_a_row_that_was_swept_calls_for_a_snapshot() -> None:
    for gone, cursor in ((2, 1), (3, 1), (1, 0)):
        rig = rig_with(4)
        epoch, _ = rig.tail()
        row = rig.log()[gone - 1]
        rig.execute(Delete((row["pk"], row["sk"])))
        (snapshot,) = answers(rig, ask(epoch, cursor), Snapshot)
        assert (snapshot.epoch, snapshot.seq) == (epoch, 4)
        assert rig.counters["feed_hole"] == 1


@pytest.mark.parametrize("cursor", [(None, 0), ("0" * 29, 2), ("own", 99), ("own", -1)])
def test_a_cursor_of_another_place_calls_for_a_snapshot(cursor: Any) -> None:
    rig = rig_with(3)
    epoch = rig.tail()[0] if cursor[0] == "own" else cursor[0]
    (snapshot,) = answers(rig, ask(epoch, cursor[1]), Snapshot)
    assert (snapshot.epoch, snapshot.seq, snapshot.nonce) == (*rig.tail(), "nonce")


# Quiet feeds


def test_a_quiet_feed_gets_an_empty_row_at_half_its_life() -> None:
    rig = rig_with(2)
    epoch, _ = rig.tail()
    rig.now_ms += R_MS // 2
    assert answers(rig, ask(epoch, 2), ()) == []
    rig.now_ms += 1_001
    (rows,) = answers(rig, ask(epoch, 2), Rows)
    assert (rows.epoch, rows.a, rows.b, rows.rows) == (epoch, 2, 3, [])
    assert rig.counters["empty_row_appended"] == 1
    assert answers(rig, ask(epoch, 3), ()) == []


def test_a_device_behind_on_a_tiring_feed_gets_its_rows() -> None:
    rig = rig_with(2)
    epoch, _ = rig.tail()
    rig.now_ms += R_MS // 2 + 2_000
    (rows,) = answers(rig, ask(epoch, 1), Rows)
    assert (rows.a, rows.b) == (1, 2)
    assert rig.counters["empty_row_appended"] == 0


@pytest.mark.parametrize("seq", [1, 2])
def test_a_feed_that_ran_out_starts_anew_with_a_snapshot(seq: int) -> None:
    rig = rig_with(2)
    epoch, _ = rig.tail()
    rig.now_ms += R_MS
    (snapshot,) = answers(rig, ask(epoch, seq), Snapshot)
    assert snapshot.epoch > epoch
    assert (snapshot.epoch, snapshot.seq) == rig.tail()
    assert answers(rig, ask(snapshot.epoch, snapshot.seq), ()) == []


def test_an_empty_feed_starts_with_a_snapshot() -> None:
    rig = Rig()
    (snapshot,) = answers(rig, ask(), Snapshot)
    assert (snapshot.seq, snapshot.items, snapshot.part, snapshot.parts) == (1, [], 0, 1)
    assert len(rig.log()) == 1
    assert answers(rig, ask(snapshot.epoch, 1), ()) == []


# Snapshots


def test_a_snapshot_holds_the_feeds_items_and_no_others() -> None:
    rig = Rig()
    rig.send(hello())
    rig.send(up(op(1, "create", status(1)), op(2, "create", fault(2, "a")), op(3, "create", setting(3))))
    diagnostic = image("Diagnostic", "device#home-1", "diagnostic#x", 9, NOW_MS, deviceId="home-1", name="x")
    unknown = (("device#home-1", "zebra#1"), {"_type": "Zebra"})
    for written in (
        config(4),
        setting(5, "b"),
        config(6, "home-2"),
        notice(7, "n"),
        notice(8, "n", "other"),
        diagnostic,
        unknown,
    ):
        rig.execute(Put(stored(written)))
    sent = rig.send(hello(feeds={"device": FeedState("d"), "account": FeedState("a")}))
    by_feed = {each.feed: each for each in sent if isinstance(each, Snapshot)}
    device, account = by_feed["device"], by_feed["account"]
    held = [(item.key, decode_image(item.image)) for item in device.items]
    assert dict(held) == dict([setting(3), config(4), setting(5, "b")])
    assert [(item.key, decode_image(item.image)) for item in account.items] == [notice(7, "n")]
    assert (device.nonce, device.head) == ("d", HeadMark(EPOCH, 3, "boot"))
    assert (account.nonce, account.head) == ("a", None)


def test_an_item_belongs_to_one_feed() -> None:
    rig = Rig()
    context = Context("home-1", "main")
    for key, name, owner, expected in (
        (setting(1)[0], "device", "home-1", True),
        (setting(1)[0], "account", "main", False),
        (notice(1, "n")[0], "account", "main", True),
        (notice(1, "n")[0], "device", "home-1", False),
        (notice(1, "n", "other")[0], "account", "main", False),
        (setting(1, device="home-2")[0], "device", "home-1", False),
        (status(1)[0], "device", "home-1", False),
        (("device#home-1", "zebra#1"), "device", "home-1", False),
    ):
        feed = Feed(name, owner, "ioto")  # type: ignore[arg-type]
        assert rig.relay.catchup.belongs(key, feed, context) is expected


def test_two_readings_of_the_same_place_can_be_told_apart() -> None:
    """Their parts may hold other items: y, unchanged, is in neither part 0 of the second nor part 1 of the first."""
    rig = Rig(RelayConfig(snapshot_part_bytes=1_200))
    for name, size in (("x", 10), ("y", 10), ("z", 100)):
        rig.execute(Put(stored(setting(1, name, text="." * size))))
    rig.sequence()
    first = answers(rig, ask(), Snapshot)
    rig.execute(Put(stored(setting(2, "x", text="." * 800))))
    second = answers(rig, ask(), Snapshot)
    assert [[item.key[1][-1] for item in part.items] for part in (second[0], first[1])] == [["x"], ["z"]]
    assert (second[0].epoch, second[0].seq, second[0].parts) == (first[1].epoch, first[1].seq, first[1].parts)
    assert second[0].scan != first[1].scan


def test_a_feed_without_models_is_not_answered() -> None:
    rig = Rig()
    rig.ack(hello(feeds={"all": FeedState("nonce")}))
    assert rig.counters["feed_unknown"] == 1
    assert rig.table.count() == 1


@given(sizes=st.lists(st.integers(0, 110_000), max_size=12), page=st.integers(1, 5))
def test_a_snapshot_comes_in_numbered_parts_that_fit(sizes: list[int], page: int) -> None:
    rig = Rig(RelayConfig(snapshot_page=page))
    for n, size in enumerate(sizes):
        rig.execute(Put(stored(setting(n, f"s{n}", text="x" * size))))
    parts = answers(rig, ask(), Snapshot)
    assert [part.part for part in parts] == list(range(len(parts)))
    assert {part.parts for part in parts} == {len(parts)}
    assert len({(part.epoch, part.seq, part.nonce, part.scan) for part in parts}) == 1
    assert all(len(sent.payload) <= MESSAGE_BYTES_MAX for sent in rig.published)
    items = [item for part in parts for item in part.items]
    assert sorted(item.key[1] for item in items) == sorted(f"setting#s{n}" for n in range(len(sizes)))
    for item in items:
        size = sizes[int(item.key[1][9:])]
        assert bool(item.oversize) is (bytes(item.image) == b"")
        assert item.oversize == 0 or size > ITEM_BYTES_MAX - 300


def test_a_worker_killed_anywhere_leaves_the_next_hello_an_answer() -> None:
    def build() -> Any:
        rig = rig_with(0)
        rig.execute(Put(stored(setting(1))))
        return rig, lambda: rig.message(hello("f" * 32, EPOCH, {"device": FeedState("nonce")}))

    for _, rig in killed_at_every_step(build):
        last = decode_to_device(rig.published[-1].payload)
        assert isinstance(last, Snapshot)
        assert [item.key for item in last.items] == [setting(1)[0]]
        assert (last.epoch, last.seq) == rig.tail()


# A device that follows its feeds


class Follower:
    """The receiving rules in their shortest form: a cursor and a base for one feed."""

    def __init__(self, feed: FeedName) -> None:
        self.feed = feed
        self.base: dict[Key, Image] = {}
        self.cursor: tuple[str, int] | None = None
        self.nonce = "nonce"
        self.parts: dict[int, Snapshot] = {}

    def state(self) -> FeedState:
        epoch, seq = self.cursor or (None, 0)
        return FeedState(self.nonce, epoch, seq)

    def receive(self, message: ToDevice) -> None:
        if isinstance(message, Rows) and message.feed == self.feed:
            self.rows(message)
        elif isinstance(message, Snapshot) and message.feed == self.feed:
            self.part(message)

    def rows(self, message: Rows) -> None:
        cursor = self.cursor
        if cursor is None or cursor[0] != message.epoch or not message.a <= cursor[1] < message.b:
            return
        for row in message.rows:
            self.put(row.key, bytes(row.image))
        self.cursor = (message.epoch, message.b)

    def put(self, key: Key, raw: bytes) -> None:
        if raw:
            self.base[key] = decode_image(raw)
        else:
            self.base.pop(key, None)

    def part(self, message: Snapshot) -> None:
        cursor = self.cursor
        if message.nonce != self.nonce or (cursor and cursor[0] == message.epoch and message.seq < cursor[1]):
            return
        if self.parts and next(iter(self.parts.values())).scan != message.scan:
            self.parts = {}
        self.parts[message.part] = message
        if len(self.parts) == message.parts:
            self.base = {item.key: decode_image(item.image) for part in self.parts.values() for item in part.items}
            self.cursor = (message.epoch, message.seq)
            self.parts = {}
            self.nonce += "+"


def wanted(rig: Rig, feed: FeedName) -> dict[Key, Image]:
    models = ("config#", "command#", "setting#") if feed == "device" else ("notice#",)
    owner = "device#home-1" if feed == "device" else "account#main"
    return {
        (item["pk"], item["sk"]): {name: item[name] for name in item if name not in ("pk", "sk", "_op")}
        for item in rig.table.scan()
        if item["pk"] == owner and item["sk"].startswith(models)
    }


def follow(rig: Rig, follower: Follower, seen: int) -> int:
    for sent in rig.published[seen:]:
        follower.receive(decode_to_device(sent.payload))
    return len(rig.published)


CHANGES = [Put(stored(setting(10, "s0"))), Put(stored(setting(10, "new"))), Delete(setting(0, "s1")[0])]


@pytest.mark.parametrize("change", CHANGES)
def test_a_snapshot_with_what_follows_it_is_whole_in_every_order(change: Put | Delete) -> None:
    """A change with its sequencer, before, after and between the steps of a snapshot: the device ends with all."""

    def changes(rig: Rig) -> Any:
        yield change
        for record in rig.records():
            yield from rig.relay.on_record(record)

    def build() -> tuple[Rig, list[Task]]:
        rig = rig_with(2)
        asking = Task(rig, rig.message(ask()))
        asking.step()  # HEAD
        asking.step()  # the ack
        return rig, [asking, Task(rig, changes(rig))]

    count = 0
    for rig in every_interleaving(build):
        count += 1
        follower = Follower("device")
        start = next(i for i, sent in enumerate(rig.published) if b'"t":"snapshot"' in sent.payload)
        early = rig.published[:start]
        follower.receive(decode_to_device(rig.published[start].payload))
        for sent in [*early, *rig.published[start + 1 :]]:  # pushes that came before wait for the snapshot
            follower.receive(decode_to_device(sent.payload))
        assert follower.base == wanted(rig, "device")
    assert count > 100


STEP = st.one_of(
    st.tuples(st.just("put"), st.integers(0, 3)),
    st.tuples(st.just("delete"), st.integers(0, 3)),
    st.tuples(st.just("up"), st.integers(0, 3)),
    st.tuples(st.just("hello"), st.booleans()),
    st.tuples(st.just("hear"), st.booleans()),
    st.tuples(st.just("wait"), st.sampled_from([1_000, R_MS // 3, R_MS // 2 + 5_000, R_MS])),
    st.tuples(st.just("sweep"), st.integers(1, 5)),
    st.tuples(st.just("work"), st.integers(1, 12)),
)


@given(steps=st.lists(STEP, max_size=50), feed=st.sampled_from(["device", "account"]), seed=st.integers(0, 2**32))
def test_a_follower_gets_there_whatever_is_lost(steps: Sequence[tuple[str, Any]], feed: FeedName, seed: int) -> None:
    rng = random.Random(seed)
    rig = Rig(RelayConfig(catchup_rows=3, snapshot_page=1, snapshot_part_bytes=700))
    rig.send(hello())
    follower = Follower(feed)
    tasks: list[Task] = []
    heard, rev, u = 0, 0, 0

    def item_of(n: int) -> tuple[Key, Image]:
        return setting(rev, f"s{n}", updated_ms=rig.now_ms + rev) if feed == "device" else notice(rev, f"s{n}")

    def work(count: int) -> None:
        for _ in range(count):
            tasks.extend(Task(rig, rig.relay.on_record(record)) for record in rig.records())
            if tasks:
                task = rng.choice(tasks)
                task.step()
                if task.done:
                    tasks.remove(task)

    for step, argument in steps:
        if step == "put":
            rev += 1
            rig.execute(Put(stored(item_of(argument))))
        elif step == "delete":
            rig.execute(Delete(item_of(argument)[0]))
        elif step == "up" and rig.head()["up"] == u:
            rev, u = rev + 1, u + 1
            rig.send(up(op(u, "create", setting(rev, f"s{argument}", updated_ms=rig.now_ms + rev))))
        elif step == "hello":
            tasks.append(Task(rig, rig.message(hello(feeds={feed: follower.state()}))))
        elif step == "hear":
            lost, heard = rig.published[heard:], len(rig.published)
            for sent in rng.sample(lost, len(lost)) if argument else []:
                if rng.random() < 0.7:
                    follower.receive(decode_to_device(sent.payload))
        elif step == "wait":
            # Time passes only when nobody is at work: a worker lives shorter than the margin.
            while tasks or rig.position < rig.table.stream.latest(0):
                work(1)
            rig.now_ms += argument
        elif step == "sweep":
            rig.table.sweep(rig.now_ms, argument, lambda n: rng.randrange(n))
        else:
            work(argument)
    while tasks or rig.position < rig.table.stream.latest(0):
        work(1)
    for _ in range(200):
        before = len(rig.published)
        rig.send(hello(feeds={feed: follower.state()}))
        sent_now = rig.published[before:]
        follow(rig, follower, before)
        if len(sent_now) == 1:  # an ack alone: at the tail
            break
        rig.now_ms += 600  # hellos are rate-limited
    else:
        raise AssertionError("no end")
    assert follower.base == wanted(rig, feed)
    assert follower.cursor == rig.tail(feed, "home-1" if feed == "device" else "main")


# What is refused


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (b"", "malformed"),
        (b"{", "malformed"),
        (b"\xff\xfe", "malformed"),
        (b"{}" + b" " * MESSAGE_BYTES_MAX, "oversize"),
        (b'{"t":"up","v":2}', "version"),
        (b'{"t":"gossip","v":1}', "unknown"),
        (b'{"t":"ack","v":1,"epoch":"e","up":1,"now":1}', "malformed"),
        (encode(up(op(1, "create", status(1)), op(3, "create", status(3)))), "malformed"),
        (encode(up(op(0, "create", status(1)))), "malformed"),
        (encode(up(*(op(u, "create", status(1)) for u in range(1, 100)))), "malformed"),
        (encode(up(op(1, "create", status(1), name="x" * 200))), "malformed"),
        (encode(hello("")), "malformed"),
        (encode(hello(feeds={"device": FeedState("n" * 200)})), "malformed"),
    ],
)
def test_what_cannot_be_understood_is_counted_and_changes_nothing(payload: bytes, code: str) -> None:
    rig = Rig()
    assert rig.run(rig.relay.on_message("home-1", payload)) == []
    assert rig.counters == {f"message_refused_{code}": 1}
    assert rig.table.count() == 0


@pytest.mark.parametrize("device", ["nobody", "", "a/b", "all", "home-1#x"])
def test_a_device_that_is_not_known_is_refused(device: str) -> None:
    rig = Rig()
    rig.relay.account_of = {"a/b": "main", "all": "main", "home-1#x": "main"}.get
    assert rig.send(hello(), device) == []
    assert rig.counters == {"message_refused_device": 1}


@given(payload=st.binary(max_size=200))
def test_no_bytes_break_the_relay(payload: bytes) -> None:
    rig = Rig()
    rig.run(rig.relay.on_message("home-1", payload))
    assert rig.table.count() == 0


def test_hellos_beyond_the_rate_are_refused_for_a_while() -> None:
    rig = Rig(RelayConfig(hello_per_window=2))
    rig.now_ms += 20_000
    answers = [rig.send(hello()) for _ in range(4)]
    assert [len(sent) for sent in answers] == [1, 1, 1, 0], "the device is told once"
    assert answers[2] == [Wait(hn="hn", retry_after=RelayConfig().hello_window_ms, reason=RATE)]
    assert len(rig.send(hello("f" * 32), "home-2")) == 1
    assert rig.counters["message_refused_rate"] == 2
    rig.now_ms += RelayConfig().hello_window_ms
    assert len(rig.send(hello())) == 1


def test_a_message_for_one_device_reaches_no_other() -> None:
    rig = Rig()
    rig.send(hello("a" * 32), "home-1")
    rig.send(hello("b" * 32), "home-2")
    rig.execute(Put(stored(setting(1))))
    rig.sequence()
    rig.send(hello("b" * 32, feeds={"device": FeedState("nonce")}), "home-2")
    mine = [sent for sent in rig.published if sent.topic == "ioto/device/home-2/sync"]
    assert not any(b"home-1" in sent.payload for sent in mine)
    assert {sent.topic for sent in rig.published} == {"ioto/device/home-1/sync", "ioto/device/home-2/sync"}


def test_the_numbers_must_agree_with_each_other() -> None:
    for wrong in (
        {"retention_ms": 24 * 3_600_000},
        {"expiry_margin_ms": 60_000},
        {"expiry_margin_ms": R_MS // 2},
        {"catchup_bytes": MESSAGE_BYTES_MAX},
        {"snapshot_page": 0},
    ):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            RelayConfig(**wrong)  # type: ignore[arg-type]


def test_a_work_asks_the_table_in_the_order_of_the_rule() -> None:
    """The feed's position, HEAD, then the items."""
    rig = rig_with(1)
    asked = []
    work = rig.message(ask())
    request = next(work)
    while True:
        if isinstance(request, Query):
            asked.append("tail" if request.reverse else "items")
        elif not isinstance(request, Publish):
            asked.append("head")
        try:
            request = work.send(None if isinstance(request, Publish) else rig.execute(request))
        except StopIteration:
            break
    assert asked[:3] == ["head", "tail", "head"]
    assert set(asked[3:]) == {"items"}
    assert log_position(rig.log()[-1])[1] == 1
