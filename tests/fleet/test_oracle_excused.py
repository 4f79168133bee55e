"""Beside each exception: what a restore, a copy or a race excuses passes; the same thing just outside of it fails.

Outside is another device, another item, the time before it or after it. One history each, told by hand.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import pytest
from msgspec import Raw
from msgspec.structs import replace
from oracle_history import (
    EPOCH,
    FEED_EPOCH,
    History,
    command,
    config,
    fault,
    meter,
    notice,
    order,
    public,
    reading,
    result,
    setting,
    status,
)

from agent.protocol.messages import ITEM_BYTES_MAX, FeedState, Hello, Key, Op, encode, encode_image
from fleet.oracle import CheckResult, text_for
from fleet.oracle.checks.quiet import MESSAGES_MAX
from fleet.oracle.stored import HEAD

D: Final = "home-1"
OTHER: Final = "home-2"
NEW: Final = "f" * 32
LATER_FEED: Final = "1700000001000" + "0" * 16


def begun() -> History:
    """All devices are known to the cloud, have sent something, have heard of each feed, and know the time."""
    h = History()
    for device in h.devices:
        h.head(device, 0)
        for feed in ("device", "account"):
            h.snapshot(device, [], feed=feed)
        h.hello(device)
        h.ack(device, 0, n=1, upid=None)
        h.write(device, fault(device, "f0"), "create")
        h.sync_up(device)
    return h


def set_back(h: History, device: str) -> None:
    """The device's disk is put back to what it was a moment ago; its power stays on, as far as anybody is told."""
    held = [(key, image["rev"]) for key, image in h.visible[device].items()]
    h.oracle.device_restored(h.tick(), device, held)


def copied(h: History, device: str) -> None:
    h.oracle.device_cloned(device)


def put_back(h: History) -> None:
    """The table is put back to what it holds."""
    heads = [{**head, "pk": HEAD + name, "sk": "head"} for name, head in h.heads.items()]
    h.oracle.table_restored(h.tick(), [*h.table.values(), *heads])


def adopted(h: History, device: str) -> None:
    """The device begins a new epoch, and the relay takes it."""
    h.last_u[device] = 0
    h.private((HEAD + device, "head"), {"epoch": NEW, "up": 0, "verdicts": {}}, h.heads[device])


def end(h: History) -> dict[str, CheckResult]:
    h.oracle.healed(h.tick())
    h.oracle.writes_stopped(h.tick())
    return h.finish()


def told(h: History, check: str) -> str:
    return h.results()[check].status


# ---------------------------------------------------------------- period-kept


def early(h: History, device: str) -> None:
    """A change of a model with a period, sent at once."""
    h.write(device, meter(device), "update" if meter(device) in h.visible[device] else "create")
    h.sync_up(device)


@pytest.mark.parametrize("copies", [False, True])
def test_a_disk_that_was_put_back_or_copied_may_end_a_period_once(copies: bool) -> None:
    h = begun()
    (copied if copies else set_back)(h, D)
    early(h, D)
    result = h.results()["period-kept"]
    assert result.status == "pass" and result.detail.startswith("1 changes sent")
    early(h, D)  # the old disk held one change of the item, and that has gone
    assert told(h, "period-kept") == "fail"


@pytest.mark.parametrize("before", [True, False])
def test_no_period_ends_early_before_a_disk_is_put_back_nor_on_another_device(before: bool) -> None:
    h = begun()
    if not before:
        set_back(h, D)
    early(h, D if before else OTHER)
    assert told(h, "period-kept") == "fail"


@pytest.mark.parametrize(("device", "sweep", "fails"), [(D, False, False), (D, True, True), (OTHER, False, True)])
def test_a_write_that_comes_before_its_items_turn_in_a_new_epoch_goes_with_what_is_sent_anew(
    device: str, sweep: bool, fails: bool
) -> None:
    h = begun()
    adopted(h, device)
    image = Raw(encode_image(h.visible[device][fault(device, "f0")]))
    ops = [Op(1, "create", "id1", fault(device, "f0"), h.stamp(), image)]
    h.send(device, h.batch(device, ops, NEW))
    if sweep:
        h.send(device, h.batch(device, [Op(2, "sweep", "id2")], NEW))
    h.last_u[D] = 2
    h.write(D, meter(D), "create")
    h.send(D, h.batch(D, h.outbox[D], NEW if device == D else EPOCH))
    assert (told(h, "period-kept") == "fail") is fails


@pytest.mark.parametrize(("ended", "twice"), [(True, False), (True, True), (False, False)])
def test_what_takes_the_place_of_an_end_that_is_held_since_another_epoch_does_not_wait_anew(
    ended: bool, twice: bool
) -> None:
    h = begun()
    h.write(D, meter(D), "create")
    h.pass_s(100)
    h.sync_up(D)
    set_back(h, D)
    early(h, D)  # what the old disk held
    if ended:
        h.write(D, meter(D), "delete")
        h.outbox[D].pop()
    h.send(D, h.batch(D, [Op(1, "sweep", "id1")], NEW))
    for u in range(2, 3 + twice):
        h.write(D, meter(D), "create")
        h.send(D, h.batch(D, [replace(h.outbox[D][-1], u=u)], NEW))
    assert (told(h, "period-kept") == "fail") is (twice or not ended)


@pytest.mark.parametrize(
    ("case", "fails"),
    [("unheard", False), ("lost with its power", False), ("heard", True), ("twice", True), ("nothing", True)],
)
def test_a_write_that_joins_a_change_that_a_table_put_back_has_lost_does_not_wait_anew(case: str, fails: bool) -> None:
    h = begun()
    if case != "nothing":
        h.write(D, meter(D), "create")
        h.pass_s(100)
        h.send(D)
        h.ingest(D)
        del h.table[meter(D)]
        if case in ("heard", "lost with its power"):
            h.ack(D)
        if case == "lost with its power":
            h.boot(D)
            h.hello(D)
            h.ack(D, 0, n=1, upid=None)
        put_back(h)
    h.send(D, h.batch(D, [Op(1, "sweep", "id1")], NEW))
    for u in range(2, 3 + (case == "twice")):
        h.write(D, meter(D), "create")
        h.send(D, h.batch(D, [replace(h.outbox[D][-1], u=u)], NEW))
    assert (told(h, "period-kept") == "fail") is fails


# ---------------------------------------------------------------- sweeps-logged


def swept(h: History, name: str, *, race: bool = True) -> None:
    """An order is over, and the table takes it; then a new epoch of its feed begins."""
    h.cloud(order(D, name), life_s=5)
    h.push(D, order(D, name))
    h.pass_s(6)
    h.expire(D, order(D, name))
    h.sweep(order(D, name))
    if race:
        h.log(config(D), epoch=LATER_FEED, seq=1)


def stranded(h: History, name: str) -> None:
    h.log(order(D, name), seq=2, set={"expired": True})


def with_config() -> History:
    h = begun()
    h.cloud(config(D))
    return h


def test_a_sweep_may_be_logged_in_an_epoch_that_nobody_reads_when_a_snapshot_shows_it() -> None:
    h = with_config()
    swept(h, "o1")
    stranded(h, "o1")
    result = end(h)["sweeps-logged"]
    assert result.status != "fail" and result.detail.startswith("1 sweeps")


def _of_another_item(h: History) -> None:
    swept(h, "o1")
    swept(h, "o2", race=False)
    stranded(h, "o1")


