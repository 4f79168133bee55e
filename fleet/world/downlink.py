"""Messages from the cloud to devices through the simulated broker, and the accounts that both directions share.

One event a hop; acknowledgements are computed instead of sent. Every message is accounted for: sent = delivered +
dropped (with a reason) + in flight, copies apart. Never opens or closes a connection.
The lowest layer of `fleet.world.broker.Broker`; called by it and by the simulated cloud (publish_from_cloud).
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable
from heapq import heappush
from typing import Any, Final

from fleet.world.clock import DRAW_BITS, FACTOR, MODULUS, Clock
from fleet.world.connection import COPY, RETAIN, BrokerSettings, Connection, Ledger, Packet, Waiting, matches
from fleet.world.hops import DOWN_WIRE, FROM_RELAY, HopFault, combined
from fleet.world.link import RESET

Trace = Callable[[str, str, Any], object]  # (kind, entity, detail)
CloudPacket = tuple[str, bytes, int, int]  # topic, payload, QoS, flags

PUBLISH_BYTES: Final = 7  # an MQTT PUBLISH besides topic and payload


class Downlink:
    """Messages and their accounts. `faults` are set by whoever plans them.

    Traced: route (a topic, the payload: from the cloud at the broker), deliver (device, payload), drop (the reason)."""

    def __init__(self, clock: Clock, settings: BrokerSettings, trace: Trace | None = None) -> None:
        self.clock = clock
        self.settings = settings
        self.trace = trace
        self.faults: list[HopFault] = []  # whose windows are open
        self.ledgers: dict[str, Ledger] = {}
        # From the cloud, until a message is routed to devices (each of which then counts in its device's ledger).
        self.cloud_sent = self.cloud_routed = self.cloud_dropped = self.cloud_copies = 0
        self.sent_up = self.sent_down = 0  # of all, copies apart
        self.drops: Counter[str] = Counter()  # of all, by reason
        self._tie = clock.tie("broker")
        # topic -> connections, in order of subscribing, and the QoS of each subscription
        self._subscribers: dict[str, dict[Connection, int]] = {}
        self._filters: dict[str, dict[Connection, int]] = {}  # the same for filters with wildcards
        self._retained: dict[str, tuple[bytes, int]] = {}
        self._backlog: dict[Connection, None] = {}  # where anything waits, for counting
        self._heap = clock.heap
        self._limit = settings.in_flight_max
        self._payload_max = settings.payload_bytes_max
        self._hop_low_us = int(settings.hop_delay_us * (1.0 - settings.hop_jitter))
        self._hop_span_us = int(settings.hop_delay_us * 2 * settings.hop_jitter) + 1
        # One object each: the heap is searched for them when messages in flight are counted.
        self._route_fn: Final = self._route
        self._at_device_fn: Final = self._at_device

    def _break_for_good(self, conn: Connection) -> None:
        raise NotImplementedError

    def _reset(self, conn: Connection) -> None:
        raise NotImplementedError

    def _end(self, conn: Connection, reason: str) -> None:
        raise NotImplementedError

    def ledger(self, device_id: str) -> Ledger:
        found = self.ledgers.get(device_id)
        if found is None:
            found = self.ledgers[device_id] = Ledger()
        return found

    # Down: cloud to broker to devices.

    def publish_from_cloud(self, topic: str, payload: bytes, qos: int, retain: bool = False) -> None:
        """Best effort, as a request to the broker is whose answer nobody waits for."""
        self.cloud_sent += 1
        if len(payload) > self._payload_max:
            self._dropped_from_cloud(topic, "too large")  # the request is refused
            return
        subscribers = self._subscribers.get(topic)
        device = region = ""
        tie = self._tie
        if subscribers is not None and len(subscribers) == 1:
            for conn in subscribers:  # a message for one device draws from that device alone
                tie, device, region = conn.tie, conn.device_id, conn.region
        tie.state = state = tie.state * FACTOR % MODULUS
        delay = self._hop_low_us + (state * self._hop_span_us >> DRAW_BITS)
        packet = (topic, payload, qos, RETAIN if retain else 0)
        if self.faults:
            fate = combined(self.faults, FROM_RELAY, device, region, qos)
            if fate is not None:
                if fate.lost:
                    self._dropped_from_cloud(topic, "fault")
                    return
                delay += fate.wire_us + fate.late_us
                if fate.copy_us >= 0:
                    self.cloud_copies += 1
                    copy = (topic, payload, qos, COPY)
                    self.clock.post_in(delay + fate.copy_us, tie, self._route_fn, copy)
        heappush(self._heap, (self.clock._now + delay, state, tie.serial, self._route_fn, packet))

    def _dropped_from_cloud(self, topic: str, reason: str) -> None:
        self.cloud_dropped += 1
        self.drops["cloud:" + reason] += 1
        if self.trace is not None:
            self.trace("drop", topic, reason)

    def _route(self, packet: CloudPacket) -> None:
        """A message from the cloud arrives at the broker."""
        topic, payload, qos, flags = packet
        if flags & RETAIN:
            self._retain(topic, payload, qos)
        found = self._fan_out(topic, payload, qos, flags & COPY)
        if flags & COPY:
            return
        if found:
            self.cloud_routed += 1
        else:
            self._dropped_from_cloud(topic, "no subscriber")

    def _fan_out(self, topic: str, payload: bytes, qos: int, flags: int) -> bool:
        """To every connection that subscribed, once each, however many of its filters match, with the message's QoS or
        the highest of these subscriptions, the lower of the two. False: there is none."""
        subscribers = self._subscribers.get(topic)
        if self._filters:
            subscribers = dict(subscribers or {})
            for topic_filter, more in self._filters.items():
                if matches(topic_filter, topic):
                    for conn, granted in more.items():
                        subscribers[conn] = max(granted, subscribers.get(conn, 0))
        if not subscribers:
            return False
        for conn, granted in tuple(subscribers.items()):
            self._send_down((conn, topic, payload, qos if qos <= granted else granted, flags, None))
        return True

    def _send_down(self, packet: Packet) -> None:
        conn, _, payload, qos, flags, _ = packet
        ledger = conn.ledger
        if flags & COPY:
            ledger.copies_down += 1
        else:
            ledger.sent_down += 1
            self.sent_down += 1
        ledger.bytes_down += len(payload)
        if not conn.flows_down:
            if not conn.served:
                self._dropped_down(conn, "connection ended", packet)
                return
            wait = conn.wait_down
            if wait is None:
                wait = conn.wait_down = Waiting(self.clock._now)
                self._backlog[conn] = None
            elif len(wait.packets) >= self.settings.queue_max:
                self._dropped_down(conn, "queue full", packet)
                return
            wait.sent(packet)
            return
        if qos:
            acks = conn.acks_down
            if acks and (conn.queue_down is not None or (acks[-1] > self.clock._now and len(acks) >= self._limit)):
                self._queue_down(conn, packet)
                return
        self._put_down(packet)

    def _queue_down(self, conn: Connection, packet: Packet) -> None:
        acks, now = conn.acks_down, self.clock._now
        del acks[: bisect_right(acks, now)]
        if conn.queue_down is None:
            if len(acks) < self._limit:
                self._put_down(packet)
                return
            conn.queue_down = []
            self._backlog[conn] = None
        elif len(conn.queue_down) >= self.settings.queue_max:
            self._dropped_down(conn, "queue full", packet)
            return
        conn.queue_down.append(packet)
        if not conn.draining_down:
            conn.draining_down = True
            self.clock.post_at(acks[0] if acks else now, conn.tie, self._drain_down, conn)

    def _drain_down(self, conn: Connection) -> None:
        conn.draining_down = False
        queue, acks, now = conn.queue_down, conn.acks_down, self.clock._now
        if queue is None or not conn.served or not conn.flows_down:
            return  # _flush_down comes back here
        del acks[: bisect_right(acks, now)]
        taken = max(0, self._limit - len(acks))
        conn.queue_down = queue[taken:] or None
        for packet in queue[:taken]:
            self._put_down(packet)
        if conn.queue_down is not None:
            conn.draining_down = True
            self.clock.post_at(max(now, acks[0]) if acks else now, conn.tie, self._drain_down, conn)

    def _put_down(self, packet: Packet) -> None:
        """Onto the wire to a device."""
        conn, topic, payload, qos, _, _ = packet
        if not conn.flows_down:  # it broke while a queue was being sent
            self._park_down(conn, packet)
            return
        now = self.clock._now
        at = conn.link.down_us(now, len(payload) + len(topic) + PUBLISH_BYTES, conn.stream)
        if at == RESET:
            self._break_for_good(conn)
            self._park_down(conn, packet)
            return
        if self.faults:
            at = self._faulty_down(packet, at)
            if at < 0:
                return
        if at <= conn.arrival_down_us:
            at = conn.arrival_down_us + 1
        conn.arrival_down_us = at
        tie = conn.tie
        tie.state = state = tie.state * FACTOR % MODULUS
        heappush(self._heap, (at, state, tie.serial, self._at_device_fn, packet))
        if qos:
            acks = conn.acks_down
            if acks and acks[-1] <= now:
                acks.clear()
            acked = at + conn.link.profile.delay_us
            acks.append(acked if not acks or acked > acks[-1] else acks[-1])

    def _faulty_down(self, packet: Packet, at: int) -> int:
        """The arrival as the open faults want it; -1: it does not go this way."""
        conn, _, _, qos, flags, _ = packet
        fate = combined(self.faults, DOWN_WIRE, conn.device_id, conn.region, qos)
        if fate is None:
            return at
        if fate.lost or fate.reset:
            self._dropped_down(conn, "fault", packet)
            if fate.reset:
                self._reset(conn)
            return -1
        at += fate.wire_us
        if fate.copy_us >= 0:
            conn.ledger.copies_down += 1
            copy = (*packet[:4], flags | COPY, None)
            self.clock.post_at(at + fate.late_us + fate.copy_us, conn.tie, self._at_device_fn, copy)
        if fate.late_us:
            # Sent late by the broker, which promises no order: what is sent next overtakes it.
            self.clock.post_at(at + fate.late_us, conn.tie, self._at_device_fn, packet)
            return -1
        return at

    def _at_device(self, packet: Packet) -> None:
        conn, topic, payload, qos, flags, _ = packet
        if not conn.ready:
            self._dropped_down(conn, "connection ended", packet)
            return
        if not conn.clear:
            if conn.served:
                self._park_down(conn, packet)
            else:
                self._dropped_down(conn, "connection ended", packet)
            return
        if not flags & COPY:
            conn.ledger.delivered_down += 1
        trace = self.trace
        if trace is not None:
            trace("deliver", conn.device_id, payload)
        conn.client.on_message(topic, payload, qos)

    def _flush_down(self, conn: Connection) -> None:
        wait = conn.wait_down
        if not conn.clear or not conn.served or wait is None:
            return
        conn.wait_down = None
        conn.flows_down = True
        for packet in wait.packets:
            self._put_down(packet)
        if conn.queue_down is not None and not conn.draining_down:
            self._drain_down(conn)
        self._settled(conn)

    def _park_down(self, conn: Connection, packet: Packet) -> None:
        if conn.wait_down is None:
            conn.wait_down = Waiting(self.clock._now)
            self._backlog[conn] = None
        conn.wait_down.caught(packet)

    def _take_waiting_down(self, conn: Connection) -> list[Packet]:
        packets = conn.wait_down.packets if conn.wait_down is not None else []
        packets += conn.queue_down or ()
        conn.wait_down = conn.queue_down = None
        self._settled(conn)
        return packets

    def _dropped_down(self, conn: Connection, reason: str, packet: Packet) -> None:
        if not packet[4] & COPY:
            conn.ledger.drop_down(reason)
            self.drops["down:" + reason] += 1
        if self.trace is not None:
            self.trace("drop", conn.device_id, reason)

    # Retained messages and wills.

    def _retain(self, topic: str, payload: bytes, qos: int) -> None:
        """An empty payload takes the retained message away (MQTT 3.1.1, 3.3.1.3)."""
        if payload:
            self._retained[topic] = (payload, qos)
        else:
            self._retained.pop(topic, None)

    def _send_retained(self, conn: Connection) -> None:
        for topic, (payload, qos) in self._retained.items():
            granted = [most for wanted, most in conn.subscriptions.items() if matches(wanted, topic)]
            if granted:
                self._send_down((conn, topic, payload, min(qos, max(granted)), RETAIN, None))

    def _settled(self, conn: Connection) -> None:
        if conn.wait_up is None and conn.wait_down is None and conn.queue_up is None and conn.queue_down is None:
            self._backlog.pop(conn, None)
