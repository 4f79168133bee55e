"""Ingest: every operation decided once, in order, whoever repeats, interrupts or comes between."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from relay_rig import (
    EPOCH,
    NOW_MS,
    SCHEMA,
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
    schema_with,
    setting,
    status,
    stored,
    up,
)

from agent.protocol.messages import ITEM_BYTES_MAX, Ack, HeadMark, Image, Key, Op, Reset, Up
from cloud.config import RelayConfig
from cloud.head import head_key, head_mark
from cloud.table import Cancelled, Delete, InvalidRequest, Put, Throttled, Transact, Update

Written = tuple[Key, Image]


@pytest.fixture
def rig() -> Rig:
    rig = Rig()
    rig.send(hello())
    return rig


def user_items(rig: Rig) -> dict[str, Any]:
    return {item["sk"]: item for item in rig.table.scan()}


# One batch


def test_an_operation_becomes_the_item_and_moves_head(rig: Rig) -> None:
    written = status(1, text="hi")
    ack = rig.ack(up(op(1, "create", written)))
    assert (ack.epoch, ack.up, ack.upid, ack.verdicts, ack.now) == (EPOCH, 1, "boot", {}, NOW_MS)
    assert rig.item(written[0]) == stored(written, ["home-1", EPOCH, 1, "boot"])
    assert head_mark(rig.head()) == HeadMark(EPOCH, 1, "boot")


def test_a_device_without_head_is_reset(rig: Rig) -> None:
    assert rig.send(up(op(1, "create", status(1, device="home-2"))), "home-2") == [Reset(hn="hn", head_epoch=None)]
    assert rig.table.count() == 1


def test_an_operation_of_another_epoch_is_reset_and_changes_nothing(rig: Rig) -> None:
    assert rig.send(up(op(1, "create", status(1)), epoch="f" * 32)) == [Reset(hn="hn", head_epoch=EPOCH)]
    assert user_items(rig) == {}


def test_a_repeated_batch_changes_nothing_and_gets_the_same_answer(rig: Rig) -> None:
    batch = up(op(1, "create", status(1)), op(2, "create", setting(2)), op(3, "update", setting(3, name="none")))
    first = rig.ack(batch)
    commits = len(rig.commits)
    assert first.verdicts == {3: "lost"}
    assert rig.ack(batch) == first
    assert len(rig.commits) == commits
    assert rig.counters["duplicate_batch"] == 1


def test_a_batch_that_overlaps_goes_on_where_head_is(rig: Rig) -> None:
    one, two = op(1, "create", status(1)), op(2, "update", status(2))
    rig.send(up(one))
    ack = rig.ack(up(one, two))
    assert ack.up == 2
    assert rig.item(status(2)[0]) == stored(status(2), ["home-1", EPOCH, 2, "boot"])


@pytest.mark.parametrize(
    "batch",
    [
        up(op(3, "update", status(3)), prev_id="other"),  # continues something else
        up(op(4, "update", status(4))),  # a gap
        up(op(2, "update", status(9), name="other")),  # an operation with this number was another one
        Up(epoch=EPOCH, first_u=3, ops=[op(3, "update", status(3))], hn="hn"),
    ],
)
def test_a_batch_of_another_history_is_only_acknowledged(rig: Rig, batch: Up) -> None:
    rig.send(up(op(1, "create", status(1)), op(2, "update", status(2))))
    before = user_items(rig)
    ack = rig.ack(batch)
    assert (ack.up, ack.upid) == (2, "boot")
    assert user_items(rig) == before
    assert rig.counters["lineage_refused"] == 1


def test_operations_on_one_key_fold_in_order(rig: Rig) -> None:
    rig.send(
        up(
            op(1, "create", status(1)),
            op(2, "update", status(2)),
            op(3, "delete", status(3)),
            op(4, "create", status(4)),
        )
    )
    assert rig.item(status(4)[0]) == stored(status(4), ["home-1", EPOCH, 4, "boot"])
    assert sum(record.key == status(4)[0] for record in rig.commits) == 1
    rig.send(up(op(5, "delete", status(5))))
    assert user_items(rig) == {}


def test_a_full_batch_is_one_transaction(rig: Rig) -> None:
    batch = up(*(op(u, "create", setting(u, f"n{u}")) for u in range(1, 99)))
    assert rig.ack(batch).up == 98
    assert len(user_items(rig)) == 98
    assert sum(record.key == head_key("home-1") for record in rig.commits) == 2


# Poison


def with_attribute(written: Written, **more: Any) -> Written:
    return written[0], {**written[1], **more}


POISON: dict[str, tuple[Op, str]] = {
    "key of no model": (op(2, "create", (("nobody#1", "x"), status(2)[1])), "unknown-model"),
    "private key": (op(2, "create", (head_key("home-1"), status(2)[1])), "unknown-model"),
    "empty key": (op(2, "create", (("", ""), status(2)[1])), "unknown-model"),
    "down model": (op(2, "create", config(2)), "direction"),
    "account's item": (op(2, "create", notice(2, "a")), "direction"),
    "local model": (op(2, "create", image("Diagnostic", "device#home-1", "diagnostic#a", 2, NOW_MS)), "direction"),
    "another device's": (op(2, "create", status(2, device="home-2")), "foreign"),
    "another device's delete": (op(2, "delete", status(2, device="home-2")), "foreign"),
    "no image": (Op(2, "create", "boot", status(2)[0], NOW_MS), "malformed"),
    "image no object": (Op(2, "create", "boot", status(2)[0], NOW_MS, msgspec.Raw(b"[1]")), "malformed"),
    "image null": (Op(2, "create", "boot", status(2)[0], NOW_MS, msgspec.Raw(b"null")), "malformed"),
    "large image": (op(2, "create", status(2, text="x" * ITEM_BYTES_MAX)), "size"),
    "long key": (op(2, "create", setting(2, "é" * 600)), "size"),
    "wrong type": (op(2, "create", status(2, level="high")), "type"),
    "not in enum": (op(2, "create", status(2, state="fine")), "enum"),
    "required is missing": (op(2, "create", with_attribute(status(2), rev=None)), "required"),
    "other model": (op(2, "create", with_attribute(status(2), _type="Fault")), "model"),
    "key disagrees": (op(2, "create", (setting(2, "a")[0], setting(2, "b")[1])), "key"),
    "mark of the relay": (op(2, "create", with_attribute(status(2), _orphan=True)), "key"),
    "an operation's mark": (op(2, "create", with_attribute(status(2), _op=["home-2", EPOCH, 1, "x"])), "key"),
    "hash key inside": (op(2, "create", with_attribute(status(2), pk="device#home-2")), "key"),
}


@pytest.mark.parametrize("name", POISON)
def test_poison_gets_a_verdict_and_harms_no_other(rig: Rig, name: str) -> None:
    poison, code = POISON[name]
    ack = rig.ack(up(op(1, "create", fault(1, "a")), poison, op(3, "create", fault(3, "b"))))
    assert (ack.up, ack.verdicts) == (3, {2: code})
    assert sorted(user_items(rig)) == ["fault#a", "fault#b"]
    assert rig.counters[f"rejected_{code}"] == 1


class Fussy(Rig):
    """A table that will not take an item with the text "poison", and says so for the whole request only."""

    reason = ""

    def execute(self, request: Any) -> Any:
        actions = request.actions if isinstance(request, Transact) else (request,)
        bad = [isinstance(each, Put) and each.item.get("text") == "poison" for each in actions]
        if any(bad):
            if self.reason:
                raise Cancelled(tuple(self.reason if each else None for each in bad))
            raise InvalidRequest("no")
        return super().execute(request)


@pytest.mark.parametrize("reason", ["", "size"])
@given(poison=st.sets(st.integers(1, 20)), count=st.integers(1, 20))
def test_what_the_table_refuses_is_found_and_rejected(reason: str, poison: set[int], count: int) -> None:
    rig = Fussy(settings=RelayConfig(transaction_retries=1))
    rig.reason = reason
    rig.send(hello())
    ops = [op(u, "create", setting(u, f"n{u}", text="poison" if u in poison else "")) for u in range(1, count + 1)]
    ack = rig.ack(up(*ops))
    bad = {u for u in poison if u <= count}
    assert ack.up == count
    assert ack.verdicts == dict.fromkeys(sorted(bad), reason or "invalid")
    assert len(user_items(rig)) == count - len(bad)


# Conflicts


CLOUD, OWN = None, ["home-1", EPOCH, 0, "boot"]
CASES: list[tuple[str, str, int | None, list[Any] | None, str]] = [
    # policy, kind, age of the present item's stamp against the operation's (None: no item), who wrote it, verdict
    ("latest", "update", -1, CLOUD, ""),
    ("latest", "update", 0, CLOUD, "lost"),
    ("latest", "update", 1, CLOUD, "lost"),
    ("latest", "delete", -1, CLOUD, ""),
    ("latest", "delete", 1, CLOUD, "lost"),
    ("latest", "create", 1, CLOUD, "lost"),
    ("latest", "create", -1, OWN, ""),
    ("latest", "create", None, CLOUD, ""),
    ("latest", "update", None, CLOUD, "lost"),
    ("latest", "delete", None, CLOUD, "lost"),
    ("arrival", "update", 1, CLOUD, ""),
    ("arrival", "update", None, CLOUD, "lost"),
    ("arrival", "delete", 1, CLOUD, ""),
    ("device", "update", 1, CLOUD, ""),
    ("device", "update", None, CLOUD, "lost"),
    ("cloud", "update", -1, CLOUD, "lost"),
    ("cloud", "delete", -1, CLOUD, "lost"),
    ("cloud", "update", 1, OWN, ""),
    ("cloud", "create", None, CLOUD, ""),
]


@pytest.mark.parametrize(("policy", "kind", "age", "writer", "verdict"), CASES)
def test_the_policy_decides(policy: str, kind: Any, age: int | None, writer: list[Any] | None, verdict: str) -> None:
    rig = Rig(schema=schema_with("Setting", f"conflict: '{policy}'"))
    rig.send(hello())
    if age is not None:
        rig.execute(Put(stored(setting(1, updated_ms=NOW_MS + age), writer)))
    before = rig.item(setting(1)[0])
    ack = rig.ack(up(op(1, kind, setting(2))))
    after = rig.item(setting(1)[0])
    assert ack.verdicts.get(1, "") == verdict
    assert rig.counters["conflict_lost"] == (verdict == "lost")
    if verdict:
        assert after is before
    elif kind == "delete":
        assert after is None
    else:
        assert after is not None and after["rev"] == 2


def test_operations_that_come_to_nothing_are_lost(rig: Rig) -> None:
    ack = rig.ack(up(op(1, "create", setting(1)), op(2, "delete", setting(2, updated_ms=NOW_MS + 1))))
    assert ack.verdicts == {1: "lost", 2: "lost"}
    assert rig.counters["void_op"] == 2
    assert rig.counters["conflict_lost"] == 0
    assert user_items(rig) == {}


def test_a_stamp_far_ahead_is_cut(rig: Rig) -> None:
    rig.send(up(op(1, "create", setting(1, updated_ms=NOW_MS + 60_000))))
    assert rig.item(setting(1)[0]) == stored(setting(1, updated_ms=NOW_MS + 60_000), ["home-1", EPOCH, 1, "boot"])
    rig.send(up(op(2, "create", setting(2, "b", updated_ms=NOW_MS + 60_001))))
    assert rig.item(setting(2, "b")[0]) == stored(setting(2, "b", updated_ms=NOW_MS), ["home-1", EPOCH, 2, "boot"])
    rig.execute(Put(stored(setting(3, "c", updated_ms=NOW_MS + 1))))
    assert rig.ack(up(op(3, "update", setting(4, "c", updated_ms=NOW_MS * 2)))).verdicts == {3: "lost"}


def test_a_device_with_a_fast_clock_never_loses_to_itself(rig: Rig) -> None:
    ahead = NOW_MS + 10**9
    rig.send(up(op(1, "create", setting(1, updated_ms=ahead)), op(2, "update", setting(2, updated_ms=ahead + 1))))
    ack = rig.ack(
        up(op(3, "update", setting(3, updated_ms=ahead + 2)), op(4, "update", setting(4, updated_ms=ahead + 3)))
    )
    assert ack.verdicts == {}
    item = rig.item(setting(1)[0])
    assert item is not None and item["rev"] == 4
    assert item["updated"] == NOW_MS + 3
    assert rig.counters["stamp_cut"] == 4


def test_the_stamp_of_an_up_model_is_the_devices_own(rig: Rig) -> None:
    rig.send(up(op(1, "create", status(1, updated_ms=NOW_MS + 10**9))))
    assert rig.item(status(1)[0]) == stored(status(1, updated_ms=NOW_MS + 10**9), ["home-1", EPOCH, 1, "boot"])


def test_verdicts_stay_until_the_device_has_shown_that_it_has_them(rig: Rig) -> None:
    lost = [op(u, "update", setting(u, f"none{u}")) for u in (1, 2, 3)]
    rig.send(up(*lost))
    assert rig.head()["verdicts"] == {"1": "lost", "2": "lost", "3": "lost"}
    ack = rig.ack(up(lost[1], lost[2], op(4, "create", status(4))))
    assert ack.verdicts == {2: "lost", 3: "lost"}
    assert rig.head()["verdicts"] == {"2": "lost", "3": "lost"}
    assert rig.ack(up(op(5, "update", status(5)))).verdicts == {}
    assert rig.head()["verdicts"] == {}


# What comes between


def test_an_item_changed_between_reading_and_commit_is_decided_again(rig: Rig) -> None:
    rig.execute(Put(stored(setting(1, updated_ms=NOW_MS - 5))))
    task = Task(rig, rig.message(up(op(1, "update", setting(2, updated_ms=NOW_MS)))))
    while not isinstance(task.request, Transact):
        task.step()
    rig.execute(Put(stored(setting(3, updated_ms=NOW_MS + 1))))
    task.finish()
    assert rig.counters["transaction_retry"] == 1
    assert rig.head()["verdicts"] == {"1": "lost"}
    item = rig.item(setting(1)[0])
    assert item is not None and item["rev"] == 3


@pytest.mark.parametrize(
    "change",
    [
        Update(setting(1)[0], {"level": 5}),  # a read attribute
        Update(setting(1)[0], {"_op": ["home-1", EPOCH, 0, "x"]}),  # one that was not there
        Update(setting(1)[0], {}, ("rev",)),
        Delete(setting(1)[0]),
    ],
)
@pytest.mark.parametrize("kind", ["update", "delete"])
def test_every_attribute_that_was_read_is_compared(rig: Rig, change: Any, kind: Any) -> None:
    rig.execute(Put(stored(setting(1, updated_ms=NOW_MS - 5, level=1))))
    task = Task(rig, rig.message(up(op(1, kind, setting(2)))))
    while not isinstance(task.request, Transact):
        task.step()
    rig.execute(change)
    task.finish()
    assert rig.counters["transaction_retry"] == 1


def test_what_an_operation_lost_against_is_compared_too(rig: Rig) -> None:
    rig.execute(Put(stored(setting(1, updated_ms=NOW_MS + 5))))
    task = Task(rig, rig.message(up(op(1, "create", setting(2)))))
    while not isinstance(task.request, Transact):
        task.step()
    rig.execute(Delete(setting(1)[0]))
    task.finish()
    assert rig.head()["verdicts"] == {}
    assert rig.item(setting(1)[0]) == stored(setting(2), ["home-1", EPOCH, 1, "boot"])


def test_a_large_item_is_compared_by_its_stamps(rig: Rig) -> None:
    many: dict[str, Any] = {f"a{n}": n for n in range(200)}
    rig.execute(Put(stored(setting(1, updated_ms=NOW_MS - 5, **many))))
    task = Task(rig, rig.message(up(op(1, "update", setting(2)))))
    while not isinstance(task.request, Transact):
        task.step()
    condition = task.request.actions[1].condition
    assert [test[1] for test in condition] == ["updated", "_op"]
    rig.execute(Put(stored(setting(3, updated_ms=NOW_MS - 4, **many))))
    task.finish()
    assert rig.counters["condition_cut"] == 2
    assert rig.counters["transaction_retry"] == 1


def test_after_eight_more_tries_there_is_no_answer(rig: Rig) -> None:
    task = Task(rig, rig.message(up(op(1, "create", setting(1)))))
    published = len(rig.published)
    rev = 1
    while not task.done:
        if isinstance(task.request, Transact):
            rev += 1
            rig.execute(Put(stored(setting(rev, updated_ms=NOW_MS - 100 + rev))))
        task.step()
    assert len(rig.published) == published
    assert rig.counters["transaction_retry"] == 9
    assert rig.counters["transaction_gave_up"] == 1
    assert rig.head()["up"] == 0


def test_a_throttled_request_ends_the_work_without_an_answer(rig: Rig) -> None:
    task = Task(rig, rig.message(up(op(1, "create", status(1)))))
    with pytest.raises(Throttled):
        task.work.throw(Throttled())
    assert rig.head()["up"] == 0


BATCHES = [
    up(op(1, "create", status(1)), op(2, "create", setting(2))),
    up(op(2, "create", setting(2)), op(3, "update", setting(3, updated_ms=NOW_MS + 1))),
]


def commits_of(rig: Rig) -> list[tuple[int, int]]:
    """HEAD's way, as (from, to)."""
    return [
        (record.old["up"], record.new["up"])
        for record in rig.commits
        if record.key == head_key("home-1") and record.old is not None and record.new is not None
    ]


