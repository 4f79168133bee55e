"""The scenarios that ship, the format's JSON Schema and the effective scenario: all agree with each other."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
from ruamel.yaml import YAML
from scenario_rig import GOOD, loaded, write

from fleet.scenario.build import build_plan
from fleet.scenario.effective import effective_yaml
from fleet.scenario.expect import ALWAYS_REQUIRED, CHECKS
from fleet.scenario.faults import KINDS
from fleet.scenario.json_schema import json_schema
from fleet.scenario.load import load
from fleet.scenario.model import Link
from fleet.scenario.orders import ORDERS
from fleet.scenario.presets import LINKS
from fleet.scenario.shipped import ROOT, header, scenario_paths

NAMES = [
    "baseline",
    "bit-rot",
    "certificate-expiry",
    "city-power-cut",
    "clones",
    "conflict",
    "device-restore",
    "firmware-wave",
    "full-disk",
    "hot-item",
    "lifetimes",
    "long-offline",
    "lossy-links",
    "mass-config",
    "month-end",
    "nb-iot-fleet",
    "noisy-neighbour",
    "outage",
    "poison",
    "reboot-storm",
    "relay-crash",
    "remote-commands",
    "remote-copies",
    "schema-rollout",
    "storm-full-jitter",
    "storm-no-jitter",
    "table-restore",
]
WAYS = {"Status": "up", "Config": "down", "Setting": "both", "Diagnostic": "device only", "Audit": "cloud only"}


def plain(text: str) -> Any:
    return json.loads(json.dumps(YAML(typ="safe", pure=True).load(text)))


def test_the_scenarios_that_should_ship_do() -> None:
    assert list(scenario_paths()) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_scenario_is_right_at_its_own_size_and_at_fifty_devices(name: str) -> None:
    scenario = load(name)
    assert scenario.name == name and scenario.description
    assert header(scenario_paths()[name]).count("Proves") == 1
    small = load(f"scenarios/{name}.yaml", devices=50)
    plan = build_plan(small, 7)
    assert len(plan.devices) == 50
    assert all(fault.events for fault in plan.faults if fault.name != "link-offline"), "a fault that never happens"


@pytest.mark.parametrize("name", [name for name in NAMES if name != "lifetimes"])
def test_a_shipped_scenario_writes_models_of_every_way(name: str) -> None:
    assert {workload.model for workload in load(name).workload} >= WAYS.keys()


def test_the_lifetimes_have_an_end_in_every_direction_a_period_and_a_memory() -> None:
    scenario = load("lifetimes")
    models = scenario.parsed_schema.models
    written = {(workload.side, models[workload.model].sync, workload.life_us[1] > 0) for workload in scenario.workload}
    ends = {("device", "up", True), ("device", "both", True), ("cloud", "both", True), ("cloud", "down", True)}
    assert written >= ends
    periods = {(workload.side, workload.action) for workload in scenario.workload if models[workload.model].period_ms}
    assert periods >= {("device", "update"), ("device", "toggle"), ("cloud", "toggle")}
    assert any(models[workload.model].mem for workload in scenario.workload)
    outlived = scenario.duration_us + scenario.phases.converge_within_us
    assert any(workload.life_us[0] > outlived for workload in scenario.workload)
    kinds = {fault.kind for fault in scenario.faults}
    assert kinds >= {"broker-outage", "link-down", "power-cut", "reboots", "clock", "messages"}


def test_the_remote_commands_are_of_every_kind_and_live_short_and_long() -> None:
    scenario = load("remote-commands")
    orders = [workload for workload in scenario.workload if workload.commands]
    assert {word for workload in orders for word in workload.commands} == set(ORDERS)
    ends = [workload.expires_us for workload in orders]
    assert min(low for low, _ in ends) <= 1_000_000 and max(high for _, high in ends) > scenario.duration_us
    kinds = {fault.kind for fault in scenario.faults}
    assert kinds >= {
        "link-down",
        "power-cut",
        "reboots",
        "clock",
        "messages",
        "stream-replay",
        "table-restore",
    }
    assert min(group.clock.offset_us for group in scenario.devices) < -50 * 365 * 24 * 3_600_000_000
    commands = {name for name in CHECKS if name.startswith("command-")}
    assert len(commands) == 5 and set(scenario.expect.checks) >= commands


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_scenario_keeps_its_items_bounded(name: str) -> None:
    workloads = [workload for workload in load(name).workload if workload.action == "create"]
    assert all(workload.keep or 0 < workload.life_us[1] < 3_600_000_000 for workload in workloads)


def test_the_outage_has_the_load_by_which_figures_are_compared() -> None:
    scenario = load("outage")
    plan = build_plan(scenario)
    load_of = {
        (one.side, one.model): (3_600_000_000 / one.every_us, one.jitter, one.bytes_min, one.bytes_max)
        for one in plan.workloads
    }
    assert len(plan.devices) == 2000 and scenario.duration_us == 3_600_000_000
    assert load_of == {
        ("device", "Status"): (60, 0.2, 200, 400),
        ("device", "Fault"): (2, 0, 200, 400),
        ("cloud", "Config"): (6, 0, 200, 400),
        ("cloud", "Command"): (1, 0, 200, 400),
        ("cloud", "Notice"): (6, 0, 200, 400),
        ("device", "Setting"): (1, 0, 200, 400),
        ("cloud", "Setting"): (1, 0, 200, 400),
        ("device", "Diagnostic"): (1, 0, 200, 400),
        ("cloud", "Audit"): (1, 0, 200, 400),
    }
    assert {(group.link.loss, group.link.burst > 1) for group in scenario.devices} == {(0.02, True)}


def test_the_baseline_has_nothing_that_goes_wrong() -> None:
    assert build_plan(load("baseline")).faults == []


@pytest.mark.parametrize("name", LINKS)
def test_every_link_profile_is_right(tmp_path: Path, name: str) -> None:
    link = loaded(tmp_path, GOOD.replace("link: lte", f"link: {name}")).devices[0].link
    assert link.profile == name and link.delay_us > 0
    assert Link.model_validate(name) == link


@pytest.mark.parametrize("name", [*NAMES, "starter/scenario"])
def test_a_shipped_scenario_meets_the_json_schema(name: str) -> None:
    jsonschema.Draft7Validator(json_schema()).validate(plain((ROOT / f"{name}.yaml").read_text()))


def test_the_json_schema_is_draft_07_and_every_key_has_a_description() -> None:
    schema = json_schema()
    jsonschema.Draft7Validator.check_schema(schema)
    assert schema["$schema"] == "http://json-schema.org/draft-07/schema#"
    assert '"$defs"' not in json.dumps(schema)
    parts = {"": schema, **schema["definitions"]}
    for name in ("Link", "Threshold"):  # that have a short form
        parts[name] = parts[name]["anyOf"][1]
    for name, part in parts.items():
        assert part["additionalProperties"] is False, name
        for key, entry in part["properties"].items():
            inner = [schema["definitions"][one["$ref"].split("/")[-1]] for one in entry.get("allOf", ())]
            assert any(one.get("description") for one in (entry, *inner)), f"{name}.{key}"
    kinds = {part["properties"]["kind"]["const"] for part in parts.values() if "kind" in part["properties"]}
    assert kinds == set(KINDS)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("count: 6", "cuont: 6"),
        ("count: 6", "count: -1"),
        ("duration: 30m", "duration: 30"),
        ("kind: power-cut", "kind: x"),
    ],
)
def test_the_json_schema_refuses_mistakes(old: str, new: str) -> None:
    validator = jsonschema.Draft7Validator(json_schema())
    assert validator.is_valid(plain(GOOD))
    assert not validator.is_valid(plain(GOOD.replace(old, new, 1)))


@pytest.mark.parametrize("name", NAMES)
def test_an_effective_scenario_loads_to_an_equal_one(tmp_path: Path, name: str) -> None:
    scenario = load(name, ["cloud.workers=3"], 60)
    text = effective_yaml(scenario)
    again = load(write(tmp_path, text))
    assert again.model_dump() == scenario.model_dump()
    plans = [msgspec.structs.replace(build_plan(one, 1), source="") for one in (scenario, again)]
    assert plans[0] == plans[1]
    jsonschema.Draft7Validator(json_schema()).validate(plain(text))


def test_an_effective_scenario_finds_a_schema_of_ones_own(tmp_path: Path) -> None:
    shutil.copy(
        ROOT / "schemas" / "fleet.json5", tmp_path / "fleet.json5"
    )  # beside the scenario, by a shipped one's name
    scenario = loaded(tmp_path, GOOD)
    (tmp_path / "runs").mkdir()
    again = load(write(tmp_path / "runs", effective_yaml(scenario)))
    assert again.parsed_schema.file == scenario.parsed_schema.file == str(tmp_path / "fleet.json5")


def test_the_checks_that_a_scenario_may_ask_for_are_the_oracles() -> None:
    assert set(ALWAYS_REQUIRED) | {"direction", "feed-dense", "writes-survive-power-cuts"} <= set(CHECKS)
