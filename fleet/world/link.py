"""The link of one device: how long bytes take each way, and when a TCP connection over it breaks.

MQTT runs over TCP, so a lost packet is never a missing byte: it is a retransmission, hence a delay, and when that fails
for too long, a reset of the connection. Packets are lost in bursts (Gilbert, 1960; Elliott, 1963): with mean loss L and
mean burst B, the bad state is left with r = 1/B and entered with p = r·L/(1−L).
Keeps numbers and a few words of state per device, schedules nothing, knows neither messages nor clocks: the broker asks
it, passes the present time, and draws from the device's own stream.
"""

from __future__ import annotations

import math
from typing import Final, Protocol

from fleet.rng import Stream

RESET: Final = -1  # the connection broke: TCP gave up
PACKET_BYTES: Final = 1400
HEADER_BYTES: Final = 69  # IP 20, TCP with time stamps 32, one TLS record about 17
RTO_MIN_US: Final = 200_000  # Linux's least retransmission time-out; it doubles each time (RFC 6298)
RTO_MAX_US: Final = 120_000_000
RETRIES_MAX: Final = 15  # Linux's tcp_retries2
_P99_SIGMAS: Final = 2.3263478740408408  # of a normal distribution
_HALF: Final = 1 << 32


class LinkNumbers(Protocol):
    """What a plan says of a link (fleet.scenario.plan.LinkPlan)."""

    @property
    def delay_us(self) -> int: ...
    @property
    def jitter_us(self) -> int: ...
    @property
    def delay_p99_us(self) -> int: ...
    @property
    def rate_up_bps(self) -> int: ...
    @property
    def rate_down_bps(self) -> int: ...
    @property
    def loss(self) -> float: ...
    @property
    def burst(self) -> float: ...
    @property
    def queue_packets(self) -> int: ...


