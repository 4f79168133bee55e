"""Runs on emulators are the runs in memory, event by event; what an emulator does wrong ends a run or fails a check.

moto in this process unless a test says otherwise; the servers of moto and ministack are processes on loopback.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
from emulators import client as emulator_client
from emulators import moto_server, table_names
from run_rig import CALM, busy_plan, command, fleet, summary_of
from scenario_rig import write
from typer.testing import CliRunner

from agent.protocol.errors import InputError
from cloud.dynamodb import DynamoTable
from cloud.memory import MemoryTable
from cloud.table import (
    ITEM_ABSENT,
    MARKER_KEY,
    Cancelled,
    Check,
    Delete,
    Get,
    Item,
    Key,
    Put,
    Record,
    Transact,
    Unavailable,
    Update,
)
from fleet.backends.failure import BackendFailed
from fleet.backends.opening import MEMORY, Backend, check, opened
from fleet.backends.stream import StreamReader, Told
from fleet.backends.table import EmulatedTable
from fleet.cli import build_app
from fleet.scenario.build import build_plan
from fleet.scenario.load import load
from fleet.scenario.plan import Plan
from fleet.world.table import WorldTable
from fleet.world.world import World

MOTO: Final = Backend("moto")
HERE: Final = "127.0.0.1"
# Everything that happens to the table, in a few minutes: refusals, lost answers, dead and stalled workers, records that
# come again, lives that end.
TROUBLED: Final = (
    CALM.replace("duration: 12m", "duration: 150s").replace("warm_up: 1m, quiesce: 3m", "warm_up: 20s, quiesce: 1m")
    + """\
faults:
  - {kind: broker-outage, at: 60s, duration: 20s, target: {region: east}}
  - {kind: power-cut, rate: 30/h, off: [5s, 20s]}
  - {kind: relay-kill, rate: 90/h, restart: 2s}
  - {kind: relay-stall, rate: 90/h, duration: 20s}
  - {kind: stream-replay, share: 10%, late: [1s, 20s]}
  - {kind: table-throttle, share: 5%}
  - {kind: table-silence, share: 5%}
  - {kind: messages, lose: 2%, duplicate: 2%, reorder: 2%}
