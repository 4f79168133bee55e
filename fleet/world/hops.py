"""Faults on the four hops of a message: losing, repeating, reordering and delaying it, as far as the hop can do that.

A connection of TCP neither loses nor repeats nor reorders, so what a fault asks for becomes what such a hop does do:
- device-to-broker, broker-to-device. QoS 0: lost. QoS 1 is never lost silently on a live connection: one in four times
  the connection is reset, else the message is late by a retransmission. Only QoS 1 is repeated (sent again, or its
  acknowledgement lost). Reordered: the broker's own doing, which promises no order of messages.
- broker-to-relay is at least once: a message to be lost comes late instead, by seconds (the rule's retry).
- relay-to-broker is one request, whose failure nobody repairs: lost.
Decides only; the broker does what is decided. Every device draws from its own stream of each fault.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal, NamedTuple

from fleet.rng import Stream, rng

Hop = Literal["device-to-broker", "broker-to-relay", "relay-to-broker", "broker-to-device"]
UP_WIRE: Final[Hop] = "device-to-broker"
TO_RELAY: Final[Hop] = "broker-to-relay"
FROM_RELAY: Final[Hop] = "relay-to-broker"
DOWN_WIRE: Final[Hop] = "broker-to-device"
HOPS: Final[tuple[Hop, ...]] = (UP_WIRE, TO_RELAY, FROM_RELAY, DOWN_WIRE)

RETRANSMIT_US: Final = (200_000, 5_000_000)  # a late QoS 1 message
RULE_RETRY_US: Final = (1_000_000, 30_000_000)


class Fate(NamedTuple):
    """What happens to one message on one hop."""

    lost: bool = False
    reset: bool = False  # the connection breaks, and the message with it
    wire_us: int = 0  # later, and so is what follows on the same connection
    late_us: int = 0  # later, overtaken by others
    copy_us: int = -1  # 0 or more: a second copy, that much later than the first


class HopFault:
    """One fault while its window is open. Probabilities are per message; `spread_us` is the longest extra delay of a
    reordered message or a copy. `devices`, `regions`, `qos`: None means all."""

    __slots__ = (
        "_seed", "_streams", "delay_us", "devices", "duplicate", "hops", "lose", "name", "qos", "regions", "reorder",
        "sometimes", "spread_us",
    )  # fmt: skip

    def __init__(
        self,
        seed: int,
        name: str,
        hops: Iterable[Hop],
        *,
        lose: float = 0.0,
        duplicate: float = 0.0,
        reorder: float = 0.0,
        delay_us: int = 0,
        spread_us: int = 5_000_000,
        devices: Iterable[str] | None = None,
        regions: Iterable[str] | None = None,
        qos: int | None = None,
    ) -> None:
        self.name = name
        self.hops = frozenset(hops)
        unknown = self.hops - frozenset(HOPS)
        if unknown:
            raise ValueError(f"unknown hops: {', '.join(sorted(unknown))}")
        self.lose, self.duplicate, self.reorder = lose, duplicate, reorder
        self.sometimes = lose + duplicate + reorder
        self.delay_us = delay_us
        self.spread_us = spread_us
        self.devices = None if devices is None else frozenset(devices)
        self.regions = None if regions is None else frozenset(regions)
        self.qos = qos
        self._seed = seed
        self._streams: dict[str, Stream] = {}

    def fate(self, hop: Hop, device: str, region: str, qos: int) -> Fate | None:
        """None: this fault leaves the message alone. Draws once for every message in its reach, and more for those to
        which something happens."""
        if hop not in self.hops or (self.qos is not None and qos != self.qos):
            return None
        if self.devices is not None and device not in self.devices:
            return None
        if self.regions is not None and region not in self.regions:
            return None
        stream = self._streams.get(device)
        if stream is None:
            stream = self._streams[device] = rng(self._seed, device, f"fault:{self.name}")
        chance = stream.unit()
        if chance >= self.sometimes and not self.delay_us:
            return None
        lose, copy, late, how, extra = self._happens(chance, stream)
        wire_us, late_us, copy_us = self.delay_us, 0, -1
        if lose:
            if hop == FROM_RELAY or (hop != TO_RELAY and qos == 0):
                return Fate(lost=True)
            if hop == TO_RELAY:
                late_us += _scale(RULE_RETRY_US, how)
            elif how < 0.25:
                return Fate(reset=True)
            else:
                wire_us += _scale(RETRANSMIT_US, (how - 0.25) / 0.75)
        if late:
            late_us += int(extra * self.spread_us)
        if copy and (qos > 0 or hop in (TO_RELAY, FROM_RELAY)):
            copy_us = 1 + int(how * self.spread_us)
        return Fate(False, False, wire_us, late_us, copy_us)

    def _happens(self, chance: float, stream: Stream) -> tuple[bool, bool, bool, float, float]:
        """(lost, repeated, late, how, how much). Where the three shares leave room for "nothing", at most one of them
        happens; else each by itself."""
        if self.sometimes < 1.0:
            lose = chance < self.lose
            copy = not lose and chance < self.lose + self.duplicate
            late = not lose and not copy and chance < self.sometimes
        else:
            lose, copy, late = stream.chance(self.lose), stream.chance(self.duplicate), stream.chance(self.reorder)
        return lose, copy, late, stream.unit(), stream.unit()


def _scale(limits: tuple[int, int], unit: float) -> int:
    low, high = limits
    return low + int((high - low) * unit)


def combined(faults: Iterable[HopFault], hop: Hop, device: str, region: str, qos: int) -> Fate | None:
    """What all open faults together do to a message. All draw, also when an earlier one lost it already."""
    result: Fate | None = None
    for fault in faults:
        if hop not in fault.hops or (fault.qos is not None and qos != fault.qos):
            continue
        fate = fault.fate(hop, device, region, qos)
        if fate is None:
            continue
        result = fate if result is None else _both(result, fate)
    return result


def _both(a: Fate, b: Fate) -> Fate:
    return Fate(
        a.lost or b.lost, a.reset or b.reset, a.wire_us + b.wire_us, a.late_us + b.late_us, max(a.copy_us, b.copy_us)
    )
