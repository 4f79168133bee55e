"""Remote commands on one device: what is done, how often, and what is said of it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any

import pytest
from device_rig import PowerCut, arm
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from relay_rig import NOW_MS
from remote_rig import MINUTE_MS, SCHEMA, Remote, command, ups

from agent.events import STOP
from agent.files import open_memory
from agent.protocol.messages import Ack, Reset
from agent.protocol.remote import RESULT
from agent.remote.events import LOOK, CommandConfig, Finished, Look, Reboot, Reconnect, Run, WakeAt
from agent.remote.handlers import Handlers, NoArguments
from agent.store import Store

QUICK = CommandConfig(settle_ms=0, running_max=1)
REBOOTS = CommandConfig(settle_ms=0, allow_reboot=True)


def again(device: Remote, **changed: Any) -> Remote:
    """The same file after another boot."""
    device.off()
    options = {"commands": device.commands, **changed}
    other = Remote(connection=device.connection, **options)
    other.set_ms, other.boots, other.ran = device.set_ms, device.boots, device.ran
    return other


# ---------------------------------------------------------------- once


def test_a_command_is_recorded_done_and_answered() -> None:
    device = Remote().join()
    device.order("c1", args={"times": 3})
    assert device.ran == [("c1", "blink")]
    assert device.result("c1") | {"state": "started", "name": "blink"} == device.result("c1")
    device.finish()
    result = device.result("c1")
    assert (result["state"], result["data"]) == ("done", {"times": 3})
    assert result["finished"] >= result["started"]
    device.acknowledge()
    assert ups(device) == [("command-result#c1", "started"), ("command-result#c1", "done")]


def test_the_record_is_durable_before_the_driver_hears_of_the_command() -> None:
    device = Remote().join()
    seen: list[tuple[bool, str]] = []
    give = device.give

    def spy(event: Any) -> None:
        give(event)
        for effect in device.effects:
            if isinstance(effect, Run):
                seen.append((device.connection.in_transaction, device.state(effect.id)))

    device.give = spy  # type: ignore[method-assign]
    device.order("c1")
    assert seen[0] == (False, "started")


@pytest.mark.parametrize("state", ["started", "ended"])
def test_what_comes_again_is_not_done_again(state: str) -> None:
    device = Remote().join()
    device.order("c1")
    if state == "ended":
        device.finish()
    device.order("c1", rev=2, name="quiet")  # changed in the cloud, too
    device.withdraw("c1")
    device.order("c1")
    device.session.nonces["device"] = "n"
    device.snapshot(command("c1"), seq=20)
    device = again(device).boot()
    device.meet()
    assert device.ran == [("c1", "blink")]


def test_a_command_with_a_result_is_never_done_also_in_another_feed_epoch() -> None:
    device = Remote().join()
    device.order("c1")
    device.finish()
    with device.store.transaction():
        device.store.drop_cursor("device")
    device.look()
    device.snapshot(command("c1", rev=9), command("c2"))
    assert device.ran == [("c1", "blink"), ("c2", "blink")]


def test_nothing_is_done_before_the_relay_has_told_the_time() -> None:
    device = Remote(commands=QUICK).join()
    device.order("c1", "quiet")
    device.order("c2", "quiet")
    device = again(device)
    device.wall_offset_ms = -50 * 365 * 24 * 3_600_000
    device.boot()
    device.connect()
    assert device.ran == [("c1", "quiet")] and device.states() == {"c1": "started"}
    hello = device.sent()[0]
    known = device.store.identity
    device.hear(Ack(epoch=known.epoch, up=known.acked_u, upid=known.acked_id, now=device.set_ms))  # answers nothing
    assert device.ran == [("c1", "quiet")]
    device.meet_hello(hello)
    assert device.states() == {"c1": "interrupted", "c2": "started"}
    assert device.ran == [("c1", "quiet"), ("c2", "quiet")]


def test_nothing_is_done_while_the_epoch_is_not_adopted() -> None:
    device = Remote().join()
    device.session.replica.mint("other")
    device.order_in_base("c1")
    device.look()
    assert device.ran == []


def test_a_power_cut_at_any_statement_leaves_a_command_done_at_most_once() -> None:
    done = []
    for statements in range(120):
        device = Remote().join()
        arm(device.store, statements)
        ended = False
        try:
            device.order("c1")
            device.finish()
            device.order("c2")
            device.finish()
            ended = True
        except PowerCut:
            pass
        ran = list(device.ran)
        device = again(device).boot()
        device.meet()
        device.finish()
        for command_id in ("c1", "c2"):
            times = [one for one, _ in device.ran].count(command_id)
            assert times <= 1
            if device.knows(command_id):
                expected = ("done",) if times and (command_id, "blink") not in ran else ("done", "interrupted")
                assert device.state(command_id) in expected
                assert times or device.state(command_id) == "interrupted"
        done.append(len(device.ran))
        if ended:
            break
    else:
        pytest.fail("the power failed at every one of 120 statements")
    assert {0, 1, 2} <= set(done)


def test_what_was_cut_off_is_told_once_and_never_taken_up_again() -> None:
    device = Remote().join()
    device.order("c1")
    device = again(device).boot()
    device.meet()
    assert device.state("c1") == "interrupted" and device.ran == [("c1", "blink")]
    stamp = device.result("c1")["finished"]
    device = again(device).boot()
    device.set_ms += 1000
    device.meet()
    assert device.result("c1")["finished"] == stamp and device.probes["command_interrupted"] == 0


def test_an_end_that_nobody_waits_for_changes_nothing() -> None:
    device = Remote().join()
    device.end("c1")
    device.order("c1")
    device.finish()
    device.end("c1", {"times": 99})
    assert device.result("c1")["data"] == {"times": 1}
    assert device.probes["command_end_unknown"] == 2


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from(["order", "again", "finish", "boot", "withdraw", "cut", "late", "resync"]), max_size=14)
)
def test_whatever_happens_a_command_is_done_at_most_once_and_its_answer_stays(steps: list[str]) -> None:
    device = Remote().join()
    final: dict[str, str] = {}
    number = 0
    for step in steps:
        last = f"c{number}"
        if step == "order":
            number += 1
            device.order(f"c{number}")
        elif step == "again" and number:
            device.order(last, rev=number + 10)
        elif step == "finish":
            device.finish()
        elif step == "withdraw" and number:
            device.withdraw(last)
        elif step == "late":
            device.set_ms += 7 * MINUTE_MS
            device.look()
        elif step == "resync":
            device.rows(command(f"r{len(device.ran)}", "resync", expires_ms=device.set_ms + MINUTE_MS))
            if not device.online:
                device.meet()
        elif step in ("boot", "cut"):
            if step == "cut" and number:
                arm(device.store, number)
                with pytest.raises(PowerCut):
                    for more in range(9):
                        device.order(last, rev=100 + more)
            device = again(device).boot()
            device.meet()
        ids = [one for one, _ in device.ran]
        assert len(ids) == len(set(ids))
        states = device.states()
        for command_id, state in final.items():
            assert states[command_id] == state
        final |= {command_id: state for command_id, state in states.items() if state != "started"}


# ---------------------------------------------------------------- the relay has the record


def recorded() -> Remote:
    """A command is recorded, and the relay has not taken the record yet."""
    device = Remote(commands=CommandConfig(settle_ms=0, allow_reboot=True)).join()
    device.confirms = False
    device.order("c1")
    assert device.states() == {"c1": "started"} and device.ran == []
    return device


def test_nothing_is_done_before_the_relay_has_the_record() -> None:
    device = recorded()
    device.end("c1", {"times": 1})
    device.drop()
    device.connect()
    device.look()
    assert device.states() == {"c1": "started"} and device.ran == []
    device.acknowledge()
    assert device.ran == [("c1", "blink")]


def test_a_record_that_the_relay_rejects_is_known_to_it_all_the_same() -> None:
    device = recorded()
    last = device.store.in_flight[-1]
    ack = Ack(epoch=device.store.identity.epoch, up=last.u, upid=last.id, now=device.set_ms)
    device.hear(replace(ack, verdicts={last.u: "invalid"}))
    assert device.ran == [("c1", "blink")]


def test_a_command_that_expires_while_the_record_is_on_its_way_is_not_done() -> None:
    device = recorded()
    device.set_ms += 11 * MINUTE_MS
    device.acknowledge()
    assert device.states() == {"c1": "expired"} and device.ran == []


def test_a_command_that_is_withdrawn_while_the_record_is_on_its_way_is_not_done() -> None:
    device = recorded()
    device.withdraw("c1")
    device.acknowledge()
    assert device.result("c1")["code"] == "withdrawn" and device.ran == []


def test_a_new_epoch_while_the_record_is_on_its_way_makes_it_the_past() -> None:
    device = recorded()
    device.order("c2", "quiet")
    device.hear(Reset(hn=device.session.hn, head_epoch="another"))
    device.confirms = True
    device.meet_again(command("c1"), command("c2"), command("c3"))
    assert {command_id: device.result(command_id).get("code") for command_id in device.states()} == {
        "c1": "unknown_past", "c2": "unknown_past", "c3": "unknown_past",
    }  # fmt: skip
    assert device.ran == []
    device.order("c4")
    assert device.ran == [("c4", "blink")]


def test_a_reboot_that_was_not_done_does_not_count() -> None:
    device = recorded()
    device.acknowledge()
    device.finish()
    device.order("c2", "reboot")
    device.withdraw("c2")
    device.acknowledge()
    assert device.result("c2")["code"] == "withdrawn"
    device.confirms = True
    device.order("c3", "reboot")
    assert device.ran == [("c1", "blink"), ("c3", "reboot")]


# ---------------------------------------------------------------- not done


def test_a_command_that_has_expired_is_not_done() -> None:
    device = Remote().join()
    device.order("c1", expires_ms=device.set_ms)
    device.order("c2", expires_ms=device.set_ms + 1)
    assert device.states() == {"c1": "expired", "c2": "started"}


def test_a_command_that_expired_long_ago_gets_no_answer_for_it_may_have_had_one() -> None:
    config = CommandConfig(settle_ms=0, keep_ms=20 * MINUTE_MS)
    device = Remote(commands=config).join()
    device.order("c1")
    device.finish()
    ttl = device.result("c1")["ttl"]
    device.set_ms += 32 * MINUTE_MS
    device.look()
    device.database.expire()
    assert device.states() == {} and ttl.timestamp() * 1000 < device.set_ms
    device = again(device).boot()
    device.meet()
    device.order("c1", rev=2)
    assert device.states() == {} and device.ran == [("c1", "blink")]
    assert device.probes["command_forgotten"] >= 1


def test_a_result_outlives_its_command_however_long_that_is_good_for() -> None:
    device = Remote().join()
    far_ms = NOW_MS + 29 * 24 * 60 * MINUTE_MS
    device.order("c1", expires_ms=far_ms)
    device.finish()
    assert device.result("c1")["ttl"].timestamp() * 1000 >= far_ms + device.commands.keep_ms


def test_a_withdrawn_command_is_not_done() -> None:
    device = Remote(commands=QUICK).join()
    device.order("c1")
    device.order("c2")
    device.withdraw("c2")
    device.finish()
    assert device.states() == {"c1": "done"} and len(device.ran) == 1


def test_after_a_boot_there_is_time_to_hear_that_an_order_was_withdrawn() -> None:
    device = Remote(commands=QUICK).join()
    device.order("c1")
    device.order("c2")
    device.order("c3")
    device = again(device, commands=CommandConfig()).boot()
    device.meet()
    assert device.states() == {"c1": "interrupted"}
    device.withdraw("c2")
    wait_ms = device.waking_ms() - device.monotonic_ms()
    assert wait_ms == CommandConfig().settle_ms
    device.set_ms += wait_ms
    device.look()
    assert device.ran == [("c1", "blink"), ("c3", "blink")]


@pytest.mark.parametrize(
    ("more", "code", "words"),
    [
        ({"name": "sing"}, "unknown", "sing"),
        ({"name": ""}, "invalid", "name"),
        ({"name": None}, "invalid", "name"),
        ({"name": 7}, "invalid", "name"),
        ({"args": {"times": "two"}}, "invalid", "times"),
        ({"args": {"tiems": 2}}, "invalid", "tiems"),
        ({"args": [1]}, "invalid", "object"),
        ({"name": "quiet", "args": {"a": 1}}, "invalid", "a"),
        ({"name": "reboot", "args": {"now": True}}, "invalid", "now"),
        ({"name": "reboot"}, "not_allowed", "allow"),
        ({"expires_ms": None}, "invalid", "expires"),
        ({"expires_ms": "soon"}, "invalid", "expires"),
        ({"expires_ms": NOW_MS + 31 * 24 * 60 * MINUTE_MS}, "invalid", "expires"),
    ],
)
def test_a_command_that_cannot_be_done_is_refused(more: dict[str, Any], code: str, words: str) -> None:
    device = Remote().join()
    device.order("c1", **more)
    result = device.result("c1")
    assert (result["state"], result["code"]) == ("refused", code) and words in result["message"]
    assert device.ran == [] and "started" not in result


def test_words_of_others_are_cut_to_a_limit() -> None:
    device = Remote().join()
    device.order("c1", "n" * 5000)
    device.order("c2", "fail")
    device.finish()
    assert len(device.result("c1")["name"]) == device.commands.text_chars_max
    message = device.result("c2")["message"]
    assert message.startswith("OSError: no such lamp xxx") and len(message) == device.commands.text_chars_max


# ---------------------------------------------------------------- how it ends


@pytest.mark.parametrize(
    ("data", "state", "code", "words"),
    [
        (None, "done", None, ""),
        ({}, "done", None, ""),
        ({"a": [1, {"b": None}]}, "done", None, ""),
        ({"a": "x" * 20_000}, "done", "too_large", "20008 bytes"),
        ({"a": object()}, "failed", None, "cannot be stored"),
        ({"a": "\ud800"}, "failed", None, "cannot be stored"),
        ({"a": float("nan")}, "failed", None, "cannot be stored"),
        ([1, 2], "failed", None, "[1, 2]"),
        ({"a": 10**40 + 1}, "failed", None, "cannot be stored"),
    ],
)
def test_a_result_is_bounded_and_always_can_be_stored(data: Any, state: str, code: str | None, words: str) -> None:
    device = Remote().join()
    device.order("c1")
    device.end("c1", data)
    result = device.result("c1")
    assert (result["state"], result.get("code")) == (state, code) and words in result.get("message", "")
    assert device.database.check() == []
    device.order("c2")
    assert device.state("c2") == "started"


def test_a_handler_that_raises_has_failed() -> None:
    device = Remote().join()
    device.order("c1", "fail")
    device.finish()
    assert device.state("c1") == "failed" and "data" not in device.result("c1")


def test_a_result_that_the_application_has_removed_is_not_made_again() -> None:
    device = Remote().join()
    device.order("c1")
    device.database.remove(RESULT, {"id": "c1"})
    device.finish()
    assert device.states() == {} and device.probes["command_result_missing"] == 1


def test_an_end_that_could_not_be_written_is_written_at_the_next_call() -> None:
    device = Remote().join()
    device.order("c1")
    device.acknowledge()
    arm(device.store, 1)
    with pytest.raises(PowerCut):  # any error of the disk
        device.end("c1", {"times": 1})
    device.store.execute = device.connection.cursor().execute
    assert device.state("c1") == "started"
    device.look()
    assert device.state("c1") == "done"


def fill(store: Store, room: int) -> Callable[[], bool]:
    """The disk is full after so many writes. Returns what makes room again, and says whether one was refused."""
    execute = store.execute
    left = room

    def refuse(sql: str, values: Any = ()) -> sqlite3.Cursor:
        nonlocal left
        if sql.startswith(("INSERT", "UPDATE", "REPLACE", "DELETE")):
            left -= 1
            if left < 0:
                raise sqlite3.OperationalError("database or disk is full")
        return execute(sql, values)

    def repair() -> bool:
        store.execute = execute
        return left < 0

    store.execute = refuse
    return repair


@pytest.mark.parametrize("name", ["blink", "resync"])
def test_what_was_decided_is_done_once_though_the_disk_is_full_at_any_write(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record of the first is confirmed; in the same call the second is looked at."""
    seen = []
    for room in range(40):
        device = Remote().join()
        device.confirms = False
        device.order("c1", name)
        with monkeypatch.context() as patch:
            patch.setattr(device, "give", lambda _: None)
            device.order("c2")
            device.acknowledge()
        repair = fill(device.store, room)
        errors = 0
        for _ in range(2):
            try:
                device.give(LOOK)
            except sqlite3.OperationalError:
                errors += 1
        begun = [type(effect) for effect in device.effects if isinstance(effect, Run | Reconnect)]
        was_full = repair()
        assert name == "resync" or bool(errors) == was_full, "the driver hears of it"
        device.confirms = True
        device.look()
        if not device.online:
            device.meet(command("c1", name), command("c2"))
        device.confirm()
        reconnects = sum(isinstance(effect, Reconnect) for effect in device.effects)
        device.finish()
        assert device.states() == {"c1": "done", "c2": "done"}
        assert (reconnects, sorted(one for one, _ in device.ran)) == (
            (0, ["c1", "c2"]) if name == "blink" else (1, ["c2"])
        )
        seen.append((was_full, bool(begun)))
        if not was_full:
            break
    else:
        pytest.fail("the disk was full at every one of 40 writes")
    assert (True, True) in seen and seen[-1] == (False, True)