cloud: {worker_life: 20s, record_life: 1m, feed_retention: 2m, ttl_margin: 25s, sweep_every: 20s, sweep_delay: 30s}
"""
)
BRIEF: Final = CALM.replace("duration: 12m", "duration: 60s").replace("warm_up: 1m, quiesce: 3m", "warm_up: 20s")


def items(table: WorldTable) -> dict[Key, Item]:
    """Every item, the relay's too; of the emulator's own table all but its marker."""
    found = {(item["pk"], item["sk"]): item for item in table.scan(private=True)}
    found.pop(MARKER_KEY, None)
    return found


def ran_on(backend: Backend, plan: Plan) -> tuple[World, str, dict[Key, Item]]:
    """A world that has come to its end on a backend, its trace hash, and what is in the table then."""
    with opened(backend, plan.cloud) as table:
        world = World(plan, table=table)
        world.finish(world.run())
        return world, world.trace.finish(), items(world.table)


def seen(world: World) -> dict[str, Any]:
    """All that a run counts."""
    return {
        "checks": [(check.name, check.status, check.checked, check.failed) for check in world.checks],
        "probes": +world.probes,
        "synced": world.oracle.updates_synced,
        "writes": (world.oracle.local_writes, world.oracle.cloud_writes),
        "traffic": world.broker.counts(),
        "converged": world.converged_us,
        "latency": (world.latency_up.percentiles(), world.latency_down.percentiles()),
        "rows": world.timeline.rows,
    }


# ---------------------------------------------------------------- the same run


def test_a_run_on_moto_is_the_run_in_memory_under_every_fault(tmp_path: Path) -> None:
    plan = busy_plan(tmp_path, 2, TROUBLED)
    memory, memory_hash, memory_items = ran_on(MEMORY, plan)
    moto, moto_hash, moto_items = ran_on(MOTO, plan)
    assert isinstance(memory.table, MemoryTable) and isinstance(moto.table, EmulatedTable)
    assert seen(moto) == seen(memory)
    assert moto_items == memory_items and len(moto_items) > 20
    assert moto_hash == memory_hash
    happened = ("throttled", "answer_lost", "worker_killed", "worker_stalled", "record_redelivered", "lease_taken_over")
    assert all(moto.probes[name] for name in happened), moto.probes
    assert {check.status for check in moto.checks} <= {"pass", "unknown"}


@pytest.mark.parametrize("kind", ["moto", "ministack"])
def test_a_run_on_an_emulators_server_is_the_run_in_memory(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    address = request.getfixturevalue(kind)
    plan = busy_plan(tmp_path, 3, BRIEF)
    memory, memory_hash, memory_items = ran_on(MEMORY, plan)
    world, trace_hash, found = ran_on(Backend("dynamodb", address), plan)
    assert (seen(world), trace_hash, found) == (seen(memory), memory_hash, memory_items)


@pytest.mark.slow
def test_the_outage_on_moto_is_the_outage_in_memory() -> None:
    plan = build_plan(load("outage", devices=20), 1)
    memory, memory_hash, memory_items = ran_on(MEMORY, plan)
    moto, moto_hash, moto_items = ran_on(MOTO, plan)
    assert (seen(moto), moto_hash, moto_items) == (seen(memory), memory_hash, memory_items)
    assert {check.status for check in moto.checks if check.name in plan.checks} == {"pass"}


def test_every_request_of_the_relay_and_of_applications_goes_through_the_adapter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    real = DynamoTable.execute

    def noting(self: DynamoTable, request: Any) -> Any:
        asked.append(type(request).__name__)
        return real(self, request)

    monkeypatch.setattr(DynamoTable, "execute", noting)
    world, _, _ = ran_on(MOTO, busy_plan(tmp_path, 1, BRIEF))
    assert {"Get", "Put", "Update", "Transact", "Query"} <= set(asked)
    assert world.oracle.cloud_writes > 5 and world.oracle.updates_synced > 10


def test_a_replay_of_a_run_on_moto_is_made_in_memory_and_gives_the_same_hash(tmp_path: Path) -> None:
    scenario, out = str(write(tmp_path, BRIEF)), tmp_path / "run"
    done = fleet("run", scenario, "--backend", "moto", "--out", str(out), "-q", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{out}\n", "")
    summary = summary_of(out)
    assert (summary["backend"], summary["verdict"]) == ("moto", "pass")
    assert summary["reproduce"].endswith("--backend moto")
    again = fleet("replay", str(out), "-q", cwd=tmp_path)
    assert again.stdout == f"same trace hash: {summary['trace_hash']}\n" and again.returncode == 0


def test_moto_keeps_nothing_of_what_has_been_read(tmp_path: Path) -> None:
    """Else each transaction copies the whole stream, and every copy stays."""
    with opened(MOTO, busy_plan(tmp_path).cloud) as table:
        from moto.dynamodb.models.dynamo_type import Item as MotoItem

        assert table is not None
        for i in range(30):
            table.execute(Transact((Put(item("a", n=i)), Put(item(f"{i:02}")))), i)
        assert table.stream.count() == 60
        assert len(MotoItem.instances_tracked) < 100  # type: ignore[attr-defined]
        assert len(items(table)) == 31


# ---------------------------------------------------------------- what an emulator does wrong is noticed


class Wrong:
    """A client that does one operation in a way of its own."""

    def __init__(self, client: Any, operation: str, does: Callable[..., Any]) -> None:
        self._client = client
        self._operation = operation
        self._does = does

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._client, name)
        return real if name != self._operation else lambda **given: self._does(real, **given)


@pytest.fixture
def wrong(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str, Callable[..., Any]], None]:
    """Puts a wrong client of a service in the place of the real one, for the runs to come."""
    from cloud import dynamodb_table

    real = dynamodb_table.connect

    def plant(service: str, operation: str, does: Callable[..., Any]) -> None:
        def connect(**given: Any) -> Any:
            client = real(**given)
            return Wrong(client, operation, does) if given.get("service", "dynamodb") == service else client

        monkeypatch.setattr(dynamodb_table, "connect", connect)

    return plant


def test_a_write_that_was_never_made_ends_the_run(tmp_path: Path, wrong: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fleet.backends.opening.pause", lambda seconds: None)
    monkeypatch.setattr("fleet.backends.table.LOOKS_MAX", 5)
    wrong("dynamodb", "put_item", lambda real, **given: {})
    with pytest.raises(BackendFailed, match=r"the stream does not tell of .+/.+, which was written"):
        ran_on(MOTO, busy_plan(tmp_path, 1, BRIEF))
    out = tmp_path / "run"
    words = ["run", str(write(tmp_path, BRIEF)), "--backend", "moto", "--out", str(out), "-q"]
    done = CliRunner().invoke(build_app(), words)
    assert done.exit_code == 4 and not out.exists()
    assert done.stderr.startswith("the emulator failed, nothing was kept: the stream does not tell of ")


def test_reads_that_are_not_strong_fail_checks(tmp_path: Path, wrong: Any) -> None:
    """The sequencer then logs what an item was before its change."""
    before: dict[str, Any] = {}

    def stale(real: Any, **given: Any) -> Any:
        answer, key = real(**given), given["Key"]
        if not key["sk"]["S"].startswith("config"):
            return answer
        return before.setdefault(str(key), answer)

    wrong("dynamodb", "get_item", stale)
    plan = busy_plan(tmp_path, 1, BRIEF, ["phases.quiesce=30s", "phases.converge_within=1m", "duration=2m"])
    world, _, _ = ran_on(MOTO, plan)
    failed = {check.name for check in world.checks if check.status == "fail"}
    assert {"every-change-logged", "convergence"} <= failed


def test_an_image_that_nobody_wrote_in_the_stream_fails_a_check(tmp_path: Path, wrong: Any) -> None:
    def bent(real: Any, **given: Any) -> Any:
        answer = real(**given)
        for record in answer["Records"]:
            image = record["dynamodb"].get("NewImage", {})
            if "text" in image:
                image["text"] = {"S": "bent"}
        return answer

    wrong("dynamodbstreams", "get_records", bent)
    world, _, _ = ran_on(MOTO, busy_plan(tmp_path, 1, BRIEF))
    failed = {check.name for check in world.checks if check.status == "fail"}
    assert {"nothing-invented", "no-acked-write-lost"} <= failed


def test_a_table_that_is_not_what_its_stream_told_fails_a_check(tmp_path: Path, wrong: Any) -> None:
    """The final read is a scan of the emulator's table, and not of what was followed."""

    def short(real: Any, **given: Any) -> Any:
        answer = real(**given)
        return {**answer, "Items": [item for item in answer["Items"] if not item["sk"]["S"].startswith("config")]}

    wrong("dynamodb", "scan", short)
    world, _, _ = ran_on(MOTO, busy_plan(tmp_path, 1, BRIEF))
    failed = {check.name for check in world.checks if check.status == "fail"}
    assert {"no-acked-write-lost", "convergence"} <= failed


