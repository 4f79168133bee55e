"""What the documents say of the agent's configuration, its socket and its connections: from the code itself.

Runs nothing. Called by docs.generate.
"""

from __future__ import annotations

import inspect
from typing import Any

import msgspec

from agent.api.requests import REQUESTS, Request
from agent.runtime.settings import KEYS, Key
from agent.transport.port import KINDS
from docs.markdown import code, table


def configuration() -> str:
    """Each key of the agent's file, with what stands there when nothing is said."""
    return table(["key", "default", ""], [[code(key.path), _default(key), _meaning(key)] for key in KEYS])


def requests() -> str:
    """What the socket takes, and what it answers."""
    return table(["request", "fields", "answer"], [_request(each) for each in REQUESTS])


def kinds() -> str:
    """Why there is no connection."""
    return table(["`about`", "means"], [[code(kind), meaning] for kind, meaning in KINDS.items()])


def _default(key: Key) -> str:
    if key.default is None:
        return "must be given"
    if key.default == "":
        return ""
    return code(str(key.default).lower() if isinstance(key.default, bool) else str(key.default))


def _meaning(key: Key) -> str:
    choices = f"{', '.join(map(code, key.kind))}: " if isinstance(key.kind, tuple) else ""
    return f"{choices}{key.about}"


def _request(each: type[Request]) -> list[str]:
    fields: list[str] = []
    for field in msgspec.structs.fields(each):
        if field.name != "id":
            needed: Any = field.default is msgspec.NODEFAULT and field.default_factory is msgspec.NODEFAULT
            fields.append(code(field.name) if needed else f"[{code(field.name)}]")
    return [code(str(each.__struct_config__.tag)), ", ".join(fields), " ".join((inspect.getdoc(each) or "").split())]
