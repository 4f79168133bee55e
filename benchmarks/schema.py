"""What the schema engine costs for one item of ten fields: each step apart, by CPU time. No database, no transport."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

from agent.protocol.messages import decode_image, encode_image
from agent.protocol.onetable.attributes import from_attributes, to_attributes
from agent.protocol.onetable.expressions import Requests
from agent.protocol.schema import Context, Schema
from benchmarks.measure import Effort, Result, Work, rates

QUESTION = "what does an item of ten fields cost in the schema engine?"
CONTEXT: Final = Context("bench-1", "main")
NOW_MS: Final = 1_767_323_045_678
SCHEMA: Final = """{
    version: '1', indexes: {primary: {hash: 'pk', sort: 'sk'}, gs1: {hash: 'gs1pk', sort: 'gs1sk'}},
    process: {Reading: {sync: 'both'}},
    models: {Reading: {
        pk: {type: 'string', value: 'device#${deviceId}'}, sk: {type: 'string', value: 'reading#${id}'},
        gs1pk: {type: 'string', value: 'kind#${kind}'},
        deviceId: {type: 'string', required: true}, id: {type: 'string', required: true},
        kind: {type: 'string', enum: ['heat', 'light'], default: 'heat'}, level: {type: 'number', required: true},
        active: {type: 'boolean', default: true}, at: {type: 'date'}, note: {type: 'string', validate: '/^[a-z ]*$/'},
        expires: {type: 'date', ttl: true}, limits: {type: 'object', schema: {
            low: {type: 'number'}, high: {type: 'number'}}}, tags: {type: 'set'},
    }},
}"""
PROPERTIES: Final[dict[str, Any]] = {
    "id": "01JGZ0000000000000000000AB",
    "level": 21.5,
    "at": datetime(2026, 1, 2, tzinfo=UTC),
    "note": "by the window",
    "expires": datetime(2026, 2, 2, tzinfo=UTC),
    "limits": {"low": 5, "high": 30},
    "tags": {"a", "b"},
}


def _again(step: Callable[[], object]) -> Work:
    def work(n: int) -> None:
        for _ in range(n):
            step()

    return work


def run(effort: Effort) -> Result:
    result = Result("schema", QUESTION)
    schema = Schema.parse(SCHEMA, "benchmark")
    model = schema.models["Reading"]
    key, image = model.create(PROPERTIES, CONTEXT, NOW_MS, str)
    data, attributes = encode_image(image), to_attributes(image)
    change = {"id": PROPERTIES["id"], "level": 22}
    requests = Requests(model, "table")
    steps: dict[str, Callable[[], object]] = {
        "create: validate, keys, templates": lambda: model.create(PROPERTIES, CONTEXT, NOW_MS, str),
        "update of one field": lambda: model.update(key, image, change, CONTEXT, NOW_MS),
        "key from properties": lambda: model.key(PROPERTIES, CONTEXT),
        "locate a key": lambda: schema.locate(key),
        "keys in the indexes": lambda: model.index_keys(key, image),
        "validate an image from outside": lambda: model.check(key, image),
        "read: properties of an image": lambda: model.read(key, image),
        "encode an image": lambda: encode_image(image),
        "decode an image": lambda: decode_image(data),
        "image to attribute map": lambda: to_attributes(image),
        "attribute map to image": lambda: from_attributes(attributes),
        "request of an update": lambda: requests.update(change, CONTEXT, NOW_MS),
    }
    for name, step in steps.items():
        result.add(name, rates(_again(step), effort), "1/s")
    return result