# ---------------------------------------------------------------- records of a write


class Script(StreamReader):
    """A stream that tells what it is given, one answer a look."""

    def __init__(self, *answers: list[Told]) -> None:
        self._answers = iter(([], *answers))
        self.looks = 0

    def look_for_shards(self) -> None:
        self.looks += 1

    def read(self) -> list[Told]:
        return next(self._answers, [])


class Willing:
    """An adapter that does all that it is asked, or fails."""

    def __init__(self, error: Exception | None = None) -> None:
        self._error = error

    def execute(self, request: Any) -> Any:
        if self._error is not None:
            raise self._error


def item(sk: str, **attributes: Any) -> dict[str, Any]:
    return {"pk": "p", "sk": sk, **attributes}


def told(sk: str, old: Item | None, new: Item | None) -> Told:
    return Told(("p", sk), old, new)


def scripted(*answers: list[Told], error: Exception | None = None) -> tuple[EmulatedTable, list[Record]]:
    table: Any = Willing(error)
    waits: list[float] = []
    made = EmulatedTable(None, table, Script(*answers), 4, retain_ms=1_000, wait=waits.append)
    records: list[Record] = []
    made.stream.subscribe(records.append)
    return made, records


def test_records_come_in_the_order_of_the_actions_with_the_times_of_the_world() -> None:
    a, b = item("a", n=1), item("b", n=1)
    table, records = scripted([told("b", None, b), told("a", None, a)])
    table.execute(Transact((Put(a), Check(("p", "c"), ITEM_ABSENT), Put(b))), 5_000)
    assert [(r.key[1], r.seq, r.at_ms, r.by_ttl) for r in records] == [("a", 1, 5_000, False), ("b", 2, 5_000, False)]