def once_in_order(rig: Rig) -> None:
    """HEAD never goes back, and each write of an item by a device belongs to the step of HEAD beside it."""
    steps = commits_of(rig)
    assert all(a < b for a, b in steps)
    assert all(left[1] == right[0] for left, right in pairwise(steps))
    seen: set[int] = set()
    for record in rig.commits:
        mark = None if record.new is None else record.new.get("_op")
        if mark is not None and (record.old is None or record.old.get("_op") != mark):
            assert mark[2] not in seen, "an operation took effect twice"
            seen.add(mark[2])


def test_two_workers_with_the_same_batch_take_it_once() -> None:
    def build() -> tuple[Rig, list[Task]]:
        rig = Rig()
        rig.send(hello())
        return rig, [Task(rig, rig.message(BATCHES[0])) for _ in range(2)]

    count = 0
    for rig in every_interleaving(build):
        count += 1
        once_in_order(rig)
        assert rig.head()["up"] == 2
        assert sorted(user_items(rig)) == ["setting#mode", "status#"]
    assert count >= 20


def test_overlapping_batches_and_a_write_in_the_cloud_in_every_order() -> None:
    def cloud_write() -> Any:
        yield Put(stored(setting(7, updated_ms=NOW_MS)))

    def build() -> tuple[Rig, list[Task]]:
        rig = Rig()
        rig.send(hello())
        tasks = [Task(rig, rig.message(batch)) for batch in BATCHES]
        return rig, [*tasks, Task(rig, cloud_write())]

    endings = set()
    for rig in every_interleaving(build):
        for batch in BATCHES:
            ack = rig.ack(batch)
        once_in_order(rig)
        assert ack.up == 3
        item = rig.item(setting(1)[0])
        assert item is not None
        endings.add((item["rev"], tuple(sorted(ack.verdicts.items()))))
    # The cloud's 7 came last, before both, or between: 2 ties with it and loses, 3 is newer.
    assert endings == {(7, ()), (3, ((2, "lost"),)), (3, ())}