def test_several_run_at_once_and_the_others_wait_and_may_expire() -> None:
    device = Remote(commands=CommandConfig(settle_ms=0, running_max=2)).join()
    for number in range(5):
        device.order(f"c{number}", expires_ms=device.set_ms + (number + 1) * MINUTE_MS)
    assert [one for one, _ in device.ran] == ["c0", "c1"]
    assert device.waking_ms() == device.monotonic_ms() + 3 * MINUTE_MS
    device.end("c0")
    assert [one for one, _ in device.ran] == ["c0", "c1", "c2"]
    device.set_ms += 4 * MINUTE_MS
    device.give(LOOK)
    assert device.states() == {"c0": "done", "c1": "started", "c2": "started", "c3": "expired"}
    assert isinstance(device.effects[-1], WakeAt) and device.waking_ms() == device.monotonic_ms() + MINUTE_MS
    device.end("c1")
    assert device.state("c4") == "started"


# ---------------------------------------------------------------- built in


def test_a_reboot_is_recorded_and_done_when_the_machine_is_up_again() -> None:
    device = Remote(commands=REBOOTS).join()
    device.order("c1", "reboot")
    assert isinstance(device.effects[-1], Reboot) and device.state("c1") == "started"
    device.order("c2")
    assert device.state("c2") == "", "nothing is begun any more"
    device.feed(STOP)
    device = again(device).boot()
    device.meet()
    assert device.states() == {"c1": "done", "c2": "started"}
    assert device.ran == [("c1", "reboot"), ("c2", "blink")]


