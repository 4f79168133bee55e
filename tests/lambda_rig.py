"""What AWS hands to a function, made by tests: stream records and rule messages as Lambda gets them, and its context.

The form of a record is that of https://docs.aws.amazon.com/lambda/latest/dg/with-ddb.html. Used by the tests of
cloud.functions.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from agent.protocol.onetable.attributes import to_attributes
from agent.protocol.topics import from_device
from cloud.table import Record

AMPLE_MS: Final = 60_000


def lambda_record(record: Record) -> dict[str, Any]:
    """A record of the Table port's stream as Lambda tells it, by way of JSON: bytes are base64 texts."""
    kind = "INSERT" if record.old is None else "REMOVE" if record.new is None else "MODIFY"
    change: dict[str, Any] = {
        "ApproximateCreationDateTime": record.at_ms / 1000,
        "Keys": to_attributes({"pk": record.key[0], "sk": record.key[1]}),
        "SequenceNumber": f"{record.seq:021d}",
        "SizeBytes": 100,
        "StreamViewType": "NEW_AND_OLD_IMAGES",
    }
    for name, image in (("OldImage", record.old), ("NewImage", record.new)):
        if image is not None:
            change[name] = to_attributes(image)
    made: dict[str, Any] = {
        "eventID": f"event-{record.seq}",
        "eventName": kind,
        "eventVersion": "1.1",
        "eventSource": "aws:dynamodb",
        "awsRegion": "us-east-1",
        "dynamodb": change,
        "eventSourceARN": "arn:aws:dynamodb:us-east-1:123456789012:table/ioto/stream/2026-01-01T00:00:00.000",
    }
    if record.by_ttl:
        made["userIdentity"] = {"type": "Service", "principalId": "dynamodb.amazonaws.com"}
    read: dict[str, Any] = json.loads(json.dumps(made, default=lambda data: base64.b64encode(data).decode()))
    return read


def rule_message(device: str, payload: bytes, client: str | None = None) -> dict[str, Any]:
    """What the deployment's rule makes of a message."""
    return {
        "payload": base64.b64encode(payload).decode(),
        "topic": from_device(device),
        "client": device if client is None else client,
        "principal": "0123abcd",
    }


@dataclass
class Context:
    """Lambda's context: time runs as the test says."""

    remaining_ms: Callable[[], int] = field(default=lambda: AMPLE_MS)

    def get_remaining_time_in_millis(self) -> int:
        return self.remaining_ms()


def sequence(raw: Mapping[str, Any]) -> str:
    number: str = raw["dynamodb"]["SequenceNumber"]
    return number