@pytest.mark.parametrize("batch", BATCHES[:1])
def test_a_worker_killed_anywhere_loses_and_repeats_nothing(batch: Up) -> None:
    def build() -> Any:
        rig = Rig()
        rig.send(hello())
        return rig, lambda: rig.message(batch)

    places = []
    for place, rig in killed_at_every_step(build):
        places.append(place)
        once_in_order(rig)
        assert rig.head()["up"] == 2
        assert sorted(user_items(rig)) == ["setting#mode", "status#"]
        answer = rig.ack(batch)
        assert answer.verdicts == {}
    assert places == [0, 1, 2, 3]  # two reads and the transaction, then the answer


# Sweep


REMOVING = schema_with("Fault", "orphans: 'remove'")


def orphaned(remove: bool) -> tuple[Rig, str]:
    """A device that wrote three faults in one epoch, and now has another."""
    rig = Rig(schema=REMOVING if remove else SCHEMA)
    rig.send(hello())
    rig.send(up(*(op(u, "create", fault(u, f"f{u}")) for u in (1, 2, 3)), op(4, "create", setting(4))))
    rig.execute(Put(stored(fault(9, "cloud"))))
    rig.execute(Put(stored(fault(8, "other", device="home-2"), ["home-2", EPOCH, 1, "boot"])))
    rig.send(hello("f" * 32, replaces=EPOCH))
    return rig, "f" * 32


