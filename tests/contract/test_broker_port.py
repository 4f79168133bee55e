"""What MQTT brokers do, one body of tests for the simulated one and for mosquitto under MQTT 3.1.1 and 5.

A time is waited for by what happens elsewhere in that time. Where a broker is known to differ, tests/deviations.py says
so by name, and the very same assertions must fail on it.
"""

from __future__ import annotations

import pytest
from broker_port import IN_FLIGHT_MAX, PAYLOAD_MAX, QUEUE_MAX, BrokerPort, LastWill, Message, Peer
from deviations import deviating

GONE = LastWill("watch/a", "gone")


def numbers(first: int, end: int) -> list[str]:
    return [str(number) for number in range(first, end)]


# Messages.


@pytest.mark.parametrize("qos", [0, 1])
def test_a_message_of_a_device_comes_once_to_the_cloud_and_to_each_subscriber(broker: BrokerPort, qos: int) -> None:
    one, other = broker.peer("one", {"up/a": 1}), broker.peer("other", {"up/+": 1})
    device = broker.peer("a")
    for text in numbers(0, 5):
        assert device.send("up/a", text, qos)
    broker.until(lambda: len(broker.cloud) == 5 == len(one.got) == len(other.got), "all have come")
    broker.settle()
    assert sorted(broker.cloud) == numbers(0, 5)
    assert one.got == other.got == [Message("up/a", text, qos) for text in numbers(0, 5)]


@pytest.mark.parametrize("qos", [0, 1])
def test_a_message_of_the_cloud_comes_once_to_each_subscriber(broker: BrokerPort, qos: int) -> None:
    one, other = broker.peer("one", {"down/one": 1, "all": 1}), broker.peer("other", {"down/other": 1, "all": 1})
    for topic in ("down/one", "all"):
        broker.from_cloud(topic, f"to {topic}", qos)
        broker.settle()
    assert one.got == [Message("down/one", "to down/one", qos), Message("all", "to all", qos)]
    assert other.got == [Message("all", "to all", qos)]


def test_a_message_comes_with_no_more_than_the_qos_of_the_subscription(broker: BrokerPort) -> None:
    modest, keen = broker.peer("modest", {"all": 0}), broker.peer("keen", {"all": 1})
    for qos in (0, 1):
        broker.from_cloud("all", f"qos {qos}", qos)
        broker.settle()
    assert [message.qos for message in modest.got] == [0, 0]
    assert [message.qos for message in keen.got] == [0, 1]


def test_only_qos_1_is_acknowledged_and_only_what_the_broker_has(broker: BrokerPort) -> None:
    watch, device = broker.peer("watch", {"t/#": 1}), broker.peer("a")
    device.send("t/a", "never", 0)
    device.send("t/a", "first")
    broker.until(lambda: device.acked == ["first"], "the acknowledgement comes")
    device.stall()
    device.send("t/a", "second")
    broker.settle()
    assert device.acked == ["first"] and watch.texts == ["never", "first"]
    device.flow()
    broker.until(lambda: device.acked == ["first", "second"], "the second acknowledgement comes")
    broker.settle()
    assert watch.texts == ["never", "first", "second"]


def test_a_message_to_nobody_is_acknowledged_all_the_same(broker: BrokerPort) -> None:
    device = broker.peer("a")
    device.send("nobody/hears", "x")
    broker.until(lambda: device.acked == ["x"], "the acknowledgement comes")


@pytest.mark.parametrize("qos", [0, 1])
def test_messages_of_one_topic_come_in_the_order_of_sending(broker: BrokerPort, qos: int) -> None:
    watch, device = broker.peer("watch", {"t/a": 1}), broker.peer("a")
    for text in numbers(0, IN_FLIGHT_MAX + QUEUE_MAX):
        device.send("t/a", text, qos)
    broker.until(lambda: len(watch.got) == IN_FLIGHT_MAX + QUEUE_MAX, "all have come")
    broker.settle()
    assert watch.texts == numbers(0, IN_FLIGHT_MAX + QUEUE_MAX)


def test_an_empty_payload_is_a_message(broker: BrokerPort) -> None:
    watch, device = broker.peer("watch", {"t": 1}), broker.peer("a")
    device.send("t", "")
    broker.settle()
    assert watch.got == [Message("t", "", 1)]


# Subscriptions.


