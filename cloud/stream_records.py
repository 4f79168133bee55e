"""From a record as DynamoDB Streams tells it (through boto3 or in a function's event) to a Change. Pure.

Private keys are told by their prefix before anything else is read: most records of the table are the relay's own rows.
A record that cannot be read becomes a Change with its problem, so that its shard goes on. Called by
cloud.dynamodb_streams and cloud.functions_events.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from agent.protocol.errors import ModelError
from cloud.dynamodb_values import item_of
from cloud.stream import Change
from cloud.table import PK, PRIVATE_PREFIX, SK, InvalidRequest, Item, Record

SERVICE: Final = ("Service", "dynamodb.amazonaws.com")  # who sweeps items at the end of their life
_REASON_CHARS_MAX: Final = 300


def change_of(raw: Mapping[str, Any], shard: int = 0) -> Change:
    """`raw`: one of GetRecords' answer, or of an event's `Records`. `shard`: the number that the Record is to carry."""
    told = raw["dynamodb"]
    seq = str(told["SequenceNumber"])
    at_ms = _at_ms(told)
    try:
        key = (str(told["Keys"][PK]["S"]), str(told["Keys"][SK]["S"]))
    except (KeyError, TypeError):
        return Change(
            seq, ("", ""), at_ms, None, f"no key of texts {PK} and {SK}: {told.get('Keys')!r}"[:_REASON_CHARS_MAX]
        )
    if key[0].startswith(PRIVATE_PREFIX):
        return Change(seq, key, at_ms, None)
    try:
        old, new = _image(told, "OldImage"), _image(told, "NewImage")
        number = int(seq)
    except (ModelError, InvalidRequest, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        return Change(seq, key, at_ms, None, f"{type(error).__name__}: {error}"[:_REASON_CHARS_MAX])
    return Change(seq, key, at_ms, Record(shard, number, key, old, new, at_ms, by_ttl(raw)))


def by_ttl(raw: Mapping[str, Any]) -> bool:
    """Whether the service itself has deleted the item, at the end of its life."""
    who = raw.get("userIdentity") or {}
    named = (who.get("Type", who.get("type")), who.get("PrincipalId", who.get("principalId")))
    return raw.get("eventName") == "REMOVE" and named == SERVICE


def _image(told: Mapping[str, Any], name: str) -> Item | None:
    attributes = told.get(name)
    return item_of(attributes) if attributes else None


def _at_ms(told: Mapping[str, Any]) -> int:
    """When it was committed: boto3 gives a datetime, an event a number of seconds."""
    at = told.get("ApproximateCreationDateTime", 0)
    return round((at.timestamp() if hasattr(at, "timestamp") else float(at)) * 1000)
