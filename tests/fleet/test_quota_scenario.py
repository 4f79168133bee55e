"""Quotas as a scenario writes them: presets with their sources, changes to them, what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from scenario_rig import GOOD, loaded, problems

from fleet.quota.presets import PRESETS
from fleet.scenario.build import build_plan
from fleet.scenario.effective import effective_yaml
from fleet.scenario.load import load
from fleet.scenario.plan import Plan, QuotaPlan


def plan_of(directory: Path, cloud: str) -> Plan:
    return build_plan(loaded(directory, GOOD + f"cloud: {{{cloud}}}\n"))


def quotas(directory: Path, cloud: str) -> QuotaPlan:
    found = plan_of(directory, cloud).quotas
    assert found is not None
    return found


def test_a_scenario_that_says_nothing_of_quotas_has_none(tmp_path: Path) -> None:
    assert build_plan(loaded(tmp_path)).quotas is None
    assert plan_of(tmp_path, "workers: 3").quotas is None


@pytest.mark.parametrize("name", PRESETS)
def test_every_number_of_a_preset_has_its_source_and_a_place_in_the_plan(tmp_path: Path, name: str) -> None:
    made = quotas(tmp_path, f"preset: {name}")
    assert made.preset == name and made.shared == 1.0
    assert set(made.sources.values()) <= {"v", "2", "a"}
    for key, (value, mark) in PRESETS[name].items():
        if key != "connects_least_per_s":
            assert made.sources[key] == mark
            assert getattr(made, key) == value or name == "azure-iot-hub-s1"


def test_the_presets_of_aws_are_the_three_that_plans_assume(tmp_path: Path) -> None:
    rates = {size: quotas(tmp_path, f"preset: aws-iot-{size}").connects_per_s for size in ("large", "default", "small")}
    assert rates == {"large": 3_000, "default": 500, "small": 100}
    default = quotas(tmp_path, "preset: aws-iot-default")
    assert (default.client_connects_per_s, default.connections, default.refusal) == (1, 500_000, "silent")
    assert (default.partition_writes_per_s, default.partition_reads_per_s) == (1_000, 3_000)


@pytest.mark.parametrize(
    ("preset", "units", "connects", "daily"),
    [
        ("s1", 1, 100, 400_000),
        ("s1", 10, 120, 4_000_000),
        ("s2", 3, 360, 18_000_000),
        ("s3", 2, 12_000, 600_000_000),
    ],
)
def test_an_azure_hub_has_its_quotas_by_units(
    tmp_path: Path, preset: str, units: int, connects: float, daily: int
) -> None:
    made = quotas(tmp_path, f"preset: azure-iot-hub-{preset}, units: {units}")
    assert (made.connects_per_s, made.publishes_in_per_s, made.messages_per_day) == (connects, connects, daily)
    assert (made.refusal, made.message_bytes, made.table_writes_per_s) == ("code", 4_096, 0)


def test_every_value_of_a_preset_can_be_overridden_and_taken_away(tmp_path: Path) -> None:
    made = quotas(tmp_path, "preset: aws-iot-default, connects_per_s: 700, functions: 0, payload_bytes: 64kb")
    assert (made.connects_per_s, made.functions, made.payload_bytes) == (700, 0, 65_536)
    assert made.sources["connects_per_s"] == "scenario" and made.sources["connections"] == "v"
    alone = quotas(tmp_path, "connects_per_s: 0.5, table_doubling: 5m")
    assert (alone.preset, alone.connects_per_s, alone.table_doubling_us) == ("", 0.5, 300_000_000)
    assert alone.publishes_in_per_s == 0


def test_the_effective_scenario_has_the_same_quotas(tmp_path: Path) -> None:
    scenario = loaded(tmp_path, GOOD + "cloud: {preset: azure-iot-hub-s2, units: 2, over_publishes: delay}\n")
    path = tmp_path / "effective.yaml"
    path.write_text(effective_yaml(scenario))
    assert build_plan(load(path)).quotas == build_plan(scenario).quotas
    plain = effective_yaml(loaded(tmp_path))
    assert "preset" not in plain and "connects_per_s" not in plain


def test_a_plan_with_quotas_is_read_back(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, "preset: aws-iot-small")
    assert Plan.decode(plan.encode()) == plan


@pytest.mark.parametrize(
    ("cloud", "message", "hint"),
    [
        ("preset: aws-iot-defalt", "unknown preset 'aws-iot-defalt'", "did you mean aws-iot-default?"),
        ("preset: gcp", "unknown preset 'gcp'", "one of aws-iot-large"),
        ("connects_per_s: -1", "-1", ""),
        ("refusal: rudely", "refusal", ""),
        ("conects_per_s: 5", "conects_per_s", ""),
    ],
)
def test_a_quota_that_cannot_be_is_refused_with_its_place(tmp_path: Path, cloud: str, message: str, hint: str) -> None:
    (found,) = problems(tmp_path, GOOD + f"cloud: {{{cloud}}}\n")
    assert message in str(found) and hint in str(found)
    assert found.line == len(GOOD.splitlines()) + 1