def test_nobody_gets_what_it_has_not_subscribed_to(broker: BrokerPort) -> None:
    near, far, device = broker.peer("near", {"house/1": 1}), broker.peer("far"), broker.peer("a", {"a": 1})
    for topic in ("house/1", "house/2", "house", "house/1/door", "House/1", "/house/1", "a"):
        device.send(topic, topic)
    broker.settle()
    assert near.texts == ["house/1"] and far.got == []
    assert device.texts == ["a"], "its own messages, if it wants them"


@pytest.mark.parametrize(
    ("wanted", "matching"),
    [
        ("t/+", ["t/a", "t/"]),
        ("t/+/c", ["t/a/c", "t/b/c"]),
        ("t/#", ["t", "t/a", "t/", "t/a/c", "t/b/c"]),
        ("+/a", ["t/a", "/a"]),
        ("+", ["t"]),
        ("#", ["t", "t/a", "t/", "t/a/c", "t/b/c", "/a"]),
        ("+/+", ["t/a", "t/", "/a"]),
    ],
)
def test_a_plus_is_one_level_and_a_hash_all_that_follow(broker: BrokerPort, wanted: str, matching: list[str]) -> None:
    watch, device = broker.peer("watch", {wanted: 1}), broker.peer("a")
    for topic in ("t", "t/a", "t/", "t/a/c", "t/b/c", "/a", "$own/a"):
        device.send(topic, topic)
    broker.settle()
    assert watch.texts == matching


def test_a_message_comes_once_however_many_filters_match(broker: BrokerPort) -> None:
    watch, device = broker.peer("watch", {"t/a": 0, "t/+": 1, "t/#": 0}), broker.peer("a")
    device.send("t/a", "x")
    broker.settle()
    with deviating("overlapping-filters" in broker.known, "overlapping-filters"):
        assert watch.got == [Message("t/a", "x", 1)]


# Sessions.


def comes_back_to_nothing_old(broker: BrokerPort, device: Peer, text: str) -> None:
    """On its next connection it gets what is sent then, and that alone."""
    broker.join(device)
    broker.from_cloud("down/a", text)
    broker.until(lambda: device.texts, "something comes")
    broker.settle()
    assert device.texts == [text]


def test_a_clean_session_keeps_nothing_for_who_is_away(broker: BrokerPort) -> None:
    device = broker.peer("a", {"down/a": 1})
    device.leave()
    broker.settle()
    broker.from_cloud("down/a", "while away")
    broker.settle()
    comes_back_to_nothing_old(broker, device, "back again")


def test_subscriptions_end_with_their_connection(broker: BrokerPort) -> None:
    device = broker.peer("a", {"old": 1, "old/#": 1})
    device.leave()
    device.subscribe({"new": 1})
    broker.join(device)
    for topic in ("old", "old/b", "new"):
        broker.from_cloud(topic, topic)
        broker.settle()
    assert device.texts == ["new"]


def test_what_was_on_its_way_when_a_connection_ended_does_not_come_on_the_next(broker: BrokerPort) -> None:
    device = broker.peer("a", {"down/a": 1})
    device.stall()
    for text in numbers(0, IN_FLIGHT_MAX + 5):
        broker.from_cloud("down/a", text)
    broker.settle()
    device.cut()
    device.flow()
    comes_back_to_nothing_old(broker, device, "later")


def test_who_sends_again_what_was_not_acknowledged_loses_nothing(broker: BrokerPort) -> None:
    watch, device = broker.peer("watch", {"t/a": 1}), broker.peer("a")
    sent = numbers(0, 8)
    for text in sent[:4]:
        device.send("t/a", text)
    broker.until(lambda: device.acked == sent[:4], "the first are acknowledged")
    device.stall()
    for text in sent[4:]:
        device.send("t/a", text)
    broker.settle()
    device.cut()
    broker.settle()
    device.flow()
    broker.join(device)
    missing = [text for text in sent if text not in device.acked]
    assert missing == sent[4:]
    for text in missing:
        device.send("t/a", text)
    broker.until(lambda: device.acked == sent, "the rest is acknowledged")
    broker.settle()
    assert watch.texts == sent


def test_a_kept_session_brings_what_came_while_its_client_was_away(broker: BrokerPort) -> None:
    device = broker.peer("a", {"down/a": 1}, keep=True)
    device.leave()
    broker.settle()
    for text in numbers(0, 5):
        broker.from_cloud("down/a", text)
    broker.settle()
    device.subscribe({})
    broker.join(device)
    broker.settle()
    with deviating("kept-sessions" in broker.known, "kept-sessions"):
        assert device.texts == numbers(0, 5)


