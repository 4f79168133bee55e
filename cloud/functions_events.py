"""What AWS hands to a function: records of a DynamoDB stream and messages of an IoT rule, in the relay's own terms.

Pure. A device's name comes from what the rule says of topic and connection, never from the payload. Called by
cloud.functions. Raises MessageError for what must be refused, RecordError for a record that nobody can read.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from agent.protocol.errors import MessageError
from agent.protocol.messages import MESSAGE_BYTES_MAX
from agent.protocol.topics import sender
from cloud.stream_records import change_of
from cloud.table import Record

_BASE64_MAX: Final = (MESSAGE_BYTES_MAX + 2) // 3 * 4


class RecordError(Exception):
    """No record of a stream as the service describes it."""


def sequence_of(raw: Mapping[str, Any]) -> str:
    """What names a record within its shard."""
    return str(raw["dynamodb"]["SequenceNumber"])


def record_of(raw: Mapping[str, Any]) -> Record | None:
    """One element of `Records`; None for an item of the relay's own, which concerns nobody."""
    change = change_of(raw)
    if change.problem:
        raise RecordError(change.problem)
    return change.record


def message_of(event: Mapping[str, Any], prefix: str) -> tuple[str, bytes]:
    """(device, payload). The rule gives `topic`, `client` (the connection's client id) and `payload`: base64 of what
    was sent, or the object itself where it was JSON.

    The policy lets a device connect under its own name alone and publish to its own topic alone: a message whose topic
    names another is none of a device's."""
    topic, client = event.get("topic"), event.get("client")
    device = sender(topic, prefix) if isinstance(topic, str) else None
    if device is None or client != device:
        raise MessageError("identity", f"topic {topic!r} of client {client!r}")
    payload = event.get("payload")
    if isinstance(payload, dict):
        return device, msgspec.json.encode(payload)
    if not isinstance(payload, str):
        raise MessageError("malformed", "no payload")
    if len(payload) > _BASE64_MAX:
        raise MessageError("oversize", f"{len(payload)} characters of base64, at most {_BASE64_MAX}")
    try:
        return device, base64.b64decode(payload, validate=True)
    except (binascii.Error, ValueError):
        raise MessageError("malformed", "the payload is no base64") from None