def _after_the_living_epoch_began(h: History) -> None:
    h.cloud(order(D, "o1"), life_s=5)
    h.push(D, order(D, "o1"))
    h.pass_s(5)
    h.log(config(D), epoch=LATER_FEED, seq=1)
    h.pass_s(1)
    h.expire(D, order(D, "o1"))
    h.sweep(order(D, "o1"))
    stranded(h, "o1")


def _as_an_image(h: History) -> None:
    swept(h, "o1")
    h.log(order(D, "o1"), dict(h.table[config(D)]), seq=2, set={"expired": True})


@pytest.mark.parametrize("story", [_of_another_item, _after_the_living_epoch_began, _as_an_image])
def test_a_sweep_that_no_reader_can_know_of_is_missed(story: Callable[[History], None]) -> None:
    h = with_config()
    story(h)
    assert end(h)["sweeps-logged"].status == "fail"


@pytest.mark.parametrize("before", [True, False])
def test_a_sweep_before_the_table_is_put_back_needs_no_row_and_one_after_it_does(before: bool) -> None:
    h = begun()
    if not before:
        put_back(h)
    swept(h, "o1", race=False)
    if before:
        put_back(h)
    assert (end(h)["sweeps-logged"].status == "fail") is not before


# ---------------------------------------------------------------- operations that a table put back does not have


def unacked(h: History, device: str) -> None:
    """An operation of the device is committed, and its ack is lost."""
    h.write(device, status(device))
    h.send(device)
    h.ingest(device)


def once_more(h: History, device: str) -> set[str]:
    """The device sends the operation again, and a relay that has forgotten it commits it."""
    h.send(device)
    (op,) = h.outbox[device]
    h.heads[device] = {**h.heads[device], "up": op.u - 1, "upid": f"id{op.u - 1}"}
    h.table.pop(status(device), None)
    h.ingest(device)
    h.send(device)
    found = h.results()
    return {name for name in ("every-write-decided", "no-double-apply") if found[name].status == "fail"}


def put_back_before(h: History, device: str) -> None:
    """The table is put back to a copy from before that operation; HEAD with it."""
    (op,) = h.outbox[device]
    h.heads[device] = {**h.heads[device], "up": op.u - 1, "upid": f"id{op.u - 1}"}
    h.table.pop(status(device), None)
    put_back(h)


@pytest.mark.parametrize("times", [1, 2])
def test_what_a_table_that_was_put_back_does_not_have_may_be_decided_once_more_and_only_once(times: int) -> None:
    h = begun()
    unacked(h, D)
    put_back_before(h, D)
    for _ in range(times):
        found = once_more(h, D)
    assert bool(found) is (times == 2)


def test_what_the_copy_has_is_not_decided_again() -> None:
    h = begun()
    unacked(h, D)
    put_back(h)
    assert once_more(h, D)


def test_what_another_device_has_sent_is_not_decided_again() -> None:
    h = begun()
    unacked(h, D)
    put_back(h)
    unacked(h, OTHER)
    assert once_more(h, OTHER)


def head_at(h: History, device: str, up: int, **more: Any) -> None:
    """HEAD of the copy that the table will be put back to."""
    h.heads[device] = {**h.heads[device], "up": up, "upid": f"id{up}", **more}


def old_message(h: History, device: str, *ops: Op, moves: bool = True) -> None:
    """A message of long ago comes to a relay, which commits it."""
    t = h.tick()
    if moves:
        h.head(device, ops[-1].u, at=t)
    for key, op in {op.key: op for op in ops}.items():
        h.commit(key, None if op.kind == "delete" else h.item_of(device, op), at=t)


def written(h: History, device: str, key: Key, kind: str = "update") -> Op:
    """A write that is sent, decided and acknowledged."""
    h.write(device, key, kind)
    (op,) = h.outbox[device]
    h.sync_up(device)
    return op


def gone_on(h: History, device: str) -> None:
    """The device sends what comes next: it will not send again what came before."""
    h.write(device, fault(device, "next"), "create")
    h.send(device)


def wrong(h: History) -> set[str]:
    h.hello(OTHER)  # what was committed together is judged when anything else happens
    return {name for name, result in h.results().items() if result.status == "fail"}


def test_an_old_message_may_bring_once_more_what_a_table_that_was_put_back_does_not_have_and_only_once() -> None:
    h = begun()
    op = written(h, D, status(D))
    gone_on(h, D)
    head_at(h, D, op.u - 1)
    del h.table[status(D)]
    put_back(h)
    old_message(h, D, op)
    assert wrong(h) == set()
    assert "1 operations decided once more" in h.results()["every-write-decided"].detail
    h.table.pop(status(D))
    old_message(h, D, op, moves=False)
    assert wrong(h) == {"no-double-apply"}


@pytest.mark.parametrize("device, back", [(D, 0), (OTHER, 1)], ids=["the copy has it", "another device"])
def test_an_old_message_brings_nothing_that_the_copy_has(device: str, back: int) -> None:
    h = begun()
    ops = {name: written(h, name, status(name)) for name in (D, OTHER)}
    gone_on(h, D)
    gone_on(h, OTHER)
    head_at(h, D, ops[D].u - back)
    put_back(h)
    del h.table[status(device)]
    old_message(h, device, ops[device], moves=False)
    assert wrong(h) == {"no-double-apply"}


def test_an_old_message_takes_effect_with_head_alone() -> None:
    h = begun()
    op = written(h, D, status(D))
    gone_on(h, D)
    head_at(h, D, op.u - 1)
    del h.table[status(D)]
    put_back(h)
    old_message(h, D, op, moves=False)
    assert wrong(h) == {"no-double-apply"}


def test_an_old_message_brings_what_was_sent_and_nothing_else() -> None:
    for beyond, other, fails in (
        (0, {}, False),
        (1, {}, True),  # HEAD never was there
        (0, {"text": "another"}, True),
        (0, {"rev": 1, "text": text_for(1, 80)}, True),
    ):
        h = begun()
        op = written(h, D, status(D))
        gone_on(h, D)
        head_at(h, D, op.u - 1)
        del h.table[status(D)]
        put_back(h)
        t, u = h.tick(), op.u + beyond
        h.head(D, u, at=t)
        h.commit(status(D), {**h.item_of(D, op), "_op": [D, EPOCH, u, op.id], **other}, at=t)
        assert ("nothing-invented" in wrong(h)) is fails


def test_an_old_message_of_an_epoch_that_head_has_left_brings_nothing() -> None:
    h = begun()
    op = written(h, D, status(D))
    gone_on(h, D)
    head_at(h, D, 0, epoch=NEW)
    del h.table[status(D)]
    put_back(h)
    h.commit(status(D), h.item_of(D, op))
    assert wrong(h) == {"no-double-apply"}


@pytest.mark.parametrize("key", [status(D), fault(D, "f1"), setting(D)], ids=["update", "delete", "both"])
@pytest.mark.parametrize("moves", [True, False])
def test_what_the_device_gave_up_for_a_new_epoch_may_come_late_while_head_is_in_the_old_one(
    key: Key, moves: bool
) -> None:
    h = begun()
    kind = "delete" if key == fault(D, "f1") else "update"
    if kind == "delete":
        written(h, D, key, "create")
    h.write(D, key, kind)
    h.send(D)
    (op,) = h.outbox[D]
    h.write(D, reading(D), "create")
    h.send(D, h.batch(D, [replace(h.outbox[D][-1], u=1)], NEW))
    old_message(h, D, op, moves=moves)
    assert wrong(h) == (set() if moves else {"no-double-apply"})


