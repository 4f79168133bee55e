"""What a full or failing disk does to a write: a clear error, the transaction undone, the file unharmed. Every request
that the scenario of power_cut makes of its disk is refused once, and once from there on until someone repairs the disk.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

import apsw
import pytest
from device_rig import Device, dump, fresh_memory, memory_of
from power_cut import NEW, Recording, State, Unwrapped, boots_to, reference
from power_scenario import STEPS, Life
from simulated_disk import FILE, SHORT_LOG_PAGES, Disk, Platter, abandon, connect, drop, keep, sectors

from agent.store import Store, StoreError
from fleet.rng import rng

Error = Callable[[], Exception]


class Refusing:
    """Raises `error` at request number `at` of those of the `kinds`; `lasting`: and at all that follow."""

    def __init__(self, at: int, error: Error, kinds: tuple[str, ...], lasting: bool) -> None:
        self.at = at
        self.error = error
        self.kinds = kinds
        self.lasting = lasting
        self.asked = 0
        self.refused = 0
        self.repaired = False

    def __call__(self, kind: str) -> None:
        if self.repaired or kind not in self.kinds:
            return
        self.asked += 1
        if self.asked > self.at and (self.lasting or not self.refused):
            self.refused += 1
            raise self.error()


class Stopped(Exception):
    """The scenario met the error; `step`: the number of its last step, `error`: what the caller got."""

    def __init__(self, step: int, error: Exception, life: Life | None) -> None:
        super().__init__(str(error))
        self.step = step
        self.error = error
        self.life = life


def until_refused(disk: Disk, store_type: type[Store] = Store) -> Life:
    """The scenario on `disk`. Raises Stopped at the first error that a caller gets."""
    life = None
    step = 1
    try:
        life = Life(lambda: connect(disk, log_pages=SHORT_LOG_PAGES), store_type)
        for step in range(1, len(STEPS) + 1):
            STEPS[step - 1].act(life)
    except Exception as error:
        raise Stopped(step, error, life) from error
    return life


def states_around(known: Recording, step: int) -> list[State]:
    return [known.states[step - 1][-1], *known.states[step]]


def write_on(device: Device) -> None:
    """The application goes on with the database that it has. One more call may fail, saying so, when the disk could not
    even be read; never is a call answered from what was undone."""
    device.database.on_outbox = lambda: None
    try:
        device.database.create("Fault", {"id": "at once", "rev": 1})
    except StoreError as error:
        assert "call again" in str(error)
        assert memory_of(device.store) == fresh_memory(device.connection)
        device.database.create("Fault", {"id": "at once", "rev": 1})
    assert device.database.get("Fault", {"id": "at once"})
    assert memory_of(device.store) == fresh_memory(device.connection)


def check_stopped(known: Recording, disk: Disk, refusing: Refusing, stopped: Stopped, text: str) -> None:
    """The error is clear; the file holds a state that the step was allowed to leave, now and after a power cut."""
    assert isinstance(stopped.error, StoreError), repr(stopped.error)
    assert FILE in str(stopped.error) and text in str(stopped.error) and stopped.error.hint
    refusing.repaired = True
    allowed = states_around(known, stopped.step)
    platter = Platter({}, disk.log)
    while platter.done < len(disk.log):
        platter.step()
    for fate in (keep, drop, sectors):
        assert boots_to(platter.after(fate, rng(1, "after an error", fate.__name__))) in allowed
    if stopped.life is None:
        return
    device = stopped.life.device
    if STEPS[stopped.step - 1].name in ("close", "open"):
        device.connection = connect(disk, log_pages=SHORT_LOG_PAGES)
    elif hasattr(device, "database"):
        assert not device.connection.in_transaction
        assert dump(device.connection) in allowed or (Store(device.connection).is_new() and NEW in allowed)
        if STEPS[stopped.step - 1].name != "boot":
            write_on(device)
    device.boot()
    stopped.life.write("create", "Fault", id="later", rev=1)
    assert memory_of(device.store) == fresh_memory(device.connection)
    assert device.connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    state = device.dump()
    abandon(device.connection)
    assert boots_to(disk.files()) == state


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    return reference(tmp_path_factory.mktemp("reference") / FILE)


FULL: Final = ("create", "write")
ALL: Final = ("read", "create", "write", "truncate", "delete", "sync", "sync folder")
DISKS: Final[dict[str, tuple[Error, tuple[str, ...], str]]] = {
    "full": (apsw.FullError, FULL, "full"),
    "failing": (apsw.IOError, ALL, "the disk failed"),
}


@pytest.mark.parametrize("lasting", [False, True], ids=["once", "from there on"])
@pytest.mark.parametrize("name", DISKS)
def test_a_refused_request_gives_a_clear_error_and_undoes_the_transaction(
    known: Recording, name: str, lasting: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    error, kinds, text = DISKS[name]
    at = refusals = errors = 0
    while True:
        disk = Disk()
        refusing = Refusing(at, error, kinds, lasting)
        disk.fail = refusing
        try:
            life = until_refused(disk)
        except Stopped as stopped:
            check_stopped(known, disk, refusing, stopped, text)
            errors += 1
        else:  # of no consequence: what was asked only tidied up
            refusing.repaired = True
            assert life.device.dump() == known.states[-1][-1]
            abandon(life.device.connection)
            assert boots_to(disk.files()) == known.states[-1][-1]
        if not refusing.refused:
            break
        refusals += 1
        at += 1
    with capsys.disabled():
        print(f" [{refusals} requests refused, {errors} errors]", end="")
    assert refusals > 150 and errors > 100


def test_a_store_without_transactions_is_caught(known: Recording) -> None:
    parts = 0
    for at in range(150, 200):
        disk = Disk()
        refusing = Refusing(at, apsw.FullError, FULL, lasting=True)
        disk.fail = refusing
        with pytest.raises(Stopped) as caught:
            until_refused(disk, Unwrapped)
        try:
            check_stopped(known, disk, refusing, caught.value, "full")
        except AssertionError:
            parts += 1
    assert parts


def refuse_all(kind: str) -> None:
    raise apsw.IOError


@pytest.mark.parametrize("first", ["read", "write"])
def test_nothing_is_answered_from_what_was_undone_while_the_disk_could_not_be_read(first: str) -> None:
    disk = Disk()
    store = Store(connect(disk))
    store.initialise("epoch")
    store.load()
    n = store.outbox()[0].n
    store.execute("DELETE FROM outbox")
    store.load()
    store.add_operation("pk", "sk", "create", b"{}", 1)
    before = memory_of(store)
    with pytest.raises(StoreError, match="the disk failed"), store.transaction():
        store.drop_operation(n)
        store.put_base("pk", "sk", b"[]", 2)
        store.epoch_next_u = 77
        disk.fail = refuse_all
    call: Callable[[], object] = (
        partial(store.visible, "pk", "sk")
        if first == "read"
        else partial(store.add_operation, "pk", "other", "create", b"{}", 1)
    )
    for _ in range(2):
        with pytest.raises(StoreError, match="the disk failed"):
            call()
    disk.fail = lambda kind: None
    with pytest.raises(StoreError, match="call again"):
        call()
    assert memory_of(store) == before == fresh_memory(store.connection)
    assert store.visible("pk", "sk").image == b"{}"
    call()
    assert memory_of(store) == fresh_memory(store.connection)
    assert [row.u for row in store.outbox()] == ([1] if first == "read" else [1, 2])
    abandon(store.connection)
