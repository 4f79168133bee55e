"""The simulated broker under quotas: it refuses CONNECTs, drops or delays messages, and meters what it does.

What is refused is decided where the service would: when a CONNECT or PUBLISH has arrived. Takes the place of
fleet.world.broker.Broker in a world whose plan has quotas; a world without never comes here. Traced besides: refuse (a
CONNECT; which quota).
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Final

from fleet.quota.bucket import SECOND_US, TOKEN, Bucket, Buckets, Gauge
from fleet.scenario.plan import QuotaPlan
from fleet.world.broker import Broker
from fleet.world.clock import Clock
from fleet.world.connection import COPY, BrokerSettings, Connection, Packet
from fleet.world.downlink import Trace

PACED: Final = 4  # flag of a message that has waited for its quota already
DAY_US: Final = 86_400 * SECOND_US
MINUTE_US: Final = 60 * SECOND_US
THROTTLED: Final = "throttled"

# (topic, payload, QoS, retain) of a message of the relay that is late
Late = tuple[str, bytes, int, bool]


class Metered:
    """What the broker has counted for the bill, and the gauges of its quotas."""

    def __init__(self, plan: QuotaPlan) -> None:
        self.connects = Gauge(plan.connects_per_s)
        self.client_connects = Gauge(plan.client_connects_per_s)
        self.connections = Gauge(plan.connections)
        self.publishes_in = Gauge(plan.publishes_in_per_s)
        self.publishes_out = Gauge(plan.publishes_out_per_s)
        self.client_in = Gauge(plan.client_publishes_per_s)
        self.client_out = Gauge(plan.client_publishes_per_s)
        self.client_bytes = Gauge(plan.client_bytes_per_s)
        self.in_flight = Gauge(plan.client_in_flight)
        self.payload = Gauge(plan.payload_bytes)
        self.day = Gauge(plan.messages_per_day)
        self.all = Gauge(0.0)  # messages each second, all kinds
        self.refused = self.accepted = 0
        self.subscribes = self.publishes_up = self.publishes_down = self.deliveries = self.pubacks = 0
        self.messages = 0  # in steps
        self.bytes_up = self.bytes_down = 0
        self.rule_triggers = 0
        self.connection_us = self.connection_minutes = 0


class QuotaBroker(Broker):
    """One broker; its quotas are of the whole account, in all regions together."""

    def __init__(self, clock: Clock, settings: BrokerSettings, plan: QuotaPlan, trace: Trace | None = None) -> None:
        super().__init__(clock, settings, trace)
        self.plan = plan
        self.metered = Metered(plan)
        self.load: dict[int, list[int]] = {}  # second -> CONNECTs that came, that were let in; connections then
        self._silent = plan.refusal == "silent"
        self._late = plan.over_publishes == "delay"
        self._step = plan.message_bytes
        self._connects = _bucket(plan.connects_per_s)
        self._in = _bucket(plan.publishes_in_per_s)
        self._out = _bucket(plan.publishes_out_per_s)
        # Where there is no quota the buckets only count; their rate is never asked.
        self._client_connects = Buckets(plan.client_connects_per_s or 1.0)
        self._client_in = Buckets(plan.client_publishes_per_s or 1.0)
        self._client_out = Buckets(plan.client_publishes_per_s or 1.0)
        self._client_bytes = Buckets(plan.client_bytes_per_s or 1.0)
        self._last_up: dict[Connection, int] = {}  # when the last delayed message of a connection goes on
        self._since: dict[Connection, int] = {}  # since when a connection is served
        self._day = -1
        self._day_used = 0
        self._late_fn: Final = self._publish_late

    # Connecting.

    def _accept(self, conn: Connection) -> None:
        if not conn.held or not conn.clear or conn.region in self._regions_down:
            super()._accept(conn)
            return
        now = self.clock._now
        refused = self._refused(conn, now)
        row = self._row(now)
        row[0] += 1
        if refused:
            self.metered.refused += 1
            if self.trace is not None:
                self.trace("refuse", conn.device_id, refused)
            told = self._timeout(conn) if self._silent else max(now, conn.arrival_down_us)
            self.clock.post_at(told, conn.tie, self._connect_failed, conn)
            return
        row[1] += 1
        metered = self.metered
        metered.accepted += 1
        metered.subscribes += 1
        self._bill(now, 0, 2)  # CONNECT and SUBSCRIBE
        self._since[conn] = now
        super()._accept(conn)
        metered.connections.level(now, len(self._sessions))
        row[2] = len(self._sessions)

    def _refused(self, conn: Connection, now: int) -> str:
        """The quota that a CONNECT is over; empty: it is let in. A refused one takes nothing of the others."""
        metered, plan = self.metered, self.plan
        client = conn.device_id
        metered.connects.ask(now)
        metered.client_connects.level(now, self._client_connects.asked(now, client))
        if plan.client_connects_per_s and self._client_connects.level(now, client) < TOKEN:
            metered.client_connects.refuse(now)
            return "client"
        if plan.connections and len(self._sessions) >= plan.connections and client not in self._sessions:
            metered.connections.refuse(now)
            return "connections"
        if self._connects is not None and not self._connects.take(now):
            metered.connects.refuse(now)
            return "account"
        if plan.client_connects_per_s:
            self._client_connects.take(now, client)
        return ""

    def _end(self, conn: Connection, reason: str) -> None:
        super()._end(conn, reason)
        now = self.clock._now
        self._settle(conn, now)
        self._last_up.pop(conn, None)
        self._row(now)[2] = len(self._sessions)

    def _settle(self, conn: Connection, now: int) -> None:
        """Its time is billed, by begun minutes."""
        since = self._since.pop(conn, -1)
        if since >= 0:
            self.metered.connection_us += now - since
            self.metered.connection_minutes += -(-(now - since) // MINUTE_US)

    def close_bill(self) -> None:
        """At the end of the run: the connections that are left."""
        now = self.clock._now
        for conn in list(self._since):
            self._settle(conn, now)

    def _row(self, now: int) -> list[int]:
        second = now // SECOND_US
        row = self.load.get(second)
        if row is None:
            row = self.load[second] = [0, 0, len(self._sessions)]
        return row

    # Metering.

    def _bill(self, now: int, size_bytes: int, messages: int = 1) -> None:
        steps = max(1, -(-size_bytes // self._step)) * messages
        self.metered.messages += steps
        self.metered.all.ask(now, steps)
        day = now // DAY_US
        if day != self._day:
            self._day = day
            self._day_used = 0
        self._day_used += steps
        self.metered.day.level(now, self._day_used)

    def _over_day(self, now: int) -> bool:
        most = self.plan.messages_per_day
        if not most or now // DAY_US != self._day or self._day_used < most:
            return False
        self.metered.day.refuse(now)
        return True

    # Up.

    def _put_up(self, packet: Packet) -> None:
        super()._put_up(packet)
        conn = packet[0]
        if packet[3]:
            now = self.clock._now
            self.metered.in_flight.level(now, len(conn.acks_up) - bisect_right(conn.acks_up, now))

    def _queue_up(self, conn: Connection, packet: Packet) -> bool:
        taken = super()._queue_up(conn, packet)
        if conn.queue_up is not None:
            self.metered.in_flight.refuse(self.clock._now)
        return taken

    def _at_broker(self, packet: Packet) -> None:
        """Bytes over the connection's quota wait in TCP's buffers, in their order."""
        conn, topic, payload, qos, flags, token = packet
        if flags & PACED or not conn.served or not conn.clear:
            super()._at_broker(packet)
            return
        now = self.clock._now
        size = len(payload)
        self.metered.payload.level(now, size)
        if size > self._payload_max:
            self.metered.payload.refuse(now)
        at = now
        self.metered.client_bytes.level(now, self._client_bytes.asked(now, conn.device_id, size))
        if self.plan.client_bytes_per_s:
            at += self._client_bytes.wait_us(now, conn.device_id, size)
            if at > now:
                self.metered.client_bytes.refuse(now)
        if self._late and self._in is not None:
            wait = self._in.wait_us(now, 1)
            if wait:
                self.metered.publishes_in.refuse(now)
            at = max(at, now + wait)
        last = self._last_up.get(conn, -1)
        if at <= last:
            at = last + 1
        if at > now:
            self._last_up[conn] = at
            self.clock.post_at(at, conn.tie, self._at_broker_fn, (conn, topic, payload, qos, flags | PACED, token))
            return
        super()._at_broker(packet)

    def _dispatch(self, packet: Packet) -> None:
        """The rates of messages; what is over them is discarded, without a PUBACK."""
        conn = packet[0]
        now = self.clock._now
        metered = self.metered
        metered.publishes_in.ask(now)
        metered.client_in.level(now, self._client_in.asked(now, conn.device_id))
        if self.plan.client_publishes_per_s and not self._client_in.take(now, conn.device_id):
            metered.client_in.refuse(now)
        elif self._in is not None and not self._late and not self._in.take(now):
            metered.publishes_in.refuse(now)
        elif not self._over_day(now):
            size = len(packet[2])
            metered.publishes_up += 1
            metered.bytes_up += size
            if packet[1].startswith(self.settings.cloud_prefix):
                metered.rule_triggers += 1
            self._bill(now, size)
            super()._dispatch(packet)
            return
        self._dropped_up(conn, THROTTLED, packet)

    # Down.

    def publish_from_cloud(self, topic: str, payload: bytes, qos: int, retain: bool = False) -> None:
        now = self.clock._now
        metered = self.metered
        metered.publishes_in.ask(now)
        metered.payload.level(now, len(payload))
        if self._in is not None:
            if not self._late:
                if not self._in.take(now):
                    self._refused_from_cloud(topic, now)
                    return
            else:
                wait = self._in.wait_us(now, 1)
                if wait:
                    metered.publishes_in.refuse(now)
                    self.clock.post_in(wait, self._tie, self._late_fn, (topic, payload, qos, retain))
                    return
        self._publish_late((topic, payload, qos, retain))

    def _refused_from_cloud(self, topic: str, now: int) -> None:
        self.metered.publishes_in.refuse(now)
        self.cloud_sent += 1
        self._dropped_from_cloud(topic, THROTTLED)

    def _publish_late(self, late: Late) -> None:
        topic, payload, qos, retain = late
        now = self.clock._now
        if self._over_day(now):
            self.cloud_sent += 1
            self._dropped_from_cloud(topic, THROTTLED)
            return
        self.metered.publishes_down += 1
        self._bill(now, len(payload))
        super().publish_from_cloud(topic, payload, qos, retain)

    def _send_down(self, packet: Packet) -> None:
        """Each delivery counts, for the connection and for the account."""
        conn, _, payload, qos, flags, _ = packet
        now = self.clock._now
        metered = self.metered
        metered.publishes_out.ask(now)
        metered.client_out.level(now, self._client_out.asked(now, conn.device_id))
        if self.plan.client_publishes_per_s and not self._client_out.take(now, conn.device_id):
            metered.client_out.refuse(now)
        elif self._out is not None and not self._out.take(now):
            metered.publishes_out.refuse(now)
        else:
            metered.deliveries += 1
            metered.bytes_down += len(payload)
            self._bill(now, len(payload))
            if qos:
                metered.pubacks += 1
                self._bill(now, 0)
            super()._send_down(packet)
            return
        if flags & COPY:
            conn.ledger.copies_down += 1
        else:
            conn.ledger.sent_down += 1
            self.sent_down += 1
        conn.ledger.bytes_down += len(payload)
        self._dropped_down(conn, THROTTLED, packet)

    def _put_down(self, packet: Packet) -> None:
        super()._put_down(packet)
        conn = packet[0]
        if packet[3]:
            now = self.clock._now
            self.metered.in_flight.level(now, len(conn.acks_down) - bisect_right(conn.acks_down, now))

    def _queue_down(self, conn: Connection, packet: Packet) -> None:
        super()._queue_down(conn, packet)
        if conn.queue_down is not None:
            self.metered.in_flight.refuse(self.clock._now)


def _bucket(per_s: float) -> Bucket | None:
    return Bucket(per_s) if per_s else None
