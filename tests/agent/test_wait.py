"""The relay asks for quiet (`wait`): the device says nothing for that time, loses nothing, and goes on by itself."""

from __future__ import annotations

import pytest
from device_rig import Device, Pair
from relay_rig import Rig, hello, op, status, up

from agent.config import AgentConfig
from agent.protocol.errors import MessageError
from agent.protocol.messages import OVERLOAD, RATE, Ack, Wait, decode_to_device, encode
from cloud.config import RelayConfig

PAUSE_MS = 60_000


def settled() -> Pair:
    pair = Pair()
    pair.act(pair.device.boot)
    pair.connect()
    pair.drain(60_000)
    return pair


def asked_to_wait(pair: Pair, retry_after: int = PAUSE_MS, hn: str | None = None) -> int:
    """When it may speak again, at the latest."""
    wait = Wait(hn=pair.device.session.hn if hn is None else hn, retry_after=retry_after, reason=OVERLOAD)
    pair.deliver_down(encode(wait))
    pair.up.clear()
    return pair.rig.now_ms + 2 * min(retry_after, AgentConfig().pause_max_ms)


def quiet_until(pair: Pair) -> int:
    """Lets time pass until the device speaks; when that was."""
    for _ in range(1_000):
        pair.collect()
        if pair.up:
            return pair.rig.now_ms
        at_ms = pair.device.booted_ms + pair.device.session.timer_at_ms
        pair.pass_time(max(1, at_ms - pair.rig.now_ms))
    raise AssertionError("it never spoke again")


def test_nothing_is_said_for_that_time_and_then_everything() -> None:
    pair = settled()
    begin_ms = pair.rig.now_ms
    latest_ms = asked_to_wait(pair)
    for rev in range(1, 4):
        pair.write("upsert", "Status", {"rev": rev})
    assert pair.up == [] and pair.device.session.wait_reason == OVERLOAD
    assert begin_ms + PAUSE_MS <= quiet_until(pair) <= latest_ms
    pair.drain(60_000)
    item = pair.rig.item(status(3)[0])
    assert item is not None and item["rev"] == 3
    assert pair.device.store.outbox_rows == 0 and pair.device.session.wait_reason == ""


def test_a_batch_in_flight_is_not_sent_again_before_and_is_the_same_after() -> None:
    pair = settled()
    pair.write("upsert", "Status", {"rev": 1})
    (sent,) = pair.up
    begin_ms = pair.rig.now_ms
    asked_to_wait(pair)
    assert quiet_until(pair) >= begin_ms + PAUSE_MS
    while sent not in pair.up:
        pair.pass_time(1_000)
    pair.drain(60_000)
    assert pair.device.store.outbox_rows == 0


def test_a_new_connection_does_not_end_the_quiet() -> None:
    pair = settled()
    begin_ms = pair.rig.now_ms
    asked_to_wait(pair, 10 * 60_000)
    pair.write("upsert", "Status", {"rev": 1})
    pair.disconnect()
    pair.connect()
    assert pair.up == []
    assert quiet_until(pair) >= begin_ms + 10 * 60_000


def test_what_comes_down_meanwhile_counts_and_a_gap_asks_later() -> None:
    pair = settled()
    asked_to_wait(pair)
    pair.pass_time(1_000)
    pair.act(lambda: pair.device.session.want_hello(0))
    assert pair.up == []
    pair.drain(10 * 60_000)
    assert pair.device.session.wait_reason == ""


@pytest.mark.parametrize("retry_after", [0, 1, 1 << 52])
def test_any_time_that_is_asked_for_ends(retry_after: int) -> None:
    pair = settled()
    latest_ms = asked_to_wait(pair, retry_after)
    pair.write("upsert", "Status", {"rev": 1})
    assert quiet_until(pair) <= latest_ms + 1


def test_an_old_word_or_a_broken_one_changes_nothing() -> None:
    pair = settled()
    asked_to_wait(pair, hn="of another boot")
    pair.write("upsert", "Status", {"rev": 1})
    assert len(pair.up) == 1 and pair.device.probes["stale_wait"] == 1
    pair.up.clear()
    pair.deliver_down(encode(Wait(hn=pair.device.session.hn, retry_after=-1, reason=RATE)))
    assert pair.device.probes["message_refused_malformed"] == 1


def test_many_devices_do_not_come_back_at_once() -> None:
    seen = set()
    for seed in range(20):
        device = Device(seed=seed).boot()
        device.connect()
        device.hear(encode(Wait(hn=device.session.hn, retry_after=PAUSE_MS, reason=OVERLOAD)))
        seen.add(device.session.timer_at_ms)
    assert len(seen) > 15


# ---------------------------------------------------------------- when the relay says so


def test_a_flood_of_batches_is_answered_up_to_the_measure_and_told_once_a_window() -> None:
    rig = Rig(RelayConfig(up_per_window=3))
    rig.send(hello())
    rig.now_ms += RelayConfig().hello_window_ms
    batch = up(op(1, "create", status(1)))
    answers = [rig.send(batch) for _ in range(6)]
    assert [type(sent[0]).__name__ if sent else "" for sent in answers] == ["Ack"] * 3 + ["Wait", "", ""]
    assert len(rig.send(hello())) == 1 and len(rig.send(hello("f" * 32), "home-2")) == 1
    rig.now_ms += 20_000
    (told,) = rig.send(hello()) and rig.send(hello())
    assert isinstance(told, Ack)
    rig.now_ms += RelayConfig().hello_window_ms
    assert [type(sent).__name__ for sent in rig.send(batch)] == ["Ack"]


def test_a_message_without_room_is_answered_without_a_look_at_the_table() -> None:
    rig = Rig()
    rig.execute = None  # type: ignore[method-assign, assignment]
    for message, compact in ((hello(), False), (up(op(1, "create", status(1))), True)):
        (answer,) = rig.run(rig.relay.on_overload("home-1", encode(message, compact=compact)))
        assert answer == Wait(hn="hn", retry_after=RelayConfig().overload_retry_ms, reason=OVERLOAD)
    assert rig.run(rig.relay.on_overload("nobody", encode(hello()))) == []
    assert rig.run(rig.relay.on_overload("home-1", b"{")) == []
    assert rig.counters == {
        "message_refused_overload": 2, "message_refused_device": 1, "message_refused_malformed": 1,
    }  # fmt: skip


def test_an_agent_that_does_not_know_the_message_counts_it() -> None:
    payload = encode(Wait(hn="x", retry_after=1, reason=RATE)).replace(b'"wait"', b'"wait2"')
    with pytest.raises(MessageError, match="kind of message"):
        decode_to_device(payload)
    assert isinstance(decode_to_device(encode(Wait(hn="x", retry_after=1, reason="new"))), Wait)