def test_a_restart_of_the_agent_alone_is_no_reboot() -> None:
    device = Remote(commands=REBOOTS)
    device.boot_id = "same"
    device.join()
    device.order("c1", "reboot")
    device = again(device)
    device.boot_id = "same"
    device.boot()
    device.meet()
    assert device.state("c1") == "interrupted"
    device.order("c2", "reboot")
    assert device.result("c2")["code"] == "too_soon"


def test_a_reboot_that_cannot_be_done_has_failed_and_others_go_on() -> None:
    device = Remote(commands=REBOOTS).join()
    device.order("c1", "reboot")
    device.order("c2")
    device.fail("c1", "not permitted")
    assert device.states() == {"c1": "failed", "c2": "started"}
    assert device.result("c1")["message"] == "not permitted"


def test_a_device_restarts_at_most_once_in_ten_minutes_whatever_restarts_in_between() -> None:
    device = Remote(commands=REBOOTS).join()
    device.order("c1", "reboot")
    device = again(device).boot()
    device.meet()
    device.set_ms += 9 * MINUTE_MS
    device.order("c2", "reboot", expires_ms=device.set_ms + MINUTE_MS)
    assert device.result("c2")["code"] == "too_soon"
    device.set_ms += MINUTE_MS
    device.order("c3", "reboot", expires_ms=device.set_ms + MINUTE_MS)
    assert device.state("c3") == "started" and device.ran == [("c1", "reboot"), ("c3", "reboot")]


