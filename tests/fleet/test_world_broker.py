"""The broker: connections, how they end, what arrives, and that every message is accounted for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from net_rig import SECOND, Device, Net

from fleet.rng import rng
from fleet.scenario.plan import LinkPlan
from fleet.world.connection import Will, matches
from fleet.world.hops import HOPS, HopFault
from fleet.world.link import Profile


def test_connecting_takes_three_round_trips_and_a_message_goes_both_ways() -> None:
    net = Net(hop_jitter=0.0, hop_delay_us=10_000)
    device = Device(net, "a")
    net.broker.connect(device)
    assert not device.send("too early")
    net.run(1)
    assert device.events == [(6 * 20_000, "connected")]
    assert device.send("hello")
    net.run(0.029)
    assert net.cloud == []
    net.run(0.002)
    assert net.cloud == [b"hello"]
    net.broker.publish_from_cloud("down/a", b"answer", 1)
    net.run(0.1)
    assert device.messages == [b"answer"]
    assert [kind for kind, _ in net.trace] == ["connect", "to-cloud", "deliver"]
    net.check()


def test_messages_of_one_connection_arrive_in_order_whatever_the_link_loses() -> None:
    net = Net(hop_jitter=0.0, queue_max=5_000)
    device = net.device(plan=LinkPlan(delay_us=20_000, jitter_us=15_000, loss=0.2, burst=3.0))
    for i in range(1_500):
        net.broker.publish_from_cloud("down/a", b"%d" % i, 1)
        assert device.send(str(i))
        net.run(0.01)
    net.run(600)
    numbers = [b"%d" % i for i in range(1_500)]
    assert device.messages == numbers
    assert net.cloud == numbers
    net.check()


@pytest.mark.parametrize("broken_ms", range(0, 140, 10))
def test_a_path_that_breaks_for_a_moment_while_connecting_carries_messages_afterwards(broken_ms: int) -> None:
    net = Net(hop_jitter=0.0)
    device = Device(net, "a")
    net.broker.connect(device)
    net.run(broken_ms / 1000)
    net.broker.link_down(device)
    net.run(0.001)
    net.broker.link_up(device)
    net.run(20)
    assert device.said in (["connected"], ["failed"])
    if device.said == ["connected"]:
        assert device.send("hello")
        net.broker.publish_from_cloud("down/a", b"answer", 1)
        net.run(300)
        assert net.cloud == [b"hello"]
        assert device.messages == [b"answer"]
    net.check()


def test_a_quiet_connection_schedules_nothing() -> None:
    net = Net()
    net.device()
    assert not list(net.clock.entries())
    net.run(100_000)
    assert net.broker.connected("a")


def test_a_message_to_nobody_is_dropped_and_counted() -> None:
    net = Net()
    net.broker.publish_from_cloud("down/nobody", b"x", 1)
    net.check()
    net.run(1)
    assert net.broker.drops == {"cloud:no subscriber": 1}
    net.check()


def test_an_orderly_disconnect_lets_what_was_sent_before_arrive() -> None:
    net = Net()
    device = net.device()
    device.will = Will("up", b"will")
    device.send("last words")
    net.broker.publish_from_cloud("down/a", b"too late", 1)
    net.broker.disconnect(device)
    assert not device.send("after")
    net.run(1)
    assert net.cloud == [b"last words"]
    assert device.said == ["connected"]
    assert not net.broker.connected("a")
    assert device.messages == []
    net.check()


def test_the_broker_finds_out_about_a_power_cut_by_its_keep_alive_and_publishes_the_will() -> None:
    net = Net(keep_alive_us=60 * SECOND)
    device = Device(net, "a")
    device.will = Will("up", b"gone")
    net.broker.connect(device)
    net.run(100)
    device.send("on its way")
    net.broker.vanish(device)
    net.run(20)
    assert net.broker.connected("a")
    assert net.cloud == [b"on its way"]
    net.run(80)
    assert not net.broker.connected("a")
    assert net.cloud == [b"on its way", b"gone"]
    assert device.said == ["connected"], "a device without power hears nothing"
    net.check()


def test_nobody_retransmits_after_a_power_cut() -> None:
    delivered = 0
    for seed in range(40):
        net = Net(seed)
        device = net.device()
        device.link.profile = Profile(LinkPlan(delay_us=20_000, loss=0.5, burst=2.0))
        device.send("x")
        net.broker.vanish(device)
        net.run(300)
        delivered += len(net.cloud)
        net.check()
    assert 5 < delivered < 35


def test_a_second_connection_of_a_client_drops_the_first() -> None:
    net = Net()
    device = net.device()
    clone = Device(net, "a")
    net.broker.connect(clone)
    net.run(1)
    assert device.said == ["connected", "taken over"]
    assert clone.said == ["connected"]
    net.broker.publish_from_cloud("down/a", b"x", 1)
    net.run(1)
    assert (device.messages, clone.messages) == ([], [b"x"])
    net.check()


def test_a_device_that_comes_back_soon_takes_over_from_its_own_ghost() -> None:
    net = Net()
    device = net.device()
    net.broker.vanish(device)
    net.run(5)
    net.broker.connect(device)
    net.run(200)
    assert device.said == ["connected", "connected"]
    assert net.broker.sessions() == 1
    assert net.broker.connects == 2 and net.broker.disconnects == 1


def test_a_short_break_of_the_link_delays_and_loses_nothing() -> None:
    net = Net()
    device = net.device()
    device.send("under way")
    net.broker.publish_from_cloud("down/a", b"1", 1)
    net.run(0.005)
    net.broker.link_down(device)
    device.send("while down")
    net.run(10)
    net.broker.publish_from_cloud("down/a", b"2", 1)
    net.run(10)
    assert net.cloud == [] and device.messages == []
    net.check()
    net.broker.link_up(device)
    device.send("after")
    net.run(0.05)
    assert net.cloud == [], "TCP first serves its back-off"
    net.run(30)
    assert net.cloud == [b"under way", b"while down", b"after"]
    assert device.messages == [b"1", b"2"]
    assert device.said == ["connected"]
    net.check()


def test_a_long_break_ends_the_connection_at_both_ends_and_what_waited_is_lost() -> None:
    net = Net(keep_alive_us=60 * SECOND, ping_timeout_us=30 * SECOND)
    device = net.device()
    net.run(130)
    began = net.clock.now
    net.broker.link_down(device)
    device.send("lost")
    net.broker.publish_from_cloud("down/a", b"lost too", 1)
    net.run(300)
    assert device.said == ["connected", "ping"]
    noticed = device.events[-1][0] - began
    assert 30 * SECOND <= noticed <= 90 * SECOND
    assert not net.broker.connected("a")
    net.broker.link_up(device)
    net.run(300)
    assert net.cloud == [] and device.messages == []
    assert device.said == ["connected", "ping"]
    net.check()
    assert net.broker.counts()["messages_lost"] == 2


def test_a_link_that_comes_back_after_the_broker_gave_up_tells_the_device_at_once() -> None:
    net = Net(keep_alive_us=60 * SECOND, ping_timeout_us=300 * SECOND)
    device = net.device()
    net.broker.link_down(device)
    net.run(150)
    assert not net.broker.connected("a") and device.said == ["connected"]
    net.broker.link_up(device)
    net.run(0.1)
    assert device.said == ["connected", "closed by broker"]


def test_connecting_without_a_link_fails_after_the_time_out() -> None:
    net = Net(connect_timeout_us=15 * SECOND)
    device = Device(net, "a")
    net.broker.link_down(device)
    net.broker.connect(device)
    net.run(16)
    assert device.events == [(15 * SECOND, "failed")]
    net.broker.link_up(device)
    net.broker.connect(device)
    net.run(1)
    assert device.said == ["failed", "connected"]


def test_a_link_that_breaks_while_connecting_fails_it() -> None:
    for delay_ms in (10, 50, 90, 110, 119):
        net = Net()
        device = Device(net, "a")
        net.broker.connect(device)
        net.run(delay_ms / 1000)
        net.broker.link_down(device)
        net.run(300)
        assert device.said == ["failed"], delay_ms
        assert not net.broker.connected("a")


def test_a_half_open_connection_takes_messages_until_keep_alive_ends_it_and_a_new_one_works() -> None:
    net = Net()
    device = net.device()
    net.broker.half_open(device)
    assert device.send("into the void")
    net.run(300)
    assert device.said == ["connected", "ping"]
    net.broker.connect(device)
    net.run(1)
    device.send("again")
    net.run(1)
    assert net.cloud == [b"again"]
    net.check()


def test_an_outage_cuts_its_region_and_refuses_until_it_heals() -> None:
    net = Net()
    near, far = net.device("a"), Device(net, "b", region="elsewhere")
    net.broker.connect(far)
    net.run(1)
    near.send("in flight")
    net.broker.region_down("main")
    net.run(1)
    assert near.said == ["connected", "outage"]
    assert far.said == ["connected"]
    assert net.cloud == []
    net.broker.connect(near)
    net.run(1)
    assert near.said[-1] == "failed"
    net.broker.region_up("main")
    net.broker.connect(near)
    net.run(1)
    assert near.said[-1] == "connected"
    net.check()


def test_an_outage_that_begins_while_connecting_fails_it() -> None:
    net = Net()
    device = Device(net, "a")
    net.broker.connect(device)
    net.run(0.05)
    net.broker.region_down("main")
    net.run(20)
    assert device.said == ["failed"]


def test_no_more_than_the_limit_is_unacknowledged_and_no_more_than_the_queue_waits() -> None:
    net = Net(in_flight_max=10, queue_max=20, hop_jitter=0.0)
    device = net.device()
    taken = [device.send(str(i)) for i in range(50)]
    assert taken == [True] * 30 + [False] * 20
    for i in range(50):
        net.broker.publish_from_cloud("down/a", b"%d" % i, 1)
    net.check()
    net.run(0.036)
    assert net.cloud == [b"%d" % i for i in range(10)]
    net.run(1)
    assert net.cloud == [b"%d" % i for i in range(30)]
    assert len(device.messages) == 30
    assert net.broker.drops == {"up:queue full": 20, "down:queue full": 20}
    net.check()
    assert all(device.send(str(i), qos=0) for i in range(50)), "QoS 0 is not acknowledged, so it has no limit"


def test_acknowledgements_come_to_those_who_ask_after_a_round_trip() -> None:
    net = Net()
    device = net.device()
    device.wants_puback = True
    device.send("x")
    net.run(0.039)
    assert device.acks == []
    net.run(0.002)
    assert device.acks == ["x"]


def test_retained_messages_reach_those_who_come_later_until_they_are_taken_away() -> None:
    net = Net()
    first = net.device("a")
    net.broker.publish_from_cloud("all", b"kept", 1, retain=True)
    net.run(1)
    assert first.messages == [b"kept"]
    second = net.device("b")
    assert second.messages == [b"kept"]
    net.broker.publish_from_cloud("all", b"", 1, retain=True)
    net.run(1)
    assert net.device("c").messages == []
    net.check()


def test_devices_may_subscribe_to_each_other() -> None:
    net = Net(cloud_prefix="up")
    a = net.device("a")
    b = Device(net, "b")
    b.subscriptions = {"home/+/door": 1}
    net.broker.connect(b)
    net.run(1)
    a.send("open", topic="home/1/door")
    a.send("elsewhere", topic="home/1/window")
    net.run(1)
    assert b.messages == [b"open"]
    assert net.cloud == []
    net.broker.disconnect(b)
    net.run(1)
    net.check()


@pytest.mark.parametrize(
    ("topic_filter", "topic", "same"),
    [
        ("a/b", "a/b", True),
        ("a/b", "a/b/c", False),
        ("a/+", "a/b", True),
        ("a/+", "a", False),
        ("a/#", "a", True),
        ("a/#", "a/b/c", True),
        ("#", "a/b", True),
        ("#", "$SYS/x", False),
        ("+/b", "$SYS/b", False),
        ("+/+", "/b", True),
    ],
)
def test_filters_match_as_mqtt_says(topic_filter: str, topic: str, same: bool) -> None:
    assert matches(topic_filter, topic) is same


def test_a_fault_loses_qos_0_but_never_qos_1_on_a_connection_that_lives() -> None:
    net = Net()
    device = net.device()
    net.broker.faults.append(HopFault(1, "f", ["device-to-broker", "broker-to-device"], lose=0.3))
    for i in range(200):
        device.send(f"0-{i}", qos=0)
        net.broker.publish_from_cloud("down/a", b"0-%d" % i, 0)
        net.run(0.1)
    assert 100 < len(net.cloud) < 180 and 100 < len(device.messages) < 180
    assert device.said == ["connected"]
    net.cloud.clear()
    sent = 0
    while device.said == ["connected"]:
        sent += device.send(f"1-{sent}")
        net.run(10)
    assert device.said == ["connected", "reset"]
    assert len(net.cloud) == sent - 1, "only the message that met the reset is lost"
    net.check()


def test_copies_are_counted_apart_on_every_hop() -> None:
    net = Net(in_flight_max=1_000)
    device = net.device()
    net.broker.faults.append(HopFault(1, "f", HOPS, duplicate=1.0))
    device.send("up")
    net.broker.publish_from_cloud("down/a", b"down", 1)
    net.run(60)
    ledger = net.broker.ledgers["a"]
    # Each hop doubles what comes in: two hops make four, of which one is the message.
    assert net.cloud == [b"up"] * 4 and ledger.copies_up == 3 and ledger.delivered_up == 1
    assert device.messages == [b"down"] * 4 and ledger.delivered_down == 1
    assert ledger.copies_down == 3 and net.broker.cloud_copies == 1
    net.check()


def test_a_wire_copies_no_qos_0_and_a_fault_may_be_for_one_qos_alone() -> None:
    net = Net(in_flight_max=1_000)
    device = net.device()
    net.broker.faults.append(HopFault(1, "f", ["device-to-broker"], duplicate=1.0))
    device.send("0", qos=0)
    device.send("1", qos=1)
    net.run(60)
    assert sorted(net.cloud) == [b"0", b"1", b"1"]
    net.broker.faults[:] = [HopFault(1, "g", ["device-to-broker"], lose=1.0, qos=0)]
    net.cloud.clear()
    device.send("0", qos=0)
    device.send("1", qos=1)
    net.run(60)
    assert net.cloud == [b"1"]


def test_the_rule_to_the_relay_is_at_least_once() -> None:
    net = Net(in_flight_max=1_000)
    device = net.device()
    net.broker.faults.append(HopFault(1, "f", ["broker-to-relay"], lose=0.3, duplicate=0.3, reorder=0.3))
    for i in range(300):
        device.send(str(i))
    net.run(100)
    assert sorted(set(net.cloud)) == sorted(b"%d" % i for i in range(300))
    assert 340 < len(net.cloud) < 450
    assert [int(text) for text in net.cloud] != sorted(int(text) for text in net.cloud)
    net.check()
    assert net.broker.ledgers["a"].copies_up == len(net.cloud) - 300


def test_a_fault_reaches_its_devices_and_leaves_the_draws_of_others() -> None:
    def heard(devices: list[str] | None) -> list[bytes]:
        net = Net(in_flight_max=1_000)
        a, b = net.device("a"), net.device("b")
        net.broker.faults.append(HopFault(1, "f", ["device-to-broker"], lose=0.5, devices=devices))
        for i in range(50):
            a.send(f"a{i}", qos=0)
            b.send(f"b{i}", qos=0)
        net.run(10)
        return net.cloud

    both, only_b = heard(None), heard(["b"])
    assert [text for text in both if text.startswith(b"b")] == [text for text in only_b if text.startswith(b"b")]
    assert len([text for text in only_b if text.startswith(b"a")]) == 50
    assert len(both) < 80


ACTIONS = (
    "up", "up", "up0", "down", "down", "down0", "all", "link", "half", "vanish", "leave", "kick", "connect", "region",
    "fault", "wait", "wait", "long",
)  # fmt: skip


def play(net: Net, steps: list[tuple[int, int]]) -> None:
    """Anything in any order; every message must be accounted for at every moment."""
    broker = net.broker
    plan = LinkPlan(delay_us=30_000, jitter_us=20_000, loss=0.1, burst=2.0, rate_up_bps=100_000)
    devices = [Device(net, f"d{i}", plan, f"r{i % 2}") for i in range(3)]
    devices.append(Device(net, "d0", plan, "r1"))  # a clone
    for step, (action, which) in enumerate(steps):
        device = devices[which % 4]
        match ACTIONS[action]:
            case "up":
                device.send(f"{step}")
            case "up0":
                device.send(f"{step}", qos=0)
            case "down":
                broker.publish_from_cloud(f"down/{device.device_id}", b"%d" % step, 1)
            case "down0":
                broker.publish_from_cloud(f"down/{device.device_id}", b"%d" % step, 0)
            case "all":
                broker.publish_from_cloud("all", b"%d" % step, which % 2, retain=which % 3 == 0)
            case "link":
                (broker.link_down if device.link.is_up else broker.link_up)(device)
            case "half":
                broker.half_open(device)
            case "vanish":
                broker.vanish(device)
            case "leave":
                broker.disconnect(device)
            case "kick":
                broker.kick(device)
            case "connect":
                if device.conn is None:
                    broker.connect(device)
            case "region":
                (broker.region_up if f"r{which % 2}" in broker._regions_down else broker.region_down)(f"r{which % 2}")
            case "fault":
                if broker.faults:
                    broker.faults.clear()
                else:
                    fault = HopFault(1, "f", HOPS, lose=0.2, duplicate=0.3, reorder=0.3, delay_us=which * 1000)
                    broker.faults.append(fault)
            case "wait":
                net.run(which / 50)
            case "long":
                net.run(which * 3)
        net.check()
    for device in devices:
        broker.vanish(device)
    net.run(2_000)
    net.check()
    assert broker.in_flight() == {}
    assert broker.sessions() == 0
    assert not broker._subscribers and not broker._backlog
    assert broker.connects == broker.disconnects


STEPS = st.lists(st.tuples(st.integers(0, len(ACTIONS) - 1), st.integers(0, 60)), max_size=80)


@given(STEPS, st.integers(0, 1000), st.integers(1, 4))
def test_every_message_is_accounted_for_whatever_happens(steps: list[tuple[int, int]], seed: int, limit: int) -> None:
    play(Net(seed, in_flight_max=limit, queue_max=limit), steps)


def test_the_same_seed_tells_the_same_story() -> None:
    stream = rng(5, "story", "steps")
    steps = [(stream.below(len(ACTIONS)), stream.below(60)) for _ in range(600)]

    def story(seed: int) -> list[tuple[str, str]]:
        net = Net(seed, in_flight_max=3, queue_max=5)
        play(net, steps)
        return net.trace

    assert story(1) == story(1)
    assert story(1) != story(2)