@pytest.mark.parametrize("remove", [False, True])
def test_a_sweep_deals_with_what_was_not_written_again(remove: bool) -> None:
    rig, epoch = orphaned(remove)
    batch = up(op(1, "create", fault(2, "f2")), op(2, "sweep"), op(3, "create", fault(5, "f5")), epoch=epoch)
    ack = rig.ack(batch)
    assert ack.up == 3 and ack.verdicts == {}
    items = user_items(rig)
    assert {"fault#f2", "fault#f5", "fault#cloud", "fault#other", "setting#mode"} <= set(items)
    for name in ("fault#f1", "fault#f3"):
        assert name not in items if remove else items[name]["_orphan"] is True
    assert "_orphan" not in items["fault#f2"]
    assert rig.counters["sweep_removed" if remove else "sweep_kept"] == 2
    assert rig.ack(batch) == ack
    assert rig.counters["sweep_run"] == 1


def test_an_orphan_that_is_written_again_is_none_any_more() -> None:
    rig, epoch = orphaned(False)
    rig.send(up(op(1, "sweep"), op(2, "create", fault(2, "f2")), epoch=epoch))
    assert "_orphan" not in user_items(rig)["fault#f2"]
    assert "_orphan" in user_items(rig)["fault#f1"]


@pytest.mark.parametrize("remove", [False, True])
def test_a_sweep_that_wakes_up_late_touches_nothing_of_a_newer_epoch(remove: bool) -> None:
    def build() -> tuple[Rig, list[Task]]:
        rig, epoch = orphaned(remove)

        def newer() -> Any:
            yield from rig.message(hello("9" * 32, replaces=epoch))
            yield from rig.message(up(op(1, "create", fault(1, "f1")), op(2, "create", fault(2, "f2")), epoch="9" * 32))

        return rig, [Task(rig, rig.message(up(op(1, "sweep"), epoch=epoch))), Task(rig, newer())]

    overtaken = 0
    for rig in every_interleaving(build):
        items = user_items(rig)
        assert rig.head()["epoch"] == "9" * 32
        for name in ("fault#f1", "fault#f2"):
            assert items[name]["_op"][1] == "9" * 32
            assert "_orphan" not in items[name]
        overtaken += rig.counters["sweep_overtaken"]
    assert overtaken


