"""Capacity plans: lines through sizes, parts of a fleet that stand for it, what breaks first, what a person gets."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from run_rig import CALM, busy_plan, run_plan
from typer.testing import CliRunner

from agent.protocol.errors import InputError
from fleet.capacity.fit import CONSTANT, fitted
from fleet.capacity.runs import kept_of
from fleet.capacity.scaling import part_of, part_of_plan
from fleet.capacity.study import Study, Wanted
from fleet.capacity.told import crossing, main_recovery, told
from fleet.cli import build_app
from fleet.commands.capacity import parse_sizes
from fleet.scenario.plan import QuotaPlan
from reports.capacity import FIGURES, Capacity
from reports.capacity_html import render
from reports.capacity_text import WIDTH, capacity_csv, capacity_lines, count_text, tables

LONG = "phases.converge_within=3h"

# ---------------------------------------------------------------- lines


@given(st.floats(0, 1e6), st.floats(0, 1e3))
def test_a_total_is_found_at_any_size(first: float, second: float) -> None:
    fit = fitted([(n, first + second * n) for n in (250, 375, 500)])
    assert math.isclose(fit.at(1_000_000), first + second * 1_000_000, rel_tol=1e-3, abs_tol=1e-6)


def test_nothing_shrinks_as_a_fleet_grows() -> None:
    fit = fitted([(100, 50.0), (200, 40.0), (400, 30.0)])
    assert fit.first >= 0 and fit.second >= 0 and fit.at(10_000) >= 0


def test_what_is_alike_at_all_sizes_is_a_constant() -> None:
    assert fitted([(100, 7.0), (200, 7.0)]).model == CONSTANT
    assert fitted([(100, 7.0)]).at(10**6) == 7.0
    assert fitted([]).at(10) == 0.0
    assert fitted([(100, 10.0), (200, 20.0)]).at(1_000) == pytest.approx(100)


@pytest.mark.parametrize(
    ("shares", "grows", "size"),
    [
        ([(100, 0.1), (1_000, 1.0), (10_000, 10.0)], True, 1_000),
        ([(100, 0.5), (1_000, 0.5)], True, 2_000),
        ([(100, 4.0), (1_000, 40.0)], True, 25),
        ([(100, 0.0), (1_000, 2.0)], True, 500),
        ([(100, 0.0), (1_000, 0.0)], True, None),
        ([(100, 0.9), (1_000, 1.0)], False, None),
        ([(100, 0.9), (1_000, 1.1)], False, 1),
    ],
)
def test_where_a_quota_is_passed(shares: list[tuple[int, float]], grows: bool, size: int | None) -> None:
    found = crossing(shares, grows)
    assert found == size or (size is not None and found is not None and abs(found - size) <= 1 + size // 100)


# ---------------------------------------------------------------- parts


def test_a_part_of_a_fleet_has_its_part_of_what_the_fleet_shares_and_nothing_else_changes() -> None:
    whole = QuotaPlan(
        connects_per_s=500,
        client_connects_per_s=1,
        connections=500_000,
        client_publishes_per_s=100,
        publishes_in_per_s=20_000,
        partition_reads_per_s=3_000,
        functions=1_000,
        functions_per_10s=1_000,
        messages_per_day=400_000,
    )
    part = part_of(whole, 0.05)
    assert (part.connects_per_s, part.connections, part.publishes_in_per_s) == (25, 25_000, 1_000)
    assert (part.client_connects_per_s, part.client_publishes_per_s, part.partition_reads_per_s) == (1, 100, 3_000)
    assert (part.shared, part.functions, part.functions_per_10s, part.messages_per_day) == (0.05, 50, 50, 20_000)
    assert part_of(whole, 0.001).functions == 0  # one instance says nothing of a thousand


def test_a_fleet_is_its_own_part(tmp_path: Path) -> None:
    plan = msgspec.structs.replace(busy_plan(tmp_path, 1, CALM), quotas=QuotaPlan(connects_per_s=10))
    assert part_of_plan(plan, len(plan.devices)) is plan
    assert part_of_plan(plan, 10 * len(plan.devices)).quotas == part_of(QuotaPlan(connects_per_s=10), 0.1)


@pytest.mark.parametrize(("jitter", "devices", "rate"), [("0%", 160, 4), ("100%", 500, 10)])
def test_a_part_tells_when_the_whole_is_back(jitter: str, devices: int, rate: int) -> None:
    changes = (f"agent.connect_jitter={jitter}", "agent.connect_cap=75s", f"cloud.connects_per_s={rate}", LONG)
    study = Study(Wanted("storm-full-jitter", (devices,), devices, changes=changes), lambda words: None, lambda: False)
    whole = main_recovery(kept_of(run_plan(study.plan(devices))))
    part = main_recovery(kept_of(run_plan(part_of_plan(study.plan(devices // 2), devices))))
    assert whole is not None and part is not None
    assert (whole.lost, part.lost, whole.floor_s, part.floor_s) == (
        devices,
        devices // 2,
        devices / rate,
        devices / rate,
    )
    assert whole.back_95_s is not None and part.back_95_s is not None
    assert abs(part.back_95_s - whole.back_95_s) <= 0.15 * whole.back_95_s
    # The storm repeats without jitter; with it, and a cap above the floor, the fleet is back soon after the floor.
    assert whole.back_95_s > 10 * whole.floor_s if jitter == "0%" else whole.back_95_s < 2 * whole.floor_s


# ---------------------------------------------------------------- the command

ARGUMENTS = ["capacity", "storm-full-jitter", "--devices", "20,40,150", "--simulate-up-to", "40", "--preset"]
ARGUMENTS += ["aws-iot-default", "--set", "cloud.connects_per_s=5", "--set", "agent.connect_jitter=0%"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, Capacity]:
    out = tmp_path_factory.mktemp("capacity") / "out"
    result = CliRunner().invoke(build_app(), [*ARGUMENTS, "--out", str(out)])
    assert result.exit_code == 0, result.output
    return out, result.stdout, msgspec.json.decode((out / "capacity.json").read_bytes(), type=Capacity)


def test_each_size_has_its_load_its_quotas_its_recovery_and_its_cost(made: tuple[Path, str, Capacity]) -> None:
    _, _, plan = made
    assert [(row.devices, row.how) for row in plan.rows] == [(20, "simulated"), (40, "simulated"), (150, "scaled")]
    for row in plan.rows:
        assert row.figures.keys() == FIGURES.keys()
        assert row.recovery is not None and row.recovery.lost == row.devices
        assert row.recovery.floor_s == pytest.approx(row.devices / 5)
        assert row.dollars and len(row.cost) == 9
    small, large = plan.rows[1], plan.rows[2]
    for name in ("mean_messages_per_s", "write_units_per_s", "bytes_up_per_s"):
        assert large.figures[name].model and 1.2 < large.figures[name].value / small.figures[name].value < 5
    assert [one.name for one in large.reached] == ["connects_per_s"]
    assert large.reached[0].last_s > 720  # when the broker is back
    assert [one.name for one in plan.breaks[:2]] == ["connects_per_s", "connect_cap"]
    assert plan.breaks[1].devices == 75 * 5


def test_the_error_is_that_of_a_size_that_was_run_as_well(made: tuple[Path, str, Capacity]) -> None:
    held = made[2].held_out
    assert held is not None and held.devices == 40 and max(held.by) < 40
    errors = {one.name: one.error for one in held.rows}
    assert {*FIGURES, "quota.connects_per_s", "recovery.back_95_s", "converged_after_s", "cost.total"} < errors.keys()
    assert any(error for error in errors.values())
    assert abs(errors["mean_messages_per_s"] or 1) < 0.2 and abs(errors["write_units_per_s"] or 1) < 0.2


def test_back_off_settings_are_searched_and_both_kinds_are_shown(made: tuple[Path, str, Capacity]) -> None:
    out, text, plan = made
    labels = [one.label for one in plan.back_offs]
    assert {"as configured", "full jitter, same cap"} < set(labels)
    best, configured = plan.back_offs[0], next(one for one in plan.back_offs if one.label == "as configured")
    assert best.jitter == 1.0 and configured.jitter == 0.0
    assert best.back_95_s is not None and best.back_95_s < 3 * plan.floor_s
    assert configured.back_95_s is None or configured.back_95_s > 5 * best.back_95_s
    assert best.settings in re.sub(r"\s+", " ", text)
    assert "no jitter" not in labels and "the storm repeats" in text
    assert "Connections back" in (out / "capacity.html").read_text()


def test_the_terminal_has_a_hundred_columns_and_the_last_line_is_the_directory(
    made: tuple[Path, str, Capacity],
) -> None:
    out, text, plan = made
    assert text.splitlines()[-1] == str(out)
    assert max(len(line) for line in text.splitlines()[:-1]) <= WIDTH
    assert [title for title, _ in tables(plan)] == [
        "LOAD", "QUOTAS", "RECOVERY", "COST", "WHAT BREAKS FIRST", "BACK-OFF", "EXTRAPOLATION",
        "TOLD AND SEEN",
    ]  # fmt: skip


def test_the_page_opens_offline_and_escapes_what_it_shows(made: tuple[Path, str, Capacity]) -> None:
    out, _, plan = made
    page = (out / "capacity.html").read_text()
    assert "<script" not in page and "http" not in page.replace("http://www.w3.org", "").replace("http-equiv", "")
    assert "prefers-color-scheme: dark" in page and page.count("<svg") == 2
    hostile = msgspec.structs.replace(plan, scenario="<b>x</b>", preset="<i>\x1b", reproduce="<u>'")
    shown = render(hostile)
    assert "<b>x</b>" not in shown and "<i>" not in shown and "<u>" not in shown and "\x1b" not in shown
    assert "\x1b" not in "".join(line.plain for line in capacity_lines(hostile))


def test_the_csv_holds_every_figure_of_every_size(made: tuple[Path, str, Capacity]) -> None:
    out, _, plan = made
    rows = list(csv.DictReader(io.StringIO((out / "capacity.csv").read_text())))
    assert (out / "capacity.csv").read_text() == capacity_csv(plan)
    for size in ("20", "40", "150"):
        names = {row["figure"] for row in rows if row["devices"] == size and row["how"] in ("simulated", "scaled")}
        assert names >= {*FIGURES, "share.connects_per_s", "recovery.back_95_s", "cost.total"}

    told_of = {row["figure"]: row for row in rows if row["how"] == "told"}
    seen = {row["figure"]: row for row in rows if row["how"] == "seen"}
    assert told_of.keys() == seen.keys() > FIGURES.keys()
    for name, row in told_of.items():
        if row["error"]:
            was = float(seen[name]["value"])
            assert float(row["error"]) == pytest.approx((float(row["value"]) - was) / was if was else 0.0)
    assert all(float(row["low"]) <= float(row["high"]) for row in rows if row["low"])


def test_a_plan_repeats_from_its_command(made: tuple[Path, str, Capacity]) -> None:
    plan = made[2]
    assert plan.reproduce.startswith("fleet capacity storm-full-jitter --devices 20,40,150 --simulate-up-to 40")
    wanted = Wanted("storm-full-jitter", (50,), 100, preset="aws-iot-default", changes=("cloud.connects_per_s=20",))
    studies = [Study(wanted, lambda words: None, lambda: False) for _ in range(2)]
    for study in studies:
        study.run_all()
    assert told(studies[0]) == told(studies[1])


def test_a_scenario_without_quotas_gets_the_default_preset_and_one_without_an_outage_no_search(tmp_path: Path) -> None:
    result = CliRunner().invoke(
        build_app(),
        ["capacity", "baseline", "--devices", "20", "--set", "duration=5m", "--json", "--out", str(tmp_path / "out")],
    )
    assert result.exit_code == 0, result.output
    plan = json.loads(result.stdout[: result.stdout.rindex("}") + 1])
    assert plan["preset"] == "aws-iot-default" and plan["back_offs"] == [] and plan["held_out"] is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["capacity", "outage", "--devices", "1000,x"], "found 'x'"),
        (["capacity", "outage", "--devices", "0"], "from 1 to"),
        (["capacity", "outage", "--devices", "1,2,3,4,5,6,7"], "7 sizes, at most 6"),
        (["capacity", "outage", "--devices", "1"], "fewer devices than groups (2)"),
        (["capacity", "outage", "--devices", "10", "--simulate-up-to", "1"], "fewer devices than groups (2)"),
        (["capacity", "outag", "--devices", "10"], "outag"),
        (["capacity", "outage", "--devices", "10", "--preset", "aws"], "unknown preset 'aws'"),
    ],
)
def test_what_cannot_be_planned_is_refused_before_anything_runs(arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(build_app(), arguments)
    assert isinstance(result.exception, InputError)
    assert message in "\n".join(map(str, result.exception.problems))


def test_sizes_are_read() -> None:
    assert parse_sizes("1000, 10_000,1000") == (1_000, 10_000)


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "0"), (0.25, "0.25"), (812.4, "812"), (12_345, "12.3 k"), (3_020_000, "3.02 M")]
)
def test_counts_are_short(value: float, text: str) -> None:
    assert count_text(value) == text


MEASURED = ["capacity", "storm-full-jitter", "--devices", "20,40", "--simulate-up-to", "40", "--parts", "20,40"]
MEASURED += ["--measure", "80", "--no-search", "--set", "cloud.connects_per_s=20", "-q"]


def test_a_size_is_told_and_seen_and_runs_are_kept(tmp_path: Path) -> None:
    kept = tmp_path / "runs"
    first = CliRunner().invoke(
        build_app(), [*MEASURED, "--jobs", "2", "--runs", str(kept), "--out", str(tmp_path / "a")]
    )
    assert first.exit_code == 0, first.output
    plan = msgspec.json.decode((tmp_path / "a" / "capacity.json").read_bytes(), type=Capacity)
    assert [(row.devices, row.how) for row in plan.rows] == [(20, "simulated"), (40, "simulated"), (80, "simulated")]
    assert plan.held_out is not None and (plan.held_out.devices, plan.held_out.by) == (80, [20, 40])
    assert "--parts 20,40 --measure 80" in plan.reproduce
    files = {path: path.stat().st_mtime_ns for path in kept.iterdir()}
    assert len(files) == 5  # 20, 40 and 80 as they are; 80 by 20 and by 40
    # One after the other, from what was kept but for one run that was cut off: the same plan.
    broken = next(iter(files))
    broken.write_bytes(broken.read_bytes()[:99])
    again = CliRunner().invoke(build_app(), [*MEASURED, "--runs", str(kept), "--out", str(tmp_path / "b")])
    assert again.exit_code == 0, again.output
    for name in ("capacity.csv", "capacity.html"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert [path for path in kept.iterdir() if path.stat().st_mtime_ns != files[path]] == [broken]


@pytest.mark.parametrize(("price", "dollars"), [([], None), (["--price", "hub_unit=12.5"], 12.5)])
def test_a_cloud_whose_prices_nobody_knows_is_billed_in_units(
    tmp_path: Path, price: list[str], dollars: float | None
) -> None:
    arguments = ["capacity", "baseline", "--devices", "20", "--set", "duration=5m", "--preset", "azure-iot-hub-s1"]
    result = CliRunner().invoke(build_app(), [*arguments, *price, "--out", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    plan = msgspec.json.decode((tmp_path / "out" / "capacity.json").read_bytes(), type=Capacity)
    (item,) = plan.rows[0].cost
    assert (item.item, item.quantity, item.dollars, plan.rows[0].dollars) == ("hub units", 1.0, dollars, dollars)
    assert ("1 units" in result.stdout) == (dollars is None) and ("$12.50" in result.stdout) == (dollars is not None)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--price", "hub_unit=9", "no item 'hub_unit' in this bill"),
        ("--price", "messages=cheap", "expected dollars, found 'cheap'"),
        ("--parts", "500", "no part is smaller than the largest size"),
        ("--measure", "many", "found 'many'"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused(option: str, value: str, message: str) -> None:
    result = CliRunner().invoke(build_app(), ["capacity", "outage", "--devices", "10", option, value])
    assert isinstance(result.exception, InputError)
    assert message in "\n".join(map(str, result.exception.problems))
