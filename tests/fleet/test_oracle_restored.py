"""What the oracle excuses once the table was put back or a device copied, and what it still holds against a run."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from msgspec import Raw
from oracle_history import EPOCH, FEED_EPOCH, History, config, notice, order, public, setting, status
from run_rig import BUSY, busy_plan, ran

from agent.protocol.messages import FeedState, Hello, Row, Rows, Snapshot, SnapshotItem, encode, encode_image
from fleet.oracle import CheckResult
from fleet.oracle.checks.identity import EPOCHS_MAX
from fleet.oracle.stored import HEAD

D = "home-1"
NEW = "f" * 32
BOTH = BUSY.replace(
    "faults:\n",
    """faults:
  - {name: early, kind: table-restore, at: 5m, back: 2m}
  - {name: empty, kind: table-restore, at: 8m, back: 1h}
  - {kind: clone, at: 3m, duration: 8m, target: {group: home, share: 50%}}
""",
).replace("converge_within: 20m", "converge_within: 80m")


def lived() -> tuple[History, list[dict[str, Any]]]:
    """One device that wrote twice and was written to twice; the table as it was after the first time."""
    h = History()
    for device in h.devices:
        h.head(device, 0)
        h.snapshot(device, [])
    copy: list[dict[str, Any]] = []
    for kind in ("create", "update"):
        h.write(D, status(D), kind)
        h.sync_up(D)
        h.cloud(config(D))
        h.push(D, config(D))
        copy = copy or copied(h)
    return h, copy


def copied(h: History) -> list[dict[str, Any]]:
    heads = [{"pk": HEAD + name, "sk": "head", **head} for name, head in h.heads.items()]
    return [dict(item) for item in h.table.values()] + [dict(head) for head in heads]


def put_back(h: History, items: Iterable[dict[str, Any]]) -> None:
    held = list(items)
    h.oracle.table_restored(h.tick(), held)
    h.table = {(item["pk"], item["sk"]): item for item in held if not item["pk"].startswith("_fleet#")}


def end(h: History) -> dict[str, CheckResult]:
    h.oracle.healed(h.tick())
    h.oracle.writes_stopped(h.tick())
    return h.finish()


def failing(results: dict[str, CheckResult]) -> list[str]:
    return [name for name, result in results.items() if result.status == "fail"]


def test_a_device_that_keeps_what_the_table_no_longer_has_has_not_converged() -> None:
    h, copy = lived()
    assert failing(end(h)) == []
    h, copy = lived()
    put_back(h, copy)
    results = end(h)
    assert failing(results) == ["convergence"]
    assert "status#" in results["convergence"].detail and "config#" in results["convergence"].detail


def test_a_device_that_takes_the_old_state_and_brings_back_its_own_passes() -> None:
    h, copy = lived()
    own = dict(h.table[status(D)])
    put_back(h, copy)
    h.oracle.device_saw(h.tick(), D, config(D), h.table[config(D)]["rev"], public(h.table[config(D)]))
    h.visible[D][config(D)] = public(h.table[config(D)])
    h.visible[D][status(D)] = public(own)
    h.table[status(D)] = own
    results = end(h)
    assert failing(results) == ["no-acked-write-lost"], "nobody was seen to put it there again"
    assert results["convergence"].status == "pass"


def test_a_table_that_is_not_what_was_put_back_is_noticed() -> None:
    h, copy = lived()
    put_back(h, copy)
    del h.table[config(D)]
    assert "no-acked-write-lost" in failing(end(h))


def test_acks_from_before_a_restore_may_still_come_and_those_of_what_never_was_may_not() -> None:
    h, copy = lived()
    put_back(h, copy)
    h.ack(D, 2)
    assert "no-acked-write-lost" not in failing(h.results())
    h.ack(D, 3)
    assert "no-acked-write-lost" in failing(h.results())


def numbered_again() -> History:
    """Rows 3 to 5 of the feed were logged and are on their way; a table put back ends at row 2, and a relay that does
    not know goes on from there: row 3 has another item now."""
    h, copy = lived()
    for name in "abb":
        h.cloud(order(D, name))
        h.log(order(D, name))
    put_back(h, [*copy, {"pk": f"_fleet#log#device#{D}", "sk": f"{FEED_EPOCH}#{2:012d}"}])
    h.cloud(setting(D))
    h.log(setting(D), seq=3)
    return h


def delivered(h: History, a: int, b: int, *names: str) -> None:
    rows = [Row(order(D, name)) for name in names]
    message = Rows(feed="device", epoch=FEED_EPOCH, a=a, b=b, last=b, rows=rows)
    h.oracle.wire_down(h.tick(), D, encode(message))


@pytest.mark.parametrize(
    ("a", "b", "names", "fails"),
    [
        pytest.param(2, 5, "ab", False, id="as it was"),
        pytest.param(1, 4, "a", False, id="an earlier one, its last row has come again"),
        pytest.param(2, 5, "a", True, id="without what it held then"),
        pytest.param(1, 5, "b", True, id="without what lay where another item is now"),
        pytest.param(2, 6, "ab", True, id="beyond where the log ended then"),
    ],
)
def test_a_message_from_before_a_restore_holds_the_rows_as_they_were(a: int, b: int, names: str, fails: bool) -> None:
    h = numbered_again()
    delivered(h, a, b, *names)
    result = h.results()["no-gap"]
    assert (result.status == "fail") is fails
    assert ("1 items whose rows" in result.detail) is not fails


@pytest.mark.parametrize("at", [1, 3])
def test_an_item_whose_number_is_new_after_a_restore_is_not_left_out(at: int) -> None:
    """`at`: where a second copy ends, before or after the row that a first restore has numbered again."""
    h = numbered_again()
    put_back(h, [{"pk": f"_fleet#log#device#{D}", "sk": f"{FEED_EPOCH}#{at:012d}"}])
    for seq in range(at + 1, 7):
        key = order(D, str(seq))
        h.cloud(key)
        h.log(key, seq=seq)
    delivered(h, 1, 5, "a", "b")
    assert "no-gap" not in failing(h.results()), "from before the first restore"
    delivered(h, at, 6, *map(str, range(at + 1, 6)))
    assert "no-gap" in failing(h.results())


LATER_FEED = "1700000000001" + "0" * 16


def asks(h: History, epoch: str, seq: int) -> None:
    """The device has a new epoch since, as HEAD was put back too, and keeps its place in the account's feed."""
    feeds: Any = {"account": FeedState("n1", epoch, seq)}
    h.oracle.wire_up(h.tick(), D, encode(Hello(epoch=NEW, hn="hn", n=1, schema="0.0.1", feeds=feeds)))