def test_several_records_of_one_write_are_one_change_and_those_of_nothing_are_none() -> None:
    made = item("a", n=1)
    table, records = scripted(
        [told("a", None, item("a")), told("a", None, made)], [told("a", made, made)], [told("a", made, None)]
    )
    table.execute(Update(("p", "a"), {"n": 1}), 0)
    table.execute(Put(made), 1)
    table.execute(Delete(("p", "a")), 2)
    assert [(r.old, r.new) for r in records] == [(None, made), (made, None)]


def test_a_stream_that_lags_is_waited_for_and_asked_for_new_shards() -> None:
    a, b = item("a"), item("b")
    reader = Script([told("a", None, a)], [], [told("b", None, b)])
    waits: list[float] = []
    table = EmulatedTable(None, Willing(), reader, 4, retain_ms=1_000, wait=waits.append)  # type: ignore[arg-type]
    table.execute(Transact((Put(a), Put(b))), 0)
    assert table.stream.count() == 2 and len(waits) == reader.looks == 2


def test_a_change_that_is_none_of_the_runs_ends_it() -> None:
    table, _ = scripted([told("x", None, item("x"))])
    with pytest.raises(BackendFailed, match="p/x, which nobody here has written"):
        table.execute(Put(item("a")), 0)


def test_refusals_reach_the_caller_and_trouble_ends_the_run() -> None:
    table, records = scripted(error=Cancelled(("condition",)))
    with pytest.raises(Cancelled):
        table.execute(Put(item("a")), 0)
    assert not records
    table, _ = scripted(error=Unavailable("gone"))
    with pytest.raises(BackendFailed, match="Get: gone"):
        table.execute(Get(("p", "a")), 0)


def swept(table: WorldTable) -> list[Record]:
    """Items of which some expire, some later than they were to; what sweeps, a few items at once, take of them."""
    gone: list[Record] = []
    for i in range(12):
        table.execute(Put(item(f"{i:02}", ttl=100 + i % 5, n=i)), 0)
    table.execute(Update(("p", "00"), {"ttl": 500}), 0)
    table.stream.subscribe(gone.append)
    picks = iter(range(1, 100))

    def pick(count: int) -> int:
        return next(picks) % count

    assert sum([table.sweep(103_500, 4, pick) for _ in range(4)]) == 9
    assert not table.expired_waiting(103_500) and table.expired_waiting(104_500)
    return gone


def test_the_sweep_takes_what_the_memory_tables_takes_in_the_same_order(tmp_path: Path) -> None:
    plan = busy_plan(tmp_path).cloud
    memory = MemoryTable(shards=plan.shards)
    with opened(MOTO, plan) as moto:
        assert moto is not None
        found = swept(moto)
        assert found == swept(memory) and all(record.by_ttl and record.new is None for record in found)
        assert items(moto) == items(memory)


# ---------------------------------------------------------------- tables of the run's own


def test_a_run_leaves_no_table_behind_and_touches_no_other(tmp_path: Path) -> None:
    plan = busy_plan(tmp_path, 1, BRIEF)
    with moto_server() as address:
        server = emulator_client(address)
        with opened(Backend("dynamodb", address), plan.cloud):
            (first,) = table_names(server)
            with opened(Backend("dynamodb", address), plan.cloud):
                assert len(table_names(server)) == 2
            assert table_names(server) == [first]
        with pytest.raises(ZeroDivisionError), opened(Backend("dynamodb", address), plan.cloud):
            raise ZeroDivisionError
        assert table_names(server) == []


