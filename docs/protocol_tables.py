"""What docs/protocol.md says of messages, topics, tables and numbers, and the session's diagram: from the code itself.

A field without an explanation, or an explanation without its field, is an error. Called by docs.generate.
"""

from __future__ import annotations

import ast
import inspect
import io
import sqlite3
import textwrap
import tokenize
from collections.abc import Mapping
from types import ModuleType
from typing import Any, Final

import msgspec

import cloud.head
import cloud.registry
import cloud.stream_leases
import cloud.stream_letters
from agent.config import AgentConfig
from agent.events import Effect, Event, State
from agent.protocol import messages, topics
from agent.protocol.messages import (
    Ack,
    Claim,
    Compared,
    Digest,
    FeedState,
    HeadMark,
    Hello,
    Op,
    Reset,
    Row,
    Rows,
    Snapshot,
    SnapshotItem,
    Up,
    Wait,
)
from agent.remote.events import CommandConfig
from agent.store import Store
from agent.transitions import TRANSITIONS
from cloud.config import RelayConfig
from cloud.listener_config import ListenerConfig
from cloud.stream_config import StreamConfig
from docs.markdown import code, fenced, table
from fleet.scenario.units import format_duration, format_size

FIELDS: Final[Mapping[str, str]] = {
    "Up.epoch": "the device's epoch",
    "Up.first_u": "number of the first operation",
    "Up.ops": "all rows sent and not acknowledged, in order, numbers without a gap",
    "Up.hn": "the device's reset nonce; comes back in a `reset`",
    "Up.prev_id": "id of operation `first_u` − 1; absent before the first",
    "Up.v": "version",
    "Op.u": "its number within the epoch, from 1",
    "Op.kind": "what it does",
    "Op.id": "the boot nonce at the moment when it was marked as sent",
    "Op.key": "hash key and sort key; of a `sweep` none, or the model that was restated",
    "Op.updated": "the write's stamp, ms; of a `sweep` of one model the number of the first operation that restated it",
    "Op.image": "the whole item after the write; absent for `delete` and `sweep`",
    "Hello.epoch": "the device's epoch, adopted or not",
    "Hello.hn": "the device's reset nonce",
    "Hello.n": "number of this hello since boot",
    "Hello.schema": "version of the device's schema",
    "Hello.feeds": "where it stands in each feed that it receives",
    "Hello.replaces": "the epoch that it asks HEAD to give up",
    "Hello.inc": "the table's incarnation that epoch and cursors belong to; absent: the first",
    "Hello.v": "version",
    "Digest.epoch": "the device's epoch",
    "Digest.hn": "the device's reset nonce",
    "Digest.n": "number of this question since boot",
    "Digest.up": "the last operation acknowledged; nothing later was sent",
    "Digest.schema": "fingerprint of all models' keys, directions and lives",
    "Digest.cut_s": "items whose lives end before this time do not count, seconds since 1970",
    "Digest.cursors": "feed epoch and last row of each feed that it receives",
    "Digest.models": "of each model that syncs",
    "Digest.upid": "id of operation `up`; absent when `up` is 0",
    "Digest.apart": "items that do not count: one side has refused what the other has",
    "Digest.inc": "the table's incarnation that epoch and cursors belong to; absent: the first",
    "Digest.v": "version",
    "Claim.sum": "of the hashes of its items, modulo 2^64",
    "Claim.count": "items; nothing is decided by it",
    "Claim.delta": "what an earlier `compared` said of the model; absent: nothing",
    "Claim.age_ms": "since it was first said",
    "Compared.hn": "the nonce of the message that this answers",
    "Compared.n": "of the `digest` that this answers",
    "Compared.differs": "model -> the table's sum less the device's",
    "Compared.heal": "those of them that are to stay",
    "Compared.skipped": "models that could not be compared now",
    "Compared.after_ms": "how long a difference has to stand, ms",
    "Compared.v": "version",
    "FeedState.nonce": "goes back in a snapshot of this feed",
    "FeedState.epoch": "feed epoch of the cursor; absent: no cursor",
    "FeedState.seq": "the last row applied",
    "Ack.epoch": "the device's epoch, as HEAD has it",
    "Ack.up": "the last operation committed",
    "Ack.now": "the relay's time, ms",
    "Ack.upid": "id of operation `up`; absent when `up` is 0",
    "Ack.verdicts": "operations not accepted: `lost`, or a code",
    "Ack.n": "of the hello that this answers; 0: it answers an `up`",
    "Ack.tails": "in the answer to a hello: how far each feed that it names goes at least, (epoch, seq)",
    "Ack.schema": "version of the relay's schema, where the hello said another; absent: the same",
    "Ack.v": "version",
    "Reset.hn": "the nonce of the message that this answers",
    "Reset.head_epoch": "the epoch that HEAD has; absent: no HEAD",
    "Wait.hn": "the nonce of the message that this answers",
    "Wait.retry_after": "ms; the device adds up to as much again, by chance",
    "Wait.reason": "`quarantine`, `rate` or `overload`",
    "Reset.inc": "the table's incarnation, when the device's is another; absent: it is the same",
    "Reset.v": "version",
    "Wait.v": "version",
    "Rows.feed": "which feed",
    "Rows.epoch": "feed epoch",
    "Rows.a": "the rows after this one",
    "Rows.b": "up to and including this one",
    "Rows.last": "the newest row that the sender knew",
    "Rows.rows": "the last row of each key; none in an empty row",
    "Rows.v": "version",
    "Row.key": "hash key and sort key",
    "Row.image": "the item; absent: it is gone",
    "Row.head": "what HEAD said before the item was read (device feeds)",
    "Row.expired": "gone because its time to live was over",
    "Row.oversize": "bytes of an image too large to send",
    "HeadMark.epoch": "HEAD's epoch",
    "HeadMark.up": "the last operation committed",
    "HeadMark.upid": "its id; null when `up` is 0",
    "Snapshot.feed": "which feed",
    "Snapshot.nonce": "from the hello that asked",
    "Snapshot.epoch": "feed epoch of the position",
    "Snapshot.seq": "the last row when reading began",
    "Snapshot.part": "from 0",
    "Snapshot.parts": "how many there are",
    "Snapshot.items": "this part's items",
    "Snapshot.head": "what HEAD said before the items were read (device feed)",
    "Snapshot.scan": "names the reading: parts of two readings are never joined",
    "Snapshot.schema": "as in the `ack` to the same hello",
    "Snapshot.v": "version",
    "SnapshotItem.key": "hash key and sort key",
    "SnapshotItem.image": "the item",
    "SnapshotItem.oversize": "bytes of an image too large to send",
}
COLUMNS: Final[Mapping[str, str]] = {
    "item.pk": "hash key",
    "item.sk": "sort key",
    "item.image": "the item as JSON, without its keys",
    "item.updated": "its stamp, ms; 0 where the device does not write the model",
    "item.rejected": "code, when the relay would not have the last write of an up model",
    "outbox.n": "order of all rows",
    "outbox.u": "number within the epoch; 0 while it waits for its period",
    "outbox.epoch": "the epoch in which it was written",
    "outbox.pk": "hash key; empty for a sweep",
    "outbox.sk": "sort key; of a sweep the model that was restated, if any",
    "outbox.kind": "create, update, delete or sweep",
    "outbox.image": "the item after the write; null for a delete",
    "outbox.updated": "stamp, ms",
    "outbox.id": "boot nonce when it was marked as sent; empty before",
    "outbox.state": "0 not sent, 1 sent, 2 acknowledged, 3 waits for its period",
    "outbox.seen": "1: the feed showed it before its acknowledgement came; hidden from reads",
    "outbox.due_ms": "of one that waits: when its period has passed, ms since 1970",
    "cursor.feed": "device, account or all",
    "cursor.epoch": "feed epoch",
    "cursor.seq": "the last row applied",
    "cursor.models": "fingerprint of the feed's models with which it was reached; behind it `/` and the version of the "
    "relay's schema, where that was another",
    "identity.one": "the one row",
    "identity.epoch": "the device's epoch",
    "identity.adopted": "1 when an ack of this epoch has come",
    "identity.replaces": "the epoch that hellos ask HEAD to give up",
    "identity.acked_u": "last operation acknowledged",
    "identity.acked_id": "its id",
    "identity.correction_ms": "what to add to the wall clock, as learned from acks",
    "item_index.name": "of the index with its model, `ttl`, or `unique`",
    "item_index.hash": "hash value; a unique value's key; empty for `ttl`",
    "item_index.sort": "sort value; end of life, seconds since 1970",
    "item_index.pk": "hash key of the item",
    "item_index.sk": "sort key of the item",
    "note.name": "`schema`: last used; `indexes`: that `item_index` was made by; `incarnation`: of the table",
    "note.value": "compressed text; JSON; text",
    "dead_letter.n": "order",
    "dead_letter.at_ms": "when it was buried",
    "dead_letter.pk": "hash key",
    "dead_letter.sk": "sort key",
    "dead_letter.kind": "of the operation; `row`: a row that could not be applied",
    "dead_letter.image": "what was to be written",
    "dead_letter.updated": "its stamp, ms",
    "dead_letter.code": "why",
}
MESSAGES: Final = (Up, Hello, Digest, Ack, Reset, Wait, Rows, Snapshot, Compared)
PARTS: Final = (Op, FeedState, Claim, Row, HeadMark, SnapshotItem)


