"""Each check can fail: a healthy run's history is told to the oracle again with one thing changed, and the check fires.

The history comes from real agents and a real relay (tests/oracle_recording.py); the mutation is what a bug would have
left behind. No planted bug is needed for it, and none can hide from it: the oracle sees what it is told, nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec
import pytest
from oracle_recording import Call, Recording, judged, recorded
from run_rig import busy_plan

from agent.protocol.messages import Compared, encode
from fleet.oracle import NAMES
from fleet.scenario.plan import Plan
from fleet.sweep.case import Case, source_of

DAY_US: Final = 86_400_000_000
CALM_US: Final = 300_000_000  # the first snapshots are over: just after one, old states may show
Mutation = Callable[[Recording], None]
MUTATIONS: dict[str, tuple[str, Mutation]] = {}


def mutation(check: str, history: str = "busy") -> Callable[[Mutation], Mutation]:
    """The check that must notice, and the history that is changed."""

    def add(function: Mutation) -> Mutation:
        MUTATIONS[function.__name__] = check, function
        HISTORY[function.__name__] = history
        return function

    return add


HISTORY: dict[str, str] = {}


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Recording]:
    """The histories, by name: each recorded once."""

    def plan(name: str, *overrides: str) -> Plan:
        return Case(source_of(name, overrides, 6), 1).plan()

    plans = {
        "busy": busy_plan(tmp_path_factory.mktemp("busy")),
        "lifetimes": plan("lifetimes"),
        "commands": plan("remote-commands"),
        "bit-rot": plan("bit-rot"),
        "poison": plan("poison"),
    }
    histories = {}
    for name, one in plans.items():
        histories[name] = recorded(one)
    return histories


def failed(history: Recording) -> list[str]:
    return [name for name, result in judged(history).items() if result.status == "fail"]


def test_the_histories_as_they_were_are_healthy_and_every_check_has_looked(healthy: dict[str, Recording]) -> None:
    looked: set[str] = set()
    for history in healthy.values():
        results = judged(history)
        assert [f"{name}: {one.detail}" for name, one in results.items() if one.status == "fail"] == []
        looked |= {name for name, one in results.items() if one.checked}
    assert set(NAMES) - looked == set()


def test_every_check_has_a_history_in_which_it_fires() -> None:
    assert {check for check, _ in MUTATIONS.values()} == set(NAMES)


# ---------------------------------------------------------------- ways to look


def about(prefix: str) -> Callable[[Call], bool]:
    """Calls of an application on a device about such an item."""
    return lambda call: call.values[2][1].startswith(prefix)


def commits(prefix: str, test: Callable[[Call], bool] = lambda call: True) -> Callable[[Call], bool]:
    return lambda call: call.record.key[1].startswith(prefix) and test(call)


def by_device(call: Call) -> bool:
    """A commit of an operation that a device has sent."""
    record = call.record
    return record.new is not None and "_op" in record.new and record.new["_op"] != (record.old or {}).get("_op")


def of_log(call: Call) -> bool:
    return call.record.key[0].startswith("_fleet#log") or call.record.key[0].startswith("_fleet#LOG")


def kind(name: str) -> Callable[[Call], bool]:
    return lambda call: call.message.get("t") == name


def commit(call: Call, **changes: Any) -> None:
    call.values[1] = msgspec.structs.replace(call.record, **changes)


# ---------------------------------------------------------------- the end


@mutation("convergence")
def a_device_has_not_what_the_table_has(history: Recording) -> None:
    items = next(items for items in history.read.values() if any(key[1] == "config#" for key, _, _ in items))
    items.remove(next(item for item in items if item[0][1] == "config#"))


@mutation("no-acked-write-lost")
def an_item_of_the_table_is_another_than_was_committed(history: Recording) -> None:
    item = next(item for item in history.final.values[2] if item["sk"] == "status#")
    item["rev"] -= 1


@mutation("every-change-logged")
def the_last_row_of_a_feed_was_never_written(history: Recording) -> None:
    del history.calls[history.last("committed", lambda call: of_log(call) and "key" in (call.record.new or {}))]


@mutation("no-epoch-change")
def a_device_took_another_identity(history: Recording) -> None:
    changes = history.final.values[4]
    changes[next(iter(changes))] += 1


@mutation("conservation")
def a_message_is_gone(history: Recording) -> None:
    history.calls[history.first("message_account")].values[2] += 1


# ---------------------------------------------------------------- what applications wrote and saw


@mutation("every-write-decided")
def an_application_is_told_that_an_accepted_write_was_lost(history: Recording) -> None:
    call = history.calls[history.first("device_verdict", lambda call: call.values[4] == "synced")]
    call.values[4] = "lost"


@mutation("nothing-invented")
def nobody_wrote_what_a_device_sends(history: Recording) -> None:
    del history.calls[history.first("device_wrote", about("status#"))]


@mutation("read-your-writes")
def an_application_reads_what_it_has_overwritten(history: Recording) -> None:
    index = history.first("device_wrote", lambda call: about("setting#")(call) and call.values[6] is not None)
    call = history.calls[index]
    history.insert(index + 1, "device_read", call.t_us, call.values[1], call.values[2], call.values[6])


@mutation("writes-survive-power-cuts")
def what_was_there_before_the_power_went_is_gone(history: Recording) -> None:
    index = history.first("device_reads", lambda call: any(key[1] == "status#" for key, _ in call.values[1]))
    call = history.calls[index]
    call.values[1] = [entry for entry in call.values[1] if entry[0][1] != "status#"]


@mutation("up-unchanged-by-sync")
def sync_changes_what_the_device_alone_owns(history: Recording) -> None:
    index = list(history.where("device_wrote", about("status#")))[3]
    call = history.calls[index]
    history.insert(index + 1, "device_saw", call.t_us, call.values[1], call.values[2], None, None)


def seen_twice(history: Recording, gone: bool) -> tuple[int, Call]:
    """Where a device sees the next state of a down item (`gone`: that it is gone), and the call by which it saw the
    state before."""
    before: dict[tuple[str, Any], Call] = {}
    for index in history.where("device_saw", lambda call: not about("setting#")(call)):
        call = history.calls[index]
        name = call.values[1], call.values[2]
        old = before.get(name)
        follows = old is not None and old.values[3] is not None and (call.values[3] is None) == gone
        if follows and call.t_us > CALM_US:
            assert old is not None
            return index, old
        before[name] = call
    raise AssertionError("no item was seen twice")


@mutation("monotone-reads")
def a_device_sees_an_older_state_again(history: Recording) -> None:
    index, old = seen_twice(history, gone=False)
    history.insert(index + 1, "device_saw", history.calls[index].t_us, *old.values[1:])


@mutation("no-resurrection")
def what_was_deleted_comes_back(history: Recording) -> None:
    index, old = seen_twice(history, gone=True)
    history.insert(index + 1, "device_saw", history.calls[index].t_us, *old.values[1:])


# ---------------------------------------------------------------- what the table commits


@mutation("no-double-apply")
def an_operation_takes_effect_apart_from_its_head(history: Recording) -> None:
    index = history.first("committed", commits("setting#", by_device))
    t_us = history.calls[index].t_us
    head = history.first("committed", lambda call: call.t_us == t_us and "head" in call.record.key[0].lower())
    del history.calls[head]


@mutation("conflict-policy")
def an_old_write_runs_over_a_newer_one(history: Recording) -> None:
    newest: dict[Any, Call] = {}
    for index in history.where("committed", commits("setting#")):
        call = history.calls[index]
        old = newest.get(call.record.key)
        if by_device(call) and old is not None:
            image = {**(old.record.new or {}), "updated": (call.record.new or {})["updated"] + DAY_US // 1000}
            commit(old, new=image)
            commit(call, old=image)
            return
        if call.record.new is not None and "_op" not in call.record.new:
            newest[call.record.key] = call
        else:
            newest.pop(call.record.key, None)
    raise AssertionError("no device wrote over a write of the cloud")


@mutation("feed-dense")
def a_number_of_a_feed_is_given_to_nobody(history: Recording) -> None:
    del history.calls[list(history.where("committed", of_log))[20]]


# ---------------------------------------------------------------- the wire


@mutation("no-gap")
def a_device_claims_rows_that_it_never_got(history: Recording) -> None:
    def claims(call: Call) -> bool:
        return kind("hello")(call) and "seq" in call.message["feeds"].get("device", {})

    call = history.calls[history.last("wire_up", claims)]
    message = call.message
    message["feeds"]["device"]["seq"] += 5
    call.say(message)


@mutation("direction")
def an_item_of_an_up_model_comes_down(history: Recording) -> None:
    call = history.calls[
        history.first(
            "wire_down", lambda call: kind("rows")(call) and any("image" in row for row in call.message["rows"])
        )
    ]
    message = call.message
    message["rows"][0]["key"] = [f"device#{call.values[1]}", "status#"]
    call.say(message)


@mutation("isolation")
def a_message_reaches_somebody_else(history: Recording) -> None:
    index = history.first("wire_down", lambda call: kind("rows")(call) and call.message["feed"] == "device")
    call = history.calls[index]
    other = next(name for name, _ in history.members if name != call.values[1])
    history.insert(index, "wire_down", call.t_us, other, call.values[2])


@mutation("resend-identical")
def a_row_that_was_sent_changes(history: Recording) -> None:
    index = history.first("wire_up", lambda call: kind("up")(call) and "image" in call.message["ops"][0])
    call = history.calls[index]
    message = call.message
    message["ops"][0]["updated"] += 1
    history.insert(index + 1, "wire_up", call.t_us, call.values[1], b"")
    history.calls[index + 1].say(message)


@mutation("quiet-after-convergence")
def something_goes_round_and_round(history: Recording) -> None:
    call = history.calls[history.last("wire_up", kind("up"))]
    for _ in range(100):
        history.insert(len(history.calls) - 1, "wire_up", history.final.t_us, call.values[1], call.values[2])


# ---------------------------------------------------------------- lives, periods, memory


@mutation("no-early-expiry", "lifetimes")
def the_table_sweeps_what_is_not_over(history: Recording) -> None:
    def lives(call: Call) -> bool:
        record = call.record
        return (
            record.new is None and not record.by_ttl and (record.old or {}).get("ttl", 0) * 1000 > record.at_ms + 60_000
        )

    commit(history.calls[history.first("committed", commits("lease#", lives))], by_ttl=True)


@mutation("expired-absent", "lifetimes")
def an_application_reads_what_is_over(history: Recording) -> None:
    is_order = about("order#")
    call = history.calls[history.first("device_saw", lambda call: is_order(call) and isinstance(call.values[4], dict))]
    history.read[call.values[1]].append((call.values[2], call.values[3], call.values[4]))


@mutation("sweeps-logged", "lifetimes")
def a_sweep_is_logged_as_any_deletion(history: Recording) -> None:
    for index in history.where("committed", lambda call: of_log(call) and "expired" in (call.record.new or {})):
        call = history.calls[index]
        commit(call, new={key: value for key, value in (call.record.new or {}).items() if key != "expired"})


@mutation("period-kept", "lifetimes")
def a_change_is_sent_at_once(history: Recording) -> None:
    for call in history.calls:
        if call.name == "device_booted":
            return
        if call.name == "device_wrote" and about("meter#")(call):
            call.values[0] += 60_000_000  # written a minute later, and sent when it was


@mutation("memory-only", "lifetimes")
def an_item_in_memory_is_in_the_file(history: Recording) -> None:
    key = next(call.values[2] for call in history.calls if call.name == "device_saw" and about("tariff#")(call))
    history.calls[history.last("device_file")].values[2].append(key)


# ---------------------------------------------------------------- commands


def ran(history: Recording) -> int:
    return history.first("command_ran", lambda call: call.values[3] != "reboot")


@mutation("command-at-most-once", "commands")
def a_command_is_done_again(history: Recording) -> None:
    index = ran(history)
    history.insert(index + 1, "command_ran", *history.calls[index].values)


@mutation("command-answered", "commands")
def what_is_said_to_be_done_was_not(history: Recording) -> None:
    del history.calls[ran(history)]


@mutation("command-not-expired", "commands")
def a_command_is_done_the_day_after(history: Recording) -> None:
    history.calls[ran(history)].values[0] += DAY_US


@mutation("command-after-clock", "commands")
def a_command_is_done_right_after_the_boot(history: Recording) -> None:
    index = ran(history)
    call = history.calls[index]
    history.insert(index, "device_booted", call.t_us, call.values[1])


@mutation("command-reboots-spaced", "commands")
def a_device_restarts_twice(history: Recording) -> None:
    index = ran(history)
    values = history.calls[index].values
    for _ in range(2):
        history.insert(index + 1, "command_ran", *values[:3], "reboot")


# ---------------------------------------------------------------- digests


@mutation("digest-heals", "bit-rot")
def a_damage_is_healed_a_day_late(history: Recording) -> None:
    history.calls[history.first("damage_healed")].values[4] += DAY_US


@mutation("no-false-alarm", "bit-rot")
def a_device_is_told_of_a_difference_that_is_none(history: Recording) -> None:
    message = encode(Compared(hn="hn", n=1, differs={"Config": "1" * 16}, heal=["Config"]))
    index = history.first("wire_down", kind("ack"))
    call = history.calls[index]
    history.insert(index, "wire_down", call.t_us, call.values[1], message)


@mutation("poison-passed", "poison")
def a_device_stays_before_a_poisoned_item(history: Recording) -> None:
    call = history.calls[history.first("poison_delivered")]
    call.values[4] -= 1
    call.named["moved"] = False


@pytest.mark.parametrize("name", list(MUTATIONS))
def test_a_mutated_history_is_caught(name: str, healthy: dict[str, Recording]) -> None:
    check, mutate = MUTATIONS[name]
    history = healthy[HISTORY[name]].copy()
    mutate(history)
    found = judged(history)[check]
    assert found.status == "fail", f"{check} has not noticed; {failed(history)} have"
    assert found.first and found.first[0].expected and found.first[0].found


# ---------------------------------------------------------------- what is excused, and only that


def test_a_text_that_rotted_on_the_disk_may_be_read_and_no_other(healthy: dict[str, Recording]) -> None:
    index = healthy["busy"].first("device_saw", about("config#"))
    seen = healthy["busy"].calls[index]
    rotten = {**seen.values[4], "text": "+" + seen.values[4]["text"][1:]}
    for told, expected in ((rotten["text"], "pass"), (rotten["text"] + "+", "fail"), (None, "fail")):
        history = healthy["busy"].copy()
        history.insert(index + 1, "device_saw", *seen.values[:4], rotten)
        if told is not None:
            history.insert(index + 1, "device_rotten", seen.values[1], seen.values[2], seen.values[3], told)
        assert judged(history)["nothing-invented"].status == expected


def test_a_restart_that_was_ordered_is_done_by_any_restart_after_the_order_came(healthy: dict[str, Recording]) -> None:
    """The order itself is never carried out: a restart by another cause is as good, and none is none."""
    history = healthy["commands"].copy()
    for index in list(history.where("command_ran", lambda call: call.values[3] == "reboot"))[::-1]:
        del history.calls[index]
    assert judged(history)["command-answered"].status == "pass"
    history.calls = [call for call in history.calls if call.name not in ("device_booted", "device_reads")]
    assert judged(history)["command-answered"].status == "fail"


def test_a_device_whose_disk_was_set_back_reads_what_it_had_and_nothing_else(healthy: dict[str, Recording]) -> None:
    """An item of its account that is long forgotten shows again after a restore, until sync takes it away."""
    calls = healthy["busy"].calls
    boot = healthy["busy"].last("device_reads")
    device, reads = calls[boot].values
    saw = [call for call in calls[:boot] if call.name == "device_saw" and call.values[1] == device]
    now = {call.values[2]: call for call in saw}
    key, rev = next(
        (call.values[2], call.values[3])
        for call in saw
        if about("notice#")(call) and call.values[3] is not None and now[call.values[2]].values[3] is None
    )
    for told, expected in ((True, "pass"), (False, "fail")):
        history = healthy["busy"].copy()
        had = [*reads, (key, rev)]
        history.calls[boot].values[1] = had
        if told:
            booted = max(i for i in history.where("device_booted") if i < boot)
            history.insert(booted, "device_restored", history.calls[booted].t_us, device, had)
        assert judged(history)["writes-survive-power-cuts"].status == expected