@pytest.mark.parametrize("case", ["another", "never sent", "twice"])
def test_of_what_the_device_gave_up_nothing_else_may_come(case: str) -> None:
    h = begun()
    h.write(D, status(D))
    if case != "never sent":
        h.send(D)
    (op,) = h.outbox[D]
    h.write(D, reading(D), "create")
    h.send(D, h.batch(D, [replace(h.outbox[D][-1], u=1)], NEW))
    if case == "twice":
        old_message(h, D, op)
        del h.table[status(D)]
    if case == "another":
        op = replace(op, id="other")
    old_message(h, D, op, moves=case != "twice")
    assert wrong(h) & {"no-double-apply", "nothing-invented"}


@pytest.mark.parametrize("moves", [True, False])
@pytest.mark.parametrize("key", [fault(D, "f1"), setting(D)], ids=["up", "both"])
@pytest.mark.parametrize("created_again", [False, True])
def test_an_old_message_may_bring_a_delete_once_more(key: Key, moves: bool, created_again: bool) -> None:
    h = begun()
    written(h, D, key, "create")
    before = h.table[key]
    op = written(h, D, key, "delete")
    if created_again:
        written(h, D, key, "create")
    gone_on(h, D)
    head_at(h, D, op.u - 1)
    h.table[key] = before
    put_back(h)
    old_message(h, D, op, moves=moves)
    assert wrong(h) == (set() if moves else {"no-double-apply"})


def test_an_old_message_brings_no_delete_that_the_copy_has() -> None:
    h = begun()
    written(h, D, fault(D, "f1"), "create")
    before = h.table[fault(D, "f1")]
    op = written(h, D, fault(D, "f1"), "delete")
    gone_on(h, D)
    h.table[fault(D, "f1")] = before
    put_back(h)
    old_message(h, D, op, moves=False)
    assert wrong(h) == {"nothing-invented"}


@pytest.mark.parametrize("times", [1, 2])
def test_a_delete_without_its_ack_is_decided_once_more_and_only_once(times: int) -> None:
    h = begun()
    written(h, D, fault(D, "f1"), "create")
    before = h.table[fault(D, "f1")]
    h.write(D, fault(D, "f1"), "delete")
    (op,) = h.outbox[D]
    h.send(D)
    h.ingest(D)
    for n in range(times):
        head_at(h, D, op.u - 1)
        h.table[fault(D, "f1")] = before
        if n == 0:
            put_back(h)
        old_message(h, D, op)
        h.send(D)
    assert bool(wrong(h)) is (times == 2)


@pytest.mark.parametrize("back", [True, False])
def test_an_update_after_a_create_of_the_same_batch_brings_nothing_back_to_life_when_decided_once_more(
    back: bool,
) -> None:
    h = begun()
    if not back:
        written(h, D, setting(D), "create")
        h.cloud(setting(D), "delete")
    h.write(D, setting(D), "create" if back else "update")
    h.write(D, setting(D))
    first, last = h.outbox[D]
    h.send(D)
    if back:
        h.ingest(D)
        head_at(h, D, first.u - 1)
        del h.table[setting(D)]
        put_back(h)
    old_message(h, D, first, last)
    assert ("no-resurrection" in wrong(h)) is not back


# ---------------------------------------------------------------- deletes by a copy


def deletes_both(h: History, *, own: str, now: str, op_id: str, moves: bool = True) -> None:
    """The device has sent the delete of an item in the epoch `own`; HEAD is in `now`, and the item goes with an
    operation of that epoch."""
    written(h, D, fault(D, "f1"), "create")
    h.write(D, fault(D, "f1"), "delete")
    (op,) = h.outbox[D]
    h.send(D, h.batch(D, [op], own))
    head_at(h, D, op.u - 1, epoch=now)
    h.private((HEAD + D, "head"), {"epoch": now, "up": op.u - 1, "verdicts": {}}, None)
    t = h.tick()
    if moves:
        h.private((HEAD + D, "head"), {"epoch": now, "up": op.u, "upid": op_id, "verdicts": {}}, None, at=t)
    h.commit(fault(D, "f1"), None, at=t)


@pytest.mark.parametrize("own", [EPOCH, NEW])
@pytest.mark.parametrize("cloned", [True, False])
def test_a_copy_may_delete_what_the_device_would_have_deleted(own: str, cloned: bool) -> None:
    h = begun()
    if cloned:
        copied(h, D)
    deletes_both(h, own=own, now=EPOCH, op_id="of the copy")
    if cloned:
        assert wrong(h) == set()
    elif own == NEW:
        assert wrong(h) == {"no-double-apply", "every-write-decided"}, "an operation of another epoch than HEAD's"


def test_a_delete_where_a_copy_lives_takes_effect_with_head_alone() -> None:
    h = begun()
    copied(h, D)
    deletes_both(h, own=EPOCH, now=EPOCH, op_id="of the copy", moves=False)
    assert wrong(h) == {"no-double-apply"}


@pytest.mark.parametrize(("lost", "fails"), [(["later"], False), (["earlier"], False), (["earlier", "later"], True)])
def test_of_two_deletes_in_a_batch_the_accepted_one_took_the_item_away(lost: list[str], fails: bool) -> None:
    h = begun()
    written(h, D, setting(D), "create")
    for kind in ("delete", "create", "delete"):
        h.write(D, setting(D), kind)
    earlier, _, later = h.outbox[D]
    h.outbox[D] = [earlier, replace(h.outbox[D][1], key=setting(D, "s2")), later]
    h.send(D)
    verdicts = {str({"earlier": earlier.u, "later": later.u}[name]): "lost" for name in lost}
    h.ingest(D, verdicts)
    if fails:
        h.commit(setting(D), None, at=h.t)
    assert ("no-double-apply" in wrong(h)) is fails


def test_a_write_that_was_decided_twice_counts_once() -> None:
    h = begun()
    unacked(h, D)
    h.send(D)
    synced = h.oracle.updates_synced
    put_back_before(h, D)
    once_more(h, D)
    assert h.oracle.updates_synced == synced


# ---------------------------------------------------------------- items that are too large

LARGE: Final = ITEM_BYTES_MAX + 100


def large(h: History, name: str, size: int = LARGE) -> None:
    """An order that no message can carry, if it is that large, and nobody has said so."""
    rev = h.next_rev()
    h.oracle.cloud_wrote(h.tick(), order(D, name), rev, "put")
    image = {**h.image(order(D, name), rev), "text": text_for(rev, size)}
    h.commit(order(D, name), {"pk": order(D, name)[0], "sk": order(D, name)[1], **image})


@pytest.mark.parametrize(("size", "restored", "fails"), [(LARGE, True, False), (900, True, True), (LARGE, False, True)])
def test_what_is_too_large_in_a_table_that_was_put_back_is_not_compared(size: int, restored: bool, fails: bool) -> None:
    h = begun()
    large(h, "o1", size)
    if restored:
        put_back(h)
    assert (end(h)["convergence"].status == "fail") is fails


# ---------------------------------------------------------------- expired-absent


@pytest.mark.parametrize(("device", "room_s", "fails"), [(D, 100, False), (D, 20, True), (OTHER, 100, True)])
def test_a_full_disk_excuses_its_own_device_of_dropping_late_until_there_is_room(
    device: str, room_s: int, fails: bool
) -> None:
    h = begun()
    h.cloud(order(D), life_s=5)
    h.push(D, order(D))
    h.oracle.disk_full(device, h.t + room_s * 1_000_000)
    h.pass_s(110)
    h.expire(D, order(D))
    assert (told(h, "expired-absent") == "fail") is fails