class UnexplainedError(Exception):
    """The code has something that the documents do not explain, or the other way round."""


# The session


def diagram() -> str:
    """TRANSITIONS as a Mermaid state diagram; events that leave the state as it is are in the table only."""
    lines = ["stateDiagram-v2", f"    [*] --> {State.OFF.value}"]
    for state, events in TRANSITIONS.items():
        ways: dict[State, list[str]] = {}
        for event, (_, following) in events.items():
            for other in following:
                if other is not state:
                    ways.setdefault(other, []).append(event.__name__)
        lines += [f"    {state.value} --> {other.value}: {', '.join(names)}" for other, names in ways.items()]
    return fenced("mermaid", lines)


def transitions() -> str:
    """Every pair of state and event that may happen."""
    rows = [
        [code(state.value), event.__name__, code(method), ", ".join(code(other.value) for other in following)]
        for state, events in TRANSITIONS.items()
        for event, (method, following) in events.items()
    ]
    return table(["state", "event", "method of Session", "state afterwards"], rows)


def events() -> str:
    """What a driver tells a session, and what it is told to do."""
    kinds: list[tuple[str, type]] = [("event", kind) for kind in Event.__subclasses__()]
    kinds += [("effect", kind) for kind in Effect.__subclasses__()]
    rows = [[code(kind.__name__), what, " ".join((kind.__doc__ or "").split())] for what, kind in kinds]
    return table(["value", "kind", "means"], rows)