@pytest.mark.parametrize("remove", [False, True])
def test_a_sweep_that_wakes_up_late_touches_nothing_written_since(remove: bool) -> None:
    asleep_at = 0
    while True:
        rig, epoch = orphaned(remove)
        zombie = Task(rig, rig.message(up(op(1, "sweep"), epoch=epoch)))
        while not zombie.done and zombie.steps < asleep_at:
            zombie.step()
        if zombie.done:
            break
        rig.send(up(op(1, "sweep"), op(2, "create", fault(7, "f2")), epoch=epoch))
        zombie.finish()
        assert rig.head()["up"] == 2
        item = user_items(rig)["fault#f2"]
        assert item["_op"][2] == 2 and "_orphan" not in item
        asleep_at += 1
    assert asleep_at > 5


def test_only_this_devices_items_of_the_model_are_orphans() -> None:
    rig = Rig()
    model = rig.relay.schema.models["Fault"]
    old = ["home-1", EPOCH, 1, "boot"]

    def is_orphan(item: dict[str, Any]) -> bool:
        return rig.relay.orphans.is_orphan(item, model, "home-1", "f" * 32)

    assert is_orphan(stored(fault(1, "a"), old))
    assert not is_orphan(stored(fault(1, "a")))  # written in the cloud
    assert not is_orphan(stored(fault(1, "a"), ["home-1", "f" * 32, 1, "boot"]))  # written again
    assert not is_orphan(stored(fault(1, "a"), ["home-2", EPOCH, 1, "boot"]))
    assert not is_orphan(stored(fault(1, "a", device="home-2"), old))
    assert not is_orphan(stored(setting(1), old))
    assert not is_orphan({**stored(fault(1, "a"), old), "_orphan": True})


