"""What is done to the file as a whole: figures, a check, a copy, and giving back what it does not use.

Each holds the database's lock for as long as it takes: applications and the session wait; a copy lets go of it all the
time. None changes an item. Called by Database, whose methods they are.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from agent import search
from agent.file_errors import DAMAGED_HINT, StoreError, stored_image
from agent.protocol.errors import ModelError
from agent.protocol.messages import Image, Key
from agent.protocol.schema import Model
from agent.records import ACKED, HELD

if TYPE_CHECKING:
    from agent.database import Database

NO_MODEL = "(no model)"
_STEP_PAGES: Final = 64  # copied at a time
_BETWEEN_S: Final = 0.001  # for others to have the database, between two steps


@dataclass(frozen=True, slots=True)
class Statistics:
    """`items`: that applications can read; those of no model of the schema are counted as NO_MODEL. `outbox_rows`:
    changes that are not settled, `in_flight` of them sent. `free_bytes`: of the file's, what `compact` gives back."""

    items: int
    items_by_model: dict[str, int]
    outbox_rows: int
    outbox_bytes: int
    in_flight: int
    dead_letters: int
    file_bytes: int
    free_bytes: int
    cursors: dict[str, tuple[str, int]]
    epoch: str
    adopted: bool


def statistics(db: Database) -> Statistics:
    with db.lock:
        by_model: Counter[str] = Counter()
        for pk, sk, data in search.rows(db):
            place = db.schema.locate((pk, sk))
            model = place.model if place is not None else db.by_type(stored_image(data))
            if model is None or model.ttl_attribute is None or not db.is_over(model, stored_image(data)):
                by_model[NO_MODEL if model is None else model.name] += 1
        store = db.store
        outbox_bytes = store.execute("SELECT coalesce(sum(length(image)), 0) FROM outbox").fetchone()[0]
        dead_letters = store.execute("SELECT count(*) FROM dead_letter").fetchone()[0]
        page_bytes, pages, free = _pages(db)
        return Statistics(
            items=by_model.total(),
            items_by_model=dict(sorted(by_model.items())),
            outbox_rows=store.outbox_rows,
            outbox_bytes=outbox_bytes,
            in_flight=len(store.in_flight),
            dead_letters=dead_letters,
            file_bytes=page_bytes * pages,
            free_bytes=page_bytes * free,
            cursors=dict(store.cursors),
            epoch=store.identity.epoch,
            adopted=store.identity.adopted,
        )


def _pages(db: Database) -> tuple[int, int, int]:
    """Bytes of a page; pages of the file; those of them that are not used."""
    run = db.store.execute
    names = ("page_size", "page_count", "freelist_count")
    size, count, free = (int(run(f"PRAGMA {name}").fetchone()[0]) for name in names)
    return size, count, free


# ---------------------------------------------------------------- check


def check(db: Database) -> list[str]:
    """See Database.check."""
    problems: list[str] = []
    with db.lock:
        for part in (_check_pages, _check_images, _check_outbox, _check_indexes):
            try:
                problems.extend(part(db))
            except StoreError as error:  # so damaged that this part cannot be read to the end
                problems.append(f"file: {error.message}")
    return list(dict.fromkeys(problems))


def _check_pages(db: Database) -> list[str]:
    found = [row[0] for row in db.store.execute("PRAGMA integrity_check").fetchall()]
    return [f"file: {text}" for text in found if text != "ok"]


def _check_images(db: Database) -> Iterator[str]:
    for table in ("item", "outbox"):
        sql = f"SELECT pk, sk, image FROM {table} WHERE image IS NOT NULL ORDER BY pk, sk"
        for pk, sk, data in db.store.execute(sql).fetchall():
            try:
                image = stored_image(data)
            except StoreError as error:
                yield f"{table} {(pk, sk)}: {error.message}"
                continue
            problem = _misplaced(db, (pk, sk), image)
            if problem:
                yield f"{table} {(pk, sk)}: {problem}"


def _misplaced(db: Database, key: Key, image: Image) -> str:
    """What an item's key has to do with the item; "" when they agree, or the schema does not know such items."""
    place = db.schema.locate(key)
    model: Model | None = place.model if place is not None else db.by_type(image)
    if model is None:
        return ""
    bears = image.get(model.type_field)
    if bears != model.name:
        return f"the key is {model.name}'s, the item says {bears!r}" if bears in db.schema.models else ""
    try:
        model.check_key(key, image)
    except ModelError as error:
        return str(error)
    return ""