def undone(held: bool) -> tuple[History, dict[str, Any], dict[str, Any] | None]:
    """An item's last state is in a row that the device has not got yet, and not in the table that was put back, which
    has the one before or (`held` False) no item: just what the device has. Returns both."""
    h = History()
    key = notice("main")
    for device in h.devices:
        h.head(device, 0)
        h.snapshot(device, [], feed="account")
    if held:
        h.cloud(key)
        h.push(D, key)
    before = dict(h.table[key]) if held else None
    copy = copied(h)
    h.cloud(key)
    h.log(key)
    last = dict(h.table[key])
    put_back(h, copy)
    return h, last, before


def is_told(h: History, last: dict[str, Any]) -> None:
    seq = h.seqs["account#main"]
    rows = [Row(notice("main"), Raw(encode_image(public(last))))]
    message = Rows(feed="account", epoch=FEED_EPOCH, a=seq - 1, b=seq, last=seq, rows=rows)
    h.oracle.wire_down(h.tick(), D, encode(message))
    h.see(D, notice("main"), last)


def is_given_the_table(h: History) -> None:
    items = [SnapshotItem(key, Raw(encode_image(public(item)))) for key, item in h.table.items()]
    message = Snapshot(feed="account", nonce="n1", epoch=LATER_FEED, seq=1, part=0, parts=1, items=items)
    h.oracle.wire_down(h.tick(), D, encode(message))


@pytest.mark.parametrize("held", [False, True])
def test_a_row_from_before_a_restore_may_come_while_the_device_stands_before_it(held: bool) -> None:
    h, last, before = undone(held)
    asks(h, FEED_EPOCH, h.seqs["account#main"] - 1)
    is_told(h, last)
    is_given_the_table(h)
    h.see(D, notice("main"), before)
    asks(h, LATER_FEED, 1)
    assert not failing(h.results())


