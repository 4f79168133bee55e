"""The relay's half of digests: what it compares and what it leaves alone, what it costs, what a device cannot do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from relay_rig import (
    EPOCH,
    NOW_MS,
    SCHEMA,
    MeteredRig,
    Rig,
    Task,
    config,
    fault,
    hello,
    notice,
    op,
    schema_with,
    setting,
    status,
    stored,
    up,
)

from agent.protocol.digest import Tallies, delta, fingerprint, shown
from agent.protocol.messages import (
    APART_MAX,
    Claim,
    Compared,
    Digest,
    Key,
    Op,
    Wait,
    decode_to_device,
    encode,
    encode_image,
)
from agent.protocol.schema import Context
from cloud.config import RelayConfig
from cloud.head import head_key
from cloud.metered import MeteredTable
from cloud.quarantine import HALTED
from cloud.table import Delete, Put, Update

HOME = Context("home-1", "main")
SYNCED = ("Command", "Config", "Fault", "Notice", "Setting", "Status")
CUT_S = NOW_MS // 1000 + 60
MINE = [fault(1, "a"), fault(2, "b"), setting(3), config(4), notice(5, "n")]
SETTLED_MS = RelayConfig().settled_ms


def filled(rig: Rig) -> Rig:
    """HEAD at 3 operations, an item of each way, all rows in their feeds."""
    rig.send(hello())
    rig.ack(up(op(1, "create", MINE[0]), op(2, "create", MINE[1]), op(3, "create", MINE[2])))
    for written in MINE[3:]:
        rig.execute(Put(stored(written)))
    rig.sequence()
    return rig


def question(rig: Rig, holds: list[tuple[Key, dict[str, Any]]] = MINE, **other: Any) -> Digest:
    """Of a device that holds these items, at the tail of its feeds."""
    tallies = Tallies(SCHEMA, HOME, SYNCED, CUT_S, ())
    for key, image in holds:
        model = tallies.model_of(key, frozenset(SYNCED))
        assert model is not None
        tallies.add(model, key, encode_image(image))
    fields: dict[str, Any] = {
        "epoch": EPOCH,
        "hn": "hn",
        "n": 7,
        "up": 3,
        "upid": "boot",
        "schema": fingerprint(SCHEMA),
        "cut_s": CUT_S,
        "cursors": {"device": rig.tail(), "account": rig.tail("account", "main")},
        "models": {name: Claim(shown(tallies.sums[name]), tallies.counts[name]) for name in SYNCED},
    }
    return Digest(**{**fields, **other})


def compared(rig: Rig, message: Digest) -> Compared:
    (answer,) = rig.send(message)
    assert isinstance(answer, Compared) and (answer.hn, answer.n) == (message.hn, message.n)
    return answer


def test_a_device_that_holds_what_the_table_has_is_told_so() -> None:
    rig = filled(Rig())
    answer = compared(rig, question(rig))
    assert (answer.differs, answer.heal, answer.skipped) == ({}, [], [])
    assert answer.after_ms == SETTLED_MS
    assert rig.counters["digest_compared"] == len(SYNCED) and not rig.counters["digest_mismatch"]


@pytest.mark.parametrize(
    ("wrong", "model"),
    [(fault(9, "b"), "Fault"), (setting(9), "Setting"), (config(9), "Config"), (notice(9, "n"), "Notice")],
)
def test_a_difference_is_told_and_is_to_stay_when_it_was_the_same_long_ago(wrong: Any, model: str) -> None:
    rig = filled(Rig())
    told: list[dict[str, str]] = []
    rig.relay.digests.tell = lambda event, /, **fields: told.append({"event": event, **fields})
    holds = [wrong if entry[0] == wrong[0] else entry for entry in MINE]
    first = compared(rig, question(rig, holds))
    assert list(first.differs) == [model] and first.heal == [] and not told

    def again(of: str, age_ms: int) -> Compared:
        message = question(rig, holds)
        claim = message.models[model]
        return compared(rig, question(rig, holds, models={model: Claim(claim.sum, claim.count, of, age_ms)}))

    delta = first.differs[model]
    assert again(delta, SETTLED_MS - 1).heal == []
    rig.now_ms += 60_000
    late = question(rig).cut_s + 3600
    message = question(rig, holds, cut_s=late)
    claims = {model: Claim(message.models[model].sum, 1, "0" * 16, SETTLED_MS)}
    assert compared(rig, question(rig, holds, cut_s=late, models=claims)).heal == []  # it was another one then
    claims = {model: Claim(message.models[model].sum, 1, delta, SETTLED_MS)}
    assert compared(rig, question(rig, holds, cut_s=late, models=claims)).heal == [model]
    assert rig.counters["digest_mismatch"] == 1
    assert told == [{"event": "digest-mismatch", "device": "home-1", "models": f"{model}:{delta}"}]


def test_an_item_that_either_side_lacks_is_a_difference() -> None:
    rig = filled(Rig())
    assert list(compared(rig, question(rig, MINE[1:])).differs) == ["Fault"]
    assert list(compared(rig, question(rig, [*MINE, fault(6, "c")])).differs) == ["Fault"]


# What is not comparable


@pytest.mark.parametrize(
    "other",
    [
        {"epoch": "f" * 32},
        {"up": 2},
        {"up": 4},
        {"upid": "another"},
        {"inc": "restored"},
        {"schema": "0" * 16},
        {"cut_s": NOW_MS // 1000},
    ],
)
def test_a_device_that_is_not_where_head_is_is_not_compared(other: dict[str, Any]) -> None:
    rig = filled(Rig())
    answer = compared(rig, question(rig, [], **other))
    assert sorted(answer.skipped) == sorted(SYNCED) and not answer.differs
    assert rig.counters["digest_skipped"] == len(SYNCED)


def test_a_feed_that_the_device_has_not_followed_to_its_end_is_left_out_alone() -> None:
    rig = filled(Rig())
    before = question(rig, [])
    rig.execute(Put(stored(notice(6, "m"))))
    rig.sequence()
    answer = compared(rig, question(rig, [], cursors=before.cursors))
    assert answer.skipped == ["Notice"] and sorted(answer.differs) == ["Config", "Fault", "Setting"]
    answer = compared(rig, question(rig, [], cursors={"device": before.cursors["device"]}))
    assert answer.skipped == ["Notice"]


def _writes(rig: Rig) -> None:
    rig.execute(Put(stored(notice(6, "m"))))
    rig.sequence()


def _sends(rig: Rig) -> None:
    rig.ack(up(op(4, "update", setting(9))))


@pytest.mark.parametrize("change", [_writes, _sends])
def test_what_changes_while_the_items_are_read_is_left_out(change: Callable[[Rig], None]) -> None:
    """At every step of the comparison: it tells what was so before, or nothing."""
    before = compared(filled(Rig()), question(filled(Rig()), [])).differs
    left_out = steps = 0
    while True:
        rig = filled(Rig())
        task = Task(rig, rig.message(question(rig, [])))
        while not task.done and task.steps < steps:
            task.step()
        if task.done:
            break
        change(rig)
        rig.published.clear()
        task.finish()
        (message,) = [decode_to_device(sent.payload) for sent in rig.published]
        assert isinstance(message, Compared)
        assert all(message.differs[name] == before[name] for name in message.differs)
        left_out += bool(message.skipped)
        steps += 1
    assert 8 < left_out < steps


def test_models_that_either_side_does_not_know_are_skipped() -> None:
    rig = filled(Rig())
    models = {**question(rig).models, "Later": Claim("0" * 16, 0), "Diagnostic": Claim("0" * 16, 0)}
    assert sorted(compared(rig, question(rig, models=models)).skipped) == ["Diagnostic", "Later"]
    few = {"Fault": question(rig).models["Fault"]}
    assert compared(rig, question(rig, models=few)).skipped == []


def test_an_item_too_large_to_be_sent_leaves_its_model_out_unless_the_device_sets_it_apart() -> None:
    rig = filled(Rig())
    key, image = config(4, text="x" * 120_000)
    rig.execute(Put(stored((key, image))))
    rig.sequence()
    answer = compared(rig, question(rig))
    assert answer.skipped == ["Config"] and answer.differs == {} and rig.counters["digest_oversize"] == 1
    without = [entry for entry in MINE if entry[0] != key]
    assert compared(rig, question(rig, without, apart=[key])).skipped == []


def test_of_an_up_model_only_what_the_present_epoch_of_the_device_wrote_counts() -> None:
    rig = filled(Rig())
    rig.execute(Put(stored(fault(7, "orphan"), ["home-1", "old", 1, "x"])))
    rig.execute(Put(stored(fault(8, "marked"), ["home-1", EPOCH, 1, "x"]) | {"_orphan": True}))
    rig.execute(Put(stored(fault(9, "by-hand"))))
    assert compared(rig, question(rig)).differs == {}
    rig.execute(Put(stored(fault(10, "back-again"), ["home-1", EPOCH, 1, "x"])))
    assert list(compared(rig, question(rig)).differs) == ["Fault"]


def test_items_of_others_and_expired_ones_do_not_count() -> None:
    rig = filled(Rig())
    rig.execute(Put(stored(fault(9, "x", device="home-2"), ["home-2", EPOCH, 1, "x"])))
    rig.execute(Put(stored(notice(9, "x", "other"))))
    assert compared(rig, question(rig)).differs == {}


def test_a_device_in_quarantine_is_told_to_wait() -> None:
    rig = filled(Rig())
    rig.execute(Update(head_key("home-1"), {HALTED: 1}))
    (answer,) = rig.send(question(rig))
    assert isinstance(answer, Wait) and answer.reason == "quarantine"


def test_a_device_that_head_does_not_know_is_not_compared() -> None:
    rig = filled(Rig())
    rig.execute(Delete(head_key("home-1")))
    assert len(compared(rig, question(rig)).skipped) == len(SYNCED)


# Restating


def _sweep(u: int, model: str, first_u: int) -> Op:
    return Op(u, "sweep", "boot", ("", model), first_u)


def test_a_sweep_that_ends_a_restatement_marks_what_was_not_restated() -> None:
    rig = filled(Rig())
    rig.execute(Put(stored(fault(7, "back"), ["home-1", EPOCH, 1, "x"])))
    again = [op(4, "update", MINE[0]), op(5, "update", MINE[1])]
    rig.ack(up(*again, _sweep(6, "Fault", 4)))
    orphans = [item["sk"] for item in rig.table.scan() if "_orphan" in item]
    assert orphans == ["fault#back"]
    assert compared(rig, question(rig, up=6)).differs == {}


def test_a_sweep_of_one_model_leaves_the_others_and_later_writes_alone() -> None:
    rig = filled(Rig())
    rig.ack(up(op(4, "create", status(4)), op(5, "update", fault(9, "a")), _sweep(6, "Fault", 5)))
    assert [item["sk"] for item in rig.table.scan() if "_orphan" in item] == ["fault#b"]


def test_a_sweep_removes_where_the_model_says_so_and_a_plain_one_touches_nothing_of_this_epoch() -> None:
    rig = filled(Rig(schema=schema_with("Fault", "orphans: 'remove'")))
    rig.ack(up(op(4, "sweep")))
    assert rig.item(MINE[0][0]) is not None
    rig.ack(up(_sweep(5, "Fault", 5)))
    assert rig.item(MINE[0][0]) is None and rig.item(MINE[2][0]) is not None


# What it costs, and hostile devices


def test_a_comparison_costs_the_reading_of_what_is_compared_and_writes_nothing() -> None:
    """HEAD and the tail of each feed twice; the items of each range, 4 KB a unit."""
    rig = MeteredRig()
    filled(rig)
    table: MeteredTable = rig.metered
    reads, writes = table.read_units.total(), table.write_units.total()
    compared(rig, question(rig))
    ranges = 6
    assert (table.read_units.total() - reads, table.write_units.total() - writes) == (2 * (1 + 2) + ranges, 0)
    reads = table.read_units.total()
    compared(rig, question(rig, up=1))
    assert table.read_units.total() - reads == 1


@pytest.mark.parametrize(
    "other",
    [
        {"epoch": ""},
        {"epoch": "e" * 200},
        {"hn": "h" * 200},
        {"inc": "i" * 200},
        {"up": -1},
        {"cut_s": -1},
        {"models": {"Fault": Claim("xyz", 0)}},
        {"models": {"Fault": Claim("0" * 16, 0, "1")}},
        {"models": {"Fault": Claim("0" * 16, 0, "", -1)}},
        {"apart": [("p", "s")] * (APART_MAX + 1)},
    ],
)
def test_what_is_out_of_range_is_refused_unread(other: dict[str, Any]) -> None:
    rig = filled(Rig())
    assert rig.send(question(rig, **other)) == []
    assert rig.counters["message_refused_malformed"] == 1


def test_a_message_that_is_too_large_is_refused() -> None:
    rig = filled(Rig())
    many = {f"Model{n}": Claim("0" * 16, 0) for n in range(4_000)}
    assert rig.run(rig.relay.on_message("home-1", encode(question(rig, models=many)))) == []
    assert rig.counters["message_refused_oversize"] == 1


def test_another_devices_digest_says_nothing_of_this_one() -> None:
    """Sent under another name it meets another HEAD and other items."""
    rig = filled(Rig())
    rig.send(hello("f" * 32), "home-2")
    before = list(rig.table.scan(private=True))
    (answer,) = rig.send(question(rig), "home-2")
    assert isinstance(answer, Compared) and len(answer.skipped) == len(SYNCED)
    assert list(rig.table.scan(private=True)) == before


def test_a_digest_changes_nothing_however_often_it_comes() -> None:
    rig = filled(Rig())
    message = question(rig, [])
    before = list(rig.table.scan(private=True))
    answers = [compared(rig, message) for _ in range(3)]
    assert answers[0] == answers[1] == answers[2] and list(rig.table.scan(private=True)) == before


def test_a_device_that_asks_too_often_gets_no_answer_and_nothing_is_read() -> None:
    rig = filled(Rig(RelayConfig(digest_per_window=2)))
    assert [len(rig.send(question(rig))) for _ in range(4)] == [1, 1, 0, 0]
    assert rig.counters["message_refused_digest_rate"] == 2
    rig.now_ms += 61_000
    assert len(rig.send(question(rig))) == 1


def test_one_relay_compares_so_many_a_minute_for_all_devices_together() -> None:
    rig = filled(Rig(RelayConfig(digests_per_window=1)))
    assert [len(rig.send(question(rig), device)) for device in ("home-1", "home-2")] == [1, 0]


def test_a_digest_that_finds_no_room_is_told_to_wait() -> None:
    rig = filled(Rig())
    (answer,) = rig.run(rig.relay.on_overload("home-1", encode(question(rig))))
    assert isinstance(answer, Wait) and answer.reason == "overload"


def test_the_difference_is_the_tables_sum_less_the_devices() -> None:
    rig = filled(Rig())
    mine, table = question(rig, MINE[1:]), question(rig)
    expected = shown(delta(int(table.models["Fault"].sum, 16), mine.models["Fault"].sum))
    assert compared(rig, mine).differs == {"Fault": expected}