def test_a_proxy_of_the_environment_is_not_asked(tmp_path: Path, moto: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://proxy.invalid:3128")
    with opened(Backend("dynamodb", moto), busy_plan(tmp_path).cloud) as table:
        assert table is not None and items(table) == {}


def test_neither_credentials_nor_addresses_of_the_environment_are_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_DYNAMODB", "AWS_ENDPOINT_URL_DYNAMODB_STREAMS"):
        monkeypatch.setenv(name, "http://db.invalid:8000")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    with opened(MOTO, busy_plan(tmp_path).cloud) as table:
        assert table is not None and items(table) == {}


def test_ctrl_c_ends_in_good_order_and_deletes_the_table(tmp_path: Path, moto: str) -> None:
    scenario = write(tmp_path, CALM.replace("duration: 12m", "duration: 30h"))
    words = command(
        "run", str(scenario), "--backend", "dynamodb", "--endpoint-url", moto, "--out", str(tmp_path / "run")
    )
    server = emulator_client(moto)
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        assert run.stderr is not None
        line = run.stderr.readline()
        assert " online, backlog " in line, line  # of progress: it runs
        assert [name for name in table_names(server) if name.startswith("fleet-run-")]
        run.send_signal(signal.SIGINT)
        run.communicate(timeout=60)
    assert run.returncode == 130
    assert not [name for name in table_names(server) if name.startswith("fleet-run-")]


def test_an_emulator_that_dies_on_the_way_is_the_harness_failing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fleet.backends.opening.pause", lambda seconds: None)
    plan = busy_plan(tmp_path, 1, BRIEF)
    with moto_server() as address:
        going = opened(Backend("dynamodb", address), plan.cloud)
        table = going.__enter__()
    assert table is not None
    with pytest.raises(BackendFailed, match="the table's address does not answer"):
        World(plan, table=table).run()
    assert going.__exit__(None, None, None) in (None, False)


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("kind", "address", "words"),
    [
        ("mongo", "", "no such backend; one of memory, moto, dynamodb"),
        ("dynamodb", "", "--endpoint-url http://127.0.0.1:PORT"),
        ("memory", "http://127.0.0.1:8000", "only with --backend dynamodb"),
        ("moto", "http://127.0.0.1:8000", "only with --backend dynamodb"),
        ("dynamodb", "127.0.0.1:8000", "no address"),
        ("dynamodb", "http:/" + "/[::1", "not on this machine"),
        ("dynamodb", "https://dynamodb.eu-west-1.amazonaws.com", "not on this machine"),
        ("dynamodb", "http://db.example:8000", "not on this machine"),
        ("dynamodb", f"http://{HERE}@db.example:8000", "not on this machine"),
        ("dynamodb", "http://localhost.example:8000", "not on this machine"),
    ],
)
def test_what_cannot_be_had_is_refused_before_anything_is_sent(kind: str, address: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        check(kind, address)


@pytest.mark.parametrize("address", ["http://127.0.0.1:8000", "http://localhost:8000", "https://[::1]:8000"])
def test_addresses_of_this_machine_are_taken(address: str) -> None:
    assert check("dynamodb", address) == Backend("dynamodb", address)


def test_an_address_elsewhere_is_refused_also_where_nobody_has_checked_it(tmp_path: Path) -> None:
    plan = busy_plan(tmp_path)
    with (
        pytest.raises(InputError, match="not on this machine"),
        opened(Backend("dynamodb", "http://db.example:8000"), plan.cloud),
    ):
        pass


def test_without_moto_it_says_what_to_install(tmp_path: Path) -> None:
    code = "import sys; sys.modules['moto'] = None; from fleet.cli import main; main()"
    words = [sys.executable, "-c", code, "run", str(write(tmp_path, BRIEF)), "--backend", "moto"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == "--backend: moto: moto is not installed (pip install 'fleet-sync[moto]')\n"
    assert [path.name for path in tmp_path.iterdir()] == ["s.yaml"]


def test_a_run_in_memory_needs_no_client_of_the_service(tmp_path: Path) -> None:
    code = (
        "import sys\nfor name in ('moto', 'boto3', 'botocore'): sys.modules[name] = None\n"
        "from fleet.cli import main; main()"
    )
    words = [sys.executable, "-c", code, "run", str(write(tmp_path, BRIEF)), "-q", "--out", str(tmp_path / "run")]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_an_address_that_does_not_answer_exits_with_2(tmp_path: Path) -> None:
    with moto_server() as address:
        pass
    scenario = str(write(tmp_path, BRIEF))
    done = fleet("run", scenario, "--backend", "dynamodb", "--endpoint-url", address, cwd=tmp_path)
    assert done.returncode == 2 and done.stdout == "" and "Traceback" not in done.stderr
    assert address in done.stderr and "Check the endpoint" in done.stderr