def test_the_ten_minutes_count_from_the_restart_however_long_its_record_was_on_its_way() -> None:
    device = Remote(commands=REBOOTS).join()
    device.confirms = False
    device.order("c1", "reboot")
    device.set_ms += 9 * MINUTE_MS
    device.acknowledge()
    assert device.ran == [("c1", "reboot")]
    device.confirms = True
    for _ in range(2):  # at the boot after it, and at the one after that
        device = again(device).boot()
        device.meet()
        device.set_ms += 3 * MINUTE_MS
        device.order(f"c{device.set_ms}", "reboot", expires_ms=device.set_ms + MINUTE_MS)
        assert device.result(f"c{device.set_ms}")["code"] == "too_soon"


def test_a_reboot_waits_for_what_runs() -> None:
    device = Remote(commands=REBOOTS).join()
    device.order("c1")
    device.order("c2", "reboot")
    assert device.states() == {"c1": "started"}
    device.finish()
    assert device.states() == {"c1": "done", "c2": "started"}


def test_what_expires_while_a_reboot_waits_for_the_relay_is_answered_in_time() -> None:
    device = Remote(commands=REBOOTS).join()
    device.confirms = False
    device.order("c1", "reboot")
    device.order("c2", "reboot", expires_ms=device.set_ms + MINUTE_MS)
    device.order("c3", "resync", expires_ms=device.set_ms + 2 * MINUTE_MS)
    device.order("c4", expires_ms=device.set_ms + 3 * MINUTE_MS)
    device.order("c5", "unheard-of")
    assert device.states() == {"c1": "started", "c5": "refused"}
    assert device.waking_ms() == device.monotonic_ms() + MINUTE_MS
    for last in ("c2", "c3"):
        device.set_ms += MINUTE_MS
        device.look()
        assert device.state(last) == "expired" and device.ran == []
    assert device.state("c4") == "", "nothing is begun while a reboot is"
    assert device.waking_ms() == device.monotonic_ms() + MINUTE_MS
    device.acknowledge()
    assert device.ran == [("c1", "reboot")] and device.state("c4") == ""


