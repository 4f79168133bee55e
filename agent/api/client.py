"""A blocking client of the agent's socket: what Database offers, asked of the agent that runs on it.

Items are properties in the types of the schema, as the database gives them. Raises ModelError as Database does, and
CommandError for what else the agent says. Used by agent.commands, and by applications in Python.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Final, Self

import msgspec

from agent.api.requests import PAGE_ITEMS_MAX
from agent.database import Database
from agent.files import open_file
from agent.import_lines import Imported
from agent.protocol.commands.failure import CommandError
from agent.protocol.commands.typed import from_json, to_json
from agent.protocol.errors import ModelError
from agent.protocol.onetable.model import Model
from agent.protocol.process import Context
from agent.protocol.schema import Schema
from agent.system import SystemRandom, monotonic_ms, wall_ms
from agent.upkeep import written_whole

ANSWER_S: Final = 60.0  # a database on a slow disk, or one that is being copied
_READ_BYTES: Final = 65_536
_AWAY: Final = (errno.ENOENT, errno.ECONNREFUSED, errno.ENOTDIR)


class NoAgent(Exception):
    """Nobody serves this socket."""


class Client:
    """One connection. Raises NoAgent when nobody listens. Not for several threads at once."""

    def __init__(self, path: str, answer_s: float | None = ANSWER_S) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(answer_s)
        self._held = b""
        try:
            self._socket.connect(path)
        except OSError as error:
            self._socket.close()
            if error.errno in _AWAY:
                raise NoAgent(path) from None
            raise CommandError(f"{path}: {(error.strerror or str(error)).lower()}") from None

    def ask(self, do: str, **fields: Any) -> dict[str, Any]:
        """The answer. Raises ModelError and CommandError."""
        try:
            self._socket.sendall(msgspec.json.encode({"do": do, **fields}) + b"\n")
        except OSError as error:
            raise CommandError(f"the agent does not answer: {(error.strerror or str(error)).lower()}") from None
        return self.line()

    def wait_for_ever(self) -> None:
        """For lines that come when something happens."""
        self._socket.settimeout(None)

    def line(self) -> dict[str, Any]:
        """The next line that comes."""
        while b"\n" not in self._held:
            try:
                data = self._socket.recv(_READ_BYTES)
            except TimeoutError:
                raise CommandError("the agent does not answer", "`fleet-agent status` says how it is") from None
            except OSError as error:
                raise CommandError(f"the agent does not answer: {(error.strerror or str(error)).lower()}") from None
            if not data:
                raise CommandError("the agent has ended", "start it again, or try once more")
            self._held += data
        line, _, self._held = self._held.partition(b"\n")
        found: dict[str, Any] = msgspec.json.decode(line)
        refusal = found.get("error")
        if refusal is None:
            return found
        if refusal["kind"] == "model":
            raise ModelError(refusal["code"], refusal["message"])
        raise CommandError(refusal["message"], refusal["hint"])

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class RemoteDatabase:
    """The part of Database that commands use. `schema`: as the agent has it; `file`: of its database."""

    def __init__(self, client: Client, schema: Schema, context: Context, file: str) -> None:
        self.client = client
        self.schema = schema
        self.context = context
        self.file = file

    def get(self, model: str, properties: Mapping[str, Any]) -> dict[str, Any] | None:
        return self.taken(model, self._ask("get", model, properties)["item"])

    def create(self, model: str, properties: Mapping[str, Any]) -> dict[str, Any]:
        return self._written("create", model, properties)

    def update(self, model: str, properties: Mapping[str, Any]) -> dict[str, Any]:
        return self._written("update", model, properties)

    def upsert(self, model: str, properties: Mapping[str, Any]) -> dict[str, Any]:
        return self._written("upsert", model, properties)

    def remove(self, model: str, properties: Mapping[str, Any]) -> bool:
        removed: bool = self._ask("remove", model, properties)["removed"]
        return removed

    def find(
        self,
        model: str,
        properties: Mapping[str, Any],
        *,
        index: str | None = None,
        reverse: bool = False,
        limit: int | None = None,
    ) -> Iterator[dict[str, Any]]:
        """Page by page."""
        more: dict[str, Any] = {"index": index, "reverse": reverse}
        left = limit
        while left is None or left > 0:
            size = PAGE_ITEMS_MAX if left is None else min(left, PAGE_ITEMS_MAX)
            answer = self._ask("find", model, properties, limit=size, **more)
            for item in answer["items"]:
                yield self._item(model, item)
            if not answer["more"]:
                return
            left = None if left is None else left - len(answer["items"])
            more["after"] = answer["items"][-1]

    def backup(self, path: str | Path) -> None:
        """As Database has it. The agent writes beside its database, where it surely may; from there it is brought."""
        written_whole(Path(path), self._bring)

    def _bring(self, to: Path) -> None:
        with self._copied() as made:
            try:
                os.link(made, to)
            except OSError:  # another file system
                shutil.copyfile(made, to)

    def export_items(self) -> Iterator[dict[str, Any]]:
        """As Database has it: of a copy, which is as the database was at one moment."""
        with self._copied() as made, contextlib.closing(open_file(made)) as connection:
            copy = Database(
                connection, self.schema, self.context, monotonic_ms=monotonic_ms, wall_ms=wall_ms, random=SystemRandom()
            )
            yield from copy.export_items()

    @contextlib.contextmanager
    def _copied(self) -> Iterator[str]:
        """A copy beside the database, for so long."""
        made = f"{self.file}-copy-{os.getpid()}"
        self.client.wait_for_ever()  # a large one takes as long as it takes
        try:
            self.client.ask("backup", file=made)
            yield made
        finally:
            for each in (made, f"{made}-lock"):
                with contextlib.suppress(OSError):
                    os.unlink(each)

    def compact(self) -> tuple[int, int]:
        """As Database has it."""
        self.client.wait_for_ever()
        answer = self.client.ask("compact")
        return answer["bytes_before"], answer["bytes"]

    def import_lines(self, file: IO[bytes], *, partial: bool) -> Imported:
        """As agent.import_lines has it. The agent reads a copy beside its database, where it surely may."""
        made = f"{self.file}-import-{os.getpid()}"
        try:
            with open(made, "xb", opener=_private) as copy:
                owner = os.stat(self.file)
                if os.geteuid() != owner.st_uid:
                    os.fchown(copy.fileno(), owner.st_uid, owner.st_gid)
                shutil.copyfileobj(file, copy)
            self.client.wait_for_ever()  # many lines take as long as they take
            return msgspec.convert(self.client.ask("import", file=made, partial=partial)["imported"], Imported)
        finally:
            with contextlib.suppress(OSError):
                os.unlink(made)

    def _ask(self, do: str, model: str, properties: Mapping[str, Any], **more: Any) -> dict[str, Any]:
        return self.client.ask(do, model=model, item=to_json(self.model(model), properties), **more)

    def _written(self, do: str, model: str, properties: Mapping[str, Any]) -> dict[str, Any]:
        return self._item(model, self._ask(do, model, properties)["item"])

    def model(self, name: str) -> Model:
        return self.schema.models[name]

    def taken(self, name: str, item: Mapping[str, Any] | None) -> dict[str, Any] | None:
        """What the agent says of an item, in the types of the schema."""
        return None if item is None else self._item(name, item)

    def _item(self, name: str, item: Mapping[str, Any]) -> dict[str, Any]:
        fields = self.model(name).fields
        return {key: from_json(fields.get(key), value) for key, value in item.items()}


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def remote(path: str) -> RemoteDatabase:
    """The database of the agent that serves this socket. Raises NoAgent, and InputError when its schema is none."""
    client = Client(path)
    try:
        who = client.ask("hello")["hello"]
        return RemoteDatabase(
            client, Schema.load(who["schema"]), Context(who["device"], who["account"]), who["database"]
        )
    except BaseException:
        client.close()
        raise