class Profile:
    """The numbers of a link made ready for use; shared by all devices of a group."""

    __slots__ = (
        "bad_to_good", "decay", "delay_us", "down_ns_per_byte", "draws", "good_to_bad", "jitter_us", "loss", "loss_cut",
        "low_us", "median_us", "queue_down_us", "queue_up_us", "rto_us", "sigma", "span_us", "up_ns_per_byte",
    )  # fmt: skip

    def __init__(self, numbers: LinkNumbers) -> None:
        if not 0.0 <= numbers.loss <= 1.0:
            raise ValueError(f"loss {numbers.loss} is not within 0 and 1")
        if numbers.burst < 1.0:
            raise ValueError(f"a burst of {numbers.burst} packets: at least 1")
        self.delay_us = numbers.delay_us
        self.jitter_us = min(numbers.jitter_us, numbers.delay_us)
        self.low_us = self.delay_us - self.jitter_us
        self.sigma = 0.0
        if numbers.delay_p99_us > numbers.delay_us > 0:
            self.sigma = math.log(numbers.delay_p99_us / numbers.delay_us) / _P99_SIGMAS
            self.jitter_us = 0
        self.up_ns_per_byte = 8_000_000_000 // numbers.rate_up_bps if numbers.rate_up_bps else 0
        self.down_ns_per_byte = 8_000_000_000 // numbers.rate_down_bps if numbers.rate_down_bps else 0
        packet = PACKET_BYTES + HEADER_BYTES
        self.queue_up_us = numbers.queue_packets * packet * self.up_ns_per_byte // 1000
        self.queue_down_us = numbers.queue_packets * packet * self.down_ns_per_byte // 1000
        self.loss = loss = numbers.loss
        # Losses that know nothing of each other already come in bursts of 1/(1−L): no burst is shorter.
        burst = max(numbers.burst, 1.0 / (1.0 - loss)) if loss < 1.0 else math.inf
        self.bad_to_good = 1.0 / burst
        self.good_to_bad = min(1.0, self.bad_to_good * loss / (1.0 - loss)) if loss < 1.0 else 1.0
        self.decay = 1.0 - self.good_to_bad - self.bad_to_good  # how fast a state is forgotten, per packet
        self.loss_cut = int(self.good_to_bad * _HALF)
        self.draws = loss > 0.0 or self.jitter_us > 0 or self.sigma > 0.0
        self.rto_us = max(RTO_MIN_US, 2 * self.delay_us + 4 * self.jitter_us + RTO_MIN_US // 4)
        self.span_us = max(self.delay_us + self.jitter_us, numbers.delay_p99_us)  # hardly anything takes longer


class Link:
    """One device's link. Devices of a group share the profile."""

    __slots__ = ("bad_down", "bad_up", "busy_down_us", "busy_up_us", "is_up", "profile")

    def __init__(self, profile: Profile | LinkNumbers) -> None:
        self.profile = profile if isinstance(profile, Profile) else Profile(profile)
        self.is_up = True
        self.bad_up = self.bad_down = False  # Gilbert-Elliott, per direction
        self.busy_up_us = self.busy_down_us = 0  # when what was sent before has left

    def up_us(self, now_us: int, size_bytes: int, stream: Stream) -> int:
        """When a message sent now has arrived at the broker, or RESET. Draws nothing where nothing is random."""
        profile = self.profile
        start = now_us
        if profile.up_ns_per_byte:
            if self.busy_up_us > now_us:
                start = self.busy_up_us
            self.busy_up_us = start = start + (size_bytes + HEADER_BYTES) * profile.up_ns_per_byte // 1000
        if not profile.draws:
            delay = profile.delay_us
        else:
            bits = stream.bits()
            delay = profile.low_us + ((bits >> 32) * (2 * profile.jitter_us + 1) >> 32)
            if profile.sigma:
                delay = int(stream.lognormal(profile.delay_us, profile.sigma))
            # The first packet by the low half of the draw: in the good state it is lost with good_to_bad.
            if profile.loss and (self.bad_up or size_bytes > PACKET_BYTES or bits % _HALF < profile.loss_cut):
                self.bad_up, lost_us = _lost_us(profile, self.bad_up, size_bytes, bits % _HALF, stream)
                if lost_us == RESET:
                    return RESET
                delay += lost_us
        if profile.queue_up_us and start - now_us > profile.queue_up_us:
            delay += profile.rto_us  # over the bottleneck's queue: dropped there, sent again
        return start + delay

    def down_us(self, now_us: int, size_bytes: int, stream: Stream) -> int:
        """When a message sent now by the broker has arrived at the device, or RESET."""
        profile = self.profile
        start = now_us
        if profile.down_ns_per_byte:
            if self.busy_down_us > now_us:
                start = self.busy_down_us
            self.busy_down_us = start = start + (size_bytes + HEADER_BYTES) * profile.down_ns_per_byte // 1000
        if not profile.draws:
            delay = profile.delay_us
        else:
            bits = stream.bits()
            delay = profile.low_us + ((bits >> 32) * (2 * profile.jitter_us + 1) >> 32)
            if profile.sigma:
                delay = int(stream.lognormal(profile.delay_us, profile.sigma))
            if profile.loss and (self.bad_down or size_bytes > PACKET_BYTES or bits % _HALF < profile.loss_cut):
                self.bad_down, lost_us = _lost_us(profile, self.bad_down, size_bytes, bits % _HALF, stream)
                if lost_us == RESET:
                    return RESET
                delay += lost_us
        if profile.queue_down_us and start - now_us > profile.queue_down_us:
            delay += profile.rto_us
        return start + delay

    def forget(self) -> None:
        """A new connection: nothing of the old one is in the way of its bytes."""
        self.busy_up_us = self.busy_down_us = 0

    def resume_us(self, sent_us: int, now_us: int) -> int:
        """The link is up again now; when TCP next sends what it has been sending in vain since `sent_us`.

        The back-off that the outage built up is served to its end: after a long outage up to two minutes pass."""
        attempt, wait = sent_us, self.profile.rto_us
        while attempt < now_us:
            attempt += wait
            wait = min(2 * wait, RTO_MAX_US)
        return attempt


def _lost_us(profile: Profile, bad: bool, size_bytes: int, first: int, stream: Stream) -> tuple[bool, int]:
    """The state after a message's packets, and how much later than the others the last of the lost ones arrives.

    `first`: 32 random bits for the first packet. Packets of one message are under way together, so that their
    retransmissions overlap: the longest counts."""
    longest = 0
    state = bad
    for packet in range((size_bytes + PACKET_BYTES - 1) // PACKET_BYTES or 1):
        unit = first / _HALF if packet == 0 else stream.unit()
        state = unit >= profile.bad_to_good if state else unit < profile.good_to_bad
        if not state:
            continue
        waited = _retransmit_us(profile, stream)
        if waited == RESET:
            return False, RESET
        longest = max(longest, waited)
    return state, longest


def _retransmit_us(profile: Profile, stream: Stream) -> int:
    """How long retransmissions of one lost packet take. Each comes after a wait twice as long as before, in which the
    burst fades: the n-th is lost with L + (1−L)·(1−p−r)^(2^n)."""
    waited, wait, fading = 0, profile.rto_us, profile.decay
    for _ in range(RETRIES_MAX):
        waited += wait
        wait = min(2 * wait, RTO_MAX_US)
        if stream.unit() >= profile.loss + (1.0 - profile.loss) * fading:
            return waited
        fading *= fading
    return RESET
