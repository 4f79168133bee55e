"""The relay's logic on a table in memory, behind a real broker, in a thread of the test's process: for tests of the
real agent that write more than an emulator of DynamoDB can take.

Messages are worked on one at a time, and the records of the stream right after each. Used by tests/live.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

from live_rig import wall_ms
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion
from relay_rig import Rig

from agent.protocol.topics import sender
from cloud.table import PRIVATE_PREFIX, Item, Put


class BrokerRelay:
    """`sizes`: of the messages that devices sent. `order`: sort key and rev of each state of an item, as committed.
    `failure`: what ended it, to be looked at."""

    def __init__(self, port: int, rig: Rig | None = None) -> None:
        self.rig = rig or Rig()
        self.sizes: list[int] = []
        self.order: list[tuple[str, int]] = []
        self.failure: BaseException | None = None
        self._lock = threading.Lock()
        self._ready = threading.Event()
        self._client = paho.Client(CallbackAPIVersion.VERSION2)
        self._client.on_connect = lambda client, *_: client.subscribe("ioto/service/+/sync", 1)
        self._client.on_subscribe = lambda *_: self._ready.set()
        self._client.on_message = lambda _client, _data, message: self._heard(message)
        self._client.connect("127.0.0.1", port)

    def _heard(self, message: paho.MQTTMessage) -> None:
        device = sender(message.topic)
        assert device is not None
        self.sizes.append(len(message.payload))
        with self._lock:
            try:
                self.rig.now_ms = wall_ms()
                self.rig.run(self.rig.relay.on_message(device, bytes(message.payload)))
                self._sequence()
            except BaseException as error:
                self.failure = error

    def _sequence(self) -> None:
        self.rig.sequence()
        for sent in self.rig.published:
            self._client.publish(sent.topic, sent.payload, 1)
        self.rig.published.clear()
        for commit in self.rig.commits:
            if commit.new is not None and not commit.key[0].startswith(PRIVATE_PREFIX):
                self.order.append((commit.key[1], commit.new["rev"]))
        self.rig.commits.clear()

    def put(self, item: Item) -> None:
        """As an application in the cloud does."""
        with self._lock:
            self.rig.now_ms = wall_ms()
            self.rig.execute(Put(item))
            self._sequence()

    @contextmanager
    def still(self) -> Iterator[None]:
        """Nothing is worked on for so long."""
        with self._lock:
            yield

    def items(self) -> list[Item]:
        """What applications see."""
        with self._lock:
            return [dict(item) for item in self.rig.table.scan()]

    def __enter__(self) -> Self:
        self._client.loop_start()
        assert self._ready.wait(30)
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()
        if self.failure is not None:
            raise self.failure
