"""What may be asked over the socket, and what is answered: one JSON object a line, either way.

A request names what to `do`, and may carry an `id` that comes back in its answer. An answer has `ok`; where that is
false, an `error` with a stable code. Items are objects of properties as `fleet-agent get --json` prints them. Pure.
Used by agent.api.server and agent.api.client.
"""

from __future__ import annotations

from typing import Any, Final, Literal

import msgspec

LINE_BYTES_MAX: Final = 1 << 20
PAGE_ITEMS_MAX: Final = 1_000
PAGE_BYTES_MAX: Final = 512 * 1024  # of the items in one answer; the first always fits
WATCH_WAITING_MAX: Final = 1_000  # events that a watcher has not read: one that is further behind is cut off
REFUSED_MAX: Final = 1_000  # lines of an import that are named, of those that were refused
VERSION: Final = 1

Id = int | str | None
Properties = msgspec.Raw  # a JSON object, read with all digits of its numbers
NO_PROPERTIES: Final = msgspec.Raw(b"{}")
NOTHING: Final = msgspec.Raw(b"null")


class Request(msgspec.Struct, frozen=True, kw_only=True, tag_field="do", forbid_unknown_fields=True):
    id: Id = None


class Hello(Request, frozen=True, kw_only=True, tag="hello"):
    """Who answers: `version`, `device`, `account`, `database`, `schema`."""


class Status(Request, frozen=True, kw_only=True, tag="status"):
    """How the agent is: `status`."""


class Get(Request, frozen=True, kw_only=True, tag="get"):
    """`item`, null when there is none."""

    model: str
    item: Properties


class Find(Request, frozen=True, kw_only=True, tag="find"):
    """`items` in order, and whether there are `more`: then ask again with the last one as `after`."""

    model: str
    item: Properties = NO_PROPERTIES
    index: str | None = None
    reverse: bool = False
    limit: int = 100
    after: Properties = NOTHING


class Create(Request, frozen=True, kw_only=True, tag="create"):
    """A new item; answered when it is durable, with the `item` as it is."""

    model: str
    item: Properties


class Update(Request, frozen=True, kw_only=True, tag="update"):
    """The fields given are changed, null removes one; likewise."""

    model: str
    item: Properties


class Upsert(Request, frozen=True, kw_only=True, tag="upsert"):
    """Update, or create; likewise."""

    model: str
    item: Properties


class Remove(Request, frozen=True, kw_only=True, tag="remove"):
    """`removed`: whether there was such an item."""

    model: str
    item: Properties


class Watch(Request, frozen=True, kw_only=True, tag="watch"):
    """From the answer on, lines with an `event` come for what happens to items of these models; none: of all. Once a
    connection."""

    models: list[str] = []


class Rejected(Request, frozen=True, kw_only=True, tag="rejected"):
    """`letters`: writes that the cloud rejected, and changes that could not be applied."""


class Settle(Request, frozen=True, kw_only=True, tag="settle"):
    """Sends a rejected write again, or forgets it. `done`: whether there was one of that number."""

    n: int
    how: Literal["retry", "drop"]


class Backup(Request, frozen=True, kw_only=True, tag="backup"):
    """A whole copy of the database in a new `file` (an absolute path, where the agent may write), answered with its
    `bytes` when it is there and checked. Others go on reading and writing."""

    file: str


class Compact(Request, frozen=True, kw_only=True, tag="compact"):
    """Gives unused space of the file back: `bytes_before` and `bytes`. Others wait."""


class Import(Request, frozen=True, kw_only=True, tag="import"):
    """Lines of JSON from a `file` (an absolute path, which the agent may read) into the database, in one transaction;
    answered with what was `imported`. Without `partial` nothing is where a line is refused. Others wait."""

    file: str
    partial: bool = False


AnyRequest = (
    Hello | Status | Get | Find | Create | Update | Upsert | Remove | Watch | Rejected | Settle
    | Backup | Compact | Import
)  # fmt: skip
REQUESTS: Final = (
    Hello, Status, Get, Find, Create, Update, Upsert, Remove, Watch, Rejected, Settle, Backup, Compact, Import,
)  # fmt: skip


class Error(msgspec.Struct, frozen=True):
    """`kind`: `request` (no such thing can be asked), `model` (the schema or the data refuse it, with the code that
    `ModelError` has), `database` (the file), `internal`."""

    kind: Literal["request", "model", "database", "internal"]
    code: str
    message: str
    hint: str = ""


class Answer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`ok` stands in every answer; the rest where the request asks for it."""

    ok: bool = msgspec.field()
    id: Id = None
    error: Error | None = None
    item: dict[str, Any] | msgspec.UnsetType | None = msgspec.UNSET
    items: list[dict[str, Any]] | msgspec.UnsetType = msgspec.UNSET
    more: bool | msgspec.UnsetType = msgspec.UNSET
    removed: bool | msgspec.UnsetType = msgspec.UNSET
    done: bool | msgspec.UnsetType = msgspec.UNSET
    bytes: int | msgspec.UnsetType = msgspec.UNSET
    bytes_before: int | msgspec.UnsetType = msgspec.UNSET
    letters: list[dict[str, Any]] | msgspec.UnsetType = msgspec.UNSET
    imported: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET
    status: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET
    hello: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET
    event: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET


_DECODER: Final = msgspec.json.Decoder(AnyRequest)


def request_of(line: bytes) -> AnyRequest:
    """Raises ValueError with what is wrong."""
    try:
        request: AnyRequest = _DECODER.decode(line)
    except RecursionError:
        raise ValueError("nested too deep") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError(str(error).replace("`", "'")) from None
    return request


def line_of(answer: Answer) -> bytes:
    return msgspec.json.encode(answer) + b"\n"
