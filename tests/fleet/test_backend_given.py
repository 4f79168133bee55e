"""`fleet run --backend dynamodb --yes-aws --table NAME`: what is refused, what is told first, and what is left behind.

AWS is moto within this process; every call is noted. Called by pytest only.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from dynamo_rig import moto_in_process
from emulators import REGION
from run_rig import CALM, busy_plan, ran
from scenario_rig import write
from typer.testing import CliRunner, Result

from agent.protocol.errors import InputError
from cloud.dynamodb_table import definition, marker
from cloud.incarnation import INCARNATION
from cloud.table import MARKER_KEY, InvalidRequest, Put
from fleet.backends import given
from fleet.backends.cost import Estimate, estimate
from fleet.backends.failure import BackendFailed
from fleet.backends.opening import Backend, check, opened
from fleet.cli import build_app
from fleet.world.world import World

NAME: Final = "for-runs"
BRIEF: Final = CALM.replace("duration: 12m", "duration: 60s").replace("warm_up: 1m, quiesce: 3m", "warm_up: 20s")
READS: Final = {"DescribeTable", "DescribeTimeToLive", "GetItem", "Scan"}


class Aws:
    """moto, and the operations that were asked of it, by name."""

    def __init__(self, service: Callable[[str], Any]) -> None:
        self.client = service("dynamodb")
        self.asked: list[str] = []

    def make(self, **changed: Any) -> None:
        self.client.create_table(**{**definition(NAME), **changed})

    def put(self, item: dict[str, Any]) -> None:
        self.client.put_item(TableName=NAME, Item=item)

    def keys(self) -> list[tuple[str, str]]:
        return [(item["pk"]["S"], item["sk"]["S"]) for item in self.client.scan(TableName=NAME)["Items"]]

    def run(self, scenario: Path, *more: str) -> Result:
        words = ["run", str(scenario), "--backend", "dynamodb", "--yes-aws", "--table", NAME, "-q", *more]
        self.asked.clear()
        return CliRunner().invoke(build_app(), words)


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Aws]:
    monkeypatch.setattr(given, "PAUSE_S", 0.0)
    monkeypatch.chdir(tmp_path)
    with moto_in_process() as service:
        monkeypatch.setenv("AWS_REGION", REGION)
        made = Aws(service)

        def noted(**given: Any) -> Any:
            client = connect(**given)
            client.meta.events.register("before-call", lambda model, **_: made.asked.append(model.name))
            return client

        from cloud.dynamodb_table import connect

        monkeypatch.setattr(given, "connect", noted)
        monkeypatch.setattr("cloud.dynamodb_table.connect", noted)
        yield made


@pytest.fixture
def scenario(tmp_path: Path) -> Path:
    return write(tmp_path, BRIEF)


def refused(result: Result) -> str:
    assert isinstance(result.exception, InputError), result
    return "\n".join(map(str, result.exception.problems))


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("kind", "address", "table", "yes", "words"),
    [
        ("dynamodb", "", "t", False, "costs money.*--yes-aws"),
        ("dynamodb", "", "", True, "which table.*--table NAME"),
        ("dynamodb", "http://127.0.0.1:8000", "t", True, "not with --endpoint-url"),
        ("memory", "", "t", True, "only with --backend dynamodb"),
        ("moto", "", "", True, "only with --backend dynamodb"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_sent(
    kind: str, address: str, table: str, yes: bool, words: str
) -> None:
    with pytest.raises(InputError, match=words):
        check(kind, address, table, yes_aws=yes)


def test_the_way_to_a_table_in_aws_is_told() -> None:
    with pytest.raises(InputError, match="--yes-aws --table NAME"):
        check("dynamodb", "")
    assert check("dynamodb", "", "t", yes_aws=True) == Backend("dynamodb", "", "t")


def no_table(aws: Aws) -> None:
    pass


def no_marker(aws: Aws) -> None:
    aws.make()


def somebody_elses(aws: Aws) -> None:
    aws.make(
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
    )


def no_stream(aws: Aws) -> None:
    aws.make(StreamSpecification={"StreamEnabled": False})
    aws.put(marker())


def a_life(aws: Aws) -> None:
    aws.make()
    aws.put(marker())
    aws.client.update_time_to_live(
        TableName=NAME, TimeToLiveSpecification={"Enabled": True, "AttributeName": "expires"}
    )


def in_use(aws: Aws) -> None:
    aws.make()
    aws.put(marker())
    aws.put({"pk": {"S": "device#home-1"}, "sk": {"S": "config#"}})


def restored(aws: Aws) -> None:
    aws.make()
    aws.put({**marker(), INCARNATION: {"S": "0123456789abcdef"}})


@pytest.mark.parametrize(
    ("make", "words", "reads"),
    [
        (no_table, "The table is not there", 1),
        (no_marker, "is not Fleet's: it has no marker item", 2),
        (somebody_elses, "The keys of", 1),
        (no_stream, "has no stream", 1),
        (restored, "marked after a restore", 2),
        (a_life, "Enabled=false,AttributeName=expires", 3),
        (in_use, "holds other items than the marker, such as device#home-1 / config#", 4),
    ],
)
def test_a_table_that_a_run_must_not_have_is_only_looked_at(
    aws: Aws, scenario: Path, make: Callable[[Aws], None], words: str, reads: int
) -> None:
    make(aws)
    state = (
        None
        if make is no_table
        else (aws.client.describe_table(TableName=NAME)["Table"], aws.client.scan(TableName=NAME)["Items"])
    )
    said = refused(aws.run(scenario))
    assert words in said and set(aws.asked) <= READS and len(aws.asked) == reads
    if state is not None:
        assert state == (aws.client.describe_table(TableName=NAME)["Table"], aws.client.scan(TableName=NAME)["Items"])
    assert [path.name for path in scenario.parent.iterdir()] == [scenario.name]


def test_it_is_looked_at_again_when_the_run_begins(aws: Aws, tmp_path: Path) -> None:
    in_use(aws)
    plan = busy_plan(tmp_path, 1, BRIEF)
    with pytest.raises(InputError, match="holds other items"), opened(Backend("dynamodb", "", NAME), plan.cloud):
        pass


def test_a_fault_that_would_put_the_table_back_is_refused(aws: Aws, tmp_path: Path) -> None:
    faults = "faults:\n  - {kind: table-restore, at: 10s, back: 5s, restart: 1s}\nphases"
    said = refused(aws.run(write(tmp_path, BRIEF.replace("phases", faults))))
    assert "table-restore" in said and "only on a table of the run's own" in said
    assert aws.asked == []


# ---------------------------------------------------------------- a run


def test_a_run_tells_its_cost_first_and_leaves_the_table_as_it_was(aws: Aws, scenario: Path, tmp_path: Path) -> None:
    aws.make()
    aws.put(marker())
    before = aws.client.describe_table(TableName=NAME)["Table"]
    result = aws.run(scenario, "--out", str(tmp_path / "run"))
    assert result.exit_code == 0, result.output
    assert "about " in result.stderr and f"table '{NAME}' in {REGION}" in result.stderr and "$0.01" in result.stderr
    assert result.stdout == f"{tmp_path / 'run'}\n"
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (summary["backend"], summary["verdict"]) == ("dynamodb", "pass")
    assert summary["trace_hash"] == ran(busy_plan(tmp_path, 1, BRIEF)).trace.finish(), "the run in memory"
    assert f"--yes-aws --table {NAME}" in summary["reproduce"]
    assert aws.keys() == [MARKER_KEY]
    after = aws.client.describe_table(TableName=NAME)["Table"]
    assert {**after, "TableSizeBytes": 0, "ItemCount": 0} == {**before, "TableSizeBytes": 0, "ItemCount": 0}
    assert not {"CreateTable", "DeleteTable", "UpdateTable", "UpdateTimeToLive"} & set(aws.asked)


def test_nothing_is_written_before_the_cost_is_told(aws: Aws, scenario: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    aws.make()
    aws.put(marker())

    def broken(plan: Any) -> Estimate:
        assert set(aws.asked) <= READS
        raise ZeroDivisionError

    monkeypatch.setattr("fleet.backends.cost.estimate", broken)
    assert isinstance(aws.run(scenario).exception, ZeroDivisionError)
    assert set(aws.asked) <= READS and aws.keys() == [MARKER_KEY]


def test_a_run_that_ends_in_the_middle_takes_its_items_out(aws: Aws, tmp_path: Path) -> None:
    aws.make()
    aws.put(marker())
    plan = busy_plan(tmp_path, 1, BRIEF)
    held: list[int] = []

    def stop() -> bool:
        held.append(len(aws.keys()))
        return held[-1] > 10

    with opened(Backend("dynamodb", "", NAME), plan.cloud) as table:
        World(plan, table=table).run(None, stop)
    assert max(held) > 10 and aws.keys() == [MARKER_KEY]
    with pytest.raises(ZeroDivisionError), opened(Backend("dynamodb", "", NAME), plan.cloud) as table:
        assert table is not None
        table.execute(Put({"pk": "a", "sk": "b"}), 0)
        aws.put({"pk": {"S": "somebody's"}, "sk": {"S": "own"}})
        raise ZeroDivisionError
    assert sorted(aws.keys()) == [MARKER_KEY, ("somebody's", "own")], "only what the run wrote"


def test_the_marker_is_out_of_a_runs_reach(aws: Aws, tmp_path: Path) -> None:
    aws.make()
    aws.put(marker())
    with opened(Backend("dynamodb", "", NAME), busy_plan(tmp_path, 1, BRIEF).cloud) as table:
        assert table is not None
        with pytest.raises(InvalidRequest, match="marker"):
            table.execute(Put({"pk": MARKER_KEY[0], "sk": MARKER_KEY[1]}), 0)
        with pytest.raises(BackendFailed, match="not put back"):
            table.restore([])
    assert aws.keys() == [MARKER_KEY]


# ---------------------------------------------------------------- the cost


def test_the_estimate_is_of_the_units_that_the_plan_takes(tmp_path: Path) -> None:
    brief, longer = (estimate(busy_plan(tmp_path, 1, text)) for text in (BRIEF, CALM))
    assert 100 < brief.write_units < longer.write_units and 100 < brief.read_units < longer.read_units
    assert brief == estimate(busy_plan(tmp_path, 1, BRIEF))


def test_a_cost_is_units_by_list_prices() -> None:
    assert Estimate(1_000_000, 1_000_000, 100_000).dollars == pytest.approx(0.625 + 0.125 + 0.02)
    assert str(Estimate(10, 20, 30)).startswith("about 10 write units, 20 read units and 30 reads of the stream: $0.01")
