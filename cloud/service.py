"""The relay as one process: devices on one side, the table and its stream on the other, under trio.

Puts the parts together and ends them in order: the logic is in cloud.relay and cloud.stream_*, each side's tasks in
cloud.service_mqtt (devices at a broker), cloud.service_websocket (devices that connect here) and cloud.service_stream.
An answer goes out the way that its question came in; a push goes every way. It may be killed at any moment: a message
comes again from its device, a record from the stream, a lease ends by itself. Called by cloud.commands.relay.
"""

from __future__ import annotations

import signal
from collections import Counter
from functools import partial
from typing import Any, Final

import trio

from agent.protocol.log import Log
from agent.protocol.schema import Schema
from agent.protocol.topics import to_device
from cloud import system
from cloud.accounts import Accounts
from cloud.credentials import Credentials
from cloud.dynamodb import Called, DynamoTable
from cloud.dynamodb_streams import DynamoStream
from cloud.relay import Relay
from cloud.service_drive import Driver
from cloud.service_inbox import Incoming
from cloud.service_intake import Intake
from cloud.service_metrics import Figures
from cloud.service_mqtt import Broker, BrokerSettings
from cloud.service_settings import Settings
from cloud.service_stream import StreamTasks
from cloud.service_websocket import Listener, ListenerSettings
from cloud.stream_leases import Leases
from cloud.stream_work import RecordWork
from cloud.table import Publish, TableError

MESSAGE_S: Final = 60.0  # of work on one message; the device sends again long before
_LEASES_LATE_MS: Final = 3  # renewals that failed in a row before health says so
_WARNINGS: Final = (
    "records-trimmed",
    "shard-gone",
    "shard-lost-unread",
    "record-set-aside",
    "letter-failed",
    "digest-mismatch",
)
_PROBLEMS: Final = ("record-retried", "letter-waits")
_UNWELL: Final = ("shard-unreadable", "websocket-accept")


