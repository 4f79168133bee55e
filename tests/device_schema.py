"""A schema with what the shipped one has not: indexes, lives, periods, items in memory, unique values, keys by hand.

Used by the tests of the device's database. `with_models` puts the same models beside those of the shipped schema.
"""

from __future__ import annotations

from typing import Final

from relay_rig import FILE

from agent.protocol.schema import Schema

_PK: Final = "pk: {type: 'string', value: 'device#${deviceId}'}, deviceId: {type: 'string', required: true}"
_REV: Final = "rev: {type: 'number'}"
_KIND: Final = "kind: {type: 'string'}"
_TTL: Final = "ttl: {type: 'date', ttl: true}"


def _by_id(name: str, *more: str) -> str:
    return ", ".join(
        (f"sk: {{type: 'string', value: '{name}#${{id}}'}}", "id: {type: 'string', required: true}", *more)
    )


_MODELS: Final = {
    # name: (process, fields)
    "Task": (
        "{enable: 'device'}",
        """sk: {type: 'string', value: 'task#${area}#${id}'}, area: {type: 'string', required: true},
        id: {type: 'string', required: true}, rank: {type: 'number'}, text: {type: 'string'},
        gs1pk: {type: 'string', value: 'task'}, gs1sk: {type: 'string', value: 'text#${text}#${id}'},
        kind: {type: 'string'}, body: {type: 'string'}""",
    ),
    "Job": (
        "{enable: 'both', sync: 'up'}",
        _by_id("job", _KIND, "rank: {type: 'number'}", "body: {type: 'string'}"),
    ),
    "User": ("{enable: 'device'}", _by_id("user", "email: {type: 'string', unique: true}", _TTL)),
    "Session": ("{enable: 'device'}", _by_id("session", _TTL)),
    "Lease": ("{enable: 'both', sync: 'both'}", _by_id("lease", _REV, _TTL)),
    "Alarm": ("{enable: 'both', sync: 'up'}", _by_id("alarm", _REV, _TTL)),
    "Offer": ("{enable: 'both', sync: 'down'}", _by_id("offer", _REV, _TTL)),
    "Meter": ("{enable: 'both', sync: 'up', period: 60}", _by_id("meter", _REV, _KIND)),
    "Weather": ("{enable: 'both', sync: 'down', mem: true}", _by_id("weather", _REV, _KIND, _TTL)),
}


def schema_text(*names: str) -> str:
    """With these models; all of them when none is named."""
    chosen = {name: _MODELS[name] for name in names or _MODELS}
    process = ", ".join(f"{name}: {entry}" for name, (entry, _) in chosen.items())
    models = ", ".join(f"{name}: {{{_PK}, {fields}}}" for name, (_, fields) in chosen.items())
    models += ", Note: {pk: {type: 'string'}, sk: {type: 'string'}, text: {type: 'string'}}"
    return f"""{{
        format: 'onetable:1.1.0', version: '0.0.2',
        indexes: {{primary: {{hash: 'pk', sort: 'sk'}}, gs1: {{hash: 'gs1pk', sort: 'gs1sk'}},
                  kinds: {{hash: 'kind', sort: 'rank'}}, ranks: {{type: 'local', sort: 'rank'}}}},
        params: {{typeField: '_type', timestamps: true}},
        process: {{{process}, Note: {{enable: 'device'}}}}, models: {{{models}}},
    }}"""


def with_models(*names: str) -> Schema:
    """The shipped schema with these models besides."""
    process = "".join(f"{name}: {_MODELS[name][0]}, " for name in names)
    models = "".join(f"{name}: {{{_PK}, {_MODELS[name][1]}}}, " for name in names)
    text = FILE.read_text("utf-8").replace("process: {", f"process: {{{process}", 1)
    return Schema.parse(text.replace("models: {", f"models: {{{models}", 1), "device.json5")


WHOLE: Final = Schema.parse(schema_text(), "whole.json5")
