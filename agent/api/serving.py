"""Does what a request asks, with the database: blocking, in whatever thread. No socket.

A write is answered when it is durable: the database returns no sooner. Called by agent.api.server.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import msgspec

from agent.api import letters
from agent.api import requests as api
from agent.changes import Change
from agent.database import Database
from agent.file_errors import StoreError
from agent.protocol.commands.failure import CommandError
from agent.protocol.commands.typed import from_object, parsed_json, to_json
from agent.protocol.errors import ModelError
from agent.protocol.onetable.dates import iso_text
from agent.protocol.schema import Model
from agent.protocol.version import __version__


class Serving:
    """`status` tells how the agent is; `place` names the schema's file and the database's."""

    def __init__(self, database: Database, status: Callable[[], dict[str, Any]], place: dict[str, str]) -> None:
        self.database = database
        self._status = status
        self._place = place

    def answer(self, request: api.AnyRequest) -> api.Answer:
        """Never raises for what a client can cause."""
        try:
            return self._answer(request)
        except ModelError as error:
            return refused(request.id, "model", error.code, str(error))
        except CommandError as error:
            return refused(request.id, "request", "value", error.message, error.hint)
        except StoreError as error:
            return refused(request.id, "database", "file", error.message, error.hint)

    def _answer(self, request: api.AnyRequest) -> api.Answer:
        database = self.database
        if isinstance(request, api.Get):
            model, given = self._given(request, writing=False)
            item = database.get(model.name, given)
            return api.Answer(ok=True, id=request.id, item=None if item is None else to_json(model, item))
        if isinstance(request, api.Find):
            return self._find(request)
        if isinstance(request, api.Create | api.Update | api.Upsert):
            model, given = self._given(request, writing=True)
            if isinstance(request, api.Create):
                item = database.create(model.name, given)
            elif isinstance(request, api.Update):
                item = database.update(model.name, given)
            else:
                item = database.upsert(model.name, given)
            return api.Answer(ok=True, id=request.id, item=to_json(model, item))
        if isinstance(request, api.Remove):
            model, given = self._given(request, writing=False)
            return api.Answer(ok=True, id=request.id, removed=database.remove(model.name, given))
        if isinstance(request, api.Rejected):
            return api.Answer(ok=True, id=request.id, letters=self._letters())
        if isinstance(request, api.Settle):
            settle = database.retry if request.how == "retry" else database.discard
            return api.Answer(ok=True, id=request.id, done=settle(request.n))
        if isinstance(request, api.Backup | api.Compact | api.Import):
            return self._whole(request)
        if isinstance(request, api.Status):
            return api.Answer(ok=True, id=request.id, status=self._status())
        if isinstance(request, api.Watch):
            for name in request.models:
                database.model(name)
            return api.Answer(ok=True, id=request.id)
        context = database.context
        who = {"device": context.device_id, "account": context.account_id}
        return api.Answer(
            ok=True, id=request.id, hello={"version": __version__, "api": api.VERSION, **who, **self._place}
        )

    def _given(
        self, request: api.Get | api.Create | api.Update | api.Upsert | api.Remove, *, writing: bool
    ) -> tuple[Model, dict[str, Any]]:
        model = self.database.model(request.model)
        return model, self._properties(model, request.item, writing=writing)

    def _properties(self, model: Model, item: msgspec.Raw, *, writing: bool) -> dict[str, Any]:
        try:
            value = parsed_json(bytes(item).decode())
        except ValueError as error:
            raise CommandError(f"item: {error}") from None
        if not isinstance(value, dict):
            raise CommandError("item: expected an object with fields", f"of {model.name}")
        return from_object(model, value, self.database.context, writing=writing)

    def _find(self, request: api.Find) -> api.Answer:
        model = self.database.model(request.model)
        if request.index is not None and request.index not in model.indexes:
            raise CommandError(f"there is no index {request.index!r}")
        given = self._properties(model, request.item, writing=False)
        after = None if bytes(request.after) == b"null" else self._properties(model, request.after, writing=False)
        limit = max(1, min(request.limit, api.PAGE_ITEMS_MAX))
        found = self.database.find(
            model.name, given, index=request.index, reverse=request.reverse, after=after, limit=limit + 1
        )
        items: list[dict[str, Any]] = []
        size = 0
        for each in found:
            item = to_json(model, each)
            size += len(msgspec.json.encode(item))
            if len(items) == limit or (items and size > api.PAGE_BYTES_MAX):
                return api.Answer(ok=True, id=request.id, items=items, more=True)
            items.append(item)
        return api.Answer(ok=True, id=request.id, items=items, more=False)

    def _whole(self, request: api.Backup | api.Compact | api.Import) -> api.Answer:
        if isinstance(request, api.Compact):
            before, after = self.database.compact()
            return api.Answer(ok=True, id=request.id, bytes=after, bytes_before=before)
        if not os.path.isabs(request.file) or "\0" in request.file:
            raise CommandError(f"file: {request.file!r} is no absolute path", "the agent's folder is not the caller's")
        if isinstance(request, api.Import):
            return api.Answer(ok=True, id=request.id, imported=self._import(request))
        self.database.backup(request.file)
        return api.Answer(ok=True, id=request.id, bytes=os.stat(request.file).st_size)

    def _import(self, request: api.Import) -> dict[str, Any]:
        from agent.import_lines import import_lines  # seldom needed

        try:
            with open(request.file, "rb") as file:
                done = import_lines(self.database, file, partial=request.partial)
        except OSError as error:
            raise CommandError(f"{request.file}: {(error.strerror or str(error)).lower()}") from None
        del done.refused[api.REFUSED_MAX :]
        found: dict[str, Any] = msgspec.to_builtins(done)
        return found

    def _letters(self) -> list[dict[str, Any]]:
        return [letters.values(self.database.schema, letter) for letter in self.database.dead_letters()]

    def event(self, change: Change, at_ms: int) -> dict[str, Any]:
        """A change as a watcher is told it."""
        model = self.database.schema.models.get(change.model)
        found: dict[str, Any] = {"at": iso_text(at_ms), "event": change.event, "origin": change.origin}
        found |= {"model": change.model, "key": list(change.key)}
        for name, image in (("item", change.image), ("before", change.before)):
            found[name] = None if image is None or model is None else to_json(model, model.read(change.key, image))
        if change.code:
            found["code"] = change.code
        return found


def refused(of: api.Id, kind: Any, code: str, message: str, hint: str = "") -> api.Answer:
    return api.Answer(ok=False, id=of, error=api.Error(kind, code, message, hint))