# A second connection of the same client.


def test_a_second_connection_of_a_client_ends_the_first(broker: BrokerPort) -> None:
    older = broker.peer("a", {"down/a": 1})
    newer = broker.peer("a", {"down/a": 1})
    broker.until(lambda: older.said == ["connected", "lost"], "the older one is told")
    broker.from_cloud("down/a", "x")
    broker.until(lambda: newer.texts == ["x"], "the newer one gets it")
    broker.settle()
    assert older.got == [] and newer.said == ["connected"]
    assert not older.send("t", "from the older one")


def test_two_clients_of_one_name_end_each_other_in_turn(broker: BrokerPort) -> None:
    clones = [broker.peer("a", {"down/a": 1}), broker.peer("a", {"down/a": 1})]

    def round_of(loser: Peer, text: str) -> None:
        broker.until(lambda: not loser.connected, "the older one is told")
        broker.join(loser)
        broker.from_cloud("down/a", text)
        broker.until(lambda: text in loser.texts, "the newer one gets it")

    for turn in range(4):
        round_of(clones[turn % 2], str(turn))
    broker.settle()
    assert sorted([*clones[0].texts, *clones[1].texts]) == numbers(0, 4)


def test_who_comes_back_before_its_keep_alive_is_over_takes_over_from_its_own_ghost(broker: BrokerPort) -> None:
    device = broker.peer("a", {"down/a": 1})
    device.vanish()
    broker.from_cloud("down/a", "into the void")
    broker.settle()
    comes_back_to_nothing_old(broker, device, "back again")


# Keep-alive and broken paths.


def test_who_vanished_is_dropped_when_its_keep_alive_is_over_and_who_is_quiet_is_not(broker: BrokerPort) -> None:
    watch = broker.peer("watch", {"watch/+": 1})
    quiet = broker.peer("quiet", {"down/quiet": 1}, brief=True, will=LastWill("watch/quiet", "quiet is gone"))
    device = broker.peer("a", will=GONE, brief=True)
    began = broker.now_s()
    device.vanish()
    broker.until(lambda: watch.got, "the broker finds out")  # the quiet one has been silent for longer, but for pings
    assert broker.now_s() - began > 0.9 * broker.keep_alive_s
    assert watch.texts == ["gone"]
    broker.from_cloud("down/quiet", "still there")
    broker.until(lambda: quiet.texts == ["still there"], "the quiet one is still there")
    assert quiet.said == ["connected"]


def test_both_ends_of_a_half_open_connection_find_out_and_a_new_one_works(broker: BrokerPort) -> None:
    watch = broker.peer("watch", {"watch/+": 1, "t": 1})
    device = broker.peer("a", {"down/a": 1}, will=GONE, brief=True)
    device.half_open()
    assert device.send("t", "into the void", 0)
    assert device.send("t", "into the void")
    broker.from_cloud("down/a", "into the void")
    broker.until(lambda: device.said == ["connected", "lost"] and watch.texts == ["gone"], "both ends find out")
    assert device.got == [] and device.acked == []
    broker.join(device)
    device.send("t", "again")
    broker.from_cloud("down/a", "again")
    broker.until(lambda: device.texts == ["again"] and device.acked == ["again"], "both ways work")
    broker.settle()
    assert watch.texts == ["gone", "again"]


@pytest.mark.parametrize("qos", [0, 1])
def test_a_path_that_comes_back_in_time_has_lost_nothing(broker: BrokerPort, qos: int) -> None:
    watch, device = broker.peer("watch", {"t/a": 1}), broker.peer("a", {"down/a": 1})
    device.send("t/a", "0", qos)
    broker.from_cloud("down/a", "0", qos)
    broker.settle()
    device.stall()
    for text in numbers(1, 6):
        device.send("t/a", text, qos)
        broker.from_cloud("down/a", text, qos)
        broker.settle()
    assert watch.texts == ["0"] == device.texts
    device.flow()
    broker.until(lambda: watch.texts == numbers(0, 6) == device.texts, "all come, in order")
    broker.settle()
    assert len(watch.got) == 6 == len(device.got) and device.said == ["connected"]