# Messages


def message_tables() -> str:
    """One table a message, then the structures in them."""
    parts = []
    for kind in (*MESSAGES, *PARTS):
        tag = kind.__struct_config__.tag
        head = f"**{code(tag)}**" if tag else f"**{kind.__name__}**"
        if kind.__struct_config__.array_like:
            head += ", an array in this order"
        parts.append(f"{head}: {' '.join((kind.__doc__ or 'an item of a snapshot').split())}\n\n{_fields(kind)}")
    used = {f"{kind.__name__}.{name}" for kind in (*MESSAGES, *PARTS) for name in kind.__struct_fields__}
    _all_used(used, FIELDS)
    return "\n\n".join(parts)


def _fields(kind: type[msgspec.Struct]) -> str:
    rows = []
    types = _annotations(kind)
    for field in sorted(msgspec.structs.fields(kind), key=lambda field: field.name == "v"):
        default = ""
        if field.default is not msgspec.NODEFAULT:
            default = (
                "absent" if field.default in (None, messages.NO_IMAGE, msgspec.UNSET) else code(_json(field.default))
            )
        elif field.default_factory is not msgspec.NODEFAULT:
            default = code(_json(field.default_factory()))
        rows.append([code(field.encode_name), code(types[field.name]), default, _explained(FIELDS, kind, field.name)])
    return table(["field", "type", "default", "means"], rows)


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _annotations(kind: type) -> dict[str, str]:
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        found.update(inspect.get_annotations(base))
    return {
        name: str(text).replace("msgspec.Raw", "raw JSON").replace(" | msgspec.UnsetType", "")
        for name, text in found.items()
    }


def _explained(where: Mapping[str, str], kind: type, name: str) -> str:
    return _of(where, f"{kind.__name__}.{name}")


def _of(where: Mapping[str, str], name: str) -> str:
    if name not in where:
        raise UnexplainedError(f"docs say nothing of {name}")
    return where[name]


def _all_used(used: set[str], where: Mapping[str, str]) -> None:
    unused = [name for name in where if name not in used]
    if unused:
        raise UnexplainedError(f"docs explain what is not there: {', '.join(unused)}")