def _check_outbox(db: Database) -> Iterator[str]:
    identity = db.store.identity
    rows = db.store.outbox()
    numbers = [row.u for row in rows if row.epoch == identity.epoch and row.state not in (ACKED, HELD)]
    wanted = list(range(identity.acked_u + 1, db.store.epoch_next_u))
    if numbers != wanted:
        yield f"outbox: numbers {_runs(numbers)} where {_runs(wanted)} should be"
    for row in rows:
        if row.epoch != identity.epoch and row.state != ACKED:
            yield f"outbox: operation {row.u} of an epoch that is over waits to be sent"


def _runs(numbers: list[int]) -> str:
    """`3-7 9`."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][1] + 1 == number:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return " ".join(f"{first}-{last}" if last > first else str(first) for first, last in runs) or "none"


def _check_indexes(db: Database) -> Iterator[str]:
    indexing = db.indexing
    if not indexing.plans:
        return
    wanted = {
        (entry, key)
        for model, key, image in search.stored(db)
        if (plan := indexing.plans.get(model.name)) is not None
        for entry in plan.entries(key, image)
    }
    there = {row for table in indexing.tables for row in table.entries()}
    for entry, key in sorted(wanted - there, key=repr):
        yield f"index {entry[0]}: {key} is missing"
    for entry, key in sorted(there - wanted, key=repr):
        yield f"index {entry[0]}: {key} does not belong there"


# ---------------------------------------------------------------- copies


def backup(db: Database, path: str | Path) -> None:
    """See Database.backup."""
    written_whole(Path(path), lambda beside: _copy(db, beside))


def written_whole(place: Path, write: Callable[[Path], object]) -> None:
    """`write` makes the file beside the place; it is synced, and named at the end: a file of that name is whole. Raises
    StoreError; what `write` raises besides errors of disk and database comes out as it is."""
    beside = place.with_name(f"{place.name}.partial")
    if place.exists() or place.is_symlink():
        raise StoreError(f"{place}: exists already", "name another file: nothing is written over")
    try:
        beside.unlink(missing_ok=True)  # of a copy that was interrupted
        write(beside)
        _sync(beside)
        os.link(beside, place)  # never over another file, also one that came meanwhile
        beside.unlink()
        _sync(place.parent)
    except BaseException as error:
        beside.unlink(missing_ok=True)
        if not isinstance(error, (sqlite3.Error, StoreError, OSError)):
            raise
        reason, hint = str(error), "name a file on a disk with room"
        if isinstance(error, StoreError):
            reason, hint = error.message, error.hint or hint
        raise StoreError(f"{place}: cannot be written: {reason}", hint) from error


def _copy(db: Database, to: Path) -> None:
    """Step by step. What is written meanwhile is in the copy, since it is written through the same connection: the copy
    is the database as it was at the last step."""
    with closing(sqlite3.connect(to, isolation_level=None)) as copy:
        copy.execute("PRAGMA journal_mode=OFF")  # what is not finished is thrown away
        copy.execute("PRAGMA synchronous=OFF")  # until it is synced as a whole
        with db.lock:
            _refuse_open_transaction(db, "backup")
            others = threading.Condition(db.lock)
            db.store.connection.backup(
                copy, pages=_STEP_PAGES, progress=lambda *_: _let_in(others), sleep=_BETWEEN_S
            )  # fmt: skip
        try:
            found = [row[0] for row in copy.execute("PRAGMA quick_check").fetchall()]
        except sqlite3.DatabaseError as error:  # so damaged that the check could not go on
            found = [str(error)]
    if found != ["ok"]:
        raise StoreError(f"the database is damaged: {found[0]}", DAMAGED_HINT)


def _let_in(others: threading.Condition) -> None:
    """Lets go of the database for a moment."""
    others.wait(_BETWEEN_S)


def compact(db: Database) -> tuple[int, int]:
    """See Database.compact."""
    with db.lock:
        _refuse_open_transaction(db, "compact")
        size, before, _ = _pages(db)
        db.store.execute("VACUUM")
        db.store.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        return size * before, size * _pages(db)[1]


def _refuse_open_transaction(db: Database, what: str) -> None:
    if db.store.connection.in_transaction:
        raise ModelError("transaction", f"no {what} within a transaction")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