def test_a_cut_is_told_to_both_ends_at_once(broker: BrokerPort) -> None:
    watch, device = broker.peer("watch", {"watch/+": 1}), broker.peer("a", will=GONE)
    began = broker.now_s()
    device.cut()
    broker.until(lambda: watch.texts == ["gone"] and device.said == ["connected", "lost"], "both are told")
    assert broker.now_s() - began < 60, "long before the keep-alive is over"


# Last will.


def test_a_last_will_is_sent_by_whatever_end_but_a_disconnect(broker: BrokerPort) -> None:
    watch, device = broker.peer("watch", {"watch/+": 1}), broker.peer("a", will=GONE)
    device.leave()
    broker.settle()
    broker.join(device)
    broker.settle()
    assert watch.got == []
    device.cut()
    broker.until(lambda: watch.got == [Message(GONE.topic, GONE.text, 1)], "the will comes")
    device.will = None
    broker.join(device)
    device.cut()
    broker.settle()
    assert len(watch.got) == 1, "it was the will of that connection"


def test_the_last_will_of_who_is_taken_over_is_sent(broker: BrokerPort) -> None:
    watch, older = broker.peer("watch", {"watch/+": 1}), broker.peer("a", will=GONE)
    broker.peer("a", will=LastWill("watch/a", "of the newer one"))
    broker.until(lambda: not older.connected, "the older one is told")
    broker.settle()
    assert watch.texts == ["gone"]


@pytest.mark.parametrize("retain", [False, True])
def test_a_last_will_may_be_retained(broker: BrokerPort, retain: bool) -> None:
    watch = broker.peer("watch", {"watch/+": 1})
    broker.peer("a", will=LastWill("watch/a", "gone", 0, retain)).cut()
    broker.until(lambda: watch.got == [Message("watch/a", "gone", 0)], "the will comes")
    assert broker_gives(broker, "watch/a") == (["gone"] if retain else [])


# Limits.


def test_no_more_is_unacknowledged_than_the_limit_and_the_rest_follows_in_order(broker: BrokerPort) -> None:
    device = broker.peer("a", {"down/a": 1})
    sender = broker.peer("sender")
    device.hold_acks()
    sent = numbers(0, 2 * IN_FLIGHT_MAX)
    for text in sent:
        sender.send("down/a", text)
    broker.until(lambda: len(device.got) >= IN_FLIGHT_MAX, "as many as may be come")
    broker.settle()
    assert device.texts == sent[:IN_FLIGHT_MAX]
    sender.send("down/a", "not to be acknowledged", 0)
    device.give_acks()
    broker.until(lambda: len(device.got) > len(sent), "the rest comes")
    broker.settle()
    assert [message.text for message in device.got if message.qos] == sent


def test_a_full_queue_drops_what_is_new_and_keeps_what_is_old(broker: BrokerPort) -> None:
    device = broker.peer("a", {"down/a": 1})
    sender = broker.peer("sender")
    device.hold_acks()
    taken = IN_FLIGHT_MAX + QUEUE_MAX
    for first in range(0, taken + 5, IN_FLIGHT_MAX):  # the sender may have no more under way itself
        for text in numbers(first, min(first + IN_FLIGHT_MAX, taken + 5)):
            sender.send("down/a", text)
        broker.settle()
    device.give_acks()
    broker.until(lambda: len(device.got) >= taken, "what was kept comes")
    broker.settle()
    assert device.texts == numbers(0, taken)


def test_a_client_with_many_messages_at_once_sends_them_all_in_order(broker: BrokerPort) -> None:
    watch, device = broker.peer("watch", {"t/a": 0}), broker.peer("a")
    sent = numbers(0, 3 * IN_FLIGHT_MAX)
    for text in sent:
        device.send("t/a", text)
    broker.until(lambda: len(device.acked) == len(sent), "all are acknowledged")
    broker.settle()
    assert device.acked == sent == watch.texts


def test_a_payload_of_the_limit_passes_and_a_larger_one_never_does(broker: BrokerPort) -> None:
    watch, device = broker.peer("watch", {"t": 1, "down": 1}), broker.peer("a")
    device.send("t", "x" * PAYLOAD_MAX)
    broker.from_cloud("down", "y" * PAYLOAD_MAX)
    broker.until(lambda: len(watch.got) == 2, "both come")
    device.send("t", "z" * (PAYLOAD_MAX + 1))
    broker.settle()
    broker.from_cloud("down", "z" * (PAYLOAD_MAX + 1))
    broker.settle()
    assert sorted(text[0] for text in watch.texts) == ["x", "y"]
    with deviating("oversize-drops" in broker.known, "oversize-drops"):
        assert device.said == ["connected", "lost"]


