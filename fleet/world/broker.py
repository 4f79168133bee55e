"""The simulated MQTT broker: connections and how they end. MQTT 3.1.1 as far as a sync protocol can tell.

Clean sessions, QoS 0 and 1, keep-alive, half-open connections, a second connection of the same client, limits on what
is in flight, last will, retained messages, region outages. Pings and time-outs are computed: a quiet connection costs
no event. Knows nothing of what messages say; their ways are in `uplink` and `downlink`.
Called by the simulated devices (connect, publish, ...), the simulated cloud (publish_from_cloud) and the faults.
"""

from __future__ import annotations

from bisect import bisect_right
from operator import attrgetter
from typing import Final

from fleet.world.clock import Clock
from fleet.world.connection import COPY, BrokerSettings, Client, Connection
from fleet.world.downlink import Trace
from fleet.world.link import RESET
from fleet.world.uplink import Uplink

# Bytes each way in turn: TCP's SYN; TLS 1.3 with client certificates; CONNECT and SUBSCRIBE sent together.
HANDSHAKE_BYTES: Final = ((60, 60), (520, 4_000), (3_000, 120))


class Broker(Uplink):
    """One broker in several regions. Traced besides messages: connect, disconnect (with the reason)."""

    def __init__(self, clock: Clock, settings: BrokerSettings, trace: Trace | None = None) -> None:
        super().__init__(clock, settings, trace)
        self.connects = self.disconnects = self.connects_failed = 0
        self._sessions: dict[str, Connection] = {}
        self._regions_down: set[str] = set()

    # Connecting.

    def connect(self, client: Client) -> None:
        """Begins a connection; on_connected or on_connect_failed follows. What the device had before is given up."""
        if client.conn is not None:
            self.vanish(client)
        now = self.clock._now
        ledger = self.ledger(client.device_id)
        conn = client.conn = Connection(client, ledger, now)
        link = conn.link
        link.forget()
        timeout = now + self.settings.connect_timeout_us
        if not link.is_up:
            self.clock.post_at(timeout, conn.tie, self._connect_failed, conn)
            return
        at, arrived = now, now
        for up_bytes, down_bytes in HANDSHAKE_BYTES:
            arrived = link.up_us(at, up_bytes, conn.stream) if at != RESET else RESET
            if arrived == RESET or arrived >= timeout:
                break
            if conn.region in self._regions_down:
                break  # nobody listens: the SYN is answered with a reset
            at = link.down_us(arrived, down_bytes, conn.stream)
        if arrived == RESET or at == RESET or arrived >= timeout or at >= timeout:
            self.clock.post_at(timeout, conn.tie, self._connect_failed, conn)
        elif conn.region in self._regions_down:
            self.clock.post_at(min(arrived + link.profile.delay_us, timeout), conn.tie, self._connect_failed, conn)
        else:
            conn.arrival_up_us, conn.arrival_down_us = arrived, at
            self.clock.post_at(arrived, conn.tie, self._accept, conn)

    def _accept(self, conn: Connection) -> None:
        """CONNECT has arrived."""
        if not conn.held:
            return
        if not conn.clear:
            self.clock.post_at(self._timeout(conn), conn.tie, self._connect_failed, conn)
            return
        now = self.clock._now
        if conn.region in self._regions_down:
            self.clock.post_at(now + conn.link.profile.delay_us, conn.tie, self._connect_failed, conn)
            return
        older = self._sessions.get(conn.device_id)
        if older is not None:
            self._end(older, "taken over")
        self._sessions[conn.device_id] = conn
        conn.served = True
        self.connects += 1
        for topic, granted in conn.subscriptions.items():
            table = self._filters if "+" in topic or "#" in topic else self._subscribers
            table.setdefault(topic, {})[conn] = granted
        if self.trace is not None:
            self.trace("connect", conn.device_id, "")
        self.clock.post_at(conn.arrival_down_us, conn.tie, self._connected, conn)
        if self._retained:
            self._send_retained(conn)

    def _connected(self, conn: Connection) -> None:
        """CONNACK and SUBACK have arrived."""
        if not conn.held:
            return
        if not conn.clear or not conn.served:
            self.clock.post_at(max(self.clock._now, self._timeout(conn)), conn.tie, self._connect_failed, conn)
            return
        conn.ready = True
        conn.client.on_connected()

    def _timeout(self, conn: Connection) -> int:
        return max(self.clock._now, conn.since_us + self.settings.connect_timeout_us)

    def _connect_failed(self, conn: Connection) -> None:
        if not conn.held:
            return
        self._let_go(conn, "connect failed")
        self.connects_failed += 1
        if conn.served:
            self._say_goodbye(conn, will=True)
        conn.client.on_connect_failed()

    # Ending.

    def disconnect(self, client: Client) -> None:
        """The device closes in order (DISCONNECT, then FIN). What it sent before still arrives; no callback follows."""
        conn = client.conn
        if conn is not None:
            self._let_go(conn, "closed")
            if conn.served:
                self._say_goodbye(conn, will=False)

    def vanish(self, client: Client) -> None:
        """The device's power goes: no FIN. The broker finds out by its keep-alive, or when the device comes back."""
        conn = client.conn
        if conn is not None:
            self._let_go(conn, "power cut")
            conn.cut_at_us = self.clock._now
            if conn.served:
                self._schedule_ends(conn)

    def _let_go(self, conn: Connection, reason: str) -> None:
        """The device's end is closed: what waits there is lost."""
        conn.held = conn.ready = conn.flows_up = False
        if conn.client.conn is conn:
            conn.client.conn = None
        if conn.notice is not None:
            conn.notice.cancel()
            conn.notice = None
        for packet in self._take_waiting_up(conn):
            self._dropped_up(conn, reason, packet)

    def _say_goodbye(self, conn: Connection, will: bool) -> None:
        """The device's DISCONNECT (without: just its FIN) goes to the broker, if anything goes there."""
        if not conn.clear:
            self._schedule_ends(conn)
            return
        at = conn.link.up_us(self.clock._now, 2, conn.stream)
        if at == RESET:
            self._schedule_ends(conn)
            return
        conn.arrival_up_us = at = max(at, conn.arrival_up_us + 1)
        self.clock.post_at(at, conn.tie, self._broken_by_device if will else self._goodbye, conn)

    def _goodbye(self, conn: Connection) -> None:
        if conn.served:
            conn.will = None
            self._end(conn, "disconnect")

    def _broken_by_device(self, conn: Connection) -> None:
        if conn.served:
            self._end(conn, "closed by device")

    def _end(self, conn: Connection, reason: str) -> None:
        """The broker's end is closed: the session ends, what waits there is lost; the device hears of it if it can."""
        conn.served = conn.flows_down = False
        if self._sessions.get(conn.device_id) is conn:
            del self._sessions[conn.device_id]
        for topic in conn.subscriptions:
            table = self._filters if "+" in topic or "#" in topic else self._subscribers
            subscribers = table[topic]
            subscribers.pop(conn, None)
            if not subscribers:
                del table[topic]
        if conn.drop is not None:
            conn.drop.cancel()
            conn.drop = None
        for packet in self._take_waiting_down(conn):
            self._dropped_down(conn, reason, packet)
        self.disconnects += 1
        if self.trace is not None:
            self.trace("disconnect", conn.device_id, reason)
        will = conn.will
        if will is not None:
            self._publish_will(conn)
        if conn.held and conn.clear:
            self._tell_device(conn, reason)

    def _tell_device(self, conn: Connection, reason: str) -> None:
        at = conn.link.down_us(self.clock._now, 2, conn.stream)
        if at == RESET:
            self._schedule_ends(conn)
            return
        conn.arrival_down_us = at = max(at, conn.arrival_down_us + 1)
        self.clock.post_at(at, conn.tie, self._closed, (conn, reason))

    def _closed(self, told: tuple[Connection, str]) -> None:
        """The broker's FIN arrives, or the device gives up."""
        conn, reason = told
        if not conn.held:
            return
        if not conn.ready:
            self._connect_failed(conn)
            return
        self._let_go(conn, reason)
        if conn.served:
            self._say_goodbye(conn, will=True)
        conn.client.on_disconnected(reason)

    # Broken paths.

    def link_down(self, client: Client) -> None:
        """Nothing passes until link_up. Neither end knows: keep-alive tells them, unless the link is back before."""
        client.link.is_up = False
        conn = client.conn
        if conn is not None and conn.clear:
            self._break(conn)

    def link_up(self, client: Client) -> None:
        client.link.is_up = True
        conn = client.conn
        if conn is None or conn.hole or conn.clear:
            return
        conn.clear = True
        if not conn.served:
            if conn.ready:
                self._tell_device(conn, "closed by broker")
            else:
                conn.flows_up = conn.flows_down = True  # still connecting: nothing waits to be sent before
            return
        now = self.clock._now
        if conn.wait_up is None:
            conn.flows_up = True
            conn.heard()
        else:
            # Pings wait behind what TCP is still backing off with: either end may give up before that.
            self.clock.post_at(conn.link.resume_us(conn.wait_up.since_us, now), conn.tie, self._flush_up, conn)
        if conn.wait_down is None:
            conn.flows_down = True
        else:
            self.clock.post_at(conn.link.resume_us(conn.wait_down.since_us, now), conn.tie, self._flush_down, conn)

    def half_open(self, client: Client) -> None:
        """The path of this connection is gone for good (a router forgot it); a new connection would work."""
        conn = client.conn
        if conn is not None and not conn.hole:
            conn.hole = True
            if conn.clear:
                self._break(conn)

    def region_down(self, region: str) -> None:
        """All connections of the region are cut, new ones refused."""
        self._regions_down.add(region)
        for conn in [conn for conn in self._sessions.values() if conn.region == region]:
            self._end(conn, "outage")

    def region_up(self, region: str) -> None:
        self._regions_down.discard(region)

    def kick(self, client: Client) -> None:
        """The service disconnects a client, as services do now and then."""
        conn = self._sessions.get(client.device_id)
        if conn is not None:
            self._end(conn, "kicked")

    def reset(self, client: Client) -> None:
        """The connection breaks, and both ends are told (a TCP reset)."""
        conn = client.conn
        if conn is not None:
            self._reset(conn)

    def _reset(self, conn: Connection) -> None:
        if conn.served:
            self._end(conn, "reset")
        elif conn.held and conn.clear:
            self._tell_device(conn, "reset")

    def _break(self, conn: Connection) -> None:
        conn.clear = conn.flows_up = conn.flows_down = False
        self._schedule_ends(conn)

    def _schedule_ends(self, conn: Connection) -> None:
        """Computes when each end finds out that nothing comes any more: no ping is ever an event.

        Pings keep a quiet connection's last packet less than one keep-alive old."""
        now = self.clock._now
        keep_alive = self.settings.keep_alive_us
        if conn.served and conn.drop is None:
            heard = min(conn.arrival_up_us, now)
            heard += (now - heard) // keep_alive * keep_alive
            conn.drop = self.clock.call_at(heard + keep_alive * 3 // 2, conn.tie, self._keep_alive_over, conn)
        if conn.ready and conn.notice is None:
            heard = min(conn.arrival_down_us, now)
            acked = bisect_right(conn.acks_up, now)
            if acked:
                heard = max(heard, conn.acks_up[acked - 1])
            heard += (now - heard) // keep_alive * keep_alive
            due = heard + keep_alive + self.settings.ping_timeout_us
            conn.notice = self.clock.call_at(due, conn.tie, self._ping_unanswered, conn)

    def _keep_alive_over(self, conn: Connection) -> None:
        conn.drop = None
        if conn.served:
            self._end(conn, "keep-alive")

    def _ping_unanswered(self, conn: Connection) -> None:
        conn.notice = None
        self._closed((conn, "ping"))

    def _break_for_good(self, conn: Connection) -> None:
        """TCP has given up: no byte passes any more, and the ends find out by their keep-alive."""
        conn.hole = True
        if conn.clear:
            self._break(conn)

    # What can be asked at any time.

    def connected(self, device_id: str) -> bool:
        """As the broker sees it."""
        return device_id in self._sessions

    def sessions(self) -> int:
        return len(self._sessions)

    def in_flight(self) -> dict[str, tuple[int, int]]:
        """Messages under way per device, (up, down), found where they are: in the heap, in queues, waiting for links.

        Reads all that is waiting: for the end of a run, not for every moment. "": from the cloud, not yet routed."""
        up: dict[str, int] = {}
        down: dict[str, int] = {}
        for _, _, _, fn, arg in self.clock.entries():
            if fn is self._at_broker_fn or fn is self._to_cloud_fn:
                if not arg[4] & COPY:
                    up[arg[0].device_id] = up.get(arg[0].device_id, 0) + 1
            elif fn is self._at_device_fn:
                if not arg[4] & COPY:
                    down[arg[0].device_id] = down.get(arg[0].device_id, 0) + 1
            elif fn is self._route_fn and not arg[3] & COPY:
                down[""] = down.get("", 0) + 1
        for conn in self._backlog:
            for count, wait, queue in ((up, conn.wait_up, conn.queue_up), (down, conn.wait_down, conn.queue_down)):
                packets = (wait.packets if wait is not None else []) + (queue or [])
                waiting = sum(not packet[4] & COPY for packet in packets)  # ints
                if waiting:
                    count[conn.device_id] = count.get(conn.device_id, 0) + waiting
        devices = sorted({*up, *down})
        return {device: (up.get(device, 0), down.get(device, 0)) for device in devices}

    def counts(self) -> dict[str, int]:
        """Totals, with the names of summary.json."""
        total = self._total
        return {
            "messages_up": total("sent_up"),
            "messages_down": total("sent_down"),
            "messages_lost": total("dropped_up") + total("dropped_down") + self.cloud_dropped,
            "messages_copied": total("copies_up") + total("copies_down") + self.cloud_copies,
            "bytes_up": total("bytes_up"),
            "bytes_down": total("bytes_down"),
            "connects": self.connects,
            "disconnects": self.disconnects,
        }

    def traffic(self) -> tuple[int, int, int]:
        """(messages up, messages down, messages lost): of `counts`, what a timeline asks for at every interval."""
        return self.sent_up, self.sent_down, sum(self.drops.values())  # ints

    def _total(self, name: str) -> int:
        return sum(map(attrgetter(name), self.ledgers.values()))  # ints