@pytest.mark.parametrize(("device", "again", "fails"), [(D, False, False), (D, True, True), (OTHER, False, True)])
def test_an_answer_that_finds_a_full_disk_need_not_have_told_the_time(device: str, again: bool, fails: bool) -> None:
    h = begun()
    h.cloud(order(D), life_s=5)
    h.push(D, order(D))
    h.boot(D)
    h.oracle.disk_full(device, h.t + 20_000_000)
    for _ in range(1 + again):
        h.hello(D)
        h.ack(D, n=1)
        h.pass_s(30)
    h.pass_s(80)
    h.expire(D, order(D))
    assert (told(h, "expired-absent") == "fail") is fails


@pytest.mark.parametrize(("key", "device", "fails"), [(reading(D), D, False), (fault(D, "f9"), D, True)])
def test_what_an_old_disk_has_of_long_ago_may_be_hidden_for_its_age_where_lives_end(
    key: Key, device: str, fails: bool
) -> None:
    h = begun()
    h.oracle.device_restored(h.tick(), device, [(key, 99), (fault(D, "f0"), 1)])
    h.boot(D)
    assert (told(h, "writes-survive-power-cuts") == "fail") is fails


# ---------------------------------------------------------------- commands


def unanswered(excuse: Callable[[History, str], None] | None, *, first: bool, device: str = D) -> CheckResult:
    """A command reaches D in time and is never answered; `first`: before what would excuse it."""
    h = begun()
    if excuse is not None and not first:
        excuse(h, device)
    h.order(D, "c1")
    if excuse is not None and first:
        excuse(h, device)
    return end(h)["command-answered"]


def test_a_command_is_excused_where_a_copy_lived_or_the_disk_was_put_back_since() -> None:
    for excuse, first in ((set_back, True), (copied, True), (copied, False)):
        result = unanswered(excuse, first=first)
        assert result.status != "fail" and result.detail.startswith("1 commands"), excuse


def test_a_command_is_not_excused_that_came_after_the_disk_was_put_back_nor_on_another_device() -> None:
    assert unanswered(None, first=True).status == "fail"
    assert unanswered(set_back, first=False).status == "fail"
    for excuse in (set_back, copied):
        assert unanswered(excuse, first=True, device=OTHER).status == "fail"


@pytest.mark.parametrize(
    ("lost_s", "back_s", "device", "fails"),
    [
        (10, 650, D, False),
        (10, 400, D, True),  # it had time enough to say that the command has expired
        (90, 650, D, True),  # it had its feed when the command expired
        (10, 650, OTHER, True),
    ],
)
def test_a_command_that_waits_while_the_feed_is_fetched_anew_may_grow_too_old(
    lost_s: int, back_s: int, device: str, fails: bool
) -> None:
    h = begun()
    h.order(D, "c1", life_s=60)
    h.pass_s(lost_s)
    for name in (D, OTHER):
        h.ack(name)
    ask = Hello(epoch=EPOCH, hn="hn", n=2, schema="0.0.1", feeds={"device": FeedState("n2")})  # has no place in it
    h.oracle.wire_up(h.tick(), device, encode(ask))
    h.ack(D)
    h.pass_s(back_s)
    h.snapshot(device, [command(D, "c1")] if device == D else [], nonce="n2")
    h.ack(device)
    assert (end(h)["command-answered"].status == "fail") is fails


@pytest.mark.parametrize(
    ("life_s", "there_s", "back", "fails"),
    [
        (720, 30, OTHER, False),
        (720, 150, OTHER, True),  # it had time enough to send it
        (720, 30, D, True),  # it was there all the time
        (300, 30, OTHER, True),  # it must not drop a result so soon
        (900, 30, OTHER, True),  # its life is not over
    ],
)
def test_a_result_may_end_unsent_where_its_device_was_away_for_its_whole_life(
    life_s: int, there_s: int, back: str, fails: bool
) -> None:
    h = begun()
    h.order(D, "c1", life_s=60)
    h.ack(D)
    h.write(D, result(D, "c1"), "create", life_s=life_s, fields={"state": "refused"})
    h.pass_s(there_s)
    h.ack(D)
    for _ in range(13):
        h.pass_s(60)
        h.ack(back)
    h.expire(D, result(D, "c1"))
    assert (end(h)["command-answered"].status == "fail") is fails


@pytest.mark.parametrize(
    ("times_s", "fails"),
    [((300, 60, 400), False), ((60, 300, 80, 400), False), ((250, *(50,) * 4, 300), True), ((100,) * 9, True)],
)
def test_its_device_may_have_been_away_several_times_with_moments_between_them(
    times_s: tuple[int, ...], fails: bool
) -> None:
    """One that has answers again and again, if seldom, is there."""
    h = begun()
    h.order(D, "c1", life_s=60)
    h.ack(D)
    h.write(D, result(D, "c1"), "create", life_s=720, fields={"state": "refused"})
    for time_s in times_s:
        h.pass_s(time_s)
        h.ack(D)
    h.pass_s(5)
    h.expire(D, result(D, "c1"))
    assert (end(h)["command-answered"].status == "fail") is fails


def test_a_result_that_its_device_has_never_written_cannot_end_unsent() -> None:
    h = begun()
    h.order(D, "c1", life_s=60)
    h.ack(D)
    h.pass_s(13 * 60)
    assert end(h)["command-answered"].status == "fail"


def _full(h: History) -> None:
    h.oracle.disk_full(D, h.t + 100_000_000)
    h.ack(D)


def _another_full(h: History) -> None:
    h.oracle.disk_full(OTHER, h.t + 100_000_000)
    h.ack(D)


def _full_before(h: History) -> None:
    h.oracle.disk_full(D, h.t + 1_000_000)
    h.pass_s(5)
    h.ack(D)


def _its_turn_not_come(h: History) -> None:
    h.order(D, "c2", life_s=60)
    h.ack(D)
    h.write(D, result(D, "c2"), "create", life_s=720, fields={"state": "started"})


def _recorded(h: History) -> None:
    _full(h)
    h.write(D, result(D, "c1"), "create", life_s=720, fields={"state": "refused"})


@pytest.mark.parametrize(
    ("story", "lost", "back_s", "fails"),
    [
        (_full, "c1", 700, False),
        (_full, "c1", 400, True),  # it had time enough to say that the command has expired
        (_full, "c1", None, False),
        (_full, "c3", 700, True),  # it had it all the time
        (_another_full, "c1", 700, True),  # it had time and room to look at it before it was lost
        (_full_before, "c1", 700, True),
        (_recorded, "c1", 700, True),
        (_its_turn_not_come, "c1", 700, False),
    ],
)
def test_a_command_that_a_disk_lost_while_it_waited_may_be_too_old_when_it_is_back(
    story: Callable[[History], None], lost: str, back_s: int | None, fails: bool
) -> None:
    h = begun()
    h.order(D, "c3", life_s=60)
    h.obey(D, "c3")
    h.order(D, "c1", life_s=60)
    story(h)
    h.lose(D, command(D, lost))
    h.ack(D)
    h.pass_s(700 if back_s is None else back_s)
    if back_s is not None:
        h.heal(D, command(D, lost))
    h.ack(D)
    h.pass_s(700 - (back_s or 700))
    if story is _its_turn_not_come:
        h.obey(D, "c2")
    assert (end(h)["command-answered"].status == "fail") is fails


def _lost_in_table(h: History) -> None:
    h.lose_in_table(command(D, "c1"))
    h.see(D, command(D, "c1"), None)


def _another_lost(h: History) -> None:
    h.order(D, "c2")
    h.obey(D, "c2")
    h.lose_in_table(command(D, "c2"))


def _changed_in_table(h: History) -> None:
    h.change(D, command(D, "c1"))


