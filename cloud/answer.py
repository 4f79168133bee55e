"""Messages to one device: to its own topic, in its own encoding, never over the limit. Called by the relay's logic."""

from __future__ import annotations

from agent.protocol.messages import MESSAGE_BYTES_MAX, ToDevice, encode
from agent.protocol.topics import to_device
from cloud.table import Publish


class Answer:
    """Where and how to answer the sender of one message."""

    __slots__ = ("_compact", "_topic")

    def __init__(self, device: str, prefix: str, compact: bool) -> None:
        self._topic = to_device(device, prefix)
        self._compact = compact

    def __call__(self, message: ToDevice) -> Publish:
        payload = encode(message, compact=self._compact)
        if self._compact and len(payload) > MESSAGE_BYTES_MAX:
            payload = encode(message)  # a list of short fractions is longer in MessagePack; a device reads both
        return Publish(self._topic, payload, 1)
