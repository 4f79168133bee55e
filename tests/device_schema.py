"""A schema with what the shipped one has not: indexes, lives, periods, items in memory, unique values, keys by hand.

Used by the tests of the device's database. `with_models` puts the same models beside those of the shipped schema.
"""

from __future__ import annotations

from typing import Final

from relay_rig import FILE

from agent.protocol.schema import Schema

_PK: Final = "pk: {type: 'string', value: 'device#${deviceId}'}, deviceId: {type: 'string', required: true}"
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
        """sk: {type: 'string', value: 'job#${id}'}, id: {type: 'string', required: true},
        kind: {type: 'string'}, rank: {type: 'number'}, body: {type: 'string'}""",
    ),
    "User": (
        "{enable: 'device'}",
        """sk: {type: 'string', value: 'user#${id}'}, id: {type: 'string', required: true},
        email: {type: 'string', unique: true}, ttl: {type: 'date', ttl: true}""",
    ),
    "Session": (
        "{enable: 'device'}",
        """sk: {type: 'string', value: 'session#${id}'}, id: {type: 'string', required: true},
        ttl: {type: 'date', ttl: true}""",
    ),
    "Lease": (
        "{enable: 'both', sync: 'both'}",
        """sk: {type: 'string', value: 'lease#${id}'}, id: {type: 'string', required: true}, rev: {type: 'number'},
        ttl: {type: 'date', ttl: true}""",
    ),
    "Alarm": (
        "{enable: 'both', sync: 'up'}",
        """sk: {type: 'string', value: 'alarm#${id}'}, id: {type: 'string', required: true}, rev: {type: 'number'},
        ttl: {type: 'date', ttl: true}""",
    ),
    "Offer": (
        "{enable: 'both', sync: 'down'}",
        """sk: {type: 'string', value: 'offer#${id}'}, id: {type: 'string', required: true}, rev: {type: 'number'},
        ttl: {type: 'date', ttl: true}""",
    ),
    "Meter": (
        "{enable: 'both', sync: 'up', period: 60}",
        """sk: {type: 'string', value: 'meter#${id}'}, id: {type: 'string', required: true}, rev: {type: 'number'},
        kind: {type: 'string'}""",
    ),
    "Weather": (
        "{enable: 'both', sync: 'down', mem: true}",
        """sk: {type: 'string', value: 'weather#${id}'}, id: {type: 'string', required: true}, rev: {type: 'number'},
        kind: {type: 'string'}, ttl: {type: 'date', ttl: true}""",
    ),
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
