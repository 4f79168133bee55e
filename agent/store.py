"""What the device keeps in its one SQLite file, and the transactions that the protocol's promises rest on.

agent.tables has the tables, agent.records their rows as values, agent.index_table where items stand in indexes.
Opens no file (a connection is passed in), reads no clock, draws no random number. Called by Database and Session, which
wrap what belongs together in `with store.transaction()`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final

from agent import tables
from agent.file_errors import DAMAGED_HINT
from agent.file_errors import StoreError as StoreError  # raised here: callers find it here
from agent.index_table import IndexTable
from agent.protocol.messages import Key, Kind
from agent.records import ACKED as ACKED  # so are these
from agent.records import HELD as HELD
from agent.records import NOTHING, ROW, Identity
from agent.records import SENT as SENT
from agent.records import UNSENT as UNSENT
from agent.records import DeadLetter as DeadLetter
from agent.records import OutboxRow as OutboxRow
from agent.records import Visible as Visible
from agent.tables import APPLICATION_ID as APPLICATION_ID
from agent.tables import SCHEMA_VERSION as SCHEMA_VERSION
from agent.tables import prefix_end as prefix_end

_OUTBOX: Final = "n, u, epoch, pk, sk, kind, image, updated, id, state, seen"
# Base and overlay merged. With max(n), SQLite takes the other columns from the row that has it.
_PAGE: Final = """
WITH own AS (SELECT sk, kind, image, max(n) FROM outbox WHERE pk=? AND sk>=? AND sk<? AND sk<>? AND seen=0 GROUP BY sk)
SELECT sk, image FROM item WHERE pk=? AND sk>=? AND sk<? AND sk<>? AND sk NOT IN (SELECT sk FROM own)
UNION ALL SELECT sk, image FROM own WHERE kind<>'delete' ORDER BY sk LIMIT ?
"""
_BASE_PAGE: Final = "SELECT sk, image FROM item WHERE pk=? AND sk>=? AND sk<? AND sk<>? ORDER BY sk LIMIT ?"
_PAGE_OF_ALL: Final = """
WITH own AS (SELECT pk, sk, kind, image, max(n) FROM outbox WHERE (pk, sk)>(?, ?) AND pk<>'' AND seen=0 GROUP BY pk, sk)
SELECT pk, sk, image FROM item WHERE (pk, sk)>(?, ?) AND (pk, sk) NOT IN (SELECT pk, sk FROM own)
UNION ALL SELECT pk, sk, image FROM own WHERE kind<>'delete' ORDER BY pk, sk LIMIT ?
"""
_BASE_PAGE_OF_ALL: Final = "SELECT pk, sk, image FROM item WHERE (pk, sk)>(?, ?) ORDER BY pk, sk LIMIT ?"
_RECENT_MAX: Final = 4  # a device writes few items again and again: these are read from memory, not from the file
_RECENT_BYTES_MAX: Final = 4096
KEY_FACTOR: Final = 6  # bytes that a character of a key may take on the wire

_INCARNATION: Final = "incarnation"  # a note
_IDENTITY: Final = (
    "SELECT epoch, adopted, replaces, acked_u, acked_id, correction_ms, "
    f"EXISTS(SELECT 1 FROM dead_letter WHERE kind='{ROW}') FROM identity"
)  # one row
_COUNTS: Final = (
    f"SELECT count(*), count(CASE state WHEN {UNSENT} THEN 1 END), count(CASE state WHEN {SENT} THEN 1 END), "
    f"max(CASE epoch WHEN ? THEN u END), min(CASE state WHEN {HELD} THEN due_ms END), "
    "ifnull(max(CASE kind WHEN 'sweep' THEN n END), 0) FROM outbox"
)  # one row

# Statements of the path of every write, written out once: a text that is made anew is hashed anew at each call. Their
# blobs are bytearrays, and no value is None: of all else the sqlite3 module first asks whether somebody adapts it.
_VISIBLE_OWN: Final = (
    "SELECT kind, image, updated, n, state FROM outbox WHERE pk=? AND sk=? AND seen=0 ORDER BY n DESC LIMIT 1"
)
_BASE: Final = "SELECT image, updated FROM item WHERE pk=? AND sk=?"
_BASE_IN_MEMORY: Final = _BASE.replace("item", "mem_item")
_PUT_BASE: Final = (  # in place when it is there: the index stays as it is
    "INSERT INTO item VALUES(?, ?, ?, ?, NULL) "
    "ON CONFLICT(pk, sk) DO UPDATE SET image=excluded.image, updated=excluded.updated, rejected=NULL"
)
_PUT_REJECTED: Final = _PUT_BASE.replace("NULL", "?5")
_DELETE_BASE: Final = "DELETE FROM item WHERE pk=? AND sk=?"
_DELETE_IN_MEMORY: Final = _DELETE_BASE.replace("item", "mem_item")
_PUT_IN_MEMORY: Final = "INSERT OR REPLACE INTO mem_item VALUES(?, ?, ?, ?, ?)"
_INSERT: Final = "INSERT INTO outbox VALUES(NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, 0)"
_HOLD: Final = f"INSERT INTO outbox VALUES(NULL, 0, ?, ?, ?, ?, ?, ?, '', {HELD}, 0, ?)"
_TAKE: Final = f"SELECT {_OUTBOX} FROM outbox WHERE state={UNSENT} ORDER BY n LIMIT ?"
_MARK_SENT: Final = f"UPDATE outbox SET state={SENT}, id=? WHERE state={UNSENT} AND n<=?"
_RELEASE: Final = f"UPDATE outbox SET n=(SELECT max(n) FROM outbox)+1, u=?, state={UNSENT}, due_ms=0 WHERE n=?"
_MARK_ACKED: Final = f"UPDATE outbox SET state={ACKED} WHERE n=?"


class _Transaction:
    """BEGIN IMMEDIATE … COMMIT. On any exception everything is rolled back, what the store keeps in memory too."""

    __slots__ = ("_store",)

    def __init__(self, store: Store) -> None:
        self._store = store

    def __enter__(self) -> None:
        self._store.execute("BEGIN IMMEDIATE")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._undo()
            return
        try:
            self._store.execute("COMMIT")
        except BaseException:
            self._undo()
            raise

    def _undo(self) -> None:
        store = self._store
        try:
            if store.connection.in_transaction:
                store.connection.rollback()
            store.load()
        except BaseException:
            store.distrust()
            raise


class Store:
    """One device's file. Not thread-safe: Database serialises callers."""

    __slots__ = (
        "_is_in_memory", "_pages", "_recent", "_transaction", "connection", "cursors", "epoch_next_u", "execute",
        "has_aside", "held_due_ms", "identity", "in_flight", "incarnation", "indexes", "models", "outbox_rows",
        "send_id", "sweep_n", "unsent_rows",
    )  # fmt: skip

    identity: Identity
    cursors: dict[str, tuple[str, int]]
    in_flight: list[OutboxRow]

    def __init__(self, connection: sqlite3.Connection) -> None:
        """`connection` must be in autocommit mode (`isolation_level=None`). `initialise` must follow on a new file."""
        self.connection = connection
        self.execute = connection.cursor().execute
        self._transaction = _Transaction(self)
        self._recent: dict[Key, Visible] = {}  # items of the base that were put last; see _RECENT_MAX
        self.cursors = {}
        self.models: dict[str, str] = {}  # feed -> the fingerprint of its models that the cursor was reached with
        self.in_flight = []
        self.outbox_rows = self.unsent_rows = 0
        self.sweep_n = 0  # the row of the sweep; 0: there is none. It hides no item
        self.epoch_next_u = 1
        self.has_aside = False  # rows may be among the dead letters
        self.incarnation = ""  # of the table, as this device last heard of it (rule 19)
        self.held_due_ms: int | None = None  # when the first row is due that waits for its period
        self.indexes: tuple[IndexTable, ...] = ()
        self._is_in_memory: Callable[[str, str], bool] | None = None
        self._pages: tuple[str, ...] = (_BASE_PAGE, _PAGE, _BASE_PAGE_OF_ALL, _PAGE_OF_ALL)
        self.send_id = ""  # of the boot, while the session has nothing in flight and can send; the session sets it

    # ---------------------------------------------------------------- opening

    def version(self) -> int:
        """The format's; 0: the file is empty. Raises StoreError when it is something else than a database of ours."""
        return tables.version_of(self.execute)

    def is_new(self) -> bool:
        """Whether the file is empty. Raises StoreError when it is something else than a database of this agent."""
        return self.version() == 0

    def initialise(self, epoch: str) -> None:
        """Makes the tables of a new file, with its first epoch and its first sweep, in one transaction."""

        def first_rows() -> None:
            self.execute("INSERT INTO identity VALUES(1, ?, 0, NULL, 0, NULL, NULL)", (epoch,))
            self.execute(_INSERT, (1, epoch, "", "", "sweep", None, 0, "", UNSENT))

        tables.make(self.connection, self.execute, first_rows)

    def upgrade(self) -> None:
        """A file of an older version becomes one of this version."""
        tables.upgrade(self.connection, self.execute)

    def keep_in_memory(self, is_in_memory: Callable[[str, str], bool]) -> None:
        """From now on the items whose keys (pk, sk) `is_in_memory` names are kept beside the file, and are none yet."""
        tables.make_in_memory(self.connection)
        self._is_in_memory = is_in_memory
        self._pages = tuple(sql.replace(" FROM item ", " FROM every_item ") for sql in self._pages)

    def load(self) -> None:
        """Reads what is kept in memory: identity, cursors, rows in flight, counts."""
        row = self.execute(_IDENTITY).fetchone()
        if row is None or not isinstance(row[0], str) or not isinstance(row[3], int):
            raise StoreError("damaged: no identity", DAMAGED_HINT)
        self.identity = Identity(row[0], bool(row[1]), *row[2:6])
        self.has_aside = bool(row[6])
        counts = self.execute(_COUNTS, (row[0],)).fetchone()
        self.outbox_rows, self.unsent_rows, sent_rows, highest, self.held_due_ms, self.sweep_n = counts
        cursors = self.execute("SELECT feed, epoch, seq, models FROM cursor ORDER BY feed").fetchall()
        self.cursors = {feed: (epoch, seq) for feed, epoch, seq, _ in cursors}
        self.models = {feed: models for feed, _, _, models in cursors}
        self.in_flight = []
        if sent_rows:
            sql = f"SELECT {_OUTBOX} FROM outbox WHERE state={SENT} AND epoch=? ORDER BY n"
            self.in_flight = [OutboxRow(*found) for found in self.execute(sql, (self.identity.epoch,))]
        self.epoch_next_u = max(highest or 0, self.identity.acked_u) + 1
        self._recent = {}
        incarnation = self.note(_INCARNATION)
        self.incarnation = "" if incarnation is None else incarnation.decode(errors="replace")
        for index in self.indexes:
            index.load()

    def distrust(self) -> None:
        """The disk cannot be read now: what is kept in memory may be of a transaction that was undone, and must answer
        nothing. The first call from now on that can read the file does so, and fails: it may have begun with what was
        remembered."""
        execute = self.execute

        def load_first(sql: str, values: Any = (), /) -> sqlite3.Cursor:
            self.execute = execute
            try:
                self.load()
            except BaseException:
                self.execute = load_first
                raise
            raise StoreError("the disk had failed; what it holds was read again", "nothing was changed; call again")

        self.execute = load_first
        self._recent = {}  # so that no read is answered without a statement

    def transaction(self) -> _Transaction:
        return self._transaction

    def synchronous(self) -> int:
        """SQLite's `synchronous` setting: 2 is FULL."""
        return int(self.execute("PRAGMA synchronous").fetchone()[0])

    # ---------------------------------------------------------------- reading

    def visible(self, pk: str, sk: str) -> Visible:
        """What an application reads of one item."""
        rows = self.outbox_rows
        if rows and (rows > 1 or not self.sweep_n):
            row = self.execute(_VISIBLE_OWN, (pk, sk)).fetchone()
            if row is not None:
                return Visible(None if row[0] == "delete" else row[1], row[2], row[3], row[4])
        key = (pk, sk)
        recent = self._recent.get(key)
        if recent is not None:
            return recent
        row = self.execute(_BASE if self._is_in_memory is None else self._base_of(pk, sk), key).fetchone()
        return NOTHING if row is None else Visible(row[0], row[1])

    def _remember(self, key: Key, visible: Visible) -> None:
        """The oldest goes: at each put an item becomes the newest."""
        recent = self._recent
        if recent.pop(key, None) is None and len(recent) >= _RECENT_MAX:
            del recent[next(iter(recent))]
        if visible.image is not None and len(visible.image) <= _RECENT_BYTES_MAX:
            recent[key] = visible

    def _base_of(self, pk: str, sk: str) -> str:
        """The statement that reads the base of a key, in a database that keeps some items in memory."""
        return _BASE_IN_MEMORY if self._in_memory(pk, sk) else _BASE

    def _in_memory(self, pk: str, sk: str) -> bool:
        return self._is_in_memory is not None and self._is_in_memory(pk, sk)

    def page(
        self, pk: str, prefix: str, after: str, limit: int, *, reverse: bool = False, base: bool = False
    ) -> list[tuple[str, bytes]]:
        """(sk, image) of what an application reads: the live items of one hash key whose sort key begins with `prefix`
        and comes after `after` ("": from the start), in order, at most `limit`. `reverse`: in falling order, below
        `after`. `base`: without own operations on top."""
        end = prefix_end(prefix)
        if not reverse:
            place = (pk, max(prefix, after), end, after)  # one lower bound: SQLite uses no second one
        else:
            place = (pk, prefix, after if after and (isinstance(end, bytes) or after < end) else end, after)
        own = self.outbox_rows and not base
        sql = self._pages[1 if own else 0]
        if reverse:
            sql = sql.replace("ORDER BY sk", "ORDER BY sk DESC")
        return self.execute(sql, (*place, *place, limit) if own else (*place, limit)).fetchall()

    def page_of_all(self, pk: str, sk: str, limit: int) -> list[tuple[str, str, bytes]]:
        """(pk, sk, image) of what an application reads, of all items after a key, in order, at most `limit`."""
        if not self.outbox_rows:
            rows = self.execute(self._pages[2], (pk, sk, limit)).fetchall()
        else:
            rows = self.execute(self._pages[3], (pk, sk, pk, sk, limit)).fetchall()
        if not all(isinstance(pk, str) and isinstance(sk, str) for pk, sk, _ in rows):
            raise StoreError("damaged: an item without a key", DAMAGED_HINT)
        return rows

    def base_keys(self, pk: str, prefix: str) -> list[str]:
        table = "item" if self._is_in_memory is None else "every_item"
        rows = self.execute(
            f"SELECT sk FROM {table} WHERE pk=? AND sk>=? AND sk<? ORDER BY sk", (pk, prefix, prefix_end(prefix))
        )
        return [sk for (sk,) in rows]

    def base(self, pk: str, sk: str) -> tuple[bytes, int] | None:
        row: tuple[bytes, int] | None = self.execute(_BASE, (pk, sk)).fetchone()
        return row

    def outbox(self, where: str = "1", values: tuple[object, ...] = ()) -> list[OutboxRow]:
        rows = self.execute(f"SELECT {_OUTBOX} FROM outbox WHERE {where} ORDER BY n", values)
        return [OutboxRow(*row) for row in rows]

    def dead_letters(self) -> list[DeadLetter]:
        rows = self.execute("SELECT n, at_ms, pk, sk, kind, image, updated, code FROM dead_letter ORDER BY n")
        return [DeadLetter(*row) for row in rows]

    # ---------------------------------------------------------------- local writes

    def put_base(self, pk: str, sk: str, image: bytes, updated: int, rejected: str | None = None) -> None:
        if rejected is None and (self._is_in_memory is None or not self._in_memory(pk, sk)):
            self.execute(_PUT_BASE, (pk, sk, bytearray(image), updated))
        else:
            sql = _PUT_IN_MEMORY if self._in_memory(pk, sk) else _PUT_REJECTED
            self.execute(sql, (pk, sk, image, updated, rejected))
        self._remember((pk, sk), Visible(image, updated))

    def delete_base(self, pk: str, sk: str) -> None:
        sql = _DELETE_BASE if self._is_in_memory is None or not self._in_memory(pk, sk) else _DELETE_IN_MEMORY
        self.execute(sql, (pk, sk))
        self._recent.pop((pk, sk), None)

    def add_operation(self, pk: str, sk: str, kind: Kind, image: bytes | None, updated: int) -> int:
        """One row more. Returns its u. A single statement: durable by itself. When the session is ready to send it at
        once, it is marked as sent in the same statement, and is the batch in flight."""
        u = self.epoch_next_u
        epoch = self.identity.epoch
        op_id = self.send_id
        blob = None if image is None else bytearray(image)
        if op_id and not self.unsent_rows and not self.in_flight:
            n = self.execute(_INSERT, (u, epoch, pk, sk, kind, blob, updated, op_id, SENT)).lastrowid or 0
            self.in_flight = [OutboxRow(n, u, epoch, pk, sk, kind, image, updated, op_id, SENT, 0)]
        else:
            self.execute(_INSERT, (u, epoch, pk, sk, kind, blob, updated, "", UNSENT))
            self.unsent_rows += 1
        self.epoch_next_u = u + 1
        self.outbox_rows += 1
        return u

    def hold_operation(self, pk: str, sk: str, kind: Kind, image: bytes | None, updated: int, due_ms: int) -> None:
        """One row that is not to be sent before `due_ms` (since 1970, by the corrected clock): it gets its number when
        it is released. A single statement."""
        self.execute(_HOLD, (self.identity.epoch, pk, sk, kind, image, updated, due_ms))
        self.outbox_rows += 1
        self.held_due_ms = due_ms if self.held_due_ms is None else min(due_ms, self.held_due_ms)

    def release(self, now_ms: int, period_ms_max: int) -> int:
        """Held rows that are due take their places at the end of the outbox, in the order of their first writes, in one
        transaction. So do those that are due later than any period from now: the clock went back. Returns how many."""
        latest = now_ms + period_ms_max
        sql = f"SELECT n FROM outbox WHERE state={HELD} AND (due_ms<=? OR due_ms>?) ORDER BY n"
        due = [n for (n,) in self.execute(sql, (now_ms, latest)).fetchall()]
        with self._transaction:
            for u, n in enumerate(due, self.epoch_next_u):
                self.execute(_RELEASE, (u, n))
            row = self.execute(f"SELECT min(due_ms) FROM outbox WHERE state={HELD}").fetchone()
        self.held_due_ms = row[0]
        self.epoch_next_u += len(due)
        self.unsent_rows += len(due)
        return len(due)

    def squash(self, n: int, kind: Kind, image: bytes | None, updated: int) -> None:
        """A newer write of the same item goes into its row, which was never sent. What the relay will see stays one
        operation: delete then write is a create, anything then delete a delete, create then update stays a create."""
        self.execute(
            "UPDATE outbox SET image=?, updated=?, kind=CASE WHEN ?='delete' THEN 'delete' "
            "WHEN kind='delete' THEN 'create' ELSE kind END WHERE n=?",
            (image, updated, kind, n),
        )

    # ---------------------------------------------------------------- sending

    def take_batch(self, ops_max: int, bytes_max: int, op_id: str) -> list[OutboxRow]:
        """Marks the next rows as sent, durably, and returns them. A sweep travels alone; one row always fits."""
        rows: list[OutboxRow] = []
        size = 0
        for row in self.execute(_TAKE, (ops_max,)).fetchall():
            size += 160 + KEY_FACTOR * (len(row[3]) + len(row[4])) + (len(row[6]) if row[6] else 0)
            if rows and (size > bytes_max or row[5] == "sweep" or rows[0].kind == "sweep"):
                break
            rows.append(OutboxRow._make((*row[:8], op_id, SENT, row[10])))
        if rows:
            self.execute(_MARK_SENT, (op_id, rows[-1].n))
            self.unsent_rows -= len(rows)
            self.in_flight = rows
        return rows

    # ---------------------------------------------------------------- acknowledgements and rows

    def drop_operation(self, n: int) -> None:
        """Of a row that was sent: only its own acknowledgement, or its image in the feed, ends it."""
        self.execute("DELETE FROM outbox WHERE n=?", (n,))
        self.outbox_rows -= 1
        if n == self.sweep_n:
            self.sweep_n = 0

    def mark_acked(self, n: int) -> None:
        self.execute(_MARK_ACKED, (n,))

    def end_life(self, n: int) -> None:
        """Of an acknowledged row whose item is over: until the feed shows it, there is no item."""
        self.execute("UPDATE outbox SET kind='delete', image=NULL WHERE n=?", (n,))

    def mark_seen(self, n: int) -> None:
        self.execute("UPDATE outbox SET seen=1 WHERE n=?", (n,))
        self.in_flight = [row._replace(seen=1) if row.n == n else row for row in self.in_flight]

    def set_acked(self, u: int, op_id: str | None) -> None:
        """HEAD as the relay committed it, and adopted: only an epoch that was adopted has anything acknowledged. What
        it replaced is over: a HEAD that has that epoch again was restored, and must not be taken as if it were new."""
        self.execute("UPDATE identity SET acked_u=?, acked_id=?, adopted=1, replaces=NULL", (u, op_id))
        i = self.identity
        self.identity = Identity(i.epoch, True, None, u, op_id, i.correction_ms)

    def set_replaces(self, replaces: str) -> None:
        self.execute("UPDATE identity SET replaces=?", (replaces,))
        self.identity = self.identity._replace(replaces=replaces)

    def set_correction(self, correction_ms: int) -> None:
        self.execute("UPDATE identity SET correction_ms=?", (correction_ms,))
        self.identity = self.identity._replace(correction_ms=correction_ms)

    def bury(self, at_ms: int, pk: str, sk: str, kind: str, image: bytes | None, updated: int, code: str) -> None:
        """Into the dead letters."""
        self.execute(
            "INSERT INTO dead_letter VALUES(NULL, ?, ?, ?, ?, ?, ?, ?)", (at_ms, pk, sk, kind, image, updated, code)
        )

    def drop_dead_letter(self, n: int) -> bool:
        """Whether there was one of that number."""
        return self.execute("DELETE FROM dead_letter WHERE n=?", (n,)).rowcount > 0

    def set_cursor(self, feed: str, epoch: str, seq: int, models: str) -> None:
        """`models`: the fingerprint of the feed's models that this cursor was reached with."""
        known = self.cursors.get(feed)
        if known is not None and known[0] == epoch:
            epoch = known[0]  # one text, not one for each message
            self.execute("UPDATE cursor SET seq=? WHERE feed=?", (seq, feed))
        else:
            self.execute("INSERT OR REPLACE INTO cursor VALUES(?, ?, ?, ?)", (feed, epoch, seq, models))
            self.models[feed] = models
        self.cursors[feed] = (epoch, seq)

    def set_models(self, feed: str, models: str) -> None:
        self.execute("UPDATE cursor SET models=? WHERE feed=?", (models, feed))
        self.models[feed] = models

    def drop_cursor(self, feed: str) -> None:
        self.execute("DELETE FROM cursor WHERE feed=?", (feed,))
        self.cursors.pop(feed, None)
        self.models.pop(feed, None)

    def drop_cursors_of_other_models(self, fingerprints: dict[str, str]) -> list[str]:
        """After a change of the schema: a feed whose models are others is fetched anew. Returns the feeds dropped."""
        changed = [feed for feed, models in self.models.items() if fingerprints.get(feed) != models.partition("/")[0]]
        for feed in changed:
            self.drop_cursor(feed)
        return changed

    # ---------------------------------------------------------------- what is remembered of the file

    def note(self, name: str) -> bytes | None:
        row = self.execute("SELECT value FROM note WHERE name=?", (name,)).fetchone()  # one row
        return None if row is None else row[0]

    def set_note(self, name: str, value: bytes) -> None:
        self.execute("INSERT OR REPLACE INTO note VALUES(?, ?)", (name, value))

    # ---------------------------------------------------------------- identity

    def set_incarnation(self, incarnation: str) -> None:
        self.set_note(_INCARNATION, incarnation.encode())
        self.incarnation = incarnation

    def new_epoch(
        self, epoch: str, replaces: str | None, keep: list[OutboxRow], pending: list[tuple[Kind, OutboxRow]]
    ) -> None:
        """Inside a transaction: a new epoch whose outbox is `keep` (acknowledged rows of older epochs, untouched), then
        `pending` with u from 1, unsent."""
        kept = {row.n for row in keep}
        self.execute(f"DELETE FROM outbox WHERE state<>{ACKED}")
        for row in self.outbox():
            if row.n not in kept:
                self.execute("DELETE FROM outbox WHERE n=?", (row.n,))
        self.sweep_n = 0
        for u, (kind, row) in enumerate(pending, 1):
            values = (u, epoch, row.pk, row.sk, kind, row.image, row.updated, "", UNSENT)
            n = self.execute(_INSERT, values).lastrowid
            if kind == "sweep":
                self.sweep_n = n or 0
        self.execute("UPDATE identity SET epoch=?, adopted=0, replaces=?, acked_u=0, acked_id=NULL", (epoch, replaces))
        self.identity = Identity(epoch, False, replaces, 0, None, self.identity.correction_ms)
        self.in_flight = []
        self.outbox_rows = len(keep) + len(pending)
        self.unsent_rows = len(pending)
        self.epoch_next_u = len(pending) + 1
        self.held_due_ms = None

    def rename_epoch(self, epoch: str) -> None:
        """Inside a transaction: an epoch that was never adopted is minted anew; nothing of it was ever sent."""
        self.execute("UPDATE outbox SET epoch=? WHERE epoch=?", (epoch, self.identity.epoch))
        self.execute("UPDATE identity SET epoch=?", (epoch,))
        self.identity = self.identity._replace(epoch=epoch)
