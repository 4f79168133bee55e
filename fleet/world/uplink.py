"""Messages from devices through the simulated broker to the cloud, and to devices that subscribed to their topics.

One event a hop; acknowledgements are computed instead of sent, unless a device wants to see them. Never opens or closes
a connection. The middle layer of `fleet.world.broker.Broker`; called by it and by the simulated devices (publish).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from heapq import heappush
from typing import Any, Final

from fleet.world.clock import DRAW_BITS, FACTOR, MODULUS, Clock
from fleet.world.connection import COPY, RETAIN, BrokerSettings, Client, Connection, Ledger, Packet, Waiting
from fleet.world.downlink import PUBLISH_BYTES, Downlink, Trace
from fleet.world.hops import TO_RELAY, UP_WIRE, combined
from fleet.world.link import RESET

ToCloud = Callable[[str, bytes, str], object]  # (topic, payload, device_id)


class Uplink(Downlink):
    """`deliver_to_cloud` is set by whoever is the cloud. Traced: arrive (device, payload: at the broker), to-cloud."""

    def __init__(self, clock: Clock, settings: BrokerSettings, trace: Trace | None = None) -> None:
        super().__init__(clock, settings, trace)
        self.deliver_to_cloud: ToCloud = lambda topic, payload, device_id: None
        self._at_broker_fn: Final = self._at_broker
        self._to_cloud_fn: Final = self._to_cloud

    def publish(
        self, client: Client, topic: str, payload: bytes, qos: int, token: Any = None, retain: bool = False
    ) -> bool:
        """False: not connected, or the device's own queue is full; the message was not taken."""
        conn = client.conn
        if conn is None or not conn.ready:
            return False
        packet = (conn, topic, payload, qos, RETAIN if retain else 0, token)
        ledger = conn.ledger
        if not conn.flows_up:
            wait = conn.wait_up
            if wait is None:
                wait = conn.wait_up = Waiting(self.clock._now)
                self._backlog[conn] = None
            elif len(wait.packets) >= self.settings.queue_max:
                return self._refuse_up(ledger, payload, packet)
            ledger.sent_up += 1
            self.sent_up += 1
            ledger.bytes_up += len(payload)
            wait.sent(packet)
            return True
        if qos:
            acks = conn.acks_up
            if acks and (conn.queue_up is not None or (acks[-1] > self.clock._now and len(acks) >= self._limit)):
                return self._queue_up(conn, packet)
        ledger.sent_up += 1
        self.sent_up += 1
        ledger.bytes_up += len(payload)
        self._put_up(packet)
        return True

    def _refuse_up(self, ledger: Ledger, payload: bytes, packet: Packet) -> bool:
        ledger.sent_up += 1
        self.sent_up += 1
        ledger.bytes_up += len(payload)
        self._dropped_up(packet[0], "queue full", packet)
        return False

    def _queue_up(self, conn: Connection, packet: Packet) -> bool:
        """At the limit of unacknowledged messages: send if acknowledgements have come, else wait for them."""
        ledger, acks, now = conn.ledger, conn.acks_up, self.clock._now
        del acks[: bisect_right(acks, now)]
        if conn.queue_up is None and len(acks) < self._limit:
            ledger.sent_up += 1
            self.sent_up += 1
            ledger.bytes_up += len(packet[2])
            self._put_up(packet)
            return True
        if conn.queue_up is None:
            conn.queue_up = []
            self._backlog[conn] = None
        elif len(conn.queue_up) >= self.settings.queue_max:
            return self._refuse_up(ledger, packet[2], packet)
        ledger.sent_up += 1
        self.sent_up += 1
        ledger.bytes_up += len(packet[2])
        conn.queue_up.append(packet)
        if not conn.draining_up:
            conn.draining_up = True
            self.clock.post_at(acks[0] if acks else now, conn.tie, self._drain_up, conn)
        return True

    def _drain_up(self, conn: Connection) -> None:
        conn.draining_up = False
        queue, acks, now = conn.queue_up, conn.acks_up, self.clock._now
        if queue is None or not conn.held:
            return
        if not conn.flows_up:
            return  # _flush_up comes back here
        del acks[: bisect_right(acks, now)]
        taken = max(0, self._limit - len(acks))
        conn.queue_up = queue[taken:] or None
        for packet in queue[:taken]:
            self._put_up(packet)
        if conn.queue_up is not None and not conn.draining_up:
            conn.draining_up = True
            self.clock.post_at(max(now, acks[0]) if acks else now, conn.tie, self._drain_up, conn)

    def _put_up(self, packet: Packet) -> None:
        """Onto the wire."""
        conn, topic, payload, qos, _, token = packet
        now = self.clock._now
        if not conn.flows_up:  # it broke while a queue was being sent
            self._park_up(conn, packet)
            return
        at = conn.link.up_us(now, len(payload) + len(topic) + PUBLISH_BYTES, conn.stream)
        if at == RESET:
            self._break_for_good(conn)
            self._park_up(conn, packet)
            return
        if self.faults:
            at = self._faulty_up(packet, at)
            if at < 0:
                return
        if at <= conn.arrival_up_us:
            at = conn.arrival_up_us + 1
        conn.arrival_up_us = at
        tie = conn.tie
        tie.state = state = tie.state * FACTOR % MODULUS
        heappush(self._heap, (at, state, tie.serial, self._at_broker_fn, packet))
        if qos:
            acks = conn.acks_up
            if acks and acks[-1] <= now:
                acks.clear()
            acked = at + conn.link.profile.delay_us
            acks.append(acked if not acks or acked > acks[-1] else acks[-1])
            if conn.client.wants_puback:
                self.clock.post_at(acks[-1], tie, self._puback, (conn, token))

    def _puback(self, acked: tuple[Connection, Any]) -> None:
        conn, token = acked
        if conn.ready and conn.clear:
            conn.client.on_puback(token)

    def _faulty_up(self, packet: Packet, at: int) -> int:
        """The arrival as the open faults want it; -1: it does not go this way."""
        conn, _, _, qos, flags, _ = packet
        fate = combined(self.faults, UP_WIRE, conn.device_id, conn.region, qos)
        if fate is None:
            return at
        if fate.lost or fate.reset:
            self._dropped_up(conn, "fault", packet)
            if fate.reset:
                self._reset(conn)
            return -1
        at += fate.wire_us
        if fate.copy_us >= 0:
            conn.ledger.copies_up += 1
            copy = (*packet[:4], flags | COPY, None)
            self.clock.post_at(at + fate.late_us + fate.copy_us, conn.tie, self._at_broker_fn, copy)
        if fate.late_us:
            # The bytes arrive in order; the broker deals with the message late.
            self.clock.post_at(at + fate.late_us, conn.tie, self._at_broker_fn, packet)
            conn.arrival_up_us = max(at, conn.arrival_up_us + 1)
            return -1
        return at

    def _at_broker(self, packet: Packet) -> None:
        """A PUBLISH arrives at the broker."""
        conn = packet[0]
        if not conn.served:
            self._dropped_up(conn, "connection ended", packet)
            return
        if not conn.clear:
            if conn.held:
                self._park_up(conn, packet)
            else:
                self._dropped_up(conn, "connection ended", packet)
            return
        if 0 <= conn.cut_at_us < self.clock._now - conn.link.profile.span_us:
            self._dropped_up(conn, "power cut", packet)  # only what was on its way arrives: nobody retransmits
            return
        if len(packet[2]) > self._payload_max:
            self._dropped_up(conn, "too large", packet)
            self._end(conn, "too large")
            return
        self._dispatch(packet)

    def _dispatch(self, packet: Packet) -> None:
        """The broker has the message: to the cloud's rule, and to devices that subscribed to its topic."""
        conn, topic, payload, qos, flags, _ = packet
        if flags & RETAIN:
            self._retain(topic, payload, qos)
        if topic in self._subscribers or self._filters:
            self._fan_out(topic, payload, qos, flags & COPY)
        if not topic.startswith(self.settings.cloud_prefix):
            if not flags & COPY:
                conn.ledger.delivered_up += 1
            return
        tie = conn.tie
        tie.state = state = tie.state * FACTOR % MODULUS
        delay = self._hop_low_us + (state * self._hop_span_us >> DRAW_BITS)
        if self.faults:
            fate = combined(self.faults, TO_RELAY, conn.device_id, conn.region, qos)
            if fate is not None:
                delay += fate.wire_us + fate.late_us
                if fate.copy_us >= 0:
                    conn.ledger.copies_up += 1
                    copy = (*packet[:4], flags | COPY, None)
                    self.clock.post_in(delay + fate.copy_us, tie, self._to_cloud_fn, copy)
        heappush(self._heap, (self.clock._now + delay, state, tie.serial, self._to_cloud_fn, packet))

    def _to_cloud(self, packet: Packet) -> None:
        conn, topic, payload, _, flags, _ = packet
        if not flags & COPY:
            conn.ledger.delivered_up += 1
        trace = self.trace
        if trace is not None:
            trace("to-cloud", conn.device_id, payload)
        self.deliver_to_cloud(topic, payload, conn.device_id)

    def _flush_up(self, conn: Connection) -> None:
        """TCP's retransmission after a break has come through, and everything behind it."""
        wait = conn.wait_up
        if not conn.clear or not conn.held or wait is None:
            return
        conn.heard()
        conn.wait_up = None
        conn.flows_up = True
        for packet in wait.packets:
            self._put_up(packet)
        if conn.queue_up is not None and not conn.draining_up:
            self._drain_up(conn)
        self._settled(conn)

    def _park_up(self, conn: Connection, packet: Packet) -> None:
        """What was on its way when the path broke, or is taken from a queue while it is broken."""
        if conn.wait_up is None:
            conn.wait_up = Waiting(self.clock._now)
            self._backlog[conn] = None
        conn.wait_up.caught(packet)

    def _take_waiting_up(self, conn: Connection) -> list[Packet]:
        packets = conn.wait_up.packets if conn.wait_up is not None else []
        packets += conn.queue_up or ()
        conn.wait_up = conn.queue_up = None
        self._settled(conn)
        return packets

    def _dropped_up(self, conn: Connection, reason: str, packet: Packet) -> None:
        if not packet[4] & COPY:
            conn.ledger.drop_up(reason)
            self.drops["up:" + reason] += 1
        if self.trace is not None:
            self.trace("drop", conn.device_id, reason)

    def _publish_will(self, conn: Connection) -> None:
        will = conn.will
        if will is not None:
            conn.ledger.sent_up += 1
            self.sent_up += 1
            conn.ledger.bytes_up += len(will.payload)
            self._dispatch((conn, will.topic, will.payload, will.qos, RETAIN if will.retain else 0, None))
