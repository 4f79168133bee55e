"""The port: one connection at a time, payloads in and out, and why there is none.

An adapter makes a connection, tells when it is up, hands over what comes, and says in words for a person why it ended.
It never tries again by itself: when to connect is the session's to say. Called by agent.runtime.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, Literal, Protocol

Kind = Literal["name", "unreachable", "certificate", "refused", "replaced", "protocol", "lost", "internal"]
# What each kind means, for the documents and for whoever reads a log.
KINDS: Final[dict[Kind, str]] = {
    "name": "the server's name is not known: DNS is down, or the name is wrong",
    "unreachable": "nobody answers: the server or the network is away",
    "certificate": "one end refuses the other's certificate, or TLS does not come about",
    "refused": "the server answers, and says no: user, password, token, certificate or access rules",
    "replaced": "another connection was made under this device's name",
    "protocol": "the server speaks something else",
    "lost": "the connection was there, and ended",
    "internal": "a mistake of the agent's own",
}


class LinkError(Exception):
    """There is no connection, or no more. `kind` is stable; `message` and `hint` are for people."""

    def __init__(self, kind: Kind, message: str, hint: str = "") -> None:
        self.kind = kind
        self.message = message
        self.hint = hint
        super().__init__(f"{message} ({hint})" if hint else message)


class Link(Protocol):
    """A connection that is up."""

    def send(self, payload: bytes) -> None:
        """Takes a payload, and delivers it or ends the connection. Never waits."""


Up = Callable[[Link], None]
Heard = Callable[[bytes], Awaitable[None]]


class Transport(Protocol):
    """What makes connections. `place`: where to, for people. `connect_bytes`, `message_bytes`: about what a connection,
    and a message besides its payload, cost on the wire; `idle_bytes_per_s`: a connection on which nothing is said."""

    place: str
    connect_bytes: int
    message_bytes: int
    idle_bytes_per_s: float

    async def serve(self, up: Up, heard: Heard) -> None:
        """One connection, from its attempt to its end: calls `up` when it is made, then `heard` with each payload,
        which reads on when that returns. Raises LinkError, always: connections do not end well by themselves. When it
        is cancelled it takes leave and closes, at once."""