def _its_result_lost(h: History) -> None:
    h.answer(D, "c1", "started")
    h.lose_in_table(result(D, "c1"))


def _lost_on_disk(h: History) -> None:
    h.lose(D, command(D, "c1"))


def _lost_when_done(h: History) -> None:
    h.run(D, "c1")
    _lost_in_table(h)


def _lost_when_begun(h: History) -> None:
    h.answer(D, "c1", "started")
    _lost_in_table(h)


@pytest.mark.parametrize(
    ("story", "fails"),
    [
        (_lost_in_table, False),
        (_another_lost, True),
        (_changed_in_table, True),
        (_its_result_lost, True),
        (_lost_on_disk, True),
        (_lost_when_done, True),
        (_lost_when_begun, True),
    ],
)
def test_a_command_that_the_table_has_lost_before_it_was_begun_is_not_answered(
    story: Callable[[History], None], fails: bool
) -> None:
    h = begun()
    h.order(D, "c1")
    story(h)
    assert (end(h)["command-answered"].status == "fail") is fails


@pytest.mark.parametrize(("when", "fails"), [("before", False), ("after", True), ("other", True)])
def test_a_result_changes_only_of_a_command_that_the_old_disk_may_not_know(when: str, fails: bool) -> None:
    h = begun()
    if when == "after":
        set_back(h, D)
    h.order(D, "c1")
    h.obey(D, "c1")
    if when != "after":
        set_back(h, D if when == "before" else OTHER)
    h.answer(D, "c1", "failed")
    assert (told(h, "command-answered") == "fail") is fails


def rebooted(h: History, device: str, name: str) -> None:
    h.order(device, name, 600)
    h.obey(device, name, "reboot")


@pytest.mark.parametrize("excuse", [set_back, copied])
def test_two_reboots_close_together_are_excused_across_a_restore_and_on_a_copy(
    excuse: Callable[[History, str], None],
) -> None:
    for device, fails in ((D, False), (OTHER, True)):
        h = begun()
        rebooted(h, D, "c1")
        excuse(h, device)
        rebooted(h, D, "c2")
        assert (told(h, "command-reboots-spaced") == "fail") is fails


def test_two_reboots_both_before_a_restore_or_both_after_it_are_too_close() -> None:
    for restores_after in (0, 2):
        h = begun()
        for number in range(3):
            if number == restores_after:
                set_back(h, D)
            if number < 2 or restores_after == 0:
                rebooted(h, D, f"c{number}")
        assert told(h, "command-reboots-spaced") == "fail"


# ---------------------------------------------------------------- verdicts


def forgotten_verdict(h: History, device: str) -> None:
    """An operation was lost; the ack that covers it does not say so."""
    h.write(device, setting(device), "create")
    h.send(device)
    u = str(h.outbox[device][-1].u)
    h.ingest(device, {u: "lost"})
    h.ack(device, verdicts={})


def test_an_ack_may_have_forgotten_verdicts_where_a_copy_lives_and_nowhere_else() -> None:
    for device, fails in ((D, False), (OTHER, True)):
        h = begun()
        copied(h, D)
        forgotten_verdict(h, device)
        assert (told(h, "no-acked-write-lost") == "fail") is fails
    h = begun()
    forgotten_verdict(h, D)
    copied(h, D)
    assert told(h, "no-acked-write-lost") == "fail", "it was before"


@pytest.mark.parametrize(("told_of_it", "fails"), [(True, False), (False, True)])
def test_a_verdict_is_told_until_later_operations_come_also_where_an_old_disk_numbers_others_alike(
    told_of_it: bool, fails: bool
) -> None:
    h = begun()
    for name in ("f1", "f2", "f3"):
        h.write(D, fault(D, name), "create")
    h.send(D)  # in flight, when the disk is put back to before them
    for name in ("f1", "f2", "f3"):
        del h.visible[D][fault(D, name)]
    h.outbox[D], h.last_u[D] = [], 1
    set_back(h, D)
    h.write(D, setting(D), "create")
    h.send(D)
    h.ingest(D, {"2": "lost"})
    if told_of_it:
        h.ack(D)
        h.verdicts(D)
        h.see(D, setting(D), None)
        h.write(D, status(D), "create")
        h.sync_up(D)
    else:
        h.ack(D, verdicts={})
    assert (told(h, "no-acked-write-lost") == "fail") is fails


def test_an_ack_of_what_was_never_committed_is_wrong_on_a_copy_too() -> None:
    h = begun()
    copied(h, D)
    h.write(D, status(D), "create")
    h.send(D)
    h.ack(D, 2)
    assert told(h, "no-acked-write-lost") == "fail"


# ---------------------------------------------------------------- nothing-invented


def unannounced(h: History, device: str, key: Any, epoch: str = EPOCH) -> None:
    """An operation that carries a write which nobody has announced."""
    rev = h.next_rev()
    h._operation(device, key, "create", h.image(key, rev))
    h.send(device, h.batch(device, h.outbox[device][-1:], epoch))


EXCUSES: Final[dict[str, Callable[[History, str], None]]] = {
    "disk": set_back,
    "table": lambda h, _: put_back(h),
}


@pytest.mark.parametrize("excuse", [*EXCUSES.values(), copied], ids=[*EXCUSES, "copy"])
def test_what_an_old_disk_an_old_table_or_a_copy_may_hold_may_be_sent(
    excuse: Callable[[History, str], None],
) -> None:
    h = begun()
    excuse(h, D)
    unannounced(h, D, fault(D, "f1"))
    assert told(h, "nothing-invented") != "fail"


def test_what_nobody_has_announced_is_invented_before_a_restore_and_on_another_device() -> None:
    h = begun()
    unannounced(h, D, fault(D, "f1"))
    set_back(h, D)
    assert told(h, "nothing-invented") == "fail"
    h = begun()
    set_back(h, D)
    unannounced(h, OTHER, fault(OTHER, "f1"))
    assert told(h, "nothing-invented") == "fail"


@pytest.mark.parametrize("excuse", EXCUSES.values(), ids=EXCUSES)
def test_what_comes_after_a_newer_write_of_the_same_item_is_no_leftover(
    excuse: Callable[[History, str], None],
) -> None:
    for key, fails in ((fault(D, "f1"), True), (fault(D, "f2"), False)):
        h = begun()
        excuse(h, D)
        h.write(D, fault(D, "f1"), "create")
        h.send(D)
        unannounced(h, D, key)
        assert (told(h, "nothing-invented") == "fail") is fails
    unannounced(h, D, fault(D, "f1"), NEW)  # an epoch later, what was not acknowledged is sent once more
    assert told(h, "nothing-invented") != "fail"


# ---------------------------------------------------------------- monotone-reads, no-resurrection


def lost_write(h: History, device: str, *, deleted: bool) -> dict[str, Any]:
    """The device sees two states of an item, or one that goes; then a write of its own is lost. Returns the older."""
    h.cloud(setting(device))
    h.push(device, setting(device))
    old = dict(h.table[setting(device)])
    h.cloud(setting(device), "delete" if deleted else "put")
    h.push(device, setting(device))
    h.write(device, setting(device), "create" if deleted else "update")
    h.send(device)
    h.ingest(device, {str(h.outbox[device][-1].u): "lost"})
    h.ack(device)
    h.verdicts(device)
    return old


def back_to_old(h: History, device: str, *, deleted: bool) -> str:
    old = lost_write(h, device, deleted=deleted)
    h.see(device, setting(device))
    h.see(device, setting(device), old)
    return told(h, "no-resurrection" if deleted else "monotone-reads")