def test_a_resync_fetches_everything_anew() -> None:
    device = Remote().join()
    device.order("c1", "resync")
    assert any(isinstance(effect, Reconnect) for effect in device.effects)
    assert device.result("c1")["data"] == {"feeds": ["device"]} and device.store.cursors == {}
    device.meet(command("c1"), command("c2"))
    assert device.states() == {"c1": "done", "c2": "started"}


# ---------------------------------------------------------------- what a device does not know


def test_a_new_database_refuses_what_was_there_before_it() -> None:
    device = Remote().boot()
    device.meet(command("c1"), command("c2", expires_ms=NOW_MS - 8 * 24 * 60 * MINUTE_MS))
    assert device.result("c1")["code"] == "unknown_past" and device.state("c2") == "" and device.ran == []
    device.order("c3")
    device.order("c1", rev=2)
    assert device.ran == [("c3", "blink")]


def test_a_power_cut_while_the_past_is_settled_changes_nothing_of_that() -> None:
    for statements in range(90):
        device = Remote().boot()
        arm(device.store, statements)
        ended = False
        try:
            device.meet(command("c1"), command("c2"))
            ended = True
        except PowerCut:
            pass
        device = again(device).boot()
        device.meet(command("c1"), command("c2"))
        assert device.states() == {"c1": "refused", "c2": "refused"} and device.ran == []
        if ended:
            return
    pytest.fail("the power failed at every one of 90 statements")


