"""The way in, for every kind of listener: what devices sent goes into the inbox, and those who work on it come for it.

Who has a message waits here while the inbox is full, and so stops reading; who works waits while there is none. One
waiter is woken for each place and each message, so that a full inbox costs no more than its messages. What no listener
may let in (over the size, over a device's places) is refused and counted here, in one way for all. Called by
cloud.service_mqtt and cloud.service_websocket, and by the tasks of cloud.service.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import trio

from agent.protocol.log import Log
from agent.protocol.messages import MESSAGE_BYTES_MAX
from cloud.service_inbox import Inbox, Incoming, Publishes


class Intake:
    """`counters`: message_received, message_refused_oversize, message_refused_flood, inbox_full."""

    def __init__(self, size: int, counters: Counter[str], log: Log) -> None:
        self.inbox = Inbox(size)
        self.counters = counters
        self.log = log
        self._readers = trio.lowlevel.ParkingLot()
        self._workers = trio.lowlevel.ParkingLot()

    @property
    def waiting(self) -> int:
        return self.inbox.waiting

    async def open(self) -> None:
        """Waits while the inbox is full. Whoever puts right after that, without waiting for anything, has a place."""
        while self.inbox.full:
            self.counters["inbox_full"] += 1
            await self._readers.park()

    def put(self, device: str, payload: bytes, done: Callable[[], None], publish: Publishes) -> None:
        """`done`: called when the work on it has ended, or there is to be none. `publish`: how its answers go out."""
        self.counters["message_received"] += 1
        if len(payload) > MESSAGE_BYTES_MAX:
            self.counters["message_refused_oversize"] += 1  # here, so that what waits is bounded in bytes, too
            done()
        elif not self.inbox.put(Incoming(device, payload, done, publish)):
            self.counters["message_refused_flood"] += 1
            self.log.problem("device-floods", device=device)
            done()
        else:
            self._workers.unpark()

    async def take(self) -> Incoming:
        """The next message to work on; `finished` must follow."""
        while True:
            message = self.inbox.take()
            if message is not None:
                self._readers.unpark()
                return message
            await self._workers.park()

    def finished(self, message: Incoming) -> None:
        if self.inbox.finished(message):
            self._workers.unpark()
        message.done()