@pytest.mark.parametrize("deleted", [True, False])
@pytest.mark.parametrize("excuse", [*EXCUSES.values(), copied], ids=[*EXCUSES, "copy"])
def test_what_was_undone_may_show_again_until_the_snapshot_of_the_new_epoch(
    excuse: Callable[[History, str], None], deleted: bool
) -> None:
    h = begun()
    excuse(h, D)
    assert back_to_old(h, D, deleted=deleted) != "fail"


@pytest.mark.parametrize("deleted", [True, False])
def test_nothing_old_shows_again_on_another_device_nor_before_the_disk_is_put_back(deleted: bool) -> None:
    h = begun()
    set_back(h, D)
    assert back_to_old(h, OTHER, deleted=deleted) == "fail"
    h = begun()
    assert back_to_old(h, D, deleted=deleted) == "fail"
    set_back(h, D)
    assert told(h, "no-resurrection" if deleted else "monotone-reads") == "fail"


@pytest.mark.parametrize("deleted", [True, False])
@pytest.mark.parametrize("excuse", EXCUSES.values(), ids=EXCUSES)
def test_nothing_old_shows_again_after_the_snapshot_of_the_new_epoch(
    excuse: Callable[[History, str], None], deleted: bool
) -> None:
    for snapshot in (True, False):
        h = begun()
        h.cloud(config(D))
        h.push(D, config(D))
        excuse(h, D)
        adopted(h, D)
        hello_of(h, NEW, None)
        if snapshot:
            hello_of(h, NEW, h.seqs[f"device#{D}"])
        old = lost_in_new_epoch(h, deleted=deleted)
        h.see(D, setting(D), old)
        assert (told(h, "no-resurrection" if deleted else "monotone-reads") == "fail") is snapshot


def hello_of(h: History, epoch: str, seq: int | None) -> None:
    state = FeedState("n1", None if seq is None else FEED_EPOCH, seq or 0)
    message = Hello(epoch=epoch, hn="hn", n=2, schema="0.0.1", feeds={"device": state})
    h.oracle.wire_up(h.tick(), D, encode(message))


def lost_in_new_epoch(h: History, *, deleted: bool) -> dict[str, Any]:
    h.cloud(setting(D))
    h.push(D, setting(D))
    old = dict(h.table[setting(D)])
    h.cloud(setting(D), "delete" if deleted else "put")
    h.push(D, setting(D))
    h.write(D, setting(D), "create" if deleted else "update")
    h.send(D, h.batch(D, h.outbox[D], NEW))
    h.head(D, 1, {"1": "lost"}, set={"epoch": NEW})
    h.ack(D, 1, epoch=NEW)
    h.verdicts(D)
    h.see(D, setting(D))
    return old


# ---------------------------------------------------------------- an old disk sends what was decided


def decided_before(h: History, verdict: str = "") -> Op:
    """The device hears that two of its operations are decided, and sends what comes after. Returns the second."""
    h.write(D, status(D), "create")
    h.write(D, setting(D), "create")
    h.send(D)
    h.ingest(D, {"3": verdict} if verdict else None)
    h.ack(D)
    h.write(D, fault(D, "f1"), "create")
    h.send(D, h.batch(D, h.outbox[D][2:]))
    return h.outbox[D][1]


def told_again(h: History, op: Op, verdict: str) -> str:
    """Its disk knows none of that, and it sends them again; the relay says that they are decided."""
    h.send(D, h.batch(D, h.outbox[D][:2]))
    h.ack(D)
    h.oracle.device_verdict(h.tick(), D, op.key, op.updated, verdict)
    return told(h, "every-write-decided")


@pytest.mark.parametrize("verdict", ["", "lost"])
@pytest.mark.parametrize("told_so", ["synced", "lost"])
def test_an_old_disk_is_told_once_more_of_what_was_decided_and_of_nothing_else(verdict: str, told_so: str) -> None:
    h = begun()
    op = decided_before(h, verdict)
    set_back(h, D)
    assert (told_again(h, op, told_so) == "fail") is (told_so != (verdict or "synced"))


def test_a_disk_that_nobody_put_back_is_told_of_each_decision_once() -> None:
    h = begun()
    op = decided_before(h)
    set_back(h, OTHER)
    assert told_again(h, op, "synced") == "fail"


@pytest.mark.parametrize("head", [{"up": 1, "upid": "id1"}, {"upid": "other"}, {"epoch": NEW}])
def test_an_old_disk_is_told_of_no_decision_that_head_does_not_have(head: dict[str, Any]) -> None:
    h = begun()
    op = decided_before(h)
    h.heads[D] = {**h.heads[D], **head}
    put_back(h)
    set_back(h, D)
    assert told_again(h, op, "synced") == "fail"


def test_a_number_that_an_old_disk_gives_once_more_tells_of_no_decision() -> None:
    h = begun()
    h.write(D, status(D), "create")
    h.write(D, setting(D), "create")
    h.send(D)
    h.ingest(D)
    set_back(h, D)
    h.write(D, fault(D, "f1"), "create")
    op = replace(h.outbox[D][-1], u=h.outbox[D][0].u, id="anew")
    h.send(D, h.batch(D, [op]))
    h.oracle.device_verdict(h.tick(), D, op.key, op.updated, "synced")
    assert told(h, "every-write-decided") == "fail"


def test_what_an_old_disk_sends_once_more_has_no_effect_once_more() -> None:
    h = begun()
    op = decided_before(h)
    set_back(h, D)
    h.send(D, h.batch(D, h.outbox[D][:2]))
    h.commit(setting(D), None, by_ttl=True)
    h.commit(setting(D), h.item_of(D, op))
    assert told(h, "no-double-apply") == "fail"


@pytest.mark.parametrize("verdict", ["", "lost"])
@pytest.mark.parametrize("told_so", ["synced", "lost"])
def test_an_ack_of_long_ago_may_reach_an_old_disk_when_head_has_gone_on(verdict: str, told_so: str) -> None:
    h = begun()
    op = decided_before(h, verdict)
    h.ingest(D)
    set_back(h, D)
    h.send(D, h.batch(D, h.outbox[D][:2]))
    h.ack(D, 3, verdicts={3: verdict} if verdict else {})
    h.oracle.device_verdict(h.tick(), D, op.key, op.updated, told_so)
    assert (told(h, "every-write-decided") == "fail") is (told_so != (verdict or "synced"))


@pytest.mark.parametrize("passed_it_last", [True, False])
def test_head_need_not_keep_a_verdict_of_before_its_last_batch_for_an_old_disk(passed_it_last: bool) -> None:
    h = begun()
    decided_before(h, "lost")
    if not passed_it_last:
        h.write(D, status(D))
        h.ingest(D)
    set_back(h, D)
    h.send(D, h.batch(D, h.outbox[D][:2]))
    h.ack(D, verdicts={})
    assert (told(h, "no-acked-write-lost") == "fail") is passed_it_last


@pytest.mark.parametrize("passed_the_newer", [True, False])
def test_nor_one_of_its_last_batch_once_what_the_newer_disk_sent_after_it_has_come(passed_the_newer: bool) -> None:
    h = begun()
    decided_before(h, "lost")
    set_back(h, D)
    h.send(D, h.batch(D, h.outbox[D][:2]))
    if passed_the_newer:
        h.ingest(D)
    h.ack(D, verdicts={})
    assert (told(h, "no-acked-write-lost") == "fail") is not passed_the_newer