def test_a_database_from_a_backup_refuses_what_it_may_have_done() -> None:
    device = Remote().join()
    backup = open_memory()
    device.connection.backup(backup)
    device.order("c1")
    device.finish()
    head = (device.store.identity.acked_u, device.store.identity.acked_id)
    restored = Remote(connection=backup).boot()
    restored.connect()
    hello = restored.sent()[0]
    epoch = restored.store.identity.epoch
    device.acknowledge()
    head = (device.store.identity.acked_u, device.store.identity.acked_id)
    restored.hear(Ack(epoch=epoch, up=head[0], upid=head[1], now=NOW_MS, n=getattr(hello, "n", 0)))
    assert restored.session.mints == 1 and not restored.commander.is_ready  # though it knows the time
    restored.meet_again(command("c1"))
    assert restored.result("c1")["code"] == "unknown_past" and restored.ran == []
    restored.order("c2")
    assert restored.ran == [("c2", "blink")]


def test_an_epoch_that_is_kept_over_a_boot_makes_nothing_the_past() -> None:
    device = Remote(commands=QUICK).join()
    device.order("c1")
    device.order("c2")
    device = again(device).boot()
    device.meet()
    assert device.states() == {"c1": "interrupted", "c2": "started"}


# ---------------------------------------------------------------- handlers and settings


