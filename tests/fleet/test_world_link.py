"""The link: delays, rates, bursts of loss as retransmissions, and what a break costs TCP."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.rng import rng
from fleet.scenario.plan import LinkPlan
from fleet.world.link import HEADER_BYTES, RESET, RTO_MAX_US, RTO_MIN_US, Link, Profile


def test_a_plain_link_has_its_delay_and_draws_nothing() -> None:
    link = Link(LinkPlan(delay_us=20_000))
    stream = rng(1, "a", "link")
    untouched = rng(1, "a", "link").bits()
    assert link.up_us(1_000, 300, stream) == 21_000
    assert link.down_us(1_000, 100_000, stream) == 21_000
    assert stream.bits() == untouched


def test_jitter_stays_within_its_bounds_and_reaches_them() -> None:
    link = Link(LinkPlan(delay_us=20, jitter_us=5))
    stream = rng(1, "a", "link")
    assert {link.up_us(0, 300, stream) for _ in range(500)} == set(range(15, 26))


def test_a_rate_makes_messages_wait_for_each_other_each_way_apart() -> None:
    link = Link(LinkPlan(delay_us=10_000, rate_up_bps=8_000_000, rate_down_bps=80_000_000))
    stream = rng(1, "a", "link")
    size = 1_000 - HEADER_BYTES
    assert link.up_us(0, size, stream) == 1_000 + 10_000
    assert link.up_us(0, size, stream) == 2_000 + 10_000
    assert link.down_us(0, size, stream) == 100 + 10_000
    assert link.up_us(50_000, size, stream) == 50_000 + 1_000 + 10_000
    link.up_us(50_000, 1_000_000, stream)
    link.forget()
    assert link.up_us(60_000, size, stream) == 60_000 + 1_000 + 10_000


def test_what_does_not_fit_the_bottleneck_is_sent_again() -> None:
    link = Link(LinkPlan(delay_us=0, rate_up_bps=8_000_000, queue_packets=2))
    stream = rng(1, "a", "link")
    size = 1_000 - HEADER_BYTES
    arrivals = [link.up_us(0, size, stream) for _ in range(5)]
    rto = link.profile.rto_us
    # Two packets of 1,469 bytes fit: 2,938 µs of waiting.
    assert arrivals == [1_000, 2_000, 3_000 + rto, 4_000 + rto, 5_000 + rto]


@pytest.mark.parametrize(("loss", "burst"), [(0.02, 3.0), (0.05, 2.0), (0.2, 5.0), (0.048, 1.0)])
def test_mean_loss_and_mean_burst_are_the_plans(loss: float, burst: float) -> None:
    link = Link(LinkPlan(delay_us=1_000, loss=loss, burst=burst))
    stream = rng(7, "a", "link")
    n = 200_000
    lost = [link.up_us(0, 300, stream) > 1_000 for _ in range(n)]
    bursts = sum(now and not before for before, now in zip([False, *lost], lost, strict=False))
    assert sum(lost) / n == pytest.approx(loss, rel=0.1)
    assert sum(lost) / bursts == pytest.approx(max(burst, 1 / (1 - loss)), rel=0.1)


def test_a_lost_packet_costs_retransmission_time_outs_that_double() -> None:
    link = Link(LinkPlan(delay_us=1_000, loss=0.3, burst=2.0))
    stream = rng(3, "a", "link")
    rto = link.profile.rto_us
    assert rto >= RTO_MIN_US
    steps = {0} | {rto * (2**n - 1) for n in range(1, 12)}
    seen = {link.up_us(0, 300, stream) - 1_000 for _ in range(5_000)}
    assert seen <= steps
    assert len(seen) >= 5


def test_a_long_message_meets_more_losses_than_a_short_one() -> None:
    def share(size_bytes: int) -> float:
        link = Link(LinkPlan(delay_us=1_000, loss=0.02, burst=1.5))
        stream = rng(5, "a", "link")
        return sum(link.down_us(0, size_bytes, stream) > 1_000 for _ in range(4_000)) / 4_000

    assert share(300) < 0.04
    assert share(30_000) > 0.2


def test_a_link_that_loses_everything_resets_the_connection() -> None:
    link = Link(LinkPlan(delay_us=1_000, loss=1.0, burst=2.0))
    assert link.up_us(0, 300, rng(1, "a", "link")) == RESET


def test_a_lognormal_delay_has_its_median_and_99th_percentile() -> None:
    link = Link(LinkPlan(delay_us=800_000, delay_p99_us=8_000_000))
    stream = rng(1, "a", "link")
    delays = sorted(link.up_us(0, 100, stream) for _ in range(20_000))
    assert delays[10_000] == pytest.approx(800_000, rel=0.05)
    assert delays[19_800] == pytest.approx(8_000_000, rel=0.15)


@given(st.integers(0, 10**12), st.integers(0, 2 * 10**9))
def test_after_a_break_tcp_serves_its_back_off_to_the_end(sent_us: int, broken_us: int) -> None:
    link = Link(LinkPlan(delay_us=20_000))
    again = link.resume_us(sent_us, sent_us + broken_us)
    assert sent_us + broken_us <= again
    # It waits at most as long as it has been waiting, and never more than the longest time-out.
    assert again - sent_us - broken_us <= min(broken_us + link.profile.rto_us, RTO_MAX_US)


def test_impossible_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="loss"):
        Profile(LinkPlan(loss=1.5))
    with pytest.raises(ValueError, match="burst"):
        Profile(LinkPlan(loss=0.1, burst=0.5))


def test_devices_of_a_group_share_numbers_and_nothing_else() -> None:
    profile = Profile(LinkPlan(delay_us=10, rate_up_bps=8_000, loss=0.1, burst=2.0))
    a, b = Link(profile), Link(profile)
    stream = rng(1, "a", "link")
    a.up_us(0, 1_000, stream)
    assert b.busy_up_us == 0 and a.busy_up_us > 0
    assert math.isclose(profile.bad_to_good, 0.5)