def test_a_sweep_killed_anywhere_is_finished_by_the_next() -> None:
    def build() -> Any:
        rig, epoch = orphaned(True)
        return rig, lambda: rig.message(up(op(1, "sweep"), epoch=epoch))

    for _, rig in killed_at_every_step(build):
        assert sorted(user_items(rig)) == ["fault#cloud", "fault#other", "setting#mode"]
        assert rig.head()["up"] == 1


# Anything at all


class Model:
    """What a device believes of its own history, and what must therefore be."""

    def __init__(self) -> None:
        self.rig = Rig(settings=RelayConfig(snapshot_page=2))
        self.rig.send(hello())
        self.ops: list[Op] = []
        self.acked = 0


KINDS = st.sampled_from(["create", "update", "delete"])
STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.just("write"),
            st.sampled_from(["status", "fault", "setting"]),
            st.sampled_from(["create", "update", "delete"]),
            st.integers(0, 2),
        ),
        st.tuples(st.just("send"), st.integers(0, 3), st.integers(1, 4), st.integers(0, 9)),
        st.tuples(st.just("cloud"), st.integers(0, 2), st.booleans(), st.integers(-3, 3)),
        st.tuples(st.just("tick"), st.integers(1, 5), st.just(0), st.just(0)),
    ),
    max_size=40,
)


