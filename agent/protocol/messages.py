"""The messages of the sync protocol: typed, versioned, limited in size. docs/protocol.md says what each is for.

Pure values and two functions, `encode` and `decode`; no I/O. Used by the agent's session and by the relay.
On the wire a message is a JSON object (first byte `{`) or the same as MessagePack. `t` names its kind, `v` the version.
Times are integers: milliseconds since 1970. An image is the raw item as the table stores it, without its two key
attributes and without attributes that begin with `_fleet`, `_op`. What JSON has not (bytes, sets, long numbers) is
held as agent.protocol.onetable.values says.
"""

from __future__ import annotations

from typing import Any, Final, Literal

import msgspec

from agent.protocol.errors import MessageError

VERSION: Final = 1
MESSAGE_BYTES_MAX: Final = 128 * 1024  # AWS IoT Core's limit on a payload
OPS_MAX: Final = 98  # of one batch: 100 actions a transaction, less HEAD and one to spare
BATCH_BYTES_MAX: Final = 100 * 1024
ITEM_BYTES_MAX: Final = 96 * 1024  # of one synced item, encoded
APART_MAX: Final = 64  # keys that a digest leaves out

Key = tuple[str, str]  # (pk, sk)
Image = dict[str, Any]  # attribute -> JSON value
FeedName = Literal["device", "account", "all"]
NO_IMAGE: Final = msgspec.Raw(b"")  # left out on the wire: the item is gone
QUARANTINE: Final = "quarantine"  # why a device is to wait: two copies of it live, until somebody ends that
RATE: Final = "rate"  # it asks more than its measure
OVERLOAD: Final = "overload"  # the relay has no room
Kind = Literal["create", "update", "delete", "sweep"]


class Message(msgspec.Struct, tag_field="t", kw_only=True, frozen=True, gc=False):
    """What all messages have."""

    v: int = VERSION


