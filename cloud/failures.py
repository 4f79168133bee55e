"""How often an address may offer a wrong identity: a leaky bucket each, so that guessing is slow and costs no reads.

Addresses of IPv6 count by their /64, which one customer has as a whole. Time is given; what is remembered is bounded.
Called by cloud.service_websocket_door.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from ipaddress import ip_address, ip_network
from typing import Final

_ADDRESSES_MAX: Final = 10_000


def network_of(address: str) -> str:
    """What counts as one address."""
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if found.version == 4:
        return str(found)
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ip_network((found, 64), strict=False))


class Failures:
    """`burst`: at once. `per_minute`: how fast they are forgiven."""

    def __init__(self, burst: int, per_minute: int, monotonic_ms: Callable[[], int]) -> None:
        self._burst = burst
        self._forgiven_ms = 60_000 / per_minute
        self._monotonic_ms = monotonic_ms
        self._counts: OrderedDict[str, tuple[float, int]] = OrderedDict()  # network -> failures, and as of when

    def too_many(self, network: str) -> bool:
        return self._now(network) > self._burst - 1

    def add(self, network: str) -> None:
        self._counts[network] = (self._now(network) + 1, self._monotonic_ms())
        self._counts.move_to_end(network)
        if len(self._counts) > _ADDRESSES_MAX:
            self._counts.popitem(last=False)  # of whom least was heard of late

    def _now(self, network: str) -> float:
        count, at_ms = self._counts.get(network, (0.0, 0))
        return max(0.0, count - (self._monotonic_ms() - at_ms) / self._forgiven_ms)
