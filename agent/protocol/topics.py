"""Topic names: who may publish and subscribe where. Used by the agent, the relay and whoever writes broker rules.

`PREFIX/device/ID/sync` down to one device, `PREFIX/account/ID/sync` to an account's devices,
`PREFIX/account/all/sync` to all, `PREFIX/service/ID/sync` up from one device; `PREFIX/presence/ID`, where a device says
that it is there, and its broker that it is gone: for people and monitors, nothing in the protocol reads it.
"""

from __future__ import annotations

import re
from typing import Final, Literal

PREFIX: Final = "ioto"
ALL: Final = "all"  # no account may have this id
# What AWS IoT Core allows in a thing's name: no '/', '+', '#' (MQTT) and no '#' (the usual separator of keys).
_ID = re.compile(r"[A-Za-z0-9:_.-]{1,128}")


def valid_id(name: str) -> bool:
    """Whether `name` may be a device's or an account's id."""
    return _ID.fullmatch(name) is not None and name != ALL


def to_device(device: str, prefix: str = PREFIX) -> str:
    return f"{prefix}/device/{device}/sync"


def to_account(account: str, prefix: str = PREFIX) -> str:
    return f"{prefix}/account/{account}/sync"


def to_all(prefix: str = PREFIX) -> str:
    return f"{prefix}/account/{ALL}/sync"


def from_device(device: str, prefix: str = PREFIX) -> str:
    return f"{prefix}/service/{device}/sync"


def presence(device: str, prefix: str = PREFIX) -> str:
    return f"{prefix}/presence/{device}"


def sender(topic: str, prefix: str = PREFIX) -> str | None:
    """The device that a topic of `from_device` names, None when it is no such topic."""
    head, tail = f"{prefix}/service/", "/sync"
    if not (topic.startswith(head) and topic.endswith(tail)):
        return None
    device = topic[len(head) : -len(tail)]
    return device if valid_id(device) else None


def audience(topic: str, prefix: str = PREFIX) -> tuple[Literal["device", "account"], str] | None:
    """Who hears a topic of `to_device`, `to_account` or `to_all` (the account named ALL); None: it is no such topic."""
    for kind in ("device", "account"):
        head, tail = f"{prefix}/{kind}/", "/sync"
        if topic.startswith(head) and topic.endswith(tail):
            name = topic[len(head) : -len(tail)]
            if valid_id(name) or (kind == "account" and name == ALL):
                return ("device", name) if kind == "device" else ("account", name)
    return None