# Retained messages.


def broker_gives(broker: BrokerPort, wanted: str) -> list[str]:
    """The texts that a new subscriber gets at once."""
    late = broker.peer(f"late-{broker.now_s()}", {wanted: 1})
    broker.settle()
    late.leave()
    broker.settle()
    return late.texts


@pytest.mark.parametrize("from_cloud", [False, True])
def test_a_retained_message_comes_to_those_who_come_later(broker: BrokerPort, from_cloud: bool) -> None:
    device = broker.peer("a")

    def send(topic: str, text: str) -> None:
        if from_cloud:
            broker.from_cloud(topic, text, retain=True)
        else:
            device.send(topic, text, retain=True)
        broker.settle()

    assert broker_gives(broker, "t/#") == []
    send("t/a", "first")
    send("t/b", "other")
    assert broker_gives(broker, "t/a") == ["first"]
    assert sorted(broker_gives(broker, "t/+")) == ["first", "other"]
    assert broker_gives(broker, "t/c") == []
    send("t/a", "second")
    assert broker_gives(broker, "t/a") == ["second"]
    send("t/a", "")
    assert broker_gives(broker, "t/#") == ["other"]


def test_a_retained_message_is_a_message_like_others_to_those_who_are_there(broker: BrokerPort) -> None:
    watch, device = broker.peer("watch", {"t": 1}), broker.peer("a")
    for text in ("kept", ""):
        device.send("t", text, retain=True)
    broker.settle()
    assert watch.got == [Message("t", "kept", 1), Message("t", "", 1)]


def test_what_is_not_retained_takes_nothing_away(broker: BrokerPort) -> None:
    device = broker.peer("a")
    device.send("t", "kept", retain=True)
    device.send("t", "passing")
    broker.settle()
    assert broker_gives(broker, "t") == ["kept"]


def test_a_retained_message_comes_again_on_each_connection_with_the_qos_of_the_lower_one(broker: BrokerPort) -> None:
    broker.peer("sender").send("t", "kept", retain=True)
    broker.settle()
    late = broker.peer("late", {"t": 0})
    broker.until(lambda: late.texts == ["kept"], "it comes")
    late.leave()
    broker.join(late)
    broker.until(lambda: late.texts == ["kept", "kept"], "it comes again")
    assert [message.qos for message in late.got] == [0, 0]


def test_a_retained_message_says_so_to_who_subscribes(broker: BrokerPort) -> None:
    broker.peer("sender").send("t", "kept", retain=True)
    broker.settle()
    late = broker.peer("late", {"t": 1})
    broker.until(lambda: late.got, "it comes")
    with deviating("retain-flag" in broker.known, "retain-flag"):
        assert late.got[0].retained


# What AWS IoT Core does besides (its developer guide, "AWS IoT Core endpoints and quotas").


def test_a_topic_has_at_most_eight_levels(broker: BrokerPort) -> None:
    watch, device = broker.peer("watch", {"t/#": 1}), broker.peer("a")
    device.send("t/2/3/4/5/6/7/8", "eight")
    broker.settle()
    device.send("t/2/3/4/5/6/7/8/9", "nine")
    broker.settle()
    with deviating("topic-levels" in broker.known, "topic-levels"):
        assert watch.texts == ["eight"]


def test_a_connection_publishes_no_more_than_a_hundred_a_second(broker: BrokerPort) -> None:
    watch, device = broker.peer("watch", {"t": 0}), broker.peer("a")
    for text in numbers(0, 300):
        device.send("t", text, 0)
    broker.settle()
    with deviating("publish-rate" in broker.known, "publish-rate"):
        assert len(watch.got) <= 200


def test_a_client_connects_no_more_than_once_a_second(broker: BrokerPort) -> None:
    device = broker.peer("a")
    began = broker.now_s()
    for _ in range(5):
        device.leave()
        broker.join(device)
    with deviating("connect-rate" in broker.known, "connect-rate"):
        assert broker.now_s() - began >= 4


def test_a_connection_has_at_most_fifty_subscriptions(broker: BrokerPort) -> None:
    device = broker.peer("a", {f"t/{number}": 1 for number in range(51)})
    for number in range(51):
        broker.from_cloud(f"t/{number}", str(number), 0)
    broker.settle()
    with deviating("subscriptions" in broker.known, "subscriptions"):
        assert len(device.got) <= 50
