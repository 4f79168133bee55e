"""A device's disk: copies of it, what lies on it, and a disk that is full.

Full is what SQLite makes of it: the file may not grow, so that a statement which needs another page fails and its
transaction is undone; what fits on pages that are free still works. An application's write is refused then, and a
session that fails is given up and begun anew a little later, as the agent's driver does. Used by the simulated device,
and by the faults that fill its disk.
"""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Final

from agent.database import Database
from agent.events import BOOT
from agent.files import open_memory
from agent.protocol.messages import Key
from fleet.rng import rng

if TYPE_CHECKING:
    from fleet.world.device import SimDevice

AGAIN_US: Final = (1_000_000, 30_000_000)  # until the agent tries once more: the driver's waits, and systemd's
_PAGES_MAX: Final = 1_073_741_823  # of SQLite itself


def copy_of(disk: sqlite3.Connection | None) -> sqlite3.Connection | None:
    """As it is now; None: it has never been on."""
    if disk is None:
        return None
    made = open_memory()
    disk.backup(made)
    return made


def keys_in_file(disk: sqlite3.Connection) -> list[Key]:
    """Of all items that have stayed in the file, and of all that its index knows."""
    sql = "SELECT pk, sk FROM main.item UNION SELECT pk, sk FROM main.item_index ORDER BY pk, sk"
    has_tables = disk.execute("SELECT count(*) FROM main.sqlite_master WHERE name='item'").fetchone()[0]
    return disk.execute(sql).fetchall() if has_tables else []


def operations(disk: sqlite3.Connection | None) -> int:
    """Own operations that are not settled. None of a disk whose first boot found no room."""
    if disk is None or not disk.execute("SELECT count(*) FROM main.sqlite_master WHERE name='outbox'").fetchone()[0]:
        return 0
    rows: int = disk.execute("SELECT count(*) FROM outbox").fetchone()[0]
    return rows


def first_operation(disk: sqlite3.Connection | None) -> Key | None:
    """The item of the oldest operation that is not settled."""
    if not operations(disk):
        return None
    assert disk is not None
    row: Key | None = disk.execute("SELECT pk, sk FROM outbox WHERE kind<>'sweep' ORDER BY n LIMIT 1").fetchone()
    return row


# ---------------------------------------------------------------- full


def fill(device: SimDevice, until_us: int) -> None:
    """From now on there is no room, until `make_room` was called as often."""
    device.full += 1
    device.world.oracle.disk_full(device.device_id, until_us)
    if device.disk is not None:
        limit(device.disk)


def limit(disk: sqlite3.Connection) -> None:
    """It may be as large as it is, and no larger."""
    pages: int = disk.execute("PRAGMA main.page_count").fetchone()[0]
    disk.execute(f"PRAGMA main.max_page_count={max(pages, 1)}")


def make_room(device: SimDevice) -> None:
    device.full -= 1
    if not device.full and device.disk is not None:
        device.disk.execute(f"PRAGMA main.max_page_count={_PAGES_MAX}")


def is_full(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_FULL


def refused(device: SimDevice, error: sqlite3.Error) -> None:
    """An application's write found no room. Raises any other error again."""
    if not is_full(error):
        raise error
    device.world.probes["disk_full_write_refused"] += 1
    device.world.trace("refused", device.device_id, "disk full")


def failed(device: SimDevice, error: sqlite3.Error) -> None:
    """The session found no room: it is given up, its connection is closed, and another one begins a little later.
    Raises any other error again."""
    if not is_full(error):
        raise error
    world = device.world
    world.probes["disk_full_session_ended"] += 1
    world.trace("session-failed", device.device_id, "disk full")
    if device.session is not None and device.database is not None:
        world.broker.disconnect(device)
        device.end_session()
        world.clock.post_in(_wait_us(device), device.tie, _again, (device, device.database))


def not_opened(device: SimDevice, error: sqlite3.Error) -> None:
    """There was no room to begin with: the agent ends, and is started again a little later."""
    if not is_full(error):
        raise error
    device.world.probes["disk_full_boot_failed"] += 1
    device.power_off()
    device.world.clock.post_in(_wait_us(device), device.tie, device.boot, None)


def _wait_us(device: SimDevice) -> int:
    world = device.world
    return rng(world.seed, device.device_id, f"disk/{world.clock.now}").between(*AGAIN_US)


def _again(what: tuple[SimDevice, Database]) -> None:
    device, database = what
    if device.database is database and device.session is None:  # else it has been off since
        device.new_session(database)
        device.feed(BOOT)
