"""The rows of the device's file as values: operations, items as they show, dead letters, identity.

Pure values. Made by agent.store; read by Database, Session and the upkeep of a file.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from agent.protocol.messages import Kind

# The state of an operation. HELD: its model has a `period`, which has not passed; it has no number yet.
UNSENT: Final = 0
SENT: Final = 1
ACKED: Final = 2
HELD: Final = 3

ROW: Final = "row"  # the kind of a dead letter that is no operation


class OutboxRow(NamedTuple):
    """One own operation. `n` orders all rows; `u` numbers them within an epoch (0: HELD). `state`: UNSENT, SENT, ACKED
    or HELD. `seen`: the feed has shown it before its acknowledgement came; hidden from reads."""

    n: int
    u: int
    epoch: str
    pk: str
    sk: str
    kind: Kind
    image: bytes | None
    updated: int
    id: str
    state: int
    seen: int


class Visible(NamedTuple):
    """What an application reads: base with own operations on top. `image` None: no such item; `updated` may still be
    that of an own delete."""

    image: bytes | None
    updated: int
    n: int = 0  # of the outbox row that shows; 0: the base does
    state: int = ACKED


class DeadLetter(NamedTuple):
    """What could not be done, and why. `kind`: of the operation that was rejected; ROW: a change that came down and
    could not be applied. `at_ms`: since 1970; `image`: encoded, None for a delete."""

    n: int
    at_ms: int
    pk: str
    sk: str
    kind: str
    image: bytes | None
    updated: int
    code: str


NOTHING: Final = Visible(None, 0)


class Identity(NamedTuple):
    """`adopted`: the relay acknowledged this epoch. `replaces`: the epoch that a hello asks it to replace."""

    epoch: str
    adopted: bool
    replaces: str | None
    acked_u: int
    acked_id: str | None
    correction_ms: int | None
