"""What the oracle reads of a message on the wire: positions, keys and verdicts, never an image that it does not need.

JSON or MessagePack, as docs/protocol.md has them; unknown fields are skipped unread, which is what makes this cheap.
`upward` and `downward` return None for bytes that are no message: the receiver must refuse those, and the oracle counts
them. Called by the oracle only.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from agent.protocol.messages import Key

_NOTHING: Final = msgspec.Raw(b"")


class Operation(msgspec.Struct, frozen=True, gc=False):
    """One row of an outbox. `image` stays encoded: resends are compared by its bytes."""

    u: int
    kind: str
    id: str
    key: Key = ("", "")
    updated: int = 0
    image: msgspec.Raw = _NOTHING


class Cursor(msgspec.Struct, frozen=True, gc=False):
    nonce: str
    epoch: str | None = None
    seq: int = 0


class Upward(msgspec.Struct, gc=False):
    """`up`, `hello` or `digest`, told apart by `t`."""

    t: str
    epoch: str
    first_u: int = 0
    n: int = 0
    ops: list[Operation] = []
    feeds: dict[str, Cursor] = {}


class Entry(msgspec.Struct, frozen=True, gc=False):
    key: Key


class _State(msgspec.Struct, frozen=True, gc=False):
    key: Key
    image: msgspec.Raw = _NOTHING


class _States(msgspec.Struct, gc=False):
    rows: list[_State] = []


class Downward(msgspec.Struct, gc=False):
    """`ack`, `reset`, `rows`, `snapshot`, `compared` or `wait`, told apart by `t`."""

    t: str
    epoch: str = ""
    up: int = 0
    upid: str | None = None
    verdicts: dict[str, str] = {}
    n: int = 0
    feed: str = ""
    a: int = 0
    b: int = 0
    seq: int = 0
    nonce: str = ""
    part: int = 0
    rows: list[Entry] = []
    items: list[Entry] = []
    heal: list[str] = []
    skipped: list[str] = []
    retry_after: int = 0


class _Rev(msgspec.Struct, gc=False):
    rev: int | None = None


_json_up: Final = msgspec.json.Decoder(Upward)
_msgpack_up: Final = msgspec.msgpack.Decoder(Upward)
_json_down: Final = msgspec.json.Decoder(Downward)
_msgpack_down: Final = msgspec.msgpack.Decoder(Downward)
_json_states: Final = msgspec.json.Decoder(_States)
_msgpack_states: Final = msgspec.msgpack.Decoder(_States)
_json_rev: Final = msgspec.json.Decoder(_Rev)
_msgpack_rev: Final = msgspec.msgpack.Decoder(_Rev)


def upward(payload: bytes) -> Upward | None:
    try:
        return _json_up.decode(payload) if payload[:1] == b"{" else _msgpack_up.decode(payload)
    except (ValueError, UnicodeError, RecursionError):  # msgspec's errors are ValueErrors
        return None


def downward(payload: bytes) -> Downward | None:
    try:
        return _json_down.decode(payload) if payload[:1] == b"{" else _msgpack_down.decode(payload)
    except (ValueError, UnicodeError, RecursionError):
        return None


def states_of(payload: bytes) -> dict[Key, int | None]:
    """The states in a readable message of rows; None: the item is gone."""
    message = (_json_states if payload[:1] == b"{" else _msgpack_states).decode(payload)
    return {row.key: rev_of(row.image) for row in message.rows}


def rev_of(image: msgspec.Raw) -> int | None:
    """The `rev` in an encoded image; None when there is none."""
    data: Any = bytes(image)
    if not data:
        return None
    try:
        return (_json_rev if data[:1] == b"{" else _msgpack_rev).decode(data).rev
    except (ValueError, UnicodeError, RecursionError):
        return None