@pytest.mark.parametrize("case", ["another id", "not put back", "another epoch", "table put back", "long ago"])
def test_it_may_not_where_head_has_not_passed_that_operation_lately_in_its_epoch(case: str) -> None:
    h = begun()
    op = decided_before(h)
    if case == "long ago":  # longer than any message is on its way
        h.pass_s(700)
        h.write(D, status(D))
        h.outbox[D][-1] = replace(h.outbox[D][-1], id="other")
    h.ingest(D)
    if case == "another epoch":
        adopted(h, D)
    if case == "table put back":
        h.head(D, 1)
        put_back(h)
    set_back(h, OTHER if case == "not put back" else D)
    ops = h.outbox[D][:2]
    h.send(D, h.batch(D, [replace(op, id="other") for op in ops] if case == "another id" else ops))
    h.oracle.device_verdict(h.tick(), D, op.key, op.updated, "synced")
    assert told(h, "every-write-decided") == "fail"


# ---------------------------------------------------------------- an old disk gives numbers once more


def given_again(h: History, key: Key, old: Key) -> tuple[Op, Op]:
    """The device's disk is put back while its operation on `old` is on its way, and it gives its number to one on
    `key`. Returns the operation that is given up, and the new one."""
    h.write(D, old, "update" if old in h.visible[D] else "create")
    h.send(D)
    (op,) = h.outbox[D]
    del h.visible[D][old]
    set_back(h, D)
    h.outbox[D] = []
    h.last_u[D] = op.u - 1
    h.write(D, key, "create")
    h.outbox[D][-1] = replace(h.outbox[D][-1], id="anew")
    h.send(D)
    return op, h.outbox[D][0]


def arrives(h: History, op: Op, op_id: str | None = None) -> None:
    t = h.tick()
    h.head(D, op.u, at=t, set={"upid": op_id or op.id})
    h.commit(op.key, h.item_of(D, op), at=t)


@pytest.mark.parametrize("key", [status(D), setting(D)], ids=["another", "same"])
def test_what_an_old_disk_has_given_up_decides_nothing_of_what_has_its_number_now(key: Key) -> None:
    h = begun()
    op, new = given_again(h, key, setting(D))
    arrives(h, op)
    assert wrong(h) == set()
    h.oracle.device_verdict(h.tick(), D, new.key, new.updated, "synced")
    assert wrong(h) == {"every-write-decided"}


@pytest.mark.parametrize("key", [status(D), setting(D)], ids=["another", "same"])
def test_head_that_names_the_new_operation_decides_it(key: Key) -> None:
    h = begun()
    _, new = given_again(h, key, setting(D))
    arrives(h, new)
    h.oracle.device_verdict(h.tick(), D, new.key, new.updated, "synced")
    assert wrong(h) == set()


def test_head_that_names_the_new_operation_brings_no_old_one() -> None:
    h = begun()
    op, new = given_again(h, status(D), setting(D))
    arrives(h, op, new.id)
    assert "no-acked-write-lost" in wrong(h)


def test_what_an_old_disk_has_given_up_may_come_after_its_next_epoch_began() -> None:
    for other_id in (False, True):
        h = begun()
        op, new = given_again(h, status(D), setting(D))
        h.send(D, h.batch(D, [replace(new, u=1)], NEW))
        arrives(h, replace(op, id="nobody's") if other_id else op)
        assert bool(wrong(h)) is other_id


@pytest.mark.parametrize("gone", [True, False])
def test_a_delete_with_the_number_of_one_that_was_given_up_waits_for_its_own_decision(gone: bool) -> None:
    h = begun()
    h.write(D, fault(D, "f0" if gone else "f9"), "delete" if gone else "create")
    h.send(D)
    (op,) = h.outbox[D]
    held = [(fault(D, "f0"), h.table[fault(D, "f0")]["rev"])]
    h.oracle.device_restored(h.tick(), D, held)
    h.visible[D] = {fault(D, "f0"): public(h.table[fault(D, "f0")])}
    h.outbox[D] = []
    h.last_u[D] = op.u - 1
    h.write(D, fault(D, "f0"), "delete")
    h.outbox[D][-1] = replace(h.outbox[D][-1], id="anew")
    h.send(D)
    t = h.tick()
    h.head(D, op.u, at=t)
    h.commit(fault(D, "f0"), None, at=t)
    assert wrong(h) == (set() if gone else {"no-double-apply"})


# ---------------------------------------------------------------- below a lost write


@pytest.mark.parametrize("damaged", [True, False])
def test_below_a_lost_write_there_is_nothing_where_the_disk_has_lost_the_item_and_nowhere_else(damaged: bool) -> None:
    h = begun()
    h.cloud(setting(D))
    h.push(D, setting(D))
    if damaged:
        h.lose(D, setting(D))
    h.write(D, setting(D), "create" if damaged else "update")
    h.send(D)
    h.cloud(setting(D))
    h.ingest(D, {"2": "lost"})
    h.ack(D)
    h.see(D, setting(D), None)
    assert (told(h, "monotone-reads") == "fail") is not damaged


@pytest.mark.parametrize("over", [True, False])
def test_an_item_that_is_over_below_a_lost_write_tells_of_no_deletion(over: bool) -> None:
    """What the cloud wrote before it deleted the item may still come then, else not."""
    h, lease = begun(), (f"device#{D}", "lease#l1")
    h.hello(D)
    h.ack(D, n=1)
    h.write(D, lease, "create", life_s=5 if over else 500)
    h.sync_up(D)
    h.push(D, lease)
    h.cloud(lease, life_s=500)
    h.log(lease)
    later = dict(h.table[lease])
    h.write(D, lease, life_s=3)
    h.pass_s(10)
    h.cloud(lease, "delete")
    h.send(D)
    h.ingest(D, {str(h.last_u[D]): "lost"})
    h.ack(D)
    h.expire(D, lease, own=False)
    h.catch_up(D, f"device#{D}")
    h.see(D, lease, later)
    assert (told(h, "no-resurrection") == "fail") is not over


@pytest.mark.parametrize("silently", [True, False])
def test_a_deletion_that_came_to_nothing_shows_the_item_again_where_nobody_has_told_of_its_end(silently: bool) -> None:
    h = begun()
    h.cloud(setting(D))
    h.push(D, setting(D))
    old = dict(h.table[setting(D)])
    if silently:
        h.lose_in_table(setting(D))
    else:
        h.cloud(setting(D), "delete")
        h.push(D, setting(D))
    if silently:
        h.write(D, setting(D), "delete")
        h.hello(D)
        h.send(D)
        h.ingest(D, {"2": "lost"})
        h.ack(D)
    h.see(D, setting(D), old)
    assert (told(h, "no-resurrection") == "fail") is not silently


@pytest.mark.parametrize("healed", [False, True])
def test_a_device_may_lose_to_itself_where_its_disk_has_lost_the_item_and_nowhere_else(healed: bool) -> None:
    h = begun()
    h.write(D, setting(D), "create")
    h.sync_up(D)
    h.push(D, setting(D))
    h.lose(D, setting(D))
    if healed:
        h.heal(D, setting(D))
    h.write(D, setting(D), "update" if healed else "create")
    h.send(D)
    h.ingest(D, {str(h.last_u[D]): "lost"})
    h.ack(D)
    assert (told(h, "conflict-policy") == "fail") is healed
    assert h.oracle.checks.policy.excused == (not healed)


# ---------------------------------------------------------------- digests


def test_a_damage_has_its_bound_on_a_device_that_was_restored_or_copied_too() -> None:
    for excuse in (set_back, copied):
        for waited_s, fails in ((60, False), (61, True)):
            h = begun()
            h.cloud(config(D))
            h.push(D, config(D))
            excuse(h, D)
            h.lose(D, config(D))
            h.heal(D, config(D), waited_s)
            assert (told(h, "digest-heals") == "fail") is fails


