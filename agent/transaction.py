"""A transaction of an application: several writes, of any items and models, that are durable together or not at all.

Holds the database's lock while it is open: other threads, and the session, wait. Called by Database.transaction.
"""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING

from agent.changes import Change
from agent.file_errors import StoreError
from agent.protocol.errors import ModelError

if TYPE_CHECKING:
    from agent.database import Database


class Block:
    """`changes`: for triggers, after the commit; `news`: something to send, or that will fall due; `broken`: a write
    failed in the middle, so that nothing may be committed."""

    __slots__ = ("_db", "_send_id", "broken", "changes", "news")

    def __init__(self, db: Database) -> None:
        self._db = db
        self._send_id = ""
        self.changes: list[Change] = []
        self.news = self.broken = False

    def __enter__(self) -> None:
        db = self._db
        db.lock.acquire()
        try:
            if db.block is not None or db.store.connection.in_transaction:
                raise ModelError("transaction", "a transaction is open already: they do not nest")
            db.store.transaction().__enter__()
        except BaseException:
            db.lock.release()
            raise
        self.changes, self.news, self.broken = [], False, False
        # Its operations go out together, not the first one by itself.
        self._send_id, db.store.send_id = db.store.send_id, ""
        db.block = self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        db = self._db
        db.block = None
        db.store.send_id = self._send_id
        try:
            if kind is None and self.broken:
                failed = StoreError("a write within the transaction failed", "nothing was changed; do all of it again")
                db.store.transaction().__exit__(StoreError, failed, None)
                raise failed
            db.store.transaction().__exit__(kind, error, trace)
            if kind is None:
                try:
                    db.emit(self.changes)
                finally:
                    if self.news:
                        db.on_outbox()
        finally:
            db.lock.release()