def limits() -> str:
    """The constants of the wire."""
    named = {
        "MESSAGE_BYTES_MAX": "of one message; a larger one is refused unread",
        "OPS_MAX": "operations of one batch",
        "BATCH_BYTES_MAX": "of a batch's operations, about",
        "ITEM_BYTES_MAX": "of one synced item, encoded",
        "APART_MAX": "items that a digest leaves out by name; with more of them, their models are left out",
        "VERSION": "of the protocol",
    }
    rows = []
    for name, means in named.items():
        value = getattr(messages, name)
        shown = format_size(value) if name.endswith("BYTES_MAX") else value
        rows.append([code(name), str(shown), means])
    return table(["constant", "value", "means"], rows)


def topic_table() -> str:
    rows = [
        [code(topics.from_device("DEVICE")), "up", "one device publishes, the relay reads", "1"],
        [code(topics.to_device("DEVICE")), "down", "answers to one device, and the pushes of its feed", "1"],
        [code(topics.to_account("ACCOUNT")), "down", "the pushes of an account's feed", "0"],
        [code(topics.to_all()), "down", "the pushes of the feed for all devices", "0"],
    ]
    return table(["topic", "way", "carries", "QoS"], rows)


# Tables


def device_tables() -> str:
    """The agent's SQLite file, read off a real one."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    Store(connection).initialise("epoch")
    names = connection.execute(
        "SELECT name FROM sqlite_master WHERE type='table' AND name NOT LIKE 'sqlite_%' ORDER BY rowid"
    )
    parts = []
    used = set()
    for (name,) in names.fetchall():
        rows = []
        for _, column, kind, not_null, _, key in connection.execute(f"PRAGMA table_info({name})").fetchall():
            used.add(f"{name}.{column}")
            marks = ", ".join(mark for mark in ("key" if key else "", "" if not_null or key else "may be null") if mark)
            rows.append([code(column), kind.lower(), marks, _of(COLUMNS, f"{name}.{column}")])
        parts.append(f"**{code(name)}**\n\n" + table(["column", "type", "", "holds"], rows))
    connection.close()
    _all_used(used, COLUMNS)
    return "\n\n".join(parts)


def records() -> str:
    """HEAD and LOG, as the one module that knows them describes them."""
    return _forms(cloud.head)


def process_records() -> str:
    """What a relay that runs for real keeps beside them, each as its module describes it."""
    return _forms(cloud.stream_leases, cloud.stream_letters, cloud.registry)


def _forms(*modules: ModuleType) -> str:
    """The indented parts of the modules' docstrings."""
    found: list[str] = []
    for module in modules:
        lines = [line for line in (inspect.getdoc(module) or "").splitlines() if line.startswith("    ")]
        if not lines:
            raise UnexplainedError(f"{module.__name__} describes no records")
        found.extend(textwrap.dedent("\n".join(lines)).splitlines())
    return fenced("text", found)


# Numbers


def agent_numbers() -> str:
    return _numbers(AgentConfig, AgentConfig())


def command_numbers() -> str:
    return _numbers(CommandConfig, CommandConfig())


def relay_numbers() -> str:
    return _numbers(RelayConfig, RelayConfig())


def stream_numbers() -> str:
    return _numbers(StreamConfig, StreamConfig())


def listener_numbers() -> str:
    return _numbers(ListenerConfig, ListenerConfig())


def _numbers(kind: type, made: object) -> str:
    """Name, default and the comment beside it in the source."""
    source = textwrap.dedent(inspect.getsource(kind))
    comments = {
        token.start[0]: token.string.removeprefix("#").strip()
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    (definition,) = ast.parse(source).body
    assert isinstance(definition, ast.ClassDef)
    rows = []
    for node in definition.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            name = node.target.id
            rows.append([code(name), _shown(name, getattr(made, name)), comments.get(node.lineno, "")])
    return table(["number", "default", ""], rows)


def _shown(name: str, value: Any) -> str:
    if isinstance(value, bool | str):
        return code(str(value).lower() if isinstance(value, bool) else value)
    if name.endswith("_ms"):
        return format_duration(value * 1000)
    if "bytes" in name:
        return str(format_size(value))
    return f"{value:,}" if isinstance(value, int) else str(value)