@pytest.mark.parametrize("held", [False, True])
@pytest.mark.parametrize("place", ["behind it", "in a later log"])
def test_a_row_from_before_a_restore_may_not_come_where_the_device_stands_behind_it(held: bool, place: str) -> None:
    h, last, _ = undone(held)
    seq = h.seqs["account#main"]
    if place == "behind it":
        h.rows(D, notice("main"))
        asks(h, FEED_EPOCH, seq)
    else:
        is_given_the_table(h)
        asks(h, LATER_FEED, 1)
    is_told(h, last)
    assert failing(h.results()) == ["monotone-reads" if held else "no-resurrection"]


def adopted(h: History) -> None:
    """The device, which goes on with a new epoch: HEAD of the old one ends where the copy has it."""
    h.private((HEAD + D, "head"), {"epoch": NEW, "up": 0, "verdicts": {}}, {"epoch": EPOCH})


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize(("device", "up", "fails"), [(D, 2, False), (D, 3, True), ("home-2", 2, True)])
def test_they_may_come_when_the_epoch_has_ended_too(times: int, device: str, up: int, fails: bool) -> None:
    h, copy = lived()
    for _ in range(times):
        put_back(h, copy)
    adopted(h)
    h.ack(device, up)
    assert ("no-acked-write-lost" in failing(h.results())) is fails


def test_acks_of_an_epoch_that_has_ended_say_no_more_than_it_had_where_no_table_was_put_back() -> None:
    for up in (2, 3):
        h, _ = lived()
        adopted(h)
        h.ack(D, up)
        assert ("no-acked-write-lost" in failing(h.results())) is (up == 3)


def test_a_new_epoch_after_a_restore_has_its_cause_and_one_without_has_none() -> None:
    for restored in (True, False):
        h, copy = lived()
        if restored:
            put_back(h, copy)
        adopted(h)
        assert ("no-epoch-change" in failing(h.results())) is not restored


def test_epochs_without_end_are_held_against_a_run_also_where_a_device_was_copied() -> None:
    h, _ = lived()
    h.oracle.device_cloned(D)
    changes(h, EPOCHS_MAX)
    assert "no-epoch-change" not in failing(h.results())
    changes(h, 1)
    result = h.results()["no-epoch-change"]
    assert result.status == "fail" and f"at most {EPOCHS_MAX} changes" in result.detail


def changes(h: History, count: int) -> None:
    """HEAD takes one epoch after another."""
    for _ in range(count):
        h.private((HEAD + D, "head"), {"epoch": f"{h.next_rev():032d}", "up": 0, "verdicts": {}}, {"epoch": "before"})


@pytest.mark.parametrize(
    ("device", "before", "after", "fails"),
    [
        (D, EPOCHS_MAX, EPOCHS_MAX, False),
        (D, EPOCHS_MAX, EPOCHS_MAX + 1, True),
        (D, EPOCHS_MAX + 1, 0, True),
        ("home-2", EPOCHS_MAX, 1, True),
    ],
)
def test_epochs_are_counted_anew_once_a_person_has_released_the_device(
    device: str, before: int, after: int, fails: bool
) -> None:
    h, _ = lived()
    h.oracle.device_cloned(D)
    changes(h, before)
    h.oracle.device_released(device)
    changes(h, after)
    result = h.results()["no-epoch-change"]
    assert (result.status == "fail") is fails and "1 releases from quarantine" in result.detail


def test_what_a_copy_sends_is_not_invented_and_what_nobody_sends_is() -> None:
    for cloned in (True, False):
        h, _ = lived()
        if cloned:
            h.oracle.device_cloned(D)
        rev = h.table[status(D)]["rev"]
        h.commit(status(D), {**h.table[status(D)], "rev": rev, "_op": [D, NEW, 1, "another boot"]})
        assert bool(failing(h.results())) is not cloned


@pytest.mark.parametrize("seed", [3, 5, 8])
def test_a_restore_and_a_copy_at_once_in_a_busy_world(tmp_path: Path, seed: int) -> None:
    world = ran(busy_plan(tmp_path, seed, BOTH))
    assert [check for check in world.checks if check.status == "fail"] == []
    assert world.probes["table_restored"] == 2 and world.probes["incarnation_entered"] > 0