class Service:
    """One relay. `client` and `streams` are boto3's; `arn` the stream's; `boot` names this process. Of `broker` and
    `listener` there is one at least."""

    def __init__(
        self,
        settings: Settings,
        schema: Schema,
        broker: BrokerSettings | None,
        listener: ListenerSettings | None = None,
        *,
        client: Any,
        streams: Any,
        arn: str,
        name: str,
        boot: str,
        log: Log,
    ) -> None:
        self.settings = settings
        self.log = log
        self.name = name
        self.counters: Counter[str] = Counter()
        self.units: Counter[str] = Counter()
        self.accounts = Accounts(system.monotonic_ms, settings.account)
        self.intake = Intake(settings.queue, self.counters, log)
        table = DynamoTable(
            client,
            settings.table,
            wait=system.pause,
            chance=system.chance,
            token=system.token,
            on_call=self._called,
        )
        self.driver = Driver(
            table.execute,
            DynamoStream(streams, arn).execute,
            self.push,
            table_threads=settings.threads,
            stream_threads=settings.threads,
        )
        self.listener = None if listener is None else self._listener(listener)
        self.broker = None if broker is None else self._broker(broker)
        self.relay = Relay(schema, settings.relay, system.wall_ms, system.random_hex, self.counters, self.accounts.of)
        self.relay.digests.tell = self._tell
        shared: dict[str, Any] = {"counters": self.counters, "tell": self._tell}
        self.leases = Leases(
            arn.rpartition("/")[2], name, boot, settings.stream, monotonic_ms=system.monotonic_ms, **shared
        )
        self.figures = Figures(self.counters, self.units, self.gauges, self.problems)
        self.stream = StreamTasks(
            self.leases,
            RecordWork(
                self.relay,
                settings.stream,
                name=name,
                now_ms=system.wall_ms,
                monotonic_ms=system.monotonic_ms,
                chance=system.chance,
                **shared,
            ),
            settings.stream,
            self.driver,
            chance=system.chance,
            wall_ms=system.wall_ms,
            log=log,
            observe=self.figures.record_seconds.observe,
            **shared,
        )
        self.stopping = False
        self.in_hand = 0
        self._idle = trio.Event()

    def _listener(self, settings: ListenerSettings) -> Listener:
        credentials = Credentials(system.monotonic_ms, self.settings.account)
        return Listener(
            settings,
            self.intake,
            credentials,
            self.driver,
            monotonic_ms=system.monotonic_ms,
            chance=system.chance,
            counters=self.counters,
            log=self.log,
        )

    def _broker(self, settings: BrokerSettings) -> Broker:
        return Broker(
            settings,
            self.intake,
            chance=system.chance,
            counters=self.counters,
            log=self.log,
            pushed=None if self.listener is None else self.listener.push,
        )

    # Life.

    async def run(self) -> None:
        """Until SIGTERM or SIGINT, then what is in hand is finished within the limit. A second signal ends it at once.

        Raises BrokerRefused, Usurped, and KeyboardInterrupt for the second signal."""
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async with trio.open_nursery() as nursery:
                if self.broker is not None:
                    nursery.start_soon(self.broker.run)
                if self.listener is not None:
                    nursery.start_soon(self.listener.run)
                for _ in range(self.settings.messages):
                    nursery.start_soon(self._work_on_messages)
                stream_ended = trio.Event()
                nursery.start_soon(self._stream, stream_ended)
                async for number in signals:
                    if self.stopping:
                        raise KeyboardInterrupt
                    self.stopping = True
                    self.log.event("stopping", signal=signal.Signals(number).name, in_hand=self.in_hand)
                    nursery.start_soon(self._stop, nursery.cancel_scope, stream_ended)

    async def _stream(self, ended: trio.Event) -> None:
        await self.stream.run()
        ended.set()

    async def _stop(self, scope: trio.CancelScope, stream_ended: trio.Event) -> None:
        """No new messages; what is in hand, and the batches under way, to their end; then the connections."""
        self.stream.stop()
        if self.broker is not None:
            self.broker.stop()
        if self.listener is not None:
            self.listener.stop()
        with trio.move_on_after(self.settings.stop_s) as limit:
            while self.in_hand or self.intake.waiting:
                self._idle = trio.Event()
                await self._idle.wait()
            await stream_ended.wait()
        async with trio.open_nursery() as nursery:
            if self.broker is not None:
                nursery.start_soon(self.broker.finish)
            if self.listener is not None:
                nursery.start_soon(self.listener.finish)
        late: dict[str, Any] = (
            {"unfinished": self.in_hand, "leases": len(self.leases.held)} if limit.cancelled_caught else {}
        )
        self.log.event("stopped", **late)
        scope.cancel()

    # Messages.

    async def _work_on_messages(self) -> None:
        while True:
            message = await self.intake.take()
            self.in_hand += 1
            await self._work_on(message)
            self.in_hand -= 1
            self.intake.finished(message)
            self._idle.set()

    async def _work_on(self, message: Incoming) -> None:
        """Whatever a message does, the process goes on: what it cannot do now the device asks for again."""
        begun = trio.current_time()
        with trio.move_on_after(MESSAGE_S) as limit:
            try:
                await self.driver.run(self.accounts.find(message.device))
                answer = self.relay.on_overload if message.is_crowded else self.relay.on_message
                await self.driver.run(answer(message.device, message.payload), partial(self._say, message))
                await self.driver.run(self.accounts.note(message.device, message.payload, system.wall_ms()))
            except TableError as error:
                self.counters["message_failed"] += 1
                self.log.problem("message-failed", device=message.device, reason=f"{type(error).__name__}: {error}")
            except Exception as error:  # a fault of the relay's own, which one device must not use against all
                self.counters["message_error"] += 1
                reason = f"{type(error).__name__}: {error}"
                self.log.problem("message-error", device=message.device, reason=reason)
            else:
                self.counters["message_done"] += 1
                self.log.over("message-failed")
        if limit.cancelled_caught:
            self.counters["message_timed_out"] += 1
            self.log.problem("message-timed-out", device=message.device)
        self.figures.message_seconds.observe(trio.current_time() - begun)

    # Out.

    async def push(self, message: Publish) -> None:
        """To whoever hears the topic, wherever that is connected."""
        if self.listener is not None:
            self.listener.push(message)
        if self.broker is not None:
            await self.broker.publish(message)

    async def _say(self, incoming: Incoming, message: Publish) -> None:
        """What a message led to: to its device the way that it came, else to whom it concerns."""
        if message.topic == to_device(incoming.device, self.settings.relay.topic_prefix):
            await incoming.publish(message)
        else:
            await self.push(message)

    # What is told.

    def _called(self, called: Called) -> None:
        """In one of the table's threads: a lost count would be no harm."""
        self.counters[f"call_{called.operation}"] += 1
        if called.verdict:
            self.counters[f"fault_{called.verdict}"] += 1
        self.units[called.operation] += called.units  # type: ignore[assignment]

    def _tell(self, event: str, **fields: Any) -> None:
        if event in _PROBLEMS:
            self.log.problem(event, **fields)
        else:
            self.log.event(event, "error" if event in _WARNINGS else "info", **fields)

    def gauges(self) -> dict[str, tuple[str, float]]:
        renewed = self.leases.renewed_ms
        now_ms = system.monotonic_ms()
        return {
            **self._connected(),
            "fleet_relay_inbox_waiting": ("messages of devices that wait", self.intake.waiting),
            "fleet_relay_messages_in_hand": ("messages of devices that are worked on", self.in_hand),
            "fleet_relay_shards_held": ("shards whose lease this relay has", len(self.leases.held)),
            "fleet_relay_shards_known": ("shards that the stream lists", len(self.leases.shards)),
            "fleet_relay_stream_lag_seconds": (
                "how long the last record had waited, of the shard where that was longest",
                max(self.stream.lag_ms.values(), default=0) / 1000,
            ),
            "fleet_relay_lease_age_seconds": (
                "since the leases were last renewed",
                0.0 if renewed is None else (now_ms - renewed) / 1000,
            ),
        }

    def _connected(self) -> dict[str, tuple[str, float]]:
        found: dict[str, tuple[str, float]] = {}
        if self.broker is not None:
            found["fleet_relay_broker_connected"] = ("1 while the broker is connected", float(self.broker.connected))
        if self.listener is not None:
            listener = self.listener
            found["fleet_relay_websocket_connections"] = ("devices that are connected", len(listener.connections))
            found["fleet_relay_websocket_handshakes"] = ("connections that are not let in yet", listener.handshaking)
            found["fleet_relay_websocket_waiting_bytes"] = ("that wait to be sent to devices", listener.waiting_bytes)
        return found

    def problems(self) -> list[str]:
        """Why all is not well; nothing when it is."""
        found = []
        if self.stopping:
            found.append("stopping")
        if self.broker is not None and not self.broker.connected:
            found.append("no connection to the broker")
        renewed, late_ms = self.leases.renewed_ms, self.settings.stream.renew_ms * _LEASES_LATE_MS
        if renewed is None or system.monotonic_ms() - renewed > late_ms:
            found.append("leases are not renewed: the table or its stream does not answer")
        found.extend(name for name in self.log.problems if name.startswith(_UNWELL))
        return found


def new_boot() -> str:
    """The name of one process: no two have the same."""
    return system.random_hex(12)
