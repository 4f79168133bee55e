"""A process that writes to a real file and says so: `durable_writer.py FILE MODE`. test_durability starts and kills it.

Each line on stdout names a write that has returned. MODE: `until-killed`, or `until-full BYTES` (no file grows more).
"""

from __future__ import annotations

import resource
import sys
from pathlib import Path

from agent.database import Database
from agent.files import open_file
from agent.protocol.schema import Context, Schema
from agent.store import Store, StoreError
from fleet.rng import rng

SCHEMA = Path(__file__).resolve().parents[2] / "scenarios" / "schemas" / "fleet.json5"


def opened(file: str) -> Database:
    """The database as the daemon opens it. Its clock stands: the test needs none."""
    return Database(
        open_file(file),
        Schema.load(SCHEMA),
        Context("home-1", "main"),
        monotonic_ms=lambda: 0,
        wall_ms=lambda: 1_700_000_000_000,
        random=rng(1, "home-1", "agent"),
    )


def say(*words: object) -> None:
    print(*words, flush=True)


def write_on(database: Database, first: int) -> None:
    """For ever: new items, changed ones, batches taken, acknowledgements."""
    store = database.store
    number = first
    while True:
        database.create("Fault", {"id": f"{number:08}", "rev": number, "text": "x" * (number % 700)})
        database.upsert("Diagnostic", {"name": f"{number % 7}", "rev": number})
        say("wrote", number)
        if number % 5 == 0:
            if not store.in_flight:
                store.take_batch(98, 100_000, "boot")
            with store.transaction():
                last = store.in_flight[-1]
                for row in store.in_flight:
                    store.drop_operation(row.n)
                    if row.image is not None:
                        store.put_base(row.pk, row.sk, row.image, row.updated)
                store.set_acked(last.u, last.id)
            store.in_flight = []
            say("acked", last.u)
        number += 1


def memory(store: Store) -> list[object]:
    return [*store.identity, sorted(store.cursors), store.in_flight, store.outbox_rows, store.unsent_rows]


def main() -> None:
    file, mode = sys.argv[1:3]
    database = opened(file)
    first = 1 + max((item["rev"] for item in database.find("Fault")), default=0)
    if mode == "until-killed":
        write_on(database, first)
        return
    limit = int(sys.argv[3])
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        write_on(database, first)
    except StoreError as error:
        say("refused", error)
    fresh = Store(database.store.connection)
    fresh.load()
    say("same" if memory(database.store) == memory(fresh) else "different")


if __name__ == "__main__":
    main()