class Op(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """One outbox row. (epoch of the batch, u, id) names the operation for ever. A sweep has key ("", ""); one that ends
    a restatement of a model has key ("", model) and as `updated` the number with which that began."""

    u: int
    kind: Kind
    id: str
    key: Key = ("", "")
    updated: int = 0
    image: msgspec.Raw = NO_IMAGE  # encoded; NO_IMAGE for delete and sweep


class Up(Message, tag="up", frozen=True, gc=False):
    """Device to relay: exactly the rows sent and not acknowledged. `prev_id` is the id of operation first_u - 1."""

    epoch: str
    first_u: int
    ops: list[Op]
    hn: str
    prev_id: str | None = None


class FeedState(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Where a device stands in one feed. `epoch` None: it has no cursor. `nonce` goes back in a snapshot."""

    nonce: str
    epoch: str | None = None
    seq: int = 0


class Hello(Message, tag="hello", frozen=True, gc=False):
    """Device to relay: this is my epoch, these are my cursors; send what I miss. `n` comes back in the ack.

    `inc`: the incarnation of the table that epoch and cursors belong to; left out: ""."""

    epoch: str
    hn: str
    n: int
    schema: str
    feeds: dict[FeedName, FeedState]
    replaces: str | None = None
    inc: str | msgspec.UnsetType = msgspec.UNSET


class Claim(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A device's digest of one model: `sum` in 16 hexadecimal digits (agent.protocol.digest), `count` for people.

    `delta`: what an earlier comparison found the table's sum to have more; `age_ms`: how long ago that was first so."""

    sum: str
    count: int
    delta: str = ""
    age_ms: int = 0


class Digest(Message, tag="digest", frozen=True, gc=False):
    """Device to relay: this is all that I hold, at these cursors, with nothing on its way; do you hold the same? `n`
    comes back in `compared`. A relay that does not know of digests counts the message and says nothing."""

    epoch: str
    hn: str
    n: int
    up: int
    schema: str
    cut_s: int
    cursors: dict[FeedName, tuple[str, int]]
    models: dict[str, Claim]
    upid: str | None = None
    apart: list[Key] = []
    inc: str | msgspec.UnsetType = msgspec.UNSET


class Ack(Message, tag="ack", frozen=True, gc=False):
    """Relay to device: HEAD as just read or committed. `verdicts`: u -> "lost" or a reason for rejection. In the
    answer to a hello, `tails`: how far each feed that it names goes at least, (epoch, seq); `schema`: the version of
    the relay's own, where the hello says another."""

    epoch: str
    up: int
    now: int
    upid: str | None = None
    verdicts: dict[int, str] = {}
    n: int = 0  # of the hello that this answers; 0 when it answers an `up`
    tails: dict[FeedName, tuple[str, int]] | msgspec.UnsetType = msgspec.UNSET
    schema: str | msgspec.UnsetType = msgspec.UNSET


class Reset(Message, tag="reset", frozen=True, gc=False):
    """Relay to device: HEAD holds another epoch (or none), or `inc` is there: the table has that incarnation, and
    the device knows another. Counts only with the device's present `hn`."""

    hn: str
    head_epoch: str | None = None
    inc: str | msgspec.UnsetType = msgspec.UNSET


class Wait(Message, tag="wait", frozen=True, gc=False):
    """Relay to device: this was not looked into; say nothing for `retry_after` milliseconds, and some more by chance.
    Counts only with the device's present `hn`. A device goes by the time alone, whatever the `reason`."""

    hn: str
    retry_after: int
    reason: str


class Compared(Message, tag="compared", frozen=True, gc=False):
    """Relay to device: what became of a comparison of digests. Models that are in none of these are equal.

    What has been written and not yet told of makes a difference too, and a passing one. So one that was found is only
    asked about again, after `after_ms`; if it is still the same, it will not pass, and the device heals it."""

    hn: str
    n: int
    differs: dict[str, str] = {}
    heal: list[str] = []
    skipped: list[str] = []
    after_ms: int = 0


class HeadMark(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """What HEAD said before the image beside it was read."""

    epoch: str
    up: int
    upid: str | None = None


class Row(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """One change of one item: its image, or NO_IMAGE where the item is gone. `oversize`: bytes of an image not sent."""

    key: Key
    image: msgspec.Raw = NO_IMAGE
    head: HeadMark | None = None
    expired: bool = False
    oversize: int = 0


class Rows(Message, tag="rows", frozen=True, gc=False):
    """Relay to device: all changes of a feed after `a` up to `b`, the last one per key. `last`: the newest row known.

    A push has one row (or none: an empty row that keeps the feed alive)."""

    feed: FeedName
    epoch: str
    a: int
    b: int
    last: int
    rows: list[Row]


class SnapshotItem(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    key: Key
    image: msgspec.Raw = NO_IMAGE
    oversize: int = 0


class Snapshot(Message, tag="snapshot", frozen=True, gc=False):
    """Relay to device: part `part` (from 0) of `parts`: the whole state of a feed at or after row (epoch, seq).

    `scan` names the reading that the part comes from. Parts of two readings must not be joined, though all else in them
    may agree: an item that moved from one part to another between the two would be missing."""

    feed: FeedName
    nonce: str
    epoch: str
    seq: int
    part: int
    parts: int
    items: list[SnapshotItem]
    head: HeadMark | None = None
    scan: str = ""
    schema: str | msgspec.UnsetType = msgspec.UNSET  # as in the ack to the same hello


FromDevice = Up | Hello | Digest
ToDevice = Ack | Reset | Wait | Rows | Snapshot | Compared


class _Envelope(msgspec.Struct, gc=False):
    t: str = ""
    v: int = 0


_json = msgspec.json.Encoder()
_msgpack = msgspec.msgpack.Encoder()
_from_device = msgspec.json.Decoder(FromDevice)
_to_device = msgspec.json.Decoder(ToDevice)
_envelope = msgspec.json.Decoder(_Envelope)
_any_json = msgspec.json.Decoder()
_any_msgpack = msgspec.msgpack.Decoder()
_IMAGE: Final = msgspec.json.Decoder(dict[str, Any])
_TAGS: Final = frozenset(("up", "hello", "digest", "ack", "reset", "wait", "rows", "snapshot", "compared"))


def encode(message: FromDevice | ToDevice, *, compact: bool = False) -> bytes:
    """Bytes for the wire: JSON, or with `compact` MessagePack of the same object."""
    if compact and message.__class__ is Ack and not message.verdicts:
        return _msgpack.encode(message)  # no image, no number as a key: the same bytes
    data = _json.encode(message)
    return _msgpack.encode(_any_json.decode(data)) if compact else data


def _decode(decoder: msgspec.json.Decoder[Any], payload: bytes) -> Any:
    if len(payload) > MESSAGE_BYTES_MAX:
        raise MessageError("oversize", f"{len(payload)} bytes, at most {MESSAGE_BYTES_MAX}")
    try:
        if payload[:1] != b"{":
            payload = _json.encode(_any_msgpack.decode(payload))
        message = decoder.decode(payload)
    except (ValueError, TypeError, RecursionError, UnicodeError) as error:  # msgspec's errors are ValueErrors
        raise _explain(payload, error) from None
    if message.v != VERSION:
        raise MessageError("version", f"version {message.v}, expected {VERSION}")
    return message


def _explain(payload: bytes, error: Exception) -> MessageError:
    """An unknown version or kind is told apart from a broken message: newer peers are expected, broken ones are not."""
    try:
        envelope = _envelope.decode(payload)
    except (ValueError, RecursionError, UnicodeError):
        return MessageError("malformed", str(error))
    if envelope.v not in (0, VERSION):
        return MessageError("version", f"version {envelope.v}, expected {VERSION}")
    if envelope.t not in _TAGS:
        return MessageError("unknown", f"kind of message {envelope.t!r}")
    return MessageError("malformed", str(error))


def decode_from_device(payload: bytes) -> FromDevice:
    """What a device sent. Raises MessageError."""
    message: FromDevice = _decode(_from_device, payload)
    return message


def decode_to_device(payload: bytes) -> ToDevice:
    """What the relay sent. Raises MessageError."""
    message: ToDevice = _decode(_to_device, payload)
    return message


def is_compact(payload: bytes) -> bool:
    """Whether the peer speaks MessagePack: answers use the device's encoding."""
    return payload[:1] != b"{"


def encode_image(image: Image) -> bytes:
    return _json.encode(image)


def decode_image(data: bytes | msgspec.Raw) -> Image:
    """Raises MessageError when `data` is not a JSON object."""
    try:
        return _IMAGE.decode(data)
    except (ValueError, RecursionError, UnicodeError) as error:
        raise MessageError("malformed", f"image: {error}") from None