def test_a_table_of_handlers_refuses_what_cannot_work() -> None:
    table = Handlers()
    table.add("a", lambda _: None)
    for name in ("a", "reboot", "resync", "", "1a", "a b", "a" * 65, "ä"):
        with pytest.raises(ValueError, match=r"cannot be a command|already"):
            table.add(name, lambda _: None)
    with pytest.raises(TypeError):
        table.add("b", lambda _: None, arguments=print)
    assert list(table) == ["a"] and table.get("b") is None
    handler = table.get("a")
    assert handler is not None and handler.arguments is NoArguments


@pytest.mark.parametrize(
    "wrong",
    [{"running_max": 0}, {"result_bytes_max": 0}, {"settle_ms": -1}, {"keep_ms": 1}, {"reboot_spacing_ms": -1}],
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must"):
        CommandConfig(**wrong)  # type: ignore[arg-type]


def test_an_event_that_comes_out_of_a_call_waits_for_its_end() -> None:
    device = Remote().join()
    commander = device.commander
    inner: list[Any] = []
    device.database.on(RESULT, "created", lambda _: inner.append(commander.receive(Finished("c1"), 0)))
    device.database.on(RESULT, "created", lambda _: inner.append(commander.receive(Look(), 0)))
    device.order("c1")
    assert inner == [[], []] and device.ran == [("c1", "blink")]
    assert device.probes["command_end_unknown"] == 1, "it had not begun"


def test_the_shipped_schema_has_what_commands_need() -> None:
    assert {"Command", "CommandResult"} <= set(SCHEMA.models)