def test_a_damage_may_last_longer_by_twice_the_time_for_which_the_relay_wants_quiet() -> None:
    for boots, device, waited_s, fails in (
        (False, D, 260, False), (False, D, 261, True), (False, OTHER, 61, True), (True, D, 61, True),
    ):  # fmt: skip
        h = begun()
        for _ in range(3):  # it is told so again while it is quiet
            h.wait(device, 100)
        if boots:
            h.boot(D)
        h.cloud(config(D))
        h.push(D, config(D))
        h.lose(D, config(D))
        h.heal(D, config(D), waited_s)
        assert (told(h, "digest-heals") == "fail") is fails


def test_an_item_of_an_up_model_is_refused_until_the_device_writes_it_again() -> None:
    h = begun()
    steps = ((status(D), "", False), (status(D), "type", True), (status(D), "", False), (setting(D), "type", False))
    for u, (key, verdict, refused) in enumerate(steps, start=2):
        h.write(D, key)
        h.send(D)
        h.ingest(D, {str(u): verdict} if verdict else {})
        h.ack(D)
        h.verdicts(D)
        assert h.oracle.is_refused(key) is refused
    assert not h.oracle.is_refused(status(OTHER))


def test_an_alarm_is_excused_on_a_copied_device_and_for_a_moment_after_the_heal() -> None:
    for device, fails in ((D, False), (OTHER, True)):
        h = begun()
        copied(h, D)
        h.compared(device, ["Config"])
        assert (told(h, "no-false-alarm") == "fail") is fails
    for model, later_s, fails in (("Config", 119, False), ("Config", 121, True), ("Setting", 1, True)):
        h = begun()
        h.cloud(config(D))
        h.push(D, config(D))
        h.lose(D, config(D))
        h.heal(D, config(D))
        h.pass_s(later_s)
        h.compared(D, [model])
        assert (told(h, "no-false-alarm") == "fail") is fails
    h = begun()
    h.compared(D, ["Config"])
    copied(h, D)
    assert told(h, "no-false-alarm") == "fail", "it was before"


@pytest.mark.parametrize("case", ["does not know yet", "knows", "nobody put it back"])
def test_a_device_may_be_told_that_it_differs_from_a_table_that_was_put_back_until_it_knows(case: str) -> None:
    h = begun()
    if case != "nobody put it back":
        put_back(h)
    if case == "knows":
        h.write(D, status(D), "create")
        h.send(D, h.batch(D, h.outbox[D], NEW))
    h.compared(D, ["Config"])
    excused = case == "does not know yet"
    assert (told(h, "no-false-alarm") == "fail") is not excused
    assert h.oracle.checks.alarms.excused == excused


@pytest.mark.parametrize(
    ("device", "model", "late_s", "has_row", "fails"),
    [
        (D, "Config", 121, False, False),
        (D, "Config", 118, False, True),  # the record lives
        (D, "Config", 121, True, True),
        (D, "Setting", 121, False, True),
        (OTHER, "Config", 121, False, True),
    ],
)
def test_an_alarm_is_excused_by_a_change_of_the_model_that_has_outlived_its_record(
    device: str, model: str, late_s: int, has_row: bool, fails: bool
) -> None:
    h = begun()
    h.oracle.heal_bound = h.oracle.heal_bound._replace(record_us=120_000_000)
    h.cloud(config(D))
    if has_row:
        h.push(D, config(D))
    h.pass_s(late_s)
    h.compared(device, [model])
    assert (told(h, "no-false-alarm") == "fail") is fails


# ---------------------------------------------------------------- quiet-after-convergence


def calm(h: History) -> None:
    h.oracle.healed(h.tick())
    h.oracle.writes_stopped(h.tick())


def test_rows_that_tell_late_of_what_was_written_are_progress_and_the_same_again_is_none() -> None:
    h = begun()
    for n in range(MESSAGES_MAX + 8):
        h.cloud(command(D, f"c{n}"))
    calm(h)
    for n in range(MESSAGES_MAX + 8):
        h.log(command(D, f"c{n}"))
        h.rows(D, command(D, f"c{n}"))
    assert told(h, "quiet-after-convergence") != "fail"
    for _ in range(MESSAGES_MAX + 1):
        h.rows(D, command(D, "c0"))
    assert told(h, "quiet-after-convergence") == "fail"


def test_rows_of_what_changes_after_the_end_of_the_writes_are_no_backlog() -> None:
    h = begun()
    calm(h)
    for n in range(MESSAGES_MAX + 1):
        h.cloud(notice("main", f"n{n}"))
        h.log(notice("main", f"n{n}"))
        h.rows(D, notice("main", f"n{n}"))
    assert told(h, "quiet-after-convergence") == "fail"


def test_a_restore_begins_the_count_of_its_own_device_anew() -> None:
    for device, fails in ((D, False), (OTHER, True)):
        h = begun()
        h.write(D, status(D), "create")
        h.send(D)
        calm(h)
        for _ in range(MESSAGES_MAX):
            h.send(D, h.up_payload[D])
        set_back(h, device)
        h.send(D, h.up_payload[D])
        assert (told(h, "quiet-after-convergence") == "fail") is fails


@pytest.mark.parametrize(("late", "adopts"), [(True, True), (False, True), (True, False)])
def test_what_a_new_epoch_states_anew_is_progress_if_it_was_written_before_the_end(late: bool, adopts: bool) -> None:
    h = begun()
    copied(h, D)
    if adopts:
        adopted(h, D)
    ended = h.stamp()
    calm(h)
    h.pass_s(60)
    for n in range(MESSAGES_MAX + 8):
        op = Op(n + 1, "delete", f"id{n}", fault(D, f"q{n}"), ended if late else h.stamp())
        h.send(D, h.batch(D, [op], NEW))
        h.heads[D] = {**h.heads[D], "up": n + 1}
    assert (told(h, "quiet-after-convergence") == "fail") is not (late and adopts)


def test_a_row_read_before_an_item_existed_anew_shows_none_and_never_one_after_it_was_logged() -> None:
    for logged_before in (False, True):
        h = begun()
        h.cloud(config(D))
        if logged_before:
            h.log(config(D))
        h.log(config(D), None)
        h.log(config(D))
        assert (h.results()["feed-dense"].status == "fail") is logged_before


@pytest.mark.parametrize(
    ("states", "logged", "row", "fails"),
    [(1, 1, 0, False), (2, 1, 1, False), (2, 2, 0, True), (2, 2, 1, False)],
)
def test_a_row_read_before_a_damage_may_come_after_it_and_none_from_before_the_last_one_logged(
    states: int, logged: int, row: int, fails: bool
) -> None:
    """`states`: what the cloud wrote; `logged`: how many of them before the damage; `row`: which one after it."""
    h = begun()
    images: list[dict[str, Any]] = []
    for n in range(states):
        h.cloud(config(D))
        images.append(dict(h.table[config(D)]))
        if n < logged:
            h.log(config(D))
    h.change(D, config(D))
    h.log(config(D), images[row])
    assert (h.results()["feed-dense"].status == "fail") is fails
    assert h.oracle.checks.dense.excused == (not fails)


def test_once_the_damaged_state_is_logged_no_row_may_show_what_was_before_it() -> None:
    h = begun()
    h.cloud(config(D))
    h.log(config(D))
    before = dict(h.table[config(D)])
    h.change(D, config(D))
    h.log(config(D))
    h.log(config(D), before)
    assert told(h, "feed-dense") == "fail"
