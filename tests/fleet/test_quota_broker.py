"""Quotas at the broker: who is refused and how, what is dropped or late, what is metered; all is accounted for."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from net_rig import SECOND, Device, Net

from fleet.quota.broker import THROTTLED, QuotaBroker
from fleet.quota.bucket import TOKEN, Bucket, Buckets, Gauge
from fleet.scenario.plan import QuotaPlan


def net(plan: QuotaPlan, **settings: Any) -> Net:
    return Net(1, lambda clock, settings, trace: QuotaBroker(clock, settings, plan, trace), hop_jitter=0.0, **settings)


def quotas(made: Net) -> QuotaBroker:
    assert isinstance(made.broker, QuotaBroker)
    return made.broker


# ---------------------------------------------------------------- buckets


@given(
    st.floats(0.1, 5_000).map(lambda rate: round(rate, 3)),
    st.lists(st.integers(0, 3 * SECOND), min_size=1, max_size=60),
)
def test_a_bucket_lets_through_its_burst_and_its_rate_and_no_more(rate: float, gaps: list[int]) -> None:
    bucket, many = Bucket(rate), Buckets(rate)
    now, taken = 0, 0
    for gap in gaps:
        now += gap
        one = bucket.take(now)
        assert many.take(now, "key") is one
        taken += one
    most = max(1.0, rate) + now / SECOND * rate
    assert taken <= most
    assert taken == len(gaps) or taken > 0


def test_what_is_over_a_shapers_rate_waits_in_line() -> None:
    bucket = Bucket(10)
    assert [bucket.wait_us(0, 1) for _ in range(12)] == [0] * 10 + [100_000, 200_000]
    assert bucket.wait_us(SECOND, 1) == 0


def test_a_full_bucket_is_forgotten_and_a_debt_is_not() -> None:
    buckets = Buckets(100)
    buckets.spend(0, "poor", 1_000)
    for second in range(5):
        buckets.take(second * SECOND, f"rich-{second}")
    assert len(buckets) == 2  # the last one, and the one in debt
    assert buckets.in_debt(5 * SECOND, "poor") and buckets.level(5 * SECOND, "rich-0") == 100 * TOKEN


def test_a_gauge_knows_the_worst_second_and_when_it_was() -> None:
    gauge = Gauge(10)
    for at in (100_000, 200_000, 1_100_000, 1_200_000, 1_300_000):
        gauge.ask(at, 5)
    gauge.refuse(1_300_000)
    assert (gauge.peak, gauge.share, gauge.peak_at_us, gauge.total) == (15.0, 1.5, 1_300_000, 25)
    assert (gauge.throttled, gauge.first_us, gauge.last_us) == (1, 1_300_000, 1_300_000)


# ---------------------------------------------------------------- CONNECT


def arrive(made: Net, count: int) -> list[Device]:
    devices = [Device(made, f"d{number}") for number in range(count)]
    for device in devices:
        made.broker.connect(device)
    return devices


@pytest.mark.parametrize(("refusal", "after_s"), [("code", 1.0), ("silent", 16.0)])
def test_connects_over_the_rate_are_refused_at_once_or_by_silence(refusal: Any, after_s: float) -> None:
    made = net(QuotaPlan(connects_per_s=5, refusal=refusal))
    devices = arrive(made, 12)
    made.run(0.9)
    said = [device.said for device in devices]
    assert said.count(["connected"]) == 5
    assert said.count(["failed"]) == (7 if refusal == "code" else 0)
    made.run(after_s)
    assert [device.said for device in devices].count(["failed"]) == 7
    metered = quotas(made).metered
    assert (metered.accepted, metered.refused, metered.connects.throttled) == (5, 7, 7)
    assert metered.connects.peak == 12 and metered.connects.share == 2.4
    assert [kind for kind, _ in made.trace].count("refuse") == 7
    assert quotas(made).load[0] == [12, 5, 5]
    made.check()


def test_one_client_may_connect_once_a_second() -> None:
    made = net(QuotaPlan(client_connects_per_s=1))
    device = made.device()
    made.broker.disconnect(device)
    made.run(0.05)
    for wait in (0.3, 0.3):
        device.events.clear()
        made.broker.connect(device)
        made.run(wait)
    assert device.said == ["failed"]
    made.run(1)
    device.events.clear()
    made.broker.connect(device)
    made.run(1)
    assert device.said == ["connected"]
    assert quotas(made).metered.client_connects.throttled >= 1


def test_no_more_connections_than_the_account_may_have_but_a_client_may_take_over_its_own() -> None:
    made = net(QuotaPlan(connections=3))
    devices = arrive(made, 4)
    made.run(2)
    assert [device.said for device in devices].count(["connected"]) == 3
    inside = next(device for device in devices if device.said == ["connected"])
    made.broker.vanish(inside)
    made.broker.connect(inside)
    made.run(2)
    assert inside.said[-1] == "connected"
    assert quotas(made).metered.connections.peak == 3


# ---------------------------------------------------------------- messages


def test_a_connection_that_sends_too_much_has_the_rest_discarded() -> None:
    made = net(QuotaPlan(client_publishes_per_s=100))
    noisy, quiet = made.device("noisy"), made.device("quiet")
    for number in range(150):
        assert noisy.send(str(number), qos=0)
    assert quiet.send("mine", qos=0)
    made.run(0.5)
    assert len(made.cloud) == 101 and b"mine" in made.cloud
    assert (made.broker.ledger("noisy").reasons or {}) == {f"up:{THROTTLED}": 50}
    made.check()


@pytest.mark.parametrize("over", ["drop", "delay"])
def test_messages_over_the_accounts_rate_are_dropped_or_late_and_stay_in_order(over: Any) -> None:
    made = net(QuotaPlan(publishes_in_per_s=10, over_publishes=over))
    device = made.device()
    for number in range(30):
        assert device.send(f"{number:02}", qos=0)
    made.run(0.5)
    made.check()
    made.run(10)
    made.check()
    assert len(made.cloud) == (10 if over == "drop" else 30)
    assert made.cloud == sorted(made.cloud)
    assert quotas(made).metered.publishes_in.throttled == 20


def test_messages_of_the_relay_count_for_the_same_quota() -> None:
    made = net(QuotaPlan(publishes_in_per_s=4))
    device = made.device()
    for number in range(6):
        made.broker.publish_from_cloud("down/a", b"%d" % number, 1)
    made.run(0.5)
    assert len(device.messages) == 4
    made.check()
    late = net(QuotaPlan(publishes_in_per_s=4, over_publishes="delay"))
    device = late.device()
    for number in range(6):
        late.broker.publish_from_cloud("down/a", b"%d" % number, 1)
    late.run(2)
    assert sorted(device.messages) == [b"0", b"1", b"2", b"3", b"4", b"5"]
    assert set(device.messages[-2:]) == {b"4", b"5"}
    late.check()


def test_deliveries_over_the_accounts_or_the_connections_rate_are_dropped() -> None:
    for plan, most in ((QuotaPlan(publishes_out_per_s=4), 4), (QuotaPlan(client_publishes_per_s=4), 8)):
        made = net(plan)
        devices = [made.device("a"), made.device("b")]
        for number in range(5):
            made.broker.publish_from_cloud("all", b"%d" % number, 1)
        made.run(0.5)
        assert sum(len(device.messages) for device in devices) == most
        made.check()


def test_bytes_over_a_connections_quota_are_late_and_in_order() -> None:
    made = net(QuotaPlan(client_bytes_per_s=10_000))
    device = made.device()
    for number in range(10):
        assert device.send(f"{number}" + "x" * 2_999)
    made.run(0.5)
    made.check()
    assert 3 <= len(made.cloud) <= 5
    made.run(5)
    assert [message[:1] for message in made.cloud] == [b"%d" % number for number in range(10)]
    assert quotas(made).metered.client_bytes.throttled == 7
    made.check()


def test_a_days_quota_is_full_and_the_next_day_begins_anew() -> None:
    made = net(QuotaPlan(messages_per_day=10, message_bytes=4_096), keep_alive_us=1_200 * SECOND)
    device = made.device()  # CONNECT and SUBSCRIBE are two
    for number in range(10):
        assert device.send(str(number), qos=0)
    made.run(1)
    assert len(made.cloud) == 8
    made.run(86_400)
    assert device.send("next", qos=0)
    made.run(1)
    assert made.cloud[-1] == b"next"
    made.check()


def test_what_is_metered_is_connects_subscribes_publishes_both_ways_in_steps_and_pubacks() -> None:
    made = net(QuotaPlan(message_bytes=5 * 1024))
    device = made.device()
    assert device.send("x" * 100) and device.send("y" * 6_000)
    made.run(1)
    made.broker.publish_from_cloud("down/a", b"z" * 11_000, 1)
    made.broker.publish_from_cloud("down/a", b"z", 0)
    made.run(90)
    broker = quotas(made)
    broker.close_bill()
    metered = broker.metered
    # CONNECT, SUBSCRIBE; 1 + 2 up; 3 + 1 in from the relay, 3 + 1 out to the device, one PUBACK; no PINGREQ
    assert metered.messages == 2 + 3 + 4 + 4 + 1
    assert (metered.publishes_up, metered.publishes_down, metered.deliveries, metered.pubacks) == (2, 2, 2, 1)
    assert metered.connection_minutes == 2 and 91 < metered.connection_us / SECOND < 93


def test_who_sends_more_than_a_payload_may_have_loses_the_connection() -> None:
    made = net(QuotaPlan(payload_bytes=1_000), payload_bytes_max=1_000)
    device = made.device()
    assert device.send("x" * 1_001)
    made.run(1)
    assert device.said == ["connected", "too large"]
    assert quotas(made).metered.payload.share == 1.001 and quotas(made).metered.payload.throttled == 1


def test_messages_behind_the_limit_in_flight_wait() -> None:
    made = net(QuotaPlan(client_in_flight=5), in_flight_max=5)
    device = made.device()
    for number in range(20):
        assert device.send(str(number))
    made.run(3)
    assert len(made.cloud) == 20
    gauge = quotas(made).metered.in_flight
    assert gauge.peak == 5 and gauge.throttled == 15
    made.check()


def test_without_limits_it_is_the_plain_broker_event_by_event() -> None:
    def story(made: Net) -> list[tuple[str, str]]:
        devices = arrive(made, 5)
        made.run(1)
        for number in range(40):
            for device in devices:
                device.send(f"{number}" * 50)
            made.broker.publish_from_cloud("all", b"news", 1)
            made.run(0.1)
        made.broker.region_down("main")
        made.run(5)
        made.check()
        return made.trace

    assert story(net(QuotaPlan())) == story(Net(1, hop_jitter=0.0))
    assert msgspec.structs.asdict(QuotaPlan())["shared"] == 1.0
