"""Values on their way to the JavaScript library and back, as JSON; and stored items, as DynamoDB's own JSON.

What JSON lacks is an object with one member: `{"$date": "2026-01-02T03:04:05.678Z"}`, `{"$set": […]}`, `{"$buffer":
base64}` (a Buffer; `bytes` here), `{"$bytes": base64}` (a Uint8Array; `bytearray`), `{"$arraybuffer": base64}`
(`memoryview`), `{"$number": "NaN"}`. What only JavaScript has comes back as it is tagged: `{"$undefined": true}`,
`{"$date": "invalid"}`, `{"$bigint": "…"}`. bridge.mjs is the other side. Used by the tests of this folder.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

Raw = dict[str, Any]  # one item: attribute -> {"S": …}, {"N": "…"}, {"B": base64}, …

_DATE: Final = "%Y-%m-%dT%H:%M:%S.%f"


def to_tagged(value: Any) -> Any:
    """For the library. Raises TypeError for what JavaScript has no counterpart of."""
    if value is None or isinstance(value, bool | str | int):
        return value
    if isinstance(value, float):
        return (
            value
            if math.isfinite(value)
            else {"$number": {math.inf: "Infinity", -math.inf: "-Infinity"}.get(value, "NaN")}
        )
    if isinstance(value, datetime):
        return {"$date": value.astimezone(UTC).strftime(_DATE)[:-3] + "Z"}
    if isinstance(value, set | frozenset):
        return {"$set": [to_tagged(item) for item in sorted(value, key=repr)]}
    if isinstance(value, bytes):
        return {"$buffer": base64.b64encode(value).decode()}
    if isinstance(value, bytearray):
        return {"$bytes": base64.b64encode(value).decode()}
    if isinstance(value, memoryview):
        return {"$arraybuffer": base64.b64encode(value).decode()}
    if isinstance(value, Mapping):
        return {name: to_tagged(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_tagged(item) for item in value]
    raise TypeError(f"no JavaScript value for {value!r}")


def from_tagged(value: Any) -> Any:
    """What the library answered, as Python has it."""
    if isinstance(value, list):
        return [from_tagged(item) for item in value]
    if not isinstance(value, dict):
        # Beyond 2^53 it is a float there, printed without its exponent.
        wide = isinstance(value, int) and abs(value) > 2**53
        return float(value) if wide else value
    if len(value) == 1:
        ((tag, inner),) = value.items()
        if tag == "$date" and inner != "invalid":
            return datetime.strptime(inner, _DATE + "Z").replace(tzinfo=UTC)
        if tag == "$set":
            members = (from_tagged(item) for item in inner)
            return frozenset(bytes(item) if isinstance(item, bytearray) else item for item in members)
        if tag == "$buffer":
            return base64.b64decode(inner)
        if tag == "$bytes":
            return bytearray(base64.b64decode(inner))
        if tag == "$number":
            return float(inner)
    return {name: from_tagged(item) for name, item in value.items()}


def settled(value: Any) -> Any:
    """A tagged answer with its sets in one order: they have none of their own."""
    if isinstance(value, list):
        return [settled(item) for item in value]
    if not isinstance(value, dict):
        return value
    if list(value) == ["$set"]:
        return {"$set": sorted(map(settled, value["$set"]), key=json.dumps)}
    return {name: settled(item) for name, item in value.items()}


def canonical(value: Raw) -> Raw:
    """An item that two servers or libraries give alike: sets in order, numbers without their spelling (`1e+21`)."""
    return {name: _canonical(value[name]) for name in sorted(value)}


def _canonical(value: dict[str, Any]) -> dict[str, Any]:
    ((kind, inner),) = value.items()
    if kind == "N":
        inner = _number(inner)
    elif kind == "NS":
        inner = sorted(map(_number, inner), key=Decimal)
    elif kind in ("SS", "BS"):
        inner = sorted(inner)
    elif kind == "L":
        inner = [_canonical(item) for item in inner]
    elif kind == "M":
        inner = canonical(inner)
    return {kind: inner}


def _number(text: str) -> str:
    number = Decimal(text)
    return format(number.normalize(), "f") if number else "0"


def to_boto(item: Raw) -> Raw:
    """For boto3's client, which takes bytes where JSON has base64."""
    return {name: _boto(value) for name, value in item.items()}


def _boto(value: dict[str, Any]) -> dict[str, Any]:
    ((kind, inner),) = value.items()
    if kind == "B":
        inner = base64.b64decode(inner)
    elif kind == "BS":
        inner = [base64.b64decode(item) for item in inner]
    elif kind == "L":
        inner = [_boto(item) for item in inner]
    elif kind == "M":
        inner = to_boto(inner)
    return {kind: inner}
