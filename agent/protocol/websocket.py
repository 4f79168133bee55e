"""The WebSocket between a device and the relay: path, subprotocol, header, frames and the codes that it is closed with.

A device opens `/v1/DEVICE` with the subprotocol `fleet.v1`, and says who it is by `Authorization: Bearer TOKEN` or by a
TLS client certificate whose common name is the device's id. From then on one WebSocket message is one message of the
protocol, either way: JSON as text, MessagePack as binary; a receiver takes either for both. Topics are not on the
wire: the relay sends a connection what the device would have subscribed to. Pure. Used by the agent's transport and by
the relay.
"""

from __future__ import annotations

from typing import Final

from agent.protocol.topics import valid_id

SUBPROTOCOL: Final = "fleet.v1"
PATH: Final = "/v1/"
HEADER: Final = "Authorization"
TOKEN_CHARS_MAX: Final = 256
_SCHEME: Final = "bearer"

# Why a connection was closed: codes of RFC 6455, and from 4000 Fleet's own.
NORMAL: Final = 1000
GOING_AWAY: Final = 1001  # the relay stops: connect again, after the usual back-off
UNREADABLE: Final = 1002  # what came is no WebSocket
OVERSIZE: Final = 1009  # a message over MESSAGE_BYTES_MAX: sending it again will not help
REPLACED: Final = 4001  # another connection of this device was opened: back off before the next
REVOKED: Final = 4003  # the token, the account or the registration is another by now
IDLE: Final = 4008  # nothing was heard for too long, pongs included
SLOW: Final = 4009  # what was to be sent could not be sent for too long


def path_of(device: str) -> str:
    return PATH + device


def device_of(path: str) -> str | None:
    """The device that a path of `path_of` names, None when it is no such path."""
    device = path[len(PATH) :]
    return device if path.startswith(PATH) and valid_id(device) else None


def bearer(token: str) -> str:
    """The value of the header."""
    return f"Bearer {token}"


def token_of(value: str) -> str | None:
    """The token that a value of the header holds, None when it holds none that could be one."""
    scheme, _, token = value.partition(" ")
    token = token.strip()
    if scheme.lower() != _SCHEME or not 0 < len(token) <= TOKEN_CHARS_MAX:
        return None
    return token if token.isascii() and token.isprintable() and " " not in token else None


def framed(payload: bytes) -> str | bytes:
    """What to send for a message of the protocol: text for JSON, else binary."""
    if payload[:1] == b"{":
        try:
            return payload.decode()
        except UnicodeDecodeError:
            return payload
    return payload


def unframed(message: str | bytes) -> bytes:
    """The message of the protocol that came."""
    return message.encode("utf-8", "replace") if isinstance(message, str) else message
