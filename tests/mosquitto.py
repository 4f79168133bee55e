"""A real mosquitto for tests, with users and an ACL file, and clients that say what they got.

On loopback and a free port, in a process of its own (fleet.live), which ends with the context. Nobody connects without
a name and a password. Used by the tests of cloud.access.
"""

from __future__ import annotations

import contextlib
import queue
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from fleet.live.parts import Mosquitto
from fleet.live.processes import Processes

PASSWORD: Final = "secret"
LIMIT_S: Final = 20.0


@contextlib.contextmanager
def broker(folder: Path, acl: str, users: Iterable[str]) -> Iterator[int]:
    """Its port. Raises fleet.live.parts.NotInstalled."""
    with Processes() as processes:
        passwords = dict.fromkeys(users, PASSWORD)
        started = Mosquitto(processes, folder, ["use_username_as_clientid true"], users=passwords, acl=acl)
        started.start()
        yield started.port


@dataclass
class Client:
    """One connection of MQTT 5, whose broker says when it refuses. Every wait has a limit."""

    user: str
    port: int
    got: queue.Queue[tuple[str, bytes]] = field(default_factory=queue.Queue)
    said: queue.Queue[tuple[str, Any]] = field(default_factory=queue.Queue)

    def __enter__(self) -> Client:
        self.mqtt = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=self.user, protocol=mqtt.MQTTv5)
        self.mqtt.username_pw_set(self.user, PASSWORD)
        self.mqtt.on_connect = lambda client, data, flags, reason, properties: self.said.put(("connect", reason))
        self.mqtt.on_subscribe = lambda client, data, mid, reasons, properties: self.said.put(("subscribe", reasons[0]))
        self.mqtt.on_publish = lambda client, data, mid, reason, properties: self.said.put(("publish", reason))
        self.mqtt.on_message = lambda client, data, message: self.got.put((message.topic, bytes(message.payload)))
        self.mqtt.connect("127.0.0.1", self.port)
        self.mqtt.loop_start()
        self.connected = not self._said("connect").is_failure
        return self

    def __exit__(self, *error: object) -> None:
        self.mqtt.disconnect()
        self.mqtt.loop_stop()

    def _said(self, what: str) -> Any:
        kind, reason = self.said.get(timeout=LIMIT_S)
        assert kind == what
        return reason

    def publish(self, topic: str, payload: bytes) -> bool:
        """Whether the broker took it."""
        self.mqtt.publish(topic, payload, qos=1)
        return not self._said("publish").is_failure

    def subscribe(self, topic: str) -> bool:
        """With QoS 0: nothing waits for an acknowledgement, so that what the broker has is on its way at once."""
        self.mqtt.subscribe(topic, qos=0)
        return not self._said("subscribe").is_failure

    def received(self) -> list[tuple[str, bytes]]:
        """All that the broker had for this client until now: its answer comes after that, on the same connection."""
        self.subscribe("barrier")
        found: list[tuple[str, bytes]] = []
        while not self.got.empty():
            found.append(self.got.get_nowait())
        return found