@given(steps=STEPS)
def test_any_history_is_decided_once_and_in_order(steps: list[tuple[Any, ...]]) -> None:
    model = Model()
    rig = model.rig
    makers = {
        "status": lambda rev, n: status(rev, rig.now_ms + n),
        "fault": lambda rev, n: fault(rev, f"f{n}", rig.now_ms),
        "setting": lambda rev, n: setting(rev, f"s{n}", rig.now_ms + n),
    }
    zombies: list[Task] = []
    for step in steps:
        if step[0] == "write":
            u = len(model.ops) + 1
            model.ops.append(op(u, step[2], makers[step[1]](u, step[3])))
        elif step[0] == "send" and model.acked < len(model.ops):
            back, size, kill = step[1:]
            first = max(0, model.acked - back)
            batch = up(*model.ops[first : model.acked + size])
            task = Task(rig, rig.message(batch))
            while not task.done and task.steps != kill:
                task.step()
            if not task.done:
                zombies.append(task)  # wakes up at the end
            model.acked = rig.head()["up"]
        elif step[0] == "cloud":
            _, n, put, age = step
            written = setting(1_000 + len(rig.commits), f"s{n}", rig.now_ms + age)
            rig.execute(Put(stored(written)) if put else Delete(written[0]))
        elif step[0] == "tick":
            rig.now_ms += step[1]
    for zombie in zombies:
        zombie.finish()
    while rig.head()["up"] < len(model.ops):
        rig.send(up(*model.ops[rig.head()["up"] :][:98]))
    once_in_order(rig)
    # Up models end as their last operation says.
    last: dict[Key, Op] = {each.key: each for each in model.ops if not each.key[1].startswith("setting#")}
    for key, each in last.items():
        item = rig.item(key)
        assert (item is None) is (each.kind == "delete")
        assert item is None or item["rev"] == each.u
    # No operation on a `both` item took effect on something newer.
    for record in rig.commits:
        if record.key[1].startswith("setting#") and record.new is not None and record.new.get("_op") and record.old:
            assert record.old["updated"] < record.new["updated"]


def test_nothing_is_answered_to_the_sender_but_on_its_own_topic(rig: Rig) -> None:
    rig.send(up(op(1, "create", status(1))))
    assert {sent.topic for sent in rig.published} == {"ioto/device/home-1/sync"}
    assert {sent.qos for sent in rig.published} == {1}


def test_answers_use_the_devices_encoding(rig: Rig) -> None:
    answers = rig.send(up(op(1, "create", status(1))), compact=True)
    assert type(answers[0]) is Ack
    assert rig.published[-1].payload[:1] != b"{"
    rig.send(up(op(1, "create", status(1))))
    assert rig.published[-1].payload[:1] == b"{"
